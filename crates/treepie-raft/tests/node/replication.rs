//! What a cluster promises, with the nodes that it takes.

use std::time::Duration;

use treepie::{Error, ids::Lsn};
use treepie_raft::{NodeError, ids::NodeId, members::Change};
use treepie_snapshot::{BackupOptions, Control, backup};

use crate::cluster::{Cluster, PATIENCE, wait};

fn put(cluster: &Cluster, key: &str, value: &str) -> Lsn {
    let mut lsn = Lsn(0);
    wait("a write is taken", || {
        let written = cluster.node(cluster.leader()).write(|tx| tx.tree("t")?.insert(key, value));
        match written {
            Ok(receipt) => {
                lsn = receipt.lsn;
                true
            }
            // What may be done already does no harm when it is done again.
            Err(NodeError::Engine(Error::NotLeader { .. } | Error::OutcomeUnknown { .. })) => false,
            Err(error) => panic!("{error}"),
        }
    });
    lsn
}

fn get(cluster: &Cluster, node: u64, key: &str) -> Option<Vec<u8>> {
    let snapshot = cluster.node(node).read_linearizable(PATIENCE).expect("a quorum");
    let tree = snapshot.tree("t").expect("the tree");
    tree.get(key).expect("whole").map(<[u8]>::to_vec)
}

/// The hash of all pages of a node that shows this LSN.
fn page_hash(cluster: &Cluster, node: u64) -> (Lsn, String) {
    let database = cluster.node(node).database().expect("it runs");
    let (_, report) =
        backup(&database, std::io::sink(), &BackupOptions::new(), Control::new()).expect("whole");
    (report.summary.last.lsn, format!("{:?}", report.summary.page_hash))
}

#[test]
fn what_is_written_on_the_leader_is_read_on_every_node_with_the_same_pages() {
    let cluster = Cluster::of(3);
    let mut last = Lsn(0);
    for n in 0..200 {
        last = put(&cluster, &format!("key-{n}"), &"v".repeat(n));
    }
    for node in 1..=3 {
        assert_eq!(get(&cluster, node, "key-7"), Some(b"vvvvvvv".to_vec()), "node {node}");
    }
    cluster.wait_for(last);
    let hashes: Vec<_> = (1..=3).map(|node| page_hash(&cluster, node)).collect();
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[0], hashes[2]);
}

#[test]
fn a_follower_refuses_writes_and_says_who_leads() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let other = (1..=3).find(|id| *id != leader).expect("there are three");
    wait("the follower has heard of the leader", || cluster.node(other).leader().is_some());
    match cluster.node(other).write(|tx| tx.tree("t")?.insert("a", "b")) {
        Err(NodeError::Engine(Error::NotLeader { leader: Some(id) })) => assert_eq!(id, leader),
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_leader_goes_and_it_catches_up_when_it_is_back() {
    let mut cluster = Cluster::of(3);
    put(&cluster, "before", "1");
    let first = cluster.leader();
    cluster.stop(first);
    put(&cluster, "after", "2");
    let second = cluster.leader();
    assert_ne!(first, second);
    assert_eq!(get(&cluster, second, "before"), Some(b"1".to_vec()));
    cluster.restart(first);
    let last = put(&cluster, "back", "3");
    cluster.wait_for(last);
    assert_eq!(get(&cluster, first, "after"), Some(b"2".to_vec()));
    assert_eq!(page_hash(&cluster, first), page_hash(&cluster, second));
}

#[test]
fn a_node_that_slept_while_the_journal_was_trimmed_is_given_all_pages() {
    let mut cluster = Cluster::of(3);
    put(&cluster, "before", "1");
    let leader = cluster.leader();
    let sleeper = (1..=3).find(|id| *id != leader).expect("there are three");
    cluster.stop(sleeper);
    let database = cluster.node(leader).database().expect("it runs");
    let slept_at = cluster.node(leader).status().expect("it runs").database.committed;
    let mut last = Lsn(0);
    // Segments grow to megabytes, and those behind the checkpoint go.
    wait("the journal is trimmed", || {
        let filler = "x".repeat(200_000);
        last = put(&cluster, "filler", &filler);
        database.checkpoint().expect("it checkpoints");
        matches!(database.records(slept_at), Err(Error::Trimmed { .. }))
    });
    cluster.restart(sleeper);
    cluster.wait_for(last);
    assert_eq!(get(&cluster, sleeper, "before"), Some(b"1".to_vec()));
    let last = put(&cluster, "later", "2");
    cluster.wait_for(last);
    assert_eq!(page_hash(&cluster, sleeper), page_hash(&cluster, leader));
}

#[test]
fn leadership_is_handed_over_and_a_removed_node_is_out() {
    let cluster = Cluster::of(3);
    let leader = cluster.leader();
    let next = (1..=3).find(|id| *id != leader).expect("there are three");
    cluster.node(leader).transfer(NodeId(next)).expect("it leads");
    wait("the other leads", || cluster.node(next).is_leading());
    put(&cluster, "a", "1");
    let removed = (1..=3).find(|id| *id != leader && *id != next).expect("there are three");
    wait("it is removed", || {
        cluster.node(cluster.leader()).change(Change::Remove(NodeId(removed))).is_ok()
    });
    let last = put(&cluster, "b", "2");
    for node in [leader, next] {
        cluster.node(node).read_at_least(last, PATIENCE).expect("it gets there");
    }
    assert!(cluster.node(next).members().get(NodeId(removed)).is_none());
}

#[test]
fn a_stale_read_says_how_old_it_may_be_and_is_refused_without_a_leader() {
    let mut cluster = Cluster::of(3);
    put(&cluster, "a", "1");
    let leader = cluster.leader();
    let follower = (1..=3).find(|id| *id != leader).expect("there are three");
    wait("the follower is in touch", || {
        cluster.node(follower).read_stale(Duration::from_secs(5)).is_ok()
    });
    for id in (1..=3).filter(|id| *id != follower) {
        cluster.stop(id);
    }
    wait("it notices", || {
        let read = cluster.node(follower).read_stale(Duration::from_millis(50));
        matches!(read, Err(NodeError::Stale { .. }))
    });
    let read = cluster.node(follower).read_linearizable(Duration::from_millis(50));
    assert!(matches!(read, Err(NodeError::Read(_))), "{read:?}");
}
