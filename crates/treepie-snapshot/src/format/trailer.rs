//! Trailer: the content of a stream's last frame, 160 bytes, never compressed.
//!
//! | Offset | Size | Field           | Meaning                                                      |
//! |-------:|-----:|-----------------|--------------------------------------------------------------|
//! |      0 |    8 | `frame_count`   | Frames before this one                                       |
//! |      8 |    8 | `page_count`    | Pages in them                                                |
//! |     16 |    8 | `record_count`  | Records in them                                              |
//! |     24 |    8 | `raw_len`       | Bytes of their content                                       |
//! |     32 |    8 | `last_lsn`      | LSN of the last record; of the stream's header if there is none |
//! |     40 |    8 | `last_chain`    | Chain hash of the record with that LSN                       |
//! |     48 |    8 | `first_time_us` | Wall clock of the first record; of the header if there is none |
//! |     56 |    8 | `last_time_us`  | Wall clock of the last record; of the header if there is none |
//! |     64 |   32 | `digest`        | BLAKE3 over everything, see below                            |
//! |     96 |   32 | `page_hash`     | BLAKE3 over the pages, see below                             |
//! |    128 |   32 | `reserved`      | Zero; anything else is corruption                            |
//!
//! The **page hash** is that of a set of pages, however they are stored: it can be computed from a
//! database, and by several threads. Pages are taken in groups of 128 numbers, group `g` beginning at
//! page `g` × 128. The hash of a group is the BLAKE3 of the bytes of those of its pages that are in the
//! set, ascending, and then of their numbers (u32). The page hash is the BLAKE3 of, for each group that
//! has pages in the set, ascending, its number (u32) and its hash.
//!
//! The **digest** is the BLAKE3 of the stream header, and then, for each frame but this one, of its kind
//! (u8), `raw_len` (u32) and content hash. The content hash of records is the BLAKE3 of the content.
//! That of pages is the BLAKE3 of the content behind the pages (extents and count) and of the hashes of
//! the groups, ascending; they cover the pages, so that no byte is hashed twice.

use treepie::ids::Lsn;

use super::{
    bytes::{get_array, get_u64, is_zero, put_array, put_u64},
    header::Position,
};
use crate::{error::StreamDamage, hash::Digest};

/// Size of the trailer in bytes.
pub const TRAILER_SIZE: usize = 160;
const RESERVED_OFFSET: usize = 128;
const _: () = assert!(RESERVED_OFFSET == 8 * 8 + 2 * 32);

/// What a stream holds, told at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trailer {
    /// Frames, the trailer not counted.
    pub frame_count: u64,
    /// Pages.
    pub page_count: u64,
    /// Records.
    pub record_count: u64,
    /// Bytes of the content of all frames.
    pub raw_len: u64,
    /// Where the stream ends.
    pub last: Position,
    /// Wall clock of its first record, microseconds since 1970.
    pub first_time_us: u64,
    /// Wall clock of its last record, microseconds since 1970.
    pub last_time_us: u64,
    /// Hash of everything.
    pub digest: Digest,
    /// Hash of the pages.
    pub page_hash: Digest,
}

impl Trailer {
    /// The trailer as it is stored.
    #[must_use]
    pub fn encode(&self) -> [u8; TRAILER_SIZE] {
        let mut bytes = [0; TRAILER_SIZE];
        let words = [
            self.frame_count,
            self.page_count,
            self.record_count,
            self.raw_len,
            self.last.lsn.0,
            self.last.chain,
            self.first_time_us,
            self.last_time_us,
        ];
        for (index, word) in words.into_iter().enumerate() {
            put_u64(&mut bytes, index * 8, word);
        }
        put_array(&mut bytes, 64, &self.digest.0);
        put_array(&mut bytes, 96, &self.page_hash.0);
        bytes
    }

    /// Reads a trailer.
    ///
    /// # Errors
    /// [`StreamDamage::Layout`].
    pub fn decode(bytes: &[u8]) -> Result<Trailer, StreamDamage> {
        let Some(bytes) =
            bytes.first_chunk::<TRAILER_SIZE>().filter(|_| bytes.len() == TRAILER_SIZE)
        else {
            return Err(StreamDamage::Layout("the trailer has another length"));
        };
        if !is_zero(bytes.get(RESERVED_OFFSET..).unwrap_or(&[1])) {
            return Err(StreamDamage::Layout("reserved bytes of the trailer are not zero"));
        }
        let word = |index: usize| get_u64(bytes, index * 8);
        Ok(Trailer {
            frame_count: word(0),
            page_count: word(1),
            record_count: word(2),
            raw_len: word(3),
            last: Position { lsn: Lsn(word(4)), chain: word(5) },
            first_time_us: word(6),
            last_time_us: word(7),
            digest: Digest(get_array(bytes, 64)),
            page_hash: Digest(get_array(bytes, 96)),
        })
    }

    /// Compares with what was counted; the first difference is named.
    ///
    /// # Errors
    /// [`StreamDamage::Trailer`].
    pub fn compare(&self, counted: &Trailer) -> Result<(), StreamDamage> {
        let differences = [
            ("the number of frames", self.frame_count != counted.frame_count),
            ("the number of pages", self.page_count != counted.page_count),
            ("the number of records", self.record_count != counted.record_count),
            ("the length", self.raw_len != counted.raw_len),
            ("the last LSN", self.last.lsn != counted.last.lsn),
            ("the chain hash", self.last.chain != counted.last.chain),
            ("the time of the first record", self.first_time_us != counted.first_time_us),
            ("the time of the last record", self.last_time_us != counted.last_time_us),
            ("the page hash", self.page_hash != counted.page_hash),
            ("the digest", self.digest != counted.digest),
        ];
        match differences.iter().find(|(_, differs)| *differs) {
            Some(&(what, _)) => Err(StreamDamage::Trailer { what }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer() -> Trailer {
        Trailer {
            frame_count: 1,
            page_count: 2,
            record_count: 3,
            raw_len: 4,
            last: Position { lsn: Lsn(5), chain: 6 },
            first_time_us: 7,
            last_time_us: 8,
            digest: Digest([0x99; 32]),
            page_hash: Digest([0xaa; 32]),
        }
    }

    #[test]
    fn trailer_has_these_bytes() {
        let bytes = trailer().encode();
        for (index, word) in bytes[..64].chunks(8).enumerate() {
            assert_eq!(word, (index as u64 + 1).to_le_bytes());
        }
        assert_eq!(bytes[64..96], [0x99; 32]);
        assert_eq!(bytes[96..128], [0xaa; 32]);
        assert!(is_zero(&bytes[128..]));
        assert_eq!(Trailer::decode(&bytes), Ok(trailer()));
        assert!(Trailer::decode(&bytes[..159]).is_err());
        assert!(Trailer::decode(&[&bytes[..], &[0]].concat()).is_err());
        for offset in 128..160 {
            let mut bytes = bytes;
            bytes[offset] = 1;
            assert!(Trailer::decode(&bytes).is_err(), "byte {offset}");
        }
    }

    #[test]
    fn every_difference_from_what_was_counted_is_found() {
        let bytes = trailer().encode();
        for offset in 0..128 {
            let mut bytes = bytes;
            bytes[offset] ^= 1;
            let other = Trailer::decode(&bytes).expect("any value can be told");
            assert!(other.compare(&trailer()).is_err(), "byte {offset}");
        }
        assert_eq!(trailer().compare(&trailer()), Ok(()));
    }
}
