//! Page streams whose connections are cut go on where they were.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use treepie_raft::node::{Bug, Probe, Resumptions, Step};
use treepie_testkit::{Rng, tally};

use crate::{cluster::Cluster, gate::PATIENCE};

/// MiB of what is installed, at least, and after how many of these the connection is cut.
const MIBS: usize = 24;
const CUT_AFTER: [u64; 3] = [2, 9, 20];
const SEED: u64 = 0x7e5_0e4d;

/// Cuts the stream that a node gets; what was done again, summed up over the others.
fn cut(bug: Option<Bug>) -> Result<Resumptions, String> {
    let cuts = Arc::new(AtomicU64::new(0));
    let mut cluster = Cluster::with(vec![with_cuts(&cuts, bug); 3]);
    let mut rng = Rng::new(SEED);
    for n in 0..MIBS {
        let bytes = rng.bytes(1 << 20);
        let receipt = cluster
            .node(cluster.leader())
            .write(|tx| tx.tree("t")?.insert(format!("large-{n}"), bytes));
        receipt.map_err(|error| error.to_string())?;
    }
    let sleeper = cluster.follower();
    cluster.put("state", "old");
    let new = cluster.sleep_too_long(sleeper);
    // The cuts of the first nodes, which were without data, are none.
    cuts.store(1, SeqCst);
    cluster.restart(sleeper);
    let read = cluster.node(sleeper).read_at_least(new, PATIENCE);
    read.map_err(|error| error.to_string())?;
    let leader = cluster.leader();
    if cluster.page_hash(sleeper) != cluster.page_hash(leader) {
        return Err("its pages differ".to_owned());
    }
    if cuts.load(SeqCst) != 1 + CUT_AFTER.len() as u64 {
        return Err(format!("{} cuts, seed {SEED}", cuts.load(SeqCst)));
    }
    let resumptions = cluster.node(leader).status().map_err(|error| error.to_string())?.resumptions;
    let received = cluster.node(sleeper).status().map_err(|error| error.to_string())?.resumptions;
    if (resumptions.count, received.count) != (3, 3) {
        return Err(format!("{resumptions:?}, {received:?}"));
    }
    Ok(resumptions)
}

/// Cuts each stream where so much of it was sent, once each; 0 counted cuts mean that none is wanted yet.
fn with_cuts(cuts: &Arc<AtomicU64>, bug: Option<Bug>) -> Probe {
    let cuts = Arc::clone(cuts);
    Probe::default().bug(bug).step(move |step| {
        let Step::Sent(before, after) = step else { return Ok(()) };
        let done = cuts.load(SeqCst);
        let next = usize::try_from(done).ok().and_then(|done| CUT_AFTER.get(done.wrapping_sub(1)));
        match next {
            Some(at) if before < *at && after >= *at => {
                cuts.fetch_add(1, SeqCst);
                Err(io::Error::other("the test wants it to be cut"))
            }
            _ => Ok(()),
        }
    })
}

#[test]
fn page_stream_that_is_cut_goes_on_where_it_was() {
    let resumptions = cut(None).expect("it goes on");
    let again = resumptions.sent_again >> 10;
    // What sockets and chunks had, and never all that was sent: 31 MiB before the three cuts.
    assert!(again < 20 << 10, "{again} KiB were sent again");
    let counts = format!("cuts {}, sent again {again} KiB of {MIBS} MiB", CUT_AFTER.len());
    tally::note(15, "page streams cut", &counts);
}

#[test]
fn stream_that_begins_anew_after_a_cut_is_found() {
    assert!(cut(Some(Bug::NeverResumes)).is_err());
}
