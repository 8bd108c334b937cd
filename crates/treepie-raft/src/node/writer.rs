//! What behind a replica does I/O: the journal is written at one place, and at another it is decided what
//! readers see. Each does its jobs in order, and neither waits for the other.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use treepie::{Error, ids::Lsn, ids::Term, replication::SharedRecord};

use super::{
    input::Input,
    log::DoorLog,
    station::{Next, Worker},
    works::Works,
};
use crate::{
    ids::NodeId,
    log::{HardState, Log},
    replica::Job,
};

/// How long a commit waits for room before it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Jobs that share one write and one sync, at most.
const JOBS_MAX: usize = 256;

/// What readers may see.
pub(super) enum Decision {
    /// Everything up to this LSN.
    Commit(Lsn),
    /// The database takes writes.
    Lead(Term),
    /// It takes none.
    Follow(Option<NodeId>, u64),
}

/// Writes the journal: what waits by then shares one write and one sync.
pub(super) struct JournalWriter {
    pub(super) log: Arc<DoorLog>,
    pub(super) works: Arc<Works>,
}

impl Worker<Job<SharedRecord>> for JournalWriter {
    fn work(&mut self, mut jobs: VecDeque<Job<SharedRecord>>) -> Next {
        while !jobs.is_empty() {
            let group: Vec<_> = jobs.drain(..jobs.len().min(JOBS_MAX)).collect();
            let last = group.last().map_or(0, |job| job.number);
            let said = match write_group(&self.log, group) {
                Ok(()) => Input::Persisted(last),
                Err(error) => Input::Failed(error),
            };
            if !self.works.replica.leave(said, 0) {
                return Next::End;
            }
            // What is acknowledged does not wait for the rest.
            if !jobs.is_empty() {
                self.works.replica.wake();
            }
        }
        Next::Wait
    }
}

fn write_group(log: &DoorLog, group: Vec<Job<SharedRecord>>) -> Result<(), Error> {
    let mut gathered = Gathered { hard_state: None, records: Vec::new() };
    for job in group {
        if let Some(after) = job.truncate_after {
            gathered.append(log)?;
            log.truncate(after)?;
        }
        gathered.hard_state = job.hard_state.or(gathered.hard_state);
        gathered.records.extend(job.records);
    }
    gathered.append(log)?;
    log.sync().map(|_| ())
}

/// What becomes one write.
struct Gathered {
    hard_state: Option<HardState>,
    records: Vec<SharedRecord>,
}

impl Gathered {
    fn append(&mut self, log: &DoorLog) -> Result<(), Error> {
        let hard_state = self.hard_state.take();
        if hard_state.is_some() || !self.records.is_empty() {
            log.append(hard_state, &self.records)?;
            self.records.clear();
        }
        Ok(())
    }
}

/// Decides what readers see. Of commits that wait, the last one says it all.
pub(super) struct Decider {
    pub(super) log: Arc<DoorLog>,
    pub(super) works: Arc<Works>,
    /// A commit that found no room, and is tried again.
    pub(super) waiting: Option<Lsn>,
}

impl Worker<Decision> for Decider {
    fn work(&mut self, mut decisions: VecDeque<Decision>) -> Next {
        if let Some(lsn) = self.waiting.take()
            && decisions.is_empty()
        {
            decisions.push_back(Decision::Commit(lsn));
        }
        while let Some(decision) = decisions.pop_front() {
            let is_outdone = matches!(
                (&decision, decisions.front()),
                (Decision::Commit(_), Some(Decision::Commit(_)))
            );
            if is_outdone {
                continue;
            }
            let said = match decision {
                Decision::Commit(lsn) => self.commit(lsn),
                Decision::Lead(term) => self.log.lead(term).map(|()| Some(Input::Led)),
                Decision::Follow(leader, number) => self
                    .log
                    .follow(leader.map(|leader| leader.0))
                    .map(|()| Some(Input::Followed(number, self.log.state().last))),
            };
            let said = said.unwrap_or_else(|error| Some(Input::Failed(error)));
            if said.is_some_and(|said| !self.works.replica.leave(said, 0)) {
                return Next::End;
            }
        }
        match self.waiting {
            Some(_) => Next::Until(Instant::now() + RETRY_INTERVAL),
            None => Next::Wait,
        }
    }
}

impl Decider {
    /// Where memory or journal are used up by an old snapshot, or a page is damaged and is being fetched
    /// from another node, it is tried again until that is over, or something else is to be done: a later
    /// commit, or what does not need this one.
    fn commit(&mut self, lsn: Lsn) -> Result<Option<Input>, Error> {
        match self.log.commit(lsn) {
            Ok(()) => Ok(Some(Input::Applied(lsn))),
            Err(error) if self.log.may_come_right(&error) => {
                self.waiting = Some(lsn);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
