//! A store in a folder of this machine.
//!
//! A file is written under a temporary name in its folder (`tmp-<time>-<random>`), synced, renamed,
//! and its folder synced. What a crash leaves is a temporary file, which [`prune`] clears away.
//!
//! The lock is an exclusive `flock` on the file `lock`, as a database has it. Who has it stands in the
//! file `lease/holder`, for the message that the next one gets. Because one writer is in the folder at a time,
//! [`Store::put_if_absent`] may look first and rename then: only the holder of the lock calls it.
//!
//! All input and output goes through [`Disk`], so that tests put a simulated disk under it.
//!
//! [`prune`]: crate::repository::RepositoryWriter::prune

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use treepie::disk::{Disk, DiskFile, DiskLock, LockError, OpenMode, RealDisk};

use super::{Item, LISTED_MAX, Name, Store, StoreError, StoreLock, StoreWriter};
use crate::calendar::compact;

/// Bytes that are gathered for one write.
const BUFFER_LEN: usize = 1 << 20;
/// Bytes between two hints that the operating system may begin to write out.
const WRITEBACK_LEN: u64 = 8 << 20;
/// Longest text that is read of who holds the lock.
const HOLDER_LEN_MAX: u64 = 512;
/// What temporary names begin with.
pub(crate) const TEMPORARY: &str = "tmp-";

/// A folder as a store.
#[derive(Clone, Debug)]
pub struct LocalStore {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl LocalStore {
    /// The folder as a store. It is created when something is written to it; its parent must be
    /// there.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> LocalStore {
        LocalStore::on(Arc::new(RealDisk), root)
    }

    /// The same on another disk than this machine's, for tests.
    #[must_use]
    pub fn on(disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> LocalStore {
        LocalStore { disk, root: root.into() }
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn folder_of(&self, name: &Name) -> PathBuf {
        name.folder().map_or_else(|| self.root.clone(), |folder| self.root.join(folder))
    }

    fn io(&self, action: &'static str, name: &Name) -> impl FnOnce(io::Error) -> StoreError {
        StoreError::io(action, name, self.place())
    }

    /// Creates the store's folder and the one of `name`, durably.
    fn prepare_folder(&self, name: &Name) -> Result<PathBuf, StoreError> {
        let folder = self.folder_of(name);
        let created = (|| {
            if !self.disk.exists(&self.root)? {
                self.disk.create_dir(&self.root)?;
                self.disk.sync_dir(parent(&self.root))?;
            }
            if folder != self.root && !self.disk.exists(&folder)? {
                self.disk.create_dir(&folder)?;
                self.disk.sync_dir(&self.root)?;
            }
            Ok(())
        })();
        created.map_err(self.io("create the folder of", name))?;
        Ok(folder)
    }

    fn begin(&self, name: &Name) -> Result<LocalWriter, StoreError> {
        let folder = self.prepare_folder(name)?;
        let random = u64::from_le_bytes(first_half(self.random()?));
        let temporary = folder.join(format!("{TEMPORARY}{}-{random:016x}", compact(self.now_us())));
        let file = self.disk.open(&temporary, OpenMode::CreateNew);
        let file = file.map_err(self.io("create", name))?;
        Ok(LocalWriter {
            store: self.clone(),
            name: name.clone(),
            file,
            folder,
            temporary: Some(temporary),
            buffer: Vec::new(),
            written: 0,
            hinted: 0,
            failed: false,
        })
    }

    fn holder_name() -> Name {
        Name::new(format!("{}/holder", super::lease::FOLDER)).expect("it is a name")
    }

    /// Who has the lock. Nobody needs it to be right: it is for a message.
    fn holder(&self, pid: Option<u32>) -> String {
        let text = super::read_small(self, &LocalStore::holder_name(), HOLDER_LEN_MAX);
        let text = text.ok().flatten().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        match (text.filter(|text| !text.trim().is_empty()), pid) {
            (Some(text), _) => super::shortened(text.trim()),
            (None, Some(pid)) => format!("process {pid}"),
            (None, None) => "another process".to_owned(),
        }
    }

    fn write_holder(&self, purpose: &str) -> Result<(), StoreError> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let (host, since) = (super::shortened(host.trim()), compact(self.now_us()));
        let text = format!("process {} on {host} since {since} ({purpose})\n", process::id());
        let mut writer = self.begin(&LocalStore::holder_name())?;
        writer.write_all(text.as_bytes()).map_err(self.io("write", &LocalStore::holder_name()))?;
        Box::new(writer).finish().map(|_| ())
    }
}

/// The first eight of sixteen bytes.
fn first_half(bytes: [u8; 16]) -> [u8; 8] {
    let (half, _) = bytes.split_first_chunk().expect("16 bytes begin with 8");
    *half
}

/// The folder that a path's name is in: the current one for a name alone.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

impl Store for LocalStore {
    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn create(&self, name: &Name) -> Result<Box<dyn StoreWriter>, StoreError> {
        Ok(Box::new(self.begin(name)?))
    }

    fn put_if_absent(&self, name: &Name, bytes: &[u8]) -> Result<bool, StoreError> {
        if self.disk.exists(&self.path(name)).map_err(self.io("look for", name))? {
            return Ok(false);
        }
        let mut writer = self.begin(name)?;
        writer.write_all(bytes).map_err(self.io("write", name))?;
        Box::new(writer).finish()?;
        Ok(true)
    }

    fn open(&self, name: &Name, offset: u64) -> Result<Box<dyn Read + Send>, StoreError> {
        let file = self.disk.open(&self.path(name), OpenMode::ReadOnly);
        let file = file.map_err(self.io("open", name))?;
        let len = file.len().map_err(self.io("measure", name))?;
        Ok(Box::new(LocalReader { file, offset, len }))
    }

    fn len(&self, name: &Name) -> Result<Option<u64>, StoreError> {
        match self.disk.open(&self.path(name), OpenMode::ReadOnly) {
            Ok(file) => file.len().map(Some).map_err(self.io("measure", name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io("look for", name)(error)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Item>, StoreError> {
        let probe = Name::new(format!("{folder}/x"))?;
        let dir = self.root.join(folder);
        let there = self.disk.exists(&dir).map_err(self.io("look for the folder of", &probe))?;
        if !there {
            return Ok(Vec::new());
        }
        let files = self.disk.list(&dir).map_err(self.io("list the folder of", &probe))?;
        if files.len() > LISTED_MAX {
            let what = format!("{folder} has more than {LISTED_MAX} files; move some elsewhere");
            return Err(StoreError::Bound { place: self.place(), what });
        }
        let mut items = Vec::new();
        for name in files.iter().filter_map(|file| Name::new(format!("{folder}/{file}")).ok()) {
            // A file that is gone by now is as one that was never seen.
            if let Some(bytes) = self.len(&name)? {
                // Not knowing makes it as old as its name says.
                let modified_us = self.disk.modified_us(&self.path(&name)).unwrap_or_default();
                items.push(Item { name, bytes, modified_us });
            }
        }
        Ok(items)
    }

    fn remove(&self, name: &Name) -> Result<(), StoreError> {
        match self.disk.remove(&self.path(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.io("remove", name)(error)),
        }
        self.disk.sync_dir(&self.folder_of(name)).map_err(self.io("sync the folder of", name))
    }

    fn lock(&self, purpose: &str) -> Result<Box<dyn StoreLock>, StoreError> {
        let name = Name::new("lock").expect("it is a name");
        self.prepare_folder(&name)?;
        let lock = match self.disk.lock(&self.path(&name)) {
            Ok(lock) => lock,
            Err(LockError::Held(pid)) => {
                return Err(StoreError::Locked { place: self.place(), owner: self.holder(pid) });
            }
            Err(LockError::Io(error)) => return Err(self.io("lock", &name)(error)),
        };
        self.write_holder(purpose)?;
        Ok(Box::new(LocalLock { _lock: lock }))
    }

    fn now_us(&self) -> u64 {
        self.disk.now_us()
    }

    fn random(&self) -> Result<[u8; 16], StoreError> {
        let name = Name::new("random").expect("it is a name");
        self.disk.random().map_err(self.io("draw", &name))
    }
}

/// Held as long as it lives; the operating system gives it back when the process dies.
#[derive(Debug)]
struct LocalLock {
    _lock: Box<dyn DiskLock>,
}

impl StoreLock for LocalLock {
    fn renew(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Reads one file forwards.
#[derive(Debug)]
struct LocalReader {
    file: Arc<dyn DiskFile>,
    offset: u64,
    len: u64,
}

impl Read for LocalReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        self.file.read_at(self.offset, &mut buf[..count])?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Writes one file under a temporary name.
#[derive(Debug)]
struct LocalWriter {
    store: LocalStore,
    name: Name,
    file: Arc<dyn DiskFile>,
    folder: PathBuf,
    /// Gone once it is renamed or removed.
    temporary: Option<PathBuf>,
    buffer: Vec<u8>,
    written: u64,
    hinted: u64,
    /// A write failed: what is in the file is not what was given.
    failed: bool,
}

impl LocalWriter {
    fn spill(&mut self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write to this file failed"));
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.failed = true;
        self.file.write_at(self.written, &self.buffer)?;
        self.failed = false;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        if self.written - self.hinted >= WRITEBACK_LEN {
            // Spreads the cost of the sync; a hint that fails costs nothing.
            let _ = self.file.start_writeback(self.hinted, self.written - self.hinted);
            self.hinted = self.written;
        }
        Ok(())
    }

    fn give_up(&mut self) {
        if let Some(temporary) = self.temporary.take()
            && let Err(error) = self.store.disk.remove(&temporary)
        {
            tracing::debug!(%error, file = %temporary.display(), "a temporary file stays");
        }
    }
}

impl Write for LocalWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + buf.len() > BUFFER_LEN {
            self.spill()?;
        }
        let count = buf.len().min(BUFFER_LEN);
        self.buffer.extend_from_slice(&buf[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.spill()
    }
}

impl StoreWriter for LocalWriter {
    fn finish(mut self: Box<Self>) -> Result<u64, StoreError> {
        let store = self.store.clone();
        let name = self.name.clone();
        self.spill().map_err(store.io("write", &name))?;
        self.file.sync_data().map_err(store.io("sync", &name))?;
        let temporary = self.temporary.clone().expect("it is taken when the writer ends");
        store.disk.rename(&temporary, &store.path(&name)).map_err(store.io("rename", &name))?;
        self.temporary = None;
        store.disk.sync_dir(&self.folder).map_err(store.io("sync the folder of", &name))?;
        Ok(self.written)
    }

    fn abort(mut self: Box<Self>) {
        self.give_up();
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        self.give_up();
    }
}
