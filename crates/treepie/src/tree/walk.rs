//! From leaf to leaf: where a cursor is, as the branches above it.
//!
//! Pages are asked for by number again when the walk leaves a leaf: that is once a leaf, and keeps
//! the stack at 8 bytes a level.

use crate::{
    error::Result,
    format::node::{Branch, Leaf},
    ids::PageId,
    limits::TREE_DEPTH_MAX,
    pager::access::{PageRead, prefetch_lines},
};

use super::{
    key::Key,
    search::{branch_at, leaf_at},
    state::TreeState,
};

/// How many entries ahead of the one that is read cells are asked for.
pub(super) const AHEAD: usize = 4;
/// Bytes of a cell that are asked for: its lengths, a key's suffix, the first bytes of the value.
const CELL_FRONT_LEN: usize = 64;
/// Entries that are left in a leaf when the next one is asked for.
const NEARLY_THROUGH: usize = 16;

/// A place in a tree, down to a leaf.
#[derive(Debug)]
pub(super) struct Walk<'p, P> {
    pages: &'p P,
    root: PageId,
    branch_levels: usize,
    /// The branches from the root down, and the child taken in each.
    steps: [(PageId, u16); TREE_DEPTH_MAX],
    leaf_id: PageId,
    leaf: Leaf<'p>,
}

impl<P> Clone for Walk<'_, P> {
    fn clone(&self) -> Self {
        Walk { ..*self }
    }
}

/// Which child a descent takes.
#[derive(Clone, Copy)]
pub(super) enum Toward<'k> {
    First,
    Last,
    Key(&'k [u8]),
}

impl<'p, P: PageRead> Walk<'p, P> {
    /// Nowhere yet: the leaf is empty.
    pub fn new(pages: &'p P, state: &TreeState) -> Walk<'p, P> {
        Walk {
            pages,
            root: state.root,
            branch_levels: usize::from(state.root_level()).min(TREE_DEPTH_MAX - 1),
            steps: [(PageId(0), 0); TREE_DEPTH_MAX],
            leaf_id: PageId(0),
            leaf: Leaf::new(&[]),
        }
    }

    #[inline(always)]
    pub fn pages(&self) -> &'p P {
        self.pages
    }

    #[inline(always)]
    pub fn leaf(&self) -> &Leaf<'p> {
        &self.leaf
    }

    #[inline(always)]
    pub fn leaf_id(&self) -> PageId {
        self.leaf_id
    }

    /// Goes from the root to a leaf.
    pub fn seek(&mut self, toward: Toward<'_>) -> Result<()> {
        self.descend(0, self.root, toward)
    }

    /// Asks for the cells of some entries: they lie anywhere in the page.
    #[inline(always)]
    pub fn ask_for_cells(leaf: &Leaf<'p>, entries: std::ops::Range<usize>) {
        entries.for_each(|at| Self::ask_for_cell(leaf, at));
    }

    /// Asks for the cell of an entry; there may be none.
    #[inline(always)]
    pub fn ask_for_cell(leaf: &Leaf<'p>, at: usize) {
        let cell = leaf.cell(at);
        prefetch_lines(cell.get(..CELL_FRONT_LEN).unwrap_or(cell));
    }

    /// Asks for the leaf behind when entry `at` is one of the last: a short scan may get there.
    #[inline]
    pub fn ask_for_next_leaf(&self, at: usize) {
        let Some(step) = self.branch_levels.checked_sub(1) else { return };
        if at + NEARLY_THROUGH < self.leaf.len() {
            return;
        }
        let (id, child) = self.steps[step];
        if let Ok(branch) = branch_at(self.pages, id, self.level(step))
            && usize::from(child) + 1 < branch.len()
        {
            self.pages.prefetch(branch.child(usize::from(child) + 1));
        }
    }

    /// Goes to the next leaf, which has entries. Returns false, and stays, when there is none.
    pub fn next_leaf(&mut self) -> Result<bool> {
        let before = self.leaf;
        let Some((step, branch, at)) = self.turn(|at, len| (at + 1 < len).then_some(at + 1))?
        else {
            return Ok(false);
        };
        self.descend(step + 1, branch.child(at), Toward::First)?;
        if step + 1 == self.branch_levels && at + 1 < branch.len() {
            self.pages.prefetch(branch.child(at + 1));
        }
        self.ascends(&before, &self.leaf).map(|()| true)
    }

    /// Goes to the leaf before, which has entries. Returns false, and stays, when there is none.
    pub fn prev_leaf(&mut self) -> Result<bool> {
        let behind = self.leaf;
        let Some((step, branch, at)) = self.turn(|at, _| at.checked_sub(1))? else {
            return Ok(false);
        };
        self.descend(step + 1, branch.child(at), Toward::Last)?;
        if step + 1 == self.branch_levels && at > 0 {
            self.pages.prefetch(branch.child(at - 1));
        }
        self.ascends(&self.leaf, &behind).map(|()| true)
    }

    /// Keys ascend from leaf to leaf, and only a root may be empty: else children that are used twice
    /// on every level would make of a few pages a walk that never ends.
    fn ascends(&self, left: &Leaf<'p>, right: &Leaf<'p>) -> Result<()> {
        let key = |leaf: &Leaf<'p>, at| Key::new(leaf.prefix(), leaf.suffix(at));
        let what = match left.len().checked_sub(1) {
            _ if self.leaf.is_empty() => "the leaf is empty",
            Some(last) if !right.is_empty() && key(left, last) >= key(right, 0) => {
                "its keys are not between those of the leaves beside it"
            }
            _ => return Ok(()),
        };
        Err(self.pages.damaged(self.leaf_id, what))
    }

    /// Finds the lowest branch that has a child where `beside` points, and takes it.
    fn turn(
        &mut self,
        beside: impl Fn(usize, usize) -> Option<usize>,
    ) -> Result<Option<(usize, Branch<'p>, usize)>> {
        for step in (0..self.branch_levels).rev() {
            let (id, at) = self.steps[step];
            let branch = branch_at(self.pages, id, self.level(step))?;
            if let Some(at) = beside(usize::from(at), branch.len()) {
                self.steps[step].1 = u16::try_from(at).unwrap_or(u16::MAX);
                return Ok(Some((step, branch, at)));
            }
        }
        Ok(None)
    }

    fn descend(&mut self, step: usize, mut id: PageId, toward: Toward<'_>) -> Result<()> {
        for step in step..self.branch_levels {
            let branch = branch_at(self.pages, id, self.level(step))?;
            let at = match toward {
                Toward::First => 0,
                Toward::Last => branch.len().saturating_sub(1),
                Toward::Key(key) => branch.child_index(key),
            };
            self.steps[step] = (id, u16::try_from(at).unwrap_or(u16::MAX));
            id = branch.child(at);
        }
        self.leaf = leaf_at(self.pages, id)?;
        self.leaf_id = id;
        Ok(())
    }

    fn level(&self, step: usize) -> u8 {
        u8::try_from(self.branch_levels - step).unwrap_or(u8::MAX)
    }
}
