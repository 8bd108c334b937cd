//! The machine's files, and how many bytes of data files were read from the medium.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::disk::{Disk, DiskFile, DiskLock, DiskMap, LockError, OpenMode, RealDisk, ScratchMap};

/// The disk.
#[derive(Debug, Default)]
pub(super) struct Counted {
    bytes: Arc<AtomicU64>,
}

impl Counted {
    /// Bytes of data files that were read from the medium so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn DiskFile>,
    bytes: Arc<AtomicU64>,
}

impl Disk for Counted {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, mode)?;
        if !path.ends_with("data") {
            return Ok(file);
        }
        Ok(Arc::new(CountedFile { file, bytes: Arc::clone(&self.bytes) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        RealDisk.lock(path)
    }

    fn scratch(&self, dir: &Path, len: usize) -> io::Result<Box<dyn ScratchMap>> {
        RealDisk.scratch(dir, len)
    }

    fn now_us(&self) -> u64 {
        RealDisk.now_us()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        RealDisk.random()
    }
}

impl DiskFile for CountedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn read_medium(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.bytes.fetch_add(buf.len() as u64, Relaxed);
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, buf)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.file.map(reserve)
    }
}
