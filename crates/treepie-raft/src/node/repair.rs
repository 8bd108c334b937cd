//! Damaged pages, one by one, from other nodes: on a connection for each, as `wire/page.rs` says.
//!
//! Reads, checks and applying note the pages of the data file that do not verify. The thread that owns the
//! replica looks at each tick whether there are any, and has one other thread fetch them: from who leads
//! first, then from the others. What does not succeed is tried again, later and later.

use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use treepie::{
    DamagedPage, Database, Error, RepairOutcome, WholePage,
    ids::{Lsn, PageId},
};

use super::{
    error::NodeError,
    input::{Input, ReadDone, Waiting},
    install::wrong,
    probe::Bug,
    shared::Shared,
    works::Hand,
};
use crate::{
    ids::NodeId,
    transport::PageStream,
    wire::{
        RESERVE_MAX, Refusal, WireError,
        page::{PAGE_ANSWER_SIZE, PAGE_LEN_MAX, PageAnswer, PageRequest},
    },
};

/// Between two rounds that did not repair everything, at least and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a page waits until the state that it is of is reached here.
const REACH_MAX: Duration = Duration::from_secs(5);
/// How long applying waits for a page that it needs, before the node stops.
pub(super) const APPLY_PATIENCE: Duration = Duration::from_secs(30);

/// How repairing goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repairs {
    /// Pages of this node that did not verify, and were not written since.
    pub damaged: u64,
    /// Pages that were taken from another node.
    pub repaired: u64,
    /// Attempts that failed: nobody had the page, or nobody answered.
    pub failed: u64,
    /// Pages that were given to other nodes.
    pub served: u64,
}

/// What the rounds have in common.
#[derive(Debug, Default)]
pub(super) struct Repairing {
    is_running: AtomicBool,
    failed: AtomicU64,
    served: AtomicU64,
    /// When the next round may begin, and the pause after it if that fails.
    next: Mutex<(Duration, Duration)>,
    /// One round at a time, also of those that are asked for.
    turn: Mutex<()>,
}

/// How repairing goes.
pub(super) fn counts(shared: &Shared, database: &Database) -> Repairs {
    let stats = database.stats();
    Repairs {
        damaged: stats.pages_damaged,
        repaired: stats.pages_repaired,
        failed: shared.repairing.failed.load(Relaxed),
        served: shared.repairing.served.load(Relaxed),
    }
}

/// Begins a round on a thread of its own, if none runs and it is time for one.
pub(super) fn begin(shared: &Arc<Shared>, now: Duration) {
    let repairing = &shared.repairing;
    if now < repairing.next.lock().0
        || shared.options.probe.has(Bug::NeverRepairs)
        || repairing.is_running.swap(true, Relaxed)
    {
        return;
    }
    let with = Arc::clone(shared);
    let spawned = shared.spawn("treepie repair", move || {
        let is_done = with.database().is_some_and(|database| round(&with, &database));
        let repairing = &with.repairing;
        let mut next = repairing.next.lock();
        let pause = if is_done { Duration::ZERO } else { next.1.clamp(PAUSE_MIN, PAUSE_MAX) };
        *next = (with.clock.now() + pause, pause * 2);
        drop(next);
        repairing.is_running.store(false, Relaxed);
    });
    if !spawned {
        repairing.is_running.store(false, Relaxed);
    }
}

/// Tries to repair each page that is known to be damaged; returns whether nothing is left to do.
pub(super) fn round(shared: &Shared, database: &Database) -> bool {
    let _turn = shared.repairing.turn.lock();
    let mut is_done = true;
    // Applying may wait for one page while others wait for what is to be applied: that one comes first.
    for waits in [false, true] {
        for damaged in database.damaged_pages() {
            let Err(error) = repair(shared, database, damaged, waits) else { continue };
            if waits {
                is_done = false;
                shared.repairing.failed.fetch_add(1, Relaxed);
                let page = damaged.page.0;
                tracing::warn!(page, %error, "a damaged page could not be repaired yet");
            }
        }
    }
    is_done
}

/// Who may have a page: who leads, and then the others.
fn sources(shared: &Shared) -> Vec<NodeId> {
    let leader = shared.view.lock().leader;
    let own = shared.options.id;
    let members = shared.members.read();
    let others = members.iter().map(|(id, _)| id).filter(|id| Some(*id) != leader);
    leader.into_iter().chain(others).filter(|id| *id != own).collect()
}

fn repair(
    shared: &Shared,
    database: &Database,
    damaged: DamagedPage,
    waits: bool,
) -> Result<(), NodeError> {
    let DamagedPage { page, noted_at, .. } = damaged;
    let mut last = wrong("there is no other node");
    for source in sources(shared) {
        let taken = fetch(shared, source, page, noted_at)
            .and_then(|whole| take(shared, database, &whole, waits));
        match taken {
            Ok(()) => return Ok(()),
            // Nothing more can be written here.
            Err(NodeError::Engine(error @ Error::Poisoned { .. })) => return Err(error.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks a node for a page.
fn fetch(
    shared: &Shared,
    node: NodeId,
    page: PageId,
    at_least: Lsn,
) -> Result<WholePage, NodeError> {
    let transport = shared.transport.get().ok_or(NodeError::NotRunning)?;
    let request = PageRequest::new(page.0, at_least.0);
    let mut stream = transport.open_pages(node, request.encode().map_err(of_wire)?)?;
    let mut answer = [0; PAGE_ANSWER_SIZE];
    stream.read_exact(&mut answer).map_err(NodeError::Stream)?;
    let answer = PageAnswer::decode(&answer).map_err(of_wire)?;
    if answer.len == 0 {
        return Err(wrong("the page is not in use there"));
    }
    let len = usize::try_from(answer.len).expect("it is below the longest page");
    let mut bytes = Vec::with_capacity(len.min(RESERVE_MAX));
    let came = stream.take(answer.len).read_to_end(&mut bytes).map_err(NodeError::Stream)?;
    if came != len {
        return Err(wrong("a page was cut"));
    }
    Ok(WholePage::received(page, Lsn(answer.as_of), bytes))
}

/// Puts a page into its place, once the state that it is of is reached here.
fn take(
    shared: &Shared,
    database: &Database,
    whole: &WholePage,
    waits: bool,
) -> Result<(), NodeError> {
    match database.repair_page(whole)? {
        RepairOutcome::Early if waits => {
            reach(shared, whole.as_of)?;
            match database.repair_page(whole)? {
                RepairOutcome::Early => Err(wrong("the page is of a later state than is here")),
                _ => Ok(()),
            }
        }
        RepairOutcome::Early => Err(wrong("the page is of a later state than is here")),
        RepairOutcome::Late => Err(wrong("the other node is behind")),
        _ => Ok(()),
    }
}

/// Waits until a state is reached here.
fn reach(shared: &Shared, lsn: Lsn) -> Result<(), NodeError> {
    let (reply, answer) = bounded(1);
    let done: ReadDone = Box::new(move |outcome| {
        // Nobody waits any more.
        let _ = reply.send(outcome);
    });
    let deadline = shared.clock.now() + REACH_MAX;
    let waiting = Waiting { at_least: Some(lsn), deadline, done };
    if !shared.tell(Input::Read(waiting), Hand::Light) {
        return Err(NodeError::NotRunning);
    }
    answer.recv().map_err(|_| NodeError::NotRunning)??;
    Ok(())
}

/// Gives another node a page of this one.
pub(super) fn serve(
    shared: &Shared,
    mut stream: PageStream,
    request: PageRequest,
) -> Result<(), NodeError> {
    // One whose own pages may be wrong gives none away.
    let database = shared.database().filter(|_| !shared.view.lock().is_stopped);
    let Some(database) = database else {
        stream.refuse(Refusal::Stopping);
        return Err(NodeError::NotRunning);
    };
    let page = database.whole_page(PageId(request.page), PAGE_LEN_MAX)?;
    let (as_of, bytes) = match page {
        Some(whole) => (whole.as_of, whole.bytes),
        None => (database.read()?.lsn(), Vec::new()),
    };
    if as_of.0 < request.at_least {
        stream.refuse(Refusal::Busy);
        return Err(wrong("this node is behind"));
    }
    let answer = PageAnswer { as_of: as_of.0, len: bytes.len() as u64 };
    stream.write_all(&answer.encode().map_err(of_wire)?).map_err(NodeError::Stream)?;
    stream.write_all(&bytes).map_err(NodeError::Stream)?;
    stream.finish().map_err(NodeError::Stream)?;
    shared.repairing.served.fetch_add(1, Relaxed);
    Ok(())
}

fn of_wire(error: WireError) -> NodeError {
    NodeError::Stream(std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}
