//! Reads and writes that go past the page cache, to the medium: reads are what a scrub is for; long
//! pieces of the journal are written so, because memory that the cache takes for the first time costs
//! more than the device does.
//!
//! The file is opened a second time with `O_DIRECT`, through the descriptor that is there, when it is
//! used like this for the first time. Such a read first writes out what is dirty in its range, and
//! neither uses nor fills the page cache; such a write drops what the cache has of its range. Where a
//! file system has no such access, the cache answers.

use std::{
    cell::RefCell,
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

/// The second descriptors of a file, once they are needed.
#[derive(Debug, Default)]
pub struct Medium {
    direct: OnceLock<Option<File>>,
    to_write: OnceLock<Option<File>>,
}

impl Medium {
    /// Fills `buf` from the medium of `file`, or fails with `UnexpectedEof`.
    pub fn read_at(&self, file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let open = || open_again(file, OpenOptions::new().read(true));
        let Some(direct) = self.direct.get_or_init(open) else {
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

    /// Writes `buf` to the medium of `file`, both at multiples of [`ALIGN`].
    pub fn write_at(&self, file: &File, offset: u64, buf: &[u8]) -> io::Result<()> {
        let open = || open_again(file, OpenOptions::new().write(true));
        let Some(direct) = self.to_write.get_or_init(open) else {
            return file.write_all_at(buf, offset);
        };
        match write_direct(direct, offset, buf) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                file.write_all_at(buf, offset)
            }
            written => written,
        }
    }
}

fn open_again(file: &File, options: &mut OpenOptions) -> Option<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    options.custom_flags(libc::O_DIRECT).open(path).ok()
}

thread_local! {
    /// Memory that a device can read from, for the next piece.
    static PIECE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn write_direct(file: &File, offset: u64, buf: &[u8]) -> io::Result<()> {
    PIECE.with_borrow_mut(|memory| {
        memory.resize(PIECE_LEN + ALIGN, 0);
        let start = memory.as_ptr().align_offset(ALIGN);
        let aligned = &mut memory[start..start + PIECE_LEN];
        let mut offset = offset;
        for piece in buf.chunks(PIECE_LEN) {
            aligned[..piece.len()].copy_from_slice(piece);
            file.write_all_at(&aligned[..piece.len()], offset)?;
            offset += piece.len() as u64;
        }
        Ok(())
    })
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
    fn what_is_written_past_the_cache_is_read_through_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("data");
        let mut expected = vec![1; 3 * PIECE_LEN];
        std::fs::write(&path, &expected).expect("a file");
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("it is there");
        let medium = Medium::default();
        for (offset, len) in [(0, ALIGN), (2 * ALIGN, PIECE_LEN), (ALIGN, 2 * PIECE_LEN + ALIGN)] {
            let bytes: Vec<u8> = (0..len).map(|i| ((i + offset) * 7 % 251) as u8).collect();
            // An odd address: the memory need not be aligned.
            let shifted = [&[0][..], &bytes[..]].concat();
            medium.write_at(&file, offset as u64, &shifted[1..]).expect("there is room");
            expected[offset..offset + len].copy_from_slice(&bytes);
            assert!(std::fs::read(&path).expect("it is there") == expected, "{len} at {offset}");
        }
    }

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
