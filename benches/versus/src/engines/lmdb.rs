#![allow(unsafe_code, reason = "LMDB trusts the file that it maps, so heed's open is unsafe")]
//! LMDB, through heed.
//!
//! - The map is far larger than any database here: LMDB's documentation asks for a size that is
//!   never reached, and it costs address space only.
//! - Neither `MDB_NOSYNC` nor `MDB_NOMETASYNC`: a commit that returned is durable.
//! - No `MDB_WRITEMAP`: the documentation warns that it gives up protection from stray writes.
//! - No `MDB_NORDAHEAD`: it is meant for databases larger than memory.
//! - Readers keep their slot in thread-local storage (no `MDB_NOTLS`), which is LMDB's default and
//!   spares the search for a slot: each thread here has one snapshot at a time.
//! - Sorted loads use `MDB_APPEND`, as the documentation advises.

use std::{ops::Bound, path::Path};

use heed::{Database, Env, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithTls, types::Bytes};

use crate::{
    Result,
    engine::{Batch, Engine, Setup, Tally, View},
};

const MAP_SIZE: usize = 256 << 30;

/// An open LMDB environment with its unnamed database.
pub struct Lmdb {
    env: Env<WithTls>,
    entries: Database<Bytes, Bytes>,
}

/// A read transaction.
pub struct LmdbView<'a> {
    txn: RoTxn<'a, WithTls>,
    entries: Database<Bytes, Bytes>,
}

/// A write transaction.
pub struct LmdbBatch<'a> {
    txn: RwTxn<'a>,
    entries: Database<Bytes, Bytes>,
}

impl Engine for Lmdb {
    const NAME: &'static str = "lmdb";
    type View<'a> = LmdbView<'a>;
    type Batch<'a> = LmdbBatch<'a>;

    fn open(dir: &Path, _setup: Setup) -> Result<Lmdb> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_SIZE);
        // SAFETY: the folder is a temporary one of this run, so that nobody else changes the
        // file, and no process opens it twice.
        let env = unsafe { options.open(dir)? };
        let mut txn = env.write_txn()?;
        let entries = env.create_database(&mut txn, None)?;
        txn.commit()?;
        Ok(Lmdb { env, entries })
    }

    fn read<R>(&self, body: impl FnOnce(&LmdbView<'_>) -> Result<R>) -> Result<R> {
        body(&LmdbView { txn: self.env.read_txn()?, entries: self.entries })
    }

    fn write(&self, body: impl FnOnce(&mut LmdbBatch<'_>) -> Result<()> + Send) -> Result<()> {
        let mut batch = LmdbBatch { txn: self.env.write_txn()?, entries: self.entries };
        body(&mut batch)?;
        Ok(batch.txn.commit()?)
    }

    fn close(self) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

impl View for LmdbView<'_> {
    fn get(&self, key: &[u8], tally: &mut Tally) -> Result<bool> {
        let value = self.entries.get(&self.txn, key)?;
        value.inspect(|value| tally.add(value));
        Ok(value.is_some())
    }

    fn scan(&self, from: &[u8], limit: u64, tally: &mut Tally) -> Result<()> {
        let bounds = (Bound::Included(from), Bound::Unbounded);
        let end = tally.entries + limit;
        for entry in self.entries.range(&self.txn, &bounds)? {
            tally.add(entry?.1);
            if tally.entries == end {
                break;
            }
        }
        Ok(())
    }

    fn scan_prefix(&self, prefix: &[u8], tally: &mut Tally) -> Result<()> {
        for entry in self.entries.prefix_iter(&self.txn, prefix)? {
            tally.add(entry?.1);
        }
        Ok(())
    }
}

impl Batch for LmdbBatch<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.entries.put(&mut self.txn, key, value)?)
    }

    fn append(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.entries.put_with_flags(&mut self.txn, PutFlags::APPEND, key, value)?)
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.entries.delete(&mut self.txn, key)?;
        Ok(())
    }
}
