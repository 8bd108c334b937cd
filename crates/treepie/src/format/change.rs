//! Page changes: what a transaction did to pages, as absolute bytes. The first part of a record's
//! payload is a list of them.
//!
//! Changed blocks of a page:
//!
//! | Offset | Size | Field         | Meaning                                                     |
//! |-------:|-----:|---------------|-------------------------------------------------------------|
//! |      0 |    1 | `tag`         | 1                                                           |
//! |      1 |    1 | `flags`       | Bit 0: what no run covers is zero; clear: it stays          |
//! |      2 |    2 | `run_count`   | Runs of blocks that follow                                  |
//! |      4 |    4 | `page`        | Number of the page                                          |
//! |      8 |    - | runs          | `block` u16, `block_count` u16, `16 * block_count` bytes    |
//!
//! A run of pages that holds one large value:
//!
//! | Offset | Size | Field         | Meaning                                                     |
//! |-------:|-----:|---------------|-------------------------------------------------------------|
//! |      0 |    1 | `tag`         | 2                                                           |
//! |      1 |    3 | `reserved`    | Zero                                                        |
//! |      4 |    4 | `first`       | Number of the first page                                    |
//! |      8 |    4 | `page_count`  | Pages of the run, at least 1                                |
//! |     12 |    4 | `reserved`    | Zero                                                        |
//! |     16 |    8 | `byte_len`    | Bytes that follow; the rest of the run is zero              |
//! |     24 |    - | `bytes`       | From the start of the first page                            |
//!
//! A run of pages that became free, so that their bytes no longer matter:
//!
//! | Offset | Size | Field         | Meaning                                                     |
//! |-------:|-----:|---------------|-------------------------------------------------------------|
//! |      0 |    1 | `tag`         | 3                                                           |
//! |      1 |    3 | `reserved`    | Zero                                                        |
//! |      4 |    4 | `first`       | Number of the first page                                    |
//! |      8 |    4 | `page_count`  | Pages of the run, at least 1                                |
//!
//! Runs of blocks ascend, do not overlap, hold at least one block and lie inside the page. Runs of
//! pages have no page with a fixed use, and no change is of a meta page or of one behind the last
//! whole group. A run that holds a value has the layout of an overflow run, and its length.

use crate::ids::PageId;

use super::{
    blocks::{BLOCK_SIZE, ChangedBlocks},
    bytes::{get_u16, get_u32, get_u64, is_zero, put_u16},
};

const TAG_PAGE: u8 = 1;
const TAG_RUN: u8 = 2;
const TAG_FREE: u8 = 3;
const FLAG_FROM_ZEROS: u8 = 1;
const PAGE_HEAD_SIZE: usize = 8;
const RUN_HEAD_SIZE: usize = 24;
const FREE_HEAD_SIZE: usize = 12;
const BLOCKS_HEAD_SIZE: usize = 4;
const _: () = assert!(PAGE_HEAD_SIZE == 1 + 1 + 2 + 4);
const _: () = assert!(RUN_HEAD_SIZE == 1 + 3 + 4 + 4 + 4 + 8);
const _: () = assert!(FREE_HEAD_SIZE == 1 + 3 + 4 + 4);

/// One change of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageChange<'a> {
    /// Blocks of one page.
    Page {
        /// Number of the page.
        id: PageId,
        /// Whether the page is zero before the blocks are put in; else it keeps its other bytes.
        from_zeros: bool,
        /// The blocks.
        blocks: BlockRuns<'a>,
    },
    /// A run of pages, whole.
    Run {
        /// Number of the first page.
        first: PageId,
        /// Pages of the run.
        page_count: u32,
        /// Its bytes from the start; the rest of the run is zero.
        bytes: &'a [u8],
    },
    /// A run of pages that became free.
    Free {
        /// Number of the first page.
        first: PageId,
        /// Pages of the run.
        page_count: u32,
    },
}

/// Changed blocks of one page, as stored; verified when they were decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRuns<'a> {
    bytes: &'a [u8],
}

impl<'a> BlockRuns<'a> {
    /// Byte offset in the page and bytes of each run, ascending.
    pub fn runs(&self) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (offset, bytes, behind) = split_blocks(rest)?;
            rest = behind;
            Some((offset, bytes))
        })
    }
}

/// Cuts the first run of blocks off: its offset in the page, its bytes, and what is behind it.
#[inline]
fn split_blocks(bytes: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(BLOCKS_HEAD_SIZE)?;
    let len = usize::from(get_u16(head, 2)) * BLOCK_SIZE;
    let (run, behind) = rest.split_at_checked(len)?;
    Some((usize::from(get_u16(head, 0)) * BLOCK_SIZE, run, behind))
}

/// Appends the changed blocks of a page. With `from_zeros`, blocks that are all zero are left out.
///
/// # Panics
/// If a changed block lies past the end of the page.
#[allow(clippy::indexing_slicing, reason = "the writer notes blocks of its own page")]
pub fn encode_page(
    out: &mut Vec<u8>,
    id: PageId,
    from_zeros: bool,
    changed: &ChangedBlocks,
    page: &[u8],
) {
    let head = out.len();
    out.extend_from_slice(&[TAG_PAGE, u8::from(from_zeros) * FLAG_FROM_ZEROS, 0, 0]);
    out.extend_from_slice(&id.0.to_le_bytes());
    let mut run_count = 0;
    for (offset, len) in changed.runs() {
        let run = &page[offset..offset + len];
        if from_zeros {
            run_count += encode_nonzero(out, offset, run);
        } else {
            encode_blocks(out, offset, run);
            run_count += 1;
        }
    }
    put_u16(out, head + 2, run_count);
}

/// Appends the parts of a run that are not zero; returns how many.
#[allow(clippy::indexing_slicing, reason = "runs are cut from a run by its own length")]
fn encode_nonzero(out: &mut Vec<u8>, offset: usize, run: &[u8]) -> u16 {
    let mut count = 0;
    let mut at = 0;
    while at < run.len() {
        let len =
            run[at..].chunks(BLOCK_SIZE).take_while(|b| !is_zero_block(b)).count() * BLOCK_SIZE;
        let end = (at + len).min(run.len());
        if end > at {
            encode_blocks(out, offset + at, &run[at..end]);
            count += 1;
        }
        at = end + BLOCK_SIZE;
    }
    count
}

/// As `is_zero`, without a loop for whole blocks: this runs over every new page.
#[inline]
fn is_zero_block(block: &[u8]) -> bool {
    block.first_chunk::<BLOCK_SIZE>().map_or(is_zero(block), |b| u128::from_le_bytes(*b) == 0)
}

fn encode_blocks(out: &mut Vec<u8>, offset: usize, run: &[u8]) {
    let narrow = |n: usize| u16::try_from(n / BLOCK_SIZE).expect("a page has few blocks");
    out.extend_from_slice(&narrow(offset).to_le_bytes());
    out.extend_from_slice(&narrow(run.len()).to_le_bytes());
    out.extend_from_slice(run);
}

/// Appends a run of pages that begins with `bytes` and is zero behind them.
pub fn encode_run(out: &mut Vec<u8>, first: PageId, page_count: u32, bytes: &[u8]) {
    out.extend_from_slice(&[TAG_RUN, 0, 0, 0]);
    out.extend_from_slice(&first.0.to_le_bytes());
    out.extend_from_slice(&page_count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends a run of pages that became free.
pub fn encode_free(out: &mut Vec<u8>, first: PageId, page_count: u32) {
    out.extend_from_slice(&[TAG_FREE, 0, 0, 0]);
    out.extend_from_slice(&first.0.to_le_bytes());
    out.extend_from_slice(&page_count.to_le_bytes());
}

/// Cuts the first change off stored bytes, verified for pages of `page_size` bytes; returns it and
/// what is behind it, or the broken rule.
///
/// # Errors
/// The rule that the bytes break.
pub fn split_change(
    bytes: &[u8],
    page_size: usize,
) -> Result<(PageChange<'_>, &[u8]), &'static str> {
    match bytes.first() {
        Some(&TAG_PAGE) => split_page(bytes, page_size),
        Some(&TAG_RUN) => split_run(bytes, page_size),
        Some(&TAG_FREE) => split_free(bytes),
        Some(_) => Err("unknown kind of page change"),
        None => Err("it holds fewer page changes than it says"),
    }
}

fn split_page(bytes: &[u8], page_size: usize) -> Result<(PageChange<'_>, &[u8]), &'static str> {
    let (head, all) =
        bytes.split_first_chunk::<PAGE_HEAD_SIZE>().ok_or("a page change is cut off")?;
    if head[1] & !FLAG_FROM_ZEROS != 0 {
        return Err("unknown flags of a page change");
    }
    let (mut rest, mut page_end) = (all, 0);
    for _ in 0..get_u16(head, 2) {
        let (offset, run, behind) = split_blocks(rest).ok_or("changed blocks are cut off")?;
        if run.is_empty() || offset < page_end || offset + run.len() > page_size {
            return Err("changed blocks lie outside their page or overlap");
        }
        (rest, page_end) = (behind, offset + run.len());
    }
    let change = PageChange::Page {
        id: PageId(get_u32(head, 4)),
        from_zeros: head[1] & FLAG_FROM_ZEROS != 0,
        blocks: BlockRuns { bytes: all.get(..all.len() - rest.len()).unwrap_or(&[]) },
    };
    Ok((change, rest))
}

fn split_run(bytes: &[u8], page_size: usize) -> Result<(PageChange<'_>, &[u8]), &'static str> {
    let (head, rest) =
        bytes.split_first_chunk::<RUN_HEAD_SIZE>().ok_or("a run of pages is cut off")?;
    let (first, page_count) = page_range(head)?;
    if !is_zero(&head[12..16]) {
        return Err("reserved bytes of a page change are not zero");
    }
    let byte_len = get_u64(head, 16);
    if byte_len > u64::from(page_count) * page_size as u64 {
        return Err("a run of pages is shorter than its bytes");
    }
    let (bytes, rest) = usize::try_from(byte_len)
        .ok()
        .and_then(|len| rest.split_at_checked(len))
        .ok_or("a run of pages is cut off")?;
    Ok((PageChange::Run { first, page_count, bytes }, rest))
}

fn split_free(bytes: &[u8]) -> Result<(PageChange<'_>, &[u8]), &'static str> {
    let (head, rest) = bytes.split_at_checked(FREE_HEAD_SIZE).ok_or("a page change is cut off")?;
    let (first, page_count) = page_range(head)?;
    Ok((PageChange::Free { first, page_count }, rest))
}

fn page_range(head: &[u8]) -> Result<(PageId, u32), &'static str> {
    let (first, page_count) = (get_u32(head, 4), get_u32(head, 8));
    if !head.get(1..4).is_some_and(is_zero) {
        return Err("reserved bytes of a page change are not zero");
    }
    if page_count == 0 || first.checked_add(page_count).is_none() {
        return Err("a run of pages is empty or passes the highest page number");
    }
    Ok((PageId(first), page_count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<u8> {
        (0..4096u32).map(|i| (i / 16 + 1) as u8).collect()
    }

    #[test]
    fn page_changes_have_these_bytes() {
        let mut changed = ChangedBlocks::new();
        changed.note(17, 2);
        let mut out = Vec::new();
        encode_page(&mut out, PageId(0x0102_0304), false, &changed, &page());
        encode_run(&mut out, PageId(5), 2, b"abc");
        encode_free(&mut out, PageId(6), 7);
        let mut golden = vec![1, 0, 1, 0, 4, 3, 2, 1, 1, 0, 1, 0];
        golden.extend([2; 16]);
        golden.extend([2, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([3, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', b'c']);
        golden.extend([3, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(out, golden);
    }

    #[test]
    fn page_from_zeros_leaves_its_zero_blocks_out() {
        let mut page = page();
        page[32..64].fill(0);
        page[4080..].fill(0);
        let mut changed = ChangedBlocks::new();
        changed.note(0, 100);
        changed.note(4064, 32);
        let mut out = Vec::new();
        encode_page(&mut out, PageId(1), true, &changed, &page);
        let (change, rest) = split_change(&out, 4096).expect("valid");
        let PageChange::Page { from_zeros: true, blocks, .. } = change else {
            panic!("{change:?}")
        };
        let runs: Vec<_> = blocks.runs().map(|(offset, run)| (offset, run.len())).collect();
        assert_eq!(runs, [(0, 32), (64, 48), (4064, 16)]);
        assert!(rest.is_empty());
    }

    #[test]
    fn every_cut_or_hostile_length_is_an_error_and_not_a_panic() {
        let mut changed = ChangedBlocks::new();
        changed.note(0, 4096);
        let mut out = Vec::new();
        encode_page(&mut out, PageId(9), false, &changed, &page());
        for cut in 0..out.len() {
            assert!(split_change(&out[..cut], 4096).is_err(), "cut at {cut}");
        }
        assert!(split_change(&out, 4080).is_err());
        let hostile: [&[u8]; 8] = [
            &[1, 2, 0, 0, 0, 0, 0, 0],
            &[1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            &[1, 0, 1, 0, 0, 0, 0, 0, 255, 255, 255, 255],
            &[
                2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255,
                255,
            ],
            &[3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 255, 255, 255, 255, 1, 0, 0, 0],
            &[3, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
            &[4, 0, 0, 0],
        ];
        for bytes in hostile {
            assert!(split_change(bytes, 4096).is_err(), "{bytes:?}");
        }
    }
}
