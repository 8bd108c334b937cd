//! Step 4: a snapshot while another thread rewrites the tree that it reads.

use std::{hash::Hasher, thread};

use treepie::{Database, Snapshot};

use super::{promise, story::Story};
use crate::{
    failure::{Failure, Result},
    notation::Notation,
    output::grouped,
};

const TREE: &str = "categories";
const KEY: &str = "So 002603";
/// Entries in a transaction of the thread that rewrites.
const BATCH: usize = 1000;

/// Step 4.
pub fn show(db: &Database, story: &mut Story<'_>) -> Result<()> {
    story.step("Keep a snapshot while another thread rewrites a tree")?;
    let snapshot = db.read()?;
    let before = fingerprint(&snapshot)?;
    story.say(format!(
        "A snapshot at LSN {}: {TREE} {KEY} -> {}",
        snapshot.lsn(),
        value(&snapshot)?
    ))?;
    let scans = thread::scope(|scope| {
        let writer = scope.spawn(|| rewrite(db));
        let mut scans = 0;
        while !writer.is_finished() {
            let during = fingerprint(&snapshot)?;
            promise(during == before, || "the snapshot changed".to_owned())?;
            scans += 1;
        }
        writer.join().map_err(|_| Failure::Demo("the writing thread panicked".to_owned()))??;
        Ok::<_, Failure>(scans)
    })?;
    promise(fingerprint(&snapshot)? == before, || "the snapshot changed".to_owned())?;
    story.say(format!(
        "Meanwhile {} values became lower case; the snapshot was scanned {scans} times, and was",
        grouped(snapshot.tree(TREE)?.len()),
    ))?;
    story.say(format!("the same each time. It still says: {}", value(&snapshot)?))?;
    let after = db.read()?;
    story.say(format!("A new one, at LSN {}, says: {}", after.lsn(), value(&after)?))?;
    let changed = fingerprint(&after)? != before && value(&after)? == "snowman";
    promise(changed, || "the new snapshot does not see the new values".to_owned())
}

fn value(snapshot: &Snapshot) -> Result<String> {
    let value = snapshot.tree(TREE)?.get(KEY)?.unwrap_or_default();
    Ok(Notation::Text.show(value))
}

/// A hash of all entries.
fn fingerprint(snapshot: &Snapshot) -> Result<u64> {
    let mut hasher = std::hash::DefaultHasher::new();
    let mut key_bytes = Vec::new();
    for entry in snapshot.tree(TREE)?.iter() {
        let (key, value) = entry?;
        key_bytes.clear();
        key.copy_to(&mut key_bytes);
        for part in [key_bytes.as_slice(), value] {
            hasher.write_usize(part.len());
            hasher.write(part);
        }
    }
    Ok(hasher.finish())
}

/// Replaces every value by its lower case, in batches.
fn rewrite(db: &Database) -> treepie::Result<()> {
    let snapshot = db.read()?;
    let mut entries = snapshot.tree(TREE)?.iter();
    loop {
        let batch = entries.by_ref().take(BATCH).collect::<treepie::Result<Vec<_>>>()?;
        if batch.is_empty() {
            return Ok(());
        }
        db.write(|tx| {
            let mut tree = tx.tree(TREE)?;
            for (key, value) in &batch {
                tree.insert(key.to_vec(), value.to_ascii_lowercase())?;
            }
            Ok(())
        })?;
    }
}
