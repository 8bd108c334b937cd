//! From a database to a running replica, and back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use crossbeam_channel::bounded;
use treepie::Database;

use super::{
    driver::{Driver, Hands},
    error::NodeError,
    feeder,
    input::{Input, SealedOutlet},
    log::DoorLog,
    probe::{Bug, Step},
    shared::{Link, Running, Shared},
    works::{self, Works},
    writer::{Decider, JournalWriter},
};
use crate::{
    members::Place,
    replica::{Options, Replica},
    transport::Transport,
};

/// Messages that wait for their records to be read, at most; more are dropped, and sent again later.
const WANTED_MAX: usize = 1024;

/// The thread that reads what others lack.
const FEEDER: &str = "treepie feeder";

/// Begins to take part in the cluster with a database.
pub(super) fn start(shared: &Arc<Shared>, database: Database) -> Result<Running, NodeError> {
    let works = Arc::new(Works::new());
    let outlet = Arc::new(SealedOutlet(Arc::clone(&works)));
    let door = database.replicate(outlet)?;
    let log = Arc::new(DoorLog::new(door, shared.options.probe.clone()));
    let replica = Replica::open(Arc::clone(&log), options(shared)?, shared.clock.now())?;
    shared.meet(&replica.status().members);
    let place = Place { address: shared.address(), label: shared.options.label.clone() };
    shared.moves.note(shared.options.id, place);
    shared.note(&replica, &log);
    works.concerns(shared, &log);
    for waiting in shared.left.lock().drain(..) {
        works.replica.leave(Input::Read(waiting), 0);
    }
    let threads = spawn(shared, &log, replica, &works).inspect_err(|_| {
        // Those that were begun end.
        works.replica.put(Input::Stop);
    })?;
    Ok(Running { database, log, works, threads })
}

fn options(shared: &Shared) -> Result<Options, NodeError> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| NodeError::Stream(error.into()))?;
    let options = &shared.options;
    let found =
        options.found.then(|| Place { address: shared.address(), label: options.label.clone() });
    Ok(Options {
        found,
        tick: options.tick,
        election_ticks: options.election_ticks,
        heartbeat_ticks: options.heartbeat_ticks,
        lease: options.lease,
        ..Options::new(options.id, u64::from_le_bytes(seed))
    })
}

fn spawn(
    shared: &Arc<Shared>,
    log: &Arc<DoorLog>,
    replica: Replica<DoorLog>,
    works: &Arc<Works>,
) -> Result<Vec<thread::JoinHandle<()>>, NodeError> {
    let transport: Arc<dyn Transport> = Arc::new(Link(Arc::clone(shared)));
    let (feeder, wanted) = bounded(WANTED_MAX);
    let hands = Hands {
        log: Arc::clone(log),
        transport: Arc::clone(&transport),
        works: Arc::clone(works),
        feeder,
        shared: Arc::clone(shared),
    };
    let driver = Driver::new(replica, hands, shared.options.tick);
    let (log, works) = (Arc::clone(log), Arc::clone(works));
    works.journal.begin(JournalWriter { log: Arc::clone(&log), works: Arc::clone(&works) });
    let decider = Decider { log: Arc::clone(&log), works: Arc::clone(&works), waiting: None };
    works.decisions.begin(decider);
    works.replica.begin(driver);
    let mut threads = Vec::new();
    let mut begin = |name: &'static str, work: Box<dyn FnOnce() + Send>| {
        let (probe, with) = (shared.options.probe.clone(), Arc::clone(&works));
        let watched = move || {
            let begun = || probe.at(Step::Begun(name)).map(|()| work());
            let ended = catch_unwind(AssertUnwindSafe(begun));
            if ended.is_err() && !probe.has(Bug::PanicUnseen) {
                with.panicked(name);
            }
        };
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(watched);
        spawned.map(|thread| threads.push(thread)).map_err(NodeError::Stream)
    };
    let with = Arc::clone(&works);
    begin(works::RAFT, Box::new(move || with.serve_replica()))?;
    let with = Arc::clone(&works);
    begin(works::JOURNAL, Box::new(move || with.serve_journal()))?;
    let with = Arc::clone(&works);
    begin(works::COMMIT, Box::new(move || with.serve_decisions()))?;
    let with = Arc::clone(&works);
    begin(FEEDER, Box::new(move || feeder::feed(&log, &transport, &wanted, &with)))?;
    Ok(threads)
}

/// Ends the threads of a replica, and gives the door back; what is left is its database and its log.
pub(super) fn stop(running: &mut Running) {
    // The driver ends; with it go the queues of the others.
    running.works.replica.put(Input::Stop);
    let own = thread::current().id();
    let is_own =
        running.works.is_own() || running.threads.iter().any(|thread| thread.thread().id() == own);
    for thread in running.threads.drain(..).rev() {
        // One of them waits for none of them.
        if !is_own && thread.join().is_err() {
            tracing::error!("a thread of the node has panicked");
        }
    }
    if !is_own {
        // Others may be at work there as well.
        running.works.retire();
    }
    if let Err(error) = running.log.door.close() {
        tracing::error!(%error, "the replication door was not closed in order");
    }
}
