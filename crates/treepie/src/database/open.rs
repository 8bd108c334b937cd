//! Opening: find or create the files, recover, start the checkpoint.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use crate::{
    copy::saved,
    disk::{Disk, LockError, OpenMode},
    error::{Error, Result},
    format::{
        meta::{FORMAT_VERSION, Lineage, Meta},
        record::genesis_chain,
    },
    ids::{DatabaseId, Lsn},
    journal::{Journal, JournalConfig, JournalPosition, Keep, reserve_len},
    limits::PAGE_SIZE_DEFAULT,
    options::Options,
    pager::{
        pool::PoolLimits,
        store::{Pager, PagerConfig},
    },
    recovery::{DATA_FILE, JOURNAL_DIR, LOCK_FILE, Replay, open_data, read_meta, sync_parent},
    sync::{Mutex, Planted, is_planted},
    txn::{
        catalog::METADATA,
        core::{Bounds, CommitPoint, Core},
        snapshot::Snapshot,
        write::WriteTxn,
    },
};

use super::{Database, Shared};

const NEW_DATA_FILE: &str = "data.new";

const KEY_DATABASE_ID: &str = "database-id";
const KEY_FORMAT_VERSION: &str = "format-version";
const KEY_CREATED: &str = "created-us";
const KEY_APPLICATION: &str = "application-name";
const KEY_APPLICATION_VERSION: &str = "application-version";

impl Options {
    /// Opens the database in the folder `path`: locks it, replays what a crash left to replay, and
    /// starts the threads. The parent of `path` must exist.
    ///
    /// # Errors
    /// - [`Error::NotFound`] when there is none and `create` is off.
    /// - [`Error::Locked`] when it is open already.
    /// - [`Error::Corrupt`] and [`Error::JournalGap`] when its files are damaged or gone.
    /// - [`Error::NotADatabase`], [`Error::UnsupportedVersion`], [`Error::UnsupportedFeatures`] for
    ///   files that this build does not read.
    /// - [`Error::PageSize`], [`Error::Application`] when it is not what the options ask for.
    /// - [`Error::Options`] for options outside their range.
    /// - [`Error::Bound`] when replay needs more memory than the options allow, and [`Error::Io`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Database> {
        self.validate()?;
        Database::open_with(path.as_ref(), self)
    }
}

impl Database {
    fn open_with(path: &Path, options: &Options) -> Result<Database> {
        let disk = &options.disk;
        find_or_create_folder(disk, path, options.create)?;
        let data = path.join(DATA_FILE);
        if !options.create && !disk.exists(&data).map_err(Error::io("look for", &data))? {
            return Err(Error::NotFound { path: path.to_owned() });
        }
        let lock_path = path.join(LOCK_FILE);
        let lock = disk.lock(&lock_path).map_err(|error| match error {
            LockError::Held(owner) => Error::Locked { path: path.to_owned(), owner },
            LockError::Io(source) => Error::Io { action: "lock", file: lock_path.clone(), source },
        })?;
        find_or_create_data(disk, path, options)?;
        let core = Arc::new(recover_in_bounds(path, options)?.with_lock(lock));
        initialise(&core, options)?;
        check_application(&core, options)?;
        let database = start(core, options)?;
        if database.shared.core.watermarks.checkpointed() == Lsn(0) {
            // From now on a journal that is gone is missed.
            database.checkpoint()?;
        }
        Ok(database)
    }
}

fn find_or_create_folder(disk: &Arc<dyn Disk>, path: &Path, create: bool) -> Result<()> {
    if disk.exists(path).map_err(Error::io("look for", path))? {
        return Ok(());
    }
    if !create {
        return Err(Error::NotFound { path: path.to_owned() });
    }
    disk.create_dir(path).map_err(Error::io("create", path))
}

/// A new data file is made under another name and renamed when it is durable: a half-made one is
/// never seen.
fn find_or_create_data(disk: &Arc<dyn Disk>, path: &Path, options: &Options) -> Result<()> {
    let data = path.join(DATA_FILE);
    if disk.exists(&data).map_err(Error::io("look for", &data))? {
        return Ok(());
    }
    if !options.create {
        return Err(Error::NotFound { path: path.to_owned() });
    }
    refuse_journal_without_data(disk, path)?;
    let new = path.join(NEW_DATA_FILE);
    if disk.exists(&new).map_err(Error::io("look for", &new))? {
        disk.remove(&new).map_err(Error::io("remove", &new))?;
    }
    let file = disk.open(&new, OpenMode::CreateNew).map_err(Error::io("create", &new))?;
    let random = disk.random().map_err(Error::io("draw a database id for", &new))?;
    let id = options.database_id.unwrap_or_else(|| DatabaseId::from_random(random));
    let now = disk.now_us();
    for generation in [0, 1] {
        let meta = Meta {
            generation,
            lineage: Lineage { database_id: id, ..Lineage::default() },
            page_size: options.page_size.unwrap_or(PAGE_SIZE_DEFAULT),
            page_count: 0,
            checkpoint: Lsn(0),
            chain: genesis_chain(&id, 0),
            created_us: now,
            written_us: now,
        };
        let offset = generation * meta.page_size as u64;
        file.write_at(offset, &meta.encode()).map_err(Error::io("write", &new))?;
    }
    if !is_planted(Planted::NewFileNotSynced) {
        file.sync_data().map_err(Error::io("sync", &new))?;
    }
    drop(file);
    disk.rename(&new, &data).map_err(Error::io("rename", &new))?;
    disk.sync_dir(path).map_err(Error::io("sync", path))
}

/// Creation makes the data file before any segment: segments alone are the rest of a database.
fn refuse_journal_without_data(disk: &Arc<dyn Disk>, path: &Path) -> Result<()> {
    let journal = path.join(JOURNAL_DIR);
    if !disk.exists(&journal).map_err(Error::io("look for", &journal))? {
        return Ok(());
    }
    let names = disk.list(&journal).map_err(Error::io("list", &journal))?;
    if names.is_empty() {
        return Ok(());
    }
    Err(Error::JournalGap {
        folder: journal,
        missing: Lsn(1),
        evidence: format!("segments are there and the file `{DATA_FILE}` beside them is not"),
    })
}

/// Recovers in memory and scratch files. Where their bounds are too small for what the journal
/// changes, all of the journal is made durable first; then pages may go to the data file on the way.
fn recover_in_bounds(path: &Path, options: &Options) -> Result<Core> {
    match recover(path, options, false) {
        Err(Error::Bound { option: "scratch_memory", .. }) => {}
        recovered => return recovered,
    }
    let (file, data_path) = open_data(&options.disk, path)?;
    let meta = read_meta(&*file, &data_path)?;
    let from = JournalPosition { lsn: meta.checkpoint, chain: meta.chain };
    let config = journal_config(path, options, &meta);
    drop(Journal::recover(config, from, meta.checkpoint == Lsn(0), &mut |_| Ok(()))?);
    recover(path, options, true)
}

fn journal_config(path: &Path, options: &Options, meta: &Meta) -> JournalConfig {
    JournalConfig {
        disk: Arc::clone(&options.disk),
        dir: path.join(JOURNAL_DIR),
        database_id: meta.lineage.database_id,
        epoch: meta.lineage.epoch,
        page_size: meta.page_size,
        segment_size_max: options.journal_segment_size,
        reserve_len: reserve_len(options.journal_reserve, options.journal_segment_size),
        background: options.background_threads,
        keep: Keep { retention: options.journal_retention, pins_max: options.journal_pins_max },
    }
}

/// From files to a core: meta page, map, replay. `may_write` says that the journal is durable.
fn recover(path: &Path, options: &Options, may_write: bool) -> Result<Core> {
    let disk = &options.disk;
    let (file, data_path) = open_data(disk, path)?;
    let meta = read_meta(&*file, &data_path)?;
    if let Some(wanted) = options.page_size
        && wanted != meta.page_size
    {
        return Err(Error::PageSize { file: data_path, found: meta.page_size, wanted });
    }
    let pager = PagerConfig {
        file,
        path: data_path,
        scratch_dir: path.to_owned(),
        page_size: meta.page_size,
        map_size: options.map_size,
        pool: PoolLimits {
            memory_max: options.versions_memory,
            scratch_max: options.scratch_memory,
        },
        readers_max: options.readers_max,
        visible: meta.checkpoint,
    };
    let pager = Arc::new(Pager::open(pager, Arc::clone(disk))?);
    saved::load(disk, path, &meta, &pager)?;
    let config = journal_config(path, options, &meta);
    let from = JournalPosition { lsn: meta.checkpoint, chain: meta.chain };
    let mut replay = Replay::new(Arc::clone(&pager), path.join(JOURNAL_DIR), may_write);
    let is_fresh = meta.checkpoint == Lsn(0);
    if is_fresh {
        sync_parent(disk, path)?;
    }
    let (journal, recovered) = with_memory_ahead(&pager, options.background_threads, |ask| {
        Journal::recover(config, from, is_fresh, &mut |record| {
            ask();
            replay.apply(record)
        })
    })?;
    let committed = recovered.committed;
    pager.registry.publish(committed.lsn);
    let space = replay.finish(committed.lsn, meta.page_count)?;
    tracing::info!(
        path = %path.display(),
        checkpoint = meta.checkpoint.0,
        lsn = committed.lsn.0,
        last = recovered.last.lsn.0,
        records = recovered.records,
        bytes = recovered.bytes,
        torn_tail = recovered.torn_tail.is_some(),
        "opened",
    );
    let bounds = Bounds {
        checkpoint_distance: options.checkpoint_distance,
        journal_max: options.journal_max,
        compression: options.compression,
        background: options.background_threads,
        durability: options.durability,
        merging: options.merging,
        recent_records: options.recent_records_memory,
        requests_max: options.requests_max,
    };
    let point = CommitPoint {
        position: committed,
        page_count: space.page_count(),
        time_us: recovered.committed_us,
    };
    Ok(Core::new(Arc::clone(disk), path.to_owned(), bounds, pager, journal, space, meta, point))
}

/// Lets a thread touch memory for pages ahead of need while `body` runs, as it asks: most of what a
/// replay takes is the first touch of the memory that it replays into.
fn with_memory_ahead<T>(pager: &Pager, has_threads: bool, body: impl FnOnce(&dyn Fn()) -> T) -> T {
    if !has_threads {
        return body(&|| {});
    }
    thread::scope(|scope| {
        let (ask, asked) = mpsc::sync_channel(1);
        scope.spawn(move || {
            // Whoever needs the memory that could not be had says so.
            while asked.recv().is_ok_and(|()| pager.pool.prepare().is_ok()) {}
        });
        body(&|| {
            if pager.pool.is_low() {
                // When one is waiting already, that will do.
                let _ = ask.try_send(());
            }
        })
    })
}

/// The first transaction of a database: catalog and `$metadata`. Done again when a creation was cut
/// off before it was durable.
fn initialise(core: &Arc<Core>, options: &Options) -> Result<()> {
    if core.watermarks.committed() > Lsn(0) {
        return Ok(());
    }
    let meta = *core.meta.lock();
    let mut txn = WriteTxn::begin(core)?;
    let mut metadata = txn.system_tree(METADATA)?;
    metadata.insert(KEY_DATABASE_ID, meta.lineage.database_id.0)?;
    metadata.insert(KEY_FORMAT_VERSION, FORMAT_VERSION.to_le_bytes())?;
    metadata.insert(KEY_CREATED, meta.created_us.to_le_bytes())?;
    if let Some((name, version)) = &options.application {
        metadata.insert(KEY_APPLICATION, name)?;
        metadata.insert(KEY_APPLICATION_VERSION, version.to_le_bytes())?;
    }
    txn.commit()?;
    Ok(())
}

/// Compares the stored application with the one asked for; raises the stored version when a newer
/// application opens its own data.
fn check_application(core: &Arc<Core>, options: &Options) -> Result<()> {
    let Some((name, version)) = &options.application else { return Ok(()) };
    let snapshot = Snapshot::open(core, std::panic::Location::caller())?;
    let metadata = snapshot.tree(METADATA)?;
    let found_name = metadata.get(KEY_APPLICATION)?.map(String::from_utf8_lossy);
    let found_version = metadata
        .get(KEY_APPLICATION_VERSION)?
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes);
    let (Some(found_name), Some(found_version)) = (&found_name, found_version) else {
        return Err(Error::Application {
            found: "no application".to_owned(),
            wanted: format!("{name} {version}"),
        });
    };
    if found_name != name || found_version > *version {
        return Err(Error::Application {
            found: format!("{found_name} {found_version}"),
            wanted: format!("{name} {version}"),
        });
    }
    // A replicated database is changed by its leader alone.
    if found_version < *version && !core.replicated.is_on() {
        drop(snapshot);
        let mut txn = WriteTxn::begin(core)?;
        txn.system_tree(METADATA)?.insert(KEY_APPLICATION_VERSION, version.to_le_bytes())?;
        txn.commit()?;
    }
    Ok(())
}

fn start(core: Arc<Core>, options: &Options) -> Result<Database> {
    let shared = Arc::new(Shared {
        core,
        checkpointer: Arc::default(),
        scrubber: Arc::default(),
        threads: Mutex::default(),
        checkpoint_on_close: options.checkpoint_on_close,
    });
    let interval = options.checkpoint_interval.max(Duration::from_millis(1));
    shared.start(interval, options.sync_interval)?;
    if let Some(interval) = options.scrub_interval {
        shared.start_scrubs(interval, options.scrub_rate)?;
    }
    Ok(Database { shared })
}
