//! The simulated disk, with a point of decision before and after each call that changes files: while
//! one thread waits for the disk, others go on.

use std::{io, path::Path, sync::Arc};

use treepie::{
    disk::{Disk, DiskFile, DiskLock, DiskMap, LockError, OpenMode, ScratchMap},
    schedules::turn,
};
use treepie_testkit::SimDisk;

/// The disk.
#[derive(Debug)]
pub struct Turning(pub SimDisk);

#[derive(Debug)]
struct TurningFile(Arc<dyn DiskFile>);

fn turns<T>(call: impl FnOnce() -> T) -> T {
    turn();
    let result = call();
    turn();
    result
}

impl Disk for Turning {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = turns(|| self.0.open(path, mode))?;
        Ok(Arc::new(TurningFile(file)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        turns(|| self.0.create_dir(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        turns(|| self.0.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        turns(|| self.0.remove(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        turns(|| self.0.sync_dir(dir))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        self.0.lock(path)
    }

    fn scratch(&self, dir: &Path, len: usize) -> io::Result<Box<dyn ScratchMap>> {
        self.0.scratch(dir, len)
    }

    fn scratch_file(&self, dir: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(TurningFile(self.0.scratch_file(dir)?)))
    }

    fn now_us(&self) -> u64 {
        self.0.now_us()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        self.0.random()
    }
}

impl DiskFile for TurningFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        turns(|| self.0.write_at(offset, buf))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        turns(|| self.0.allocate(len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        turns(|| self.0.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        turns(|| self.0.sync_data())
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.start_writeback(offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.0.map(reserve)
    }
}
