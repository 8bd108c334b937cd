//! Checksums made right again: what a fuzzer writes gets past them, to what they protect.
//!
//! This is written from `docs/format.md`, not with the engine's code, which is private.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a page in all hostile databases, and of a block of the journal.
pub const PAGE_SIZE: usize = 4096;
/// Bytes of a frame.
pub const FRAME_SIZE: usize = 32;
/// Bytes of the header of a record.
pub const RECORD_HEADER_SIZE: usize = 128;

/// Which kind of file bytes are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The data file.
    Data,
    /// A segment of the journal.
    Segment,
    /// Any other.
    Other,
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let word = bytes.get(offset..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

/// The `u64` at an offset; 0 behind the end.
#[must_use]
pub fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let word = bytes.get(offset..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

/// Puts bytes where there is room for all of them.
pub fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(offset..).and_then(|rest| rest.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}

/// CRC-32 of bytes, four of them left out.
fn crc_without(bytes: &[u8], hole: usize) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(..hole).unwrap_or(bytes));
    crc.update(bytes.get(hole + 4..).unwrap_or(&[]));
    crc.finalize()
}

/// Stamps a meta page, or the header of a segment: the checksum is at byte 12 of both.
pub fn stamp_header(block: &mut [u8]) {
    let crc = crc_without(block, 12);
    put(block, 12, &crc.to_le_bytes());
}

/// Stamps a page, or a whole run.
pub fn stamp_page(page: &mut [u8]) {
    let crc = crc32fast::hash(page.get(4..).unwrap_or(&[]));
    put(page, 0, &crc.to_le_bytes());
}

/// Stamps a record.
pub fn stamp_record(record: &mut [u8]) {
    put(record, 4, &[0; 4]);
    let crc = crc32fast::hash(record);
    put(record, 4, &crc.to_le_bytes());
}

/// Stamps a frame, whose record is stamped already.
pub fn stamp_frame(frame: &mut [u8], record_checksum: u32) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(frame.get(..4).unwrap_or(&[]));
    crc.update(frame.get(8..FRAME_SIZE).unwrap_or(&[]));
    crc.update(&record_checksum.to_le_bytes());
    put(frame, 4, &crc.finalize().to_le_bytes());
}

/// Stamps everything in a file that looks as if it had a checksum: pages with their runs, frames,
/// and records, whose chain is made whole too.
pub fn stamp_file(kind: FileKind, bytes: &mut [u8]) {
    match kind {
        FileKind::Data => stamp_pages(bytes),
        FileKind::Segment => stamp_segment(bytes),
        FileKind::Other => {}
    }
}

fn stamp_pages(bytes: &mut [u8]) {
    let page_count = bytes.len() / PAGE_SIZE;
    let mut page = 0;
    while page < page_count {
        let start = page * PAGE_SIZE;
        let pages = match page {
            0 | 1 => 1,
            _ if bytes[start + 16] == 3 => run_pages(u64_at(bytes, start + 24)),
            _ => 1,
        };
        let end = (page + pages).min(page_count) * PAGE_SIZE;
        let piece = &mut bytes[start..end];
        // A page of zeros was never written: a checksum would not make it valid.
        if page < 2 {
            stamp_header(piece);
        } else if piece.iter().any(|byte| *byte != 0) {
            stamp_page(piece);
        }
        page += pages;
    }
}

/// Pages of the run of a value; 1 where the length is impossible.
fn run_pages(value_len: u64) -> usize {
    let pages = value_len.saturating_add(32).div_ceil(PAGE_SIZE as u64);
    usize::try_from(pages).ok().filter(|pages| *pages <= 1024).unwrap_or(1)
}

fn stamp_segment(bytes: &mut [u8]) {
    if let Some(header) = bytes.get_mut(..PAGE_SIZE) {
        stamp_header(header);
    }
    let mut chain = u64_at(bytes, 56);
    let mut at = PAGE_SIZE;
    while at + FRAME_SIZE + RECORD_HEADER_SIZE <= bytes.len() {
        if !bytes[at..].starts_with(b"TPFR") {
            at = (at + 1).next_multiple_of(PAGE_SIZE);
            continue;
        }
        let len = usize::try_from(u32_at(bytes, at + 16)).unwrap_or(usize::MAX);
        let end = (at + FRAME_SIZE).saturating_add(len);
        let Some(piece) = bytes.get_mut(at..end).filter(|_| len >= RECORD_HEADER_SIZE) else {
            at = (at + 1).next_multiple_of(PAGE_SIZE);
            continue;
        };
        let (frame, record) = piece.split_at_mut(FRAME_SIZE);
        chain = stamp_frame_and_record(frame, record, chain);
        at = end.next_multiple_of(8);
    }
}

/// Makes a record continue a chain, stamps it and its frame; returns its chain hash.
pub fn stamp_frame_and_record(frame: &mut [u8], record: &mut [u8], chain: u64) -> u64 {
    put(record, 32, &chain.to_le_bytes());
    stamp_record(record);
    stamp_frame(frame, u32_at(record, 4));
    xxh3_64(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::template;

    /// Where this file and the engine disagree on a checksum, the fuzzer would never get past it.
    #[test]
    fn stamps_leave_the_files_of_a_real_database_as_they_are() {
        for template in template::all() {
            for file in &template.files {
                let mut bytes = file.bytes.clone();
                stamp_file(file.kind, &mut bytes);
                assert!(bytes == file.bytes, "{:?} of {}", file.path, template.name);
            }
        }
    }
}
