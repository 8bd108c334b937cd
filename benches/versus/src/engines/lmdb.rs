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
//! - A backup is what `mdb_copy` does: `mdb_env_copyfd2`, packed with `MDB_CP_COMPACT`. To nowhere it
//!   goes through a pipe that a thread reads: written to `/dev/null`, the map would not even be read.

use std::{
    fs::File,
    io::{self, Read},
    ops::Bound,
    os::fd::OwnedFd,
    path::Path,
    thread,
};

use heed::{
    CompactionOption, Database, Env, EnvOpenOptions, PutFlags, RoTxn, RwTxn, WithTls, types::Bytes,
};

use crate::{
    Result,
    engine::{Backup, BackupRequest, Batch, Engine, Setup, Tally, View},
};

/// Bytes that are read from the pipe at a time: as much as a pipe holds.
const PIPE_LEN: usize = 64 << 10;

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

impl Lmdb {
    /// Copies the environment through a pipe; how many bytes came out.
    fn copy_through_pipe(&self, compaction: CompactionOption) -> Result<u64> {
        let (mut output, input) = io::pipe()?;
        let mut input = File::from(OwnedFd::from(input));
        thread::scope(|scope| {
            let reader = scope.spawn(move || -> io::Result<u64> {
                let (mut buffer, mut sum) = (vec![0; PIPE_LEN], 0);
                loop {
                    match output.read(&mut buffer)? {
                        0 => return Ok(sum),
                        len => sum += len as u64,
                    }
                }
            });
            let copied = self.env.copy_to_file(&mut input, compaction);
            drop(input);
            let read = reader.join().map_err(|_| "the reader of the pipe panicked")??;
            copied?;
            Ok(read)
        })
    }
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

    fn can_back_up(&self) -> bool {
        true
    }

    fn back_up(&self, request: BackupRequest<'_>) -> Result<Option<Backup>> {
        let compaction = match request.is_packed {
            true => CompactionOption::Enabled,
            false => CompactionOption::Disabled,
        };
        let bytes = match request.file {
            None => self.copy_through_pipe(compaction)?,
            Some(path) => {
                let mut file = File::create(path)?;
                self.env.copy_to_file(&mut file, compaction)?;
                file.metadata()?.len()
            }
        };
        Ok(Some(Backup { page_bytes: bytes, stored_bytes: bytes }))
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
