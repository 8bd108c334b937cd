//! Every maximum of the engine, with its reason. Options hold those that a user may choose.

/// Smallest page: one block of the file systems and devices in use.
pub const PAGE_SIZE_MIN: usize = 4096;
/// Largest page: cell offsets are 16 bits wide, and a larger page gains nothing (measured).
pub const PAGE_SIZE_MAX: usize = 8192;
/// Default page size; see `docs/decisions/0004-page-size-and-layout.md`.
pub const PAGE_SIZE_DEFAULT: usize = 8192;
/// Levels of one tree: 16 levels of at least three children each pass 2^32 pages only in trees
/// that no workload makes; a deeper path is damage.
pub const TREE_DEPTH_MAX: usize = 16;
/// Longest tree name in bytes: a catalog key with room for its value in a 4 KiB leaf.
pub const TREE_NAME_LEN_MAX: usize = 512;
/// Largest value in bytes: 1 GiB, a run of pages that one bitmap region always has room for.
pub const VALUE_LEN_MAX: u64 = 1 << 30;
/// Largest stored payload of one record, in bytes. What a reader of the journal will allocate.
pub const RECORD_LEN_MAX: u64 = 3 << 30;
/// Most bytes that compression may save in one record: so many more than it is long a reader of the
/// journal allocates to decompress it. A payload that would save more is stored as it is.
pub const COMPRESSION_SAVED_MAX: usize = 48 << 20;
/// Most bytes of annotations in one transaction, 4 for each of them included.
pub const ANNOTATIONS_LEN_MAX: usize = 16 << 20;
/// Highest LSN, and highest generation of a meta page, that is believed: counting on from what files
/// say cannot overflow, and nobody gets there by committing.
pub const LSN_MAX: u64 = 1 << 63;
/// Highest number of pages: page numbers are 32 bits wide, and the last one is never used.
pub const PAGE_COUNT_MAX: u32 = u32::MAX;
/// Longest outcome of a request that is remembered, in bytes: with as many requests as by default they
/// take 64 MiB at most.
pub const REQUEST_OUTCOME_LEN_MAX: usize = 1024;
/// Most copies at a time: each of them costs every write of the checkpoint a look.
pub const COPIES_MAX: usize = 16;

/// Longest key in bytes for a page size: a quarter of a page, so that every branch page holds at
/// least three separators. 2,000 on 8 KiB pages, 976 on 4 KiB pages.
#[must_use]
pub const fn key_len_max(page_size: usize) -> usize {
    page_size / 4 - 48
}
