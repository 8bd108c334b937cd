//! What is known of a tree without reading its pages.

pub use crate::format::catalog::TreeState;

use crate::{
    error::Result,
    format::page::PageKind,
    ids::{PageId, TreeId},
    pager::access::PageWrite,
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

    /// Counts one page more of a level.
    pub(super) fn count_page(&mut self, level: u8) {
        *(if level == 0 { &mut self.leaf_pages } else { &mut self.branch_pages }) += 1;
    }

    /// Counts one page less of a level. Saturates: a damaged catalog must not panic.
    pub(super) fn uncount_page(&mut self, level: u8) {
        let count = if level == 0 { &mut self.leaf_pages } else { &mut self.branch_pages };
        *count = count.saturating_sub(1);
    }
}
