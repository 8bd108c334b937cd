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
//! - A backup is its checkpoint, a folder of hard links, whose files go behind one another into one
//!   stream, as `tar` would write it; packed through zstd at level 1 on two threads. Then the folder goes.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, Snapshot, WriteBatch, WriteOptions,
    checkpoint::Checkpoint,
};

use crate::{
    Result,
    engine::{Backup, BackupRequest, Batch, Engine, Setup, Tally, View},
};

/// What is still under way; all zero when the database is settled.
const BACKGROUND_WORK: [&str; 3] = [
    "rocksdb.num-running-compactions",
    "rocksdb.compaction-pending",
    "rocksdb.num-running-flushes",
];
/// How long settling waits between two looks at it.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Bytes that a backup reads at a time.
const COPY_LEN: usize = 1 << 20;
/// Threads that compress: one a processor.
const PACK_THREADS: u32 = 2;

/// An open RocksDB database.
pub struct Rocksdb {
    database: DB,
    durable: WriteOptions,
    dir: PathBuf,
    /// Checkpoints that were made: each has a folder of its own.
    checkpoints: AtomicU64,
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
        let database = DB::open(&options(setup), dir)?;
        Ok(Rocksdb { database, durable, dir: dir.to_owned(), checkpoints: AtomicU64::new(0) })
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

    fn can_back_up(&self) -> bool {
        true
    }

    fn back_up(&self, request: BackupRequest<'_>) -> Result<Option<Backup>> {
        let number = self.checkpoints.fetch_add(1, Ordering::Relaxed);
        // Links need one file system, and the database's own folder is not for strangers.
        let folder = self.dir.with_extension(format!("checkpoint-{number}"));
        Checkpoint::new(&self.database)?.create_checkpoint(&folder)?;
        let out: Box<dyn Write> = match request.file {
            Some(path) => Box::new(File::create(path)?),
            None => Box::new(io::sink()),
        };
        let mut stream = Counted { out, len: 0 };
        let page_bytes = if request.is_packed {
            let mut packer = zstd::Encoder::new(&mut stream, 1)?;
            packer.multithread(PACK_THREADS)?;
            let len = copy_folder(&folder, &mut packer)?;
            packer.finish()?;
            len
        } else {
            copy_folder(&folder, &mut stream)?
        };
        fs::remove_dir_all(&folder)?;
        Ok(Some(Backup { page_bytes, stored_bytes: stream.len }))
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

/// Counts the bytes that go through it.
struct Counted {
    out: Box<dyn Write>,
    len: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.len += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes the files of a folder behind one another; returns their length.
fn copy_folder(folder: &Path, out: &mut impl Write) -> Result<u64> {
    let (mut buffer, mut sum) = (vec![0; COPY_LEN], 0);
    for item in fs::read_dir(folder)? {
        let mut file = File::open(item?.path())?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                len => out.write_all(&buffer[..len])?,
            }
        }
        sum += file.metadata()?.len();
    }
    Ok(sum)
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
