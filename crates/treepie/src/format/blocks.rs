//! Which parts of a page changed: a bitmap of its 16-byte blocks.
//!
//! A transaction notes every byte range that it modifies; the runs of noted blocks are what its
//! record holds of the page. Blocks instead of exact ranges make noting a few bit operations, and
//! merge neighbours by themselves; an insert into a leaf costs about 40 bytes more in the record.

use crate::limits::PAGE_SIZE_MAX;

/// Unit in which changes of a page are noted and stored, in bytes.
pub const BLOCK_SIZE: usize = 16;
const WORD_COUNT: usize = PAGE_SIZE_MAX / BLOCK_SIZE / 64;

/// The changed blocks of one page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedBlocks {
    words: [u64; WORD_COUNT],
}

impl ChangedBlocks {
    /// Nothing changed.
    #[must_use]
    pub fn new() -> ChangedBlocks {
        ChangedBlocks::default()
    }

    /// Notes that `len` bytes from `offset` on change. Must lie inside the page.
    #[allow(clippy::indexing_slicing, reason = "the writer changes bytes of its own page")]
    #[inline]
    pub fn note(&mut self, offset: usize, len: usize) {
        if len == 0 {
            return;
        }
        let (first, last) = (offset / BLOCK_SIZE, (offset + len - 1) / BLOCK_SIZE);
        let (first_word, last_word) = (first / 64, last / 64);
        let first_mask = u64::MAX << (first % 64);
        let last_mask = u64::MAX >> (63 - last % 64);
        if first_word == last_word {
            self.words[first_word] |= first_mask & last_mask;
            return;
        }
        self.words[first_word] |= first_mask;
        self.words[first_word + 1..last_word].fill(u64::MAX);
        self.words[last_word] |= last_mask;
    }

    /// Runs of blocks that touch `len` bytes from `offset` on and were not noted yet: first block and
    /// count of each. A run ends where a word of the bitmap does.
    #[inline]
    pub fn missing(&self, offset: usize, len: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let (first, end) = (offset / BLOCK_SIZE, (offset + len).div_ceil(BLOCK_SIZE));
        let mut at = if len == 0 { end } else { first };
        std::iter::from_fn(move || {
            while at < end {
                let word_end = (at / 64 + 1) * 64;
                let bits = !self.words.get(at / 64)? & (u64::MAX << (at % 64));
                let start = at / 64 * 64 + bits.trailing_zeros() as usize;
                if bits == 0 || start >= end {
                    at = word_end.min(end);
                    continue;
                }
                let count = (!(bits >> (start % 64))).trailing_zeros() as usize;
                at = (start + count).min(word_end).min(end);
                return Some((start, at - start));
            }
            None
        })
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Runs of changed blocks in ascending order: byte offset and length in bytes of each.
    pub fn runs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let start = self.next_block(at, 0)?;
            let end = self.next_block(start, u64::MAX).unwrap_or(WORD_COUNT * 64);
            at = end;
            Some((start * BLOCK_SIZE, (end - start) * BLOCK_SIZE))
        })
    }

    /// First block from `at` on that is set (`flip` 0) or clear (`flip` all ones).
    fn next_block(&self, at: usize, flip: u64) -> Option<usize> {
        let mut word = at / 64;
        let mut bits = (self.words.get(word)? ^ flip) & (u64::MAX << (at % 64));
        while bits == 0 {
            word += 1;
            bits = self.words.get(word)? ^ flip;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noted_ranges_come_back_as_merged_runs_of_blocks() {
        let mut blocks = ChangedBlocks::new();
        assert!(blocks.is_empty());
        blocks.note(0, 1);
        blocks.note(15, 2);
        blocks.note(1000, 0);
        blocks.note(1024, 2048);
        blocks.note(8191, 1);
        let runs: Vec<_> = blocks.runs().collect();
        assert_eq!(runs, [(0, 32), (1024, 2048), (8176, 16)]);
    }

    #[test]
    fn missing_blocks_are_those_that_note_would_add() {
        for (noted, asked) in [
            ((0, 1), (0, 40)),
            ((100, 3000), (0, 8192)),
            ((1008, 16), (1000, 50)),
            ((0, 8192), (5, 700)),
            ((16, 16), (40, 0)),
            ((1024, 1024), (1000, 2000)),
        ] {
            let mut blocks = ChangedBlocks::new();
            blocks.note(noted.0, noted.1);
            let before = blocks.clone();
            let missing: Vec<usize> =
                blocks.missing(asked.0, asked.1).flat_map(|(at, count)| at..at + count).collect();
            blocks.note(asked.0, asked.1);
            let has = |blocks: &ChangedBlocks, block: usize| {
                blocks.runs().any(|(at, len)| (at..at + len).contains(&(block * BLOCK_SIZE)))
            };
            let added: Vec<usize> =
                (0..512).filter(|&block| has(&blocks, block) && !has(&before, block)).collect();
            assert_eq!(missing, added, "{noted:?} {asked:?}");
        }
    }

    #[test]
    fn a_whole_page_is_one_run() {
        let mut blocks = ChangedBlocks::new();
        blocks.note(0, 8192);
        assert_eq!(blocks.runs().collect::<Vec<_>>(), [(0, 8192)]);
    }
}
