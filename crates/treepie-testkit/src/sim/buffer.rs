//! The memory that simulated maps point into: page-aligned, at a fixed address, touched only
//! through raw pointers, because the engine reads it while the disk writes other parts of it.
//!
//! Buffers go back to a pool when they are dropped: a harness makes thousands of maps a second,
//! and memory that the process touches for the first time costs more than the copy into it.

#![allow(unsafe_code, reason = "memory that is written while others read other parts of it")]

use std::{
    alloc::{self, Layout},
    ptr::{self, NonNull},
};

use parking_lot::Mutex;

use super::content::CHUNK_SIZE;

/// Buffers kept for the next maps.
const POOL_COUNT_MAX: usize = 32;

static POOL: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Buffer {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a buffer is plain memory that belongs to nobody's thread.
unsafe impl Send for Buffer {}

/// Memory of one map. Its bytes are initialised, but to nothing in particular.
#[derive(Debug)]
pub(crate) struct MapBuffer {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the address may be used from any thread. Writes happen under the disk's mutex; that
// nobody reads the bytes that are being written is the contract of the disk seam.
unsafe impl Send for MapBuffer {}
// SAFETY: as above.
unsafe impl Sync for MapBuffer {}

impl MapBuffer {
    /// At least one page, rounded up to whole pages.
    pub(crate) fn new(len: usize) -> MapBuffer {
        let len = len.max(1).next_multiple_of(CHUNK_SIZE);
        let layout = Layout::from_size_align(len, CHUNK_SIZE).expect("a map fits in memory");
        let mut pool = POOL.lock();
        if let Some(at) = pool.iter().position(|buffer| buffer.layout == layout) {
            let buffer = pool.swap_remove(at);
            return MapBuffer { base: buffer.base, layout };
        }
        drop(pool);
        // SAFETY: the layout has at least one page.
        let base = unsafe { alloc::alloc_zeroed(layout) };
        match NonNull::new(base) {
            Some(base) => MapBuffer { base, layout },
            None => alloc::handle_alloc_error(layout),
        }
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.layout.size()
    }

    /// Writes the part of `bytes` that lies inside the buffer.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        if offset >= self.len() {
            return;
        }
        let count = bytes.len().min(self.len() - offset);
        // SAFETY: `offset` is inside the buffer, by the check above.
        let target = unsafe { self.base().add(offset) };
        // SAFETY: `count` bytes fit behind `offset`, and `bytes` has as many. The buffer is not
        // part of `bytes`: its address is known to maps alone, whose readers do not write.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, count) };
    }

    /// Zeroes the part of `len` bytes from `offset` on that lies inside the buffer.
    pub(crate) fn zero(&self, offset: usize, len: usize) {
        if offset >= self.len() {
            return;
        }
        let count = len.min(self.len() - offset);
        // SAFETY: `offset` is inside the buffer, by the check above.
        let target = unsafe { self.base().add(offset) };
        // SAFETY: `count` bytes fit behind `offset`.
        unsafe { ptr::write_bytes(target, 0, count) };
    }
}

impl Drop for MapBuffer {
    fn drop(&mut self) {
        let mut pool = POOL.lock();
        if pool.len() < POOL_COUNT_MAX {
            pool.push(Buffer { base: self.base, layout: self.layout });
            return;
        }
        drop(pool);
        // SAFETY: allocated by `new` with this layout, and not given to the pool.
        unsafe { alloc::dealloc(self.base(), self.layout) };
    }
}
