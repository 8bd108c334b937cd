//! One file per command, or per few that do the same thing to an entry.

pub mod check;
pub mod entry;
pub mod journal;
pub mod load;
pub mod page;
pub mod repair;
pub mod report;
pub mod scan;
pub mod trees;

use std::path::Path;

use treepie::{Database, Options};

use crate::{failure::Result, notation::Notation};

/// Opens a database for a command that changes it, makes the folder when it is missing, and
/// closes it afterwards.
fn change<T>(path: &Path, action: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
    with(&Options::new().create(true), path, action)
}

/// Opens a database that must exist for a command that changes it.
fn change_existing<T>(path: &Path, action: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
    with(&Options::new(), path, action)
}

/// Opens a database that must exist for a command that only looks: it leaves the files as it finds
/// them, and thus does not take away what someone wants to look at next.
fn look<T>(path: &Path, action: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
    with(&Options::new().background_threads(false).checkpoint_on_close(false), path, action)
}

fn with<T>(
    options: &Options,
    path: &Path,
    action: impl FnOnce(&Database) -> Result<T>,
) -> Result<T> {
    let db = options.open(path)?;
    let result = action(&db);
    let closed = db.close();
    let value = result?;
    closed?;
    Ok(value)
}

/// The bytes of a tree's name, which is always written as text.
fn tree_name(argument: &str) -> Result<Vec<u8>> {
    bytes("the name of the tree", argument, Notation::Text)
}

/// The bytes of an argument.
fn bytes(what: &'static str, argument: &str, notation: Notation) -> Result<Vec<u8>> {
    notation
        .read(argument.as_bytes())
        .map_err(|source| crate::failure::Failure::Argument { what, source })
}
