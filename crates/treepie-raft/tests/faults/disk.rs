//! The file system, with a journal whose syncs wait at a gate, or fail.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use treepie::disk::{Disk, DiskFile, DiskLock, DiskMap, LockError, OpenMode, RealDisk, ScratchMap};

use crate::gate::Gate;

/// What a test does to the journal.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Syncs wait here.
    pub syncs: Gate,
    /// Syncs fail.
    pub sync_fails: Arc<AtomicBool>,
    /// Writes fail.
    pub write_fails: Arc<AtomicBool>,
}

/// The file system with faults.
#[derive(Debug)]
pub struct FaultyDisk(pub Faults);

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Option<Faults>,
}

impl FaultyFile {
    fn fail(&self, which: impl Fn(&Faults) -> &AtomicBool) -> io::Result<()> {
        match &self.faults {
            Some(faults) if which(faults).load(SeqCst) => {
                Err(io::Error::other("the test wants it to fail"))
            }
            _ => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, mode)?;
        let is_journal = path.parent().is_some_and(|folder| folder.ends_with("journal"));
        let faults = is_journal.then(|| self.0.clone());
        Ok(Arc::new(FaultyFile { file, faults }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
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

impl DiskFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.fail(|faults| &faults.write_fails)?;
        self.file.write_at(offset, buf)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(faults) = &self.faults {
            faults.syncs.pass();
        }
        self.fail(|faults| &faults.sync_fails)?;
        self.file.sync_data()
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.file.map(reserve)
    }
}
