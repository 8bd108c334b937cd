//! What is known of a tree without reading its pages.
//!
//! The counters come from the catalog. A damaged one, under a right checksum, may hold any number, so
//! nothing is added to them or taken from them unchecked: `counted` makes an error of it.

pub use crate::format::catalog::TreeState;

use crate::{
    error::{Error, Result},
    format::page::PageKind,
    ids::{PageId, TreeId},
    pager::access::{PageRead, PageWrite},
};

use super::slots;

/// Creates an empty tree: its root is a new leaf.
///
/// # Errors
/// Those of allocating a page.
pub fn create<P: PageWrite>(pages: &mut P, id: TreeId) -> Result<TreeState> {
    let root = pages.allocate(PageKind::Leaf, 0, id)?;
    slots::reset(&mut pages.page_mut(root)?, 0);
    Ok(TreeState::empty(id, root))
}

/// A count that was to be made; an error where a counter left its range, which only one from a
/// damaged catalog does.
#[inline]
pub(super) fn counted<P: PageRead, T>(pages: &P, root: PageId, count: Option<T>) -> Result<T> {
    match count {
        Some(count) => Ok(count),
        None => Err(miscounted(pages, root)),
    }
}

#[cold]
fn miscounted<P: PageRead>(pages: &P, root: PageId) -> Error {
    pages.damaged(root, "the catalog counts other things than the tree holds")
}

impl TreeState {
    /// The state of an empty tree whose root is the leaf `root`.
    #[must_use]
    pub fn empty(id: TreeId, root: PageId) -> TreeState {
        TreeState {
            id,
            root,
            depth: 1,
            entries: 0,
            leaf_pages: 1,
            branch_pages: 0,
            overflow_pages: 0,
            payload_len: 0,
        }
    }

    /// Level of the root.
    #[inline(always)]
    #[must_use]
    pub fn root_level(&self) -> u8 {
        self.depth.saturating_sub(1)
    }

    /// Counts one entry more, of `payload_len` bytes; `None` where a counter is at its end.
    pub(super) fn count_entry(&mut self, payload_len: usize) -> Option<()> {
        self.entries = self.entries.checked_add(1)?;
        self.count_payload(payload_len)
    }

    /// Counts more bytes of keys and values; `None` where the counter is at its end.
    pub(super) fn count_payload(&mut self, len: usize) -> Option<()> {
        self.payload_len = self.payload_len.checked_add(len as u64)?;
        Some(())
    }

    /// Counts one page more of a level; `None` where the counter is at its end.
    pub(super) fn count_page(&mut self, level: u8) -> Option<()> {
        let count = self.pages_of(level);
        *count = count.checked_add(1)?;
        Some(())
    }

    /// Counts one page less of a level; `None` where none is counted.
    pub(super) fn uncount_page(&mut self, level: u8) -> Option<()> {
        let count = self.pages_of(level);
        *count = count.checked_sub(1)?;
        Some(())
    }

    fn pages_of(&mut self, level: u8) -> &mut u32 {
        if level == 0 { &mut self.leaf_pages } else { &mut self.branch_pages }
    }
}
