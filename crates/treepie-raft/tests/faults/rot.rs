//! Pages that rot on one node are taken from another one.

use std::{fs::OpenOptions, os::unix::fs::FileExt, path::Path, thread};

use treepie::{Error, ids::PageId};
use treepie_raft::node::{Bug, Probe};
use treepie_testkit::tally;

use crate::{
    cluster::{Cluster, value},
    gate::{PATIENCE, SHORT_PATIENCE, wait_for},
};

const PAGE_SIZE: usize = 8192;
const KEYS: usize = 3000;

fn key(n: usize) -> String {
    format!("key-{n:06}")
}

/// The leaves of the tree, and pages with large values, in a data file: those of them that a read meets.
fn pages_of_tree(path: &Path) -> Vec<PageId> {
    let data = std::fs::read(path.join("data")).expect("it is there");
    let pages = data.chunks_exact(PAGE_SIZE).enumerate();
    let of_tree = pages.filter(|(_, page)| {
        let has_key = page.windows(4).any(|bytes| bytes == b"-val");
        has_key && page[8..12] != [0; 4]
    });
    of_tree.map(|(id, _)| PageId(u32::try_from(id).expect("few pages"))).collect()
}

/// Flips a bit in the middle of a page.
fn flip(path: &Path, page: PageId) {
    let file = OpenOptions::new().read(true).write(true).open(path.join("data")).expect("there");
    let offset = u64::from(page.0) * PAGE_SIZE as u64 + 4321;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("it is there");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, offset).expect("it is there");
}

/// Three nodes with the same entries, all of them in their data files.
fn filled(bug: Option<Bug>) -> Cluster {
    let cluster = Cluster::with(vec![Probe::default().bug(bug); 3]);
    let leader = cluster.node(cluster.leader());
    let receipt = leader.write(|tx| {
        let mut tree = tx.tree("t")?;
        for n in 0..KEYS {
            tree.insert(key(n), format!("{n}-value"))?;
        }
        tree.insert("large", "large-value".repeat(5000))
    });
    let lsn = receipt.expect("it is taken").lsn;
    for id in 1..=3 {
        cluster.node(id).read_at_least(lsn, PATIENCE).expect("it gets there");
        cluster.node(id).database().expect("it runs").checkpoint().expect("it checkpoints");
    }
    cluster
}

/// Reads all entries of a node, as it has them.
fn read_all(cluster: &Cluster, id: u64) -> treepie::Result<usize> {
    let snapshot = cluster.node(id).database().expect("it runs").read()?;
    let mut count = 0;
    for entry in snapshot.tree("t")?.range::<&[u8]>(..) {
        let (_, bytes) = entry?;
        count += usize::from(bytes.windows(6).any(|part| part == b"-value"));
    }
    Ok(count)
}

/// Rots pages of one node while it sleeps, lets it read and apply, and waits until it is whole again.
fn rot(of_leader: bool, writes_on: bool, bug: Option<Bug>) -> Result<u64, String> {
    let mut cluster = filled(bug);
    let patience = if bug.is_some() { SHORT_PATIENCE } else { PATIENCE };
    let victim = if of_leader { cluster.leader() } else { cluster.follower() };
    cluster.stop(victim);
    let path = cluster.path(victim);
    let pages = pages_of_tree(&path);
    assert!(pages.len() > 10, "{pages:?}");
    let rotten: Vec<PageId> = pages.iter().copied().step_by(3).collect();
    rotten.iter().for_each(|page| flip(&path, *page));
    if writes_on {
        // Applying meets them before anybody reads.
        for n in (0..KEYS).step_by(7) {
            cluster.put(&key(n), &format!("{n}-value again"));
        }
    }
    cluster.restart(victim);
    if of_leader {
        let leader = cluster.leader();
        if leader != victim {
            wait_for(patience, "it leads again", || {
                let leader = cluster.leader();
                let _ = cluster.node(leader).transfer(treepie_raft::ids::NodeId(victim));
                cluster.node(victim).is_leading()
            })?;
        }
    }
    let last = cluster.put("later", "1");
    let seen = thread::scope(|scope| {
        let applying = scope.spawn(|| cluster.node(victim).read_at_least(last, patience));
        let seen = wait_for(patience, "all reads succeed", || match read_all(&cluster, victim) {
            Ok(count) => count == KEYS + 1,
            Err(Error::Corrupt { .. }) => false,
            Err(error) => panic!("{error}"),
        });
        let applied = applying.join().expect("it does not panic");
        seen.and(applied.map(drop).map_err(|error| error.to_string()))
    });
    seen?;
    let database = cluster.node(victim).database().map_err(|error| error.to_string())?;
    database.checkpoint().map_err(|error| error.to_string())?;
    let report = database.check().map_err(|error| error.to_string())?;
    if !report.is_clean() {
        return Err(format!("{:?}", report.problems));
    }
    let repairs = cluster.node(victim).status().map_err(|error| error.to_string())?.repairs;
    if repairs.damaged > 0 || repairs.repaired == 0 {
        return Err(format!("{repairs:?}"));
    }
    let last = cluster.put("last", "1");
    for id in 1..=3 {
        cluster.node(id).read_at_least(last, PATIENCE).map_err(|error| error.to_string())?;
    }
    let hashes: Vec<_> = (1..=3).map(|id| cluster.page_hash(id)).collect();
    if hashes[0] != hashes[1] || hashes[0] != hashes[2] {
        return Err(format!("pages differ: {hashes:?}"));
    }
    Ok(repairs.repaired)
}

#[test]
fn pages_that_rot_on_any_node_are_taken_from_another_one_whether_read_or_applied_first() {
    let mut repaired = Vec::new();
    for (of_leader, writes_on) in [(false, false), (false, true), (true, false)] {
        let done = rot(of_leader, writes_on, None);
        repaired.push(done.unwrap_or_else(|error| panic!("{of_leader} {writes_on}: {error}")));
    }
    tally::note(15, "damaged pages repaired", &format!("{repaired:?}"));
}

#[test]
fn node_that_repairs_nothing_is_found() {
    assert!(rot(false, false, Some(Bug::NeverRepairs)).is_err());
    assert!(rot(false, true, Some(Bug::ApplyingStops)).is_err());
}

#[test]
fn node_that_waits_for_a_page_stops_when_it_is_told_to() {
    let mut cluster = filled(Some(Bug::NeverRepairs));
    let victim = cluster.follower();
    cluster.stop(victim);
    let path = cluster.path(victim);
    pages_of_tree(&path).into_iter().for_each(|page| flip(&path, page));
    cluster.put(&key(7), "7-value again");
    cluster.restart(victim);
    let database = cluster.node(victim).database().expect("it runs");
    wait_for(PATIENCE, "applying meets a page", || !database.damaged_pages().is_empty())
        .expect("nobody repairs it");
    let node = cluster.take(victim);
    let stopping = thread::spawn(move || drop(node));
    // Far less than the time that applying would wait for the page.
    wait_for(SHORT_PATIENCE, "it stops", || stopping.is_finished()).expect("it stops at once");
    stopping.join().expect("it does not panic");
}

#[test]
fn page_is_repaired_when_it_is_asked_for_and_no_meta_page_is() {
    let cluster = filled(Some(Bug::NeverRepairs));
    let victim = cluster.follower();
    let path = cluster.path(victim);
    let page = pages_of_tree(&path)[1];
    flip(&path, page);
    let repairs = cluster.node(victim).repair(&[page, PageId(0)]).expect("it runs");
    assert_eq!((repairs.damaged, repairs.repaired), (0, 1), "{repairs:?}");
    assert_eq!(read_all(&cluster, victim).expect("whole"), KEYS + 1);
    let leader = cluster.leader();
    assert_eq!(cluster.node(leader).status().expect("it runs").repairs.served, 1);
    let snapshot = cluster.node(victim).database().expect("it runs").read().expect("a slot");
    assert_eq!(value(&snapshot, &key(7)).expect("whole").as_deref(), Some("7-value"));
}
