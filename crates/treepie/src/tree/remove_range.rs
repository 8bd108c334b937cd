//! Removal of all entries between two bounds, leaf by leaf.
//!
//! A leaf that goes as a whole is given up without being copied, and without a look at its entries
//! unless there are values in runs: its header tells how many bytes they have. So a transaction
//! holds copies of the branches above and of the leaves at both ends, not of what it removes.

use std::ops::Bound;

use crate::{
    error::Result,
    format::{
        node::{LEAF, Leaf, Value, array_size},
        page::PAGE_HEADER_SIZE,
    },
    pager::access::PageWrite,
};

use super::{
    insert::{Edit, OldValue},
    remove::is_sparse,
    search::{Path, leaf_at},
    slots,
};

impl<P: PageWrite> Edit<'_, P> {
    /// Removes the entries between two bounds; none when they are the wrong way round. Returns how
    /// many there were.
    ///
    /// # Errors
    /// Those of reading and changing pages.
    pub fn remove_range(&mut self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Result<u64> {
        let before = self.state.entries;
        if (lower, upper) == (Bound::Unbounded, Bound::Unbounded) {
            self.clear()?;
            return Ok(before);
        }
        let mut count = 0;
        loop {
            let (removed, more) = self.remove_from_one_leaf(lower, upper)?;
            count += removed;
            if !more {
                return Ok(count);
            }
        }
    }

    /// Removes the entries of the first leaf that has some between the bounds. Returns how many
    /// there were, and whether there may be more behind.
    fn remove_from_one_leaf(
        &mut self,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Result<(u64, bool)> {
        let start = match lower {
            Bound::Unbounded => &[][..],
            Bound::Included(key) | Bound::Excluded(key) => key,
        };
        let mut path = Path::find(self.pages, self.state, start)?;
        let mut low = first_inside(&leaf_at(self.pages, path.leaf)?, lower);
        if low == leaf_at(self.pages, path.leaf)?.len() {
            if !path.advance(self.pages, self.state)? {
                return Ok((0, false));
            }
            low = 0;
        }
        let leaf = leaf_at(self.pages, path.leaf)?;
        if leaf.is_empty() {
            return Err(self.pages.damaged(path.leaf, "the leaf is empty"));
        }
        let (len, high) = (leaf.len(), first_behind(&leaf, upper));
        if low >= high {
            return Ok((0, false));
        }
        let count = (high - low) as u64;
        self.release_entries(&path, low, high)?;
        self.state.entries = self.state.entries.saturating_sub(count);
        self.hint.forget();
        if high - low == len && path.len() > 0 {
            self.rebalance(path, true)?;
        } else {
            let mut page = self.pages.page_mut(path.leaf)?;
            slots::remove_range::<LEAF>(&mut page, low..high);
            let is_sparse = is_sparse(page.bytes());
            drop(page);
            if path.len() > 0 && is_sparse {
                self.rebalance(path, false)?;
            }
        }
        Ok((count, high == len))
    }

    /// Counts keys and values of some entries of a leaf as gone, and frees the runs of values.
    fn release_entries(&mut self, path: &Path, low: usize, high: usize) -> Result<()> {
        let leaf = leaf_at(self.pages, path.leaf)?;
        let prefix_len = leaf.prefix().len();
        let inline_only = self.state.overflow_pages == 0;
        if inline_only && high - low == leaf.len() {
            let payload_len = (whole_payload_len(&leaf) + prefix_len * leaf.len()) as u64;
            self.state.payload_len = self.state.payload_len.saturating_sub(payload_len);
            return Ok(());
        }
        let mut payload_len = 0;
        let mut runs = Vec::new();
        for at in low..high {
            let (suffix, value) = leaf.entry(at);
            payload_len += (prefix_len + suffix.len()) as u64;
            match value {
                Value::Inline(bytes) => payload_len += bytes.len() as u64,
                Value::Overflow(..) => runs.push(OldValue::of(value)),
            }
        }
        self.state.payload_len = self.state.payload_len.saturating_sub(payload_len);
        runs.into_iter().try_for_each(|run| self.release(run))
    }
}

/// Bytes of the suffixes and values of a leaf without values in runs, from its header alone.
fn whole_payload_len(leaf: &Leaf<'_>) -> usize {
    let arrays_len = leaf.heads_offset() - PAGE_HEADER_SIZE + array_size(LEAF) * leaf.len();
    leaf.used_len().saturating_sub(PAGE_HEADER_SIZE + arrays_len + LEAF * leaf.len())
}

/// Index of the first entry that is inside a lower bound.
fn first_inside(leaf: &Leaf<'_>, lower: Bound<&[u8]>) -> usize {
    match lower {
        Bound::Unbounded => 0,
        Bound::Included(key) => leaf.search(key).unwrap_or_else(|at| at),
        Bound::Excluded(key) => leaf.search(key).map_or_else(|at| at, |at| at + 1),
    }
}

/// Index behind the last entry that is inside an upper bound.
fn first_behind(leaf: &Leaf<'_>, upper: Bound<&[u8]>) -> usize {
    match upper {
        Bound::Unbounded => leaf.len(),
        Bound::Included(key) => leaf.search(key).map_or_else(|at| at, |at| at + 1),
        Bound::Excluded(key) => leaf.search(key).unwrap_or_else(|at| at),
    }
}
