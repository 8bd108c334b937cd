//! What the tests of schedules ask of an open database.

use crate::{error::Result, ids::Lsn};

use super::Database;

/// LSN up to which the journal is durable.
pub fn synced(db: &Database) -> Lsn {
    db.shared.core.watermarks.synced()
}

/// Writes all versions that it may to the data file, as the checkpoint does when memory is short.
///
/// # Errors
/// Those of a checkpoint.
pub fn write_early(db: &Database) -> Result<usize> {
    db.shared.checkpointer.lock().write_early(&db.shared.core, 0)
}
