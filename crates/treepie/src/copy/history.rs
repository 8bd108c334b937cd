//! Whether the base of an incremental copy is an earlier state of this database.
//!
//! The chain hash at its LSN says so, where anyone knows it still: a generation of changed pages, the
//! meta page, the commits since, the journal. Where nobody does, the base is refused: a folder that was
//! copied, or rolled back, goes on with the same lineage, and its LSNs come again with other commits. Of
//! an earlier epoch only the state that this one began after can be told from others of its LSN.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    ids::Lsn,
    journal::JournalReader,
    recovery::JOURNAL_DIR,
    txn::core::Core,
};

use super::options::Base;

/// Refuses a base that is none.
///
/// # Errors
/// [`Error::Base`].
pub(super) fn check(core: &Core, base: &Base, is_believed: bool) -> Result<()> {
    let refuse = |reason| Err(Error::Base { lsn: base.lsn, reason });
    let own = core.lineage;
    if base.lineage.database_id != own.database_id {
        return refuse("it is of another database");
    }
    if base.lsn > core.watermarks.committed() {
        return refuse("it is above the newest commit");
    }
    if base.lsn == own.forked_at && base.chain == own.forked_chain && own.epoch > 0 {
        return Ok(());
    }
    if base.lineage != own {
        return refuse("it is of another epoch, and not the state that this one began after");
    }
    match known_chain(core, base.lsn) {
        Some(chain) if chain != base.chain => refuse("another record has this LSN"),
        None if !is_believed => {
            refuse("neither the journal nor the map of changed pages goes back to it any more")
        }
        _ => Ok(()),
    }
}

/// The chain hash at an LSN, where anything has it.
fn known_chain(core: &Core, lsn: Lsn) -> Option<u64> {
    if let Some(chain) = core.pager.changed.chain_at(lsn) {
        return Some(chain);
    }
    let meta = *core.meta.lock();
    if meta.checkpoint == lsn {
        return Some(meta.chain);
    }
    let commit = {
        let commits = core.commits.lock();
        commits.iter().find(|commit| commit.position.lsn == lsn).copied()
    };
    if let Some(commit) = commit {
        return Some(commit.position.chain);
    }
    stored_chain(core, lsn).unwrap_or_else(|error| {
        tracing::warn!(%error, "the base of a copy is not compared with the journal");
        None
    })
}

fn stored_chain(core: &Core, lsn: Lsn) -> Result<Option<u64>> {
    let before = Lsn(lsn.0.saturating_sub(1));
    let pin = match core.journal.pin(before) {
        Ok(pin) => pin,
        Err(Error::Trimmed { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let chain = read_chain(core, lsn);
    // What was given up meanwhile may be another's by now.
    let is_kept = core.journal.advance_pin(pin, before);
    core.journal.unpin(pin);
    is_kept.and(chain)
}

fn read_chain(core: &Core, lsn: Lsn) -> Result<Option<u64>> {
    let journal = core.path.join(JOURNAL_DIR);
    let mut records = JournalReader::open(Arc::clone(&core.disk), &journal)?.from(lsn)?;
    let Some(stored) = records.next().transpose()? else { return Ok(None) };
    Ok((stored.header.lsn() == lsn).then(|| stored.header.chain()))
}
