//! Reading the log in its order, what is not committed included.

use std::{fmt, sync::Arc};

use crate::{
    error::{Error, Result},
    format::shared::SharedRecord,
    ids::Lsn,
    journal::JournalReader,
    txn::core::Core,
};

/// The appended records above an LSN, one at a time, read from the journal, which keeps them meanwhile.
pub struct LogRecords {
    core: Arc<Core>,
    pin: u64,
    reader: Option<JournalReader>,
    last: Lsn,
    /// Chain hash of the last one that was read.
    chain: Option<u64>,
    /// Truncations that were made before the reader was opened.
    truncations: u64,
}

impl LogRecords {
    pub(super) fn begin(core: Arc<Core>, after: Lsn) -> Result<LogRecords> {
        let pin = core.journal.pin(after)?;
        let truncations = core.journal.truncation_count();
        Ok(LogRecords { core, pin, reader: None, last: after, chain: None, truncations })
    }

    /// The next record, or none if there is no further one yet.
    ///
    /// # Errors
    /// [`Error::Misfit`] when what was read before was truncated since: begin anew.
    /// [`Error::Trimmed`] when it is too far behind, so that the records were given up.
    /// [`Error::Corrupt`], [`Error::JournalGap`], [`Error::Io`].
    pub fn next_record(&mut self) -> Result<Option<SharedRecord>> {
        loop {
            self.core.journal.advance_pin(self.pin, self.last)?;
            let truncations = self.core.journal.truncation_count();
            if self.truncations != truncations {
                (self.reader, self.truncations) = (None, truncations);
            }
            if self.last >= self.core.watermarks.appended() {
                return Ok(None);
            }
            let read = self.read();
            // What was read of records that are given up meanwhile is not to be believed, nor what it
            // failed with.
            self.core.journal.advance_pin(self.pin, self.last)?;
            if self.core.journal.truncation_count() != truncations {
                continue;
            }
            let Some(record) = read? else { return Ok(None) };
            if self.chain.is_some_and(|chain| chain != record.chain_before()) {
                return Err(Error::Misfit {
                    path: self.core.path.clone(),
                    wanted: Lsn(record.lsn().0.saturating_sub(1)),
                    found: self.last,
                    reason: "what was read before was truncated",
                });
            }
            (self.last, self.chain) = (record.lsn(), Some(record.chain()));
            return Ok(Some(record));
        }
    }

    fn read(&mut self) -> Result<Option<SharedRecord>> {
        if self.reader.is_none() {
            let disk = Arc::clone(&self.core.disk);
            let reader = JournalReader::open(disk, self.core.journal.dir())?;
            self.reader = Some(reader.from(self.last.next())?);
        }
        let stored = self.reader.as_mut().expect("it was just opened").read_next()?;
        stored.map(|stored| SharedRecord::stored(stored.header, stored.bytes)).transpose()
    }

    /// LSN of the record that was read last, or the one to begin after.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.last
    }
}

impl Drop for LogRecords {
    fn drop(&mut self) {
        self.core.journal.unpin(self.pin);
    }
}

impl fmt::Debug for LogRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogRecords").field("last", &self.last).finish_non_exhaustive()
    }
}
