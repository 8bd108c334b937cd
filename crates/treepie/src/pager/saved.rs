//! What a page held before it was changed in place: the blocks that changed, as they were.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::{
    format::blocks::{BLOCK_SIZE, ChangedBlocks},
    sync::LeafMutexGuard,
};

/// Bytes that there is room for at first.
const FIRST_LEN: usize = 512;
const RUN_SIZE: usize = size_of::<(u16, u16)>();
/// What saving the first block takes, with the version's place in its chain.
const BASE_LEN: usize = FIRST_LEN + 256;

/// Blocks of one page, each as it was before its first change.
#[derive(Debug, Default)]
pub struct Saved {
    /// First block and count of each run.
    runs: Vec<(u16, u16)>,
    /// The bytes of all runs, one after the other.
    bytes: Vec<u8>,
}

impl Saved {
    /// Saves what is about to change in `len` bytes from `offset` on: the blocks that are not in
    /// `changed` yet. All blocks that are have been saved before.
    #[inline]
    pub fn keep(&mut self, page: &[u8], changed: &ChangedBlocks, offset: usize, len: usize) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(FIRST_LEN);
            self.runs.reserve(FIRST_LEN / BLOCK_SIZE);
        }
        for (first, count) in changed.missing(offset, len) {
            let start = first * BLOCK_SIZE;
            self.push(first, count, &page[start..start + count * BLOCK_SIZE]);
        }
    }

    #[inline]
    fn push(&mut self, first: usize, count: usize, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.runs.push((first as u16, count as u16));
    }

    /// Takes over what `newer`, the version in front, has saved and this one has not: both together
    /// are what this one differs by from what is in front of `newer`.
    pub fn absorb(&mut self, newer: &Saved) {
        let mut own = ChangedBlocks::new();
        for &(first, count) in &self.runs {
            own.note(usize::from(first) * BLOCK_SIZE, usize::from(count) * BLOCK_SIZE);
        }
        let mut at = 0;
        for &(first, count) in &newer.runs {
            let (start, len) = (usize::from(first) * BLOCK_SIZE, usize::from(count) * BLOCK_SIZE);
            for (block, count) in own.missing(start, len) {
                let from = at + block * BLOCK_SIZE - start;
                self.push(block, count, &newer.bytes[from..from + count * BLOCK_SIZE]);
            }
            at += len;
        }
    }

    /// Writes the saved blocks over those of `page`, a page that has changed or a copy of one.
    pub fn apply(&self, page: &mut [u8]) {
        let mut at = 0;
        for &(first, count) in &self.runs {
            let (start, len) = (usize::from(first) * BLOCK_SIZE, usize::from(count) * BLOCK_SIZE);
            page[start..start + len].copy_from_slice(&self.bytes[at..at + len]);
            at += len;
        }
    }

    /// Bytes of memory that it takes, as it is accounted for: they follow from what is saved alone.
    pub fn memory_len(&self) -> usize {
        BASE_LEN + self.bytes.len().saturating_sub(FIRST_LEN) + self.runs.len() * RUN_SIZE
    }

    /// Forgets what it holds, and keeps its memory: so many bytes.
    pub fn clear(&mut self) -> usize {
        self.runs.clear();
        self.bytes.clear();
        self.capacity()
    }

    /// Bytes of memory that it has room in.
    pub fn capacity(&self) -> usize {
        size_of::<Saved>() + self.bytes.capacity() + self.runs.capacity() * RUN_SIZE
    }
}

/// The right to change a page in place: what changes is saved first, and nobody who makes an older
/// version of it anew looks at it meanwhile.
#[derive(Debug)]
pub struct Saving<'a> {
    /// Where it is saved.
    pub(super) saved: &'a mut Saved,
    /// Memory that is in use, which what is saved counts in.
    pub(super) used: &'a AtomicUsize,
    /// The turn of whoever changes pages in place.
    pub(super) _turn: LeafMutexGuard<'a, ()>,
}

impl Saving<'_> {
    /// As [`Saved::keep`], and counts what it takes.
    #[inline]
    pub fn keep(&mut self, page: &[u8], changed: &ChangedBlocks, offset: usize, len: usize) {
        let before = self.saved.memory_len();
        self.saved.keep(page, changed, offset, len);
        let grown = self.saved.memory_len() - before;
        if grown > 0 {
            self.used.fetch_add(grown, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_brings_the_page_back() {
        let before: Vec<u8> = (0..8192_u32).map(|index| (index % 251) as u8).collect();
        let (mut page, mut changed, mut saved) =
            (before.clone(), ChangedBlocks::new(), Saved::default());
        for (offset, len) in [(40, 3), (32, 900), (8000, 192), (16, 16), (500, 2000), (40, 3)] {
            saved.keep(&page, &changed, offset, len);
            changed.note(offset, len);
            page[offset..offset + len].fill(0xee);
        }
        assert_ne!(page, before);
        saved.apply(&mut page);
        assert_eq!(page, before);
    }

    #[test]
    fn what_two_versions_saved_is_one_when_the_newer_one_goes() {
        let first: Vec<u8> = (0..4096_u32).map(|index| (index % 251) as u8).collect();
        let mut page = first.clone();
        let mut change = |byte: u8, ranges: &[(usize, usize)]| {
            let (mut changed, mut saved) = (ChangedBlocks::new(), Saved::default());
            for &(offset, len) in ranges {
                saved.keep(&page, &changed, offset, len);
                changed.note(offset, len);
                page[offset..offset + len].fill(byte);
            }
            saved
        };
        let mut older = change(1, &[(100, 300), (2000, 16)]);
        let newer = change(2, &[(0, 200), (350, 900), (2000, 1), (3000, 40)]);
        older.absorb(&newer);
        older.apply(&mut page);
        assert_eq!(page, first);
    }
}
