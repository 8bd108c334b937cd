//! Free-space bitmap pages: one bit per page, 1 for used. They stand at fixed positions.
//!
//! | Offset | Size | Field   | Meaning                                                           |
//! |-------:|-----:|---------|-------------------------------------------------------------------|
//! |      0 |   32 | header  | As in `page`: kind 4; bytes 24..32 reserved, zero                 |
//! |     32 | rest | `bits`  | Bit `i` of byte `j` stands for page `8 j + i` of the group        |
//!
//! The pages of a *group* are those that one bitmap page covers; sixteen groups are a *region*,
//! whose bitmap pages stand together at its beginning (in region 0 behind the two meta pages), so
//! that a run of pages for a value of 1 GiB fits between them. Fixed pages (meta pages, the bitmap
//! pages of a region, the root of the catalog) are marked as used. A group's bitmap page is written
//! when the first page of its group or of a later one comes into use.

use crate::{
    error::{Damage, Structure},
    ids::{PageId, TreeId},
};

use super::{
    bytes::is_zero,
    page::{self, PAGE_HEADER_SIZE},
};

/// Bitmap pages that stand together at the beginning of a region.
pub const GROUPS_PER_REGION: u32 = 16;
/// The catalog's root page, behind the meta pages and the bitmap pages of region 0.
pub const CATALOG_ROOT: PageId = PageId(2 + GROUPS_PER_REGION);

/// Pages that one bitmap page covers: 65,280 with 8 KiB pages, 32,512 with 4 KiB pages.
#[must_use]
pub const fn pages_per_group(page_size: usize) -> u32 {
    ((page_size - PAGE_HEADER_SIZE) * 8) as u32
}

/// Pages of a region.
#[must_use]
pub const fn pages_per_region(page_size: usize) -> u32 {
    pages_per_group(page_size) * GROUPS_PER_REGION
}

/// The page that holds the bitmap of a group.
#[must_use]
pub const fn bitmap_page(group: u32, page_size: usize) -> PageId {
    let region = group / GROUPS_PER_REGION;
    let first = if region == 0 { 2 } else { region * pages_per_region(page_size) };
    PageId(first + group % GROUPS_PER_REGION)
}

/// Whether a page has a fixed use, whichever trees there are.
#[must_use]
pub const fn is_fixed(page: PageId, page_size: usize) -> bool {
    let first = page.0 % pages_per_region(page_size);
    if page.0 < pages_per_region(page_size) {
        first <= CATALOG_ROOT.0
    } else {
        first < GROUPS_PER_REGION
    }
}

/// One past the highest page that there can be: page numbers have 32 bits, and groups are whole.
#[must_use]
pub const fn page_count_max(page_size: usize) -> u32 {
    u32::MAX / pages_per_group(page_size) * pages_per_group(page_size)
}

/// Whether a run of pages can be in use by a tree: none of them is fixed, and all have a bit.
#[must_use]
pub const fn is_run_place(first: PageId, page_count: u32, page_size: usize) -> bool {
    let end = first.0 as u64 + page_count as u64;
    let region = pages_per_region(page_size) as u64;
    // The next fixed pages are at the beginning of the next region.
    let next_fixed = (first.0 as u64 / region + 1) * region;
    !is_fixed(first, page_size) && end <= next_fixed && end <= page_count_max(page_size) as u64
}

/// Byte of the page, and mask in it, for the `index`-th page of the group.
#[must_use]
pub const fn bit_position(index: u32) -> (usize, u8) {
    (PAGE_HEADER_SIZE + (index / 8) as usize, 1 << (index % 8))
}

/// Checks the layout rules of a bitmap page.
///
/// # Errors
/// [`Damage::Layout`] with the broken rule.
pub fn validate(bytes: &[u8]) -> Result<(), Damage> {
    let structure = Structure::Page(page::page_id(bytes), page::tree(bytes));
    if page::tree(bytes) != TreeId::NONE || page::level(bytes) != 0 || page::count(bytes) != 0 {
        return Err(Damage::layout(structure, "a bitmap with a tree, a level or entries"));
    }
    if !bytes.get(24..PAGE_HEADER_SIZE).is_some_and(is_zero) {
        return Err(Damage::layout(structure, "reserved bytes are not zero"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmap_pages_have_these_places() {
        assert_eq!(pages_per_group(8192), 65_280);
        assert_eq!(pages_per_group(4096), 32_512);
        assert_eq!(bitmap_page(0, 8192), PageId(2));
        assert_eq!(bitmap_page(15, 8192), PageId(17));
        assert_eq!(bitmap_page(16, 8192), PageId(65_280 * 16));
        assert_eq!(bit_position(0), (32, 1));
        assert_eq!(bit_position(15), (33, 0x80));
    }

    #[test]
    fn meta_bitmap_and_catalog_pages_are_fixed() {
        let fixed = |page| is_fixed(PageId(page), 8192);
        assert!(fixed(0) && fixed(17) && fixed(18) && !fixed(19));
        let region = pages_per_region(8192);
        assert!(!fixed(region - 1) && fixed(region) && fixed(region + 15) && !fixed(region + 16));
    }

    #[test]
    fn runs_stand_between_fixed_pages_and_below_the_last_group() {
        for page_size in [4096, 8192] {
            let region = pages_per_region(page_size);
            let fits = |first, count| is_run_place(PageId(first), count, page_size);
            assert!(!fits(0, 1) && !fits(17, 1) && !fits(18, 1) && fits(19, region - 19));
            assert!(!fits(19, region - 18) && !fits(region, 1) && fits(region + 16, 2));
            let end = page_count_max(page_size);
            assert!(fits(end - 1, 1) && !fits(end - 1, 2) && !fits(end, 1));
            assert!(!fits(u32::MAX, u32::MAX));
            assert_eq!(end % pages_per_group(page_size), 0);
        }
    }

    #[test]
    fn a_value_of_one_gibibyte_fits_between_bitmap_pages() {
        for page_size in [4096, 8192] {
            let run = pages_per_region(page_size) - GROUPS_PER_REGION;
            assert!(u64::from(run) * page_size as u64 > (1 << 30) + page_size as u64);
        }
    }
}
