//! Bitmap pages and the space map: reading the map from them, and following their changes.

use crate::{
    error::{Damage, Result, Structure},
    format::{
        bitmap::{GROUPS_PER_REGION, bitmap_page, is_fixed, pages_per_group, pages_per_region},
        page::{self, PAGE_HEADER_SIZE},
    },
    ids::{Lsn, PageId, TreeId},
    sync::{Planted, is_planted},
};

use super::{space::Space, store::Pager};

/// Fixed pages at the beginning of a group, at most.
const FIXED_MAX: u32 = 32;

/// Reads the space map from the bitmap pages of all groups below `page_count`.
///
/// The caller is a reader of `lsn`, or nobody else is there.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt).
pub fn load_space(pager: &Pager, lsn: Lsn, page_count: u32) -> Result<Space> {
    let page_size = pager.page_size();
    let mut space = Space::new(page_size);
    for group in 0..page_count.div_ceil(pages_per_group(page_size)) {
        let id = bitmap_page(group, page_size);
        let bytes = pager.page(id, lsn)?;
        if page::kind(bytes) != Some(page::PageKind::Bitmap) {
            return Err(pager.corrupt(
                id,
                Damage::layout(Structure::Page(id, TreeId::NONE), "not a free-space bitmap"),
            ));
        }
        let first = group * pages_per_group(page_size);
        space.load_group(&bytes[PAGE_HEADER_SIZE..]);
        if is_planted(Planted::BitLostAtReplay) {
            space.give(PageId(space.page_count() - 1), 1);
        }
        if !has_fixed_pages(&space, first, page_size) {
            return Err(pager.damaged(id, "a fixed page is marked as free"));
        }
    }
    Ok(space)
}

/// Brings the map up to date with a bitmap page that a record has changed. Returns whether it can be one:
/// it is where one belongs, groups come one after the other, and their fixed pages are in use.
pub fn follow_bitmap(space: &mut Space, bitmap: PageId, bytes: &[u8], page_size: usize) -> bool {
    let (Some(group), Some(bits)) =
        (group_of_bitmap(bitmap, page_size), bytes.get(PAGE_HEADER_SIZE..))
    else {
        return false;
    };
    space.set_group(group, bits)
        && has_fixed_pages(space, group * pages_per_group(page_size), page_size)
}

/// The group whose bitmap is on this page, if it is a place for one.
fn group_of_bitmap(page: PageId, page_size: usize) -> Option<u32> {
    let region = page.0 / pages_per_region(page_size);
    let first = bitmap_page(region * GROUPS_PER_REGION, page_size);
    let index = page.0.checked_sub(first.0).filter(|index| *index < GROUPS_PER_REGION)?;
    Some(region * GROUPS_PER_REGION + index)
}

/// Whether the fixed pages of the group that begins at page `first` are marked as used.
fn has_fixed_pages(space: &Space, first: u32, page_size: usize) -> bool {
    let fixed = (first..first.saturating_add(FIXED_MAX)).map(PageId);
    fixed.filter(|id| is_fixed(*id, page_size)).all(|id| space.is_used(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_a_bitmap_page_is_found_from_its_place() {
        for page_size in [4096, 8192] {
            for group in [0, 1, 15, 16, 17, 40] {
                let page = bitmap_page(group, page_size);
                assert_eq!(group_of_bitmap(page, page_size), Some(group));
            }
            for page in [0, 1, 18, pages_per_region(page_size) + GROUPS_PER_REGION] {
                assert_eq!(group_of_bitmap(PageId(page), page_size), None);
            }
        }
    }
}
