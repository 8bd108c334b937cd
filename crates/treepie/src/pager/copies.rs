//! Copies of the data file as of one LSN, which go on while the file changes.
//!
//! When a copy begins, the file holds the pages as of its LSN, but for those that its side file has.
//! From then on the file changes through [`Pager::write`] alone, and that comes here first: the old
//! bytes of pages that a copy still has to read go to its *side file*, which is unlinked, in slots of
//! one page each; a slot is used again when its page was read. So the copy reads a page from its side
//! file where that has it, and from the data file otherwise, and holds nobody back.
//!
//! One lock of each copy makes that safe. A page has its slot before the write begins, and the copy
//! reads pages under the same lock as it moves its cursor over them: it never reads a page from the
//! file that is being written. The checkpoint waits for the reading of one chunk at most; commits do
//! not come here.
//!
//! A copy whose side file is full, or cannot be written, ends with an error, and keeps nothing.

use std::{
    fmt,
    ops::Range,
    panic::Location,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering::SeqCst},
};

use rustc_hash::FxHashMap;

use crate::{
    disk::{Disk, DiskFile},
    error::{Error, Result},
    ids::{Lsn, PageId},
    limits::COPIES_MAX,
    sync::{LeafMutex, Mutex, Planted, is_planted},
};

use super::store::Pager;

/// Most bytes that are read, or handed over, under one hold of the lock.
pub const CHUNK_LEN: usize = 1 << 20;

/// The copies that are being made.
#[derive(Debug, Default)]
pub struct Copies {
    /// How many there are, so that a write without any does not take the lock.
    count: AtomicUsize,
    list: LeafMutex<Vec<Arc<CopyPages>>>,
}

impl Copies {
    /// Adds a copy, under the lock of the checkpoint.
    ///
    /// # Errors
    /// [`Error::Bound`] when there are too many.
    pub fn add(&self, copy: Arc<CopyPages>) -> Result<()> {
        let mut list = self.list.lock();
        if list.len() == COPIES_MAX {
            let hint = "wait for one of the copies to end";
            return Err(Error::Bound { option: "COPIES_MAX", max: COPIES_MAX as u64, hint });
        }
        list.push(copy);
        self.count.store(list.len(), SeqCst);
        Ok(())
    }

    /// Ends a copy: nothing is handed over to it any more.
    pub fn remove(&self, copy: &Arc<CopyPages>) {
        let mut list = self.list.lock();
        list.retain(|other| !Arc::ptr_eq(other, copy));
        self.count.store(list.len(), SeqCst);
    }

    /// All of them, those that began first in front.
    pub fn all(&self) -> Vec<Arc<CopyPages>> {
        self.list.lock().clone()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count.load(SeqCst) == 0
    }

    /// Hands the bytes over that a write is about to replace.
    pub(super) fn before_write(&self, pager: &Pager, first: PageId, page_count: u32) {
        if self.is_empty() || is_planted(Planted::NoHandOver) {
            return;
        }
        let end = first.0.saturating_add(page_count);
        self.all().iter().for_each(|copy| copy.hand_over(pager, first.0..end));
    }
}

/// What a copy needs to know when it begins.
#[derive(Debug)]
pub struct CopyConfig {
    /// LSN of the state.
    pub lsn: Lsn,
    /// One past the highest used page.
    pub page_count: u32,
    /// The pages that it reads, one bit each.
    pub pages: Vec<u64>,
    /// Bound of the side file, in bytes.
    pub side_file_max: u64,
    /// Where the side file is made.
    pub disk: Arc<dyn Disk>,
    /// Folder for the side file.
    pub dir: PathBuf,
    /// Bytes of a page.
    pub page_size: usize,
    /// When it began, in microseconds since 1970.
    pub opened_us: u64,
    /// Where it was begun.
    pub location: &'static Location<'static>,
}

/// The pages of one copy.
pub struct CopyPages {
    config: CopyConfig,
    /// How many pages there are to read.
    total: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The cursor: pages below were read.
    next: u32,
    /// Pages that were read.
    done: u64,
    /// Slots of the side file, by page: only pages at or above the cursor.
    slots: FxHashMap<u32, u32>,
    free: Vec<u32>,
    slot_count: u32,
    file: Option<Arc<dyn DiskFile>>,
    /// What ended it before its time.
    ended: Option<Error>,
    buffer: Vec<u8>,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyState {
    /// Pages that were read.
    pub done: u64,
    /// Pages that there are to read.
    pub total: u64,
    /// Bytes of the side file that are in use.
    pub side_len: u64,
}

impl CopyPages {
    /// A copy that has read nothing.
    pub fn new(config: CopyConfig) -> CopyPages {
        let total = config.pages.iter().map(|word| u64::from(word.count_ones())).sum();
        CopyPages { config, total, inner: Mutex::default() }
    }

    /// LSN of the state.
    pub fn lsn(&self) -> Lsn {
        self.config.lsn
    }

    /// When it began, in microseconds since 1970.
    pub fn opened_us(&self) -> u64 {
        self.config.opened_us
    }

    /// Where it was begun.
    pub fn location(&self) -> &'static Location<'static> {
        self.config.location
    }

    /// How many pages there are to read.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How far it is.
    pub fn state(&self) -> CopyState {
        let (done, slots) = {
            let inner = self.inner.lock();
            (inner.done, inner.slots.len() as u64)
        };
        CopyState { done, total: self.total, side_len: slots * self.config.page_size as u64 }
    }

    /// Whether these are all pages that the copy reads.
    pub fn has_all(&self, mut pages: Range<u32>) -> bool {
        pages.all(|page| self.has(page))
    }

    fn has(&self, page: u32) -> bool {
        let word = self.config.pages.get(page as usize / 64).copied().unwrap_or(0);
        word & (1 << (page % 64)) != 0
    }

    /// The first page from `from` on that the copy reads.
    fn first_from(&self, from: u32) -> Option<u32> {
        let start = from as usize / 64;
        let first = self.config.pages.get(start)? & (u64::MAX << (from % 64));
        let rest = self.config.pages.iter().copied().enumerate().skip(start + 1);
        let mut words = std::iter::once((start, first)).chain(rest);
        let (index, word) = words.find(|(_, word)| *word != 0)?;
        Some(index as u32 * 64 + word.trailing_zeros())
    }

    /// Puts pages into the side file that the data file does not have: before the copy is added.
    ///
    /// # Errors
    /// [`Error::Bound`] when it is full, [`Error::Io`].
    pub fn put(&self, first: PageId, bytes: &[u8]) -> Result<()> {
        let pieces = bytes.chunks(CHUNK_LEN / self.config.page_size * self.config.page_size);
        let mut page = first.0;
        for piece in pieces {
            self.store(&mut self.inner.lock(), page, piece)?;
            page += (piece.len() / self.config.page_size) as u32;
        }
        Ok(())
    }

    /// Hands pages over that are about to be written, as far as they are still to be read.
    fn hand_over(&self, pager: &Pager, pages: Range<u32>) {
        let end = pages.end.min(self.config.page_count);
        let piece_pages = (CHUNK_LEN / self.config.page_size) as u32;
        let mut page = pages.start;
        while page < end {
            let piece_end = page.saturating_add(piece_pages).min(end);
            let mut inner = self.inner.lock();
            if inner.ended.is_some() {
                return;
            }
            if let Err(error) = self.save(pager, &mut inner, page..piece_end) {
                tracing::warn!(lsn = self.config.lsn.0, %error, "a copy ends before its time");
                *inner = Inner { ended: Some(error), done: inner.done, ..Inner::default() };
                return;
            }
            page = piece_end;
        }
    }

    fn save(&self, pager: &Pager, inner: &mut Inner, pages: Range<u32>) -> Result<()> {
        let mut buffer = std::mem::take(&mut inner.buffer);
        let mut page = pages.start.max(inner.next);
        while page < pages.end {
            let is_wanted = |page: u32| self.has(page) && !inner.slots.contains_key(&page);
            if !is_wanted(page) {
                page += 1;
                continue;
            }
            let end = (page + 1..pages.end).find(|page| !is_wanted(*page)).unwrap_or(pages.end);
            buffer.resize((end - page) as usize * self.config.page_size, 0);
            pager.read_file(PageId(page), &mut buffer)?;
            self.store(inner, page, &buffer)?;
            page = end;
        }
        inner.buffer = buffer;
        Ok(())
    }

    fn store(&self, inner: &mut Inner, first: u32, bytes: &[u8]) -> Result<()> {
        let CopyConfig { page_size, side_file_max, ref disk, ref dir, .. } = self.config;
        let count = bytes.len() / page_size;
        if (inner.slots.len() + count) as u64 * page_size as u64 > side_file_max {
            return Err(Error::Bound {
                option: "side_file_max",
                max: side_file_max,
                hint: "the copy was too slow for what was written meanwhile; read it faster, or \
                       raise the bound",
            });
        }
        let file = match &inner.file {
            Some(file) => file,
            None => {
                let file = disk.scratch_file(dir).map_err(Error::io("make a side file in", dir))?;
                inner.file.insert(file)
            }
        };
        // What follows on one another goes out with one write, unless slots are used again.
        let step = if inner.free.is_empty() { bytes.len() } else { page_size };
        let mut page = first;
        for piece in bytes.chunks(step.max(page_size)) {
            let slot = inner.free.last().copied().unwrap_or(inner.slot_count);
            let offset = u64::from(slot) * page_size as u64;
            file.write_at(offset, piece).map_err(Error::io("write a side file in", dir))?;
            let piece_pages = (piece.len() / page_size) as u32;
            if inner.free.pop().is_none() {
                inner.slot_count += piece_pages;
            }
            inner.slots.extend((0..piece_pages).map(|index| (page + index, slot + index)));
            page += piece_pages;
        }
        Ok(())
    }

    /// Reads the next pages that follow on one another, at most `len_max` bytes of them and at least
    /// one, into `into`, and moves the cursor behind them. Nothing at the end.
    ///
    /// Pages that the disk does not read are an error, or, where there is a list of them, added to it.
    ///
    /// # Errors
    /// What ended the copy; [`Error::Io`].
    pub fn read_next(
        &self,
        pager: &Pager,
        into: &mut Vec<u8>,
        len_max: usize,
        unread: Option<&mut Vec<u32>>,
    ) -> Result<Option<Range<u32>>> {
        let mut inner = self.inner.lock();
        if let Some(error) = &inner.ended {
            return Err(error.duplicate());
        }
        let Some(first) = self.first_from(inner.next) else { return Ok(None) };
        let count_max = (len_max.min(CHUNK_LEN) / self.config.page_size).max(1) as u32;
        let limit = first.saturating_add(count_max).min(self.config.page_count);
        let end = (first + 1..limit).find(|page| !self.has(*page)).unwrap_or(limit);
        if is_planted(Planted::CursorBeforeRead) {
            inner.next = end;
            drop(inner);
            inner = self.inner.lock();
        }
        self.read(pager, &inner, first..end, into, unread)?;
        let Inner { slots, free, .. } = &mut *inner;
        if !slots.is_empty() {
            free.extend((first..end).filter_map(|page| slots.remove(&page)));
        }
        inner.next = end;
        inner.done += u64::from(end - first);
        Ok(Some(first..end))
    }

    /// As `read_next`, for pages at or above the cursor, which stays where it is.
    ///
    /// # Errors
    /// As `read_next`.
    pub fn peek(&self, pager: &Pager, pages: Range<u32>, into: &mut Vec<u8>) -> Result<()> {
        let inner = self.inner.lock();
        match &inner.ended {
            Some(error) => Err(error.duplicate()),
            None => self.read(pager, &inner, pages, into, None),
        }
    }

    fn read(
        &self,
        pager: &Pager,
        inner: &Inner,
        pages: Range<u32>,
        into: &mut Vec<u8>,
        mut unread: Option<&mut Vec<u32>>,
    ) -> Result<()> {
        let page_size = self.config.page_size;
        into.clear();
        into.resize(pages.len() * page_size, 0);
        let mut page = pages.start;
        while page < pages.end {
            let offset = (page - pages.start) as usize * page_size;
            if let (Some(&slot), Some(file)) = (inner.slots.get(&page), &inner.file) {
                let at = u64::from(slot) * page_size as u64;
                let dir = &self.config.dir;
                file.read_at(at, &mut into[offset..offset + page_size])
                    .map_err(Error::io("read a side file in", dir))?;
                page += 1;
                continue;
            }
            let in_file = |page: &u32| !inner.slots.contains_key(page);
            let behind = (page + 1..pages.end).take_while(in_file).count();
            let buf = &mut into[offset..offset + (1 + behind) * page_size];
            match (pager.read_file(PageId(page), buf), unread.as_deref_mut()) {
                (Ok(()), _) => {}
                (Err(error), None) => return Err(error),
                (Err(_), Some(unread)) => {
                    // One by one, to find which.
                    for (number, bytes) in (page..).zip(buf.chunks_mut(page_size)) {
                        if pager.read_file(PageId(number), bytes).is_err() {
                            unread.push(number);
                        }
                    }
                }
            }
            page += 1 + behind as u32;
        }
        Ok(())
    }
}

impl fmt::Debug for CopyPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyPages").field("lsn", &self.config.lsn).finish_non_exhaustive()
    }
}
