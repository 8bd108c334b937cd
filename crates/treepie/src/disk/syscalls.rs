//! System calls that the standard library lacks, or wraps with a retry that Treepie must not have.
//!
//! A sync is never repeated, not even after `EINTR`: the kernel may have dropped the pages whose
//! write failed, and would report success. `File::sync_data` repeats it, so syncs are made here.

#![allow(unsafe_code, reason = "calls into the C library; none of them touches memory")]

use std::{fs::File, io, os::fd::AsRawFd};

/// Makes the data of a file durable, and its length where reading the data needs it. One call.
///
/// On Apple systems this is `F_FULLFSYNC`: their `fdatasync` leaves the data in the drive's cache.
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    // SAFETY: the descriptor is open as long as `file` is borrowed; no memory is passed.
    let code = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_FULLFSYNC) };
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: as above.
    let code = unsafe { libc::fdatasync(file.as_raw_fd()) };
    result(code)
}

/// Makes a folder's entries durable. One call.
pub(super) fn sync_dir(dir: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `dir` is borrowed; no memory is passed.
    result(unsafe { libc::fsync(dir.as_raw_fd()) })
}

/// Allocates blocks for bytes `0..len` and makes the file at least that long.
///
/// # Errors
/// `Unsupported` where the file system or the operating system cannot do it.
#[cfg(target_os = "linux")]
pub(super) fn allocate(file: &File, len: u64) -> io::Result<()> {
    let len = libc::off64_t::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        // SAFETY: the descriptor is open as long as `file` is borrowed; no memory is passed.
        let code = unsafe { libc::fallocate64(file.as_raw_fd(), 0, 0, len) };
        match result(code) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            other => return other,
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allocate(_file: &File, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Starts to write out the dirty pages of a range, without waiting for them.
#[cfg(target_os = "linux")]
pub(super) fn start_writeback(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let offset = libc::off64_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let len = libc::off64_t::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open as long as `file` is borrowed; no memory is passed.
    let code = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
    };
    match result(code) {
        // A hint: a file system that does not know it loses nothing but smoothness.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ESPIPE)) => Ok(()),
        other => other,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn start_writeback(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Ok(())
}

fn result(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
