//! fjall, a log-structured merge tree.
//!
//! - Transactions are its write batches, each made durable with `PersistMode::SyncData`, the mode
//!   that its documentation names for it. They are atomic but do not read what they write;
//!   the transactional database, which does, costs more.
//! - The cache holds the whole database: the documentation advises "more if the data set fits".
//! - Values are kept apart from keys (`with_kv_separation`) where they are large, as the
//!   documentation advises.
//! - The number of worker threads, sizes of memory tables and of the journal, filters and
//!   compression have their defaults.
//! - There is no append mode in transactions: bulk ingestion is for tables that nobody else writes.
//! - Settling flushes what is in memory, and waits for compactions.

use std::{path::Path, thread, time::Duration};

use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch, PersistMode,
    Readable, Snapshot,
};

use crate::{
    Result,
    engine::{Batch, Engine, Setup, Tally, View},
};

const ENTRIES: &str = "entries";
/// How long settling waits between two looks at the compactions.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Looks in a row without a compaction that count as the end of them: one may start another.
const LOOKS: u32 = 5;

/// An open fjall database.
pub struct Fjall {
    database: Database,
    entries: Keyspace,
}

/// A snapshot.
pub struct FjallView<'a> {
    snapshot: Snapshot,
    entries: &'a Keyspace,
}

/// A batch of writes.
pub struct FjallBatch<'a> {
    batch: OwnedWriteBatch,
    entries: &'a Keyspace,
}

impl Engine for Fjall {
    const NAME: &'static str = "fjall";
    type View<'a> = FjallView<'a>;
    type Batch<'a> = FjallBatch<'a>;

    fn open(dir: &Path, setup: Setup) -> Result<Fjall> {
        let database = Database::builder(dir).cache_size(setup.cache_size as u64).open()?;
        let options = || {
            let separation = setup.large_values.then(KvSeparationOptions::default);
            KeyspaceCreateOptions::default().with_kv_separation(separation)
        };
        let entries = database.keyspace(ENTRIES, options)?;
        Ok(Fjall { database, entries })
    }

    fn read<R>(&self, body: impl FnOnce(&FjallView<'_>) -> Result<R>) -> Result<R> {
        body(&FjallView { snapshot: self.database.snapshot(), entries: &self.entries })
    }

    fn write(&self, body: impl FnOnce(&mut FjallBatch<'_>) -> Result<()> + Send) -> Result<()> {
        let batch = self.database.batch().durability(Some(PersistMode::SyncData));
        let mut batch = FjallBatch { batch, entries: &self.entries };
        body(&mut batch)?;
        Ok(batch.batch.commit()?)
    }

    fn settle(&self) -> Result<()> {
        self.entries.rotate_memtable_and_wait()?;
        let mut idle_looks = 0;
        while idle_looks < LOOKS {
            let busy =
                self.database.active_compactions() > 0 || self.database.outstanding_flushes() > 0;
            idle_looks = if busy { 0 } else { idle_looks + 1 };
            thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

impl View for FjallView<'_> {
    fn get(&self, key: &[u8], tally: &mut Tally) -> Result<bool> {
        let value = self.snapshot.get(self.entries, key)?;
        if let Some(value) = &value {
            tally.add(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, from: &[u8], limit: u64, tally: &mut Tally) -> Result<()> {
        let end = tally.entries + limit;
        for entry in self.snapshot.range(self.entries, from..) {
            tally.add(&entry.value()?);
            if tally.entries == end {
                break;
            }
        }
        Ok(())
    }

    fn scan_prefix(&self, prefix: &[u8], tally: &mut Tally) -> Result<()> {
        for entry in self.snapshot.prefix(self.entries, prefix) {
            tally.add(&entry.value()?);
        }
        Ok(())
    }
}

impl Batch for FjallBatch<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.batch.insert(self.entries, key, value);
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.batch.remove(self.entries, key);
        Ok(())
    }
}
