//! The pages of one write transaction: what it has changed so far, and how all of it becomes one
//! record, or nothing.
//!
//! A page is copied into a frame when it is first changed; the changed blocks are noted as they
//! change. Sealing stamps LSN and checksum into each page, writes the noted blocks into the record,
//! and hands the frames over as new versions: nothing is copied twice.

mod apply;

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        bitmap::{bit_position, bitmap_page, is_fixed, pages_per_group},
        checksum::crc32_change,
        node, overflow,
        page::{self, PageKind},
        record::RecordBuilder,
    },
    ids::{Lsn, PageId, TreeId},
    pager::{
        access::{PageMut, PageRead, PageWrite},
        directory::NewVersion,
        space::Space,
        store::Pager,
    },
    sync::{Planted, is_planted},
};

use super::dirty::{Body, DirtyPage, DirtyPages, UndoMark};

/// A change of the space map, to be undone.
#[derive(Clone, Copy, Debug)]
pub(super) enum SpaceChange {
    Taken(PageId, u32),
    Given(PageId, u32),
}

/// Pages that a transaction has changed, on top of the state at `base`.
#[derive(Debug)]
pub struct TxnPages {
    pager: Arc<Pager>,
    space: Space,
    base: Lsn,
    dirty: DirtyPages,
    freed: Vec<(PageId, u32)>,
    pub(super) space_changes: Vec<SpaceChange>,
    groups_before: u32,
}

/// What is kept from one transaction to the next: the space map, and memory.
#[derive(Debug)]
pub struct PagesState {
    /// Used and free pages, in the newest sealed state.
    pub(super) space: Space,
    dirty: DirtyPages,
}

impl PagesState {
    /// One past the highest used page.
    pub fn page_count(&self) -> u32 {
        self.space.page_count()
    }

    /// The state that `space` describes.
    pub fn new(space: Space) -> PagesState {
        PagesState { space, dirty: DirtyPages::default() }
    }
}

/// Where a savepoint began.
#[derive(Clone, Copy, Debug)]
pub(super) struct PagesMark {
    undo: UndoMark,
    space_changes: usize,
    freed: usize,
    groups: u32,
}

/// Versions that a sealed transaction made, ascending by page.
pub type NewVersions = Vec<(PageId, NewVersion)>;

impl TxnPages {
    /// No changes yet, on top of `base`, of which the caller is a registered reader.
    pub(crate) fn new(pager: Arc<Pager>, state: PagesState, base: Lsn) -> TxnPages {
        let PagesState { space, dirty } = state;
        TxnPages {
            pager,
            base,
            dirty,
            freed: Vec::new(),
            space_changes: Vec::new(),
            groups_before: space.group_count(),
            space,
        }
    }

    /// Undoes what was not sealed, and gives the state back.
    pub(crate) fn finish(mut self) -> PagesState {
        self.rollback();
        let space = std::mem::replace(&mut self.space, Space::new(self.pager.page_size()));
        PagesState { space, dirty: std::mem::take(&mut self.dirty) }
    }

    /// Opens a savepoint inside those that are open.
    pub(super) fn begin_savepoint(&mut self) -> PagesMark {
        PagesMark {
            undo: self.dirty.begin_savepoint(),
            space_changes: self.space_changes.len(),
            freed: self.freed.len(),
            groups: self.space.group_count(),
        }
    }

    /// Closes the innermost savepoint and keeps what came after it.
    pub(super) fn keep_savepoint(&mut self, mark: PagesMark) {
        self.dirty.keep_savepoint(mark.undo, &self.pager);
    }

    /// Closes the innermost savepoint and undoes what came after it.
    pub(super) fn undo_savepoint(&mut self, mark: PagesMark) {
        self.undo_space(mark.space_changes, mark.groups);
        self.freed.truncate(mark.freed);
        self.dirty.undo_savepoint(mark.undo, &self.pager);
    }

    /// Loses one step of the undo log, as a planted bug; returns how many there were.
    #[cfg(test)]
    pub(super) fn lose_undo(&mut self, step: Option<usize>) -> usize {
        self.dirty.lose_undo(step, &self.pager)
    }

    /// Whether nothing was changed.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.freed.is_empty()
    }

    /// One past the highest used page.
    pub(crate) fn page_count(&self) -> u32 {
        self.space.page_count()
    }

    /// Bytes of memory that the transaction holds.
    pub fn memory_len(&self) -> usize {
        let runs: usize = self.dirty.runs().map(|frame| frame.bytes().len()).sum();
        self.dirty.len() * self.pager.page_size() + runs
    }

    /// Makes the bitmap page of the first group, which holds the catalog's root: the first act in
    /// a new database.
    pub(crate) fn create_first_group(&mut self) -> Result<()> {
        self.add_group()
    }

    /// Makes the page `id`, which is used in the space map already, an empty leaf.
    pub(crate) fn create_leaf(&mut self, id: PageId, tree: TreeId) -> Result<()> {
        self.insert_new(id, PageKind::Leaf, 0, tree)?;
        let page = self.dirty.get_mut(id, &self.pager.pool)?;
        if let Body::Own(frame) = &mut page.expect("it was just put there").body {
            node::init_leaf(frame.bytes_mut());
        }
        Ok(())
    }

    fn insert_new(&mut self, id: PageId, kind: PageKind, level: u8, tree: TreeId) -> Result<()> {
        if self.dirty.contains(id) {
            return Err(self.damaged(id, "a tree refers to a page that is free"));
        }
        let mut frame = self.pager.pool.page()?;
        frame.bytes_mut().fill(0);
        page::init(frame.bytes_mut(), id, kind, level, tree);
        self.dirty.insert(id, Body::Own(frame), true).changed.note(0, page::PAGE_HEADER_SIZE);
        Ok(())
    }

    /// The bytes of a page that is changed for the first time: where they are, if nobody looks at
    /// them, or a copy.
    fn first_touch(&self, id: PageId) -> Result<Body> {
        let Pager { directory, registry, pool, .. } = &*self.pager;
        if let Some(taken) = directory.take_over(registry, pool, id, self.pager.page_size()) {
            return Ok(Body::Taken(taken));
        }
        let old = self.pager.page(id, self.base)?;
        let mut frame = pool.page()?;
        frame.bytes_mut().copy_from_slice(&old[..self.pager.page_size()]);
        Ok(Body::Own(frame))
    }

    fn add_group(&mut self) -> Result<()> {
        let page_size = self.pager.page_size();
        if !self.space.can_grow() {
            return Err(Error::Bound {
                option: "page count",
                max: u64::from(crate::limits::PAGE_COUNT_MAX),
                hint: "the data file has all the pages that it can have; delete entries",
            });
        }
        let group = self.space.group_count();
        let bitmap = bitmap_page(group, page_size);
        self.insert_new(bitmap, PageKind::Bitmap, 0, TreeId::NONE)?;
        let first = group * pages_per_group(page_size);
        let fixed: Vec<PageId> = self.space.begin_group().collect();
        for id in fixed {
            self.set_bit(bitmap, id.0 - first, true)?;
        }
        Ok(())
    }

    fn set_bit(&mut self, bitmap: PageId, index: u32, used: bool) -> Result<()> {
        let (offset, mask) = bit_position(index);
        let mut page = self.page_mut(bitmap)?;
        let byte = &mut page.range_mut(offset, 1)[0];
        assert_eq!(*byte & mask == 0, used, "bitmap page {bitmap} and the space map differ");
        *byte ^= mask;
        Ok(())
    }

    fn mark(&mut self, first: PageId, len: u32, used: bool) -> Result<()> {
        let page_size = self.pager.page_size();
        for id in first.0..first.0 + len {
            let group = self.space.group_of(PageId(id));
            self.set_bit(
                bitmap_page(group, page_size),
                id - group * pages_per_group(page_size),
                used,
            )?;
        }
        Ok(())
    }

    fn take(&mut self, len: u32) -> Result<PageId> {
        let first = loop {
            match self.space.find(len) {
                Some(first) => break first,
                None => self.add_group()?,
            }
        };
        if len == 1 || !is_planted(Planted::RunNotMarked) {
            self.mark(first, len, true)?;
        }
        self.space.take(first, len);
        self.space_changes.push(SpaceChange::Taken(first, len));
        Ok(first)
    }

    fn give(&mut self, first: PageId, len: u32) -> Result<()> {
        let page_size = self.pager.page_size();
        let Some(end) = first.0.checked_add(len) else {
            return Err(self.damaged(first, "a tree refers to a run behind the highest page"));
        };
        for id in (first.0..end).map(PageId) {
            if !self.space.is_used(id) || is_fixed(id, page_size) {
                return Err(self.damaged(id, "a tree refers to a page that is not its own"));
            }
        }
        self.mark(first, len, false)?;
        self.space.give(first, len);
        self.space_changes.push(SpaceChange::Given(first, len));
        self.freed.push((first, len));
        Ok(())
    }

    /// Writes all changes into `builder` and returns the new versions, stamped with `lsn`. Follow
    /// with `sealed` or `unseal`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a page that was changed cannot be read any more.
    pub(crate) fn seal(&mut self, lsn: Lsn, builder: &mut RecordBuilder) -> Result<NewVersions> {
        self.freed.iter().for_each(|&(first, len)| builder.free(first, len));
        let mut versions = self.freed_versions();
        versions.reserve(self.dirty.len() + self.dirty.runs().len());
        let mut failure = None;
        let mut old = vec![0; self.pager.page_size()];
        for id in self.dirty.ids() {
            let Some(mut dirty) = self.dirty.take(id) else { continue };
            if dirty.changed.is_empty() {
                dirty.body.release(&self.pager);
                continue;
            }
            let stamped = stamp(&self.pager, self.base, id, lsn, &mut dirty, &mut old);
            failure = stamped.err().or(failure);
            builder.page(id, dirty.is_new, &dirty.changed, dirty.body.bytes());
            versions.push((id, dirty.body.into_version()));
        }
        if let Some(failure) = failure {
            self.release(versions);
            return Err(failure);
        }
        for (id, mut frame) in self.dirty.take_runs() {
            let bytes = frame.bytes_mut();
            page::set_lsn(bytes, lsn);
            let checksum = page::compute_checksum(bytes);
            page::set_checksum(bytes, checksum);
            let used = page::PAGE_HEADER_SIZE + overflow::value_len(bytes) as usize;
            let page_count = (bytes.len() / self.pager.page_size()) as u32;
            builder.run(id, page_count, &bytes[..used]);
            versions.push((id, NewVersion::Frame(frame)));
        }
        Ok(versions)
    }

    /// The record is on its way: nothing of it can be undone.
    pub(super) fn sealed(&mut self) {
        self.freed.clear();
        self.space_changes.clear();
        self.groups_before = self.space.group_count();
    }

    /// The record came to nothing: its versions go back, and everything is undone.
    pub(super) fn unseal(&mut self, versions: NewVersions) {
        self.release(versions);
        self.rollback();
    }

    /// Bytes that the payload of the record can have at most.
    pub(super) fn payload_len_max(&self) -> u64 {
        let page_size = self.pager.page_size();
        // Every second block a run of its own: a quarter more than the page.
        let pages = self.dirty.len() * (page_size + page_size / 4 + 8);
        let runs: usize = self.dirty.runs().map(|frame| frame.bytes().len() + 32).sum();
        (pages + runs + self.freed.len() * 16) as u64
    }

    fn release(&self, versions: NewVersions) {
        for (_, version) in versions {
            match version {
                NewVersion::Frame(frame) => self.pager.pool.release(frame),
                NewVersion::Taken(taken) => self.pager.give_back([taken]),
                NewVersion::Free => {}
            }
        }
    }

    /// Undoes everything.
    pub(crate) fn rollback(&mut self) {
        self.undo_space(0, self.groups_before);
        self.freed.clear();
        self.dirty.clear(&self.pager);
    }

    fn undo_space(&mut self, len: usize, groups: u32) {
        while self.space_changes.len() > len {
            match self.space_changes.pop().expect("the log is longer than the mark") {
                SpaceChange::Taken(first, len) => self.space.give(first, len),
                SpaceChange::Given(first, len) => self.space.take(first, len),
            }
        }
        if self.space.group_count() > groups {
            self.space.end_groups(groups);
        }
    }
}

/// Stamps LSN and checksum into a changed page; the checksum follows from the one before and from
/// the bytes that changed.
fn stamp(
    pager: &Pager,
    base: Lsn,
    id: PageId,
    lsn: Lsn,
    dirty: &mut DirtyPage,
    old: &mut [u8],
) -> Result<()> {
    let mut page = dirty.edit(pager);
    let stamp = if is_planted(Planted::WrongPageLsn) { lsn.next() } else { lsn };
    page::set_lsn(page.range_mut(0, page::PAGE_HEADER_SIZE / 2), stamp);
    drop(page);
    let bytes = dirty.body.bytes();
    let checksum = match &dirty.body {
        _ if dirty.is_new => page::compute_checksum(bytes),
        Body::Own(_) => checksum_after(dirty, pager.page(id, base)?),
        Body::Taken(taken) => {
            // Only the changed blocks of it are looked at.
            taken.saved().apply(old);
            checksum_after(dirty, old)
        }
    };
    page::set_checksum(dirty.edit(pager).range_mut(0, 4), checksum);
    Ok(())
}

/// The checksum of a changed page: that of `old`, and what the changed blocks make of it.
fn checksum_after(dirty: &DirtyPage, old: &[u8]) -> u32 {
    let bytes = dirty.body.bytes();
    let mut checksum = page::stored_checksum(old);
    for (offset, len) in dirty.changed.runs() {
        let start = offset.max(4);
        let end = offset + len;
        checksum ^= crc32_change(&old[start..end], &bytes[start..end], bytes.len() - end);
    }
    checksum
}

impl PageRead for TxnPages {
    #[inline]
    fn page_size(&self) -> usize {
        self.pager.page_size()
    }

    #[inline]
    fn page(&self, id: PageId) -> Result<&[u8]> {
        match self.dirty.get(id) {
            Some(dirty) => Ok(dirty.body.bytes()),
            None => self.pager.page(id, self.base),
        }
    }

    fn run(&self, id: PageId, value_len: u64) -> Result<&[u8]> {
        let Some(frame) = self.dirty.run(id) else {
            return self.pager.run(id, value_len, self.base);
        };
        match overflow::value(frame.bytes()) {
            Some(value) if value.len() as u64 == value_len => Ok(value),
            _ => Err(self.damaged(id, "the run holds a value of another length")),
        }
    }

    fn damaged(&self, id: PageId, what: &'static str) -> Error {
        self.pager.damaged(id, what)
    }

    #[inline]
    fn prefetch(&self, id: PageId) {
        self.pager.prefetch(id, self.base);
    }
}

impl PageWrite for TxnPages {
    #[inline]
    fn page_mut(&mut self, id: PageId) -> Result<PageMut<'_>> {
        let page = if self.dirty.contains(id) {
            self.dirty.get_mut(id, &self.pager.pool)?.expect("it is there")
        } else {
            let body = self.first_touch(id)?;
            self.dirty.insert(id, body, false)
        };
        Ok(page.edit(&self.pager))
    }

    fn allocate(&mut self, kind: PageKind, level: u8, tree: TreeId) -> Result<PageId> {
        let id = self.take(1)?;
        self.insert_new(id, kind, level, tree)?;
        Ok(id)
    }

    fn free(&mut self, id: PageId) -> Result<()> {
        if !is_planted(Planted::PageNotFreed) {
            self.give(id, 1)?;
        }
        if is_planted(Planted::PageFreedTwice) {
            self.give(id, 1)?;
        }
        self.dirty.remove(id, &self.pager)
    }

    fn allocate_run(&mut self, tree: TreeId, value: &[u8]) -> Result<PageId> {
        let page_size = self.pager.page_size();
        let page_count = overflow::page_count(value.len() as u64, page_size);
        assert!(page_count <= self.space.run_len_max(), "the length of the value was checked");
        let mut frame = self.pager.pool.run(page_count as usize * page_size)?;
        match self.take(page_count) {
            Ok(id) => {
                let bytes = frame.bytes_mut();
                bytes[..page::PAGE_HEADER_SIZE].fill(0);
                bytes[page::PAGE_HEADER_SIZE + value.len()..].fill(0);
                page::init(bytes, id, PageKind::Overflow, 0, tree);
                overflow::fill(bytes, value);
                self.dirty.insert_run(id, frame);
                Ok(id)
            }
            Err(error) => {
                self.pager.pool.release(frame);
                Err(error)
            }
        }
    }

    fn free_run(&mut self, id: PageId, value_len: u64) -> Result<()> {
        let page_count = overflow::page_count(value_len, self.pager.page_size());
        self.give(id, page_count)?;
        self.dirty.remove_run(id, &self.pager.pool);
        Ok(())
    }
}

impl Drop for TxnPages {
    fn drop(&mut self) {
        self.rollback();
    }
}
