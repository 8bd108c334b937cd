//! Overflow run: consecutive pages that hold one value too large for a leaf.
//!
//! | Offset | Size | Field       | Meaning                                                     |
//! |-------:|-----:|-------------|-------------------------------------------------------------|
//! |      0 |   24 |             | Page header, see `page`; `level` and `count` are 0          |
//! |     24 |    8 | `value_len` | Length of the value in bytes, 1 to 2^30                     |
//! |     32 |      | `value`     | The value, contiguous over the pages of the run             |
//! |        |      | padding     | Zero up to the end of the last page                         |
//!
//! Only the first page has a header. Its checksum covers all pages of the run.

use crate::{
    error::{Damage, Structure},
    limits::VALUE_LEN_MAX,
};

use super::{
    bytes::{get_u64, is_zero, put_u64},
    page::{self, PAGE_HEADER_SIZE, PageKind},
};

const VALUE_LEN_OFFSET: usize = 24;
const _: () = assert!(VALUE_LEN_OFFSET + 8 == PAGE_HEADER_SIZE);

/// Pages of the run of a value of `value_len` bytes, which is at most the limit.
///
/// # Panics
/// If the length is far above the limit.
#[must_use]
pub fn page_count(value_len: u64, page_size: usize) -> u32 {
    let pages = (PAGE_HEADER_SIZE as u64 + value_len).div_ceil(page_size as u64);
    u32::try_from(pages).expect("values are at most 1 GiB")
}

/// Length of the value in bytes, as the first page of the run says.
#[inline]
#[must_use]
pub fn value_len(page: &[u8]) -> u64 {
    get_u64(page, VALUE_LEN_OFFSET)
}

/// The value of a whole run; `None` when it leaves the run.
#[inline]
#[must_use]
pub fn value(run: &[u8]) -> Option<&[u8]> {
    let len = usize::try_from(value_len(run)).ok()?;
    run.get(PAGE_HEADER_SIZE..)?.get(..len)
}

/// Writes a value into its run, which is zero but for the page header.
///
/// # Panics
/// If the run is too short.
#[allow(clippy::indexing_slicing, reason = "the writer's buffer is the run")]
pub fn fill(run: &mut [u8], value: &[u8]) {
    put_u64(run, VALUE_LEN_OFFSET, value.len() as u64);
    run[PAGE_HEADER_SIZE..PAGE_HEADER_SIZE + value.len()].copy_from_slice(value);
}

/// Checks the layout rules of the first page of a run.
///
/// # Errors
/// [`Damage::Layout`] with the broken rule.
pub fn validate_header(page: &[u8]) -> Result<(), Damage> {
    let structure = Structure::Page(page::page_id(page), page::tree(page));
    if page::kind(page) != Some(PageKind::Overflow) {
        return Err(Damage::layout(structure, "the page does not begin a run"));
    }
    if page::level(page) != 0 || page::count(page) != 0 {
        return Err(Damage::layout(structure, "level and count of a run are not zero"));
    }
    if !(1..=VALUE_LEN_MAX).contains(&value_len(page)) {
        return Err(Damage::layout(structure, "the value's length is out of range"));
    }
    Ok(())
}

/// Checks the layout rules of a whole run.
///
/// # Errors
/// [`Damage::Layout`] with the broken rule.
pub fn validate(run: &[u8], page_size: usize) -> Result<(), Damage> {
    validate_header(run)?;
    let structure = Structure::Page(page::page_id(run), page::tree(run));
    if run.len() != page_count(value_len(run), page_size) as usize * page_size {
        return Err(Damage::layout(structure, "the run has another length than its value"));
    }
    let end = value(run).map_or(0, |value| PAGE_HEADER_SIZE + value.len());
    if !run.get(end..).is_some_and(is_zero) {
        return Err(Damage::layout(structure, "padding is not zero"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PageId, TreeId};

    fn run_of(value: &[u8]) -> Vec<u8> {
        let mut run = vec![0; page_count(value.len() as u64, 4096) as usize * 4096];
        page::init(&mut run, PageId(9), PageKind::Overflow, 0, TreeId(3));
        fill(&mut run, value);
        run
    }

    #[test]
    fn overflow_run_has_these_bytes() {
        let run = run_of(&[0xab; 5000]);
        assert_eq!(run.len(), 8192);
        assert_eq!(run[16..32], [3, 0, 0, 0, 3, 0, 0, 0, 0x88, 0x13, 0, 0, 0, 0, 0, 0]);
        assert_eq!(run[32..5032], [0xab; 5000]);
        assert_eq!(validate(&run, 4096), Ok(()));
        assert_eq!(value(&run), Some(&[0xab; 5000][..]));
    }

    #[test]
    fn a_run_has_the_fewest_pages_that_hold_header_and_value() {
        assert_eq!(page_count(4064, 4096), 1);
        assert_eq!(page_count(4065, 4096), 2);
        assert_eq!(page_count(VALUE_LEN_MAX, 8192), 131_073);
    }

    #[test]
    fn damaged_length_and_padding_are_found() {
        let mut run = run_of(&[1; 100]);
        run[200] = 1;
        assert!(validate(&run, 4096).is_err());
        run[200] = 0;
        put_u64(&mut run, VALUE_LEN_OFFSET, u64::MAX);
        assert_eq!(value(&run), None);
        assert!(validate(&run, 4096).is_err());
    }
}
