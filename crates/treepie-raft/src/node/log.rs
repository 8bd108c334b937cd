//! The log of a replica: the journal of its database, behind the door.

use std::time::Instant;

use parking_lot::Mutex;
use treepie::{
    Error, Result,
    ids::{Lsn, Term},
    replication::{self, Door, RecordKind, SharedRecord},
};

use super::{
    probe::{Bug, Probe},
    repair::APPLY_PATIENCE,
};
use crate::{
    log::{HardState, Log, LogRecord, LogState},
    message::EntryKind,
    transport::RecordBytes,
};

/// The door of one database as a [`Log`].
#[derive(Debug)]
pub(super) struct DoorLog {
    pub(super) door: Door,
    probe: Probe,
    /// Since when a commit waits for a damaged page.
    waits_since: Mutex<Option<Instant>>,
}

impl DoorLog {
    pub(super) fn new(door: Door, probe: Probe) -> DoorLog {
        DoorLog { door, probe, waits_since: Mutex::new(None) }
    }

    /// Whether a commit that has failed may be tried again: there may be room by then, or a damaged page may
    /// have come from another node.
    pub(super) fn may_come_right(&self, error: &Error) -> bool {
        match error {
            Error::Bound { .. } => true,
            Error::Corrupt { .. } if self.door.damaged_pages().0 > 0 => {
                let since = *self.waits_since.lock().get_or_insert_with(Instant::now);
                since.elapsed() < APPLY_PATIENCE && !self.probe.has(Bug::ApplyingStops)
            }
            _ => false,
        }
    }
}

/// A record as the transport sends it: from the memory in which it was sealed or received.
struct Shared(SharedRecord);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// A record's bytes, shared with the transport.
pub(super) fn bytes_of(record: SharedRecord) -> RecordBytes {
    RecordBytes::new(Shared(record))
}

impl LogRecord for SharedRecord {
    fn lsn(&self) -> Lsn {
        SharedRecord::lsn(self)
    }

    fn term(&self) -> Term {
        SharedRecord::term(self)
    }

    fn kind(&self) -> EntryKind {
        match SharedRecord::kind(self) {
            RecordKind::NoOp => EntryKind::NoOp,
            RecordKind::Membership => EntryKind::Membership,
            _ => EntryKind::Transaction,
        }
    }

    fn chain(&self) -> u64 {
        SharedRecord::chain(self)
    }

    fn chain_before(&self) -> u64 {
        SharedRecord::chain_before(self)
    }

    fn checksum(&self) -> u32 {
        SharedRecord::checksum(self)
    }

    fn record_len(&self) -> u32 {
        u32::try_from(self.len()).expect("a record is below 4 GiB")
    }

    fn members(&self) -> Option<Vec<u8>> {
        self.annotations().ok()?.into_iter().next()
    }
}

fn stored(state: HardState) -> replication::HardState {
    replication::HardState { term: state.term, vote: state.vote }
}

impl Log for DoorLog {
    type Record = SharedRecord;

    fn state(&self) -> LogState {
        let state = self.door.state();
        LogState {
            first: state.first,
            last: state.last,
            last_term: state.last_term,
            last_chain: state.last_chain,
            committed: state.committed,
            synced: state.synced,
            hard_state: HardState { term: state.hard_state.term, vote: state.hard_state.vote },
        }
    }

    fn term(&self, lsn: Lsn) -> Option<Term> {
        self.door.term(lsn)
    }

    fn record(&self, lsn: Lsn) -> Result<SharedRecord> {
        self.door.record(lsn)
    }

    fn visit(&self, after: Lsn, visit: &mut dyn FnMut(SharedRecord)) -> Result<()> {
        let mut records = self.door.records(after)?;
        while let Some(record) = records.next_record()? {
            visit(record);
        }
        Ok(())
    }

    fn append(&self, hard_state: Option<HardState>, records: &[SharedRecord]) -> Result<()> {
        self.door.append(hard_state.map(stored), records)
    }

    fn sync(&self) -> Result<Lsn> {
        self.door.sync()
    }

    fn truncate(&self, after: Lsn) -> Result<()> {
        self.door.truncate(after)
    }

    fn commit(&self, lsn: Lsn) -> Result<()> {
        while self.probe.has(Bug::OwnSyncAwaited) && self.door.state().synced < lsn {
            std::thread::yield_now();
        }
        self.door.commit(lsn)?;
        *self.waits_since.lock() = None;
        Ok(())
    }

    fn lead(&self, term: Term) -> Result<()> {
        self.door.lead(term)
    }

    fn follow(&self, leader: Option<u64>) -> Result<()> {
        self.door.follow(leader)
    }

    fn no_op(&self, term: Term) -> Result<SharedRecord> {
        self.door.no_op(term)
    }

    fn set_members(&self, term: Term, members: &[u8], change: &[u8]) -> Result<Lsn> {
        self.door.set_members(term, members, change)
    }

    fn members(&self) -> Result<Option<Vec<u8>>> {
        self.door.members()
    }
}
