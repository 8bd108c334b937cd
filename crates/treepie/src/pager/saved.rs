//! What a page held before it was changed in place: the blocks that changed, as they were.

use crate::{
    format::blocks::{BLOCK_SIZE, ChangedBlocks},
    sync::LeafMutexGuard,
};

/// Bytes that there is room for at first.
const FIRST_LEN: usize = 512;

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
            self.bytes.extend_from_slice(&page[start..start + count * BLOCK_SIZE]);
            self.runs.push((first as u16, count as u16));
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

    /// Bytes of memory that it takes, as it is accounted for.
    pub fn memory_len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets what it holds, and keeps its memory: so many bytes.
    pub fn clear(&mut self) -> usize {
        self.runs.clear();
        self.bytes.clear();
        self.capacity()
    }

    /// Bytes of memory that it has room in.
    pub fn capacity(&self) -> usize {
        size_of::<Saved>() + self.bytes.capacity() + self.runs.capacity() * size_of::<(u16, u16)>()
    }
}

/// The right to change a page in place: what changes is saved first, and nobody who makes an older
/// version of it anew looks at it meanwhile.
#[derive(Debug)]
pub struct Saving<'a> {
    /// Where it is saved.
    pub saved: &'a mut Saved,
    /// The turn of whoever changes pages in place.
    pub(super) _turn: LeafMutexGuard<'a, ()>,
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
}
