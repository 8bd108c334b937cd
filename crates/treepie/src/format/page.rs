//! Page header: the first 32 bytes of every page but the meta pages.
//!
//! | Offset | Size | Field      | Meaning                                                        |
//! |-------:|-----:|------------|----------------------------------------------------------------|
//! |      0 |    4 | `checksum` | CRC-32 of every byte of the page (of the whole run) but these 4 |
//! |      4 |    4 | `page`     | Its own number: finds misdirected writes                       |
//! |      8 |    8 | `lsn`      | LSN of the record that changed it last                         |
//! |     16 |    1 | `kind`     | 1 leaf, 2 branch, 3 overflow, 4 free-space bitmap              |
//! |     17 |    1 | `level`    | 0 for leaves and other pages; a branch is one above its children |
//! |     18 |    2 | `count`    | Entries of a leaf, children of a branch                        |
//! |     20 |    4 | `tree`     | Number of the tree that owns the page, 0 for bitmaps           |
//! |     24 |    8 | by kind    | See `node`, `overflow`, `bitmap`                               |
//!
//! A page is valid when its checksum matches, it holds its own number, and the layout rules of its
//! kind hold. A page of zeros is not valid.

use crate::{
    error::{Damage, Structure},
    ids::{Lsn, PageId, TreeId},
};

use super::{
    bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64},
    checksum::crc32,
};

/// Size of the page header in bytes.
pub const PAGE_HEADER_SIZE: usize = 32;
/// Offset of `lsn`.
pub const LSN_OFFSET: usize = 8;
/// Offset of `count`.
pub const COUNT_OFFSET: usize = 18;
const PAGE_OFFSET: usize = 4;
const KIND_OFFSET: usize = 16;
const LEVEL_OFFSET: usize = 17;
const TREE_OFFSET: usize = 20;
const _: () = assert!(PAGE_HEADER_SIZE == 4 + 4 + 8 + 1 + 1 + 2 + 4 + 8);

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageKind {
    /// Entries of a tree.
    Leaf = 1,
    /// Separators and children.
    Branch = 2,
    /// First page of a run that holds one large value.
    Overflow = 3,
    /// Free-space bitmap.
    Bitmap = 4,
}

impl PageKind {
    fn from_u8(kind: u8) -> Option<PageKind> {
        Some(match kind {
            1 => PageKind::Leaf,
            2 => PageKind::Branch,
            3 => PageKind::Overflow,
            4 => PageKind::Bitmap,
            _ => return None,
        })
    }
}

/// Kind of the page, where it is one.
#[inline(always)]
#[must_use]
pub fn kind(page: &[u8]) -> Option<PageKind> {
    PageKind::from_u8(page.get(KIND_OFFSET).copied().unwrap_or(0))
}

/// Level of the page in its tree: 0 for leaves.
#[inline(always)]
#[must_use]
pub fn level(page: &[u8]) -> u8 {
    page.get(LEVEL_OFFSET).copied().unwrap_or(0)
}

/// Entries of a leaf, children of a branch.
#[inline(always)]
#[must_use]
pub fn count(page: &[u8]) -> usize {
    usize::from(get_u16(page, COUNT_OFFSET))
}

/// LSN of the record that changed the page last.
#[must_use]
pub fn lsn(page: &[u8]) -> Lsn {
    Lsn(get_u64(page, LSN_OFFSET))
}

/// Number that the page claims to have.
#[must_use]
pub fn page_id(page: &[u8]) -> PageId {
    PageId(get_u32(page, PAGE_OFFSET))
}

/// Tree that owns the page.
#[must_use]
pub fn tree(page: &[u8]) -> TreeId {
    TreeId(get_u32(page, TREE_OFFSET))
}

/// Checksum that the page carries.
#[must_use]
pub fn stored_checksum(page: &[u8]) -> u32 {
    get_u32(page, 0)
}

/// Checksum of the bytes of a page, or of a whole run.
#[must_use]
pub fn compute_checksum(page: &[u8]) -> u32 {
    crc32(page.get(4..).unwrap_or(&[]))
}

/// Stamps a checksum.
pub fn set_checksum(page: &mut [u8], checksum: u32) {
    put_u32(page, 0, checksum);
}

/// Stamps the LSN of the last change.
pub fn set_lsn(page: &mut [u8], lsn: Lsn) {
    put_u64(page, LSN_OFFSET, lsn.0);
}

/// Writes the header of a new page; `page` is zero before.
#[allow(clippy::indexing_slicing, reason = "the writer's buffer is a page")]
pub fn init(page: &mut [u8], id: PageId, kind: PageKind, level: u8, tree: TreeId) {
    put_u32(page, PAGE_OFFSET, id.0);
    page[KIND_OFFSET] = kind as u8;
    page[LEVEL_OFFSET] = level;
    put_u16(page, COUNT_OFFSET, 0);
    put_u32(page, TREE_OFFSET, tree.0);
}

/// Verifies number, kind and checksum of the page, or of a whole run.
///
/// # Errors
/// [`Damage::Checksum`] when the bytes changed, [`Damage::Layout`] when another page is here.
pub fn verify(page: &[u8], id: PageId) -> Result<PageKind, Damage> {
    let structure = Structure::Page(id, tree(page));
    let (stored, computed) = (stored_checksum(page), compute_checksum(page));
    if stored != computed {
        return Err(Damage::Checksum { structure, stored, computed });
    }
    if page_id(page) != id {
        return Err(Damage::layout(structure, "another page's bytes are in its place"));
    }
    kind(page).ok_or(Damage::layout(structure, "unknown kind of page"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_header_has_these_bytes() {
        let mut page = vec![0; 4096];
        init(&mut page, PageId(0x0102_0304), PageKind::Branch, 3, TreeId(0x0a0b_0c0d));
        set_lsn(&mut page, Lsn(0x1112_1314_1516_1718));
        put_u16(&mut page, COUNT_OFFSET, 0x2122);
        let checksum = compute_checksum(&page);
        set_checksum(&mut page, checksum);
        let golden = [
            0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, 2, 3, 0x22, 0x21, 0x0d, 0x0c, 0x0b,
            0x0a, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(page[4..8], [4, 3, 2, 1]);
        assert_eq!(page[8..32], golden);
        assert_eq!(page[0..4], crc32(&page[4..]).to_le_bytes());
        assert_eq!(verify(&page, PageId(0x0102_0304)), Ok(PageKind::Branch));
    }

    #[test]
    fn flipped_bit_and_misdirected_page_are_found() {
        let mut page = vec![0; 4096];
        init(&mut page, PageId(7), PageKind::Leaf, 0, TreeId(2));
        let checksum = compute_checksum(&page);
        set_checksum(&mut page, checksum);
        assert!(matches!(verify(&page, PageId(8)), Err(Damage::Layout { .. })));
        page[4000] ^= 1;
        assert!(matches!(verify(&page, PageId(7)), Err(Damage::Checksum { .. })));
    }
}
