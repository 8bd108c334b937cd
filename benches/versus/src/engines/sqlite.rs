//! SQLite, compiled from the source that rusqlite brings.
//!
//! - `journal_mode = WAL` and `synchronous = FULL`: a commit that returned is durable.
//! - One connection writes, and writers queue for it: SQLite has one writer at a time, and waits
//!   for its lock by sleeping. Each reader takes a connection of its own from a pool.
//! - A table of keys and values, `WITHOUT ROWID` as the documentation advises for small rows with
//!   a key that is not an integer; with row ids where values are large, as it advises too.
//! - Statements are prepared once per connection.
//! - The cache of each connection may hold the whole database. The file is not mapped, which is
//!   the default: mapped, there were about a sixth more gets alone, and two fifths fewer beside a
//!   writer.
//! - There is no append mode: a sorted load is a load in sorted order.
//! - Settling is a checkpoint that empties the log.
//! - A backup is that of the online backup API, all pages in one step, as `.backup` of the shell does;
//!   to nowhere it is a database in memory. Packed it is `VACUUM INTO`, which needs a file.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};

use rusqlite::{
    CachedStatement, Connection, OptionalExtension, TransactionBehavior,
    backup::{self, StepResult},
};

use crate::{
    Result,
    engine::{Backup, BackupRequest, Batch, Engine, Setup, Tally, View},
};

const GET: &str = "SELECT value FROM entries WHERE key = ?1";
const SCAN: &str = "SELECT value FROM entries WHERE key >= ?1 ORDER BY key";
const SCAN_PREFIX: &str = "SELECT value FROM entries WHERE key >= ?1 AND key < ?2 ORDER BY key";
const PUT: &str = "REPLACE INTO entries (key, value) VALUES (?1, ?2)";
const REMOVE: &str = "DELETE FROM entries WHERE key = ?1";

/// An open SQLite database.
pub struct Sqlite {
    path: PathBuf,
    setup: Setup,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

/// A read transaction.
pub struct SqliteView<'a> {
    connection: &'a Connection,
    get: RefCell<CachedStatement<'a>>,
}

/// A write transaction.
pub struct SqliteBatch<'a> {
    put: CachedStatement<'a>,
    remove: CachedStatement<'a>,
}

impl Sqlite {
    fn connect(path: &Path, setup: Setup) -> Result<Connection> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let cache_kib = i64::try_from(setup.cache_size / 1024)?;
        connection.pragma_update(None, "cache_size", -cache_kib)?;
        Ok(connection)
    }

    fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
        mutex.lock().map_err(|_| "another thread panicked".into())
    }
}

/// Copies all pages of one database into another.
fn copy(source: &Connection, mut target: Connection) -> Result<()> {
    let copying = backup::Backup::new(source, &mut target)?;
    match copying.step(-1)? {
        StepResult::Done => Ok(()),
        _ => Err("a backup in one step did not end".into()),
    }
}

impl Engine for Sqlite {
    const NAME: &'static str = "sqlite";
    type View<'a> = SqliteView<'a>;
    type Batch<'a> = SqliteBatch<'a>;

    fn open(dir: &Path, setup: Setup) -> Result<Sqlite> {
        let path = dir.join("data.sqlite");
        let connection = Sqlite::connect(&path, setup)?;
        let layout = if setup.large_values { "" } else { "WITHOUT ROWID" };
        connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL) {layout}"
        ))?;
        Ok(Sqlite { path, setup, writer: Mutex::new(connection), readers: Mutex::default() })
    }

    fn read<R>(&self, body: impl FnOnce(&SqliteView<'_>) -> Result<R>) -> Result<R> {
        let pooled = Sqlite::lock(&self.readers)?.pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => Sqlite::connect(&self.path, self.setup)?,
        };
        let result = {
            let txn = connection.unchecked_transaction()?;
            let get = RefCell::new(txn.prepare_cached(GET)?);
            body(&SqliteView { connection: &txn, get })?
        };
        Sqlite::lock(&self.readers)?.push(connection);
        Ok(result)
    }

    fn write(&self, body: impl FnOnce(&mut SqliteBatch<'_>) -> Result<()> + Send) -> Result<()> {
        let mut connection = Sqlite::lock(&self.writer)?;
        let txn = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let (put, remove) = (txn.prepare_cached(PUT)?, txn.prepare_cached(REMOVE)?);
            body(&mut SqliteBatch { put, remove })?;
        }
        Ok(txn.commit()?)
    }

    fn settle(&self) -> Result<()> {
        let connection = Sqlite::lock(&self.writer)?;
        Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }

    fn can_back_up(&self) -> bool {
        true
    }

    fn back_up(&self, request: BackupRequest<'_>) -> Result<Option<Backup>> {
        let source = Sqlite::connect(&self.path, self.setup)?;
        if let Some(path) = request.file
            && path.exists()
        {
            fs::remove_file(path)?;
        }
        match (request.is_packed, request.file) {
            (true, Some(path)) => {
                let path = path.to_str().ok_or("the path is not UTF-8")?;
                source.execute("VACUUM INTO ?1", [path])?;
            }
            (true, None) => return Ok(None),
            (false, Some(path)) => copy(&source, Connection::open(path)?)?,
            (false, None) => copy(&source, Connection::open_in_memory()?)?,
        }
        let bytes = match request.file {
            Some(path) => fs::metadata(path)?.len(),
            None => fs::metadata(&self.path)?.len(),
        };
        Ok(Some(Backup { page_bytes: bytes, stored_bytes: bytes }))
    }

    fn close(self) -> Result<()> {
        drop(self.readers);
        let connection = self.writer.into_inner().map_err(|_| "another thread panicked")?;
        Ok(connection.close().map_err(|(_, error)| error)?)
    }
}

impl View for SqliteView<'_> {
    fn get(&self, key: &[u8], tally: &mut Tally) -> Result<bool> {
        let mut get = self.get.borrow_mut();
        let found = get.query_row([key], |row| {
            tally.add(row.get_ref(0)?.as_blob()?);
            Ok(())
        });
        Ok(found.optional()?.is_some())
    }

    fn scan(&self, from: &[u8], limit: u64, tally: &mut Tally) -> Result<()> {
        let end = tally.entries.saturating_add(limit);
        let mut statement = self.connection.prepare_cached(SCAN)?;
        let mut rows = statement.query([from])?;
        while tally.entries < end {
            let Some(row) = rows.next()? else { break };
            tally.add(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    }

    fn scan_prefix(&self, prefix: &[u8], tally: &mut Tally) -> Result<()> {
        let mut end = prefix.to_vec();
        *end.last_mut().ok_or("the prefix is empty")? += 1;
        let mut statement = self.connection.prepare_cached(SCAN_PREFIX)?;
        let mut rows = statement.query([prefix, &end])?;
        while let Some(row) = rows.next()? {
            tally.add(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    }
}

impl Batch for SqliteBatch<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put.execute([key, value])?;
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<()> {
        self.remove.execute([key])?;
        Ok(())
    }
}
