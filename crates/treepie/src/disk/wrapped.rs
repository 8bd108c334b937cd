//! The machine's files for tests, each wrapped into something that watches it or behaves otherwise.

use std::{io, path::Path, sync::Arc};

use super::{Disk, DiskFile, DiskLock, LockError, OpenMode, RealDisk, ScratchMap};

/// What becomes of a file that was opened.
type Wrap = dyn Fn(&Path, Arc<dyn DiskFile>) -> Arc<dyn DiskFile> + Send + Sync;

/// The disk.
pub struct Wrapped(Box<Wrap>);

impl Wrapped {
    /// The machine's disk, with `wrap` around each file that is opened.
    pub fn new(
        wrap: impl Fn(&Path, Arc<dyn DiskFile>) -> Arc<dyn DiskFile> + Send + Sync + 'static,
    ) -> Wrapped {
        Wrapped(Box::new(wrap))
    }
}

impl std::fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wrapped").finish_non_exhaustive()
    }
}

impl Disk for Wrapped {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path, mode).map(|file| (self.0)(path, file))
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
