//! The database as its users hold it: open, read, write, checkpoint, check, report, close.

mod check;
mod inspect;
mod open;
mod report;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    panic::Location,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;

pub use check::{CheckReport, Problem};
pub use inspect::{JournalRecords, PageDump, RecordSummary};
pub use report::{ReaderInfo, Report, Stats, TreeReport};

use crate::{
    checkpoint::Checkpointer,
    error::{Error, Result},
    ids::{DatabaseId, Lsn},
    options::Options,
    txn::{
        core::Core,
        signals::Ask,
        snapshot::Snapshot,
        write::{Receipt, WriteTxn, is_writing},
    },
};

/// How long a writer waits for the checkpoint before it looks again what keeps it.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// An open database: a folder with a data file and a journal.
///
/// A handle is cheap to clone and may be used by any number of threads; the last one that goes
/// closes the database. Only one process, and only one opening in it, may have a database open.
///
/// ```
/// # fn main() -> treepie::Result<()> {
/// # let dir = tempfile::tempdir().expect("a folder");
/// let db = treepie::Database::open(dir.path().join("birds"))?;
/// let receipt = db.write(|tx| {
///     let mut birds = tx.tree("birds")?;
///     birds.insert("dendrocitta vagabunda", "rufous treepie")?;
///     Ok(birds.len())
/// })?;
/// assert_eq!(receipt.value, 1);
///
/// let snapshot = db.read()?;
/// for entry in snapshot.tree("birds")?.prefix("dendrocitta") {
///     let (name, english) = entry?;
///     println!("{name}: {}", english.escape_ascii());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

/// What the clones of a handle share; snapshots outlive it.
struct Shared {
    core: Arc<Core>,
    checkpointer: Arc<Mutex<Checkpointer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    checkpoint_on_close: bool,
}

impl Database {
    /// Opens the database in the folder `path` with the default options, creating it when there is
    /// none.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Database> {
        Options::new().create(true).open(path)
    }

    /// A snapshot of all trees as of the newest commit. Does no I/O, and waits for nobody.
    ///
    /// # Errors
    /// [`Error::Bound`] when `readers_max` snapshots are open.
    #[track_caller]
    #[inline]
    pub fn read(&self) -> Result<Snapshot> {
        Snapshot::open(&self.shared.core, Location::caller())
    }

    /// Runs `change` in a write transaction and commits it: when this returns, its changes are
    /// durable and visible. When `change` returns an error or panics, nothing of it is left. Waits
    /// for the writer before, and for room where memory or journal are used up.
    ///
    /// `change` runs once. Errors of the caller's own leave it through [`Error::rejected`]. Do not
    /// write to the same database inside: that is [`Error::Reentrant`].
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// let receipt = db.write(|tx| {
    ///     let mut visits = tx.tree("visits")?;
    ///     let before = visits.get("home")?.and_then(|bytes| bytes.try_into().ok());
    ///     let count = before.map_or(0, u64::from_be_bytes) + 1;
    ///     visits.insert("home", count.to_be_bytes())?;
    ///     Ok(count)
    /// })?;
    /// assert_eq!(receipt.value, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `change` returns, and those of [`begin_write`](Database::begin_write) and
    /// [`WriteTxn::commit`].
    #[track_caller]
    pub fn write<T>(
        &self,
        change: impl FnOnce(&mut WriteTxn<'_>) -> Result<T>,
    ) -> Result<Receipt<T>> {
        let mut txn = self.begin_write()?;
        let value = change(&mut txn)?;
        let lsn = txn.commit()?;
        Ok(Receipt { value, lsn })
    }

    /// Begins a write transaction that is committed or rolled back explicitly. It keeps other
    /// writers waiting until then; readers are not concerned.
    ///
    /// # Errors
    /// [`Error::Reentrant`] inside another write of this thread, [`Error::Poisoned`],
    /// [`Error::Bound`] when the journal has reached `journal_max` and an old snapshot keeps the
    /// checkpoint from going on.
    #[track_caller]
    pub fn begin_write(&self) -> Result<WriteTxn<'_>> {
        self.make_room()?;
        WriteTxn::begin(&self.shared.core)
    }

    /// Waits while memory or journal are used up, so that what the checkpoint cannot keep up with
    /// slows writers down instead of growing.
    fn make_room(&self) -> Result<()> {
        let core = &*self.shared.core;
        core.check_poison()?;
        if is_writing(core) {
            return Err(Error::Reentrant);
        }
        if !core.bounds.background {
            return self.make_room_here();
        }
        let limits = core.pager.pool.limits();
        if core.pager.pool.memory_used() > limits.memory_max / 16 * 15 {
            core.counters.waits.fetch_add(1, Relaxed);
            core.signals.ask_and_wait(Ask::WriteEarly, WAIT_MAX);
        }
        while self.journal_is_full() {
            core.counters.waits.fetch_add(1, Relaxed);
            let before = core.watermarks.checkpointed();
            core.signals.ask_and_wait(Ask::Checkpoint, WAIT_MAX);
            core.check_poison()?;
            let oldest = core.pager.registry.oldest();
            if self.journal_is_full()
                && core.watermarks.checkpointed() == before
                && oldest < core.watermarks.committed()
            {
                return Err(self.journal_bound());
            }
            if core.watermarks.checkpointed() == before && self.journal_is_full() {
                // What keeps the checkpoint is not a reader: meet it here, and say so.
                self.checkpoint()?;
            }
        }
        Ok(())
    }

    /// The same without a thread: the writer does what the checkpoint would.
    fn make_room_here(&self) -> Result<()> {
        let core = &*self.shared.core;
        let journal_bytes = core.journal.bytes_after(core.watermarks.checkpointed());
        let pool = &core.pager.pool;
        if journal_bytes >= core.bounds.checkpoint_distance {
            self.shared.checkpointer.lock().checkpoint(core)?;
        } else if pool.memory_used() > pool.limits().memory_max / 2 {
            self.shared.checkpointer.lock().write_early(core, 0)?;
        }
        if self.journal_is_full() { Err(self.journal_bound()) } else { Ok(()) }
    }

    fn journal_is_full(&self) -> bool {
        let core = &*self.shared.core;
        core.journal.bytes_after(core.watermarks.checkpointed()) >= core.bounds.journal_max
    }

    fn journal_bound(&self) -> Error {
        Error::Bound {
            option: "journal_max",
            max: self.shared.core.bounds.journal_max,
            hint: "an old snapshot keeps the checkpoint back; end it (`report` says where it was \
                   opened), or raise the bound",
        }
    }

    /// Brings the data file up to the newest commit that no snapshot is below, and recycles the
    /// journal before it. Returns the LSN up to which the data file now holds everything. There is
    /// no need to call it: it also runs in the background, and when the database is closed.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; [`Error::Io`], which poisons the database; [`Error::Bound`] when
    /// `readers_max` snapshots are open.
    pub fn checkpoint(&self) -> Result<Lsn> {
        self.shared.checkpointer.lock().checkpoint(&self.shared.core)
    }

    /// Identity of the database, drawn when it was created.
    #[must_use]
    pub fn id(&self) -> DatabaseId {
        self.shared.core.lineage.database_id
    }

    /// Folder of the database.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.core.path
    }

    /// Size of a page in bytes.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.shared.core.pager.page_size()
    }

    /// Closes the database and reports what goes wrong, which dropping the handle cannot. Other
    /// handles, if there are any, keep it open, and this call then does nothing.
    ///
    /// Ends with a checkpoint, unless [`Options::checkpoint_on_close`] says no. Snapshots may go on
    /// reading; until the last one is gone the folder stays locked, and nobody can open it.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when an earlier write or sync failed, [`Error::Io`].
    pub fn close(self) -> Result<()> {
        match Arc::into_inner(self.shared) {
            Some(mut shared) => shared.end(),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// Ends the thread, checkpoints, and gives unused space behind the last page back.
    fn end(&mut self) -> Result<()> {
        let Some(core) = self.stop() else { return Ok(()) };
        core.check_poison()?;
        if !self.checkpoint_on_close {
            return Ok(());
        }
        let lsn = self.checkpointer.lock().checkpoint(&core)?;
        tracing::info!(lsn = lsn.0, path = %core.path.display(), "closed");
        if lsn == core.watermarks.committed() && core.pager.registry.readers().entries().is_empty()
        {
            let page_count = core.writer.lock().space.page_count();
            core.pager.shrink(page_count)?;
        }
        core.journal.shrink()?;
        Ok(())
    }

    /// Stops the thread; `None` when that was done before.
    fn stop(&mut self) -> Option<Arc<Core>> {
        self.core.signals.stop();
        let thread = self.thread.lock().take();
        match thread {
            Some(thread) => {
                if thread.join().is_err() {
                    tracing::error!("the checkpoint thread had panicked");
                }
                Some(Arc::clone(&self.core))
            }
            None if self.core.bounds.background => None,
            None => Some(Arc::clone(&self.core)),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the database was not closed in order");
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path()).finish_non_exhaustive()
    }
}
