//! The machine's files, but that none of their bytes is allocated before it is written: files of many
//! gigabytes cost nothing.

use std::{io, sync::Arc};

use crate::disk::{DiskFile, DiskMap, wrapped::Wrapped};

#[derive(Debug)]
struct SparseFile(Arc<dyn DiskFile>);

/// The disk.
pub fn sparse() -> Wrapped {
    Wrapped::new(|_, file| Arc::new(SparseFile(file)))
}

impl DiskFile for SparseFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, buf)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len > self.0.len()? { self.0.set_len(len) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.start_writeback(offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.0.map(reserve)
    }
}
