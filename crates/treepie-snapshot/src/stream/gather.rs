//! Pages that wait until they fill a frame.

use treepie::ids::PageId;

use crate::{
    format::pages::{Extent, append_table, group_of, is_zero_page},
    limits::{GROUP_PAGES, content_len_max},
};

/// Pages of the next frame. A group that does not fit moves to the frame after it as a whole.
#[derive(Debug)]
pub struct Gather {
    page_size: usize,
    pages_max: usize,
    bytes: Vec<u8>,
    extents: Vec<Extent>,
    page_count: usize,
    /// The group of the last page, and where it begins.
    group: u32,
    start: Start,
}

#[derive(Clone, Copy, Debug, Default)]
struct Start {
    len: usize,
    extents: usize,
    pages: usize,
}

impl Gather {
    /// # Panics
    /// If a frame has no room for a group.
    pub fn new(page_size: usize, frame_len: usize) -> Gather {
        let pages_max = frame_len / page_size;
        assert!(pages_max >= GROUP_PAGES, "{pages_max} pages are less than a group");
        Gather {
            page_size,
            pages_max,
            bytes: Vec::with_capacity(content_len_max(frame_len)),
            extents: Vec::new(),
            page_count: 0,
            group: 0,
            start: Start::default(),
        }
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.page_count == 0
    }

    /// How many of these pages are of the first one's group.
    pub fn group_len(&self, first: PageId, bytes: &[u8]) -> usize {
        let left = GROUP_PAGES - first.0 as usize % GROUP_PAGES;
        left.min(bytes.len() / self.page_size) * self.page_size
    }

    /// Adds pages of one group, behind all others; false if they do not fit.
    pub fn push(&mut self, first: PageId, bytes: &[u8]) -> bool {
        let count = bytes.len() / self.page_size;
        if self.is_empty() || group_of(first.0) != self.group {
            self.group = group_of(first.0);
            let (len, extents) = (self.bytes.len(), self.extents.len());
            self.start = Start { len, extents, pages: self.page_count };
        }
        if self.page_count + count > self.pages_max {
            return false;
        }
        for (number, page) in (first.0..).zip(bytes.chunks_exact(self.page_size)) {
            self.extend(number, is_zero_page(page));
        }
        self.copy(bytes);
        self.page_count += count;
        true
    }

    /// Counts a page into the last extent of its group, or begins one.
    fn extend(&mut self, number: u32, is_zero: bool) {
        let of_group = self.extents.get_mut(self.start.extents..).unwrap_or_default();
        match of_group.last_mut() {
            Some(last) if last.is_zero == is_zero && last.first + last.count == number => {
                last.count += 1;
            }
            _ => self.extents.push(Extent { first: number, count: 1, is_zero }),
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        if bytes.chunks_exact(self.page_size).any(is_zero_page) {
            let pages = bytes.chunks_exact(self.page_size).filter(|page| !is_zero_page(page));
            pages.for_each(|page| self.bytes.extend_from_slice(page));
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The content of a frame with all pages before the last group; `content` becomes the buffer of
    /// what is left. After a `push` that had no room.
    pub fn cut(&mut self, content: Vec<u8>) -> Vec<u8> {
        let Start { len, extents, pages } = self.start;
        let mut rest = content;
        rest.clear();
        rest.extend_from_slice(self.bytes.get(len..).unwrap_or_default());
        self.bytes.truncate(len);
        let later = self.extents.split_off(extents.min(self.extents.len()));
        append_table(&mut self.bytes, &self.extents);
        self.extents = later;
        self.page_count -= pages;
        self.start = Start::default();
        std::mem::replace(&mut self.bytes, rest)
    }

    /// The content of a frame with all pages; `content` becomes the buffer of those to come.
    pub fn take(&mut self, content: Vec<u8>) -> Vec<u8> {
        let (len, extents) = (self.bytes.len(), self.extents.len());
        self.start = Start { len, extents, pages: self.page_count };
        self.cut(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pages::{PageRules, PageTable, Pages};

    const RULES: PageRules = PageRules { page_size: 4096, page_count: 10_000, frame_len: 1 << 20 };

    fn numbers(content: &[u8]) -> Vec<u32> {
        let table = PageTable::parse(content, &RULES).expect("a valid table");
        Pages::new(&table)
            .map(|(id, page)| {
                assert_eq!(page[0], (id.0 % 5) as u8, "page {id}");
                id.0
            })
            .collect()
    }

    #[test]
    fn frames_hold_whole_groups_in_order() {
        let mut gather = Gather::new(4096, RULES.frame_len);
        let mut frames = Vec::new();
        // Every page of the first groups, then every third; those with a number that 5 divides are zero.
        let pages = (2..700).chain((700..5000).step_by(3));
        let all: Vec<u32> = pages.collect();
        for &number in &all {
            let page = vec![(number % 5) as u8; 4096];
            while !gather.push(PageId(number), &page) {
                frames.push(numbers(&gather.cut(Vec::new())));
            }
        }
        frames.push(numbers(&gather.take(Vec::new())));
        assert!(gather.is_empty());
        assert_eq!(frames.concat(), all);
        assert!(frames.len() > 5 && frames.iter().all(|frame| frame.len() <= 256));
        for pair in frames.windows(2) {
            let (last, first) = (pair[0].last().copied(), pair[1].first().copied());
            assert!(last.map(group_of) < first.map(group_of), "{last:?} {first:?}");
        }
    }
}
