//! The space map: which pages are used, mirrored in memory from the bitmap pages.
//!
//! One bit per page (16 MiB of memory for a file of 1 TiB), and for each zone of 4,096 pages a summary
//! of its free runs (`zone`), so that a search looks only at zones that can help. Allocation takes the
//! lowest free page or the lowest run that is long enough: files stay compact, and neighbours are
//! written together. Only the writer has the map; it tells a transaction which bitmap pages to change.
//!
//! Allocating a used page and freeing a free one are our own errors: asserted, always.

use std::ops::Range;

use crate::{
    format::bitmap::{GROUPS_PER_REGION, is_fixed, pages_per_group, pages_per_region},
    ids::PageId,
    limits::PAGE_COUNT_MAX,
};

use super::zone::{self, ZONE_WORDS, Zone};

/// Used and free pages.
#[derive(Debug)]
pub struct Space {
    page_size: usize,
    /// Bit set: used. Pages beyond are free.
    words: Vec<u64>,
    /// What each zone of 64 words has free.
    zones: Vec<Zone>,
    /// No free page is below this word.
    first_free_word: usize,
    /// Groups whose bitmap pages exist.
    group_count: u32,
    used_count: u64,
}

impl Space {
    /// The map of a file in which only the fixed pages are used, and no bitmap page exists.
    pub fn new(page_size: usize) -> Space {
        Space {
            page_size,
            words: Vec::new(),
            zones: Vec::new(),
            first_free_word: 0,
            group_count: 0,
            used_count: 0,
        }
    }

    /// Groups whose bitmap pages exist.
    pub fn group_count(&self) -> u32 {
        self.group_count
    }

    /// One past the highest page that any group covers with a used page below: what the file must
    /// hold at most.
    pub fn page_count(&self) -> u32 {
        let word = self.words.iter().rposition(|&word| word != 0);
        word.map_or(0, |index| index as u32 * 64 + 64 - self.words[index].leading_zeros())
    }

    /// The group that covers a page.
    pub fn group_of(&self, page: PageId) -> u32 {
        page.0 / pages_per_group(self.page_size)
    }

    /// Adds the next group from the bits of its bitmap page, as `format::bitmap` has them.
    pub fn load_group(&mut self, bits: &[u8]) {
        let first = self.group_count * pages_per_group(self.page_size);
        self.group_count += 1;
        self.extend(first + pages_per_group(self.page_size));
        for (index, byte) in bits.iter().enumerate().filter(|(_, byte)| **byte != 0) {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                self.set(first + index as u32 * 8 + bit);
            }
        }
    }

    /// Makes a group what the bits of its bitmap page say; a new one must be the next. Returns whether it
    /// could be done.
    pub fn set_group(&mut self, group: u32, bits: &[u8]) -> bool {
        if group == self.group_count && self.can_grow() {
            self.load_group(bits);
            return true;
        }
        if group >= self.group_count {
            return false;
        }
        let first = group * pages_per_group(self.page_size);
        for (index, bytes) in bits.chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            let at = first + index as u32 * 64;
            let mut different = self.words[at as usize / 64] ^ word;
            while different != 0 {
                let bit = different.trailing_zeros();
                different &= different - 1;
                if word & (1 << bit) != 0 { self.set(at + bit) } else { self.clear(at + bit) }
            }
        }
        true
    }

    /// Adds the next group, whose fixed pages alone are used. Returns these pages.
    pub fn begin_group(&mut self) -> impl Iterator<Item = PageId> + use<> {
        let page_size = self.page_size;
        let first = self.group_count * pages_per_group(page_size);
        self.group_count += 1;
        self.extend(first + pages_per_group(page_size));
        let fixed = (first..first + 2 + GROUPS_PER_REGION + 1)
            .map(PageId)
            .filter(move |page| is_fixed(*page, page_size));
        fixed.clone().for_each(|page| self.set(page.0));
        fixed
    }

    /// Takes the last groups back that `begin_group` added, until `group_count` are left.
    pub fn end_groups(&mut self, group_count: u32) {
        let page_count = group_count * pages_per_group(self.page_size);
        for page in page_count..self.words.len() as u32 * 64 {
            if self.is_used(PageId(page)) {
                self.clear(page);
            }
        }
        let words = page_count as usize / 64;
        self.words.truncate(words);
        self.zones.truncate(words / ZONE_WORDS);
        self.extend(page_count);
        self.group_count = group_count;
        self.first_free_word = 0;
    }

    fn extend(&mut self, page_count: u32) {
        let words = page_count as usize / 64;
        let whole_zones = self.words.len() / ZONE_WORDS;
        self.words.resize(words, 0);
        self.zones.truncate(whole_zones);
        for zone in whole_zones..words.div_ceil(ZONE_WORDS) {
            self.zones.push(Zone::new(&self.words[self.zone_words(zone)]));
        }
    }

    /// Which words are a zone's: the last one may have fewer.
    fn zone_words(&self, zone: usize) -> Range<usize> {
        zone * ZONE_WORDS..self.words.len().min((zone + 1) * ZONE_WORDS)
    }

    /// Whether the page is in use.
    pub fn is_used(&self, page: PageId) -> bool {
        let word = self.words.get(page.0 as usize / 64).copied().unwrap_or(0);
        word & (1 << (page.0 % 64)) != 0
    }

    /// The lowest run of `len` free pages that does not cross a region's bitmap pages, below the
    /// end of the groups that exist; `None` when groups must be added first.
    pub fn find(&mut self, len: u32) -> Option<PageId> {
        if len == 1 { self.find_page() } else { self.find_run(len) }
    }

    fn find_page(&mut self) -> Option<PageId> {
        let mut index = self.first_free_word;
        while index < self.words.len() {
            if self.zones[index / ZONE_WORDS].free() == 0 {
                index = (index / ZONE_WORDS + 1) * ZONE_WORDS;
                continue;
            }
            if self.words[index] != u64::MAX {
                self.first_free_word = index;
                return Some(PageId(index as u32 * 64 + self.words[index].trailing_ones()));
            }
            index += 1;
        }
        self.first_free_word = self.words.len();
        None
    }

    fn find_run(&mut self, len: u32) -> Option<PageId> {
        // Free pages that lead up to the zone.
        let mut before = 0;
        for index in self.first_free_word / ZONE_WORDS..self.zones.len() {
            if self.zones[index].free() == 0 {
                before = 0;
                continue;
            }
            let words = self.zone_words(index);
            let (first, words) = (words.start as u32 * 64, &self.words[words]);
            let runs = self.zones[index].runs(words);
            if before + runs.front >= len {
                return Some(PageId(first - before));
            }
            if runs.longest >= len {
                let start = zone::find(words, len).expect("the zone has a run that is long enough");
                return Some(PageId(first + start));
            }
            let whole = runs.front == words.len() as u32 * 64;
            before = if whole { before + runs.front } else { runs.back };
        }
        None
    }

    /// Marks free pages as used.
    ///
    /// # Panics
    /// If one of them is used.
    pub fn take(&mut self, first: PageId, len: u32) {
        for page in first.0..first.0 + len {
            assert!(!self.is_used(PageId(page)), "page {page} is allocated already");
            self.set(page);
        }
    }

    /// Marks used pages as free.
    ///
    /// # Panics
    /// If one of them is free, or a fixed page.
    pub fn give(&mut self, first: PageId, len: u32) {
        for page in first.0..first.0 + len {
            assert!(self.is_used(PageId(page)), "page {page} is free already");
            assert!(!is_fixed(PageId(page), self.page_size), "page {page} is a fixed page");
            self.clear(page);
        }
    }

    fn set(&mut self, page: u32) {
        let index = page as usize / 64;
        self.words[index] |= 1 << (page % 64);
        self.zones[index / ZONE_WORDS].took_one();
        self.used_count += 1;
    }

    fn clear(&mut self, page: u32) {
        let index = page as usize / 64;
        self.words[index] &= !(1 << (page % 64));
        self.zones[index / ZONE_WORDS].got_one();
        self.used_count -= 1;
        self.first_free_word = self.first_free_word.min(index);
    }

    /// Whether another group can be added.
    pub fn can_grow(&self) -> bool {
        let end = u64::from(self.group_count + 1) * u64::from(pages_per_group(self.page_size));
        end <= u64::from(PAGE_COUNT_MAX)
    }

    /// Longest run that can ever be found.
    pub fn run_len_max(&self) -> u32 {
        pages_per_region(self.page_size) - CATALOG_AND_META
    }
}

const CATALOG_AND_META: u32 = 2 + GROUPS_PER_REGION + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_page_is_taken_and_a_freed_one_at_once_again() {
        let mut space = Space::new(4096);
        assert_eq!(space.find(1), None);
        assert_eq!(space.begin_group().count(), 19);
        assert_eq!(space.find(1), Some(PageId(19)));
        space.take(PageId(19), 1);
        space.take(PageId(20), 1);
        space.give(PageId(19), 1);
        assert_eq!(space.find(1), Some(PageId(19)));
        assert_eq!((space.page_count(), space.used_count), (21, 20));
    }

    #[test]
    fn runs_are_found_between_used_pages_and_across_words_and_zones() {
        let mut space = Space::new(4096);
        let _ = space.begin_group();
        space.take(PageId(70), 1);
        assert_eq!(space.find(51), Some(PageId(19)));
        assert_eq!(space.find(52), Some(PageId(71)));
        space.take(PageId(71), 5000);
        assert_eq!(space.find(60), Some(PageId(5071)));
        assert_eq!(space.find(30_000), None);
        let _ = space.begin_group();
        assert_eq!(space.find(30_000), Some(PageId(5071)));
    }

    #[test]
    fn groups_come_back_from_their_bits_and_can_be_taken_back() {
        let mut space = Space::new(4096);
        let mut bits = vec![0; 4064];
        bits[2] = 0b1000_0001;
        space.load_group(&bits);
        assert!(space.is_used(PageId(16)) && space.is_used(PageId(23)));
        assert_eq!((space.used_count, space.page_count()), (2, 24));
        let _ = space.begin_group();
        space.take(PageId(40_000), 1);
        space.end_groups(1);
        assert_eq!((space.used_count, space.page_count(), space.group_count()), (2, 24, 1));
        assert_eq!(space.find(1), Some(PageId(0)));
    }

    #[test]
    #[should_panic(expected = "page 20 is free already")]
    fn freeing_a_free_page_is_an_assertion() {
        let mut space = Space::new(4096);
        let _ = space.begin_group();
        space.give(PageId(20), 1);
    }

    /// The lowest run by looking at every page.
    fn find_naively(space: &Space, len: u32) -> Option<PageId> {
        let mut run = 0;
        for page in 0..space.words.len() as u32 * 64 {
            run = if space.is_used(PageId(page)) { 0 } else { run + 1 };
            if run == len {
                return Some(PageId(page + 1 - len));
            }
        }
        None
    }

    fn random(state: &mut u64, end: u32) -> u32 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (((*state >> 32) * u64::from(end)) >> 32) as u32
    }

    #[test]
    fn runs_found_are_those_of_a_naive_search_whatever_was_taken_and_given() {
        for (seed, page_size, group_count) in [(1, 4096, 3), (2, 8192, 2), (3, 4096, 2)] {
            let (mut space, mut seed) = (Space::new(page_size), seed);
            let mut taken: Vec<(PageId, u32)> = Vec::new();
            for _ in 0..group_count {
                let _ = space.begin_group();
            }
            for step in 0..1500 {
                let len_max = [1, 4, 70, 700, 9000][random(&mut seed, 5) as usize];
                let len = 1 + random(&mut seed, len_max);
                let found = space.find(len);
                assert_eq!(found, find_naively(&space, len), "step {step}, {len} pages");
                // Runs are given in pieces too, so that holes of every kind come to be.
                let gives = random(&mut seed, 100) < [30, 70][step / 50 % 2] || found.is_none();
                if gives && !taken.is_empty() {
                    let at = random(&mut seed, taken.len() as u32) as usize;
                    let (first, len) = taken.swap_remove(at);
                    let part = 1 + random(&mut seed, len);
                    space.give(first, part);
                    if part < len {
                        taken.push((PageId(first.0 + part), len - part));
                    }
                } else if let Some(first) = found {
                    space.take(first, len);
                    taken.push((first, len));
                }
            }
        }
    }

    #[test]
    fn a_long_run_behind_a_fragmented_map_is_found_by_a_look_at_few_words() {
        let mut space = Space::new(8192);
        for _ in 0..16 {
            let _ = space.begin_group();
        }
        // Every second page is free, up to the last group.
        let end = 15 * pages_per_group(8192);
        let fixed = |page: &u32| is_fixed(PageId(*page), 8192);
        (0..end).step_by(2).filter(|page| !fixed(page)).for_each(|page| {
            space.take(PageId(page), 1);
        });
        let found = space.find(1000).expect("the last group is free");
        assert!((end - 1..=end + 64).contains(&found.0), "{found}");

        // One page given makes one zone unknown: it is looked at, and the one with the run.
        space.give(PageId(64 * 1000), 1);
        zone::WORDS_LOOKED_AT.set(0);
        assert_eq!(space.find(1000), Some(found));
        let words = zone::WORDS_LOOKED_AT.get();
        assert!(words <= 2 * ZONE_WORDS, "{words} of {} words", space.words.len());
    }
}
