//! An engine for tests: a map in memory.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Result,
    engine::{Backup, BackupRequest, Batch, Engine, Pending, Setup, Tally, View},
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A map in memory, which counts its commits.
#[derive(Default)]
pub struct Memory {
    entries: Mutex<Map>,
    commits: AtomicU64,
    fails: bool,
}

/// The map while it is locked.
pub struct Locked<'a>(&'a mut Map);

impl Memory {
    /// One whose commits fail.
    pub fn failing() -> Memory {
        Memory { fails: true, ..Memory::default() }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    /// How many transactions were committed.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

impl Engine for Memory {
    const NAME: &'static str = "memory";
    type View<'a> = Locked<'a>;
    type Batch<'a> = Locked<'a>;

    fn open(_dir: &Path, _setup: Setup) -> Result<Memory> {
        Ok(Memory::default())
    }

    fn read<R>(&self, body: impl FnOnce(&Locked<'_>) -> Result<R>) -> Result<R> {
        body(&Locked(&mut self.entries.lock().unwrap()))
    }

    fn write(&self, body: impl FnOnce(&mut Locked<'_>) -> Result<()> + Send) -> Result<()> {
        if self.fails {
            return Err("this engine fails".into());
        }
        self.commits.fetch_add(1, Ordering::Relaxed);
        body(&mut Locked(&mut self.entries.lock().unwrap()))
    }

    fn submit(&self, key: &[u8], value: &[u8]) -> Result<Option<Pending<'_>>> {
        let (key, value) = (key.to_vec(), value.to_vec());
        Ok(Some(Box::new(move || self.write(|batch| batch.put(&key, &value)))))
    }

    fn can_back_up(&self) -> bool {
        true
    }

    fn back_up(&self, request: BackupRequest<'_>) -> Result<Option<Backup>> {
        if let Some(path) = request.file {
            fs::write(path, b"a backup")?;
        }
        Ok(Some(Backup {
            page_bytes: 8000,
            stored_bytes: if request.is_packed { 4000 } else { 8000 },
        }))
    }

    fn back_up_changes(&self) -> Result<Option<Backup>> {
        Ok(Some(Backup { page_bytes: 80, stored_bytes: 40 }))
    }

    fn restore(file: &Path, dir: &Path, _is_checked: bool) -> Result<bool> {
        assert!(file.exists() && !dir.exists());
        fs::create_dir(dir)?;
        Ok(true)
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl View for Locked<'_> {
    fn get(&self, key: &[u8], tally: &mut Tally) -> Result<bool> {
        let value = self.0.get(key);
        value.inspect(|value| tally.add(value));
        Ok(value.is_some())
    }

    fn scan(&self, from: &[u8], limit: u64, tally: &mut Tally) -> Result<()> {
        let entries = self.0.range(from.to_vec()..).take(usize::try_from(limit)?);
        entries.for_each(|(_, value)| tally.add(value));
        Ok(())
    }

    fn scan_prefix(&self, prefix: &[u8], tally: &mut Tally) -> Result<()> {
        let entries = self.0.range(prefix.to_vec()..);
        entries
            .take_while(|(key, _)| key.starts_with(prefix))
            .for_each(|(_, value)| tally.add(value));
        Ok(())
    }
}

impl Batch for Locked<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.0.remove(key);
        Ok(())
    }
}
