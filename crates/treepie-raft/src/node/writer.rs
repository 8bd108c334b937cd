//! The two threads behind a replica that do I/O: one writes the journal, the other decides what readers
//! see. Each does its jobs in order, and neither waits for the other.

use std::{sync::Arc, time::Duration};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use treepie::{Error, ids::Lsn, ids::Term, replication::SharedRecord};

use super::{input::Input, log::DoorLog};
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

/// The life of the thread that writes the journal: what waits by then shares one write and one sync.
pub(super) fn write_journal(
    log: &Arc<DoorLog>,
    jobs: &Receiver<Job<SharedRecord>>,
    inputs: &Sender<Input>,
) {
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        group.extend(jobs.try_iter().take(JOBS_MAX - 1));
        let last = group.last().map_or(0, |job| job.number);
        let said = match write_group(log, group) {
            Ok(()) => Input::Persisted(last),
            Err(error) => Input::Failed(error),
        };
        if inputs.send(said).is_err() {
            return;
        }
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

/// The life of the thread that decides what readers see. Of commits that wait, the last one says it all.
pub(super) fn decide(log: &Arc<DoorLog>, decisions: &Receiver<Decision>, inputs: &Sender<Input>) {
    let mut next = decisions.recv().ok();
    while let Some(mut decision) = next.take() {
        while let Ok(later) = decisions.try_recv() {
            if let (Decision::Commit(_), Decision::Commit(_)) = (&decision, &later) {
                decision = later;
            } else {
                next = Some(later);
                break;
            }
        }
        let said = match decision {
            Decision::Commit(lsn) => commit(log, lsn, decisions, &mut next),
            Decision::Lead(term) => log.lead(term).map(|()| Some(Input::Led)),
            Decision::Follow(leader, number) => log
                .follow(leader.map(|leader| leader.0))
                .map(|()| Some(Input::Followed(number, log.state().last))),
        };
        let said = said.unwrap_or_else(|error| Some(Input::Failed(error)));
        if said.is_some_and(|said| inputs.send(said).is_err()) {
            return;
        }
        if next.is_none() {
            next = decisions.recv().ok();
        }
    }
}

/// Where memory or journal are used up by an old snapshot, or a page is damaged and is being fetched from
/// another node, it is tried again until that is over, or something else is to be done.
fn commit(
    log: &DoorLog,
    lsn: Lsn,
    decisions: &Receiver<Decision>,
    next: &mut Option<Decision>,
) -> Result<Option<Input>, Error> {
    loop {
        match log.commit(lsn) {
            Ok(()) => return Ok(Some(Input::Applied(lsn))),
            Err(error) if next.is_none() && log.may_come_right(&error) => {
                match decisions.recv_timeout(RETRY_INTERVAL) {
                    Err(RecvTimeoutError::Timeout) => {}
                    // Something else is to be done, or nothing ever again.
                    other => {
                        *next = other.ok();
                        return Ok(None);
                    }
                }
            }
            // What comes next is a later commit, or does not need this one.
            Err(error) if log.may_come_right(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}
