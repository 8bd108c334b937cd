//! A disk with a bug of its own: the data file is synced only after a meta page was written, never
//! before. Whoever trusts the meta page then trusts pages that are not there.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use treepie::disk::{Disk, DiskFile, DiskLock, DiskMap, LockError, OpenMode, ScratchMap};
use treepie_testkit::SimDisk;

/// Bytes of both meta pages of a database with pages of 4 KiB.
const META_LEN: u64 = 2 * 4096;

/// The simulated disk, but for the one sync.
#[derive(Debug)]
pub struct LateSyncs(pub SimDisk);

#[derive(Debug)]
struct LateFile {
    file: Arc<dyn DiskFile>,
    is_data: bool,
    meta_written: AtomicBool,
}

impl Disk for LateSyncs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.open(path, mode)?;
        let is_data = path.file_name().is_some_and(|name| name == "data");
        Ok(Arc::new(LateFile { file, is_data, meta_written: AtomicBool::new(false) }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        self.0.lock(path)
    }

    fn scratch(&self, dir: &Path, len: usize) -> io::Result<Box<dyn ScratchMap>> {
        self.0.scratch(dir, len)
    }

    fn now_us(&self) -> u64 {
        self.0.now_us()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.0.random()
    }
}

impl DiskFile for LateFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.meta_written.store(offset < META_LEN, SeqCst);
        self.file.write_at(offset, buf)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_data && !self.meta_written.load(SeqCst) { Ok(()) } else { self.file.sync_data() }
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.file.map(reserve)
    }
}
