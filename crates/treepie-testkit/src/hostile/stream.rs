//! Streams of snapshots: where their frames are, checksums made right again.
//!
//! Written from `docs/snapshot-format.md`, not with the code of `treepie-snapshot`.

use std::ops::Range;

use super::stamp::{put, stamp_header};

/// Bytes of the header of a stream.
pub const STREAM_HEADER_SIZE: usize = 256;
/// Bytes of the header of a frame.
pub const FRAME_HEADER_SIZE: usize = 64;

/// Where the frames are, as far as their headers can be followed.
#[must_use]
pub fn frames(stream: &[u8]) -> Vec<Range<usize>> {
    let mut frames = Vec::new();
    let mut start = STREAM_HEADER_SIZE;
    while let Some(header) = stream.get(start..start + FRAME_HEADER_SIZE) {
        let word = header.get(32..).and_then(|rest| rest.first_chunk());
        let len = word.map_or(0, |word| u32::from_le_bytes(*word)) as usize;
        let end = (start + FRAME_HEADER_SIZE).saturating_add(len).min(stream.len());
        frames.push(start..end);
        start = end;
    }
    frames
}

/// Stamps the header and all frames.
pub fn stamp_all(stream: &mut [u8]) {
    if let Some(header) = stream.get_mut(..STREAM_HEADER_SIZE) {
        stamp_header(header);
    }
    for range in frames(stream) {
        stamp_frame(stream.get_mut(range).unwrap_or_default());
    }
}

/// Stamps one frame.
pub fn stamp_frame(frame: &mut [u8]) {
    let Some((header, content)) = frame.split_at_mut_checked(FRAME_HEADER_SIZE) else { return };
    put(header, 36, &crc32fast::hash(content).to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(header.get(..4).unwrap_or(&[]));
    crc.update(header.get(8..).unwrap_or(&[]));
    put(header, 4, &crc.finalize().to_le_bytes());
}
