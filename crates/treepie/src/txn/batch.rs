//! Running a batch: its closures one after another in one transaction, each with a savepoint of its
//! own; then one record, one commit, and everyone is told.
//!
//! A closure that fails or panics is undone by itself, and the others stay; nothing runs twice. A
//! batch that grows beyond its bounds is run in parts: each has a record of its own, is committed and
//! settled before the next one begins, and asks for room again.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use crate::{
    error::{Error, Result},
    ids::Lsn,
    options::Durability,
    sync::{Flag, MutexGuard},
};

use super::{
    core::{Core, Writer},
    job::{Queued, foreign},
    merger::Batch,
    meters::Step,
    parked::Part,
    write::WriteTxn,
};

/// A batch that is being run. Should that panic, everyone is told that the database takes no more
/// writes, and the panic goes on.
struct Run<'a> {
    core: &'a Core,
    /// The closures that are not settled, in their order.
    jobs: VecDeque<Queued>,
    /// How those of them ended that were run.
    outcomes: Vec<Result<Lsn>>,
    durability: Durability,
    flag: Arc<Flag>,
    settled: u32,
    /// What those that were run began on, and whether they have a record.
    saw: Lsn,
    has_record: bool,
    /// Whether a part of it is parked.
    is_parked: bool,
}

/// What is said of a panic where there should be none.
const PANICKED: &str = "commit that panicked";

/// Runs a batch, commits it, and settles its closures. `room` is what asking for room said; it is
/// asked again by `more_room` for each further part.
pub(super) fn run<'a>(
    core: &'a Core,
    mut writer: MutexGuard<'a, Writer>,
    batch: Batch,
    mut room: Result<()>,
    more_room: &dyn Fn() -> Result<()>,
) {
    let (begin, count) = (Instant::now(), batch.jobs.len());
    core.meters.note_batch(count);
    let mut run = Run {
        core,
        jobs: batch.jobs.into(),
        outcomes: Vec::with_capacity(count),
        durability: batch.durability,
        flag: batch.flag,
        settled: 0,
        saw: Lsn(0),
        has_record: false,
        is_parked: false,
    };
    let is_replicated = core.replicated.is_on();
    loop {
        writer = match room {
            Ok(()) => run.execute(writer),
            Err(error) => {
                run.fail_rest(&error);
                writer
            }
        };
        if run.outcomes.len() == run.jobs.len() {
            break;
        }
        if is_replicated {
            run.park();
        } else {
            run.commit();
            run.settle();
        }
        room = ask(core, more_room);
    }
    let overlaps = core.bounds.merging.overlaps(begin.elapsed(), count);
    if is_replicated {
        core.replicated.set_overlaps(overlaps);
        if run.was_run() {
            run.park();
            drop(writer);
            core.replicated.released();
            core.replicated.settle(core);
        } else {
            drop(writer);
            run.settle();
        }
        return;
    }
    let held = (!overlaps).then_some(writer);
    run.commit();
    drop(held);
    run.settle();
}

/// Asks for room in memory and journal; a panic is an error, so that the batch still has its leader.
pub(super) fn ask(core: &Core, room: &dyn Fn() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(room)).unwrap_or_else(|_| {
        let error = Error::Poisoned { action: PANICKED };
        core.poison(PANICKED, &error);
        Err(error)
    })
}

impl<'a> Run<'a> {
    /// Runs as many closures as the bounds of a transaction allow.
    fn execute(&mut self, writer: MutexGuard<'a, Writer>) -> MutexGuard<'a, Writer> {
        if let Err(error) = make_way(self.core) {
            self.fail_rest(&error);
            return writer;
        }
        match WriteTxn::begin_merged(self.core, writer, self.jobs[0].location) {
            Ok(txn) => self.execute_in(txn),
            Err((back, error)) => {
                self.fail_rest(&error);
                back
            }
        }
    }

    /// Runs closures until a bound is reached, and seals what they did.
    fn execute_in(&mut self, mut txn: WriteTxn<'a>) -> MutexGuard<'a, Writer> {
        let core = self.core;
        let begin = Instant::now();
        let mut before = begin;
        for queued in &self.jobs {
            core.meters.note(Step::QueueWait, queued.waited(before));
            let outcome = txn.run_merged(|txn| queued.job().run(txn));
            let now = core.meters.step(Step::Run, before);
            if now - before >= core.bounds.merging.slow_closure {
                core.meters.note_slow(queued.location, now - before);
            }
            // Sealing says where the others are.
            self.outcomes.push(outcome.map(|()| Lsn(0)));
            before = now;
            // On a full disk each has a record of its own: those that remove something find room
            // where the others are refused.
            let is_apart = core.journal.is_short();
            if is_apart || core.bounds.merging.is_full(txn.memory_len(), now - begin) {
                break;
            }
        }
        let base = txn.base();
        let sealed = txn.seal(self.durability);
        let writer = txn.into_writer();
        self.saw = base;
        self.has_record = sealed.as_ref().is_ok_and(|lsn| *lsn > base);
        core.meters.step(Step::Seal, before);
        for outcome in self.outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
            *outcome = match &sealed {
                Ok(lsn) => Ok(*lsn),
                Err(error) => Err(error.duplicate()),
            };
        }
        writer
    }

    fn fail_rest(&mut self, error: &Error) {
        let count = self.jobs.len();
        self.outcomes.resize_with(count, || Err(error.duplicate()));
    }

    /// Whether any of its closures was run; else all of them were refused, and wait for nothing.
    fn was_run(&self) -> bool {
        self.is_parked || self.saw > Lsn(0)
    }

    /// Parks those whose closures were run until what was sealed is final, or what they saw, where all of
    /// them failed: who is refused is not refused for what may never have been. This is the writer still,
    /// so that what is parked is in the order of LSNs.
    fn park(&mut self) {
        let lsn = self.outcomes.iter().flatten().max().copied().unwrap_or(self.saw);
        let outcomes = self.outcomes.drain(..);
        let jobs: VecDeque<_> = self.jobs.drain(..outcomes.len()).zip(outcomes).collect();
        self.settled += u32::try_from(jobs.len()).expect("a batch is bounded");
        let settled = if self.jobs.is_empty() { u32::MAX } else { self.settled };
        let part = Part::new(jobs, Arc::clone(&self.flag), settled);
        self.core.replicated.park(lsn, self.has_record, part);
        self.is_parked = true;
    }

    /// Makes final what was sealed.
    fn commit(&mut self) {
        let Some(last) = self.outcomes.iter().flatten().max() else { return };
        let (core, durability) = (self.core, self.durability);
        if core.pipeline.commit(core, *last, durability).is_ok() {
            return;
        }
        for outcome in &mut self.outcomes {
            if let Ok(lsn) = *outcome {
                *outcome = core.pipeline.verdict(core, lsn, durability).map(|()| lsn);
            }
        }
    }

    /// Tells those whose closures were run.
    fn settle(&mut self) {
        let count = self.outcomes.len();
        for outcome in self.outcomes.drain(..) {
            let job = self.jobs.pop_front().expect("each outcome is that of a closure");
            job.job().settle(outcome);
            // The last to hold a submitted closure drops it, with a value that nobody waits for.
            foreign("drop of a submitted write", || drop(job));
        }
        self.settled += u32::try_from(count).expect("a batch is bounded");
        if !self.jobs.is_empty() {
            self.flag.raise(self.settled);
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.core.poison(PANICKED, &Error::Poisoned { action: PANICKED });
        }
        if self.is_parked {
            // Those in front of them are settled first.
            if !self.jobs.is_empty() {
                self.fail_rest(&Error::Poisoned { action: PANICKED });
                self.park();
            }
            return;
        }
        let mut outcomes = std::mem::take(&mut self.outcomes).into_iter();
        for job in self.jobs.drain(..) {
            let poisoned = Error::Poisoned { action: PANICKED };
            let error = match outcomes.next() {
                Some(Ok(lsn)) if lsn > Lsn(0) => {
                    Error::OutcomeUnknown { lsn, source: Arc::new(poisoned) }
                }
                _ => poisoned,
            };
            job.job().settle(Err(error));
            foreign("drop of a submitted write", || drop(job));
        }
        self.flag.raise(u32::MAX);
    }
}

/// Waits while as many records are in flight as may be, by taking part in writing them; in a replicated
/// database, until some of them are final.
///
/// # Errors
/// [`Error::Poisoned`]: what is unknown is the outcome of others. [`Error::NotLeader`].
fn make_way(core: &Core) -> Result<()> {
    if core.replicated.is_on() {
        return core.replicated.wait_for_way(core);
    }
    let (records, bytes) = core.pipeline.load();
    if core.bounds.merging.has_way(records, bytes) {
        return Ok(());
    }
    core.pipeline.write_out(core)
}
