//! How a full page makes room: it is built anew, shares with a sibling, or splits.
//!
//! A full leaf is built anew when dead bytes or a longer prefix give room; else it shares its
//! entries with a sibling that has room, which keeps leaves about 80 % full under random
//! insertion; else it splits. An entry behind all others opens a new last leaf and leaves the old
//! one as it is, so ascending insertion fills leaves.

use std::ops::Range;

use crate::{
    error::{Error, Result},
    format::node::{BRANCH, LEAF, Leaf, Node},
    ids::PageId,
    limits::TREE_DEPTH_MAX,
    pager::access::{PageMut, PageWrite},
    sync::{Planted, is_planted},
};

use super::{
    insert::Edit,
    key::Key,
    pack::{Fit, Item, PREFIX_COUNT_MIN, Pack},
    search::{Path, branch_at, leaf_at},
    slots::{self, Cell},
};

/// A full leaf shares with a sibling that has one part in so many of a page free.
const SHARE_PART: usize = 6;

/// An entry on its way into a leaf, with the place found for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewEntry<'a> {
    pub key: &'a [u8],
    /// The value, or where it is.
    pub payload: &'a [u8],
    pub overflow: bool,
    /// Index in the leaf.
    pub at: usize,
    /// Whether it takes the place of the entry at that index.
    pub replaces: bool,
    /// Whether it goes behind all entries of the tree.
    pub last: bool,
}

/// A page beside a split one.
struct Split {
    separator: Vec<u8>,
    right: PageId,
    /// Whether the root was split: nothing is left to be done above.
    at_root: bool,
}

impl<P: PageWrite> Edit<'_, P> {
    /// Inserts an entry for which its leaf, as it is laid out, has no room.
    pub(super) fn make_room(&mut self, mut path: Path, new: &NewEntry<'_>) -> Result<()> {
        let page_size = self.pages.page_size();
        let copy = self.pages.page(path.leaf)?.to_vec();
        let mut pack = Pack::new(page_size);
        extend_with(&mut pack, &Leaf::new(&copy), Some(new));
        if let Some(fit) = pack.fit(0, pack.len()) {
            pack.store(self.pages, path.leaf, &fit)?;
            self.hint.last_leaf = if new.last { Some(path.leaf) } else { self.hint.last_leaf };
            return Ok(());
        }
        self.hint.forget();
        let append = new.last && !new.replaces;
        if !append && share(self.pages, &path, &copy, new)? {
            return Ok(());
        }
        let cut = if append { pack.cut_at(pack.len() - 1) } else { pack.cut() };
        let cut =
            cut.ok_or_else(|| self.pages.damaged(path.leaf, "its entries cannot be split"))?;
        let split = self.split((path.leaf, 0), &pack, cut, append)?;
        if new.last {
            self.hint.last_leaf = Some(split.right);
        }
        self.insert_child(&mut path, split)
    }

    /// Cuts a page in two, and its root page into two new ones below it. `left_stays` says that the
    /// left part is what the page holds already.
    fn split<const KIND: usize>(
        &mut self,
        (id, level): (PageId, u8),
        pack: &Pack<'_, KIND>,
        (left, right): (Fit, Fit),
        left_stays: bool,
    ) -> Result<Split> {
        let kind = slots::kind_of(level);
        let mut separator = pack.separator(&right);
        if is_planted(Planted::WrongSeparator) {
            separator.push(u8::MAX);
        }
        let at_root = id == self.state.root;
        if at_root && usize::from(self.state.depth) >= TREE_DEPTH_MAX {
            let max = TREE_DEPTH_MAX as u64;
            return Err(Error::Bound { option: "TREE_DEPTH_MAX", max, hint: "use shorter keys" });
        }
        let left_id = if at_root { self.pages.allocate(kind, level, self.state.id)? } else { id };
        let right_id = self.pages.allocate(kind, level, self.state.id)?;
        pack.store(self.pages, right_id, &right)?;
        if at_root || !left_stays {
            pack.store(self.pages, left_id, &left)?;
        }
        self.count_page(level)?;
        if at_root {
            self.grow((left_id, right_id), &separator)?;
        }
        Ok(Split { separator, right: right_id, at_root })
    }

    /// Makes the root a branch over the two pages that took its entries.
    fn grow(&mut self, (left, right): (PageId, PageId), separator: &[u8]) -> Result<()> {
        let mut root = self.pages.page_mut(self.state.root)?;
        slots::reset(&mut root, self.state.depth);
        for (at, suffix, child) in [(0, &[][..], left), (1, separator, right)] {
            let cell = Cell { suffix, payload: &child.0.to_le_bytes(), overflow: false };
            slots::insert::<BRANCH>(&mut root, at, &cell);
        }
        drop(root);
        self.count_page(self.state.depth)?;
        self.state.depth += 1;
        Ok(())
    }

    /// Counts a new page of a level.
    pub(super) fn count_page(&mut self, level: u8) -> Result<()> {
        let counted = self.state.count_page(level);
        self.counted(counted)
    }

    /// Inserts a new page behind the child that the path took, splitting upwards as far as needed.
    fn insert_child(&mut self, path: &mut Path, mut new: Split) -> Result<()> {
        while !new.at_root {
            let Some((id, at)) = path.pop() else { break };
            let level = self.state.root_level() - u8::try_from(path.len()).unwrap_or(u8::MAX);
            let branch = branch_at(self.pages, id, level)?;
            if at >= branch.len() {
                return Err(self.pages.damaged(id, "the page that was split has another parent"));
            }
            let child = new.right.0.to_le_bytes();
            if let Some(suffix) = separator_suffix(&branch, &new.separator) {
                let cell = Cell { suffix, payload: &child, overflow: false };
                if slots::has_room(&branch, &cell) && !is_due(branch.len() + 1) {
                    slots::insert::<BRANCH>(&mut self.pages.page_mut(id)?, at + 1, &cell);
                    return Ok(());
                }
            }
            let copy = branch.page().to_vec();
            let branch = Node::<BRANCH>::new(&copy);
            let mut pack = Pack::new(self.pages.page_size());
            pack.extend(&branch, 0..at + 1);
            let key = Key::new(&[], &new.separator);
            pack.push(Item { key, payload: &child, overflow: false });
            pack.extend(&branch, at + 1..branch.len());
            if let Some(fit) = pack.fit(0, pack.len()) {
                return pack.store(self.pages, id, &fit);
            }
            let last = path.rightmost && at + 1 == branch.len();
            let cut = if last { pack.cut_at(pack.len() - 2) } else { None };
            let cut = cut.or_else(|| pack.cut());
            let cut =
                cut.ok_or_else(|| self.pages.damaged(id, "its separators cannot be split"))?;
            let split = self.split((id, level), &pack, cut, false)?;
            new = split;
        }
        Ok(())
    }
}

/// Appends the entries of a leaf, and a new one at its place.
pub(super) fn extend_with<'a>(
    pack: &mut Pack<'a, LEAF>,
    leaf: &Leaf<'a>,
    new: Option<&NewEntry<'a>>,
) {
    let Some(new) = new else { return pack.extend(leaf, 0..leaf.len()) };
    pack.extend(leaf, 0..new.at);
    pack.push(Item { key: Key::new(&[], new.key), payload: new.payload, overflow: new.overflow });
    pack.extend(leaf, new.at + usize::from(new.replaces)..leaf.len());
}

/// Whether a branch that has come to so many children is built anew, to get the prefix that its
/// separators share by now: without it heads are equal, and searches touch cells.
fn is_due(count: usize) -> bool {
    count.is_power_of_two() && count >= PREFIX_COUNT_MIN
}

/// What a branch stores of a separator, if it has the branch's prefix. Only the first child's
/// suffix may be empty.
fn separator_suffix<'k>(branch: &Node<'_, BRANCH>, separator: &'k [u8]) -> Option<&'k [u8]> {
    separator.strip_prefix(branch.prefix()).filter(|suffix| !suffix.is_empty())
}

/// Spreads the entries of a full leaf, with the new one, over it and the sibling that has more
/// room. Returns whether that was possible.
fn share<P: PageWrite>(
    pages: &mut P,
    path: &Path,
    copy: &[u8],
    new: &NewEntry<'_>,
) -> Result<bool> {
    let Some((parent, at)) = path.parent() else { return Ok(false) };
    let branch = branch_at(pages, parent, 1)?;
    let mut best = (pages.page_size() / SHARE_PART, None);
    for sibling in [Some(at + 1), at.checked_sub(1)].into_iter().flatten() {
        if sibling < branch.len() {
            let leaf = leaf_at(pages, branch.child(sibling))?;
            let room = leaf.free_len() + leaf.dead_len();
            if room >= best.0 {
                best = (room, Some((sibling, branch.child(sibling))));
            }
        }
    }
    let (_, Some((sibling, id))) = best else { return Ok(false) };
    let sibling_copy = pages.page(id)?.to_vec();
    let sibling_count = Leaf::new(&sibling_copy).len();
    let mut pack = Pack::new(pages.page_size());
    let to_right = sibling > at;
    if to_right {
        extend_with(&mut pack, &Leaf::new(copy), Some(new));
        extend_with(&mut pack, &Leaf::new(&sibling_copy), None);
    } else {
        extend_with(&mut pack, &Leaf::new(&sibling_copy), None);
        extend_with(&mut pack, &Leaf::new(copy), Some(new));
    }
    let Some((left, right)) = pack.cut() else { return Ok(false) };
    let place = (parent, sibling.max(at), 1);
    if !set_separator(pages, place, &pack.separator(&right))? {
        return Ok(false);
    }
    let own_count = pack.len() - sibling_count;
    let at = right.start();
    let (own, other, moved, moved_at) = if to_right {
        (left, right, at..own_count, 0)
    } else {
        (right, left, sibling_count..at, sibling_count)
    };
    let kept = if to_right { 0..at } else { at.saturating_sub(sibling_count)..own_count };
    let only_gives = !moved.is_empty();
    if !only_gives || !pack.add(pages, id, moved, moved_at)? {
        pack.store(pages, id, &other)?;
    }
    if !only_gives || !keep(&mut pages.page_mut(path.leaf)?, kept, new) {
        pack.store(pages, path.leaf, &own)?;
    }
    Ok(true)
}

/// Removes the entries outside `kept` from a leaf and inserts the new one, if it is inside: `kept`
/// counts it. Returns false when there is no room without building the leaf anew.
fn keep(page: &mut PageMut<'_>, kept: Range<usize>, new: &NewEntry<'_>) -> bool {
    let leaf = Leaf::new(page.bytes());
    let Some(suffix) = new.key.strip_prefix(leaf.prefix()) else { return false };
    if new.replaces {
        return false;
    }
    let without_new = |index: usize| index - usize::from(index > new.at);
    let (start, end, count) = (without_new(kept.start), without_new(kept.end), leaf.len());
    slots::remove_range::<LEAF>(page, end..count);
    slots::remove_range::<LEAF>(page, 0..start);
    if !kept.contains(&new.at) {
        return true;
    }
    let cell = Cell { suffix, payload: new.payload, overflow: new.overflow };
    let has_room = slots::has_room(&Leaf::new(page.bytes()), &cell);
    if has_room {
        slots::insert::<LEAF>(page, new.at - kept.start, &cell);
    }
    has_room
}

/// Cuts the entries of two siblings anew. `right_child` is the parent, the right one's index in
/// it, and the parent's level. Returns false, with nothing changed, when the parent has no room
/// for the new separator.
pub(super) fn spread<P: PageWrite, const KIND: usize>(
    pages: &mut P,
    pack: &Pack<'_, KIND>,
    right_child: (PageId, usize, u8),
    (left, right): (PageId, PageId),
) -> Result<bool> {
    let Some(cut) = pack.cut() else { return Ok(false) };
    if !set_separator(pages, right_child, &pack.separator(&cut.1))? {
        return Ok(false);
    }
    pack.store(pages, left, &cut.0)?;
    pack.store(pages, right, &cut.1)?;
    Ok(true)
}

/// Changes a separator, if the branch has room for it. Returns whether it had.
fn set_separator<P: PageWrite>(
    pages: &mut P,
    (id, at, level): (PageId, usize, u8),
    separator: &[u8],
) -> Result<bool> {
    let branch = branch_at(pages, id, level)?;
    if let Some(suffix) = separator_suffix(&branch, separator) {
        let cell = Cell { suffix, payload: &[], overflow: false };
        if slots::can_replace(&branch, at, &cell) {
            return Ok(slots::replace::<BRANCH>(&mut pages.page_mut(id)?, at, &cell));
        }
    }
    let copy = branch.page().to_vec();
    let branch = Node::<BRANCH>::new(&copy);
    let mut pack = Pack::<BRANCH>::new(pages.page_size());
    pack.extend(&branch, 0..at);
    let (key, payload) = (Key::new(&[], separator), branch.child_bytes(at));
    pack.push(Item { key, payload, overflow: false });
    pack.extend(&branch, at + 1..branch.len());
    let Some(fit) = pack.fit(0, pack.len()) else { return Ok(false) };
    pack.store(pages, id, &fit)?;
    Ok(true)
}
