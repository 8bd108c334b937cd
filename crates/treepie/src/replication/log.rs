//! Reading the log in its order, what is not committed included.

use std::{fmt, sync::Arc};

use crate::{
    error::{Error, Result},
    format::shared::SharedRecord,
    ids::Lsn,
    journal::AppendedRecords,
    txn::core::Core,
};

/// The appended records above an LSN, one at a time, read from the journal, which keeps them meanwhile.
pub struct LogRecords {
    core: Arc<Core>,
    /// There until this goes.
    records: Option<AppendedRecords>,
    last: Lsn,
    /// Chain hash of the last one that was read.
    chain: Option<u64>,
}

impl LogRecords {
    pub(super) fn begin(core: Arc<Core>, after: Lsn) -> Result<LogRecords> {
        let records = Some(core.journal.appended_records(after)?);
        Ok(LogRecords { core, records, last: after, chain: None })
    }

    /// The next record, or none if there is no further one yet.
    ///
    /// # Errors
    /// [`Error::Misfit`] when what was read before was truncated since: begin anew.
    /// [`Error::Trimmed`] when it is too far behind, so that the records were given up.
    /// [`Error::Corrupt`], [`Error::JournalGap`], [`Error::Io`].
    pub fn next_record(&mut self) -> Result<Option<SharedRecord>> {
        let records = self.records.as_mut().expect("it is there until this goes");
        let Some(stored) = records.next_record(&self.core.journal)? else { return Ok(None) };
        let record = SharedRecord::stored(stored.header, stored.bytes)?;
        if self.chain.is_some_and(|chain| chain != record.chain_before()) {
            return Err(Error::Misfit {
                path: self.core.path.clone(),
                wanted: Lsn(record.lsn().0.saturating_sub(1)),
                found: self.last,
                reason: "what was read before was truncated",
            });
        }
        (self.last, self.chain) = (record.lsn(), Some(record.chain()));
        Ok(Some(record))
    }

    /// LSN of the record that was read last, or the one to begin after.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.last
    }
}

impl Drop for LogRecords {
    fn drop(&mut self) {
        self.records.take().into_iter().for_each(|records| records.end(&self.core.journal));
    }
}

impl fmt::Debug for LogRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogRecords").field("last", &self.last).finish_non_exhaustive()
    }
}
