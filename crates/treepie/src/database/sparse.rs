//! The machine's files, but that none of their bytes is allocated before it is written: files of many
//! gigabytes cost nothing.

use std::{io, path::Path, sync::Arc};

use crate::disk::{Disk, DiskFile, DiskLock, DiskMap, LockError, OpenMode, RealDisk, ScratchMap};

/// The disk.
#[derive(Debug)]
pub struct Sparse;

#[derive(Debug)]
struct SparseFile(Arc<dyn DiskFile>);

impl Disk for Sparse {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SparseFile(RealDisk.open(path, mode)?)))
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

impl DiskFile for SparseFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, buf)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len > self.0.len()? { self.0.set_len(len) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.start_writeback(offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.0.map(reserve)
    }
}
