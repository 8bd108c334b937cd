//! Cursor: one place among the entries, moved by its owner.

use crate::{error::Result, pager::access::PageRead};

use super::{
    key::Key,
    search::value_bytes,
    state::TreeState,
    walk::{AHEAD, Toward, Walk},
};

/// A place among the entries of a tree: at an entry, or nowhere.
#[derive(Debug)]
pub struct Cursor<'p, P> {
    walk: Walk<'p, P>,
    at: usize,
    placed: bool,
}

impl<P> Clone for Cursor<'_, P> {
    fn clone(&self) -> Self {
        Cursor { walk: self.walk.clone(), ..*self }
    }
}

impl<'p, P: PageRead> Cursor<'p, P> {
    /// A cursor that is nowhere yet.
    #[must_use]
    pub(crate) fn new(pages: &'p P, state: &TreeState) -> Cursor<'p, P> {
        Cursor { walk: Walk::new(pages, state), at: 0, placed: false }
    }

    /// Goes to the first entry.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) when a page on the way is damaged, as all moves.
    pub fn first(&mut self) -> Result<bool> {
        self.placed = false;
        self.walk.seek(Toward::First)?;
        self.at = 0;
        self.settle_forward()
    }

    /// Goes to the last entry.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    pub fn last(&mut self) -> Result<bool> {
        self.placed = false;
        self.walk.seek(Toward::Last)?;
        self.settle_backward(self.walk.leaf().len())
    }

    /// Goes to the first entry that is not below `key`.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    pub fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.placed = false;
        self.walk.seek(Toward::Key(key))?;
        let leaf = *self.walk.leaf();
        let ask = |at| Walk::<P>::ask_for_cells(&leaf, at..at + AHEAD);
        self.at = leaf.search_telling(key, ask).unwrap_or_else(|at| at);
        self.walk.ask_for_next_leaf(self.at);
        self.settle_forward()
    }

    /// Goes to the last entry that is not above `key`.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    pub fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        self.placed = false;
        self.walk.seek(Toward::Key(key))?;
        let end = self.walk.leaf().search(key).map_or_else(|at| at, |at| at + 1);
        self.settle_backward(end)
    }

    /// Goes to the next entry.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    #[allow(clippy::should_implement_trait, reason = "a cursor goes both ways, as BTreeMap's do")]
    #[inline]
    pub fn next(&mut self) -> Result<bool> {
        if !self.placed {
            return Ok(false);
        }
        self.at += 1;
        Walk::<P>::ask_for_cell(self.walk.leaf(), self.at + AHEAD);
        if self.at < self.walk.leaf().len() {
            return Ok(true);
        }
        self.placed = false;
        self.settle_forward()
    }

    /// Goes to the entry before.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    #[inline]
    pub fn prev(&mut self) -> Result<bool> {
        if !self.placed {
            return Ok(false);
        }
        if self.at > 0 {
            self.at -= 1;
            return Ok(true);
        }
        self.placed = false;
        self.settle_backward(0)
    }

    /// The key here; `None` nowhere.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Option<Key<'p>> {
        let leaf = self.walk.leaf();
        self.placed.then(|| Key::new(leaf.prefix(), leaf.suffix(self.at)))
    }

    /// The value here; `None` nowhere.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) when the value is in a run that is damaged.
    #[inline]
    pub fn value(&self) -> Result<Option<&'p [u8]>> {
        if !self.placed {
            return Ok(None);
        }
        value_bytes(self.walk.pages(), self.walk.leaf().value(self.at)).map(Some)
    }

    /// The entry here; `None` nowhere.
    ///
    /// # Errors
    /// As [`value`](Cursor::value).
    #[inline]
    pub fn entry(&self) -> Result<Option<(Key<'p>, &'p [u8])>> {
        Ok(self.key().zip(self.value()?))
    }

    /// Is at entry `at`, or at the first one of the leaves behind.
    fn settle_forward(&mut self) -> Result<bool> {
        self.placed = self.at < self.walk.leaf().len();
        if !self.placed && self.walk.next_leaf()? {
            self.at = 0;
            self.placed = true;
        }
        Ok(self.placed)
    }

    /// Is at the entry before `end`, or at the last one of the leaves before.
    fn settle_backward(&mut self, end: usize) -> Result<bool> {
        let mut end = end;
        if end == 0 && self.walk.prev_leaf()? {
            end = self.walk.leaf().len();
        }
        self.placed = end > 0;
        self.at = end.saturating_sub(1);
        Ok(self.placed)
    }
}
