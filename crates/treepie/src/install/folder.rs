//! The folder of a database that is being made: its files, its progress, its name.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    disk::{Disk, DiskFile, DiskLock, LockError, OpenMode},
    error::{Error, Result},
    format::{
        bytes::get_u64,
        installing::{DatabaseState, INSTALLING_SIZE, Reached},
        meta::Meta,
        segment::{SEGMENT_HEADER_SIZE, SegmentHeader},
    },
    journal::segment_name,
    recovery::{DATA_FILE, JOURNAL_DIR, LOCK_FILE, read_meta, sync_parent},
};

const INSTALLING_FILE: &str = "installing";
const INSTALLING_NEW: &str = "installing.new";

/// `<target>.partial`.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn find_or_create(disk: &Arc<dyn Disk>, target: &Path) -> Result<Folder> {
        make_way(disk, target)?;
        let Some(name) = target.file_name() else {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it has no name");
            return Err(Error::io("create", target)(source));
        };
        let mut name = name.to_owned();
        name.push(".partial");
        let path = target.with_file_name(name);
        disk.create_dir(&path).map_err(Error::io("create", &path))?;
        sync_parent(disk, &path)?;
        Ok(Folder { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join(DATA_FILE)
    }

    pub(super) fn lock(&self, disk: &Arc<dyn Disk>) -> Result<Box<dyn DiskLock>> {
        let path = self.path.join(LOCK_FILE);
        disk.lock(&path).map_err(|error| match error {
            LockError::Held(owner) => Error::Locked { path: self.path.clone(), owner },
            LockError::Io(source) => Error::Io { action: "lock", file: path, source },
        })
    }

    /// How far an earlier attempt was; nothing where that cannot be told.
    pub(super) fn read_progress(&self, disk: &Arc<dyn Disk>) -> Result<Reached> {
        let path = self.path.join(INSTALLING_FILE);
        for file in [&path, &self.data()] {
            if !disk.exists(file).map_err(Error::io("look for", file))? {
                return Ok(Reached::Nothing);
            }
        }
        let file = disk.open(&path, OpenMode::ReadOnly).map_err(Error::io("open", &path))?;
        let len = file.len().map_err(Error::io("measure", &path))?;
        if len != INSTALLING_SIZE as u64 {
            return Ok(Reached::Nothing);
        }
        let mut bytes = [0; INSTALLING_SIZE];
        file.read_at(0, &mut bytes).map_err(Error::io("read", &path))?;
        Ok(Reached::decode(&bytes))
    }

    /// Replaces the note of how far it is, durably.
    pub(super) fn write_progress(&self, disk: &Arc<dyn Disk>, reached: &Reached) -> Result<()> {
        let (new, path) = (self.path.join(INSTALLING_NEW), self.path.join(INSTALLING_FILE));
        remove_if_there(disk, &new)?;
        write_new(disk, &new, &reached.encode())?;
        disk.rename(&new, &path).map_err(Error::io("rename", &new))?;
        disk.sync_dir(&self.path).map_err(Error::io("sync", &self.path))
    }

    /// Opens the data file, which is made if it is not there.
    pub(super) fn open_data(&self, disk: &Arc<dyn Disk>) -> Result<Arc<dyn DiskFile>> {
        let path = self.data();
        let exists = disk.exists(&path).map_err(Error::io("look for", &path))?;
        let mode = if exists { OpenMode::ReadWrite } else { OpenMode::CreateNew };
        let file = disk.open(&path, mode).map_err(Error::io("open", &path))?;
        if !exists {
            file.sync_data().map_err(Error::io("sync", &path))?;
            disk.sync_dir(&self.path).map_err(Error::io("sync", &self.path))?;
        }
        Ok(file)
    }

    /// Removes everything but the lock.
    pub(super) fn clear(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        for name in disk.list(&self.path).map_err(Error::io("list", &self.path))? {
            if name != LOCK_FILE {
                remove_if_there(disk, &self.path.join(name))?;
            }
        }
        self.clear_journal(disk)
    }

    fn clear_journal(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        let journal = self.path.join(JOURNAL_DIR);
        if disk.exists(&journal).map_err(Error::io("look for", &journal))? {
            for name in disk.list(&journal).map_err(Error::io("list", &journal))? {
                remove_if_there(disk, &journal.join(name))?;
            }
        }
        Ok(())
    }

    /// Makes a database of the pages that are there: meta pages that say so, and a journal without
    /// records that continues the state. What of both is there already is replaced: the journal last,
    /// because a meta page of another lineage refuses it.
    pub(super) fn write_state(&self, disk: &Arc<dyn Disk>, state: &DatabaseState) -> Result<()> {
        let path = self.data();
        let file = disk.open(&path, OpenMode::ReadWrite).map_err(Error::io("open", &path))?;
        // The higher one counts, also where an opening has made a checkpoint since.
        let before = read_meta(&*file, &path).map_or(0, |meta| meta.generation.next_multiple_of(2));
        for generation in [before, before + 1] {
            let meta = meta_of(state, generation, disk.now_us());
            let offset = u64::from(meta.page_number()) * state.page_size as u64;
            file.write_at(offset, &meta.encode()).map_err(Error::io("write", &path))?;
        }
        file.sync_data().map_err(Error::io("sync", &path))?;
        self.make_journal(disk, state)
    }

    fn make_journal(&self, disk: &Arc<dyn Disk>, state: &DatabaseState) -> Result<()> {
        let journal = self.path.join(JOURNAL_DIR);
        let segment = journal.join(segment_name(state.lsn.next()));
        let random = disk.random().map_err(Error::io("draw random bytes for", &segment))?;
        disk.create_dir(&journal).map_err(Error::io("create", &journal))?;
        self.clear_journal(disk)?;
        write_new(disk, &segment, &header_of(state, get_u64(&random, 0)).encode())?;
        disk.sync_dir(&journal).map_err(Error::io("sync", &journal))?;
        disk.sync_dir(&self.path).map_err(Error::io("sync", &self.path))
    }

    /// Gives the folder the name `target`, durably. `reached` is its note, for another attempt.
    pub(super) fn publish(
        &self,
        disk: &Arc<dyn Disk>,
        target: &Path,
        reached: &Reached,
    ) -> Result<()> {
        make_way(disk, target)?;
        remove_if_there(disk, &self.path.join(INSTALLING_FILE))?;
        disk.sync_dir(&self.path).map_err(Error::io("sync", &self.path))?;
        if let Err(error) = disk.rename(&self.path, target) {
            self.write_progress(disk, reached)?;
            return Err(Error::io("rename to", target)(error));
        }
        sync_parent(disk, target)
    }
}

fn meta_of(state: &DatabaseState, generation: u64, written_us: u64) -> Meta {
    Meta {
        generation,
        lineage: state.lineage,
        page_size: state.page_size,
        page_count: state.page_count,
        checkpoint: state.lsn,
        chain: state.chain,
        created_us: state.created_us,
        written_us,
    }
}

fn header_of(state: &DatabaseState, incarnation: u64) -> SegmentHeader {
    SegmentHeader {
        database_id: state.lineage.database_id,
        epoch: state.lineage.epoch,
        first_lsn: state.lsn.next(),
        incarnation,
        chain: state.chain,
        segment_len: SEGMENT_HEADER_SIZE as u64,
        sequence: 0,
        supersedes: false,
    }
}

/// An empty folder may be replaced, nothing else, and nothing that cannot be, such as the root of a file
/// system: better now than when all is done.
fn make_way(disk: &Arc<dyn Disk>, target: &Path) -> Result<()> {
    if !disk.exists(target).map_err(Error::io("look for", target))? {
        return Ok(());
    }
    disk.remove_dir(target).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => {
            Error::io("create", target)(io::ErrorKind::AlreadyExists.into())
        }
        _ => Error::io("replace", target)(error),
    })
}

fn remove_if_there(disk: &Arc<dyn Disk>, path: &Path) -> Result<()> {
    if disk.exists(path).map_err(Error::io("look for", path))? {
        disk.remove(path).map_err(Error::io("remove", path))?;
    }
    Ok(())
}

fn write_new(disk: &Arc<dyn Disk>, path: &Path, bytes: &[u8]) -> Result<()> {
    let file = disk.open(path, OpenMode::CreateNew).map_err(Error::io("create", path))?;
    file.write_at(0, bytes).map_err(Error::io("write", path))?;
    file.sync_data().map_err(Error::io("sync", path))
}
