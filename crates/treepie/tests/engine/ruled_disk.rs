//! Disks with rules of their own about syncs: bugs put in on purpose, and syncs that take as long as
//! a test wants.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
};

use treepie::disk::{Disk, DiskFile, DiskLock, DiskMap, LockError, OpenMode, ScratchMap};
use treepie_testkit::SimDisk;

use crate::batches::until;

/// Bytes of both meta pages of a database with pages of 4 KiB.
const META_LEN: u64 = 2 * 4096;
/// Looks at the counter that a slow sync gives others to run.
const LOOKS_MAX: u64 = 500;

/// What a disk does when it is to sync a file.
pub trait Rule: fmt::Debug + Send + Sync {
    /// The file is about to be written to.
    fn writes(&self, _path: &Path, _offset: u64) {}

    /// The file is to be synced.
    fn sync(&self, path: &Path, file: &dyn DiskFile) -> io::Result<()>;
}

/// The data file is synced only after a meta page was written, never before. Whoever trusts the
/// meta page then trusts pages that are not there.
#[derive(Debug, Default)]
pub struct LateData {
    meta_written: AtomicBool,
}

impl Rule for LateData {
    fn writes(&self, path: &Path, offset: u64) {
        if path.ends_with("data") {
            self.meta_written.store(offset < META_LEN, SeqCst);
        }
    }

    fn sync(&self, path: &Path, file: &dyn DiskFile) -> io::Result<()> {
        let skips = path.ends_with("data") && !self.meta_written.load(SeqCst);
        if skips { Ok(()) } else { file.sync_data() }
    }
}

/// A sync of the journal takes until others have gone on, so that records are in flight. With
/// `is_early`, every other one reports success before its time: it is made good by the next.
#[derive(Debug)]
pub struct SlowJournal {
    pub runs: Arc<AtomicU64>,
    pub is_early: bool,
    pub syncs: AtomicU64,
}

impl Rule for SlowJournal {
    fn sync(&self, path: &Path, file: &dyn DiskFile) -> io::Result<()> {
        if !is_journal(path) {
            return file.sync_data();
        }
        let enough = self.runs.load(Relaxed) + 5;
        for _ in 0..LOOKS_MAX {
            if self.runs.load(Relaxed) >= enough {
                break;
            }
            thread::yield_now();
        }
        let number = self.syncs.fetch_add(1, SeqCst);
        if self.is_early && number.is_multiple_of(2) { Ok(()) } else { file.sync_data() }
    }
}

/// Each sync of the journal waits to be allowed.
#[derive(Debug)]
pub struct GatedJournal {
    /// Syncs that have come.
    pub come: AtomicU64,
    /// So many of them may go.
    pub allowed: AtomicU64,
}

impl Default for GatedJournal {
    fn default() -> GatedJournal {
        GatedJournal { come: AtomicU64::new(0), allowed: AtomicU64::new(u64::MAX) }
    }
}

impl GatedJournal {
    /// From now on none may go but those that are allowed.
    pub fn shut(&self) {
        self.come.store(0, SeqCst);
        self.allowed.store(0, SeqCst);
    }

    /// Waits for a sync to come.
    pub fn until_come(&self, count: u64) {
        until("a sync has come", || self.come.load(SeqCst) == count);
    }

    /// Lets syncs go, this many since it was shut.
    pub fn allow(&self, count: u64) {
        self.allowed.store(count, SeqCst);
    }
}

impl Rule for Arc<GatedJournal> {
    fn sync(&self, path: &Path, file: &dyn DiskFile) -> io::Result<()> {
        if is_journal(path) {
            let number = self.come.fetch_add(1, SeqCst) + 1;
            until("the sync is allowed", || self.allowed.load(SeqCst) >= number);
        }
        file.sync_data()
    }
}

fn is_journal(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("journal"))
}

/// The simulated disk, but for syncs.
#[derive(Debug)]
pub struct Ruled {
    disk: SimDisk,
    rule: Arc<dyn Rule>,
}

impl Ruled {
    pub fn new(disk: &SimDisk, rule: impl Rule + 'static) -> Arc<Ruled> {
        Arc::new(Ruled { disk: disk.clone(), rule: Arc::new(rule) })
    }
}

#[derive(Debug)]
struct RuledFile {
    file: Arc<dyn DiskFile>,
    path: std::path::PathBuf,
    rule: Arc<dyn Rule>,
}

impl Disk for Ruled {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(RuledFile { file, path: path.to_owned(), rule: Arc::clone(&self.rule) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        self.disk.lock(path)
    }

    fn scratch(&self, dir: &Path, len: usize) -> io::Result<Box<dyn ScratchMap>> {
        self.disk.scratch(dir, len)
    }

    fn now_us(&self) -> u64 {
        self.disk.now_us()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.disk.random()
    }
}

impl DiskFile for RuledFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.rule.writes(&self.path, offset);
        self.file.write_at(offset, buf)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.rule.sync(&self.path, &*self.file)
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.file.map(reserve)
    }
}
