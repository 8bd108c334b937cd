//! The process that is killed: it stores a row per transaction, and tells each one's number after
//! its commit has returned, until it is killed or nobody listens any more.

use std::{
    io::{self, Write},
    path::Path,
};

use treepie::Database;

use crate::failure::{Failure, Result};

/// The tree that it writes.
pub const TREE: &str = "rows";
/// Where it ends by itself, should its parent neither kill it nor go away.
const ROWS_MAX: u64 = 1_000_000;

/// Key of a row: its number in ten digits.
pub fn row_key(row: u64) -> String {
    format!("{row:010}")
}

/// Value of a row: text that no other row has, of a length that differs between rows.
pub fn row_value(row: u64) -> String {
    let text = format!("row {row} was acknowledged; ");
    text.repeat(usize::try_from(row % 7 + 1).expect("below 8"))
}

/// Writes rows from 1 on.
pub fn run(path: &Path) -> Result<()> {
    let db = Database::open(path)?;
    let mut acknowledgements = io::stdout().lock();
    for row in 1..=ROWS_MAX {
        db.write(|tx| tx.tree(TREE)?.insert(row_key(row), row_value(row)))?;
        let told = writeln!(acknowledgements, "{row}").and_then(|()| acknowledgements.flush());
        told.map_err(Failure::Output)?;
    }
    db.close()?;
    Ok(())
}
