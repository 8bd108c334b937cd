//! What an engine has to offer to take part: an ordered map with snapshots and durable
//! transactions.
//!
//! The workloads are generic over these traits, so that no engine pays for a call through a
//! pointer per entry.

use std::{fs, path::Path};

use crate::Result;

/// A key that no entry's key is below. LMDB does not take an empty one.
pub const KEY_MIN: &[u8] = &[0];

/// What the engines are told when they are opened.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Bytes of cache, for engines that have their own.
    pub cache_size: usize,
    /// Bytes of a page of Treepie, the engine that is measured to choose it.
    #[cfg_attr(not(feature = "treepie"), allow(dead_code, reason = "the others have one size"))]
    pub page_size: usize,
    /// Whether values are large, for engines whose documentation then advises another layout.
    pub large_values: bool,
}

/// How a backup is made, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct BackupRequest<'a> {
    /// Whether the engine's way to a smaller one is taken: compression, or leaving free pages out.
    pub is_packed: bool,
    /// The file that it goes to, which is made anew. Without one it goes through memory to nowhere.
    pub file: Option<&'a Path>,
}

/// What a backup has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Bytes of pages that it holds.
    pub page_bytes: u64,
    /// Bytes that it takes.
    pub stored_bytes: u64,
}

/// A commit under way: waits for it.
pub type Pending<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

/// One open database. All calls may come from several threads.
pub trait Engine: Sized + Send + Sync {
    /// Name in the report.
    const NAME: &'static str;
    /// Whether commits beside a checkpoint are measured: `settle` is one, and runs beside writers.
    const HAS_CHECKPOINT: bool = false;
    /// One state of the database, being read.
    type View<'a>: View;
    /// One transaction, being written.
    type Batch<'a>: Batch;

    /// Opens the database in the folder, or creates it. The folder exists.
    fn open(dir: &Path, setup: Setup) -> Result<Self>;
    /// Takes a snapshot and reads it.
    fn read<R>(&self, body: impl FnOnce(&Self::View<'_>) -> Result<R>) -> Result<R>;
    /// Writes one transaction, which is durable when the call returns.
    fn write(&self, body: impl FnOnce(&mut Self::Batch<'_>) -> Result<()> + Send) -> Result<()>;
    /// Finishes what the engine has left for later, so that neither the next turn nor the next
    /// engine pays for it: a checkpoint, a flush, compactions. Nothing where nothing is left.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
    /// Hands over one put and returns before it is durable, if the engine can do that.
    fn submit(&self, _key: &[u8], _value: &[u8]) -> Result<Option<Pending<'_>>> {
        Ok(None)
    }
    /// Whether it can be backed up while it is open.
    fn can_back_up(&self) -> bool {
        false
    }
    /// Backs up the database as it is now, beside readers and writers, if the engine can do that. The
    /// file is not synced.
    fn back_up(&self, _request: BackupRequest<'_>) -> Result<Option<Backup>> {
        Ok(None)
    }
    /// Backs up what has changed since the last backup, packed and to nowhere, if the engine can do
    /// that.
    fn back_up_changes(&self) -> Result<Option<Backup>> {
        Ok(None)
    }
    /// Makes a database in a folder that is not there of a backup that was packed into a file, synced,
    /// and checked on demand. Whether the engine has a call for it.
    fn restore(_file: &Path, _dir: &Path, _is_checked: bool) -> Result<bool> {
        Ok(false)
    }
    /// Closes the database.
    fn close(self) -> Result<()>;
}

/// One state of the database.
pub trait View {
    /// Looks a key up and tallies its value. Whether it was there.
    fn get(&self, key: &[u8], tally: &mut Tally) -> Result<bool>;
    /// Tallies up to `limit` entries from the first key on that is not below `from`.
    fn scan(&self, from: &[u8], limit: u64, tally: &mut Tally) -> Result<()>;
    /// Tallies all entries whose keys begin with `prefix`.
    fn scan_prefix(&self, prefix: &[u8], tally: &mut Tally) -> Result<()>;
}

/// Changes of one transaction.
pub trait Batch {
    /// Inserts an entry, or replaces its value.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
    /// Inserts an entry whose key is above all others.
    fn append(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put(key, value)
    }
    /// Removes an entry.
    fn remove(&mut self, key: &[u8]) -> Result<()>;
}

/// What was read: proof that the engine did the work, and that it touched the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries read.
    pub entries: u64,
    /// Sum of the values' lengths.
    pub value_bytes: u64,
    /// Sum of the values' first bytes.
    pub first_bytes: u64,
}

impl Tally {
    /// Counts a value and touches its first byte.
    #[inline]
    pub fn add(&mut self, value: &[u8]) {
        self.entries += 1;
        self.value_bytes += value.len() as u64;
        self.first_bytes += u64::from(value.first().copied().unwrap_or(0));
    }
}

/// Bytes of blocks that the files of a folder occupy, those of its folders included.
pub fn occupied(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for item in fs::read_dir(dir)? {
        let item = item?;
        let meta = item.metadata()?;
        sum += if meta.is_dir() { occupied(&item.path())? } else { meta.blocks() * 512 };
    }
    Ok(sum)
}
