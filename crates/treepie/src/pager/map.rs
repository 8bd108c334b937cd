//! The current map of the data file, and which of its pages were verified.
//!
//! When the file outgrows its map, a larger one takes over; earlier ones stay until the database is
//! closed, because readers hold slices of them. Each is at least twice as large as the one before,
//! so all of them together take no more than twice the address space of the last.

#![allow(unsafe_code, reason = "slices of the map; one prefetch instruction")]

use std::{
    fmt, io,
    ptr::null_mut,
    sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU64, Ordering::*},
    },
};

use crate::{
    disk::{DiskFile, DiskMap},
    ids::PageId,
    sync::LeafMutex,
};

use super::zeroed::ZeroedSlice;

/// One map and the pages verified in it.
pub struct MapView {
    base: *const u8,
    reserved: usize,
    verified: ZeroedSlice<AtomicU64>,
    map: Box<dyn DiskMap>,
}

// SAFETY: `base` is the address of `map`, which is `Send + Sync` and lives as long as this.
unsafe impl Send for MapView {}
// SAFETY: as above; what is behind the address is only read.
unsafe impl Sync for MapView {}

impl MapView {
    fn new(file: &dyn DiskFile, reserve: usize, page_size: usize) -> io::Result<MapView> {
        let map = file.map(reserve)?;
        let page_count = map.reserved() / page_size;
        let verified = ZeroedSlice::new(page_count.div_ceil(64))?;
        Ok(MapView { base: map.base(), reserved: map.reserved(), verified, map })
    }

    /// Whether the page was verified since the database was opened.
    #[inline(always)]
    pub fn is_verified(&self, id: PageId) -> bool {
        let index = id.0 as usize;
        self.verified
            .get(index / 64)
            .is_some_and(|word| word.load(Acquire) & (1 << (index % 64)) != 0)
    }

    /// Marks the page as verified.
    pub fn set_verified(&self, id: PageId) {
        let index = id.0 as usize;
        if let Some(word) = self.verified.get(index / 64) {
            word.fetch_or(1 << (index % 64), AcqRel);
        }
    }

    /// Forgets that the page was verified: other bytes are there now.
    pub fn clear_verified(&self, id: PageId) {
        if self.is_verified(id)
            && let Some(word) = self.verified.get(id.0 as usize / 64)
        {
            word.fetch_and(!(1 << (id.0 % 64)), AcqRel);
        }
    }

    /// The bytes of `page_count` pages.
    ///
    /// The caller has checked that the file reaches that far, and no version that the checkpoint
    /// may write meanwhile is newer than what the caller reads (`readers.rs`).
    ///
    /// # Panics
    /// If the map does not reach that far.
    #[inline(always)]
    pub fn bytes(&self, id: PageId, page_count: usize, page_size: usize) -> &[u8] {
        let (offset, len) = (id.0 as usize * page_size, page_count * page_size);
        assert!(offset + len <= self.reserved, "page {id} is past the end of the map");
        // SAFETY: `offset` is inside the map, by the assertion above.
        let start = unsafe { self.base.add(offset) };
        // SAFETY: `len` bytes from there on are inside the map and the file (the pager checks the
        // latter); the map lives as long as `self`; nobody changes the bytes while a registered
        // reader may look at them, and the lock keeps other processes out.
        unsafe { std::slice::from_raw_parts(start, len) }
    }
}

/// The current map. Readers load it without a lock.
pub struct MapCell {
    current: AtomicPtr<MapView>,
    /// All maps of this database; shared pointers, so that they keep their addresses.
    views: LeafMutex<Vec<Arc<MapView>>>,
}

impl MapCell {
    /// Maps the file with `reserve` bytes of address space.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn new(file: &dyn DiskFile, reserve: usize, page_size: usize) -> io::Result<MapCell> {
        let cell = MapCell { current: AtomicPtr::new(null_mut()), views: LeafMutex::default() };
        cell.install(MapView::new(file, reserve, page_size)?);
        Ok(cell)
    }

    fn install(&self, view: MapView) {
        let mut views = self.views.lock();
        let view = Arc::new(view);
        self.current.store(Arc::as_ptr(&view).cast_mut(), Release);
        views.push(view);
    }

    /// The current map.
    #[inline(always)]
    pub fn view(&self) -> &MapView {
        // SAFETY: `install` stored a pointer to a shared view before the cell could be shared, and
        // views are dropped only with the cell.
        unsafe { &*self.current.load(Acquire) }
    }

    /// Maps anew unless the current map reaches `len` bytes. Called by one thread at a time.
    ///
    /// # Errors
    /// What the operating system says, or that the address space is used up.
    pub fn cover(&self, file: &dyn DiskFile, len: usize, page_size: usize) -> io::Result<()> {
        let old = self.view();
        if len <= old.reserved {
            return Ok(());
        }
        let view = MapView::new(file, len.max(2 * old.reserved), page_size)?;
        if view.reserved < len {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "no address space is left"));
        }
        for (new, old) in view.verified.iter().zip(old.verified.iter()) {
            new.store(old.load(Acquire), Relaxed);
        }
        self.install(view);
        Ok(())
    }
}

/// Asks the processor for the lines that hold these bytes.
#[inline(always)]
pub fn prefetch_lines(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect but on caches, for any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

impl fmt::Debug for MapView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapView").field("map", &self.map).finish_non_exhaustive()
    }
}

impl fmt::Debug for MapCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapCell").field("view", self.view()).finish()
    }
}
