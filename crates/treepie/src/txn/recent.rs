//! Recent records, in memory: peers that keep up are sent them from here, and not from the journal.

use std::collections::VecDeque;

use crate::{format::shared::SharedRecord, ids::Lsn};

/// The newest records, without gaps, bounded in bytes.
#[derive(Debug)]
pub(super) struct Recent {
    records: VecDeque<SharedRecord>,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    pub fn new(bytes_max: usize) -> Recent {
        Recent { records: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Adds a record; those that it takes the numbers of go.
    pub fn push(&mut self, record: SharedRecord) {
        self.cut(Lsn(record.lsn().0.saturating_sub(1)));
        if self.records.back().is_some_and(|last| last.lsn().next() != record.lsn()) {
            self.cut(Lsn(0));
        }
        self.bytes += record.len();
        self.records.push_back(record);
    }

    /// Drops the records above `lsn`.
    pub fn cut(&mut self, lsn: Lsn) {
        while let Some(last) = self.records.pop_back_if(|last| last.lsn() > lsn) {
            self.bytes -= last.len();
        }
    }

    /// Drops the oldest ones while they are too many, but none above `appended`: the journal has not
    /// got those.
    pub fn shrink(&mut self, appended: Lsn) {
        while self.bytes > self.bytes_max
            && let Some(first) = self.records.front()
            && first.lsn() <= appended
        {
            self.bytes -= first.len();
            self.records.pop_front();
        }
    }

    pub fn get(&self, lsn: Lsn) -> Option<&SharedRecord> {
        let first = self.records.front()?.lsn();
        let index = usize::try_from(lsn.0.checked_sub(first.0)?).ok()?;
        self.records.get(index)
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
