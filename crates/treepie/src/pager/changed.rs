//! Which pages were written to the data file since copies of it were begun, in memory.
//!
//! Each copy begins a *generation*; [`Pager::write`](super::store::Pager::write) marks what it writes
//! in the newest. When a generation begins, the file holds nothing that is newer than its copy. So a
//! page whose LSN is above that of a copy was written in the copy's generation or in a later one. Pages
//! may be marked and not have changed: who asks compares their LSNs. Nothing is kept as long as nobody
//! has made a copy.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::{
    format::changed::{GENERATIONS_MAX, Generation, PIECE_PAGES},
    ids::{Lsn, PageId},
    sync::LeafMutex,
};

/// The generations, the oldest first.
#[derive(Debug, Default)]
pub struct ChangedPages {
    /// Set before the first write that must be marked, by the thread that writes or under the lock of
    /// the checkpoint, which all writers hold.
    is_kept: AtomicBool,
    generations: LeafMutex<Vec<Generation>>,
}

impl ChangedPages {
    /// Notes that pages are written.
    pub(super) fn mark(&self, first: PageId, page_count: u32) {
        if !self.is_kept.load(Relaxed) {
            return;
        }
        let mut generations = self.generations.lock();
        if let Some(newest) = generations.last_mut() {
            (first.0..first.0.saturating_add(page_count)).for_each(|page| newest.mark(page));
        }
    }

    /// Begins a generation with the copy of an LSN.
    pub fn begin(&self, from: Lsn, from_chain: u64) {
        let mut generations = self.generations.lock();
        if generations.last().is_some_and(|newest| newest.from >= from) {
            return;
        }
        if generations.len() == GENERATIONS_MAX {
            let second = generations.remove(1);
            generations[0].add(second);
        }
        generations.push(Generation { from, from_chain, ..Generation::default() });
        self.is_kept.store(true, Relaxed);
    }

    /// Of the first `page_count` pages, one bit each, those that may have changed since an LSN; nothing
    /// where that is not known.
    pub fn since(&self, base: Lsn, page_count: u32) -> Option<Vec<u64>> {
        let generations = self.generations.lock();
        let first = generations.iter().rposition(|generation| generation.from <= base)?;
        let mut words = vec![0; page_count.div_ceil(64) as usize];
        for (number, bits) in generations[first..].iter().flat_map(|g| &g.pieces) {
            let start = *number as usize * (PIECE_PAGES as usize / 64);
            words.iter_mut().skip(start).zip(bits.iter()).for_each(|(word, bits)| *word |= bits);
        }
        Some(words)
    }

    /// The chain hash at an LSN that a generation began with.
    pub fn chain_at(&self, lsn: Lsn) -> Option<u64> {
        let generations = self.generations.lock();
        generations.iter().find(|generation| generation.from == lsn).map(|g| g.from_chain)
    }

    /// What there is, to be saved.
    pub fn generations(&self) -> Vec<Generation> {
        self.generations.lock().clone()
    }

    /// Goes on with what was saved, before anything is written.
    pub fn restore(&self, saved: Vec<Generation>) {
        self.is_kept.store(!saved.is_empty(), Relaxed);
        *self.generations.lock() = saved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(changed: &ChangedPages, base: u64) -> Option<Vec<u32>> {
        let words = changed.since(Lsn(base), 10_000)?;
        Some(
            (0..10_000).filter(|page| words[*page as usize / 64] >> (page % 64) & 1 == 1).collect(),
        )
    }

    #[test]
    fn nothing_is_known_of_what_was_before_the_first_copy() {
        let changed = ChangedPages::default();
        changed.mark(PageId(7), 1);
        assert_eq!((pages(&changed, 9), changed.generations()), (None, Vec::new()));
        changed.begin(Lsn(5), 50);
        changed.mark(PageId(4095), 2);
        assert_eq!(pages(&changed, 4), None);
        assert_eq!(pages(&changed, 5), Some(vec![4095, 4096]));
        assert_eq!((changed.chain_at(Lsn(5)), changed.chain_at(Lsn(6))), (Some(50), None));
    }

    #[test]
    fn a_base_gets_all_that_was_written_since_and_pages_beyond_the_end_are_left_out() {
        let changed = ChangedPages::default();
        for (lsn, page) in [(5, 70), (8, 71), (8, 72), (20, 9_999)] {
            changed.begin(Lsn(lsn), 0);
            changed.mark(PageId(page), 1);
        }
        changed.mark(PageId(50_000), 3);
        assert_eq!(changed.generations().len(), 3, "one for each LSN");
        assert_eq!(pages(&changed, 7), Some(vec![70, 71, 72, 9_999]));
        assert_eq!(pages(&changed, 8), Some(vec![71, 72, 9_999]));
        assert_eq!(pages(&changed, 30), Some(vec![9_999]));
        let saved = changed.generations();
        let again = ChangedPages::default();
        again.restore(saved);
        again.mark(PageId(3), 1);
        assert_eq!(pages(&again, 21), Some(vec![3, 9_999]));
    }

    #[test]
    fn the_oldest_generations_become_one_that_holds_both() {
        let changed = ChangedPages::default();
        for lsn in 1..=40 {
            changed.begin(Lsn(lsn), lsn);
            changed.mark(PageId(lsn as u32), 1);
        }
        assert_eq!(changed.generations().len(), GENERATIONS_MAX);
        assert_eq!(pages(&changed, 1), Some((1..=40).collect()));
        assert_eq!(pages(&changed, 40), Some(vec![40]));
        assert!(pages(&changed, 20).expect("it is known").starts_with(&[1, 2]), "more, not less");
    }
}
