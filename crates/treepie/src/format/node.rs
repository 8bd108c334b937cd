//! Leaf and branch pages: a prefix, dense arrays that are searched, and cells.
//!
//! | Offset | Size | Field         | Meaning                                                     |
//! |-------:|-----:|---------------|-------------------------------------------------------------|
//! |      0 |   24 |               | Page header, see `page`; `count` is n below                 |
//! |     24 |    2 | `prefix_len`  | P: bytes that all keys of the page begin with               |
//! |     26 |    2 | `cells_start` | Offset of the lowest cell byte; the page size without cells |
//! |     28 |    2 | `dead_len`    | Bytes from `cells_start` on that belong to no cell          |
//! |     30 |    2 | `reserved`    | Zero                                                        |
//! |     32 |    P | `prefix`      | The common prefix, padded to a multiple of 4 with any bytes |
//! |      H |   4n | `heads`       | First 4 bytes of each suffix, zero padded, as a number      |
//! |  H+ 4n |   2n | `offsets`     | Where each cell begins                                      |
//! |  H+ 6n |   4n | `children`    | Page numbers; branches only                                 |
//! |        |      | free          | Any bytes                                                   |
//! |        |      | cells         | In any order, up to the end of the page                     |
//!
//! A key is the prefix and a suffix. A head is the big-endian number of the suffix's first bytes,
//! stored little-endian like every number, so heads order as keys do; only where heads are equal
//! the suffixes decide, and a cell is touched.
//!
//! | Cell of a leaf | Size | Meaning                                            |
//! |---------------:|-----:|----------------------------------------------------|
//! |              0 |    2 | Suffix length S; bit 15: the value is in a run     |
//! |              2 |    2 | Value length V in this cell                        |
//! |              4 |    S | Suffix                                             |
//! |            4+S |    V | Value, or where it is (V = 16): page u32, zero u32, length u64 |
//!
//! A cell of a branch is the suffix length (2 bytes) and the suffix of a separator: the child
//! holds keys from there up to the next separator. The suffix of child 0 is empty, whatever the
//! prefix: it holds everything below separator 1.
//!
//! The prefix is a property of the page alone: any prefix that all its keys share is valid. It is
//! chosen when a page is built; a key without it makes the page be built again. A branch has at
//! least one child. An empty leaf is valid only as a root, which `tree::check` knows.

use std::cmp::Ordering;

use crate::{
    error::{Damage, Structure},
    ids::{PageId, TreeId},
    limits::{PAGE_SIZE_MAX, TREE_DEPTH_MAX, VALUE_LEN_MAX, key_len_max},
};

use super::{
    bytes::{get_u16, get_u32, get_u64, put_u16},
    heads::lower_bound,
    page::{self, PAGE_HEADER_SIZE, PageKind},
};

pub use super::heads::{HEAD_SIZE, head_of};

/// Offset of `prefix_len`.
pub const PREFIX_LEN_OFFSET: usize = 24;
/// Offset of `cells_start`.
pub const CELLS_START_OFFSET: usize = 26;
/// Offset of `dead_len`.
pub const DEAD_LEN_OFFSET: usize = 28;
const RESERVED_OFFSET: usize = 30;
const _: () = assert!(RESERVED_OFFSET + 2 == PAGE_HEADER_SIZE);

/// Bytes before the suffix in the cell of a leaf.
pub const LEAF: usize = 4;
/// Bytes before the suffix in the cell of a branch.
pub const BRANCH: usize = 2;
/// Size of a cell offset in bytes.
pub const OFFSET_SIZE: usize = 2;
/// Size of a child's page number in bytes.
pub const CHILD_SIZE: usize = 4;
/// Bit of the suffix length that says that the value is in a run of its own.
pub const OVERFLOW_FLAG: u16 = 1 << 15;
/// What a leaf cell holds of a value in a run, in bytes.
pub const OVERFLOW_VALUE_SIZE: usize = 16;

/// A leaf or branch page, read. `KIND` is [`LEAF`] or [`BRANCH`].
///
/// Never panics, whatever the bytes: arrays that leave the page count as empty, and so do cells.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a, const KIND: usize> {
    page: &'a [u8],
    prefix: &'a [u8],
    heads: &'a [[u8; HEAD_SIZE]],
    offsets: &'a [[u8; OFFSET_SIZE]],
}

/// A leaf page, read.
pub type Leaf<'a> = Node<'a, LEAF>;
/// A branch page, read.
pub type Branch<'a> = Node<'a, BRANCH>;

/// A value as its leaf holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Its bytes.
    Inline(&'a [u8]),
    /// The first page of its run, and its length in bytes.
    Overflow(PageId, u64),
}

/// Offset of the heads for a prefix length.
#[inline(always)]
#[must_use]
pub const fn heads_offset(prefix_len: usize) -> usize {
    PAGE_HEADER_SIZE + prefix_len.next_multiple_of(HEAD_SIZE)
}

/// Bytes that an entry takes in the arrays of a page.
#[inline(always)]
#[must_use]
pub const fn array_size(kind: usize) -> usize {
    HEAD_SIZE + OFFSET_SIZE + if kind == BRANCH { CHILD_SIZE } else { 0 }
}

/// Makes a page an empty leaf: `page` is zero but for its page header.
///
/// # Panics
/// If the page is larger than the largest page size.
pub fn init_leaf(page: &mut [u8]) {
    let page_size = u16::try_from(page.len()).expect("a page has at most 8 KiB");
    put_u16(page, CELLS_START_OFFSET, page_size);
}

/// Where a value in a run is, as its leaf cell says it.
#[must_use]
pub fn encode_overflow(id: PageId, value_len: u64) -> [u8; OVERFLOW_VALUE_SIZE] {
    let mut bytes = [0; OVERFLOW_VALUE_SIZE];
    bytes[..4].copy_from_slice(&id.0.to_le_bytes());
    bytes[8..].copy_from_slice(&value_len.to_le_bytes());
    bytes
}

impl<'a, const KIND: usize> Node<'a, KIND> {
    /// Reads the arrays' places. The caller knows that the page is of this kind.
    #[inline(always)]
    #[must_use]
    pub fn new(page: &'a [u8]) -> Self {
        Self::arrays(page).unwrap_or(Node { page, prefix: &[], heads: &[], offsets: &[] })
    }

    #[inline(always)]
    fn arrays(page: &'a [u8]) -> Option<Self> {
        let (count, prefix_len) =
            (page::count(page), usize::from(get_u16(page, PREFIX_LEN_OFFSET)));
        let at = heads_offset(prefix_len);
        let arrays = page.get(at..at + count * (HEAD_SIZE + OFFSET_SIZE))?;
        let (heads, offsets) = arrays.split_at_checked(count * HEAD_SIZE)?;
        let prefix = page.get(PAGE_HEADER_SIZE..PAGE_HEADER_SIZE + prefix_len)?;
        Some(Node { page, prefix, heads: heads.as_chunks().0, offsets: offsets.as_chunks().0 })
    }

    /// The bytes of the page.
    #[inline(always)]
    #[must_use]
    pub fn page(&self) -> &'a [u8] {
        self.page
    }

    /// Entries of a leaf, children of a branch.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there are no entries.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The bytes that all keys begin with.
    #[inline(always)]
    #[must_use]
    pub fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// Offset of the heads.
    #[inline(always)]
    #[must_use]
    pub fn heads_offset(&self) -> usize {
        heads_offset(self.prefix.len())
    }

    /// Offset of the lowest cell byte.
    #[inline(always)]
    #[must_use]
    pub fn cells_start(&self) -> usize {
        usize::from(get_u16(self.page, CELLS_START_OFFSET))
    }

    /// Bytes among the cells that belong to none.
    #[inline(always)]
    #[must_use]
    pub fn dead_len(&self) -> usize {
        usize::from(get_u16(self.page, DEAD_LEN_OFFSET))
    }

    /// Bytes between the arrays and the cells.
    #[inline(always)]
    #[must_use]
    pub fn free_len(&self) -> usize {
        let arrays_end = self.heads_offset() + self.len() * array_size(KIND);
        self.cells_start().saturating_sub(arrays_end)
    }

    /// Bytes of the page that hold something: header, prefix, arrays, cells.
    #[inline]
    #[must_use]
    pub fn used_len(&self) -> usize {
        self.page.len().saturating_sub(self.free_len() + self.dead_len())
    }

    /// Offset of the cell of entry `i`.
    #[inline(always)]
    #[must_use]
    pub fn cell_offset(&self, i: usize) -> usize {
        self.offsets.get(i).map_or(PAGE_SIZE_MAX, |o| usize::from(u16::from_le_bytes(*o)))
    }

    /// The page from the cell of entry `i` on.
    #[inline(always)]
    #[must_use]
    pub fn cell(&self, i: usize) -> &'a [u8] {
        self.page.get(self.cell_offset(i)..).unwrap_or(&[])
    }

    /// Length of the cell of entry `i` in bytes.
    #[must_use]
    pub fn cell_len(&self, i: usize) -> usize {
        let cell = self.cell(i);
        let value_len = if KIND == LEAF { usize::from(get_u16(cell, 2)) } else { 0 };
        KIND + usize::from(get_u16(cell, 0) & !OVERFLOW_FLAG) + value_len
    }

    /// What follows the prefix in key `i`.
    #[inline(always)]
    #[must_use]
    pub fn suffix(&self, i: usize) -> &'a [u8] {
        let cell = self.cell(i);
        let len = usize::from(get_u16(cell, 0) & !OVERFLOW_FLAG);
        cell.get(KIND..KIND + len).unwrap_or(&[])
    }

    /// Finds `key`: `Ok` with its index, or `Err` with the index where it belongs.
    #[inline]
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.search_telling(key, |_| ())
    }

    /// As `search`; tells `near` which index it is at least, and nearly always, before it touches a
    /// cell.
    #[inline(always)]
    pub fn search_telling(&self, key: &[u8], near: impl FnOnce(usize)) -> Result<usize, usize> {
        let Some(suffix) = key.strip_prefix(self.prefix) else {
            return Err(if key < self.prefix { 0 } else { self.len() });
        };
        let head = head_of(suffix);
        let start = lower_bound(self.heads, head);
        near(start);
        match self.heads.get(start) {
            Some(found) if u32::from_le_bytes(*found) == head => self.search_cells(start, suffix),
            _ => Err(start),
        }
    }

    /// Finds `suffix` among the entries from `start` on that have its head.
    #[inline]
    fn search_cells(&self, start: usize, suffix: &[u8]) -> Result<usize, usize> {
        match suffix.cmp(self.suffix(start)) {
            Ordering::Less => return Err(start),
            Ordering::Equal => return Ok(start),
            Ordering::Greater => {}
        }
        let Some((head, rest)) = self.heads.get(start..).and_then(<[_]>::split_first) else {
            return Err(start);
        };
        if rest.first() != Some(head) {
            return Err(start + 1);
        }
        let mut low = start + 1;
        let mut high = low + rest.partition_point(|h| u32::from_le_bytes(*h) <= head_of(suffix));
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.suffix(middle).cmp(suffix) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

impl<'a> Leaf<'a> {
    /// Value `i`.
    #[inline(always)]
    #[must_use]
    pub fn value(&self, i: usize) -> Value<'a> {
        self.entry(i).1
    }

    /// Suffix and value `i`.
    #[inline(always)]
    #[must_use]
    pub fn entry(&self, i: usize) -> (&'a [u8], Value<'a>) {
        let cell = self.cell(i);
        let flags = get_u16(cell, 0);
        let suffix_len = usize::from(flags & !OVERFLOW_FLAG);
        let value_len = usize::from(get_u16(cell, 2));
        let (suffix, rest) =
            cell.get(LEAF..).and_then(|c| c.split_at_checked(suffix_len)).unwrap_or((&[], &[]));
        let value = rest.get(..value_len).unwrap_or(&[]);
        if flags & OVERFLOW_FLAG == 0 {
            return (suffix, Value::Inline(value));
        }
        (suffix, Value::Overflow(PageId(get_u32(value, 0)), get_u64(value, 8)))
    }

    /// The bytes of value `i` in its cell, and whether they only say where it is.
    #[must_use]
    pub fn payload(&self, i: usize) -> (&'a [u8], bool) {
        let cell = self.cell(i);
        let start = LEAF + usize::from(get_u16(cell, 0) & !OVERFLOW_FLAG);
        let len = usize::from(get_u16(cell, 2));
        (cell.get(start..start + len).unwrap_or(&[]), get_u16(cell, 0) & OVERFLOW_FLAG != 0)
    }
}

impl<'a> Branch<'a> {
    /// Index of the child that `key` belongs to.
    #[inline]
    #[must_use]
    pub fn child_index(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(i) => i,
            Err(i) => i.saturating_sub(1),
        }
    }

    /// Child `i`; page 0, which no tree has, where there is none.
    #[inline(always)]
    #[must_use]
    pub fn child(&self, i: usize) -> PageId {
        PageId(get_u32(self.child_bytes(i), 0))
    }

    /// Child `i` as it is stored.
    #[inline(always)]
    #[must_use]
    pub fn child_bytes(&self, i: usize) -> &'a [u8] {
        if i >= self.len() {
            return &[];
        }
        let at = self.heads_offset() + self.len() * (HEAD_SIZE + OFFSET_SIZE) + i * CHILD_SIZE;
        self.page.get(at..at + CHILD_SIZE).unwrap_or(&[])
    }
}

/// Checks all layout rules of a leaf or branch page.
///
/// # Errors
/// [`Damage::Layout`] with the first broken rule.
pub fn validate(page: &[u8]) -> Result<(), Damage> {
    let broken = match page::kind(page) {
        Some(PageKind::Leaf) if page::level(page) != 0 => Some("a leaf has level 0"),
        Some(PageKind::Leaf) => broken_rule::<LEAF>(page),
        Some(PageKind::Branch) => match usize::from(page::level(page)) {
            1..TREE_DEPTH_MAX => broken_rule::<BRANCH>(page),
            _ => Some("the level of a branch is out of range"),
        },
        _ => Some("the page is neither a leaf nor a branch"),
    };
    let structure = Structure::Page(page::page_id(page), page::tree(page));
    broken.map_or(Ok(()), |what| Err(Damage::layout(structure, what)))
}

fn broken_rule<const KIND: usize>(page: &[u8]) -> Option<&'static str> {
    if page::tree(page) == TreeId::NONE {
        return Some("the page belongs to no tree");
    }
    if get_u16(page, RESERVED_OFFSET) != 0 {
        return Some("reserved bytes are not zero");
    }
    let Some(node) = Node::<KIND>::arrays(page) else {
        return Some("the arrays leave the page");
    };
    let arrays_end = node.heads_offset() + node.len() * array_size(KIND);
    if arrays_end > node.cells_start() || node.cells_start() > page.len() {
        return Some("the arrays reach into the cells, or the cells leave the page");
    }
    if KIND == BRANCH && node.is_empty() {
        return Some("a branch has no child");
    }
    broken_cell(&node).or_else(|| broken_order(&node))
}

/// Cells lie inside their area, do not overlap, and fill it up to the dead bytes.
fn broken_cell<const KIND: usize>(node: &Node<'_, KIND>) -> Option<&'static str> {
    let mut taken = ByteSet::default();
    let mut live_len = 0;
    for i in 0..node.len() {
        let (offset, len) = (node.cell_offset(i), node.cell_len(i));
        if offset < node.cells_start() || offset + len > node.page.len() {
            return Some("a cell leaves the cell area");
        }
        if !taken.claim(offset, len) {
            return Some("two cells overlap");
        }
        live_len += len;
        let flagged = get_u16(node.cell(i), 0) & OVERFLOW_FLAG != 0;
        if KIND == BRANCH && flagged {
            return Some("a separator has the flag of a value in a run");
        }
        if KIND == LEAF && flagged && !is_overflow_value(node.cell(i)) {
            return Some("the place of a value in a run is malformed");
        }
        if node.prefix.len() + node.suffix(i).len() > key_len_max(node.page.len()) {
            return Some("a key is longer than the limit");
        }
    }
    if live_len + node.dead_len() != node.page.len() - node.cells_start() {
        return Some("the dead bytes are miscounted");
    }
    None
}

fn is_overflow_value(cell: &[u8]) -> bool {
    let start = LEAF + usize::from(get_u16(cell, 0) & !OVERFLOW_FLAG);
    usize::from(get_u16(cell, 2)) == OVERFLOW_VALUE_SIZE
        && get_u32(cell, start) > 1
        && get_u32(cell, start + 4) == 0
        && (1..=VALUE_LEN_MAX).contains(&get_u64(cell, start + 8))
}

/// Heads match their suffixes, and keys ascend.
fn broken_order<const KIND: usize>(node: &Node<'_, KIND>) -> Option<&'static str> {
    let mut before: Option<&[u8]> = None;
    for (i, head) in node.heads.iter().enumerate() {
        let suffix = node.suffix(i);
        if u32::from_le_bytes(*head) != head_of(suffix) {
            return Some("a head does not match its key");
        }
        if before.is_some_and(|before| before >= suffix) {
            return Some("the keys do not ascend");
        }
        before = Some(suffix);
    }
    if KIND == BRANCH && !node.suffix(0).is_empty() {
        return Some("the first child of a branch has a separator");
    }
    None
}

/// Which bytes of a page are taken.
struct ByteSet([u64; PAGE_SIZE_MAX / 64]);

impl Default for ByteSet {
    fn default() -> ByteSet {
        ByteSet([0; PAGE_SIZE_MAX / 64])
    }
}

impl ByteSet {
    /// Takes `len` bytes from `offset` on; says whether they were all there and free.
    fn claim(&mut self, offset: usize, len: usize) -> bool {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let bits = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - bits)) << (at % 64);
            match self.0.get_mut(at / 64) {
                Some(word) if *word & mask == 0 => *word |= mask,
                _ => return false,
            }
            at += bits;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_leaf_is_valid_and_empty() {
        for page_size in [4096, 8192] {
            let mut page = vec![0; page_size];
            page::init(&mut page, PageId(18), PageKind::Leaf, 0, TreeId::CATALOG);
            assert!(validate(&page).is_err());
            init_leaf(&mut page);
            assert_eq!(validate(&page), Ok(()));
            assert!(Leaf::new(&page).is_empty());
        }
    }
}
