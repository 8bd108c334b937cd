//! An undo log with a gap, to see that whoever looks at what is left finds it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tempfile::TempDir;

use super::*;
use crate::{Database, Options};

fn furnished() -> (TempDir, Database) {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options::new().create(true).page_size(4096).map_size(1 << 20);
    let db = options.background_threads(false).open(dir.path().join("db")).expect("it opens");
    db.write(|tx| fill(tx, 1)).expect("a commit");
    (dir, db)
}

/// Touches leaves, a branch, runs, free space and the catalog.
fn fill(tx: &mut WriteTxn<'_>, byte: u8) -> Result<()> {
    for number in 0..60_u32 {
        tx.tree("t")?.insert(number.to_be_bytes(), vec![byte; 200 + usize::from(byte)])?;
    }
    tx.tree("t")?.insert("run", vec![byte; 9000])?;
    tx.tree(format!("tree {byte}"))?.insert("k", "v").map(|_| ())
}

/// Names and entries of all trees of the user's, or why they are no state of a database.
type State = std::result::Result<Vec<String>, String>;

fn look(db: &Database) -> State {
    let report = db.check().map_err(|error| error.to_string())?;
    if let Some(problem) = report.problems.first() {
        return Err(problem.to_string());
    }
    let read = || -> Result<Vec<String>> {
        let snapshot = db.read()?;
        let mut entries = Vec::new();
        for info in snapshot.trees()?.iter().filter(|info| !info.name.starts_with(b"$")) {
            entries.push(info.name.escape_ascii().to_string());
            for entry in snapshot.tree(&info.name)?.iter() {
                let (key, value) = entry?;
                let (key, len) = (key.to_vec(), value.len());
                entries.push(format!("{} {len} {:?}", key.escape_ascii(), value.first()));
            }
        }
        Ok(entries)
    };
    read().map_err(|error| error.to_string())
}

/// Changes something, changes more after a savepoint, loses one step of the undo log if told to,
/// undoes the savepoint and commits. Returns what is there then, and how long the log was.
fn undo_without(lost: Option<usize>) -> (State, usize) {
    let (_dir, db) = furnished();
    let mut steps = 0;
    let end = catch_unwind(AssertUnwindSafe(|| {
        let mut tx = db.begin_write().expect("a transaction");
        fill(&mut tx, 2).expect("changes");
        let savepoint = tx.begin_savepoint();
        fill(&mut tx, 3).expect("changes");
        tx.drop_tree("tree 2").expect("a change");
        tx.tree("t").and_then(|mut tree| tree.remove("run")).expect("a change");
        steps = tx.pages.as_mut().expect("it is open").lose_undo(lost);
        tx.undo_savepoint(savepoint);
        tx.commit().map(|_| ()).map_err(|error| error.to_string())
    }));
    let end = match end {
        Ok(end) => end.and_then(|()| look(&db)),
        Err(panic) => Err(super::super::job::panic_message(&panic)),
    };
    (end, steps)
}

#[test]
fn one_step_of_an_undo_log_that_is_lost_is_found() {
    let (whole, steps) = undo_without(None);
    let whole = whole.expect("a whole undo log leaves a state");
    let (_dir, twin) = furnished();
    twin.write(|tx| fill(tx, 2)).expect("a commit");
    assert_eq!(whole, look(&twin).expect("a state"));
    assert!(steps > 9, "{steps} steps");
    let found =
        (0..steps).filter(|&lost| undo_without(Some(lost)).0.as_ref() != Ok(&whole)).count();
    println!("{found} of {steps} lost steps are found");
    // A page that was free before may be left with anything.
    assert!(found * 2 > steps, "{found} of {steps}");
}
