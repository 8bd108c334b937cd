//! Range: the entries between two bounds, from both ends.
//!
//! Each end walks the leaves on its own, and knows which entries of its leaf are left, so bounds
//! are compared once a leaf. When both ends are in one leaf they share what is left of it.

use std::{iter::FusedIterator, ops::Bound};

use crate::{error::Result, format::node::Leaf, pager::access::PageRead};

use super::{
    bound::{self, BoundKey},
    key::Key,
    search::value_bytes,
    state::TreeState,
    walk::{AHEAD, Toward, Walk},
};

/// Iterator over the entries between two bounds, in the order of their keys, from both ends. It ends
/// after its first error.
#[derive(Debug)]
pub struct Range<'p, P> {
    front: End<'p, P>,
    back: End<'p, P>,
    start: Bound<BoundKey>,
    end: Bound<BoundKey>,
    /// Whether both ends are in the same leaf.
    shared: bool,
    finished: bool,
}

/// One end: the entries `low..high` of its leaf are left.
#[derive(Debug)]
struct End<'p, P> {
    walk: Walk<'p, P>,
    low: usize,
    high: usize,
    placed: bool,
    /// Whether the far bound is in this leaf.
    is_last: bool,
}

impl<'p, P: PageRead> End<'p, P> {
    fn new(pages: &'p P, state: &TreeState) -> End<'p, P> {
        End { walk: Walk::new(pages, state), low: 0, high: 0, placed: false, is_last: false }
    }
}

/// First index that is inside a lower bound, and whether the bound is in this leaf. Tells `near`
/// about where it will be.
#[inline(always)]
fn low_index(leaf: &Leaf<'_>, start: &Bound<BoundKey>, near: impl FnOnce(usize)) -> (usize, bool) {
    let (key, skip) = match start {
        Bound::Unbounded => return (0, false),
        Bound::Included(key) => (key, 0),
        Bound::Excluded(key) => (key, 1),
    };
    match leaf.search_telling(key.as_slice(), near) {
        Ok(at) => (at + skip, true),
        Err(at) => (at, at > 0),
    }
}

/// Index behind the last one that is inside an upper bound, and whether the bound is in this leaf.
fn high_index(leaf: &Leaf<'_>, end: &Bound<BoundKey>) -> (usize, bool) {
    let (key, skip) = match end {
        Bound::Unbounded => return (leaf.len(), false),
        Bound::Included(key) => (key, 1),
        Bound::Excluded(key) => (key, 0),
    };
    match leaf.search(key.as_slice()) {
        Ok(at) => (at + skip, true),
        Err(at) => (at, at < leaf.len()),
    }
}

impl<'p, P: PageRead> Range<'p, P> {
    /// The entries between two bounds; none when they are the wrong way round. Reads no page yet.
    #[must_use]
    pub(crate) fn new(
        pages: &'p P,
        state: &TreeState,
        start: Bound<&[u8]>,
        end: Bound<&[u8]>,
    ) -> Range<'p, P> {
        Range {
            front: End::new(pages, state),
            back: End::new(pages, state),
            start: bound::copied(start),
            end: bound::copied(end),
            shared: false,
            finished: state.entries == 0,
        }
    }

    /// The entries whose keys begin with `prefix`.
    #[must_use]
    pub(crate) fn prefix(pages: &'p P, state: &TreeState, prefix: &[u8]) -> Range<'p, P> {
        let mut range = Range::new(pages, state, Bound::Included(prefix), Bound::Unbounded);
        range.end = bound::prefix_end(prefix);
        range
    }

    #[inline(always)]
    fn entry(&mut self, leaf: Leaf<'p>, at: usize) -> Result<(Key<'p>, &'p [u8])> {
        let (suffix, value) = leaf.entry(at);
        let value = value_bytes(self.front.walk.pages(), value);
        self.finished |= value.is_err();
        value.map(|value| (Key::new(leaf.prefix(), suffix), value))
    }

    /// Takes the front to its next leaf with entries left. Returns whether there is one.
    #[inline(never)]
    fn advance_front(&mut self) -> Result<bool> {
        let front = &mut self.front;
        while front.low >= front.high {
            if !front.placed {
                let toward = match &self.start {
                    Bound::Unbounded => Toward::First,
                    Bound::Included(key) | Bound::Excluded(key) => Toward::Key(key.as_slice()),
                };
                front.walk.seek(toward)?;
                front.placed = true;
                let leaf = *front.walk.leaf();
                let ask = |at| Walk::<P>::ask_for_cells(&leaf, at..at + AHEAD);
                front.low = low_index(&leaf, &self.start, ask).0;
                front.walk.ask_for_next_leaf(front.low);
            } else if front.is_last || self.shared || !front.walk.next_leaf()? {
                return Ok(false);
            } else {
                front.low = 0;
                Walk::<P>::ask_for_cells(front.walk.leaf(), 0..AHEAD);
            }
            (front.high, front.is_last) = high_index(front.walk.leaf(), &self.end);
            if self.back.placed && front.walk.leaf_id() == self.back.walk.leaf_id() {
                self.shared = true;
                front.high = front.high.min(self.back.high);
                self.back.low = self.back.low.max(front.low);
            }
        }
        Ok(true)
    }

    /// Takes the back to the leaf before with entries left. Returns whether there is one.
    #[inline(never)]
    fn advance_back(&mut self) -> Result<bool> {
        let back = &mut self.back;
        while back.low >= back.high {
            if !back.placed {
                let toward = match &self.end {
                    Bound::Unbounded => Toward::Last,
                    Bound::Included(key) | Bound::Excluded(key) => Toward::Key(key.as_slice()),
                };
                back.walk.seek(toward)?;
                back.placed = true;
                back.high = high_index(back.walk.leaf(), &self.end).0;
            } else if back.is_last || self.shared || !back.walk.prev_leaf()? {
                return Ok(false);
            } else {
                back.high = back.walk.leaf().len();
            }
            (back.low, back.is_last) = low_index(back.walk.leaf(), &self.start, |_| ());
            if self.front.placed && back.walk.leaf_id() == self.front.walk.leaf_id() {
                self.shared = true;
                back.low = back.low.max(self.front.low);
                self.front.high = self.front.high.min(back.high);
            }
        }
        Ok(true)
    }

    /// Notes the outcome of a step to another leaf: `None` ends the iteration.
    fn ended(&mut self, advanced: Result<bool>) -> Option<Result<()>> {
        self.finished = !matches!(advanced, Ok(true));
        match advanced {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }
}

impl<'p, P: PageRead> Iterator for Range<'p, P> {
    type Item = Result<(Key<'p>, &'p [u8])>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        if self.front.low >= self.front.high {
            let advanced = self.advance_front();
            if let Err(error) = self.ended(advanced)? {
                return Some(Err(error));
            }
        }
        let at = self.front.low;
        self.front.low += 1;
        if self.shared {
            self.back.low = self.front.low;
        }
        Walk::<P>::ask_for_cell(self.front.walk.leaf(), at + AHEAD);
        Some(self.entry(*self.front.walk.leaf(), at))
    }
}

impl<P: PageRead> DoubleEndedIterator for Range<'_, P> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        if self.back.low >= self.back.high {
            let advanced = self.advance_back();
            if let Err(error) = self.ended(advanced)? {
                return Some(Err(error));
            }
        }
        self.back.high -= 1;
        if self.shared {
            self.front.high = self.back.high;
        }
        Some(self.entry(*self.back.walk.leaf(), self.back.high))
    }
}

impl<P: PageRead> FusedIterator for Range<'_, P> {}
