//! redb.
//!
//! - The cache holds the whole database: redb does not map its file, so that its cache is what
//!   the page cache is to the others. It is set with `--cache-mib`.
//! - `Durability::Immediate`, the default, is said aloud: a commit that returned is durable.
//! - One-phase commits, the default; two phases would cost a second sync, and guard against
//!   attackers who choose what is stored.
//! - There is no append mode: a sorted load is a load in sorted order.

use std::path::Path;

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, Table, TableDefinition};

use crate::{
    Result,
    engine::{Batch, Engine, Setup, Tally, View},
};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// An open redb database.
pub struct Redb {
    database: Database,
}

/// The table as of a read transaction, which it keeps open.
pub struct RedbView {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

/// The table of a write transaction.
pub struct RedbBatch<'a> {
    table: Table<'a, &'static [u8], &'static [u8]>,
}

impl Engine for Redb {
    const NAME: &'static str = "redb";
    type View<'a> = RedbView;
    type Batch<'a> = RedbBatch<'a>;

    fn open(dir: &Path, setup: Setup) -> Result<Redb> {
        let mut builder = Database::builder();
        builder.set_cache_size(setup.cache_size);
        let redb = Redb { database: builder.create(dir.join("data.redb"))? };
        redb.write(|_| Ok(()))?;
        Ok(redb)
    }

    fn read<R>(&self, body: impl FnOnce(&RedbView) -> Result<R>) -> Result<R> {
        let txn = self.database.begin_read()?;
        body(&RedbView { table: txn.open_table(ENTRIES)? })
    }

    fn write(&self, body: impl FnOnce(&mut RedbBatch<'_>) -> Result<()> + Send) -> Result<()> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        {
            let mut batch = RedbBatch { table: txn.open_table(ENTRIES)? };
            body(&mut batch)?;
        }
        Ok(txn.commit()?)
    }

    fn close(self) -> Result<()> {
        Ok(self.database.close()?)
    }
}

impl View for RedbView {
    fn get(&self, key: &[u8], tally: &mut Tally) -> Result<bool> {
        let value = self.table.get(key)?;
        if let Some(value) = &value {
            tally.add(value.value());
        }
        Ok(value.is_some())
    }

    fn scan(&self, from: &[u8], limit: u64, tally: &mut Tally) -> Result<()> {
        let end = tally.entries + limit;
        for entry in self.table.range(from..)? {
            tally.add(entry?.1.value());
            if tally.entries == end {
                break;
            }
        }
        Ok(())
    }

    fn scan_prefix(&self, prefix: &[u8], tally: &mut Tally) -> Result<()> {
        for entry in self.table.range(prefix..)? {
            let (key, value) = entry?;
            if !key.value().starts_with(prefix) {
                break;
            }
            tally.add(value.value());
        }
        Ok(())
    }
}

impl Batch for RedbBatch<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.table.insert(key, value)?;
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.table.remove(key)?;
        Ok(())
    }
}
