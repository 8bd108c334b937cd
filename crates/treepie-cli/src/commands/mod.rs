//! One file per command, or per few that do the same thing to an entry.

pub mod archive;
pub mod backup;
pub mod check;
pub mod client;
pub mod cluster;
pub mod entry;
pub mod journal;
pub mod load;
pub mod node;
pub mod page;
pub mod prune;
pub mod rebuild;
mod rebuilt;
pub mod repair;
pub mod report;
pub mod restore;
pub mod scan;
pub mod snapshots;
pub mod squash;
pub mod trees;
pub mod verify;

use std::{fs::File, io, path::Path};

use treepie::{Database, Error, Options};

use crate::{
    failure::{Failure, Result},
    notation::Notation,
};

/// Bytes of journal that a command leaves behind, so that `archive` finds what the commands before it
/// have committed: each of them ends with a checkpoint.
const JOURNAL_RETENTION: u64 = 64 << 20;

/// Opens a database for a command that changes it, makes the folder when it is missing, and
/// closes it afterwards.
fn change<T>(path: &Path, action: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
    with(&changing().create(true), path, action)
}

/// Opens a database that must exist for a command that changes it.
fn change_existing<T>(path: &Path, action: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
    with(&changing(), path, action)
}

fn changing() -> Options {
    Options::new().journal_retention(JOURNAL_RETENTION)
}

/// Opens a database that must exist for a command that only looks: it leaves the files as it finds
/// them, and thus does not take away what someone wants to look at next.
fn look<T>(path: &Path, action: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
    with(&Options::new().background_threads(false).checkpoint_on_close(false), path, action)
}

/// As [`look`], for a backup: when somebody else has the database open, it is said who can back it up.
fn look_to_copy<T>(path: &Path, action: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
    look(path, action).map_err(|failure| match failure {
        Failure::Engine(error @ Error::Locked { .. }) => Failure::InUse(error),
        other => other,
    })
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
    notation.read(argument.as_bytes()).map_err(|source| Failure::Argument { what, source })
}

/// A file with a stream.
fn open_stream(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::NoBackup(path.to_owned()),
        _ => Failure::io("open", path)(error),
    })
}
