//! The disk seam: all input and output of the engine goes through these traits, so that a
//! simulated disk can stand under everything.
//!
//! Paths are what the caller of the engine gave, joined with file names; an implementation does
//! not interpret them beyond that. Every call may fail, and may fail at any time; the engine never
//! retries a failed write or sync. What an implementation promises:
//!
//! - `write_at` changes what `read_at` and the maps of the same file show at once, and is durable
//!   only after a later `sync_data` of the same file that returned `Ok`.
//! - New names, `rename` and `remove` are durable only after `sync_dir` of the folder.
//! - A map shows the file's bytes at fixed addresses for as long as the map lives; bytes past the
//!   end of the file become readable when the file grows over them.

mod file;
mod lock;
mod map;
mod medium;
mod scratch;
mod syscalls;
#[cfg(test)]
pub(crate) mod wrapped;

use std::{fmt, io, path::Path, sync::Arc};

pub use file::RealDisk;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must not exist; it is created with mode 0600, open for reading and writing.
    CreateNew,
    /// The file must exist.
    ReadWrite,
    /// The file must exist; it is not written.
    ReadOnly,
}

/// Files, folders, clock and randomness, as the engine needs them.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates a folder (mode 0700) unless it is there. Its parent must exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file inside one folder, replacing the file that has the new name; or a folder with
    /// all that is in it, replacing an empty folder at most.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder. Only a restore does that; who installs nothing need not.
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let what = format!("this disk removes no folder, so not {}", path.display());
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }
    /// Whether a file or folder of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Names of the files in a folder, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// When a file was last written to, in microseconds since 1970, where that is known. Default: it is
    /// not.
    fn modified_us(&self, _path: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of a database on its lock file, creating the file if need be;
    /// refuses at once when another process, or this one, holds it. Released on drop.
    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError>;
    /// Writable memory backed by an unlinked scratch file in `dir`: `len` bytes, zeroed.
    fn scratch(&self, dir: &Path, len: usize) -> io::Result<Box<dyn ScratchMap>>;
    /// An empty scratch file in `dir` for reading and writing: it has no name, nothing of it needs to
    /// be durable, and it is gone when it is dropped, also after a crash.
    fn scratch_file(&self, dir: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let name = u128::from_le_bytes(self.random()?);
        let path = dir.join(format!("scratch-{name:032x}"));
        let file = self.open(&path, OpenMode::CreateNew)?;
        self.remove(&path)?;
        Ok(file)
    }
    /// Wall-clock time in microseconds since 1970.
    fn now_us(&self) -> u64;
    /// 16 bytes that no other call returns.
    fn random(&self) -> io::Result<[u8; 16]>;
}

/// One open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Reads exactly `buf.len()` bytes, or fails with `UnexpectedEof`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// As `read_at`, from the medium and not from a cache, where that can be told apart: what was
    /// written before is written out first.
    fn read_medium(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, buf)
    }
    /// Writes all of `buf`; grows the file where it must.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Allocates blocks for bytes `0..len` and makes the file at least that long; what was not
    /// written before reads as zeros.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Hints that `len` bytes from `offset` on, allocated and never written, will be written in small
    /// pieces and read at random: the operating system may cache them in larger units than it would
    /// choose. Promises nothing.
    fn prepare_cache(&self, _offset: u64, _len: u64) {}
    /// Cuts or grows the file to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes all bytes written so far durable, and the length where it is needed to read them.
    fn sync_data(&self) -> io::Result<()>;
    /// Starts to write out `len` bytes from `offset` on, as a hint that spreads the cost of the
    /// next sync. Promises nothing.
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Maps the file read-only with `reserve` bytes of address space, which may reach past its end.
    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>>;
}

/// A read-only view of a file at a fixed address.
///
/// The address is stable while the map lives. Bytes past the end of the file must not be read.
pub trait DiskMap: Send + Sync + fmt::Debug {
    /// Address of byte 0 of the file.
    fn base(&self) -> *const u8;
    /// Bytes of address space.
    fn reserved(&self) -> usize;
    /// Tells the operating system that `len` bytes from `offset` on are about to be read.
    fn prefetch(&self, offset: usize, len: usize);
}

/// Writable memory that the operating system may move to a scratch file.
pub trait ScratchMap: Send + Sync + fmt::Debug {
    /// Address of its first byte, aligned to 4 KiB; stable while the map lives.
    fn base(&self) -> *mut u8;
    /// Length in bytes.
    fn size(&self) -> usize;
}

/// The lock of an open database; dropping it releases the lock.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// Why a lock was not granted.
#[derive(Debug)]
pub enum LockError {
    /// Someone else holds it; the process id where it is known.
    Held(Option<u32>),
    /// The call failed.
    Io(io::Error),
}
