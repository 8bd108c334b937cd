//! One page, changed in place: entries inserted, removed and replaced without building it again.
//!
//! The arrays of a page are dense, so an entry moves what is behind it; its cell goes below the
//! lowest one. The bytes of a removed cell stay as dead bytes until the page is built again.

use std::ops::Range;

use crate::{
    format::{
        bytes::{put_u16, put_u32},
        node::{
            BRANCH, CELLS_START_OFFSET, CHILD_SIZE, DEAD_LEN_OFFSET, HEAD_SIZE, LEAF, Node,
            OFFSET_SIZE, OVERFLOW_FLAG, PREFIX_LEN_OFFSET, array_size, head_of,
        },
        page::{self, COUNT_OFFSET, PAGE_HEADER_SIZE, PageKind},
    },
    pager::access::PageMut,
};

/// Where the page header holds kind, level and count.
const KIND_OFFSET: usize = 16;

/// An entry of a page: the value of a leaf's entry or where it is, or the child of a branch's.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// What follows the page's prefix in the key.
    pub suffix: &'a [u8],
    /// The value, its place, or the child's page number.
    pub payload: &'a [u8],
    /// Whether the payload is a value's place.
    pub overflow: bool,
}

impl Cell<'_> {
    /// Bytes of the cell on a page of this kind.
    #[inline(always)]
    pub fn len(&self, kind: usize) -> usize {
        kind + self.suffix.len() + if kind == LEAF { self.payload.len() } else { 0 }
    }

    /// Writes the cell at the start of `bytes`.
    #[inline(always)]
    pub fn put(&self, bytes: &mut [u8], kind: usize) {
        let flag = if self.overflow { OVERFLOW_FLAG } else { 0 };
        put_u16(bytes, 0, to_u16(self.suffix.len()) | flag);
        bytes[kind..kind + self.suffix.len()].copy_from_slice(self.suffix);
        if kind == LEAF {
            put_u16(bytes, 2, to_u16(self.payload.len()));
            bytes[kind + self.suffix.len()..][..self.payload.len()].copy_from_slice(self.payload);
        }
    }
}

/// An offset or length inside a page.
#[inline(always)]
pub fn to_u16(n: usize) -> u16 {
    u16::try_from(n).expect("a page has at most 8 KiB")
}

/// Kind of the pages of a level.
pub fn kind_of(level: u8) -> PageKind {
    if level == 0 { PageKind::Leaf } else { PageKind::Branch }
}

/// Whether a node has no entries.
pub fn is_empty(page: &[u8]) -> bool {
    page::count(page) == 0
}

/// Makes the page hold what another one of its tree holds.
pub fn copy_node(page: &mut PageMut<'_>, from: &[u8]) {
    page.write(KIND_OFFSET, &from[KIND_OFFSET..]);
}

/// Makes the page an empty node of this level; its tree stays.
pub fn reset(page: &mut PageMut<'_>, level: u8) {
    let page_size = to_u16(page.bytes().len());
    page.write(KIND_OFFSET, &[kind_of(level) as u8, level, 0, 0]);
    let header = page.range_mut(PREFIX_LEN_OFFSET, PAGE_HEADER_SIZE - PREFIX_LEN_OFFSET);
    header.fill(0);
    put_u16(header, CELLS_START_OFFSET - PREFIX_LEN_OFFSET, page_size);
}

/// Whether one more entry fits without building the page again.
#[inline(always)]
pub fn has_room<const KIND: usize>(node: &Node<'_, KIND>, cell: &Cell<'_>) -> bool {
    node.free_len() >= cell.len(KIND) + array_size(KIND)
}

/// Inserts an entry before entry `at`; there is room.
#[inline]
pub fn insert<const KIND: usize>(page: &mut PageMut<'_>, at: usize, cell: &Cell<'_>) {
    let node = Node::<KIND>::new(page.bytes());
    let (count, heads, dead_len) = (node.len(), node.heads_offset(), node.dead_len());
    let cell_len = cell.len(KIND);
    let start = node.cells_start() - cell_len;
    let offsets = heads + HEAD_SIZE * count;
    let children = offsets + OFFSET_SIZE * count;
    let behind = count - at;
    if KIND == BRANCH {
        let gap = HEAD_SIZE + OFFSET_SIZE;
        let from = children + CHILD_SIZE * at;
        page.shift(from, from + gap + CHILD_SIZE, CHILD_SIZE * behind);
        page.shift(children, children + gap, CHILD_SIZE * at);
        page.write(from + gap, cell.payload);
    }
    let from = offsets + OFFSET_SIZE * at;
    page.shift(from, from + HEAD_SIZE + OFFSET_SIZE, OFFSET_SIZE * behind);
    page.shift(offsets, offsets + HEAD_SIZE, OFFSET_SIZE * at);
    page.write(from + HEAD_SIZE, &to_u16(start).to_le_bytes());
    let from = heads + HEAD_SIZE * at;
    page.shift(from, from + HEAD_SIZE, HEAD_SIZE * behind);
    page.write(from, &head_of(cell.suffix).to_le_bytes());
    cell.put(page.range_mut(start, cell_len), KIND);
    set_counts(page, count + 1, start, dead_len);
}

/// Removes entry `at`.
pub fn remove<const KIND: usize>(page: &mut PageMut<'_>, at: usize) {
    let node = Node::<KIND>::new(page.bytes());
    let (count, heads) = (node.len(), node.heads_offset());
    let (mut start, mut dead_len) = (node.cells_start(), node.dead_len());
    let cell_len = node.cell_len(at);
    if count == 1 {
        (start, dead_len) = (page.bytes().len(), 0);
    } else if node.cell_offset(at) == start {
        start += cell_len;
    } else {
        dead_len += cell_len;
    }
    let offsets = heads + HEAD_SIZE * count;
    let children = offsets + OFFSET_SIZE * count;
    let behind = count - at - 1;
    let from = heads + HEAD_SIZE * at;
    page.shift(from + HEAD_SIZE, from, HEAD_SIZE * behind);
    page.shift(offsets, offsets - HEAD_SIZE, OFFSET_SIZE * at);
    let from = offsets + OFFSET_SIZE * at;
    page.shift(from + OFFSET_SIZE, from - HEAD_SIZE, OFFSET_SIZE * behind);
    if KIND == BRANCH {
        let gap = HEAD_SIZE + OFFSET_SIZE;
        page.shift(children, children - gap, CHILD_SIZE * at);
        let from = children + CHILD_SIZE * at;
        page.shift(from + CHILD_SIZE, from - gap, CHILD_SIZE * behind);
    }
    set_counts(page, count - 1, start, dead_len);
}

/// Removes entries, and moves the lowest cells into the holes as far as they fit there, so that
/// what the entries took is free again: with values of one size, all of it.
pub fn remove_range<const KIND: usize>(page: &mut PageMut<'_>, range: Range<usize>) {
    let node = Node::<KIND>::new(page.bytes());
    let mut holes: Vec<_> =
        range.clone().map(|i| (node.cell_offset(i), node.cell_len(i))).collect();
    range.rev().for_each(|i| remove::<KIND>(page, i));
    loop {
        let node = Node::<KIND>::new(page.bytes());
        let (count, start, dead_len) = (node.len(), node.cells_start(), node.dead_len());
        holes.retain(|hole| hole.0 >= start && hole.1 > 0);
        let freed_len = if let Some(hole) = holes.iter().find(|hole| hole.0 == start) {
            hole.1
        } else {
            let Some(lowest) = (0..count).find(|&i| node.cell_offset(i) == start) else { return };
            let len = node.cell_len(lowest);
            let Some(hole) = holes.iter_mut().find(|hole| hole.1 >= len) else { return };
            let entry = node.heads_offset() + HEAD_SIZE * count + OFFSET_SIZE * lowest;
            page.shift(start, hole.0, len);
            page.write(entry, &to_u16(hole.0).to_le_bytes());
            *hole = (hole.0 + len, hole.1 - len);
            len
        };
        set_counts(page, count, start + freed_len, dead_len - freed_len);
    }
}

/// Removes child `at` of a branch. The first child has no separator: the one behind it loses its.
pub fn remove_child(page: &mut PageMut<'_>, at: usize) {
    let node = Node::<BRANCH>::new(page.bytes());
    if at > 0 || node.len() == 1 {
        return remove::<BRANCH>(page, at);
    }
    let second = node.child(1);
    let children = node.heads_offset() + (HEAD_SIZE + OFFSET_SIZE) * node.len();
    put_u32(page.range_mut(children, CHILD_SIZE), 0, second.0);
    remove::<BRANCH>(page, 1);
}

/// Whether [`replace`] has room.
pub fn can_replace<const KIND: usize>(node: &Node<'_, KIND>, at: usize, cell: &Cell<'_>) -> bool {
    let len = cell.len(KIND);
    len <= node.cell_len(at) || len <= node.free_len()
}

/// Replaces suffix and payload of entry `at` of a leaf, or only the separator of a branch, when
/// there is room. Says whether there was.
pub fn replace<const KIND: usize>(page: &mut PageMut<'_>, at: usize, cell: &Cell<'_>) -> bool {
    let node = Node::<KIND>::new(page.bytes());
    if !can_replace(&node, at, cell) {
        return false;
    }
    let (count, heads, mut start) = (node.len(), node.heads_offset(), node.cells_start());
    let (old_offset, old_len, len) = (node.cell_offset(at), node.cell_len(at), cell.len(KIND));
    let same_suffix = node.suffix(at) == cell.suffix;
    let mut dead_len = node.dead_len();
    if len <= old_len {
        dead_len += old_len - len;
        let kept_len =
            if same_suffix && KIND == LEAF && len == old_len { cell.suffix.len() } else { 0 };
        put_changed(page, old_offset, cell, KIND, kept_len);
    } else {
        dead_len += old_len;
        start -= len;
        cell.put(page.range_mut(start, len), KIND);
        page.write(heads + HEAD_SIZE * count + OFFSET_SIZE * at, &to_u16(start).to_le_bytes());
    }
    if !same_suffix {
        page.write(heads + HEAD_SIZE * at, &head_of(cell.suffix).to_le_bytes());
    }
    if len != old_len {
        set_counts(page, count, start, dead_len);
    }
    true
}

/// Writes a cell over an old one; a suffix of `kept_len` bytes is there already.
fn put_changed(
    page: &mut PageMut<'_>,
    offset: usize,
    cell: &Cell<'_>,
    kind: usize,
    kept_len: usize,
) {
    if kept_len == 0 {
        return cell.put(page.range_mut(offset, cell.len(kind)), kind);
    }
    let flag = if cell.overflow { OVERFLOW_FLAG } else { 0 };
    page.write(offset, &(to_u16(kept_len) | flag).to_le_bytes());
    page.write(offset + kind + kept_len, cell.payload);
}

#[inline(always)]
fn set_counts(page: &mut PageMut<'_>, count: usize, cells_start: usize, dead_len: usize) {
    let header = page.range_mut(COUNT_OFFSET, PAGE_HEADER_SIZE - COUNT_OFFSET);
    put_u16(header, 0, to_u16(count));
    put_u16(header, CELLS_START_OFFSET - COUNT_OFFSET, to_u16(cells_start));
    put_u16(header, DEAD_LEN_OFFSET - COUNT_OFFSET, to_u16(dead_len));
}
