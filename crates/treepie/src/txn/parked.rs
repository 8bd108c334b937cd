//! Callers whose commits are not final yet: parked by LSN, and settled in that order by one owner.
//!
//! In a replicated database no thread is held by a batch that waits for its commit. The closures of a
//! batch, or of the part of it that became one record, are parked; so is a transaction that was
//! committed explicitly, whose caller sleeps. What is parked is in the order of its LSNs, because it is
//! parked by whoever is the writer.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    error::{Error, Result},
    ids::Lsn,
    sync::{Condvar, Flag, Mutex, Planted, is_planted},
};

use super::job::{Queued, foreign};

/// What is said of a batch that nobody settles.
const ABANDONED: &str = "commit that was abandoned";

/// Callers who wait for one LSN.
#[derive(Debug)]
pub(super) struct Parked {
    /// What they did, or saw, is final when this is.
    pub lsn: Lsn,
    /// Whether they have a record of that LSN, or only saw the state that it led to.
    pub has_record: bool,
    /// They are told that leadership was lost.
    pub lost: Option<Lost>,
    pub who: Who,
}

/// That leadership was lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    /// What was final by then.
    pub committed: Lsn,
    /// Who leads now, if that is known.
    pub leader: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Who {
    Part(Part),
    One(Arc<Waiter>),
}

/// Closures of one batch that share a record.
pub(super) struct Part {
    jobs: VecDeque<(Queued, Result<Lsn>)>,
    flag: Arc<Flag>,
    /// Closures of the batch that are settled with this part.
    settled: u32,
}

/// The caller of a transaction of its own.
#[derive(Debug, Default)]
pub struct Waiter {
    outcome: Mutex<Option<Result<Lsn>>>,
    settled: Condvar,
}

impl Parked {
    /// Whether they can be told how it ended.
    pub fn is_due(&self, committed: Lsn) -> bool {
        self.lsn <= committed || self.lost.is_some() || is_planted(Planted::SettledEarly)
    }

    /// Tells them.
    pub fn settle(self) {
        let verdict = self.verdict();
        match self.who {
            Who::Part(mut part) => part.settle(&verdict),
            Who::One(waiter) => {
                *waiter.outcome.lock() = Some(verdict(self.lsn));
                waiter.settled.notify_all();
            }
        }
    }

    /// What becomes of a closure, or transaction, that ended well by itself.
    fn verdict(&self) -> impl Fn(Lsn) -> Result<Lsn> + use<> {
        let (lost, has_record) = (self.lost, self.has_record);
        move |lsn| match lost {
            Some(Lost { committed, leader }) if lsn > committed => {
                let source = Error::NotLeader { leader };
                // Who changed nothing has nothing whose outcome could be unknown.
                if !has_record {
                    return Err(source);
                }
                Err(Error::OutcomeUnknown { lsn, source: Arc::new(source) })
            }
            _ => Ok(lsn),
        }
    }
}

impl Part {
    /// Closures with what each ended with by itself, in their order; `settled` is how many of the batch
    /// are settled after them, `u32::MAX` for all.
    pub fn new(jobs: VecDeque<(Queued, Result<Lsn>)>, flag: Arc<Flag>, settled: u32) -> Part {
        Part { jobs, flag, settled }
    }

    fn settle(&mut self, verdict: &dyn Fn(Lsn) -> Result<Lsn>) {
        while let Some((queued, outcome)) = self.jobs.pop_front() {
            queued.job().settle(outcome.and_then(verdict));
            // The last to hold a submitted closure drops it, with a value that nobody waits for.
            foreign("drop of a submitted write", || drop(queued));
        }
        self.flag.raise(self.settled);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.jobs.is_empty() {
            self.settle(&|lsn| {
                let source = Arc::new(Error::Poisoned { action: ABANDONED });
                Err(Error::OutcomeUnknown { lsn, source })
            });
        }
    }
}

impl Waiter {
    /// Waits until it is settled.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] and [`Error::NotLeader`] when leadership was lost.
    pub fn wait(&self) -> Result<Lsn> {
        let mut outcome = self.outcome.lock();
        loop {
            match outcome.take() {
                Some(outcome) => return outcome,
                None => self.settled.wait(&mut outcome),
            }
        }
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("jobs", &self.jobs.len()).finish_non_exhaustive()
    }
}
