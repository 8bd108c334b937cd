//! The log as the core sees it: numbers, terms and handles, in memory.
//!
//! Terms are kept as ranges for the whole log, because they rise seldom. Handles are kept for the newest
//! records: all that are not applied yet, and some before them. Who is told about an older one learns
//! its kind, length and checksum from the record that travels with the message.

use std::collections::VecDeque;

use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, EntryType, HardState as CoreHardState, Snapshot},
};
use treepie::ids::{Lsn, Term};

use crate::{
    log::HardState,
    message::{EntryKind, EntryRef},
};

/// Handles of applied records that are kept, at most: 3 MiB of them.
const KEPT_MAX: usize = 65_536;
/// Ranges of terms that are kept, at most. A follower so far behind is given a page stream.
const RANGES_MAX: usize = 4_096;

/// A handle, and the chain hash of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    pub(crate) entry: EntryRef,
    pub(crate) chain: u64,
}

/// What a log has.
#[derive(Debug)]
pub(crate) struct Handles {
    hard_state: HardState,
    committed: Lsn,
    voters: ConfState,
    /// The newest LSN whose record is not given out; its term is known.
    floor: Lsn,
    last: Lsn,
    /// Where each range of equal terms begins, and its term; the first one begins at or below `floor`.
    ranges: VecDeque<(Lsn, Term)>,
    /// Handles of the newest records, up to `last`.
    window: VecDeque<Handle>,
    /// Chain hash of the record before the window.
    chain_before: u64,
    /// All before it may leave the window.
    applied: Lsn,
}

/// What the core begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) hard_state: HardState,
    pub(crate) committed: Lsn,
    /// The oldest LSN whose term is known.
    pub(crate) floor: Lsn,
    /// Ranges of terms from `floor` to `committed`.
    pub(crate) ranges: Vec<(Lsn, Term)>,
    /// Chain hash of the record `committed`.
    pub(crate) chain: u64,
}

impl Handles {
    /// The log up to what is committed; the rest is appended.
    pub(crate) fn new(beginning: Beginning, voters: ConfState) -> Handles {
        Handles {
            hard_state: beginning.hard_state,
            committed: beginning.committed,
            voters,
            floor: beginning.floor,
            last: beginning.committed,
            ranges: beginning.ranges.into(),
            window: VecDeque::new(),
            chain_before: beginning.chain,
            applied: beginning.committed,
        }
    }

    /// The last LSN.
    pub(crate) fn last(&self) -> Lsn {
        self.last
    }

    /// The handle of a record, if it is recent.
    pub(crate) fn get(&self, lsn: Lsn) -> Option<&Handle> {
        let behind = usize::try_from(self.last.0.checked_sub(lsn.0)?).ok()?;
        self.window.get(self.window.len().checked_sub(behind + 1)?)
    }

    /// Bytes of the records above `lsn`: of the newest ones as they are, of older ones by the mean of those.
    pub(crate) fn len_above(&self, lsn: Lsn) -> u64 {
        let count = self.last.0.saturating_sub(lsn.0);
        let known = (self.window.len() as u64).min(count);
        let newest = self.window.iter().rev().take(usize::try_from(known).unwrap_or(usize::MAX));
        let len: u64 = newest.map(|handle| u64::from(handle.entry.len)).sum();
        len + (count - known).saturating_mul(len / known.max(1))
    }

    /// The chain hash of a record, if it is known.
    pub(crate) fn chain(&self, lsn: Lsn) -> Option<u64> {
        if lsn.0 + self.window.len() as u64 == self.last.0 {
            return Some(self.chain_before);
        }
        self.get(lsn).map(|handle| handle.chain)
    }

    /// The term of a record; `None` when it is not in the log, or below what is known.
    pub(crate) fn term_of(&self, lsn: Lsn) -> Option<Term> {
        if lsn < self.floor || lsn > self.last {
            return None;
        }
        let behind = self.ranges.partition_point(|(first, _)| *first <= lsn);
        self.ranges.get(behind.checked_sub(1)?).map(|(_, term)| *term)
    }

    /// Appends a handle, which continues the log or takes the place of a part of it.
    pub(crate) fn push(&mut self, handle: Handle) {
        let EntryRef { lsn, term, .. } = handle.entry;
        self.truncate(Lsn(lsn.0 - 1));
        assert_eq!(lsn, self.last.next(), "handles have no gaps");
        if self.ranges.back().is_none_or(|(_, last)| *last != term) {
            self.ranges.push_back((lsn, term));
        }
        self.last = lsn;
        self.window.push_back(handle);
        self.bound();
    }

    fn truncate(&mut self, after: Lsn) {
        while self.last > after {
            let is_known = self.window.pop_back().is_some();
            assert!(is_known, "what is not applied has its handle");
            self.last = Lsn(self.last.0 - 1);
        }
        while self.ranges.len() > 1 && self.ranges.back().is_some_and(|(first, _)| *first > after) {
            self.ranges.pop_back();
        }
    }

    /// Says up to where records are applied.
    pub(crate) fn set_applied(&mut self, applied: Lsn) {
        self.applied = applied;
        self.bound();
    }

    /// Records before `first` were trimmed.
    pub(crate) fn trim(&mut self, first: Lsn) {
        let first = first.min(self.applied);
        if first > self.floor {
            self.raise_floor(first);
        }
    }

    fn raise_floor(&mut self, floor: Lsn) {
        self.floor = floor;
        while self.ranges.get(1).is_some_and(|(first, _)| *first <= floor) {
            self.ranges.pop_front();
        }
    }

    fn bound(&mut self) {
        while self.window.len() > KEPT_MAX
            && self.window.front().is_some_and(|handle| handle.entry.lsn <= self.applied)
        {
            self.chain_before = self.window.pop_front().map_or(0, |handle| handle.chain);
        }
        while self.ranges.len() > RANGES_MAX && self.ranges[1].0 <= self.applied {
            self.raise_floor(self.ranges[1].0);
        }
    }

    fn entry(&self, lsn: Lsn) -> Entry {
        let mut entry = Entry { index: lsn.0, ..Entry::default() };
        entry.term = self.term_of(lsn).map_or(0, |term| term.0);
        if self.get(lsn).is_some_and(|handle| handle.entry.kind == EntryKind::Membership) {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
        }
        entry
    }
}

impl Storage for Handles {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard_state = CoreHardState::default();
        hard_state.term = self.hard_state.term.0;
        hard_state.vote = self.hard_state.vote;
        hard_state.commit = self.committed.0;
        Ok(RaftState::new(hard_state, self.voters.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.floor.0 {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last.0 + 1 {
            return Err(StorageError::Unavailable.into());
        }
        // The core asks for one entry a message, or for all that are not applied.
        let high = if max_size.into() == Some(0) { high.min(low + 1) } else { high };
        Ok((low..high).map(|lsn| self.entry(Lsn(lsn))).collect())
    }

    fn term(&self, lsn: u64) -> raft::Result<u64> {
        match self.term_of(Lsn(lsn)) {
            Some(term) => Ok(term.0),
            None if lsn < self.floor.0 => Err(StorageError::Compacted.into()),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.floor.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last.0)
    }

    /// A promise: the state itself is streamed past the core, which is told when it was installed.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let Some(term) = self.term_of(self.applied).filter(|_| self.applied.0 > 0) else {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        };
        if request_index > self.applied.0 {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = self.applied.0;
        snapshot.mut_metadata().term = term.0;
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(lsn: u64, term: u64) -> Handle {
        let kind = EntryKind::Transaction;
        let entry = EntryRef { lsn: Lsn(lsn), term: Term(term), kind, len: 1, checksum: 0 };
        Handle { entry, chain: lsn * 100 + term }
    }

    fn empty() -> Handles {
        let beginning = Beginning {
            hard_state: HardState::default(),
            committed: Lsn(0),
            floor: Lsn(0),
            ranges: vec![(Lsn(0), Term(0))],
            chain: 7,
        };
        Handles::new(beginning, ConfState::default())
    }

    #[test]
    fn suffix_that_is_replaced_is_forgotten() {
        let mut handles = empty();
        for (lsn, term) in [(1, 2), (2, 2), (3, 3), (4, 3), (3, 5)] {
            handles.push(handle(lsn, term));
        }
        let terms: Vec<_> = (0..=4).map(|lsn| handles.term_of(Lsn(lsn)).map(|t| t.0)).collect();
        assert_eq!(terms, [Some(0), Some(2), Some(2), Some(5), None]);
        assert_eq!(handles.chain(Lsn(3)), Some(305));
        assert_eq!((handles.chain(Lsn(0)), handles.chain(Lsn(4))), (Some(7), None));
    }

    #[test]
    fn bytes_above_an_lsn_are_counted_and_those_of_old_records_estimated() {
        let mut handles = empty();
        (1..=100).for_each(|lsn| handles.push(handle(lsn, 1)));
        assert_eq!(handles.len_above(Lsn(90)), 10);
        assert_eq!((handles.len_above(Lsn(100)), handles.len_above(Lsn(101))), (0, 0));
        let count = KEPT_MAX as u64 + 1_000;
        (101..=count).for_each(|lsn| handles.push(handle(lsn, 1)));
        handles.set_applied(Lsn(count));
        assert_eq!(handles.len_above(Lsn(0)), count);
    }

    #[test]
    fn memory_is_bounded_and_what_is_not_applied_stays() {
        let mut handles = empty();
        let count = KEPT_MAX as u64 + 100;
        for lsn in 1..=count {
            handles.push(handle(lsn, 1 + lsn / 4));
        }
        assert_eq!(handles.window.len() as u64, count, "nothing is applied");
        handles.set_applied(Lsn(count));
        assert_eq!(handles.window.len(), KEPT_MAX);
        assert_eq!(handles.ranges.len(), RANGES_MAX);
        assert_eq!(handles.chain(Lsn(100)), Some(100 * 100 + 26));
        assert_eq!(handles.term_of(handles.floor), Some(handles.ranges[0].1));
        assert!(handles.entries(1, 2, None, GetEntriesContext::empty(false)).is_err());
    }
}
