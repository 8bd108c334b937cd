//! The merger: many callers' closures become one transaction, one record, one disk write.
//!
//! It is a flat combiner. Who joins an empty queue *leads*: it waits for the writer before it, takes
//! what has gathered in front of the queue by then, runs it, and commits it; everyone else of the
//! batch waits for one flag, and who sleeps by then is woken by one call. A caller alone never meets
//! another thread.
//!
//! ```text
//! join ─> batch ─┬─ first: lead ─> turn of the writer ─> gather ─> run (`batch`) ─> commit ─┐
//!                └─ others: wait <───────────────────── flag <──────────────────────────────┘
//! ```
//!
//! Each batch has one who is bound to lead, and who leads takes the batch in front, whichever it is:
//! closures run in the order in which they came. For what was submitted, nobody waits to lead; the
//! merger's threads do.
//!
//! A leader *gathers*: callers who were just woken come back within microseconds, and a batch begun
//! by the first of them would be nearly empty. So it waits a moment until as many have come as were
//! served last; after some waits in vain it does not for a while.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    sync::Arc,
    time::Instant,
};

use crate::{
    error::{Error, Result},
    options::{Durability, Merging},
    sync::{
        Condvar, Flag, Mutex, MutexGuard, Planted,
        atomic::{AtomicBool, Ordering::*},
        deadline, is_planted,
    },
};

use super::{
    batch,
    core::{Core, Writer},
    job::{Queued, Slot, lend},
    reentrance::is_writing,
    submit::{Submitted, submitted},
    write::{Receipt, WriteTxn},
};

/// Batches larger than this are not gathered for: the machine is busy anyway.
const GATHER_COUNT_MAX: usize = 100;
/// Waits in vain after which no more are made, and batches until they are tried again.
const GATHER_PATIENCE: u32 = 4;
const GATHER_REST: u32 = 64;

/// Closures that wait, in batches.
#[derive(Debug, Default)]
pub struct Merger {
    queue: Mutex<Queue>,
    /// Wakes a leader who gathers.
    joined: Condvar,
    /// Wakes callers who wait for room in the queue.
    room: Condvar,
    /// Wakes the merger's threads.
    work: Condvar,
    /// Whether its threads are there.
    served: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// Closures in all batches.
    waiting: usize,
    /// Batches that no caller leads.
    leaderless: usize,
    gather: Gather,
    /// Transactions that wait for the writer outside of batches.
    outsiders: usize,
    stopping: bool,
}

/// Closures that are committed together.
pub(super) struct Batch {
    pub jobs: Vec<Queued>,
    /// The strongest that any of them asks for.
    pub durability: Durability,
    /// When the most impatient of them wants to begin.
    due: Option<Instant>,
    pub flag: Arc<Flag>,
}

#[derive(Debug, Default)]
struct Gather {
    /// Closures of the batch before.
    served: usize,
    /// How many the leader is waiting for; 0 when it is not.
    target: usize,
    in_vain: u32,
    rest: u32,
}

/// What joining says.
pub(super) struct Joined {
    pub flag: Arc<Flag>,
    /// Its place in the batch.
    pub index: u32,
    /// The caller must lead.
    pub leads: bool,
}

impl Merger {
    /// Runs a closure in a merged transaction and waits until it is committed. `room` is asked for
    /// room in memory and journal if this caller leads.
    ///
    /// # Errors
    /// Those of [`Database::write`](crate::Database::write).
    pub fn write<T: Send>(
        core: &Core,
        change: impl FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send,
        durability: Durability,
        location: &'static Location<'static>,
        room: &dyn Fn() -> Result<()>,
    ) -> Result<Receipt<T>> {
        check(core)?;
        let slot = Slot::new(change);
        let lent = lend(&slot, location, |job| core.merger.join(core, job, durability, true));
        if lent.leads() {
            core.merger.lead(core, room);
        }
        lent.wait();
        slot.take().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Hands a closure over. Waits while the queue is full. Without threads of the merger, leads.
    ///
    /// # Errors
    /// [`Error::Reentrant`], [`Error::Poisoned`], [`Error::NotLeader`].
    pub fn submit<T: Send + 'static>(
        core: &Core,
        change: impl FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send + 'static,
        durability: Durability,
        location: &'static Location<'static>,
        room: &dyn Fn() -> Result<()>,
    ) -> Result<Submitted<T>> {
        check(core)?;
        let (job, handle) = submitted(core, change);
        let is_lonely = !core.bounds.background;
        let joined = core.merger.join(core, Queued::owned(job, location), durability, is_lonely);
        if joined.leads {
            core.merger.lead(core, room);
        }
        Ok(handle)
    }

    fn join(&self, core: &Core, job: Queued, durability: Durability, may_lead: bool) -> Joined {
        let merging = &core.bounds.merging;
        let mut queue = self.queue.lock();
        while queue.waiting >= merging.queue_max {
            self.room.wait(&mut queue);
        }
        let is_full = |batch: &Batch| batch.jobs.len() >= merging.closures_max;
        let begins = queue.batches.back().is_none_or(is_full);
        if begins {
            queue.batches.push_back(Batch::new());
        }
        queue.waiting += 1;
        let batch = queue.batches.back_mut().expect("there is a batch");
        let index = u32::try_from(batch.jobs.len()).expect("a batch is bounded");
        let hurries = batch.push(job, durability);
        let flag = Arc::clone(&batch.flag);
        if queue.gather.target > 0 && (hurries || queue.waiting >= queue.gather.target) {
            self.joined.notify_one();
        }
        if begins && !may_lead {
            queue.leaderless += 1;
            if !is_planted(Planted::SilentJoin) {
                self.work.notify_one();
            }
        }
        Joined { flag, index, leads: begins && may_lead }
    }

    /// Leads one batch: the one in front when the writer's turn comes.
    pub fn lead(&self, core: &Core, room: &dyn Fn() -> Result<()>) {
        let first = batch::ask(core, room);
        let writer = core.writer.lock();
        let batch = self.take(&core.bounds.merging);
        batch::run(core, writer, batch, first, room);
    }

    /// The writer, for a transaction outside of batches: no batch waits for company meanwhile.
    pub fn writer<'a>(&self, core: &'a Core) -> MutexGuard<'a, Writer> {
        if let Some(writer) = core.writer.try_lock() {
            return writer;
        }
        self.queue.lock().outsiders += 1;
        self.joined.notify_one();
        let writer = core.writer.lock();
        self.queue.lock().outsiders -= 1;
        writer
    }

    /// Gathers, and takes the batch in front.
    fn take(&self, merging: &Merging) -> Batch {
        let mut queue = self.queue.lock();
        let queue = &mut queue;
        while let Some(due) = queue.delay(merging) {
            queue.gather.target = merging.closures_max;
            if self.joined.wait_until(queue, due).timed_out() {
                break;
            }
        }
        let target = queue.gather.begin(merging);
        let until = deadline(Instant::now(), merging.gather_max);
        let mut in_vain = false;
        while queue.waiting < target && !in_vain {
            queue.gather.target = target;
            in_vain = self.joined.wait_until(queue, until).timed_out();
        }
        let batch = queue.batches.pop_front().expect("each batch has one who leads");
        queue.gather.end(target > 0, in_vain, batch.jobs.len());
        queue.waiting -= batch.jobs.len();
        self.room.notify_all();
        batch
    }

    /// Leads what nobody else does, until the database is closed: the life of one of the merger's
    /// threads. `room` as in `lead`.
    pub fn serve(&self, core: &Core, room: &dyn Fn() -> Result<()>) {
        loop {
            let mut queue = self.queue.lock();
            while queue.leaderless == 0 {
                if queue.stopping {
                    return;
                }
                self.work.wait(&mut queue);
            }
            queue.leaderless -= 1;
            drop(queue);
            // A panic has poisoned the database and settled its batch; those behind it are settled
            // by who leads them.
            let led = catch_unwind(AssertUnwindSafe(|| self.lead(core, room)));
            if led.is_err() {
                tracing::error!("a thread of the merger has panicked");
            }
        }
    }

    /// Whether threads lead what is submitted.
    pub fn is_served(&self) -> bool {
        self.served.load(Acquire)
    }

    /// Notes that threads do.
    pub fn set_served(&self) {
        self.served.store(true, Release);
    }

    /// Ends the threads when all that was submitted is done.
    pub fn stop(&self) {
        self.queue.lock().stopping = true;
        self.work.notify_all();
        self.joined.notify_all();
    }

    /// Closures that wait to be run.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting
    }
}

fn check(core: &Core) -> Result<()> {
    if is_writing(core) {
        return Err(Error::Reentrant);
    }
    core.check_poison()?;
    core.replicated.check_writes()
}

impl Batch {
    fn new() -> Batch {
        let durability = Durability::Memory;
        Batch { jobs: Vec::new(), durability, due: None, flag: Arc::default() }
    }

    /// Returns whether the batch wants to begin earlier for it.
    fn push(&mut self, job: Queued, durability: Durability) -> bool {
        let now = Instant::now();
        let due = match durability {
            Durability::Group { delay_max } => deadline(now, delay_max),
            _ => now,
        };
        let hurries = self.due.is_none_or(|before| due < before);
        if hurries {
            self.due = Some(due);
        }
        self.durability = self.durability.stronger(durability);
        self.jobs.push(job);
        hurries
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("jobs", &self.jobs.len())
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// Until when the batch in front may wait for others, if it may.
    fn delay(&self, merging: &Merging) -> Option<Instant> {
        let front = self.batches.front()?;
        let is_full = front.jobs.len() >= merging.closures_max || self.batches.len() > 1;
        let hurries = self.stopping || self.outsiders > 0;
        front.due.filter(|due| !is_full && !hurries && *due > Instant::now())
    }
}

impl Gather {
    /// How many closures to wait for; 0 for none.
    fn begin(&mut self, merging: &Merging) -> usize {
        if self.rest > 0 {
            self.rest -= 1;
            return 0;
        }
        let worth = (2..=GATHER_COUNT_MAX).contains(&self.served) && !merging.gather_max.is_zero();
        if worth { self.served.min(merging.closures_max) } else { 0 }
    }

    fn end(&mut self, gathered: bool, in_vain: bool, served: usize) {
        self.target = 0;
        self.served = served;
        if gathered {
            self.in_vain = if in_vain { self.in_vain + 1 } else { 0 };
        }
        if self.in_vain >= GATHER_PATIENCE {
            self.in_vain = 0;
            self.rest = GATHER_REST;
        }
    }
}
