//! From the root to the leaf of a key.

use crate::{
    error::Result,
    format::{
        bytes::get_u16,
        node::{Branch, Leaf, Value},
        page::PageKind,
    },
    ids::PageId,
    limits::TREE_DEPTH_MAX,
    pager::access::PageRead,
};

use super::{cursor::Cursor, key::Key, state::TreeState};

const KIND_OFFSET: usize = 16;

/// Returns the value of `key`, in one piece.
///
/// # Errors
/// [`Corrupt`](crate::Error::Corrupt) when a page on the way is damaged.
#[inline]
pub fn get<'p, P: PageRead>(
    pages: &'p P,
    state: &TreeState,
    key: &[u8],
) -> Result<Option<&'p [u8]>> {
    let leaf = find_leaf(pages, state, key)?;
    match leaf.search(key) {
        Ok(at) => value_bytes(pages, leaf.value(at)).map(Some),
        Err(_) => Ok(None),
    }
}

/// Whether `key` has an entry. Errors as [`get`].
///
/// # Errors
/// As [`get`].
#[inline]
pub fn contains_key<P: PageRead>(pages: &P, state: &TreeState, key: &[u8]) -> Result<bool> {
    Ok(find_leaf(pages, state, key)?.search(key).is_ok())
}

/// The first entry.
///
/// # Errors
/// As [`get`].
pub fn first<'p, P: PageRead>(
    pages: &'p P,
    state: &TreeState,
) -> Result<Option<(Key<'p>, &'p [u8])>> {
    let mut cursor = Cursor::new(pages, state);
    cursor.first()?;
    cursor.entry()
}

/// The last entry.
///
/// # Errors
/// As [`get`].
pub fn last<'p, P: PageRead>(
    pages: &'p P,
    state: &TreeState,
) -> Result<Option<(Key<'p>, &'p [u8])>> {
    let mut cursor = Cursor::new(pages, state);
    cursor.last()?;
    cursor.entry()
}

/// The leaf that `key` belongs to.
#[inline]
fn find_leaf<'p, P: PageRead>(pages: &'p P, state: &TreeState, key: &[u8]) -> Result<Leaf<'p>> {
    let mut id = state.root;
    for level in (1..state.depth).rev() {
        let branch = branch_at(pages, id, level)?;
        id = branch.child(branch.child_index(key));
    }
    leaf_at(pages, id)
}

/// The bytes of a value, wherever they are.
#[inline(always)]
pub(super) fn value_bytes<'p, P: PageRead>(pages: &'p P, value: Value<'p>) -> Result<&'p [u8]> {
    match value {
        Value::Inline(bytes) => Ok(bytes),
        Value::Overflow(id, len) => pages.run(id, len),
    }
}

/// The leaf page `id`.
#[inline(always)]
pub(super) fn leaf_at<P: PageRead>(pages: &P, id: PageId) -> Result<Leaf<'_>> {
    let page = pages.leaf(id)?;
    if get_u16(page, KIND_OFFSET) != PageKind::Leaf as u16 {
        return Err(unexpected(pages, id));
    }
    Ok(Leaf::new(page))
}

/// The branch page `id`, which has this level: levels fall by one a step, so walks end.
#[inline(always)]
pub(super) fn branch_at<P: PageRead>(pages: &P, id: PageId, level: u8) -> Result<Branch<'_>> {
    let page = pages.page(id)?;
    if get_u16(page, KIND_OFFSET) != u16::from_le_bytes([PageKind::Branch as u8, level]) {
        return Err(unexpected(pages, id));
    }
    Ok(Branch::new(page))
}

#[cold]
fn unexpected<P: PageRead>(pages: &P, id: PageId) -> crate::Error {
    pages.damaged(id, "kind and level do not fit its place in the tree")
}

/// The branches from the root to a leaf, with the child taken in each, and the leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    steps: [(PageId, u16); TREE_DEPTH_MAX],
    len: usize,
    /// The leaf.
    pub leaf: PageId,
    /// Whether every step took the last child.
    pub rightmost: bool,
}

impl Path {
    /// Finds the way to the leaf of `key`.
    #[inline]
    pub fn find<P: PageRead>(pages: &P, state: &TreeState, key: &[u8]) -> Result<Path> {
        let steps = [(PageId(0), 0); TREE_DEPTH_MAX];
        let mut path = Path { steps, len: 0, leaf: state.root, rightmost: true };
        for level in (1..state.depth).rev() {
            let branch = branch_at(pages, path.leaf, level)?;
            let at = branch.child_index(key);
            let Some(step) = path.steps.get_mut(path.len) else {
                return Err(unexpected(pages, path.leaf));
            };
            *step = (path.leaf, u16::try_from(at).unwrap_or(0));
            path.len += 1;
            path.rightmost &= at + 1 >= branch.len();
            path.leaf = branch.child(at);
        }
        Ok(path)
    }

    /// Goes to the next leaf. Returns false, and is of no use any more, when there is none.
    pub fn advance<P: PageRead>(&mut self, pages: &P, state: &TreeState) -> Result<bool> {
        let levels = self.len;
        while let Some((id, at)) = self.pop() {
            let branch = branch_at(pages, id, level_of(state, self.len))?;
            if at + 1 >= branch.len() {
                continue;
            }
            self.steps[self.len] = (id, u16::try_from(at + 1).unwrap_or(u16::MAX));
            self.len += 1;
            self.leaf = branch.child(at + 1);
            while self.len < levels {
                let branch = branch_at(pages, self.leaf, level_of(state, self.len))?;
                self.steps[self.len] = (self.leaf, 0);
                self.len += 1;
                self.leaf = branch.child(0);
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// The lowest branch: its page, and the index of the child taken in it.
    pub fn parent(&self) -> Option<(PageId, usize)> {
        let mut path = *self;
        path.pop()
    }

    /// Branches above what was taken off: how far below the root the next one is, and one more.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes the lowest branch off: its page, and the index of the child taken in it.
    pub fn pop(&mut self) -> Option<(PageId, usize)> {
        self.len = self.len.checked_sub(1)?;
        let (id, at) = self.steps[self.len];
        Some((id, usize::from(at)))
    }
}

/// Level of the branch that lies `step` steps below the root.
fn level_of(state: &TreeState, step: usize) -> u8 {
    state.root_level().saturating_sub(u8::try_from(step).unwrap_or(u8::MAX))
}
