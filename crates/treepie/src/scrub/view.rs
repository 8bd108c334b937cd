//! What a slice of a scrub knows of the state that it looks at.

use std::{
    cell::{Cell, OnceCell},
    ops::Range,
    panic::Location,
    sync::Arc,
};

use crate::{
    error::Result,
    format::{
        bitmap::{
            CATALOG_ROOT, GROUPS_PER_REGION, bit_position, bitmap_page, is_fixed, is_run_place,
            pages_per_group, pages_per_region,
        },
        overflow,
        page::{self, PageKind},
    },
    ids::{Lsn, PageId},
    pager::{directory::Found, store::Pager},
    txn::{
        core::{CommitPoint, Core},
        snapshot::{Snapshot, TreeInfo},
    },
};

use super::{Blind, is_blind};

/// What is to be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Nothing: it is free, or fixed and not in use yet.
    Idle,
    /// Nothing: so many pages from here on are in memory.
    InMemory(u32),
    /// It is part of a run, or in memory as free, and says nothing of its own.
    Silent,
    /// The file has it.
    InFile,
}

/// A group and its bitmap page, where that verifies.
type GroupBits<'a> = (u32, Option<&'a [u8]>);

/// What a slice knows of the state that it looks at.
pub(super) struct View<'a> {
    pub(super) pager: &'a Pager,
    pub(super) lsn: Lsn,
    pub(super) page_count: u32,
    page_size: usize,
    /// The group that was asked for last.
    bits: Cell<Option<GroupBits<'a>>>,
    pub(super) snapshot: Snapshot,
    pub(super) trees: OnceCell<Vec<TreeInfo>>,
    /// Bytes that were read beside those of the slice.
    pub(super) read_beside: Cell<u64>,
}

impl View<'_> {
    pub(super) fn new(core: &Arc<Core>) -> Result<View<'_>> {
        loop {
            let snapshot = Snapshot::open(core, Location::caller())?;
            let (lsn, pager) = (snapshot.lsn(), &*core.pager);
            let own = {
                let commits = core.commits.lock();
                commits.iter().find(|commit| commit.position.lsn == lsn).copied()
            };
            // One that is forgotten is not the newest any more.
            if let Some(CommitPoint { page_count, .. }) = own {
                let page_size = pager.page_size();
                let bits = Cell::new(None);
                let (trees, read_beside) = (OnceCell::new(), Cell::new(0));
                return Ok(View {
                    pager,
                    lsn,
                    page_count,
                    page_size,
                    bits,
                    snapshot,
                    trees,
                    read_beside,
                });
            }
        }
    }

    /// Whether a page is in use; nothing where its bitmap cannot be read.
    fn is_used(&self, page: u32) -> Option<bool> {
        let group_pages = pages_per_group(self.page_size);
        let (group, index) = (page / group_pages, page % group_pages);
        if is_fixed(PageId(page), self.page_size) {
            let region = page / pages_per_region(self.page_size) * GROUPS_PER_REGION;
            let fixed_group = region + page - bitmap_page(region, self.page_size).0;
            let is_begun = fixed_group < self.page_count.div_ceil(group_pages);
            return Some(page == CATALOG_ROOT.0 || is_begun);
        }
        let bits = self.bits_of(group)?;
        let (byte, mask) = bit_position(index);
        Some(bits.get(byte).is_some_and(|byte| byte & mask != 0))
    }

    fn bits_of(&self, group: u32) -> Option<&[u8]> {
        if let Some((known, bits)) = self.bits.get()
            && known == group
        {
            return bits;
        }
        let bitmap = bitmap_page(group, self.page_size);
        // What was verified when it was read first may have changed since.
        let bits = self.pager.page_verified_again(bitmap, self.lsn).ok();
        let bits = bits.filter(|bits| page::kind(bits) == Some(PageKind::Bitmap));
        self.bits.set(Some((group, bits)));
        bits
    }

    pub(super) fn use_of(&self, page: u32) -> Option<Use> {
        if !self.is_used(page)? {
            return Some(Use::Idle);
        }
        Some(match self.pager.directory.find(PageId(page), self.lsn) {
            Found::Version(..) | Found::Hidden if is_blind(Blind::Versions) => Use::InFile,
            Found::Version(_, bytes) => Use::InMemory((bytes.len() / self.page_size).max(1) as u32),
            Found::Hidden => Use::InMemory(1),
            Found::Free => Use::Silent,
            Found::Map => Use::InFile,
        })
    }

    /// Reads a page beside the slice; false where the disk does not.
    pub(super) fn read_beside(&self, page: u32, bytes: &mut [u8]) -> bool {
        self.read_beside.update(|read| read + bytes.len() as u64);
        self.pager.read_medium(PageId(page), bytes).is_ok()
    }

    /// The pages of the run that begins with these bytes, if that can be.
    pub(super) fn run_of(&self, first: u32, bytes: &[u8]) -> Option<Range<u32>> {
        let is_run = page::kind(bytes) == Some(PageKind::Overflow)
            && page::page_id(bytes) == PageId(first)
            && overflow::validate_header(bytes).is_ok();
        if !is_run {
            return None;
        }
        let count = overflow::page_count(overflow::value_len(bytes), self.page_size);
        let is_place = is_run_place(PageId(first), count, self.page_size);
        (is_place && first + count <= self.page_count).then(|| first..first + count)
    }
}
