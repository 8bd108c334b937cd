//! Placeholder until the journal's own.
use super::{Journal, JournalPosition};
use crate::{
    error::Result,
    format::{hard_state::HardState, record::SealedRecord},
    ids::{Lsn, Term},
};

impl Journal {
    /// The last record.
    pub fn last(&self) -> JournalPosition {
        self.shared.writer.lock().last
    }
    /// x
    pub fn first_known(&self) -> Lsn {
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
    pub fn append_group(
        &self,
        _state: Option<&HardState>,
        records: &[&SealedRecord],
        _known: Lsn,
    ) -> Result<()> {
        self.append(records)
    }
    /// x
    pub fn truncate(&self, _to: JournalPosition) -> Result<()> {
        Err(crate::Error::Door { action: "truncate", reason: "the journal cannot yet" })
    }
}
