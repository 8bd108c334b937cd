//! The machine's files, and how many bytes of data files were read from the medium.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::disk::{DiskFile, DiskMap, wrapped::Wrapped};

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn DiskFile>,
    bytes: Arc<AtomicU64>,
}

/// The disk, and the bytes of data files that were read from the medium so far.
pub(super) fn counted() -> (Wrapped, Arc<AtomicU64>) {
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&bytes);
    let disk = Wrapped::new(move |path, file| {
        if !path.ends_with("data") {
            return file;
        }
        Arc::new(CountedFile { file, bytes: Arc::clone(&counted) })
    });
    (disk, bytes)
}

impl DiskFile for CountedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buf)
    }

    fn read_medium(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.bytes.fetch_add(buf.len() as u64, Relaxed);
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, buf)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.file.map(reserve)
    }
}
