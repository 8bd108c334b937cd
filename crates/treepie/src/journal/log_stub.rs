//! Placeholder until the journal's own.
use super::{Journal, JournalPosition, JournalReader, StoredRecord};
use crate::{
    error::Result,
    format::{hard_state::HardState, record::SealedRecord},
    ids::{Lsn, Term},
};

/// x
pub struct AppendedRecords {
    pin: u64,
    reader: JournalReader,
    last: Lsn,
}
impl AppendedRecords {
    /// x
    pub fn next_record(&mut self, journal: &Journal) -> Result<Option<StoredRecord>> {
        if self.last >= journal.last().0.lsn {
            return Ok(None);
        }
        let r = self.reader.read_next()?;
        if let Some(r) = &r {
            self.last = r.header.lsn();
        }
        Ok(r)
    }
    /// x
    pub fn end(self, journal: &Journal) {
        journal.unpin(self.pin)
    }
}
impl Journal {
    /// The last record.
    pub fn last(&self) -> (JournalPosition, Term) {
        (self.shared.writer.lock().last, Term(1))
    }
    /// x
    pub fn appended_records(&self, after: Lsn) -> Result<AppendedRecords> {
        Ok(AppendedRecords {
            pin: self.pin(after)?,
            reader: JournalReader::open(self.shared.config.disk.clone(), &self.shared.config.dir)?
                .from(after.next())?,
            last: after,
        })
    }
    /// x
    pub fn note_committed(&self, _lsn: Lsn) {}
    /// x
    pub fn position_of(&self, _lsn: Lsn) -> Result<JournalPosition> {
        Err(crate::Error::Door { action: "truncate", reason: "the journal cannot yet" })
    }
    /// x
    pub fn first_term(&self) -> Lsn {
        Lsn(self.report().first_lsn.0.saturating_sub(1))
    }
    /// x
    pub fn term_of(&self, _lsn: Lsn) -> Option<Term> {
        Some(Term(1))
    }
    /// x
    pub fn hard_state(&self) -> Option<HardState> {
        None
    }
    /// x
    pub fn make_replicated(&self, _state: HardState) -> Result<()> {
        Ok(())
    }
    /// x
    pub fn set_base_term(&self, _term: Term) -> Result<()> {
        Ok(())
    }
    /// x
    pub fn append_group(&self, _state: Option<HardState>, records: &[&SealedRecord]) -> Result<()> {
        self.append(records)
    }
    /// x
    pub fn truncate(&self, _to: JournalPosition) -> Result<()> {
        Err(crate::Error::Door { action: "truncate", reason: "the journal cannot yet" })
    }
}
