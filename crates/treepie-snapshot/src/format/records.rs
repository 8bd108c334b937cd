//! Content of a frame of records.
//!
//! | Offset | Size | Field    | Meaning                                                             |
//! |-------:|-----:|----------|---------------------------------------------------------------------|
//! |      0 |    8 | `lsn`    | The record that the frame begins with                               |
//! |      8 |    8 | `offset` | Where in that record: 0, or as much of it as earlier frames hold    |
//! |     16 |      | bytes    | Records, back to back, as in a journal (see there)                  |
//!
//! A record is as long as its own header says: 128 bytes and `stored_len`. One that does not fit is cut
//! over several frames; its header never is. LSNs have no gap, the first one follows `lsn` of the
//! stream header, and each record holds the chain hash of the one before it.

use treepie::{ids::Lsn, limits::RECORD_LEN_MAX};

use super::{
    bytes::{get_array, get_u16, get_u64},
    header::Position,
};

/// Bytes before the records.
pub const RECORDS_START: usize = 16;
/// Bytes of the header of a record.
pub const RECORD_HEADER_SIZE: usize = 128;
/// Newest version of a record that this build reads.
pub const RECORD_VERSION: u16 = 1;

/// The bytes before the records.
#[must_use]
pub fn encode_start(lsn: Lsn, offset: u64) -> [u8; RECORDS_START] {
    let mut bytes = [0; RECORDS_START];
    super::bytes::put_u64(&mut bytes, 0, lsn.0);
    super::bytes::put_u64(&mut bytes, 8, offset);
    bytes
}

/// The record that a frame begins with, and where in it.
///
/// # Errors
/// The broken rule.
pub fn decode_start(content: &[u8]) -> Result<(Lsn, u64), &'static str> {
    if content.len() <= RECORDS_START {
        return Err("it holds no records");
    }
    Ok((Lsn(get_u64(content, 0)), get_u64(content, 8)))
}

/// What a stream must know of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Format version.
    pub version: u16,
    /// Its number.
    pub lsn: Lsn,
    /// Chain hash of the record before it.
    pub chain_before: u64,
    /// Bytes of the record.
    pub len: u64,
    /// Wall clock when it was sealed.
    pub time_us: u64,
}

impl RecordHead {
    /// Reads what the first bytes of a record say. Of a newer version only `version` means something.
    ///
    /// # Errors
    /// The broken rule.
    pub fn decode(bytes: &[u8]) -> Result<RecordHead, &'static str> {
        if bytes.len() < RECORD_HEADER_SIZE {
            return Err("the header of a record is cut");
        }
        if get_array(bytes, 0) != *b"TPRC" {
            return Err("no record begins where one should");
        }
        let (version, stored_len) = (get_u16(bytes, 8), get_u64(bytes, 40));
        if version <= RECORD_VERSION && stored_len > RECORD_LEN_MAX {
            return Err("a record is longer than any can be");
        }
        Ok(RecordHead {
            version,
            lsn: Lsn(get_u64(bytes, 16)),
            chain_before: get_u64(bytes, 32),
            len: stored_len.saturating_add(RECORD_HEADER_SIZE as u64),
            time_us: get_u64(bytes, 64),
        })
    }

    /// Whether it comes right after a position.
    #[must_use]
    pub fn follows(&self, position: &Position) -> bool {
        self.lsn.0.checked_sub(1) == Some(position.lsn.0) && self.chain_before == position.chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_these_bytes() {
        let start = encode_start(Lsn(0x0102), 0x0304);
        assert_eq!(start, [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0]);
        assert!(decode_start(&start).is_err(), "a frame without records");
        let content = [&start[..], &[0]].concat();
        assert_eq!(decode_start(&content), Ok((Lsn(0x0102), 0x0304)));
    }

    #[test]
    fn length_of_a_record_is_bounded_and_its_header_whole() {
        let mut record = vec![0; RECORD_HEADER_SIZE];
        record[..4].copy_from_slice(b"TPRC");
        record[8] = 1;
        record[16] = 7;
        record[32] = 9;
        record[40] = 5;
        let head = RecordHead::decode(&record).expect("it is valid");
        assert_eq!((head.lsn, head.chain_before, head.len), (Lsn(7), 9, 133));
        assert!(head.follows(&Position { lsn: Lsn(6), chain: 9 }));
        assert!(!head.follows(&Position { lsn: Lsn(6), chain: 8 }));
        assert!(!head.follows(&Position { lsn: Lsn(7), chain: 9 }));
        record[47] = 1;
        assert!(RecordHead::decode(&record).is_err());
        assert!(RecordHead::decode(&record[..127]).is_err());
    }
}
