//! One node: a database, its door, and the records that came out of it.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use treepie::{
    CopyOptions, Database, Options, Result,
    ids::{Lsn, Term},
    replication::{Door, HardState, Outlet, SharedRecord},
};

use crate::{SimDisk, hash_bytes, mix};

/// Folder of the database on the simulated disk of a site.
pub const DIR: &str = "/db";

/// Bytes that a copy of pages is read by.
const CHUNK_LEN: usize = 64 << 10;

/// Options for a site: small everything, nothing in the background.
#[must_use]
pub fn options(disk: &SimDisk) -> Options {
    Options::new()
        .create(true)
        .page_size(4096)
        .versions_memory(1 << 20)
        .scratch_memory(64 << 20)
        .map_size(4 << 20)
        .readers_max(16)
        .journal_segment_size(16 << 10)
        .checkpoint_distance(128 << 10)
        .journal_max(4 << 20)
        .journal_retention(8 << 20)
        .in_flight_records_max(64)
        .background_threads(false)
        .disk(Arc::new(disk.clone()))
}

/// What a database has sealed, in order.
#[derive(Debug, Default)]
struct Sealed {
    records: Mutex<VecDeque<SharedRecord>>,
}

impl Outlet for Sealed {
    fn sealed(&self, record: SharedRecord) {
        self.records.lock().push_back(record);
    }
}

/// A node whose records are passed by hand.
#[derive(Debug)]
pub struct Site {
    disk: SimDisk,
    options: Options,
    sealed: Arc<Sealed>,
    /// There while it runs; the door goes first.
    door: Option<Door>,
    db: Option<Database>,
}

impl Site {
    /// A site of its own, with a new database.
    ///
    /// # Errors
    /// Those of opening a database and of taking its door.
    pub fn new(disk: SimDisk) -> Result<Site> {
        let options = options(&disk);
        Site::with(disk, options)
    }

    /// The same with options of the caller's, which are for this disk.
    ///
    /// # Errors
    /// As `new`.
    pub fn with(disk: SimDisk, options: Options) -> Result<Site> {
        let mut site = Site { disk, options, sealed: Arc::default(), door: None, db: None };
        site.open()?;
        Ok(site)
    }

    /// Several sites with the same database, none of which leads; `seed` is that of their disks.
    ///
    /// # Errors
    /// As `new`.
    pub fn group(seed: u64, count: u64) -> Result<Vec<Site>> {
        let origin = SimDisk::new(seed);
        options(&origin).open(DIR)?.close()?;
        (0..count).map(|number| Site::new(origin.settled(mix(seed, number)))).collect()
    }

    fn open(&mut self) -> Result<()> {
        let db = self.options.open(DIR)?;
        self.sealed.records.lock().clear();
        let outlet: Arc<dyn Outlet> = Arc::<Sealed>::clone(&self.sealed);
        self.door = Some(db.replicate(outlet)?);
        self.db = Some(db);
        Ok(())
    }

    /// Its database.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn db(&self) -> &Database {
        self.db.as_ref().expect("the site runs")
    }

    /// Its door.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn door(&self) -> &Door {
        self.door.as_ref().expect("the site runs")
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// The records that it has sealed since this was asked last.
    #[must_use]
    pub fn take_sealed(&self) -> Vec<SharedRecord> {
        self.sealed.records.lock().drain(..).collect()
    }

    /// Appends records and makes them durable.
    ///
    /// # Errors
    /// Those of the door.
    pub fn receive(&self, records: &[SharedRecord]) -> Result<Lsn> {
        self.door().append(None, records)?;
        self.door().sync()
    }

    /// Makes it lead a group that agrees at once: its empty record is appended, and everything is committed.
    /// Returns the record, for the others.
    ///
    /// # Errors
    /// Those of the door.
    pub fn lead(&self, term: Term) -> Result<SharedRecord> {
        let door = self.door();
        let record = door.no_op(term)?;
        door.append(Some(HardState { term, vote: 0 }), std::slice::from_ref(&record))?;
        door.sync()?;
        door.commit(record.lsn())?;
        door.lead(term)?;
        Ok(record)
    }

    /// The records of its log above `after`, committed or not.
    ///
    /// # Errors
    /// Those of reading the journal.
    pub fn log(&self, after: Lsn) -> Result<Vec<SharedRecord>> {
        let mut records = self.door().records(after)?;
        let mut log = Vec::new();
        while let Some(record) = records.next_record()? {
            log.push(record);
        }
        Ok(log)
    }

    /// Closes it in order and opens it again.
    ///
    /// # Errors
    /// Those of both.
    pub fn reopen(&mut self) -> Result<()> {
        self.door = None;
        self.db.take().map_or(Ok(()), Database::close)?;
        self.open()
    }

    /// Kills it without closing anything; what the system has stays.
    ///
    /// # Errors
    /// Those of opening.
    pub fn kill(&mut self) -> Result<()> {
        let disk = self.disk.restart();
        self.begin_again(disk)
    }

    /// Cuts its power: of what was not durable, `seed` says what is left.
    ///
    /// # Errors
    /// Those of opening.
    pub fn cut_power(&mut self, seed: u64) -> Result<()> {
        let log = self.disk.log();
        let mut player = log.player(seed);
        while player.advance() {}
        self.begin_again(player.image(seed))
    }

    fn begin_again(&mut self, disk: SimDisk) -> Result<()> {
        let (door, db) = (self.door.take(), self.db.take());
        self.options = self.options.clone().disk(Arc::new(disk.clone()));
        let old = std::mem::replace(&mut self.disk, disk);
        // The old handles are dead: closing them reaches a disk that nobody looks at any more.
        drop((door, db, old));
        self.open()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.door = None;
    }
}

/// The LSN of the newest commit, and a hash of all pages in use at it.
///
/// # Errors
/// Those of copying.
pub fn fingerprint(db: &Database) -> Result<(Lsn, u64)> {
    let mut copy = db.copy_pages(&CopyOptions::new())?;
    let mut hash = mix(copy.chain(), copy.page_count().into());
    let mut bytes = Vec::new();
    while let Some(first) = copy.next(&mut bytes, CHUNK_LEN)? {
        hash = mix(hash, mix(first.0.into(), hash_bytes(&bytes)));
        bytes.clear();
    }
    Ok((copy.lsn(), hash))
}
