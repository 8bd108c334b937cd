//! What is known of a whole stream.

use crate::{
    format::{
        header::{Coding, Position, StreamHeader},
        trailer::Trailer,
    },
    hash::Digest,
};

/// A whole stream, written or verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// What it says of its content.
    pub header: StreamHeader,
    /// How its bytes are made.
    pub coding: Coding,
    /// Frames, without the trailer.
    pub frame_count: u64,
    /// Pages in it.
    pub page_count: u64,
    /// Records in it.
    pub record_count: u64,
    /// Bytes of its content, not compressed.
    pub raw_len: u64,
    /// Bytes of the stream.
    pub stored_len: u64,
    /// Where it ends: its last record, or its header's position if it has no records.
    pub last: Position,
    /// Wall clock of its first record, microseconds since 1970.
    pub first_time_us: u64,
    /// Wall clock of its last record.
    pub last_time_us: u64,
    /// Hash of everything.
    pub digest: Digest,
    /// Hash of its pages, as [`PageHasher`](crate::PageHasher) computes it.
    pub page_hash: Digest,
}

impl StreamSummary {
    pub(super) fn new(
        header: StreamHeader,
        coding: Coding,
        trailer: &Trailer,
        stored_len: u64,
    ) -> StreamSummary {
        StreamSummary {
            header,
            coding,
            frame_count: trailer.frame_count,
            page_count: trailer.page_count,
            record_count: trailer.record_count,
            raw_len: trailer.raw_len,
            stored_len,
            last: trailer.last,
            first_time_us: trailer.first_time_us,
            last_time_us: trailer.last_time_us,
            digest: trailer.digest,
            page_hash: trailer.page_hash,
        }
    }
}
