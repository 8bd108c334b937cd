//! Installation: a database that is made of pages and records from elsewhere, a backup or another node.
//!
//! It grows in a folder of its own, `<target>.partial`, and gets its name when it is complete:
//!
//! ```text
//! pages of a state, from nothing or on the state that they continue   (begin_pages, pages, end_pages)
//! records behind it, as many as are wanted                            (record, end_records)
//! seal: meta pages, a journal that continues the state                (seal)
//! the caller opens and checks it, if it likes; then it is renamed     (Sealed::publish)
//! ```
//!
//! **Interrupted**, it goes on where it was: the file `installing` says which state is durable, and what
//! was being put on it. Pages are absolute and records are absolute bytes, so what was half written is
//! written again. What cannot be gone on with is a *lower* state than one that was begun: that starts
//! anew. The file is replaced before anything that it speaks of is written, and after that is synced.

mod folder;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Database,
    disk::DiskLock,
    error::{Error, Result},
    format::{
        bitmap::page_count_max,
        bytes::get_u32,
        meta::{Lineage, Meta},
        record::{Record, RecordHeader},
    },
    ids::{Lsn, PageId},
    journal::JournalPosition,
    limits::LSN_MAX,
    options::Options,
    pager::{
        pool::PoolLimits,
        store::{Pager, PagerConfig},
    },
    recovery::Replay,
    sync::{Planted, is_planted},
};

use self::folder::Folder;

pub use crate::format::installing::{DatabaseState, Reached};

/// Memory for pages that records change, before they are written out, in bytes.
const REPLAY_MEMORY: usize = 24 << 20;
/// Bytes of pages between two notes of how far they are durable.
const SYNC_DISTANCE: u64 = 256 << 20;

/// A database that is being made of pages and records.
pub struct Installer {
    options: Options,
    folder: Folder,
    target: PathBuf,
    reached: Reached,
    pager: Option<Arc<Pager>>,
    replay: Option<Replay>,
    /// With records: the state that they have led to, in memory.
    current: Option<DatabaseState>,
    /// With pages: the one that follows those that came, and their bytes since the last note.
    next: PageId,
    unsynced: u64,
    lock: Box<dyn DiskLock>,
}

/// A database that is complete and has not got its name yet.
#[derive(Debug)]
pub struct Sealed {
    options: Options,
    /// Not while it is open.
    lock: Option<Box<dyn DiskLock>>,
    folder: Folder,
    target: PathBuf,
    state: DatabaseState,
    /// What the note says: the state before it forked.
    noted: Reached,
}

impl Options {
    /// Begins to make a database in the folder `target` of pages and records from elsewhere, or goes on
    /// with what was begun before. Until it is published there is no `target`, only `target.partial`.
    ///
    /// # Errors
    /// [`Error::Io`] when `target` is there already and not empty, or the folder cannot be made;
    /// [`Error::Locked`] when somebody else is at it.
    pub fn install(&self, target: impl AsRef<Path>) -> Result<Installer> {
        self.validate()?;
        let target = target.as_ref().to_owned();
        let folder = Folder::find_or_create(&self.disk, &target)?;
        let lock = folder.lock(&self.disk)?;
        let reached = folder.read_progress(&self.disk)?;
        let mut installer = Installer {
            options: self.clone(),
            folder,
            target,
            reached: Reached::Nothing,
            pager: None,
            replay: None,
            current: None,
            next: PageId(0),
            unsynced: 0,
            lock,
        };
        match reached {
            Reached::Nothing => installer.clear()?,
            Reached::State(state)
            | Reached::Pages { coming: state, .. }
            | Reached::Records { state, .. } => {
                installer.reached = reached;
                installer.open_pager(&state)?;
            }
        }
        Ok(installer)
    }
}

impl Installer {
    /// How far it is: what an interrupted installation left, or what was done since.
    #[must_use]
    pub fn reached(&self) -> &Reached {
        &self.reached
    }

    /// Forgets everything that was installed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear(&mut self) -> Result<()> {
        self.replay = None;
        self.current = None;
        self.pager = None;
        self.reached = Reached::Nothing;
        self.folder.clear(&self.options.disk)
    }

    /// Announces the pages of the state `coming`: all of them, or those that differ from the state
    /// `base`, which must be there. Returns the first page that is needed: those below it are durable
    /// since an attempt that was interrupted.
    ///
    /// # Errors
    /// [`Error::Misfit`] when the state is not the one that they are based on; [`Error::Io`].
    pub fn begin_pages(
        &mut self,
        coming: &DatabaseState,
        base: Option<JournalPosition>,
    ) -> Result<PageId> {
        self.check_state(coming)?;
        self.pause_records()?;
        let base = base.map(|base| (base.lsn, base.chain));
        if let Reached::Pages { coming: begun, base: begun_base, next } = self.reached
            && (begun, begun_base) == (*coming, base)
        {
            (self.next, self.unsynced) = (next, 0);
            return Ok(next);
        }
        match base {
            None => self.clear()?,
            Some(base) => self.check_base(coming, base)?,
        }
        self.open_pager(coming)?;
        self.note(Reached::Pages { coming: *coming, base, next: PageId(2) })?;
        (self.next, self.unsynced) = (PageId(2), 0);
        Ok(self.next)
    }

    /// Puts the pages from `first` on into the database. They ascend from call to call.
    ///
    /// # Errors
    /// [`Error::Misfit`] for pages that the state cannot have; [`Error::Io`].
    ///
    /// # Panics
    /// If no pages were announced.
    pub fn pages(&mut self, first: PageId, bytes: &[u8]) -> Result<()> {
        let Reached::Pages { coming, base, next } = self.reached else {
            panic!("no pages were announced");
        };
        let count = bytes.len() / coming.page_size;
        let end = u32::try_from(count).ok().and_then(|count| first.0.checked_add(count));
        let end = end.filter(|end| *end <= coming.page_count && count > 0);
        let is_whole = bytes.len().is_multiple_of(coming.page_size);
        let Some(end) = end.filter(|_| is_whole && first.0 >= 2) else {
            return Err(self.misfit(coming.lsn, "it has a page that its state does not count"));
        };
        if end <= next.0 {
            return Ok(());
        }
        if first < self.next && self.next > next {
            return Err(self.misfit(coming.lsn, "its pages do not ascend"));
        }
        self.pager().write(first, bytes)?;
        self.next = PageId(end);
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_DISTANCE {
            self.pager().sync()?;
            self.note(Reached::Pages { coming, base, next: self.next })?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// All pages of the announced state have come.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// If no pages were announced.
    pub fn end_pages(&mut self) -> Result<()> {
        let Reached::Pages { coming, .. } = self.reached else {
            panic!("no pages were announced");
        };
        if !is_planted(Planted::InstalledNotSynced) {
            self.pager().sync()?;
        }
        self.note(Reached::State(coming))
    }

    /// Applies a record of a lineage, the one behind the state that was reached last; returns where that
    /// leads. A lineage that forked from that of the state goes on from there.
    ///
    /// # Errors
    /// [`Error::Received`] for damaged bytes, [`Error::Misfit`] for another record; [`Error::Bound`] when
    /// it needs more than `scratch_memory`; [`Error::Io`].
    pub fn record(&mut self, bytes: &[u8], lineage: &Lineage) -> Result<JournalPosition> {
        let header = RecordHeader::verify(bytes).map_err(|what| Error::Received { what })?;
        let mut state = self.begin_records(header.lsn())?;
        let before = Lsn(header.lsn().0.saturating_sub(1));
        if before != state.lsn {
            return Err(self.misfit(before, "a record is missing, or comes twice"));
        }
        if header.chain_before() != state.chain {
            return Err(self.misfit(before, "the record continues another history"));
        }
        if header.page_size() != state.page_size {
            return Err(self.misfit(before, "the record is of another page size"));
        }
        let is_fork = lineage.database_id == state.lineage.database_id
            && (lineage.forked_at, lineage.forked_chain) == (state.lsn, state.chain);
        if *lineage != state.lineage && !is_fork {
            return Err(self.misfit(before, "the record is of another lineage"));
        }
        let record = Record::open(header, bytes).map_err(|what| Error::Received { what })?;
        let replay = self.replay.as_mut().expect("records were begun");
        replay.apply(&record)?;
        state.lineage = *lineage;
        state.lsn = record.lsn();
        state.chain = record.chain();
        state.page_count = state.page_count.max(replay.page_count());
        let is_short = replay.is_memory_short();
        self.current = Some(state);
        if is_short {
            self.write_out()?;
        }
        Ok(JournalPosition { lsn: state.lsn, chain: state.chain })
    }

    fn begin_records(&mut self, lsn: Lsn) -> Result<DatabaseState> {
        if let Some(state) = self.current {
            return Ok(state);
        }
        let (Reached::State(state) | Reached::Records { state, .. }) = self.reached else {
            return Err(self.misfit(Lsn(lsn.0.saturating_sub(1)), "its pages are not complete"));
        };
        self.replay = Some(Replay::new(Arc::clone(self.pager()), self.folder.data(), false));
        self.current = Some(state);
        Ok(state)
    }

    /// Makes everything durable that records have changed so far.
    ///
    /// # Errors
    /// [`Error::Misfit`] when records are missing whose changes some pages have, from an attempt that was
    /// interrupted: go on to a higher LSN, or begin anew. [`Error::Io`].
    pub fn end_records(&mut self) -> Result<()> {
        self.pause_records()?;
        match self.reached {
            Reached::Records { written_to, .. } => {
                Err(self.misfit(written_to, "a restore to a higher LSN was begun here"))
            }
            _ => Ok(()),
        }
    }

    /// Other records may follow, or pages.
    fn pause_records(&mut self) -> Result<()> {
        if self.current.is_some() {
            self.write_out()?;
        }
        (self.replay, self.current) = (None, None);
        Ok(())
    }

    /// Writes out what records have changed, and notes the state that this leads to.
    fn write_out(&mut self) -> Result<()> {
        let Some(current) = self.current else { return Ok(()) };
        let (durable, begun) = match self.reached {
            Reached::Records { state, written_to, written_chain } => {
                (state, (written_to, written_chain))
            }
            Reached::State(state) => (state, (Lsn(0), 0)),
            _ => unreachable!("records are applied to a state"),
        };
        let (written_to, written_chain) = begun.max((current.lsn, current.chain));
        if !is_planted(Planted::InstallingNotNoted) {
            self.note(Reached::Records { state: durable, written_to, written_chain })?;
        }
        self.replay.as_mut().expect("records were begun").write_out()?;
        self.pager().sync()?;
        // Below it pages of an attempt that was interrupted may still have changes from above.
        if current.lsn < written_to {
            return self.note(Reached::Records { state: current, written_to, written_chain });
        }
        self.note(Reached::State(current))
    }

    /// Completes the database: it can be opened from then on, as the copy that it is.
    ///
    /// # Errors
    /// [`Error::Misfit`] when its pages are not complete; [`Error::Io`].
    pub fn seal(mut self) -> Result<Sealed> {
        self.end_records()?;
        let Reached::State(state) = self.reached else {
            return Err(self.misfit(Lsn(0), "its pages are not complete"));
        };
        let disk = Arc::clone(&self.options.disk);
        self.folder.write_state(&disk, &state)?;
        tracing::info!(lsn = state.lsn.0, path = %self.folder.path().display(), "sealed");
        let Installer { options, folder, target, lock, .. } = self;
        let noted = Reached::State(state);
        Ok(Sealed { options, lock: Some(lock), folder, target, state, noted })
    }

    fn note(&mut self, reached: Reached) -> Result<()> {
        self.folder.write_progress(&self.options.disk, &reached)?;
        self.reached = reached;
        Ok(())
    }

    fn pager(&self) -> &Arc<Pager> {
        self.pager.as_ref().expect("it is there once a state is known")
    }

    fn open_pager(&mut self, state: &DatabaseState) -> Result<()> {
        if self.pager.is_some() {
            return Ok(());
        }
        let config = PagerConfig {
            file: self.folder.open_data(&self.options.disk)?,
            path: self.folder.data(),
            scratch_dir: self.folder.path().to_owned(),
            page_size: state.page_size,
            map_size: self.options.map_size,
            pool: PoolLimits {
                memory_max: REPLAY_MEMORY.min(self.options.versions_memory),
                scratch_max: self.options.scratch_memory,
            },
            readers_max: 3,
            visible: state.lsn,
        };
        self.pager = Some(Arc::new(Pager::open(config, Arc::clone(&self.options.disk))?));
        Ok(())
    }

    fn check_state(&self, coming: &DatabaseState) -> Result<()> {
        let is_state = Meta::is_page_size(coming.page_size)
            && (2..=page_count_max(coming.page_size)).contains(&coming.page_count)
            && (1..LSN_MAX).contains(&coming.lsn.0);
        if is_state { Ok(()) } else { Err(self.misfit(coming.lsn, "no database has such a state")) }
    }

    fn check_base(&self, coming: &DatabaseState, (lsn, chain): (Lsn, u64)) -> Result<()> {
        let state = match self.reached {
            Reached::State(state) => state,
            // Pages that are newer than the base are of the state that comes, and are overwritten.
            Reached::Records { state, written_to, written_chain }
                if (written_to, written_chain) == (coming.lsn, coming.chain) =>
            {
                state
            }
            Reached::Nothing => return Err(self.misfit(lsn, "nothing is installed yet")),
            _ => return Err(self.misfit(lsn, "something else was begun; begin anew")),
        };
        let reason = if state.lineage.database_id != coming.lineage.database_id {
            "it is of another database"
        } else if state.page_size != coming.page_size {
            "it has pages of another size"
        } else if state.lsn != lsn || coming.lsn < lsn {
            "it is not the state that the pages are based on"
        } else if state.chain != chain {
            "it has another history"
        } else {
            return Ok(());
        };
        Err(self.misfit(lsn, reason))
    }

    fn misfit(&self, wanted: Lsn, reason: &'static str) -> Error {
        let found = match (&self.current, &self.reached) {
            (Some(state), _) | (None, Reached::State(state) | Reached::Records { state, .. }) => {
                state.lsn
            }
            (None, Reached::Pages { base, .. }) => base.map_or(Lsn(0), |base| base.0),
            (None, Reached::Nothing) => Lsn(0),
        };
        Error::Misfit { path: self.target.clone(), wanted, found, reason }
    }
}

impl fmt::Debug for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Installer");
        debug.field("target", &self.target).field("reached", &self.reached).finish_non_exhaustive()
    }
}

impl Sealed {
    /// Where it is until it is published: a database that can be opened, and looked at.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> &DatabaseState {
        &self.state
    }

    /// Opens it, to look at it: nothing is to be written. It must be closed before it goes on.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn open(&mut self, options: &Options) -> Result<Database> {
        // Whoever comes between finds a complete installation, and changes the note.
        self.lock = None;
        options.clone().create(false).open(self.folder.path())
    }

    /// Keeps others out again, once it is closed.
    fn lock_again(&mut self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let lock = self.folder.lock(&self.options.disk)?;
        if self.folder.read_progress(&self.options.disk)? != self.noted {
            let reason = "somebody else has begun an installation here";
            let (path, lsn) = (self.target.clone(), self.state.lsn);
            return Err(Error::Misfit { path, wanted: lsn, found: Lsn(0), reason });
        }
        self.lock = Some(lock);
        Ok(())
    }

    /// Makes it go its own way from here, in a lineage of its own. What is a replica of its source does
    /// not; everything else does, so that nobody takes the two for the same. It must not be open.
    ///
    /// # Errors
    /// [`Error::Io`]; then it is as it was, or forked.
    pub fn fork(&mut self) -> Result<()> {
        self.lock_again()?;
        let disk = &self.options.disk;
        let random = disk.random().map_err(Error::io("draw an epoch for", &self.target))?;
        let DatabaseState { lineage, lsn, chain, .. } = self.state;
        let lineage = lineage.fork(lsn, chain, get_u32(&random, 0));
        let state = DatabaseState { lineage, ..self.state };
        self.folder.write_state(disk, &state)?;
        self.state = state;
        Ok(())
    }

    /// Gives it its name, durably; it must not be open. Returns its folder.
    ///
    /// # Errors
    /// [`Error::Io`] when the target is there by now, or the renaming fails.
    pub fn publish(mut self) -> Result<PathBuf> {
        self.lock_again()?;
        self.folder.publish(&self.options.disk, &self.target, &self.noted)?;
        tracing::info!(lsn = self.state.lsn.0, path = %self.target.display(), "installed");
        Ok(self.target)
    }
}
