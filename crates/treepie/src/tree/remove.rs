//! Removal: of one entry, with joins of pages that become too empty, and of all.

use crate::{
    error::Result,
    format::node::{BRANCH, Branch, LEAF, Leaf, Node, Value},
    ids::PageId,
    pager::access::PageWrite,
    sync::{Planted, is_planted},
};

use super::{
    insert::{Edit, OldValue},
    key::Key,
    pack::{Item, Pack},
    search::{Path, branch_at, leaf_at},
    slots,
    split::{extend_with, spread},
    state::TreeState,
};

/// A page that holds less than one part in so many of a page is joined with a sibling.
const JOIN_PART: usize = 3;
/// Pages are joined only when this part of a page stays free, so that the next insertion does not
/// split them again.
const JOIN_SLACK_PART: usize = 16;

impl<P: PageWrite> Edit<'_, P> {
    /// Removes the entry of `key`. Returns whether there was one.
    ///
    /// # Errors
    /// Those of reading and changing pages.
    pub fn remove(&mut self, key: &[u8]) -> Result<bool> {
        let path = Path::find(self.pages, self.state, key)?;
        let leaf = leaf_at(self.pages, path.leaf)?;
        let Ok(at) = leaf.search(key) else { return Ok(false) };
        self.release(OldValue::of(leaf.value(at)))?;
        let payload_len = self.state.payload_len.checked_sub(key.len() as u64);
        self.state.payload_len = self.counted(payload_len)?;
        self.state.entries = self.counted(self.state.entries.checked_sub(1))?;
        let mut page = self.pages.page_mut(path.leaf)?;
        slots::remove::<LEAF>(&mut page, at);
        let is_sparse = is_sparse(page.bytes());
        drop(page);
        if path.len() > 0 && is_sparse {
            self.hint.forget();
            self.rebalance(path, false)?;
        }
        Ok(true)
    }

    /// Joins pages that are too empty with a sibling, from the leaf of the path upwards, or fills them
    /// from it. Where neither can be done the page stays as it is: that costs space, not correctness.
    /// A leaf that `leaf_goes` is given up, whatever is in it.
    pub(super) fn rebalance(&mut self, mut path: Path, leaf_goes: bool) -> Result<()> {
        let (mut id, mut level) = (path.leaf, 0);
        while let Some((parent, at)) = path.pop() {
            let goes = leaf_goes && level == 0;
            let gone = if goes || slots::is_empty(self.pages.page(id)?) {
                Some((id, at))
            } else if is_too_empty(self.pages, id, level)? {
                join(self.pages, (id, level), (parent, at))?
            } else {
                return Ok(());
            };
            let Some((page, child)) = gone else { return Ok(()) };
            self.pages.free(page)?;
            self.uncount_page(level)?;
            slots::remove_child(&mut self.pages.page_mut(parent)?, child);
            (id, level) = (parent, level + 1);
        }
        self.collapse()
    }

    /// Moves the content of the root's only child into the root, as long as it has but one.
    fn collapse(&mut self) -> Result<()> {
        while self.state.depth > 1 {
            let root = branch_at(self.pages, self.state.root, self.state.root_level())?;
            let child = root.child(0);
            let child_level = self.state.root_level() - 1;
            match root.len() {
                0 => {
                    self.uncount_page(self.state.root_level())?;
                    self.count_page(0)?;
                    self.state.depth = 1;
                    slots::reset(&mut self.pages.page_mut(self.state.root)?, 0);
                    return Ok(());
                }
                1 => {}
                _ => return Ok(()),
            }
            let copy = match child_level {
                0 => leaf_at(self.pages, child)?.page().to_vec(),
                level => branch_at(self.pages, child, level)?.page().to_vec(),
            };
            slots::copy_node(&mut self.pages.page_mut(self.state.root)?, &copy);
            self.pages.free(child)?;
            self.uncount_page(self.state.root_level())?;
            self.state.depth -= 1;
        }
        Ok(())
    }

    fn uncount_page(&mut self, level: u8) -> Result<()> {
        let counted = self.state.uncount_page(level);
        self.counted(counted)
    }

    /// Removes all entries; the root stays, as an empty leaf. Leaves are read only if the tree has
    /// values in runs.
    ///
    /// # Errors
    /// Those of reading and freeing pages.
    pub fn clear(&mut self) -> Result<()> {
        self.hint.forget();
        free_below(self.pages, self.state, self.state.root, self.state.root_level())?;
        slots::reset(&mut self.pages.page_mut(self.state.root)?, 0);
        *self.state = TreeState::empty(self.state.id, self.state.root);
        Ok(())
    }
}

/// Whether so little is in a leaf that it should be joined.
pub(super) fn is_sparse(leaf: &[u8]) -> bool {
    Leaf::new(leaf).used_len() < leaf.len() / JOIN_PART
}

fn is_too_empty<P: PageWrite>(pages: &P, id: PageId, level: u8) -> Result<bool> {
    let used_len = match level {
        0 => leaf_at(pages, id)?.used_len(),
        _ => branch_at(pages, id, level)?.used_len(),
    };
    Ok(used_len < pages.page_size() / JOIN_PART)
}

/// Moves the entries of two siblings to the left one, or spreads them. Returns the right one and
/// its index when it is empty now.
fn join<P: PageWrite>(
    pages: &mut P,
    (id, level): (PageId, u8),
    (parent, at): (PageId, usize),
) -> Result<Option<(PageId, usize)>> {
    let branch = branch_at(pages, parent, level + 1)?;
    let right_at = if at + 1 < branch.len() { at + 1 } else { at };
    let Some(left_at) = right_at.checked_sub(1) else { return Ok(None) };
    let (left, right) = (branch.child(left_at), branch.child(right_at));
    debug_assert!(id == left || id == right);
    let separator = Key::new(branch.prefix(), branch.suffix(right_at)).to_vec();
    let place = (parent, right_at, level + 1);
    let joined = if level == 0 {
        let (left_copy, right_copy) =
            (leaf_at(pages, left)?.page().to_vec(), leaf_at(pages, right)?.page().to_vec());
        let mut pack = Pack::<LEAF>::new(pages.page_size());
        extend_with(&mut pack, &Leaf::new(&left_copy), None);
        let right_leaf = Leaf::new(&right_copy);
        let lost = usize::from(is_planted(Planted::JoinLosesEntry));
        pack.extend(&right_leaf, 0..right_leaf.len().saturating_sub(lost));
        join_pack(pages, &pack, place, (left, right))?
    } else {
        let left_copy = branch_at(pages, left, level)?.page().to_vec();
        let right_copy = branch_at(pages, right, level)?.page().to_vec();
        let (left_node, right_node) = (Branch::new(&left_copy), Branch::new(&right_copy));
        let mut pack = Pack::<BRANCH>::new(pages.page_size());
        pack.extend(&left_node, 0..left_node.len());
        let (key, payload) = (Key::new(&[], &separator), right_node.child_bytes(0));
        pack.push(Item { key, payload, overflow: false });
        pack.extend(&right_node, 1..right_node.len());
        join_pack(pages, &pack, place, (left, right))?
    };
    Ok(joined.then_some((right, right_at)))
}

/// Lays the entries of two siblings out on the left one, if they fit well, else spreads them.
/// Returns whether the right one is to go.
fn join_pack<P: PageWrite, const KIND: usize>(
    pages: &mut P,
    pack: &Pack<'_, KIND>,
    place: (PageId, usize, u8),
    (left, right): (PageId, PageId),
) -> Result<bool> {
    let page_size = pages.page_size();
    if let Some(fit) = pack.fit(0, pack.len())
        && pack.size_of(&fit) <= page_size - page_size / JOIN_SLACK_PART
    {
        pack.store(pages, left, &fit)?;
        return Ok(true);
    }
    spread(pages, pack, place, (left, right))?;
    Ok(false)
}

/// Frees all pages of a tree, its root too: the tree is no more.
///
/// # Errors
/// As [`clear`].
pub fn drop_pages<P: PageWrite>(pages: &mut P, state: &TreeState) -> Result<()> {
    free_below(pages, state, state.root, state.root_level())?;
    pages.free(state.root)
}

/// Frees everything that the page leads to, but not the page.
fn free_below<P: PageWrite>(pages: &mut P, state: &TreeState, id: PageId, level: u8) -> Result<()> {
    if level == 0 {
        if state.overflow_pages == 0 {
            return Ok(());
        }
        let leaf = leaf_at(pages, id)?;
        let runs: Vec<_> = (0..leaf.len())
            .filter_map(|i| match leaf.value(i) {
                Value::Inline(_) => None,
                Value::Overflow(page, len) => Some((page, len)),
            })
            .collect();
        return runs.into_iter().try_for_each(|(page, len)| pages.free_run(page, len));
    }
    let branch: Node<'_, BRANCH> = branch_at(pages, id, level)?;
    let children: Vec<_> = (0..branch.len()).map(|i| branch.child(i)).collect();
    for child in children {
        free_below(pages, state, child, level - 1)?;
        pages.free(child)?;
    }
    Ok(())
}
