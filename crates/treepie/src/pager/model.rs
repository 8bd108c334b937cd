//! A small world around the directory for tests: pages whose bytes follow from their LSN, a stand-in
//! for the data file, and what a writer, the checkpoint and readers do there.

use std::{panic::Location, sync::Arc};

use crate::{
    disk::RealDisk,
    format::blocks::ChangedBlocks,
    ids::{Lsn, PageId},
    sync::{
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
        thread,
    },
};

use super::{
    access::PageMut,
    directory::{Directory, Found, NewVersion},
    in_place::Pinned,
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
    /// Versions that were changed in place.
    pub in_place: AtomicU64,
    /// Versions that were made anew for readers.
    pub restored: AtomicU64,
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
            in_place: AtomicU64::new(0),
            restored: AtomicU64::new(0),
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

    /// Commits the transaction `lsn`: new versions, in place where that may be, then readers see them.
    /// One of three undoes what it did, and does it again.
    pub fn commit(&self, lsn: u64) {
        let pages = || (0..self.pages()).filter(|page| self.changes(*page, lsn));
        if lsn.is_multiple_of(3) {
            let versions: Vec<_> = pages().map(|page| self.changed(page, !lsn)).collect();
            let mut change = self.directory.change(&self.registry);
            for version in versions {
                match version {
                    NewVersion::Taken(taken) => change.give_back(taken, &self.pool),
                    NewVersion::Frame(frame) => self.pool.release(frame),
                    NewVersion::Free => {}
                }
            }
            change.finish(&self.pool, false);
        }
        let versions: Vec<_> = pages().map(|page| (page, self.changed(page, lsn))).collect();
        let mut change = self.directory.change(&self.registry);
        for (page, version) in versions {
            change.put(PageId(page), Lsn(lsn), version, &self.pool);
        }
        change.finish(&self.pool, false);
        self.registry.publish(Lsn(lsn));
    }

    /// A page as the transaction `lsn` makes it.
    fn changed(&self, page: u32, lsn: u64) -> NewVersion {
        let fill = |bytes: &mut [u8]| {
            for bytes in bytes.chunks_exact_mut(8) {
                bytes.copy_from_slice(&(lsn << 8 | u64::from(page)).to_le_bytes());
            }
        };
        if let Some(mut taken) =
            self.directory.take_over(&self.registry, &self.pool, PageId(page), PAGE_SIZE)
        {
            self.in_place.fetch_add(1, Release);
            let mut changed = ChangedBlocks::new();
            let (bytes, saving) = taken.change(self.directory.turn(), &self.pool);
            fill(PageMut::in_place(bytes, &mut changed, saving).range_mut(0, PAGE_SIZE));
            return NewVersion::Taken(taken);
        }
        let mut frame = self.pool.page().expect("memory is enough");
        fill(frame.bytes_mut());
        NewVersion::Frame(frame)
    }

    /// Writes what the oldest reader sees to the file, as the checkpoint does.
    pub fn write_early(&self) {
        let reader = loop {
            let change = self.directory.change(&self.registry);
            let reader = change.add_oldest_reader(0, Location::caller());
            if let Some(reader) = reader.expect("a slot is free") {
                break reader;
            }
            drop(change);
            thread::yield_now();
        };
        let pages = self.directory.change(&self.registry).take_dirty(usize::MAX);
        for page in pages {
            let pinned = self.directory.change(&self.registry).pin(page, reader.lsn());
            let written = match &pinned {
                Pinned::Version(lsn, bytes) => Some((*lsn, *bytes)),
                Pinned::Copy(lsn, bytes) => Some((*lsn, bytes.as_slice())),
                Pinned::Free | Pinned::Map => None,
            };
            if let Some((lsn, bytes)) = written {
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
            let found = match self.directory.find(PageId(page), lsn) {
                Found::Hidden => {
                    self.restored.fetch_add(1, Release);
                    self.directory.restore(PageId(page), lsn, &self.pool).expect("memory is enough")
                }
                found => found,
            };
            match found {
                Found::Map => {
                    let found = self.file[page as usize].load(Acquire);
                    assert_eq!(found, expected, "page {page} at {lsn} in the file");
                }
                Found::Version(version, bytes) => {
                    assert_eq!(version.0, expected, "page {page} at {lsn}");
                    check_bytes(bytes, page, expected);
                }
                Found::Hidden => panic!("page {page} was made anew"),
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
