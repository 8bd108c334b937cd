//! What the tests share: options for a simulated disk and for a real one, applying a workload to a
//! database and to its model, and comparing the two.

use std::{env, sync::Arc, thread};

use tempfile::TempDir;
use treepie::{Compression, Database, Error, Options, Result, Snapshot, WriteTxn};
use treepie_testkit::{
    SimDisk,
    model::{Model, State},
    workload::Op,
};

/// Folder of the database on a simulated disk.
pub const DIR: &str = "/db";

/// Options for a simulated disk: small everything, nothing in the background.
pub fn options(disk: &SimDisk) -> Options {
    Options::new()
        .create(true)
        .page_size(4096)
        .versions_memory(512 << 10)
        .scratch_memory(64 << 20)
        .map_size(4 << 20)
        .readers_max(16)
        .journal_segment_size(16 << 10)
        .checkpoint_distance(256 << 10)
        .journal_max(4 << 20)
        .compression(Compression::Auto)
        .background_threads(false)
        .disk(Arc::new(disk.clone()))
}

/// A folder on a real disk, for as long as the test runs.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Options for a real disk: small pages, small bounds.
pub fn file_options() -> Options {
    Options::new()
        .create(true)
        .page_size(4096)
        .versions_memory(1 << 20)
        .map_size(1 << 30)
        .journal_segment_size(64 << 10)
}

/// A new database on a real disk, in a folder of its own.
pub fn open_new(options: &Options) -> (TempDir, Database) {
    let dir = folder();
    let db = options.open(dir.path().join("db")).expect("a new database opens");
    (dir, db)
}

/// Asserts that a user who sees the error is told these words.
#[track_caller]
pub fn assert_says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "\"{text}\" does not say \"{word}\"");
    }
}

/// The model of a database that was just created: its first record makes no tree of a user's.
pub fn new_model() -> Model {
    let mut model = Model::new();
    model.commit(1, &[]);
    model
}

/// Applies operations as a user's closure would.
pub fn apply(tx: &mut WriteTxn<'_>, ops: &[Op]) -> Result<()> {
    for op in ops {
        match op {
            Op::CreateTree { tree } => {
                tx.tree(tree)?;
            }
            Op::DropTree { tree } => {
                tx.drop_tree(tree)?;
            }
            Op::Clear { tree } => tx.tree(tree)?.clear()?,
            Op::Insert { tree, key, value } => {
                tx.tree(tree)?.insert(key, value)?;
            }
            Op::Remove { tree, key } => {
                tx.tree(tree)?.remove(key)?;
            }
        }
    }
    Ok(())
}

/// Commits operations; returns the LSN.
pub fn write(db: &Database, ops: &[Op]) -> Result<u64> {
    db.write(|tx| apply(tx, ops)).map(|receipt| receipt.lsn.0)
}

/// An insertion, for scripts written by hand.
pub fn insert(tree: &str, key: &str, value: &[u8]) -> Op {
    Op::Insert { tree: tree.to_owned(), key: key.as_bytes().to_vec(), value: value.into() }
}

/// A removal, for scripts written by hand.
pub fn remove(tree: &str, key: &str) -> Op {
    Op::Remove { tree: tree.to_owned(), key: key.as_bytes().to_vec() }
}

/// What differs between a snapshot and a state of the model, trees of the engine aside.
///
/// # Errors
/// What reading fails with.
pub fn difference(snapshot: &Snapshot, state: &State) -> Result<Option<String>> {
    let mut trees = snapshot.trees()?;
    trees.retain(|info| !info.name.starts_with(b"$"));
    let names: Vec<&[u8]> = state.trees().map(|(name, _)| name).collect();
    if !trees.iter().map(|info| &info.name[..]).eq(names.iter().copied()) {
        let found: Vec<_> = trees.iter().map(|info| info.name.escape_ascii().to_string()).collect();
        return Ok(Some(format!("the trees are {found:?}, the model has {}", names.len())));
    }
    for (name, entries) in state.trees() {
        let tree = snapshot.tree(name)?;
        let name = name.escape_ascii();
        if tree.len() != entries.len() as u64 {
            let (found, model) = (tree.len(), entries.len());
            return Ok(Some(format!("tree {name} says {found} entries, the model {model}")));
        }
        let mut expected = entries.iter();
        for entry in tree.iter() {
            let (key, value) = entry?;
            match expected.next() {
                Some((k, v)) if key == k[..] && *value == **v => {}
                Some((k, v)) => {
                    let (key, k) = (key.to_vec(), k.escape_ascii());
                    return Ok(Some(format!(
                        "tree {name} has {} ({} bytes) where the model has {k} ({} bytes)",
                        key.escape_ascii(),
                        value.len(),
                        v.len()
                    )));
                }
                None => return Ok(Some(format!("tree {name} has entries behind its last"))),
            }
        }
        if let Some((key, _)) = expected.next() {
            return Ok(Some(format!("tree {name} ends before {}", key.escape_ascii())));
        }
    }
    Ok(None)
}

/// Verifies a whole database: `check`, and all trees against the model at the LSN that it is at.
/// Returns that LSN, or what is wrong.
pub fn verify(db: &Database, model: &Model) -> Result<u64, String> {
    let snapshot = db.read().map_err(|error| format!("no snapshot: {error}"))?;
    let lsn = snapshot.lsn().0;
    let report = db.check().map_err(|error| format!("no check: {error}"))?;
    if !report.is_clean() {
        let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        return Err(format!("check at LSN {lsn} finds {problems:?}"));
    }
    let state = model.at(lsn).ok_or_else(|| format!("the model has no LSN {lsn}"))?;
    match difference(&snapshot, state) {
        Ok(None) => Ok(lsn),
        Ok(Some(difference)) => Err(format!("LSN {lsn}: {difference}")),
        Err(error) => Err(format!("LSN {lsn} cannot be read: {error}")),
    }
}

/// The seeds of a test: `count` from `first` on, so many times more as `TREEPIE_SEEDS` says, or the
/// one that `TREEPIE_SEED` names.
pub fn seeds(first: u64, count: u64) -> Vec<u64> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("TREEPIE_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + count * number("TREEPIE_SEEDS").unwrap_or(1)).collect(),
    }
}

/// Runs `work` on every seed, on two threads; returns the results in the order of the seeds.
pub fn for_seeds<T: Send>(seeds: &[u64], work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let results = parking_lot::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(&seed) = seeds.get(index) else { return };
                    let result = work(seed);
                    results.lock().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner();
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
