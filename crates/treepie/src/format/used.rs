//! Which pages of a stream of pages are in use: its bitmap pages say so, and come before them.

use crate::ids::PageId;

use super::bitmap::{GROUPS_PER_REGION, bit_position, bitmap_page, is_fixed, pages_per_group};

/// Tells used pages from free ones where pages come in ascending order, without a database. Holds the
/// bitmap pages of one region: at most 16.
///
/// The bitmap pages of a region have lower numbers than all pages that they speak of, but for meta pages.
#[derive(Clone, Debug)]
pub struct UsedPages {
    page_size: usize,
    region: u32,
    /// By the number of the group in its region.
    bitmaps: Vec<Option<Vec<u8>>>,
}

impl UsedPages {
    /// Nothing is known yet. `page_size` is in bytes.
    #[must_use]
    pub fn new(page_size: usize) -> UsedPages {
        UsedPages { page_size, region: 0, bitmaps: vec![None; GROUPS_PER_REGION as usize] }
    }

    /// Takes the next page, and tells whether it is in use. A page whose bitmap page did not come is not.
    ///
    /// ```
    /// use treepie::{UsedPages, ids::PageId};
    ///
    /// let mut used = UsedPages::new(4096);
    /// assert!(used.push(PageId(2), &[0xff; 4096]), "a bitmap page, which says that all are");
    /// assert!(used.push(PageId(20), &[0; 4096]));
    /// assert!(!used.push(PageId(40_000), &[0; 4096]), "the next bitmap page is missing");
    /// ```
    pub fn push(&mut self, id: PageId, bytes: &[u8]) -> bool {
        let group = id.0 / pages_per_group(self.page_size);
        self.turn_to(group / GROUPS_PER_REGION);
        if is_fixed(id, self.page_size) {
            let first = self.region * GROUPS_PER_REGION;
            let own = (first..first.saturating_add(GROUPS_PER_REGION))
                .position(|group| bitmap_page(group, self.page_size) == id);
            if let Some(slot) = own.and_then(|index| self.bitmaps.get_mut(index)) {
                *slot = Some(bytes.to_vec());
            }
            return true;
        }
        let bitmap = self.bitmaps.get((group % GROUPS_PER_REGION) as usize);
        let (byte, mask) = bit_position(id.0 % pages_per_group(self.page_size));
        bitmap
            .and_then(Option::as_ref)
            .and_then(|bits| bits.get(byte))
            .is_some_and(|b| b & mask != 0)
    }

    fn turn_to(&mut self, region: u32) {
        if region != self.region {
            self.region = region;
            self.bitmaps.fill(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::page::PAGE_HEADER_SIZE;

    #[test]
    fn pages_are_used_as_the_bitmaps_of_their_own_region_say() {
        let group = pages_per_group(4096);
        let region = group * GROUPS_PER_REGION;
        let mut bits = vec![0; 4096];
        // Page 9 of the group, and its last one.
        bits[PAGE_HEADER_SIZE + 1] = 2;
        bits[4095] = 0x80;
        for begin in [0, region] {
            let mut used = UsedPages::new(4096);
            assert!(!used.push(PageId(begin + 50), &[]), "no bitmap came");
            let second = bitmap_page(begin / group + 1, 4096);
            assert!(used.push(second, &bits));
            assert!(!used.push(PageId(begin + 50), &[]), "that of the first group did not come");
            assert!(used.push(PageId(begin + group + 9), &[]));
            assert!(!used.push(PageId(begin + group + 10), &[]));
            assert!(used.push(PageId(begin + 2 * group - 1), &[]));
            assert!(!used.push(PageId(begin + region + group + 9), &[]), "another region");
        }
        let mut used = UsedPages::new(4096);
        assert!(used.push(PageId(18), &[]), "the root of the catalog is always there");
    }
}
