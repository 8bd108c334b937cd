//! What a user does with a database whose bytes nobody can trust: opens it, reads everything, checks
//! and scrubs it, writes into every tree, closes it, opens it again, and salvages it in the end, or at
//! once where it does not open. Each call ends with a result or with an error of those that bad bytes
//! may have; a panic anywhere is for the caller to see.

use std::ops::ControlFlow;

use treepie::{Database, Error, Result, Snapshot, Tree, TreeMut, WriteTxn};

use super::template::{DIR, options};
use crate::SimDisk;

/// Entries that are read of a tree at most: a page that is used twice can show a great many.
const ENTRIES_MAX: usize = 2_000;
/// Trees that are looked at at most.
const TREES_MAX: usize = 32;
/// Folder of what is salvaged.
const SAVED: &str = "/saved";

/// What became of a visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    /// Whether it could be opened.
    pub opened: bool,
    /// Whether a check found nothing wrong.
    pub clean: bool,
    /// Whether everything that was tried to be read could be read.
    pub readable: bool,
    /// Whether a transaction that changed every tree was committed.
    pub written: bool,
}

/// Visits the database on the disk.
///
/// # Panics
/// When a call returns an error that bad bytes do not explain.
#[must_use]
pub fn visit(disk: &SimDisk) -> Visit {
    let mut visit = Visit::default();
    let db = match options(disk).checkpoint_on_close(false).open(DIR) {
        Ok(db) => db,
        Err(error) => {
            assert_explained("opening", &error);
            salvage(disk);
            return visit;
        }
    };
    visit.opened = true;
    let snapshot = db.read().expect("a snapshot needs no bytes of the file");
    visit.readable = explained("reading", read_everything(&snapshot)).is_some();
    visit.clean = explained("a check", db.check()).is_some_and(|report| report.is_clean());
    let _ = explained("a scrub", db.scrub(None, |_| ControlFlow::Continue(())));
    // A report counts all pages of all trees, the walk over the journal reads all records.
    let _ = explained("a report", db.report());
    let _ = explained("the journal", journal(&db));
    visit.written = explained("a write", write_everywhere(&db)).is_some();
    drop(snapshot);
    let _ = explained("a checkpoint", db.checkpoint());
    let _ = explained("closing", db.close());
    // What it wrote itself must not be worse to open.
    let again = options(disk).checkpoint_on_close(true).open(DIR);
    if let Some(db) = explained("opening again", again) {
        let snapshot = db.read().expect("a snapshot needs no bytes of the file");
        let _ = explained("reading again", read_everything(&snapshot));
        let _ = explained("a check again", db.check());
        drop(snapshot);
        drop(db);
    }
    salvage(disk);
    visit
}

/// Saves what there is into a database that is as clean as any.
fn salvage(disk: &SimDisk) {
    let saved = options(disk).salvage(DIR, SAVED, |_| ControlFlow::Continue(()));
    let Some(report) = explained("a salvage", saved) else { return };
    let db = options(disk).checkpoint_on_close(false).open(SAVED).expect("what is saved opens");
    let check = db.check().expect("what is saved can be read");
    assert!(check.is_clean(), "what is saved is damaged: {:?}", check.problems);
    let snapshot = db.read().expect("a snapshot needs no bytes of the file");
    let trees = snapshot.trees().expect("what is saved can be read");
    // What the engine keeps about itself is none of what was saved.
    let trees = trees.iter().filter(|tree| !tree.name.starts_with(b"$"));
    let entries: u64 = trees.map(|tree| tree.entries).sum();
    assert_eq!(entries, report.entries, "a report says something else than what is saved");
}

/// The value, unless there is an error, which bad bytes must explain.
fn explained<T>(what: &str, result: Result<T>) -> Option<T> {
    result.inspect_err(|error| assert_explained(what, error)).ok()
}

fn assert_explained(what: &str, error: &Error) {
    let is_explained = match error {
        Error::Corrupt { .. }
        | Error::JournalGap { .. }
        | Error::NotADatabase { .. }
        | Error::UnsupportedVersion { .. }
        | Error::UnsupportedFeatures { .. }
        | Error::Bound { .. }
        | Error::Poisoned { .. }
        | Error::TransactionBroken { .. } => true,
        // A hostile catalog has names that no user can give.
        Error::TreeName { .. } => true,
        Error::OutcomeUnknown { source, .. } => return assert_explained(what, source),
        _ => false,
    };
    assert!(is_explained, "{what} failed for the wrong reason: {error:?}");
}

fn journal(db: &Database) -> Result<()> {
    for record in db.journal_records(treepie::ids::Lsn(0))?.take(1_000) {
        record?;
    }
    Ok(())
}

fn read_everything(snapshot: &Snapshot) -> Result<()> {
    let mut result = Ok(());
    for info in snapshot.trees()?.iter().take(TREES_MAX) {
        let read = snapshot.tree(&info.name).and_then(|tree| read_tree(&tree));
        result = result.and(read);
    }
    result
}

fn read_tree(tree: &Tree<'_>) -> Result<()> {
    let mut result = tree.get("number 000041").map(|_| ());
    let mut keys = Vec::new();
    for entry in tree.iter().take(ENTRIES_MAX) {
        match entry {
            Ok((key, value)) => {
                std::hint::black_box(value.iter().fold(0, |any, byte| any | byte));
                keys.push(key.to_vec());
            }
            Err(error) => result = result.and(Err(error)),
        }
    }
    for entry in tree.iter().rev().take(ENTRIES_MAX) {
        result = result.and(entry.map(|_| ()));
    }
    for key in keys.iter().step_by(7) {
        result = result.and(tree.get(key).map(|_| ()));
        result = result.and(tree.range(&key[..]..).next().transpose().map(|_| ()));
    }
    let mut cursor = tree.cursor();
    result = result.and(cursor.seek("m").map(|_| ()));
    result = result.and(cursor.prev().map(|_| ()));
    result.and(cursor.next().map(|_| ()))
}

/// Changes every tree in a transaction of its own, so that damage of one does not hide the others;
/// then all of them in one.
fn write_everywhere(db: &Database) -> Result<()> {
    let names = db.begin_write()?.tree_names()?;
    let mut result = Ok(());
    for name in names.iter().take(TREES_MAX) {
        result = result.and(db.write(|tx| change(&mut tx.tree(name)?)).map(|_| ()));
        let ranges = db.write(|tx| change_ranges(&mut tx.tree(name)?));
        result = result.and(ranges.map(|_| ()));
    }
    result = result.and(db.write(|tx| change_all(tx, &names)).map(|_| ()));
    for name in names.iter().take(TREES_MAX) {
        let dropped = db.write(|tx| tx.drop_tree(name));
        result = result.and(dropped.map(|_| ()));
    }
    result
}

fn change_all(tx: &mut WriteTxn<'_>, names: &[Vec<u8>]) -> Result<()> {
    tx.tree("a new tree")?.insert("key", "value")?;
    for name in names.iter().take(TREES_MAX) {
        change(&mut tx.tree(name)?)?;
    }
    Ok(())
}

fn change(tree: &mut TreeMut<'_>) -> Result<()> {
    let first = tree.first()?.map(|(key, _)| key.to_vec());
    let last = tree.last()?.map(|(key, _)| key.to_vec());
    for number in (0..40).step_by(3) {
        tree.insert(format!("number {:06}", number * 5), vec![number as u8; 90])?;
    }
    tree.insert("zebra", vec![7; 5000])?;
    tree.insert("", "the lowest key")?;
    for key in first.iter().chain(&last) {
        tree.insert(key, vec![8; 700])?;
        tree.remove(key)?;
    }
    tree.remove("zebra").map(|_| ())
}

fn change_ranges(tree: &mut TreeMut<'_>) -> Result<()> {
    tree.remove_range("number 000100".."number 000160")?;
    let keys: Vec<Vec<u8>> = tree
        .iter()
        .take(60)
        .map(|entry| entry.map(|(key, _)| key.to_vec()))
        .collect::<Result<_>>()?;
    for key in keys.iter().step_by(2) {
        tree.remove(key)?;
    }
    tree.clear()
}
