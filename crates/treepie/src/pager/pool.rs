//! Frames: page-sized pieces of memory for versions of pages, recycled and already touched.
//!
//! Memory that is touched for the first time costs 10–17 µs a page, so frames are cut from slabs of
//! 4 MiB that are never given back while the database is open, and handed out last-in first-out. A
//! thread that looks after it touches slabs ahead of need ([`Pool::prepare`]).
//! When the memory bound is reached, frames come from an unlinked scratch file that is mapped; when
//! its bound is reached too, the transaction that asks is refused. Runs of several pages (large
//! values) are allocated one by one under the same bounds.

#![allow(unsafe_code, reason = "frames are raw memory, shared as versions after their transaction")]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fmt,
    path::PathBuf,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use memmap2::MmapMut;

use crate::{
    disk::{Disk, ScratchMap},
    error::{Error, Result},
    sync::LeafMutex,
};

const SLAB_SIZE: usize = 4 << 20;
const SCRATCH_SLAB_SIZE: usize = 16 << 20;
const RUN_ALIGN: usize = 64;
/// Runs that were given back are kept up to this many bytes in all, or a part of the bound of memory:
/// memory that is touched for the first time takes longer than all else that is done with a value.
const RUNS_KEPT_LEN: usize = 64 << 20;
const RUNS_KEPT_PART: usize = 8;
/// And not more than so many: they are looked through one by one.
const RUNS_KEPT_COUNT: usize = 64;
/// Bytes on the shelf below which another slab is wanted ahead of need.
const AHEAD: usize = 4 * SLAB_SIZE;
/// What is written to touch a slab: at least one byte of each page of the machine.
const TOUCH_STEP: usize = 4096;

/// Where the memory of a frame comes from, hence where it goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// One page of a slab.
    Slab = 0,
    /// One page of a scratch file.
    Scratch = 1,
    /// An allocation of its own.
    Run = 2,
    /// A scratch file of its own.
    ScratchRun = 3,
}

/// Memory for one page, or for the consecutive pages of a run; owned by whoever holds it.
///
/// There is no `Drop`: a frame ends as a version of a page, or is given back with
/// [`Pool::release`]. What is lost on the way counts as used until the database is closed.
pub struct Frame {
    pub(super) data: NonNull<u8>,
    pub(super) len: usize,
    pub(super) origin: Origin,
}

// SAFETY: a frame is the only owner of its memory, as a `Box<[u8]>` would be.
unsafe impl Send for Frame {}
// SAFETY: `&Frame` gives out only `&[u8]`.
unsafe impl Sync for Frame {}

impl Frame {
    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `data` points to `len` bytes that live until the frame is released, which takes
        // the frame by value; they were initialised when the frame was made.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }

    /// The bytes, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` of the only owner makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("len", &self.len).field("origin", &self.origin).finish()
    }
}

/// Bounds of a pool, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Memory for frames.
    pub memory_max: usize,
    /// Scratch files for frames beyond it.
    pub scratch_max: usize,
}

/// All frames of one database.
pub struct Pool {
    page_size: usize,
    limits: PoolLimits,
    disk: Arc<dyn Disk>,
    scratch_dir: PathBuf,
    /// Bytes handed out, from memory.
    memory_used: AtomicUsize,
    /// Bytes handed out, from scratch files.
    scratch_used: AtomicUsize,
    /// Bytes of pages on the shelf, and of all slabs.
    shelf_len: AtomicUsize,
    slabs_len: AtomicUsize,
    shelves: LeafMutex<Shelves>,
}

#[derive(Default)]
struct Shelves {
    free: Vec<NonNull<u8>>,
    scratch_free: Vec<NonNull<u8>>,
    slabs: Vec<MmapMut>,
    scratch_slabs: Vec<Box<dyn ScratchMap>>,
    scratch_runs: Vec<Box<dyn ScratchMap>>,
    /// Runs that were given back, and their lengths; not more bytes than `RUNS_KEPT_LEN`.
    runs_free: Vec<(NonNull<u8>, usize)>,
    runs_free_len: usize,
}

// SAFETY: the pointers on the shelves are memory that nobody else holds; they are only moved.
unsafe impl Send for Shelves {}

impl Shelves {
    /// A run of this very length that was given back.
    fn take_run(&mut self, len: usize) -> Option<NonNull<u8>> {
        let at = self.runs_free.iter().rposition(|(_, kept)| *kept == len)?;
        self.runs_free_len -= len;
        Some(self.runs_free.remove(at).0)
    }

    /// Keeps a run that is given back, in place of those that have waited longest.
    fn keep_run(&mut self, data: NonNull<u8>, len: usize, len_max: usize) {
        self.runs_free.push((data, len));
        self.runs_free_len += len;
        while self.runs_free_len > len_max || self.runs_free.len() > RUNS_KEPT_COUNT {
            let (data, len) = self.runs_free.remove(0);
            self.runs_free_len -= len;
            // SAFETY: a run was allocated by `Pool::run` with this very layout, and its only owner
            // gave it back.
            unsafe { dealloc(data.as_ptr(), run_layout(len)) };
        }
    }
}

impl Drop for Shelves {
    fn drop(&mut self) {
        for (data, len) in self.runs_free.drain(..) {
            // SAFETY: as in `keep_run`.
            unsafe { dealloc(data.as_ptr(), run_layout(len)) };
        }
    }
}

impl Pool {
    /// An empty pool. Scratch files are made in `scratch_dir` when they are needed.
    pub fn new(
        page_size: usize,
        limits: PoolLimits,
        disk: Arc<dyn Disk>,
        scratch_dir: PathBuf,
    ) -> Pool {
        Pool {
            page_size,
            limits,
            disk,
            scratch_dir,
            memory_used: AtomicUsize::new(0),
            scratch_used: AtomicUsize::new(0),
            shelf_len: AtomicUsize::new(0),
            slabs_len: AtomicUsize::new(0),
            shelves: LeafMutex::default(),
        }
    }

    /// Bytes handed out from memory.
    pub fn memory_used(&self) -> usize {
        self.memory_used.load(Ordering::Relaxed)
    }

    /// Counts what a version that was changed in place keeps beside its page.
    pub(super) fn add_saved(&self, len: usize) {
        self.memory_used.fetch_add(len, Ordering::Relaxed);
    }

    /// What is counted as handed out from memory.
    pub(super) fn used(&self) -> &AtomicUsize {
        &self.memory_used
    }

    /// Counts that no more.
    pub(super) fn remove_saved(&self, len: usize) {
        self.memory_used.fetch_sub(len, Ordering::Relaxed);
    }

    /// Bytes handed out from scratch files.
    pub fn scratch_used(&self) -> usize {
        self.scratch_used.load(Ordering::Relaxed)
    }

    /// The bounds.
    pub fn limits(&self) -> PoolLimits {
        self.limits
    }

    /// A frame of one page with arbitrary content.
    ///
    /// # Errors
    /// [`Error::Bound`] when both bounds are reached, [`Error::Io`] when scratch space fails.
    #[inline]
    pub fn page(&self) -> Result<Frame> {
        let mut shelves = self.shelves.lock();
        if self.memory_used() + self.page_size <= self.limits.memory_max {
            if shelves.free.is_empty() {
                let slab = self.map_slab()?;
                self.add_slab(&mut shelves, slab);
            }
            if let Some(data) = shelves.free.pop() {
                self.shelf_len.fetch_sub(self.page_size, Ordering::Relaxed);
                self.memory_used.fetch_add(self.page_size, Ordering::Relaxed);
                return Ok(Frame { data, len: self.page_size, origin: Origin::Slab });
            }
        }
        self.scratch_page(&mut shelves)
    }

    /// As [`Pool::page`], beyond the bounds where they are reached: readers are never refused. There
    /// are at most as many such frames as pages that transactions change under them.
    ///
    /// # Errors
    /// [`Error::Io`] when the system has no memory.
    pub fn page_for_reader(&self) -> Result<Frame> {
        if let Ok(frame) = self.page() {
            return Ok(frame);
        }
        let mut shelves = self.shelves.lock();
        if shelves.free.is_empty() {
            let slab = self.map_slab()?;
            self.add_slab(&mut shelves, slab);
        }
        let data = shelves.free.pop().expect("a slab holds pages");
        self.shelf_len.fetch_sub(self.page_size, Ordering::Relaxed);
        self.memory_used.fetch_add(self.page_size, Ordering::Relaxed);
        Ok(Frame { data, len: self.page_size, origin: Origin::Slab })
    }

    /// Whether [`Pool::prepare`] has something to do: few pages are on the shelf, and the bound
    /// allows more.
    #[inline]
    pub fn is_low(&self) -> bool {
        // A database that changes little takes little: the first slab is there on demand.
        let ahead = AHEAD.min(self.slabs_len.load(Ordering::Relaxed) / 2);
        self.shelf_len.load(Ordering::Relaxed) < ahead
            && self.slabs_len.load(Ordering::Relaxed) + SLAB_SIZE <= self.limits.memory_max
    }

    /// Adds a slab whose memory is touched, where [`is_low`](Pool::is_low): the first touch costs
    /// more than all else that a transaction does with a page.
    ///
    /// # Errors
    /// [`Error::Io`] when the system has no memory.
    pub fn prepare(&self) -> Result<()> {
        while self.is_low() {
            let mut slab = self.map_slab()?;
            slab.iter_mut().step_by(TOUCH_STEP).for_each(|byte| *byte = 1);
            self.add_slab(&mut self.shelves.lock(), slab);
        }
        Ok(())
    }

    fn map_slab(&self) -> Result<MmapMut> {
        let slab_size = SLAB_SIZE.min(self.limits.memory_max.max(self.page_size));
        let slab =
            MmapMut::map_anon(slab_size).map_err(Error::io("map memory for", &self.scratch_dir))?;
        // Fewer, larger pages: one fault for 2 MiB, and fewer misses of the translation cache. A
        // system that does not have them does without.
        #[cfg(target_os = "linux")]
        let _ = slab.advise(memmap2::Advice::HugePage);
        Ok(slab)
    }

    fn add_slab(&self, shelves: &mut Shelves, mut slab: MmapMut) {
        let len = slab.len();
        push_pages(&mut shelves.free, slab.as_mut_ptr(), len, self.page_size);
        shelves.slabs.push(slab);
        self.shelf_len.fetch_add(len / self.page_size * self.page_size, Ordering::Relaxed);
        self.slabs_len.fetch_add(len, Ordering::Relaxed);
    }

    #[cold]
    fn scratch_page(&self, shelves: &mut Shelves) -> Result<Frame> {
        self.check_scratch(self.page_size)?;
        if shelves.scratch_free.is_empty() {
            let slab = self.scratch_map(SCRATCH_SLAB_SIZE)?;
            push_pages(&mut shelves.scratch_free, slab.base(), slab.size(), self.page_size);
            shelves.scratch_slabs.push(slab);
        }
        let data = shelves.scratch_free.pop().expect("a slab holds pages");
        self.scratch_used.fetch_add(self.page_size, Ordering::Relaxed);
        Ok(Frame { data, len: self.page_size, origin: Origin::Scratch })
    }

    fn scratch_map(&self, len: usize) -> Result<Box<dyn ScratchMap>> {
        self.disk
            .scratch(&self.scratch_dir, len)
            .map_err(Error::io("make a scratch file in", &self.scratch_dir))
    }

    fn check_scratch(&self, len: usize) -> Result<()> {
        if self.scratch_used() + len <= self.limits.scratch_max {
            return Ok(());
        }
        Err(Error::Bound {
            option: "scratch_memory",
            max: self.limits.scratch_max as u64,
            hint: "split the transaction, raise the bound, or end old snapshots",
        })
    }

    /// A frame of `len` bytes for a run, with arbitrary content.
    ///
    /// # Errors
    /// As [`Pool::page`].
    pub fn run(&self, len: usize) -> Result<Frame> {
        if self.memory_used() + len > self.limits.memory_max {
            return self.scratch_run(len);
        }
        if let Some(data) = self.shelves.lock().take_run(len) {
            self.memory_used.fetch_add(len, Ordering::Relaxed);
            return Ok(Frame { data, len, origin: Origin::Run });
        }
        let layout = run_layout(len);
        assert!(len > 0, "a run has at least one page");
        // SAFETY: the layout's size is not zero, by the assertion above.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) });
        let data = data.ok_or(Error::Bound {
            option: "versions_memory",
            max: self.limits.memory_max as u64,
            hint: "the machine has no memory left; lower the bound or free memory",
        })?;
        self.memory_used.fetch_add(len, Ordering::Relaxed);
        Ok(Frame { data, len, origin: Origin::Run })
    }

    fn scratch_run(&self, len: usize) -> Result<Frame> {
        self.check_scratch(len)?;
        let map = self.scratch_map(len)?;
        let data = NonNull::new(map.base()).expect("a map is not at address 0");
        self.shelves.lock().scratch_runs.push(map);
        self.scratch_used.fetch_add(len, Ordering::Relaxed);
        Ok(Frame { data, len, origin: Origin::ScratchRun })
    }

    /// Takes a frame back.
    pub fn release(&self, frame: Frame) {
        match frame.origin {
            Origin::Slab => {
                self.memory_used.fetch_sub(frame.len, Ordering::Relaxed);
                self.shelf_len.fetch_add(frame.len, Ordering::Relaxed);
                self.shelves.lock().free.push(frame.data);
            }
            Origin::Scratch => {
                self.scratch_used.fetch_sub(frame.len, Ordering::Relaxed);
                self.release_scratch_page(frame.data);
            }
            Origin::Run => {
                self.memory_used.fetch_sub(frame.len, Ordering::Relaxed);
                let kept_max = RUNS_KEPT_LEN.min(self.limits.memory_max / RUNS_KEPT_PART);
                self.shelves.lock().keep_run(frame.data, frame.len, kept_max);
            }
            Origin::ScratchRun => {
                self.scratch_used.fetch_sub(frame.len, Ordering::Relaxed);
                let mut shelves = self.shelves.lock();
                shelves.scratch_runs.retain(|map| map.base() != frame.data.as_ptr());
            }
        }
    }

    /// Scratch slabs are given back to the file system as soon as none of their pages is used.
    fn release_scratch_page(&self, data: NonNull<u8>) {
        let mut shelves = self.shelves.lock();
        shelves.scratch_free.push(data);
        let page_count: usize =
            shelves.scratch_slabs.iter().map(|slab| slab.size() / self.page_size).sum();
        if shelves.scratch_free.len() == page_count {
            shelves.scratch_free.clear();
            shelves.scratch_slabs.clear();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("limits", &self.limits)
            .field("memory_used", &self.memory_used())
            .field("scratch_used", &self.scratch_used())
            .finish()
    }
}

fn run_layout(len: usize) -> Layout {
    Layout::from_size_align(len, RUN_ALIGN).expect("a run is far below the address space")
}

fn push_pages(free: &mut Vec<NonNull<u8>>, base: *mut u8, len: usize, page_size: usize) {
    // Backwards, so that pages are handed out in ascending order of their addresses.
    for index in (0..len / page_size).rev() {
        free.extend(NonNull::new(base.wrapping_add(index * page_size)));
    }
}
