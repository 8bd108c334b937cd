//! From a database to a running replica, and back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use treepie::{Database, replication::SharedRecord};

use super::{
    driver::{Driver, Hands},
    error::NodeError,
    feeder::{self, Wanted},
    input::{Input, SealedOutlet},
    log::DoorLog,
    shared::{Link, Running, Shared},
    writer::{self, Decision},
};
use crate::{
    members::Place,
    replica::{Job, Options, Replica},
    transport::Transport,
};

/// Messages that wait for their records to be read, at most; more are dropped, and sent again later.
const WANTED_MAX: usize = 1024;

/// The thread that owns the replica.
const RAFT: &str = "treepie raft";

/// Both ends of the queues between the threads. What is bounded here may be dropped; the others hold
/// what the bounds of the database, of connections and of the replica let in.
struct Queues {
    inputs: (Sender<Input>, Receiver<Input>),
    journal: (Sender<Job<SharedRecord>>, Receiver<Job<SharedRecord>>),
    decisions: (Sender<Decision>, Receiver<Decision>),
    wanted: (Sender<Wanted>, Receiver<Wanted>),
}

/// Begins to take part in the cluster with a database.
pub(super) fn start(shared: &Arc<Shared>, database: Database) -> Result<Running, NodeError> {
    let queues = Queues {
        inputs: unbounded(),
        journal: unbounded(),
        decisions: unbounded(),
        wanted: bounded(WANTED_MAX),
    };
    let outlet = Arc::new(SealedOutlet(queues.inputs.0.clone()));
    let log = Arc::new(DoorLog { door: database.replicate(outlet)? });
    let replica = Replica::open(Arc::clone(&log), options(shared)?, shared.clock.now())?;
    shared.meet(&replica.status().members);
    let place = Place { address: shared.address(), label: shared.options.label.clone() };
    shared.moves.note(shared.options.id, place);
    shared.note(&replica, &log);
    let threads = spawn(shared, &log, replica, &queues)?;
    for waiting in shared.left.lock().drain(..) {
        drop(queues.inputs.0.send(Input::Read(waiting)));
    }
    Ok(Running { database, log, inputs: queues.inputs.0, threads })
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
    queues: &Queues,
) -> Result<Vec<thread::JoinHandle<()>>, NodeError> {
    let transport: Arc<dyn Transport> = Arc::new(Link(Arc::clone(shared)));
    let hands = Hands {
        log: Arc::clone(log),
        transport: Arc::clone(&transport),
        journal: queues.journal.0.clone(),
        decisions: queues.decisions.0.clone(),
        feeder: queues.wanted.0.clone(),
        inputs: queues.inputs.0.clone(),
        shared: Arc::clone(shared),
    };
    let driver = Driver::new(replica, hands, shared.options.tick);
    let mut threads = Vec::new();
    let mut begin = |name: &'static str, work: Box<dyn FnOnce() + Send>| {
        let (log, shared, inputs) = (Arc::clone(log), Arc::clone(shared), queues.inputs.0.clone());
        let watched = move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                tracing::error!(name, "a thread of the node has panicked");
                drop(inputs.send(Input::Panicked(name)));
                if name == RAFT {
                    // Nobody listens any more: whoever waits is told here.
                    drop(log.door.close());
                    shared.give_up();
                }
            }
        };
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(watched);
        spawned.map(|thread| threads.push(thread)).map_err(NodeError::Stream)
    };
    let (journal, inputs, with) =
        (queues.journal.1.clone(), queues.inputs.0.clone(), Arc::clone(log));
    begin("treepie journal", Box::new(move || writer::write_journal(&with, &journal, &inputs)))?;
    let (decisions, inputs, with) =
        (queues.decisions.1.clone(), queues.inputs.0.clone(), Arc::clone(log));
    begin("treepie commit", Box::new(move || writer::decide(&with, &decisions, &inputs)))?;
    let (wanted, inputs, with) =
        (queues.wanted.1.clone(), queues.inputs.0.clone(), Arc::clone(log));
    begin("treepie feeder", Box::new(move || feeder::feed(&with, &transport, &wanted, &inputs)))?;
    let inputs = queues.inputs.1.clone();
    begin(RAFT, Box::new(move || driver.run(&inputs)))?;
    Ok(threads)
}

/// Ends the threads of a replica, and gives the door back; what is left is its database and its log.
pub(super) fn stop(running: &mut Running) {
    // The driver ends; with it go the queues of the others.
    drop(running.inputs.send(Input::Stop));
    let is_own =
        running.threads.iter().any(|thread| thread.thread().id() == thread::current().id());
    for thread in running.threads.drain(..).rev() {
        // One of them waits for none of them.
        if !is_own && thread.join().is_err() {
            tracing::error!("a thread of the node has panicked");
        }
    }
    if let Err(error) = running.log.door.close() {
        tracing::error!(%error, "the replication door was not closed in order");
    }
}
