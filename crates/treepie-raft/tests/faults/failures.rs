//! Disks that fail, and threads that panic: the node stops, says why, and another one leads.

use std::{sync::atomic::Ordering::SeqCst, thread, time::Duration};

use treepie::{Error, ids::Lsn};
use treepie_raft::{
    Node, NodeError,
    node::{Bug, Probe, Step},
    replica::Stopped,
};
use treepie_testkit::tally;

use crate::{
    cluster::Cluster,
    gate::{PATIENCE, SHORT_PATIENCE, wait_for},
};

/// What fails of the leader's journal.
#[derive(Clone, Copy, Debug)]
enum Fails {
    Sync,
    Write,
}

fn fail_on_the_leader(what: Fails, bug: Option<Bug>) -> Result<(), String> {
    let probes = vec![Probe::default().bug(bug); 3];
    let cluster = Cluster::with(probes);
    let patience = if bug.is_some() { SHORT_PATIENCE } else { PATIENCE };
    let leader = cluster.leader();
    let mut acknowledged: Vec<String> = (0..20).map(|n| format!("before-{n}")).collect();
    for key in &acknowledged {
        cluster.put(key, "1");
    }
    let faults = &cluster.faults[leader as usize - 1];
    match what {
        Fails::Sync => faults.sync_fails.store(true, SeqCst),
        Fails::Write => faults.write_fails.store(true, SeqCst),
    }
    // What was acknowledged until then must be there; of the rest nobody said anything.
    acknowledged.extend(write_until_refused(cluster.node(leader), patience)?);
    wait_for(patience, "the leader says that it has stopped", || {
        let status = cluster.node(leader).status();
        matches!(status, Ok(status) if matches!(status.stopped, Some(Stopped::Journal(_))))
    })?;
    if cluster.node(leader).is_leading() {
        return Err("it leads on".to_owned());
    }
    let next = cluster.find_leader(&[leader])?;
    let last = cluster.put_but(&[leader], "after", "1")?;
    let others = (1..=3).filter(|id| *id != leader);
    for id in others {
        cluster.node(id).read_at_least(last, PATIENCE).map_err(|error| error.to_string())?;
    }
    let lost: Vec<_> = acknowledged.iter().filter(|key| cluster.get(next, key).is_none()).collect();
    if lost.is_empty() { Ok(()) } else { Err(format!("{lost:?} are lost")) }
}

/// Writes to a node until it refuses; what it has acknowledged. One that neither acknowledges nor refuses
/// is stopped.
fn write_until_refused(node: &Node, patience: Duration) -> Result<Vec<String>, String> {
    thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            loop {
                let key = format!("during-{}", acknowledged.len());
                match node.write(|tx| tx.tree("t")?.insert(&key, "1")) {
                    Ok(_) => acknowledged.push(key),
                    Err(NodeError::Engine(
                        Error::NotLeader { .. }
                        | Error::OutcomeUnknown { .. }
                        | Error::Poisoned { .. },
                    )) => return Ok(acknowledged),
                    Err(error) => return Err(error.to_string()),
                }
            }
        });
        let refused = wait_for(patience, "the leader refuses writes", || writes.is_finished());
        if refused.is_err() {
            node.stop().map_err(|error| error.to_string())?;
        }
        let acknowledged = writes.join().expect("it does not panic");
        refused.and(acknowledged)
    })
}

#[test]
fn leader_whose_journal_fails_stops_and_another_one_has_all_that_was_acknowledged() {
    for what in [Fails::Sync, Fails::Write] {
        fail_on_the_leader(what, None).unwrap_or_else(|error| panic!("{what:?}: {error}"));
    }
    tally::note(15, "leaders whose journal fails", "writes 1, syncs 1");
}

#[test]
fn failure_that_the_replica_does_not_hear_of_is_found() {
    assert!(fail_on_the_leader(Fails::Sync, Some(Bug::FailureUnheard)).is_err());
}

const THREADS: [&str; 4] = ["treepie journal", "treepie commit", "treepie feeder", "treepie raft"];

fn panic_in(name: &'static str, bug: Option<Bug>) -> Result<(), String> {
    let mut cluster = Cluster::of_three();
    let patience = if bug.is_some() { SHORT_PATIENCE } else { PATIENCE };
    cluster.put("before", "1");
    let victim = cluster.follower();
    cluster.stop(victim);
    cluster.probes[victim as usize - 1] = Probe::default().bug(bug).step(move |step| {
        assert!(step != Step::Begun(name), "the test wants a panic");
        Ok(())
    });
    cluster.restart(victim);
    // One that has lost the thread that answers says that it does not run.
    wait_for(patience, "the node says that it has stopped", || {
        match cluster.node(victim).status() {
            Ok(status) => matches!(status.stopped, Some(Stopped::Broken(_))),
            Err(error) => matches!(error, NodeError::NotRunning),
        }
    })?;
    let read = cluster.node(victim).read_at_least(Lsn(u64::MAX), PATIENCE);
    if read.is_ok() {
        return Err("it has answered a read of the future".to_owned());
    }
    // The others go on, and it does too when it is started again.
    let last = cluster.put_but(&[victim], "after", "1")?;
    cluster.stop(victim);
    cluster.probes[victim as usize - 1] = Probe::default();
    cluster.restart(victim);
    let read = cluster.node(victim).read_at_least(last, PATIENCE);
    read.map(drop).map_err(|error| error.to_string())
}

#[test]
fn node_of_which_a_thread_panics_stops_and_says_so() {
    for name in THREADS {
        panic_in(name, None).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    tally::note(15, "threads of a node that panic", &format!("threads {}", THREADS.len()));
}

#[test]
fn panic_that_nobody_notices_is_found() {
    assert!(panic_in("treepie journal", Some(Bug::PanicUnseen)).is_err());
}
