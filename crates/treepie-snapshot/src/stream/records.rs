//! Following records: numbers without a gap, an unbroken chain, lengths as their headers say.

use treepie::ids::Lsn;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::reader::RecordPiece;
use crate::format::{
    header::{Position, StreamHeader},
    records::RecordHead,
};

/// The records of a stream up to here.
pub struct RecordTrack {
    /// The last whole record, or where the records begin.
    last: Position,
    count: u64,
    first_time_us: u64,
    last_time_us: u64,
    /// A record of which a part is here.
    open: Option<Open>,
}

struct Open {
    head: RecordHead,
    seen: u64,
    /// Hash of what was seen; `None` for a record that comes as a whole.
    hash: Option<Box<Xxh3>>,
}

impl RecordTrack {
    pub fn new(header: &StreamHeader) -> RecordTrack {
        let time_us = header.time_us;
        RecordTrack {
            last: header.position,
            count: 0,
            first_time_us: time_us,
            last_time_us: time_us,
            open: None,
        }
    }

    /// The last whole record.
    pub fn last(&self) -> Position {
        self.last
    }

    /// Whole records.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Wall clock of the first and of the last record.
    pub fn times_us(&self) -> (u64, u64) {
        (self.first_time_us, self.last_time_us)
    }

    /// The record that more bytes must come of: its number, how many there were, how many there are.
    pub fn open(&self) -> Option<(Lsn, u64, u64)> {
        self.open.as_ref().map(|open| (open.head.lsn, open.seen, open.head.len))
    }

    /// Begins a record that follows the last one.
    pub fn begin(&mut self, head: RecordHead) {
        self.open = Some(Open { head, seen: 0, hash: None });
    }

    /// Takes the next bytes of the record that was begun, at most so many as it still has.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(open) = &mut self.open else { return };
        let is_whole = bytes.len() as u64 == open.head.len;
        let len = open.seen + bytes.len() as u64;
        let chain = if is_whole {
            xxh3_64(bytes)
        } else {
            let hash = open.hash.get_or_insert_default();
            hash.update(bytes);
            if len < open.head.len {
                open.seen = len;
                return;
            }
            hash.digest()
        };
        self.last = Position { lsn: open.head.lsn, chain };
        self.last_time_us = open.head.time_us;
        if self.count == 0 {
            self.first_time_us = open.head.time_us;
        }
        self.count += 1;
        self.open = None;
    }
}

/// Makes whole records of pieces. One that comes as a whole is not copied; of the others as much is in
/// memory as has come.
#[derive(Debug, Default)]
pub struct RecordBuffer {
    bytes: Vec<u8>,
}

impl RecordBuffer {
    /// Holds nothing.
    #[must_use]
    pub fn new() -> RecordBuffer {
        RecordBuffer::default()
    }

    /// Takes a piece, and returns the record if it is complete with it. The pieces of a record come in
    /// their order, as a reader gives them.
    pub fn push<'a>(&'a mut self, piece: &RecordPiece<'a>) -> Option<(Lsn, &'a [u8])> {
        if piece.offset == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(1 << 20);
            if piece.is_whole() {
                return Some((piece.lsn, piece.bytes));
            }
        }
        self.bytes.extend_from_slice(piece.bytes);
        (self.bytes.len() as u64 == piece.record_len).then_some((piece.lsn, &self.bytes[..]))
    }
}
