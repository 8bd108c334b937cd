//! A file that gets its name when it is complete, and never replaces another one.
//!
//! It grows as `<name>.partial`, which is locked meanwhile: who finds it without a lock takes it over from
//! a process that was killed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::failure::{Failure, Result};

/// A file that is being written. It is removed unless it is published.
pub struct NewFile {
    file: File,
    path: PathBuf,
    temporary: PathBuf,
}

impl NewFile {
    /// Begins a file that must not be there.
    pub fn create(path: &Path) -> Result<NewFile> {
        refuse_existing(path)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".partial");
        let temporary = PathBuf::from(temporary);
        let mut options = OpenOptions::new();
        // What is in it goes only once it is locked.
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&temporary).map_err(Failure::io("create", &temporary))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = "another process is writing it".to_owned();
                return Err(Failure::Place { place: temporary, what });
            }
            Err(TryLockError::Error(error)) => return Err(Failure::io("lock", temporary)(error)),
        }
        let new = NewFile { file, path: path.to_owned(), temporary };
        new.file.set_len(0).map_err(Failure::io("empty", &new.temporary))?;
        Ok(new)
    }

    /// Makes it durable, and gives it its name.
    pub fn publish(self) -> Result<()> {
        let path = &self.path;
        self.file.sync_all().map_err(Failure::io("sync", &self.temporary))?;
        match fs::hard_link(&self.temporary, path) {
            Err(error) if is_without_links(&error) => {
                refuse_existing(path)?;
                fs::rename(&self.temporary, path).map_err(Failure::io("rename", path))?;
            }
            linked => linked.map_err(Failure::io("create", path))?,
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Failure::io("sync", folder))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Where it was renamed it is gone; where it cannot be removed, the next one takes it over.
        let _ = fs::remove_file(&self.temporary);
    }
}

fn refuse_existing(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(Failure::io("create", path)(io::ErrorKind::AlreadyExists.into()));
    }
    Ok(())
}

/// Whether a file system has no links.
fn is_without_links(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}
