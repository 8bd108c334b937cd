//! Journals that take their time: commits wait for a majority, and for nobody in particular.

use std::thread;

use treepie_raft::node::{Bug, Probe};
use treepie_testkit::tally;

use crate::{
    cluster::Cluster,
    gate::{Opened, PATIENCE, SHORT_PATIENCE, wait_for},
};

/// Writes that are acknowledged while a journal's sync is held.
const WRITES: usize = 50;

/// Commits while the sync of one node is held, of the leader or of a follower.
fn commit_meanwhile(of_leader: bool, bug: Option<Bug>) -> Result<(), String> {
    let cluster = Cluster::with(vec![Probe::default().bug(bug); 3]);
    let patience = if bug.is_some() { SHORT_PATIENCE } else { PATIENCE };
    let leader = cluster.leader();
    let slow = if of_leader { leader } else { cluster.follower() };
    let gate = &cluster.faults[slow as usize - 1].syncs;
    cluster.put("before", "1");
    let outcome = thread::scope(|scope| {
        let _opened = Opened(gate);
        gate.shut();
        let node = cluster.node(leader);
        let writes = scope.spawn(|| {
            for n in 0..WRITES {
                node.write(|tx| tx.tree("t")?.insert(format!("key-{n}"), "1"))
                    .map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        });
        wait_for(patience, "the sync is held", || gate.is_waited_at())?;
        wait_for(patience, "writes are acknowledged meanwhile", || writes.is_finished())?;
        if !gate.is_waited_at() {
            return Err("the sync was not held".to_owned());
        }
        writes.join().expect("it does not panic")
    });
    outcome?;
    let last = cluster.put("after", "1");
    for id in 1..=3 {
        cluster.node(id).read_at_least(last, PATIENCE).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[test]
fn commits_go_on_while_the_sync_of_any_one_node_is_held() {
    commit_meanwhile(true, None).expect("the leader does not wait for itself");
    commit_meanwhile(false, None).expect("nobody waits for one follower");
    tally::note(15, "commits while a sync is held", &format!("writes {}", 2 * WRITES));
}

#[test]
fn commit_that_waits_for_the_sync_of_the_leader_is_found() {
    assert!(commit_meanwhile(true, Some(Bug::OwnSyncAwaited)).is_err());
}
