//! A disk in memory for the journal's tests: files can be copied, flipped, cut, made to fail, and
//! put through a power cut that keeps any subset of the unsynced sectors.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, DiskLock, DiskMap, LockError, OpenMode, ScratchMap};

const SECTOR: usize = 512;

/// Bytes of a file: as programs see them, and as they are after a power cut at worst.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug, Default)]
struct MemoryFile {
    content: Mutex<Content>,
    calls: Arc<Calls>,
}

/// Counted calls, and which of them fail.
#[derive(Debug, Default)]
pub struct Calls {
    pub writes: AtomicU64,
    pub syncs: AtomicU64,
    /// Failures to come: the call's name, and how many of it succeed before.
    failing: Mutex<Vec<(&'static str, u64)>>,
    /// The longest file for which there are blocks; any length at 0.
    pub allocate_max: AtomicU64,
    random: AtomicU64,
}

impl Calls {
    pub fn fail_after(&self, call: &'static str, skip: u64) {
        self.failing.lock().push((call, skip));
    }

    fn check(&self, call: &'static str) -> io::Result<()> {
        let mut failing = self.failing.lock();
        let Some(index) = failing.iter().position(|f| f.0 == call) else { return Ok(()) };
        if failing[index].1 > 0 {
            failing[index].1 -= 1;
            return Ok(());
        }
        failing.remove(index);
        Err(io::Error::other("injected"))
    }
}

/// The disk.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    files: Mutex<BTreeMap<PathBuf, Arc<MemoryFile>>>,
    pub calls: Arc<Calls>,
}

impl MemoryDisk {
    /// A copy of all files, each made durable.
    pub fn copy(&self) -> Arc<MemoryDisk> {
        self.copy_with(|content| content.bytes.clone())
    }

    /// A copy after a power cut: each unsynced sector is old or new, as `choose` says.
    pub fn power_cut(&self, choose: &mut dyn FnMut() -> bool) -> Arc<MemoryDisk> {
        self.copy_with(|content| {
            let mut bytes = content.synced.clone();
            bytes.resize(content.bytes.len(), 0);
            for (old, new) in bytes.chunks_mut(SECTOR).zip(content.bytes.chunks(SECTOR)) {
                if old != new && choose() {
                    old.copy_from_slice(new);
                }
            }
            bytes
        })
    }

    fn copy_with(&self, mut image: impl FnMut(&Content) -> Vec<u8>) -> Arc<MemoryDisk> {
        let copy = MemoryDisk::default();
        copy.calls.random.store(self.calls.random.load(Ordering::Relaxed), Ordering::Relaxed);
        for (path, file) in &*self.files.lock() {
            let bytes = image(&file.content.lock());
            let content = Mutex::new(Content { synced: bytes.clone(), bytes });
            let file = MemoryFile { content, calls: copy.calls.clone() };
            copy.files.lock().insert(path.clone(), Arc::new(file));
        }
        Arc::new(copy)
    }

    /// Changes the bytes of a file, durably.
    pub fn edit<T>(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let file = self.file(path).expect("the file exists");
        let mut content = file.content.lock();
        let result = change(&mut content.bytes);
        content.synced = content.bytes.clone();
        result
    }

    /// Names of the files, ascending.
    pub fn names(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name()?.to_str().map(String::from);
        self.files.lock().keys().filter_map(name).collect()
    }

    fn file(&self, path: &Path) -> io::Result<Arc<MemoryFile>> {
        self.files.lock().get(path).cloned().ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.calls.check("open")?;
        if mode != OpenMode::CreateNew {
            return Ok(self.file(path)?);
        }
        let file = Arc::new(MemoryFile { calls: self.calls.clone(), ..MemoryFile::default() });
        match self.files.lock().entry(path.to_path_buf()) {
            std::collections::btree_map::Entry::Occupied(_) => {
                Err(io::ErrorKind::AlreadyExists.into())
            }
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(file.clone());
                Ok(file)
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.calls.check("rename")?;
        let mut files = self.files.lock();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.calls.check("remove")?;
        self.files.lock().remove(path).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.files.lock().contains_key(path))
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.calls.check("sync_dir")
    }

    fn lock(&self, _path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        Err(LockError::Held(None))
    }

    fn scratch(&self, _dir: &Path, _len: usize) -> io::Result<Box<dyn ScratchMap>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn now_us(&self) -> u64 {
        0
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let n = self.calls.random.fetch_add(1, Ordering::Relaxed) + 1;
        let word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        Ok(std::array::from_fn(|i| word[i % 8]))
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let content = self.content.lock();
        let bytes = content.bytes.get(offset as usize..).and_then(|b| b.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.calls.check("write_at")?;
        self.calls.writes.fetch_add(1, Ordering::Relaxed);
        let mut content = self.content.lock();
        let end = offset as usize + buf.len();
        if content.bytes.len() < end {
            content.bytes.resize(end, 0);
        }
        content.bytes[offset as usize..end].copy_from_slice(buf);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.calls.check("allocate")?;
        let len_max = self.calls.allocate_max.load(Ordering::Relaxed);
        if len_max > 0 && len > len_max && len > self.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.set_len(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.content.lock().bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.calls.check("sync_data")?;
        self.calls.syncs.fetch_add(1, Ordering::Relaxed);
        let content = &mut *self.content.lock();
        content.synced.clone_from(&content.bytes);
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, _reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
