//! What the transactions, the checkpoint and the database share: pages, journal, watermarks, poison.

use std::{
    collections::VecDeque,
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicU64 as Counter},
};

use crate::{
    disk::{Disk, DiskLock},
    error::{Error, Result},
    format::{
        meta::{Lineage, Meta},
        record::{Compression, RecordBuilder},
    },
    ids::Lsn,
    journal::{Journal, JournalPosition},
    options::{Durability, Merging},
    pager::{space::Space, store::Pager},
    sync::{
        LeafMutex, Mutex,
        atomic::{AtomicU64, Ordering::*},
    },
};

use super::{
    flusher::Flusher,
    merger::Merger,
    meters::Meters,
    pages::PagesState,
    pipeline::Pipeline,
    replicated::Replicated,
    signals::{Ask, Signals},
    watch::Watch,
};

/// Bounds that writes and the checkpoint keep.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Journal bytes between two checkpoints.
    pub checkpoint_distance: u64,
    /// Journal bytes at which writers wait for the checkpoint, and fail when it cannot go on.
    pub journal_max: u64,
    /// Compression of records.
    pub compression: Compression,
    /// Whether threads run checkpoints and what was submitted; otherwise the writer does, when a
    /// bound is reached.
    pub background: bool,
    /// When writes are acknowledged, unless they say otherwise.
    pub durability: Durability,
    /// Bounds of merged transactions.
    pub merging: Merging,
    /// Bytes of recent records that a replicated database keeps in memory.
    pub recent_records: usize,
    /// Requests whose outcomes are remembered.
    pub requests_max: u64,
}

/// The state of one open database.
pub struct Core {
    /// Disk under everything.
    pub disk: Arc<dyn Disk>,
    /// Folder of the database.
    pub path: PathBuf,
    /// Bounds.
    pub bounds: Bounds,
    /// Pages.
    pub pager: Arc<Pager>,
    /// Records.
    pub journal: Journal,
    /// What only the one writer may touch.
    pub writer: Mutex<Writer>,
    /// Closures that wait to be merged into one transaction.
    pub merger: Merger,
    /// Sealed records on their way to the journal.
    pub pipeline: Pipeline,
    /// What it is in a cluster, if it is in one.
    pub replicated: Replicated,
    /// Syncs later what is acknowledged before.
    pub flusher: Flusher,
    /// How far everything has come.
    pub watermarks: Watermarks,
    /// Commits since the last checkpoint, oldest first.
    pub commits: Mutex<VecDeque<CommitPoint>>,
    /// Identity and history of the database.
    pub lineage: Lineage,
    /// The meta page that was written last; not locked across I/O.
    pub meta: LeafMutex<Meta>,
    /// Wakes the checkpoint, and those who wait for it.
    pub signals: Signals,
    /// Wakes those who follow the journal.
    pub watch: Watch,
    /// Counters for statistics.
    pub counters: Counters,
    /// How long the steps of a commit take.
    pub meters: Meters,
    poison: OnceLock<&'static str>,
    /// Keeps others out until the last handle and the last snapshot are gone.
    lock: Option<Box<dyn DiskLock>>,
}

/// What only the one writer may touch.
#[derive(Debug)]
pub struct Writer {
    /// Used and free pages in the newest sealed state, and memory for the next transaction.
    pub pages: PagesState,
    /// The last sealed record.
    pub tail: JournalPosition,
    /// Reused from record to record.
    pub builder: RecordBuilder,
    /// The space map in `pages` is not that of the newest state, because it could not be read.
    pub is_stale: bool,
}

/// What a checkpoint at an LSN writes into the meta page.
#[derive(Clone, Copy, Debug)]
pub struct CommitPoint {
    /// The commit, and the chain hash of its record.
    pub position: JournalPosition,
    /// One past the highest used page.
    pub page_count: u32,
    /// When it was sealed, microseconds since 1970; 0 if that is not known any more.
    pub time_us: u64,
}

/// How far everything has come. LSNs only rise, but for those of records that a replicated database has
/// given up again.
#[derive(Debug)]
pub struct Watermarks {
    /// Counts the falls: odd while there is one.
    falls: Counter,
    checkpointed: AtomicU64,
    committed: AtomicU64,
    synced: AtomicU64,
    appended: AtomicU64,
    sealed: AtomicU64,
}

impl Watermarks {
    /// Everything up to `checkpointed` is in the data file, everything up to `last` in the journal;
    /// what of that is above `committed` may still be given up.
    pub fn new(checkpointed: Lsn, committed: Lsn, last: Lsn) -> Watermarks {
        let last = || AtomicU64::new(last.0);
        Watermarks {
            falls: Counter::new(0),
            checkpointed: AtomicU64::new(checkpointed.0),
            committed: AtomicU64::new(committed.0),
            synced: last(),
            appended: last(),
            sealed: last(),
        }
    }

    /// LSN up to which a meta page vouches for the data file.
    pub fn checkpointed(&self) -> Lsn {
        Lsn(self.checkpointed.load(Acquire))
    }

    /// LSN up to which commits are final.
    pub fn committed(&self) -> Lsn {
        Lsn(self.committed.load(Acquire))
    }

    /// LSN up to which the journal is durable here.
    pub fn synced(&self) -> Lsn {
        Lsn(self.synced.load(Acquire))
    }

    /// LSN of the last record that was written to the journal.
    pub fn appended(&self) -> Lsn {
        Lsn(self.appended.load(Acquire))
    }

    /// LSN of the last record that was sealed: what the next transaction begins on.
    pub fn sealed(&self) -> Lsn {
        Lsn(self.sealed.load(Acquire))
    }

    /// Notes that records up to `lsn` are sealed.
    pub fn set_sealed(&self, lsn: Lsn) {
        self.sealed.store(lsn.0, Release);
        self.assert_ordered();
    }

    /// Notes that the journal holds records up to `lsn`.
    pub fn set_appended(&self, lsn: Lsn) {
        self.appended.store(lsn.0, Release);
        self.assert_ordered();
    }

    /// Notes that the journal is durable up to `lsn`.
    pub fn set_synced(&self, lsn: Lsn) {
        self.synced.store(lsn.0, Release);
        self.assert_ordered();
    }

    /// Notes that commits up to `lsn` are final.
    pub fn set_committed(&self, lsn: Lsn) {
        self.committed.store(lsn.0, Release);
        self.assert_ordered();
    }

    /// Notes that a meta page vouches for the data file up to `lsn`.
    pub fn set_checkpointed(&self, lsn: Lsn) {
        self.checkpointed.store(lsn.0, Release);
        self.assert_ordered();
    }

    /// Notes that the records above `lsn` were given up; nothing that is committed is.
    pub fn fall_to(&self, lsn: Lsn) {
        self.falls.fetch_add(1, SeqCst);
        for mark in [&self.synced, &self.appended, &self.sealed] {
            mark.fetch_min(lsn.0, AcqRel);
        }
        self.falls.fetch_add(1, SeqCst);
        self.assert_ordered();
    }

    /// Each is read before the one that it may not pass, so that a concurrent rise cannot look like
    /// a fall; what is read beside a true fall says nothing.
    fn assert_ordered(&self) {
        let falls = self.falls.load(SeqCst);
        let checkpointed = self.checkpointed();
        let committed = self.committed();
        let synced = self.synced();
        let appended = self.appended();
        let sealed = self.sealed();
        if !falls.is_multiple_of(2) || self.falls.load(SeqCst) != falls {
            return;
        }
        assert!(checkpointed <= committed, "{self:?}");
        assert!(checkpointed <= synced, "{self:?}");
        assert!(synced <= appended, "{self:?}");
        assert!(appended <= sealed, "{self:?}");
        // Above `appended` only where a commit is acknowledged from memory.
        assert!(committed <= sealed, "{self:?}");
    }
}

/// Counters since the database was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Transactions that changed something.
    pub commits: Counter,
    /// Bytes of records.
    pub record_bytes: Counter,
    /// Syncs of the journal that a commit asked for.
    pub syncs: Counter,
    /// Closures that were committed.
    pub closures: Counter,
    /// Write transactions that began.
    pub transactions: Counter,
    /// Transactions that were rolled back.
    pub rollbacks: Counter,
    /// Checkpoints that ended with a meta page.
    pub checkpoints: Counter,
    /// Pages that were written to the data file.
    pub pages_written: Counter,
    /// Writes that had to wait for the checkpoint.
    pub waits: Counter,
    /// Writes that paused because the checkpoint was behind.
    pub pauses: Counter,
}

impl Core {
    /// A core whose parts were opened by recovery.
    #[expect(clippy::too_many_arguments, reason = "the parts of the whole, each once")]
    pub fn new(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        bounds: Bounds,
        pager: Arc<Pager>,
        journal: Journal,
        space: Space,
        meta: Meta,
        point: CommitPoint,
    ) -> Core {
        let (committed, last) = (point.position, journal.last());
        Core {
            disk,
            path,
            bounds,
            watermarks: Watermarks::new(meta.checkpoint, committed.lsn, last.lsn),
            commits: Mutex::new(VecDeque::from([point])),
            lineage: meta.lineage,
            meta: LeafMutex::new(meta),
            writer: Mutex::new(Writer {
                pages: PagesState::new(space),
                tail: committed,
                builder: RecordBuilder::default(),
                is_stale: false,
            }),
            merger: Merger::default(),
            pipeline: Pipeline::default(),
            replicated: Replicated::new(bounds.recent_records, journal.hard_state().is_some()),
            flusher: Flusher::default(),
            meters: Meters::default(),
            pager,
            journal,
            signals: Signals::default(),
            watch: Watch::default(),
            counters: Counters::default(),
            poison: OnceLock::new(),
            lock: None,
        }
    }

    /// Couples the lock of the folder with the life of the core.
    pub fn with_lock(mut self, lock: Box<dyn DiskLock>) -> Core {
        self.lock = Some(lock);
        self
    }

    /// Refuses to go on after a failed write or sync.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn check_poison(&self) -> Result<()> {
        match self.poison.get() {
            Some(action) => Err(Error::Poisoned { action }),
            None => Ok(()),
        }
    }

    /// What poisoned the database.
    pub fn poisoned_by(&self) -> Option<&'static str> {
        self.poison.get().copied()
    }

    /// Makes the database read-only until it is reopened: the kernel may have dropped what a failed
    /// write or sync was to make durable, and would report success next time.
    pub fn poison(&self, action: &'static str, error: &Error) {
        if self.poison.set(action).is_ok() {
            tracing::error!(action, %error, "the database is read-only until it is reopened");
        }
        self.signals.wake_all();
        self.watch.wake();
        self.replicated.wake();
    }

    /// Lets readers see a commit, which follows the last one.
    pub(super) fn publish(&self, commits: &mut VecDeque<CommitPoint>, point: CommitPoint) {
        let lsn = point.position.lsn;
        commits.push_back(point);
        self.watermarks.set_committed(lsn);
        self.pager.registry.publish(lsn);
        self.counters.commits.fetch_add(1, Relaxed);
    }

    /// Tells the checkpoint when there is work for it.
    pub fn ask_checkpoint(&self) {
        let pool = &self.pager.pool;
        let journal_bytes = self.journal.bytes_after(self.watermarks.checkpointed());
        if journal_bytes >= self.bounds.checkpoint_distance {
            self.signals.ask(Ask::Checkpoint);
        } else if pool.memory_used() > pool.limits().memory_max / 8 * 7 {
            self.signals.ask(Ask::WriteEarly);
        }
    }

    /// The newest commit that the checkpoint may write: final, durable, and not above any reader.
    pub fn checkpoint_bound(&self) -> Lsn {
        self.pager.registry.oldest().min(self.watermarks.committed()).min(self.watermarks.synced())
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("path", &self.path).finish_non_exhaustive()
    }
}
