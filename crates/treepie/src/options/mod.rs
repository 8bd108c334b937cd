//! Options: what an embedder may choose when it opens a database, with the defaults and why.

use std::{
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use crate::{
    disk::{Disk, RealDisk},
    error::{Error, Result},
    ids::DatabaseId,
    limits::{PAGE_SIZE_MAX, PAGE_SIZE_MIN},
};

mod merging;
mod replicating;

pub(crate) use self::merging::Merging;
pub use self::merging::{Durability, Overlap};
pub use crate::format::record::Compression;

const MIB: usize = 1 << 20;

/// How a database is opened. Each option has a default; `docs/limits.md` lists them with what
/// happens when a bound is reached.
///
/// ```no_run
/// # fn main() -> treepie::Result<()> {
/// let db = treepie::Options::new().create(true).application("ledger", 3).open("ledger.db")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) create: bool,
    pub(crate) database_id: Option<DatabaseId>,
    pub(crate) page_size: Option<usize>,
    pub(crate) application: Option<(String, u64)>,
    pub(crate) versions_memory: usize,
    pub(crate) scratch_memory: usize,
    pub(crate) map_size: usize,
    pub(crate) readers_max: usize,
    pub(crate) journal_segment_size: u64,
    pub(crate) checkpoint_distance: u64,
    pub(crate) journal_max: u64,
    pub(crate) journal_retention: u64,
    pub(crate) journal_pins_max: u64,
    pub(crate) journal_reserve: u64,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) compression: Compression,
    pub(crate) background_threads: bool,
    pub(crate) checkpoint_on_close: bool,
    pub(crate) durability: Durability,
    pub(crate) sync_interval: Duration,
    pub(crate) merging: Merging,
    pub(crate) recent_records_memory: usize,
    pub(crate) requests_max: u64,
    pub(crate) scrub_interval: Option<Duration>,
    pub(crate) scrub_rate: u64,
    pub(crate) disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The defaults, which do not create a database.
    #[must_use]
    pub fn new() -> Options {
        Options {
            create: false,
            database_id: None,
            page_size: None,
            application: None,
            versions_memory: *DEFAULT_VERSIONS_MEMORY,
            scratch_memory: 8 << 30,
            map_size: 256 << 30,
            readers_max: 4096,
            journal_segment_size: 64 << 20,
            checkpoint_distance: 256 << 20,
            journal_max: 2 << 30,
            journal_retention: 0,
            journal_pins_max: 1 << 30,
            journal_reserve: 1 << 20,
            checkpoint_interval: Duration::from_secs(30),
            compression: Compression::Auto,
            background_threads: true,
            checkpoint_on_close: true,
            durability: Durability::Sync,
            sync_interval: Duration::from_millis(100),
            merging: Merging::default(),
            recent_records_memory: 64 << 20,
            requests_max: 65_536,
            scrub_interval: None,
            scrub_rate: 8 << 20,
            disk: Arc::new(RealDisk),
        }
    }

    /// Whether a missing database is created, with its folder. Default: no.
    #[must_use]
    pub fn create(mut self, create: bool) -> Options {
        self.create = create;
        self
    }

    /// Size of a page in bytes, 4096 or 8192; chosen at creation. Default: 8192 for a new database,
    /// whatever it has for one that exists; a size that differs from that is refused.
    #[must_use]
    pub fn page_size(mut self, bytes: usize) -> Options {
        self.page_size = Some(bytes);
        self
    }

    /// Name and version of the application that owns the data. Stored at creation; when asked for,
    /// an existing database must have the same name, and a version that is not higher. A lower one
    /// is raised to this. Default: not stored, not checked.
    #[must_use]
    pub fn application(mut self, name: impl Into<String>, version: u64) -> Options {
        self.application = Some((name.into(), version));
        self
    }

    /// Memory in bytes for versions of pages that are not in the data file yet. More of it means
    /// fewer and larger checkpoints. Default: a quarter of the machine's memory, at most 1 GiB.
    #[must_use]
    pub fn versions_memory(mut self, bytes: usize) -> Options {
        self.versions_memory = bytes;
        self
    }

    /// Bytes of unlinked scratch files for what goes beyond `versions_memory`: transactions larger
    /// than that, and changes that an old reader keeps from the data file. What goes beyond this
    /// too is refused. Default: 8 GiB.
    #[must_use]
    pub fn scratch_memory(mut self, bytes: usize) -> Options {
        self.scratch_memory = bytes;
        self
    }

    /// Address space in bytes that is reserved for the map of the data file. Not a limit of its
    /// size: a file that outgrows it is mapped anew. Default: 256 GiB.
    #[must_use]
    pub fn map_size(mut self, bytes: usize) -> Options {
        self.map_size = bytes;
        self
    }

    /// Most snapshots and transactions that are open at a time; clones of a snapshot count once, a
    /// running checkpoint counts too. Default: 4096.
    #[must_use]
    pub fn readers_max(mut self, count: usize) -> Options {
        self.readers_max = count;
        self
    }

    /// Largest journal segment in bytes (a record that is larger gets one of its own). The first is
    /// smaller, each doubles. Default: 64 MiB.
    #[must_use]
    pub fn journal_segment_size(mut self, bytes: u64) -> Options {
        self.journal_segment_size = bytes;
        self
    }

    /// Bytes of journal after which a checkpoint begins; what opening after a kill has to replay.
    /// Default: 256 MiB, replayed in about a second.
    #[must_use]
    pub fn checkpoint_distance(mut self, bytes: u64) -> Options {
        self.checkpoint_distance = bytes;
        self
    }

    /// Bytes of journal behind the last checkpoint at which writers wait for the next one, and are
    /// refused when an old reader keeps it from going on. Default: 2 GiB.
    #[must_use]
    pub fn journal_max(mut self, bytes: u64) -> Options {
        self.journal_max = bytes;
        self
    }

    /// Bytes of journal segments that are kept although the checkpoint does not need them any more, for
    /// whoever wants to read on from an earlier LSN: an archive that runs from time to time, a replica
    /// that was away. Default: 0.
    #[must_use]
    pub fn journal_retention(mut self, bytes: u64) -> Options {
        self.journal_retention = bytes;
        self
    }

    /// Most bytes of such segments that are kept for one who is reading the journal
    /// ([`Database::records`](crate::Database::records)). Who falls further behind is told so, and
    /// keeps nothing any more. Default: 1 GiB.
    #[must_use]
    pub fn journal_pins_max(mut self, bytes: u64) -> Options {
        self.journal_pins_max = bytes;
        self
    }

    /// Bytes of a file, allocated ahead, that becomes journal when the disk is full, for transactions
    /// that leave fewer entries than they found and take no pages: so a full disk can be emptied
    /// through the database. One segment at most; 0 for none. Default: 1 MiB, 255 such commits.
    #[must_use]
    pub fn journal_reserve(mut self, bytes: u64) -> Options {
        self.journal_reserve = bytes;
        self
    }

    /// Longest time between a commit and a checkpoint, unless an old snapshot keeps it back; without
    /// background threads it has no effect. Default: 30 seconds.
    #[must_use]
    pub fn checkpoint_interval(mut self, interval: Duration) -> Options {
        self.checkpoint_interval = interval;
        self
    }

    /// Compression of records. Default: [`Compression::Auto`].
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Options {
        self.compression = compression;
        self
    }

    /// Whether threads run checkpoints and prepare journal segments. Without them both happen
    /// inside the calls that need them, in an order that depends on nothing else. Default: yes.
    #[must_use]
    pub fn background_threads(mut self, background: bool) -> Options {
        self.background_threads = background;
        self
    }

    /// Whether closing ends with a checkpoint, so that the next opening has nothing to replay. What
    /// was committed is durable either way. Default: yes.
    #[must_use]
    pub fn checkpoint_on_close(mut self, checkpoint: bool) -> Options {
        self.checkpoint_on_close = checkpoint;
        self
    }

    /// How often a thread goes over the whole database to find damage before it is needed: this long
    /// after the opening, and after the end of the scrub before. Without background threads it has no
    /// effect. What it finds is in [`Database::damage`](crate::Database::damage). Default: `None`,
    /// never: it costs I/O, and is of use only to who looks at what it finds.
    #[must_use]
    pub fn scrub_interval(mut self, interval: Option<Duration>) -> Options {
        self.scrub_interval = interval;
        self
    }

    /// Bytes a second that such a scrub reads. Default: 8 MiB, which is 100 GiB in four hours.
    #[must_use]
    pub fn scrub_rate(mut self, bytes_per_second: u64) -> Options {
        self.scrub_rate = bytes_per_second;
        self
    }

    /// The disk that holds the database. Default: the file system.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Options {
        self.disk = disk;
        self
    }

    /// Refuses options that contradict each other or leave their range.
    pub(crate) fn validate(&self) -> Result<()> {
        let refuse = |option, reason: &str| Err(Error::Options { option, reason: reason.into() });
        match self.page_size {
            Some(size) if size != PAGE_SIZE_MIN && size != PAGE_SIZE_MAX => {
                return refuse("page_size", "must be 4096 or 8192");
            }
            _ => {}
        }
        if self.versions_memory < 64 * PAGE_SIZE_MAX {
            return refuse("versions_memory", "must be at least 512 KiB");
        }
        if self.readers_max < 3 {
            return refuse("readers_max", "must be at least 3: a writer, the checkpoint, a reader");
        }
        if self.journal_segment_size < 16 << 10 {
            return refuse("journal_segment_size", "must be at least 16 KiB");
        }
        if self.scrub_rate < 64 << 10 {
            return refuse("scrub_rate", "must be at least 64 KiB a second");
        }
        if self.journal_max < self.checkpoint_distance {
            return refuse("journal_max", "must be at least checkpoint_distance");
        }
        if self.requests_max == 0 {
            return refuse("requests_max", "must be at least 1");
        }
        self.merging.validate()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("create", &self.create)
            .field("page_size", &self.page_size)
            .field("versions_memory", &self.versions_memory)
            .field("checkpoint_distance", &self.checkpoint_distance)
            .finish_non_exhaustive()
    }
}

/// A quarter of the machine's memory, at most 1 GiB; 256 MiB where it cannot be found out. Asked
/// once: it would be a tenth of what opening a small database takes.
static DEFAULT_VERSIONS_MEMORY: LazyLock<usize> = LazyLock::new(|| {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<usize>().ok());
    kib.map_or(256 * MIB, |kib| (kib * 1024 / 4).min(1024 * MIB))
});
