//! The database as its users hold it: open, read, write, checkpoint, check, report, close.

mod check;
mod copy;
mod inspect;
mod last_changes;
mod open;
#[cfg(test)]
mod planted;
mod records;
mod repair;
mod replicate;
mod report;
mod room;
#[cfg(feature = "shuttle")]
pub mod schedules;
mod scrub;
#[cfg(test)]
mod sparse;
#[cfg(test)]
mod tests;
mod threads;

use std::{fmt, panic::Location, path::Path, sync::Arc};

pub use check::{CheckReport, Problem};
pub use copy::CopyInfo;
pub use inspect::{JournalRecords, PageDump, RecordSummary};
pub use records::{RawRecord, Records};
pub use repair::{DamagedPage, RepairOutcome, WholePage};
use room::make_room;

pub use report::{ReaderInfo, Report, Stats, TreeReport};

use crate::{
    checkpoint::Checkpointer,
    copy::saved,
    error::{Error, Result},
    format::meta::Lineage,
    ids::{DatabaseId, Lsn},
    options::{Durability, Options},
    scrub::Scrubber,
    sync::{Mutex, thread::JoinHandle},
    txn::{
        core::Core,
        merger::Merger,
        reentrance::is_writing,
        snapshot::Snapshot,
        submit::Submitted,
        write::{Receipt, WriteTxn},
    },
};

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
    scrubber: Arc<Scrubber>,
    threads: Mutex<Threads>,
    checkpoint_on_close: bool,
}

/// The threads that an open database keeps; none without background threads.
#[derive(Debug, Default)]
struct Threads {
    checkpoint: Option<JoinHandle<()>>,
    flusher: Option<JoinHandle<()>>,
    /// With a `scrub_interval`.
    scrubber: Option<JoinHandle<()>>,
    /// Started with the first submitted write.
    mergers: Vec<JoinHandle<()>>,
    stopped: bool,
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
    /// visible, and durable as [`Options::durability`] says. When `change` returns an error or
    /// panics, nothing of it is left. Waits for room where memory or journal are used up.
    ///
    /// Closures of several callers are merged: they run one after another, each on top of the one
    /// before, and share one record and one disk write. So `change` may run on the thread of another
    /// caller, and a failure of one leaves the others as they are. It runs once, and may borrow from
    /// the caller's stack.
    ///
    /// Errors of the caller's own leave it through [`Error::rejected`]. Do not write to the same
    /// database inside: that is [`Error::Reentrant`] (and a deadlock if another thread is asked to,
    /// and waited for).
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
    ///
    /// # Panics
    /// If `change` does.
    #[track_caller]
    pub fn write<T: Send>(
        &self,
        change: impl FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send,
    ) -> Result<Receipt<T>> {
        let durability = self.shared.core.bounds.durability;
        Merger::write(&self.shared.core, change, durability, Location::caller(), &|| {
            self.make_room()
        })
    }

    /// As [`write`](Database::write), acknowledged as `durability` says.
    ///
    /// # Errors
    /// As [`write`](Database::write).
    ///
    /// # Panics
    /// If `change` does.
    #[track_caller]
    pub fn write_as<T: Send>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send,
    ) -> Result<Receipt<T>> {
        Merger::write(&self.shared.core, change, durability, Location::caller(), &|| {
            self.make_room()
        })
    }

    /// Hands `change` over to be merged and committed, and goes on: the handle is a future, and can
    /// be waited for. Closures of one thread run in the order in which they were submitted. While
    /// [`Options::queue_max`] closures wait, this does too.
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// let writes = (0_u32..100)
    ///     .map(|n| db.submit(move |tx| tx.tree("squares")?.insert(n.to_be_bytes(), (n * n).to_be_bytes())))
    ///     .collect::<treepie::Result<Vec<_>>>()?;
    /// for write in writes {
    ///     write.wait()?;
    /// }
    /// assert_eq!(db.read()?.tree("squares")?.len(), 100);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Reentrant`] inside a write of this thread, [`Error::Poisoned`]. All others are the
    /// handle's.
    #[track_caller]
    pub fn submit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Submitted<T>> {
        self.submit_as(self.shared.core.bounds.durability, change)
    }

    /// As [`submit`](Database::submit), acknowledged as `durability` says.
    ///
    /// # Errors
    /// As [`submit`](Database::submit).
    #[track_caller]
    pub fn submit_as<T: Send + 'static>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send + 'static,
    ) -> Result<Submitted<T>> {
        self.shared.start_mergers()?;
        let location = Location::caller();
        Merger::submit(&self.shared.core, change, durability, location, &|| self.make_room())
    }

    /// Makes everything that was committed by now durable, whatever its durability; returns up to
    /// which LSN that is. After [`Durability::Sync`] there is nothing to do.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] when the write or sync fails: the database is poisoned.
    /// [`Error::Poisoned`].
    pub fn sync(&self) -> Result<Lsn> {
        self.shared.core.pipeline.sync(&self.shared.core)
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
        if is_writing(&self.shared.core) {
            return Err(Error::Reentrant);
        }
        self.make_room()?;
        WriteTxn::begin(&self.shared.core)
    }

    fn make_room(&self) -> Result<()> {
        make_room(&self.shared.core, &self.shared.checkpointer)
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

    /// Its lineage: what tells it, its copies and its replicas from strangers.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.shared.core.lineage
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
    /// reading; until the last one is gone the folder stays locked, and nobody can open it. Where
    /// the last handle goes inside a submitted closure, or with its value, the rest happens on
    /// another thread soon after.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when an earlier write or sync failed, [`Error::Io`].
    pub fn close(self) -> Result<()> {
        match Arc::into_inner(self.shared) {
            Some(mut shared) if !shared.is_own_thread() => shared.end(),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// Ends the threads, checkpoints, and gives unused space behind the last page back.
    fn end(&mut self) -> Result<()> {
        if !self.stop() {
            return Ok(());
        }
        let finished = self.finish();
        // Only now: who follows the journal is to see what became durable last.
        self.core.watch.close();
        finished
    }

    fn finish(&self) -> Result<()> {
        let core = Arc::clone(&self.core);
        core.check_poison()?;
        core.pipeline.sync(&core)?;
        if !self.checkpoint_on_close {
            return Ok(());
        }
        let lsn = self.checkpointer.lock().checkpoint(&core)?;
        tracing::info!(lsn = lsn.0, path = %core.path.display(), "closed");
        // A copy may have to read what lies beyond the last page that is in use now.
        if lsn == core.watermarks.committed()
            && core.pager.registry.readers().entries().is_empty()
            && core.pager.copies.is_empty()
        {
            // What was sealed and given up may have been shorter than what is committed.
            let committed = core.commits.lock().back().map(|point| point.page_count);
            let page_count = committed.filter(|_| core.replicated.is_on());
            let page_count = page_count.unwrap_or_else(|| core.writer.lock().pages.page_count());
            core.pager.shrink(page_count)?;
        }
        core.journal.shrink()?;
        saved::save(&core)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let ended = if self.is_own_thread() { self.end_elsewhere() } else { self.end() };
        if let Err(error) = ended {
            tracing::error!(%error, "the database was not closed in order");
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.path()).finish_non_exhaustive()
    }
}
