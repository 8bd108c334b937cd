//! Running a batch: its closures one after another in one transaction, each with a savepoint of its
//! own; then one record, one commit, and everyone is told.
//!
//! A closure that fails or panics is undone by itself, and the others stay; nothing runs twice.
//! Where a batch grows beyond its bounds it becomes several records, which still share one write.

use std::time::Instant;

use crate::{
    error::{Error, Result},
    ids::Lsn,
    options::Durability,
    sync::MutexGuard,
};

use super::{
    core::{Core, Writer},
    job::foreign,
    merger::Batch,
    meters::Step,
    write::WriteTxn,
};

/// A batch that is being run. Should that panic, everyone is told that the database takes no more
/// writes, and the panic goes on.
struct Run<'a> {
    core: &'a Core,
    batch: Batch,
    /// How the closures ended that were run, in their order.
    outcomes: Vec<Result<Lsn>>,
}

/// Runs a batch, commits it, and settles its closures.
pub(super) fn run<'a>(
    core: &'a Core,
    writer: MutexGuard<'a, Writer>,
    batch: Batch,
    room: Result<()>,
) {
    let begin = Instant::now();
    core.meters.note_batch(batch.jobs.len());
    let waits = batch.jobs.iter().map(|job| job.waited(begin));
    core.meters.note_all(Step::QueueWait, waits);
    let outcomes = Vec::with_capacity(batch.jobs.len());
    let mut run = Run { core, batch, outcomes };
    let writer = match room {
        Ok(()) => run.execute(writer),
        Err(error) => {
            run.fail_rest(&error);
            writer
        }
    };
    let overlaps = core.bounds.merging.overlaps(begin.elapsed(), run.batch.jobs.len());
    let held = (!overlaps).then_some(writer);
    run.commit();
    drop(held);
    run.settle();
}

impl<'a> Run<'a> {
    /// Runs all closures, in as many transactions as the bounds ask for.
    fn execute(&mut self, mut writer: MutexGuard<'a, Writer>) -> MutexGuard<'a, Writer> {
        while self.outcomes.len() < self.batch.jobs.len() {
            let next = &self.batch.jobs[self.outcomes.len()];
            if let Err(error) = make_way(self.core) {
                self.fail_rest(&error);
                return writer;
            }
            match WriteTxn::begin_merged(self.core, writer, next.location) {
                Ok(txn) => writer = self.execute_part(txn),
                Err((back, error)) => {
                    self.fail_rest(&error);
                    return back;
                }
            }
        }
        writer
    }

    /// Runs closures until a bound is reached, and seals what they did.
    fn execute_part(&mut self, mut txn: WriteTxn<'a>) -> MutexGuard<'a, Writer> {
        let core = self.core;
        let first = self.outcomes.len();
        let begin = Instant::now();
        let mut before = begin;
        for queued in &self.batch.jobs[first..] {
            let outcome = txn.run_merged(|txn| queued.job().run(txn));
            let now = core.meters.step(Step::Run, before);
            if now - before >= core.bounds.merging.slow_closure {
                core.meters.note_slow(queued.location, now - before);
            }
            // Sealing says where the others are.
            self.outcomes.push(outcome.map(|()| Lsn(0)));
            before = now;
            if core.bounds.merging.is_full(txn.memory_len(), now - begin) {
                break;
            }
        }
        let sealed = txn.seal(self.batch.durability);
        let writer = txn.into_writer();
        core.meters.step(Step::Seal, before);
        for outcome in self.outcomes[first..].iter_mut().filter(|outcome| outcome.is_ok()) {
            *outcome = match &sealed {
                Ok(lsn) => Ok(*lsn),
                Err(error) => Err(error.duplicate()),
            };
        }
        writer
    }

    fn fail_rest(&mut self, error: &Error) {
        let count = self.batch.jobs.len();
        self.outcomes.resize_with(count, || Err(error.duplicate()));
    }

    /// Makes final what was sealed.
    fn commit(&mut self) {
        let Some(last) = self.outcomes.iter().flatten().max() else { return };
        let (core, durability) = (self.core, self.batch.durability);
        if core.pipeline.commit(core, *last, durability).is_ok() {
            return;
        }
        for outcome in &mut self.outcomes {
            if let Ok(lsn) = *outcome {
                *outcome = core.pipeline.verdict(core, lsn, durability).map(|()| lsn);
            }
        }
    }

    /// Tells everyone.
    fn settle(mut self) {
        let jobs = std::mem::take(&mut self.batch.jobs);
        jobs.into_iter().zip(self.outcomes.drain(..)).for_each(|(job, outcome)| {
            job.job().settle(outcome);
            // The last to hold a submitted closure drops it, with a value that nobody waits for.
            foreign("drop of a submitted write", || drop(job));
        });
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        const ACTION: &str = "commit that panicked";
        if std::thread::panicking() {
            self.core.poison(ACTION, &Error::Poisoned { action: ACTION });
        }
        for job in self.batch.jobs.drain(..) {
            job.job().settle(Err(Error::Poisoned { action: ACTION }));
            foreign("drop of a submitted write", || drop(job));
        }
        self.batch.flag.set();
    }
}

/// Waits while as many records are in flight as may be, by taking part in writing them.
///
/// # Errors
/// [`Error::Poisoned`]: what is unknown is the outcome of others.
fn make_way(core: &Core) -> Result<()> {
    let (records, bytes) = core.pipeline.load();
    if core.bounds.merging.has_way(records, bytes) {
        return Ok(());
    }
    let written = core.pipeline.commit(core, core.watermarks.sealed(), Durability::Buffered);
    written.map_err(|error| match error {
        Error::OutcomeUnknown { .. } => Error::Poisoned { action: "write or sync of the journal" },
        error => error,
    })
}
