//! A small world around the directory for tests: pages whose bytes follow from their LSN, a stand-in
//! for the data file, and what a writer, the checkpoint and readers do there.

use std::{panic::Location, sync::Arc};

use crate::{
    disk::RealDisk,
    ids::{Lsn, PageId},
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
};

use super::{
    directory::{Directory, Found, NewVersion},
    pool::{Pool, PoolLimits},
    readers::Registry,
};

/// Bytes of a page.
pub const PAGE_SIZE: usize = 4096;

/// Directory, registry and pool, without a database around them.
#[derive(Debug)]
pub struct World {
    /// Versions.
    pub directory: Directory,
    /// Readers.
    pub registry: Registry,
    /// Memory of versions.
    pub pool: Pool,
    /// Stands for the data file: the LSN whose version each page holds.
    file: Vec<AtomicU64>,
}

impl World {
    /// A world of this many pages, all of them in the file at LSN 0.
    pub fn new(pages: u32, memory_max: usize) -> World {
        let limits = PoolLimits { memory_max, scratch_max: 0 };
        World {
            directory: Directory::new(),
            registry: Registry::new(16, Lsn(0)),
            pool: Pool::new(PAGE_SIZE, limits, Arc::new(RealDisk), ".".into()),
            file: (0..pages).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// How many pages there are.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.file.len()).expect("a world is small")
    }

    /// Whether the transaction `lsn` changes `page`; every reader can compute it. Of one page or
    /// two, each transaction changes all.
    pub fn changes(&self, page: u32, lsn: u64) -> bool {
        self.pages() <= 2
            || (lsn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % u64::from(self.pages())
                == u64::from(page)
            || lsn.is_multiple_of(u64::from(page) + 2)
    }

    /// Commits the transaction `lsn`: new versions, then readers see them.
    pub fn commit(&self, lsn: u64) {
        let mut change = self.directory.change(&self.registry);
        for page in (0..self.pages()).filter(|page| self.changes(*page, lsn)) {
            let mut frame = self.pool.page().expect("memory is enough");
            for bytes in frame.bytes_mut().chunks_exact_mut(8) {
                bytes.copy_from_slice(&(lsn << 8 | u64::from(page)).to_le_bytes());
            }
            change.push(PageId(page), Lsn(lsn), NewVersion::Frame(frame));
        }
        change.finish(&self.pool, false);
        self.registry.publish(Lsn(lsn));
    }

    /// Writes what the oldest reader sees to the file, as the checkpoint does.
    pub fn write_early(&self) {
        let change = self.directory.change(&self.registry);
        let reader = change.add_oldest_reader(0, Location::caller()).expect("a slot is free");
        drop(change);
        let pages = self.directory.change(&self.registry).take_dirty(usize::MAX);
        for page in pages {
            if let Found::Version(lsn, bytes) = self.directory.find(page, reader.lsn()) {
                check_bytes(bytes, page.0, lsn.0);
                self.file[page.0 as usize].store(lsn.0, Release);
                let mut change = self.directory.change(&self.registry);
                if change.cut(page, lsn) {
                    change.keep_dirty([page]);
                }
                change.finish(&self.pool, false);
            } else {
                self.directory.change(&self.registry).keep_dirty([page]);
            }
        }
        self.registry.remove(&reader);
    }

    /// Reads all pages as a new reader, `times` over.
    pub fn read(&self, times: usize) {
        let reader = self.registry.add(0, Location::caller()).expect("a slot is free");
        (0..times).for_each(|_| self.read_all(reader.lsn()));
        self.registry.remove(&reader);
    }

    /// Reads all pages at an LSN that the caller is registered at.
    pub fn read_all(&self, lsn: Lsn) {
        for page in 0..self.pages() {
            let expected = (0..=lsn.0).rev().find(|lsn| *lsn == 0 || self.changes(page, *lsn));
            let expected = expected.expect("0 is always found");
            match self.directory.find(PageId(page), lsn) {
                Found::Map => {
                    let found = self.file[page as usize].load(Acquire);
                    assert_eq!(found, expected, "page {page} at {lsn} in the file");
                }
                Found::Version(version, bytes) => {
                    assert_eq!(version.0, expected, "page {page} at {lsn}");
                    check_bytes(bytes, page, expected);
                }
                Found::Free => panic!("page {page} was never freed"),
            }
        }
    }

    /// Ends it: everything goes to the file, and no version keeps memory.
    pub fn end(&self) {
        self.write_early();
        self.directory.change(&self.registry).finish(&self.pool, true);
        assert_eq!(self.pool.memory_used(), 0, "versions are left although nobody needs them");
        self.read_all(self.registry.visible());
    }
}

fn check_bytes(bytes: &[u8], page: u32, lsn: u64) {
    let expected = (lsn << 8 | u64::from(page)).to_le_bytes();
    assert!(bytes.chunks_exact(8).all(|bytes| bytes == expected), "page {page} at {lsn}");
}
