//! Entries of one or two pages, in order, to be laid out anew: on one page, or cut in two.
//!
//! The room that a page needs depends on the prefix that its keys share, so every cut is measured
//! with its own prefixes. One always exists for a page's entries and one more: an entry takes at
//! most a quarter of a page, and a key that lacks the prefix of the others is the first or the
//! last one, and may stand alone.

use std::ops::Range;

use crate::{
    error::Result,
    format::{
        bytes::{put_u16, put_u32},
        node::{
            BRANCH, CELLS_START_OFFSET, CHILD_SIZE, HEAD_SIZE, LEAF, Node, OFFSET_SIZE,
            OVERFLOW_FLAG, PREFIX_LEN_OFFSET, array_size, head_of, heads_offset,
        },
        page::{COUNT_OFFSET, PAGE_HEADER_SIZE},
    },
    ids::PageId,
    limits::PAGE_SIZE_MAX,
    pager::access::PageWrite,
};

use super::{
    key::Key,
    slots::{self, Cell, to_u16},
};

/// Fewer keys than this get no prefix where they fit without: it saves them little, and the next
/// key would often lack it.
pub const PREFIX_COUNT_MIN: usize = 8;

/// An entry with its whole key.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The key. That of a branch's first child counts as empty.
    pub key: Key<'a>,
    /// As in [`Cell`].
    pub payload: &'a [u8],
    /// As in [`Cell`].
    pub overflow: bool,
}

/// Entries in order.
#[derive(Debug)]
pub struct Pack<'a, const KIND: usize> {
    items: Vec<Item<'a>>,
    /// Bytes that the entries before each index take without a prefix; one more than `items`.
    ends: Vec<usize>,
    page_size: usize,
    /// Whether the keys ascend. Those of one page do; beside a damaged page they may not, and then
    /// the entries fit nowhere: what they are laid out by is that the first and the last key tell
    /// what all of them begin with.
    is_ordered: bool,
}

/// Entries that fit on a page, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    start: usize,
    end: usize,
    prefix_len: usize,
}

impl Fit {
    /// Index of the first entry.
    pub fn start(&self) -> usize {
        self.start
    }
}

impl<'a, const KIND: usize> Pack<'a, KIND> {
    /// No entries yet.
    pub fn new(page_size: usize) -> Pack<'a, KIND> {
        Pack { items: Vec::with_capacity(256), ends: vec![0], page_size, is_ordered: true }
    }

    /// Appends an entry.
    pub fn push(&mut self, item: Item<'a>) {
        let cell = Cell { suffix: item.key.suffix(), payload: item.payload, overflow: false };
        let len = array_size(KIND) + item.key.prefix().len() + cell.len(KIND);
        self.ends.push(self.ends[self.items.len()] + len);
        // The key of a branch's first child counts as empty, whatever it is.
        let before = self.items.get(usize::from(KIND == BRANCH)..).and_then(|items| items.last());
        self.is_ordered &= before.is_none_or(|before| before.key < item.key);
        self.items.push(item);
    }

    /// Appends entries of a page.
    pub fn extend(&mut self, node: &Node<'a, KIND>, range: Range<usize>) {
        for i in range {
            let key = Key::new(node.prefix(), node.suffix(i));
            let (payload, overflow) = if KIND == LEAF {
                Node::<LEAF>::new(node.page()).payload(i)
            } else {
                (Node::<BRANCH>::new(node.page()).child_bytes(i), false)
            };
            self.push(Item { key, payload, overflow });
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// How the entries from `start` to before `end` fit on one page, if they do.
    pub fn fit(&self, start: usize, end: usize) -> Option<Fit> {
        if !self.is_ordered {
            return None;
        }
        let keyed = start + usize::from(KIND == BRANCH);
        let keyed_count = end.saturating_sub(keyed);
        if keyed_count < PREFIX_COUNT_MIN && self.size(start, end, 0) <= self.page_size {
            return Some(Fit { start, end, prefix_len: 0 });
        }
        let first = &self.items[keyed].key;
        let mut prefix_len = first.common_len(&self.items[end - 1].key);
        if KIND == BRANCH {
            // Only the first child has an empty suffix.
            prefix_len = prefix_len.min(first.len().saturating_sub(1));
        }
        let fits = self.size(start, end, prefix_len) <= self.page_size;
        fits.then_some(Fit { start, end, prefix_len })
    }

    /// Size of a page with these entries and a prefix of this length.
    fn size(&self, start: usize, end: usize, prefix_len: usize) -> usize {
        let mut len = self.ends[end] - self.ends[start];
        let mut keyed_count = end - start;
        if KIND == BRANCH && keyed_count > 0 {
            len -= self.items[start].key.len();
            keyed_count -= 1;
        }
        heads_offset(prefix_len) + len - keyed_count * prefix_len
    }

    /// Size of a page with all entries, in bytes; above the page size when they do not fit.
    pub fn size_of(&self, fit: &Fit) -> usize {
        self.size(fit.start, fit.end, fit.prefix_len)
    }

    /// Cuts the entries in two that fit on a page each, as evenly as they do.
    pub fn cut(&self) -> Option<(Fit, Fit)> {
        let count = self.items.len();
        let half = self.ends[count] / 2;
        let after = self.ends.partition_point(|&end| end < half).clamp(1, count.max(2) - 1);
        let middle = after
            - usize::from(
                after > 1 && half.abs_diff(self.ends[after - 1]) < half.abs_diff(self.ends[after]),
            );
        (0..count).find_map(|distance| {
            let low = middle.checked_sub(distance).and_then(|at| self.cut_at(at));
            low.or_else(|| self.cut_at(middle + distance))
        })
    }

    /// Cuts the entries before entry `at`, if both parts fit on a page and have entries.
    pub fn cut_at(&self, at: usize) -> Option<(Fit, Fit)> {
        if at == 0 || at >= self.items.len() {
            return None;
        }
        Some((self.fit(0, at)?, self.fit(at, self.items.len())?))
    }

    /// The separator for a cut before entry `at`: the shortest key above the entry before it and
    /// not above its own. In a branch the key moves up as it is.
    pub fn separator(&self, right: &Fit) -> Vec<u8> {
        let mut separator = self.items[right.start].key.to_vec();
        if KIND == LEAF {
            let before = &self.items[right.start - 1].key;
            let common = self.items[right.start].key.common_len(before);
            separator.truncate(common + 1);
        }
        separator
    }

    /// Lays the entries out on a page of the right kind and level.
    ///
    /// # Errors
    /// Those of changing the page.
    pub fn store<P: PageWrite>(&self, pages: &mut P, id: PageId, fit: &Fit) -> Result<()> {
        let mut buf = [0; PAGE_SIZE_MAX];
        let buf = &mut buf[..self.page_size];
        let (arrays_end, cells_start) = self.lay_out(buf, fit);
        let mut page = pages.page_mut(id)?;
        page.write(COUNT_OFFSET, &buf[COUNT_OFFSET..COUNT_OFFSET + 2]);
        page.write(PREFIX_LEN_OFFSET, &buf[PREFIX_LEN_OFFSET..arrays_end]);
        page.write(cells_start, &buf[cells_start..]);
        Ok(())
    }

    /// Inserts entries before entry `at` of a page as it is laid out: that changes fewer bytes than
    /// laying all of it out. Returns false, with nothing changed, when there is no room for them.
    ///
    /// # Errors
    /// Those of changing the page.
    pub fn add<P: PageWrite>(
        &self,
        pages: &mut P,
        id: PageId,
        range: Range<usize>,
        at: usize,
    ) -> Result<bool> {
        let Some(items) = self.items.get(range).filter(|items| !items.is_empty()) else {
            return Ok(false);
        };
        let mut page = pages.page_mut(id)?;
        let node = Node::<KIND>::new(page.bytes());
        let prefix_len = node.prefix().len();
        if !items.iter().all(|item| item.key.starts_with(node.prefix())) {
            return Ok(false);
        }
        let lens = items
            .iter()
            .map(|item| array_size(KIND) + KIND + item.key.len() - prefix_len + item.payload.len());
        if lens.sum::<usize>() > node.free_len() {
            return Ok(false);
        }
        for (i, item) in items.iter().enumerate() {
            let suffix = &item.key.without(prefix_len).to_vec();
            let cell = Cell { suffix, payload: item.payload, overflow: item.overflow };
            slots::insert::<KIND>(&mut page, at + i, &cell);
        }
        Ok(true)
    }

    /// Writes all but the page header into a zeroed buffer: cells in order, the last one at the
    /// end. Returns where the arrays end and the cells start.
    fn lay_out(&self, buf: &mut [u8], fit: &Fit) -> (usize, usize) {
        let count = fit.end - fit.start;
        let heads = heads_offset(fit.prefix_len);
        let offsets = heads + HEAD_SIZE * count;
        let children = offsets + OFFSET_SIZE * count;
        let arrays_end = heads + array_size(KIND) * count;
        let cells_start = self.page_size - (self.size_of(fit) - arrays_end);
        self.put_prefix(buf, fit);
        let mut at = cells_start;
        for (i, item) in self.items[fit.start..fit.end].iter().enumerate() {
            let implicit = KIND == BRANCH && i == 0;
            let tail = if implicit { Key::new(&[], &[]) } else { item.key.without(fit.prefix_len) };
            let cell = &mut buf[at..];
            let suffix_len = tail.len();
            cell[KIND..][..tail.prefix().len()].copy_from_slice(tail.prefix());
            cell[KIND + tail.prefix().len()..][..tail.suffix().len()]
                .copy_from_slice(tail.suffix());
            let head = head_of(&cell[KIND..KIND + suffix_len]);
            put_cell_header(cell, KIND, suffix_len, item);
            put_u32(buf, heads + HEAD_SIZE * i, head);
            put_u16(buf, offsets + OFFSET_SIZE * i, to_u16(at));
            at += KIND + suffix_len;
            if KIND == BRANCH {
                buf[children + CHILD_SIZE * i..][..CHILD_SIZE].copy_from_slice(item.payload);
            } else {
                buf[at..][..item.payload.len()].copy_from_slice(item.payload);
                at += item.payload.len();
            }
        }
        put_u16(buf, COUNT_OFFSET, to_u16(count));
        put_u16(buf, PREFIX_LEN_OFFSET, to_u16(fit.prefix_len));
        put_u16(buf, CELLS_START_OFFSET, to_u16(cells_start));
        (arrays_end, cells_start)
    }

    /// Writes the prefix that the entries share.
    fn put_prefix(&self, buf: &mut [u8], fit: &Fit) {
        if fit.prefix_len > 0 {
            let prefix = self.items[fit.end - 1].key.to_vec();
            buf[PAGE_HEADER_SIZE..][..fit.prefix_len].copy_from_slice(&prefix[..fit.prefix_len]);
        }
    }
}

fn put_cell_header(cell: &mut [u8], kind: usize, suffix_len: usize, item: &Item<'_>) {
    let flag = if item.overflow { OVERFLOW_FLAG } else { 0 };
    put_u16(cell, 0, to_u16(suffix_len) | flag);
    if kind == LEAF {
        put_u16(cell, 2, to_u16(item.payload.len()));
    }
}
