//! A node is given all pages anew: its database is exchanged, and at each step of that it may be cut off.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use treepie::{
    Error,
    ids::{Lsn, Term},
    replication::{Outlet, SharedRecord},
};
use treepie_raft::{
    Node, NodeError,
    node::{Bug, Probe, Step},
};
use treepie_testkit::tally;

use crate::{
    cluster::{Cluster, value},
    gate::{Gate, Opened, PATIENCE, wait},
};

const SLEEPER: u64 = 3;
/// What fails, or is cut off, one at a time.
const STEPS: [Step; 8] = [
    Step::Receiving,
    Step::Received,
    Step::Stopped,
    Step::Prepared,
    Step::Installed,
    Step::Aside,
    Step::Swapped,
    Step::Started,
];

struct Nowhere;

impl Outlet for Nowhere {
    fn sealed(&self, _: SharedRecord) {}
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&from, &to)?
        } else {
            fs::copy(from, to).map(drop)?
        }
    }
    Ok(())
}

/// What a kill would leave of the sleeper at this moment.
fn copy_all(dir: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(&format!("node-{SLEEPER}")) {
            copy(&entry.path(), &to.join(name))?;
        }
    }
    Ok(())
}

/// A cluster whose third node lacks what is not in the journal any more; the LSN that it had, and the last.
fn with_sleeper() -> (Cluster, Lsn, Lsn) {
    let mut cluster = Cluster::of_three();
    if cluster.leader() == SLEEPER {
        cluster.node(SLEEPER).transfer(treepie_raft::ids::NodeId(1)).expect("it leads");
        wait("another leads", || cluster.node(1).is_leading()).expect("nothing is wrong");
    }
    let old = cluster.put("state", "old");
    cluster.node(SLEEPER).read_at_least(old, PATIENCE).expect("it gets there");
    let new = cluster.sleep_too_long(SLEEPER);
    (cluster, old, new)
}

/// Opens what a cut has left: old or new, never none, never half; and with the term that it had.
fn check_image(
    cluster: &Cluster,
    image: &Path,
    bug: Option<Bug>,
    (old, new): (Lsn, Lsn),
) -> Result<&'static str, String> {
    let path = image.join(format!("node-{SLEEPER}"));
    let said = |error: &dyn std::fmt::Display| format!("{}: {error}", image.display());
    // As a start does it, with what is left of the exchange.
    let options = cluster.options(SLEEPER).probe(Probe::default().bug(bug));
    let node = Node::open(&path, options).map_err(|error| said(&error))?;
    node.stop().map_err(|error| said(&error))?;
    for left in ["received", "installed", "replaced"] {
        let left = image.join(format!("node-{SLEEPER}.{left}"));
        if left.exists() {
            return Err(format!("{} is left", left.display()));
        }
    }
    let database = treepie::Options::new().open(&path).map_err(|error| said(&error))?;
    let report = database.check().map_err(|error| said(&error))?;
    if !report.is_clean() {
        return Err(format!("{}: {:?}", image.display(), report.problems));
    }
    let door = database.replicate(Arc::new(Nowhere)).map_err(|error| said(&error))?;
    if door.state().hard_state.term < Term(2) {
        return Err(format!("{}: it has forgotten its term", image.display()));
    }
    let snapshot = database.read().map_err(|error| said(&error))?;
    let state = value(&snapshot, "state").map_err(|error| said(&error))?;
    match state.as_deref() {
        Some("old") if snapshot.lsn() >= old && snapshot.lsn() < new => Ok("old"),
        Some("new") if snapshot.lsn() >= new => Ok("new"),
        state => Err(format!("{}: {state:?} at {}", image.display(), snapshot.lsn())),
    }
}

/// Cuts an exchange at each step; how many states were old, and how many new.
fn cut_everywhere(bug: Option<Bug>) -> Result<(usize, usize), String> {
    let (mut cluster, old, new) = with_sleeper();
    let (dir, images) = (cluster.dir(), cluster.dir().join("images"));
    let cuts = Arc::new(Mutex::new(Vec::new()));
    let (noted, to) = (Arc::clone(&cuts), images.clone());
    cluster.probes[2] = Probe::default().bug(bug).step(move |step| {
        if STEPS.contains(&step) && !noted.lock().contains(&step) {
            noted.lock().push(step);
            copy_all(&dir, &to.join(format!("{step:?}")))?;
        }
        Ok(())
    });
    cluster.restart(SLEEPER);
    cluster.node(SLEEPER).read_at_least(new, PATIENCE).map_err(|error| error.to_string())?;
    wait("each step has come", || cuts.lock().len() == STEPS.len())?;
    cluster.stop_all();
    let (mut old_states, mut new_states) = (0, 0);
    for step in STEPS {
        let image = images.join(format!("{step:?}"));
        match check_image(&cluster, &image, bug, (old, new))? {
            "old" => old_states += 1,
            _ => new_states += 1,
        }
    }
    Ok((old_states, new_states))
}

#[test]
fn exchange_that_is_cut_at_any_step_leaves_the_old_database_or_the_new_one() {
    let (old, new) = cut_everywhere(None).expect("old or new");
    assert_eq!(old + new, STEPS.len());
    assert!(old > 0 && new > 0);
    let counts = format!("cuts {}: old {old}, new {new}", STEPS.len());
    tally::note(15, "exchange of a database: cuts", &counts);
}

#[test]
fn cuts_of_an_exchange_find_planted_bugs() {
    for bug in [Bug::OldRemovedFirst, Bug::InstalledWithoutVote, Bug::ExchangeNotCompleted] {
        let found = cut_everywhere(Some(bug));
        assert!(found.is_err(), "{bug:?} was not found");
    }
}

/// A step fails once. The node goes on with one of its databases, or says that it does not run; it gets
/// there in the end.
fn fail_at(step: Step, bug: Option<Bug>) -> Result<(), String> {
    let (mut cluster, _, new) = with_sleeper();
    let has_failed = Arc::new(AtomicBool::new(false));
    let failed = Arc::clone(&has_failed);
    cluster.probes[2] = Probe::default().bug(bug).step(move |at| {
        if at == step && !failed.swap(true, SeqCst) {
            return Err(io::Error::other("the test wants it to fail"));
        }
        Ok(())
    });
    cluster.restart(SLEEPER);
    wait("the step has failed", || has_failed.load(SeqCst))?;
    if step == Step::Swapped {
        // Nobody knows who has the name: it must not go on with the folder of the other one.
        wait("it has stopped", || cluster.node(SLEEPER).leader().is_none())?;
        let status = cluster.node(SLEEPER).database();
        if !matches!(status, Err(NodeError::NotRunning)) {
            return Err("it goes on, and its folder has another name".to_owned());
        }
        cluster.stop(SLEEPER);
        cluster.restart(SLEEPER);
    }
    cluster.node(SLEEPER).read_at_least(new, PATIENCE).map_err(|error| error.to_string())?;
    let last = cluster.put("later", "1");
    cluster.node(SLEEPER).read_at_least(last, PATIENCE).map_err(|error| error.to_string())?;
    let leader = cluster.leader();
    if cluster.page_hash(SLEEPER) != cluster.page_hash(leader) {
        return Err("its pages differ".to_owned());
    }
    Ok(())
}

#[test]
fn exchange_of_which_a_step_fails_is_done_again_or_stops_the_node_until_it_is_started() {
    for step in STEPS {
        fail_at(step, None).unwrap_or_else(|error| panic!("{step:?}: {error}"));
    }
    tally::note(15, "exchange of a database: failures", &format!("steps {}", STEPS.len()));
}

#[test]
fn node_that_goes_on_in_a_folder_that_was_put_aside_is_found() {
    assert!(fail_at(Step::Swapped, Some(Bug::GoesOnAside)).is_err());
}

/// Reads while pages come, and while databases are exchanged.
fn read_meanwhile(bug: Option<Bug>) -> Result<(), String> {
    let (mut cluster, _, new) = with_sleeper();
    let (coming, stopped) = (Gate::default(), Gate::default());
    let _opened = (Opened(&coming), Opened(&stopped));
    coming.shut();
    stopped.shut();
    let gates = (coming.clone(), stopped.clone());
    cluster.probes[2] = Probe::default().bug(bug).step(move |step| {
        match step {
            Step::Receiving => gates.0.pass(),
            Step::Stopped => gates.1.pass(),
            _ => {}
        }
        Ok(())
    });
    cluster.restart(SLEEPER);
    wait("pages are about to come", || coming.is_waited_at())?;
    let node = cluster.node(SLEEPER);
    let old_handle = node.database().map_err(|error| error.to_string())?;
    // It hears of its leader, and still does not take what it has for fresh.
    wait("it knows who leads", || node.leader().is_some())?;
    for _ in 0..50 {
        if let Ok(snapshot) = node.read_stale(Duration::from_secs(3600))
            && value(&snapshot, "state").map_err(|error| error.to_string())?.as_deref()
                != Some("new")
        {
            return Err("an old state was taken for one that is fresh enough".to_owned());
        }
    }
    for read in [
        node.read_linearizable(Duration::from_millis(50)),
        node.read_at_least(new, Duration::from_millis(50)),
    ] {
        if !matches!(read, Err(NodeError::Read(_))) {
            return Err(format!("a read was answered before its state was there: {read:?}"));
        }
    }
    coming.open();
    wait("the replica has ended", || stopped.is_waited_at())?;
    let outcomes = thread::scope(|scope| {
        let reads = [
            scope.spawn(|| node.read_linearizable(PATIENCE)),
            scope.spawn(|| node.read_at_least(new, PATIENCE)),
        ];
        // A handle of the old database shows its last state, and takes no writes.
        let written = old_handle.write(|tx| tx.tree("t")?.insert("state", "wrong"));
        stopped.open();
        let outcomes = reads.map(|read| read.join().expect("it does not panic"));
        (outcomes, written)
    });
    let (reads, written) = outcomes;
    if !matches!(written, Err(Error::NotLeader { .. })) {
        return Err(format!("the old database took a write: {written:?}"));
    }
    for read in reads {
        let snapshot = read.map_err(|error| error.to_string())?;
        let state = value(&snapshot, "state").map_err(|error| error.to_string())?;
        if state.as_deref() != Some("new") {
            return Err(format!("a read was answered with {state:?}"));
        }
    }
    let old_state = old_handle.read().and_then(|snapshot| value(&snapshot, "state"));
    if !matches!(&old_state, Ok(Some(state)) if state == "old") {
        return Err(format!("a handle of the old database shows {old_state:?}"));
    }
    Ok(())
}

#[test]
fn node_that_is_given_all_pages_answers_nothing_wrong_meanwhile() {
    read_meanwhile(None).expect("nothing wrong");
}

#[test]
fn read_that_does_not_ask_for_the_age_of_a_state_is_found() {
    assert!(read_meanwhile(Some(Bug::AgeNotAsked)).is_err());
}

#[test]
fn node_that_is_stopped_in_an_exchange_leaves_a_database_that_opens() {
    for step in [Step::Receiving, Step::Received, Step::Stopped, Step::Installed, Step::Swapped] {
        let (mut cluster, old, new) = with_sleeper();
        let gate = Gate::default();
        let _opened = Opened(&gate);
        gate.shut();
        let at = gate.clone();
        cluster.probes[2] = Probe::default().step(move |here| {
            if here == step {
                at.pass();
            }
            Ok(())
        });
        cluster.restart(SLEEPER);
        wait("it comes to the step", || gate.is_waited_at()).expect("it does");
        let node = cluster.take(SLEEPER);
        let stopping = thread::spawn(move || node.stop());
        gate.open();
        stopping.join().expect("it does not panic").expect("it stops in order");
        cluster.stop_all();
        check_image(&cluster, &cluster.dir(), None, (old, new)).expect("old or new");
    }
}
