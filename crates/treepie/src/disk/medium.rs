//! Reads that go past the page cache, to the medium: what a scrub is for.
//!
//! The file is opened a second time with `O_DIRECT`, through the descriptor that is there, when it is
//! read like this for the first time. Such a read first writes out what is dirty in its range, and
//! neither uses nor fills the page cache. Where a file system has no such reads, the cache answers.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    sync::OnceLock,
};

/// Alignment of offset, length and memory that is enough for every device.
const ALIGN: usize = 4096;
/// Bytes of one read.
const PIECE_LEN: usize = 1 << 20;

/// The second descriptor of a file, once it is needed.
#[derive(Debug, Default)]
pub struct Medium {
    direct: OnceLock<Option<File>>,
}

impl Medium {
    /// Fills `buf` from the medium of `file`, or fails with `UnexpectedEof`.
    pub fn read_at(&self, file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let Some(direct) = self.direct.get_or_init(|| open_again(file)) else {
            return file.read_exact_at(buf, offset);
        };
        match read_direct(direct, offset, buf) {
            // The device wants a larger alignment, or the file system took the flag and does not mean it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                file.read_exact_at(buf, offset)
            }
            read => read,
        }
    }
}

fn open_again(file: &File) -> Option<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

fn read_direct(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let mut memory = vec![0; PIECE_LEN.min(buf.len().next_multiple_of(ALIGN) + ALIGN) + ALIGN];
    let start = memory.as_ptr().align_offset(ALIGN);
    let room = (memory.len() - start) / ALIGN * ALIGN;
    let aligned = &mut memory[start..start + room];
    let mut done = 0;
    while done < buf.len() {
        let at = offset + done as u64;
        let skip = usize::try_from(at % ALIGN as u64).expect("it is below the alignment");
        let wanted = (skip + buf.len() - done).next_multiple_of(ALIGN).min(room);
        let read = read_piece(file, at - skip as u64, &mut aligned[..wanted])?;
        let piece = aligned.get(skip..read).unwrap_or_default();
        let len = piece.len().min(buf.len() - done);
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf[done..done + len].copy_from_slice(&piece[..len]);
        done += len;
    }
    Ok(())
}

fn read_piece(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read_at(buf, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_is_read_as_it_was_written_and_an_end_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("data");
        let bytes: Vec<u8> = (0..3 * PIECE_LEN + 5000).map(|i| (i * 7 % 251) as u8).collect();
        std::fs::write(&path, &bytes).expect("a file");
        let file = File::open(&path).expect("it is there");
        let medium = Medium::default();
        let ranges =
            [(0, 1), (1, 4096), (4095, 2), (8192, PIECE_LEN), (5, 2 * PIECE_LEN), (0, bytes.len())];
        for (offset, len) in ranges {
            let mut buf = vec![0; len];
            medium.read_at(&file, offset as u64, &mut buf).expect("it is inside the file");
            assert!(buf == bytes[offset..offset + len], "{len} bytes at {offset}");
        }
        let behind = bytes.len() as u64 - 3;
        let error = medium.read_at(&file, behind, &mut [0; 4]).expect_err("the file ends");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
