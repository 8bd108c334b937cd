//! RocksDB, with the feature `rocksdb`.
//!
//! - Transactions are its write batches, each written with `sync`: a commit that returned is
//!   durable. RocksDB writes the batches of several threads together by itself.
//! - The cache holds the whole database. Blocks of 16 KiB, ten bits of filter a key, index and
//!   filters in the cache, those of the first level pinned, six background jobs, files synced as
//!   they grow: what its wiki advises under "Setup Options and Basic Tuning".
//! - Values are kept apart from keys (blob files) where they are large, as the wiki advises.
//! - Nothing is compressed: values are noise, and the library is built without codecs.
//! - Settling flushes what is in memory, and waits for compactions.

use std::{path::Path, thread, time::Duration};

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, Snapshot, WriteBatch, WriteOptions,
};

use crate::{
    Result,
    engine::{Batch, Engine, Setup, Tally, View},
};

/// What is still under way; all zero when the database is settled.
const BACKGROUND_WORK: [&str; 3] = [
    "rocksdb.num-running-compactions",
    "rocksdb.compaction-pending",
    "rocksdb.num-running-flushes",
];
/// How long settling waits between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// An open RocksDB database.
pub struct Rocksdb {
    database: DB,
    durable: WriteOptions,
}

/// A snapshot.
pub struct RocksdbView<'a> {
    snapshot: Snapshot<'a>,
}

/// A batch of writes.
#[derive(Default)]
pub struct RocksdbBatch {
    batch: WriteBatch,
}

fn options(setup: Setup) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(setup.cache_size));
    blocks.set_block_size(16 << 10);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_max_background_jobs(6);
    options.set_bytes_per_sync(1 << 20);
    options.set_compression_type(DBCompressionType::None);
    options.set_enable_blob_files(setup.large_values);
    options
}

impl Engine for Rocksdb {
    const NAME: &'static str = "rocksdb";
    type View<'a> = RocksdbView<'a>;
    type Batch<'a> = RocksdbBatch;

    fn open(dir: &Path, setup: Setup) -> Result<Rocksdb> {
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        Ok(Rocksdb { database: DB::open(&options(setup), dir)?, durable })
    }

    fn read<R>(&self, body: impl FnOnce(&RocksdbView<'_>) -> Result<R>) -> Result<R> {
        body(&RocksdbView { snapshot: self.database.snapshot() })
    }

    fn write(&self, body: impl FnOnce(&mut RocksdbBatch) -> Result<()> + Send) -> Result<()> {
        let mut batch = RocksdbBatch::default();
        body(&mut batch)?;
        Ok(self.database.write_opt(batch.batch, &self.durable)?)
    }

    fn settle(&self) -> Result<()> {
        self.database.flush()?;
        loop {
            let mut left = 0;
            for property in BACKGROUND_WORK {
                left += self.database.property_int_value(property)?.unwrap_or(0);
            }
            if left == 0 {
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl View for RocksdbView<'_> {
    fn get(&self, key: &[u8], tally: &mut Tally) -> Result<bool> {
        let value = self.snapshot.get_pinned(key)?;
        if let Some(value) = &value {
            tally.add(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, from: &[u8], limit: u64, tally: &mut Tally) -> Result<()> {
        let end = tally.entries.saturating_add(limit);
        let mut entries = self.snapshot.raw_iterator();
        entries.seek(from);
        while tally.entries < end
            && let Some(value) = entries.value()
        {
            tally.add(value);
            entries.next();
        }
        Ok(entries.status()?)
    }

    fn scan_prefix(&self, prefix: &[u8], tally: &mut Tally) -> Result<()> {
        let mut entries = self.snapshot.raw_iterator();
        entries.seek(prefix);
        while let Some((key, value)) = entries.item() {
            if !key.starts_with(prefix) {
                break;
            }
            tally.add(value);
            entries.next();
        }
        Ok(entries.status()?)
    }
}

impl Batch for RocksdbBatch {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.batch.put(key, value);
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.batch.delete(key);
        Ok(())
    }
}
