//! Frame header: the 64 bytes before each piece of content.
//!
//! | Offset | Size | Field              | Meaning                                                    |
//! |-------:|-----:|--------------------|------------------------------------------------------------|
//! |      0 |    4 | `magic`            | `TPSF`                                                     |
//! |      4 |    4 | `checksum`         | CRC-32 of this header but these 4 bytes                    |
//! |      8 |    8 | `stream`           | First 8 bytes of the stream's id                           |
//! |     16 |    8 | `sequence`         | Number of the frame, from 0 without gaps                   |
//! |     24 |    1 | `kind`             | 1 pages, 2 records, 3 trailer: the last frame              |
//! |     25 |    1 | `flags`            | Bit 0: the content is compressed                           |
//! |     26 |    2 | `reserved`         | Zero                                                       |
//! |     28 |    4 | `raw_len`          | Bytes of the content                                       |
//! |     32 |    4 | `stored_len`       | Bytes of the content as stored, behind this header         |
//! |     36 |    4 | `content_checksum` | CRC-32 of the stored bytes                                 |
//! |     40 |   16 | `tag`              | Encrypted: tag of Poly1305; otherwise zero                 |
//! |     56 |    8 | `reserved`         | Zero; anything else is corruption                          |
//!
//! Content is compressed first, where that makes it shorter, then encrypted. The nonce is `sequence`,
//! then 1 for the trailer and 0 for others, then 15 zeros: each stream has its own key. The associated
//! data are the 256 bytes of the stream header and bytes 8 to 36 of this one.

use super::bytes::{get_array, get_u16, get_u32, get_u64, put_array, put_u32, put_u64};
use crate::error::StreamDamage;

/// Size of a frame's header in bytes.
pub const FRAME_HEADER_SIZE: usize = 64;

const MAGIC: [u8; 4] = *b"TPSF";
const CHECKSUM_OFFSET: usize = 4;
const FLAG_COMPRESSED: u8 = 1;
const _: () = assert!(FRAME_HEADER_SIZE == 4 + 4 + 8 + 8 + 1 + 1 + 2 + 3 * 4 + 16 + 8);

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Pages.
    Pages = 1,
    /// Records.
    Records = 2,
    /// The end of the stream.
    Trailer = 3,
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// First bytes of the id of the stream.
    pub stream: [u8; 8],
    /// Number of the frame.
    pub sequence: u64,
    /// What it holds.
    pub kind: FrameKind,
    /// Whether the content is compressed.
    pub is_compressed: bool,
    /// Bytes of the content.
    pub raw_len: u32,
    /// Bytes of the content as stored.
    pub stored_len: u32,
    /// Checksum of the stored bytes.
    pub content_checksum: u32,
    /// Authentication of the content, where it is encrypted.
    pub tag: [u8; 16],
}

impl FrameHeader {
    /// The header as it is stored.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "the offsets are those of an array")]
    pub fn encode(&self) -> [u8; FRAME_HEADER_SIZE] {
        let mut bytes = [0; FRAME_HEADER_SIZE];
        put_array(&mut bytes, 0, &MAGIC);
        put_array(&mut bytes, 8, &self.stream);
        put_u64(&mut bytes, 16, self.sequence);
        bytes[24] = self.kind as u8;
        bytes[25] = if self.is_compressed { FLAG_COMPRESSED } else { 0 };
        put_u32(&mut bytes, 28, self.raw_len);
        put_u32(&mut bytes, 32, self.stored_len);
        put_u32(&mut bytes, 36, self.content_checksum);
        put_array(&mut bytes, 40, &self.tag);
        let checksum = checksum(&bytes);
        put_u32(&mut bytes, CHECKSUM_OFFSET, checksum);
        bytes
    }

    /// Reads the header of a frame, of whichever stream and number.
    ///
    /// # Errors
    /// What is wrong with it.
    #[allow(clippy::indexing_slicing, reason = "the offsets are those of an array")]
    pub fn decode(bytes: &[u8; FRAME_HEADER_SIZE]) -> Result<FrameHeader, StreamDamage> {
        let layout = |what| Err(StreamDamage::Layout(what));
        if get_array(bytes, 0) != MAGIC {
            return layout("no frame begins here");
        }
        let (stored, computed) = (get_u32(bytes, CHECKSUM_OFFSET), checksum(bytes));
        if stored != computed {
            return Err(StreamDamage::Checksum { stored, computed });
        }
        if bytes[25] & !FLAG_COMPRESSED != 0 {
            return layout("unknown flags");
        }
        if get_u16(bytes, 26) != 0 || get_u64(bytes, 56) != 0 {
            return layout("reserved bytes are not zero");
        }
        let kind = match bytes[24] {
            1 => FrameKind::Pages,
            2 => FrameKind::Records,
            3 => FrameKind::Trailer,
            _ => return layout("unknown kind of frame"),
        };
        let header = FrameHeader {
            stream: get_array(bytes, 8),
            sequence: get_u64(bytes, 16),
            kind,
            is_compressed: bytes[25] & FLAG_COMPRESSED != 0,
            raw_len: get_u32(bytes, 28),
            stored_len: get_u32(bytes, 32),
            content_checksum: get_u32(bytes, 36),
            tag: get_array(bytes, 40),
        };
        match header.is_compressed {
            true if header.stored_len >= header.raw_len => layout("compression made it longer"),
            false if header.stored_len != header.raw_len => layout("it has two lengths"),
            _ => Ok(header),
        }
    }

    /// What is authenticated along with the content: where it belongs, and how long it is.
    #[cfg(any(feature = "encryption", test))]
    #[must_use]
    pub fn place(&self) -> [u8; 28] {
        let bytes = FrameHeader { content_checksum: 0, tag: [0; 16], ..*self }.encode();
        get_array(&bytes, 8)
    }
}

#[allow(clippy::indexing_slicing, reason = "the offsets are those of an array")]
fn checksum(bytes: &[u8; FRAME_HEADER_SIZE]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..CHECKSUM_OFFSET]);
    crc.update(&bytes[CHECKSUM_OFFSET + 4..]);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            stream: [0x11; 8],
            sequence: 0x2122_2324_2526_2728,
            kind: FrameKind::Records,
            is_compressed: true,
            raw_len: 0x0032_3334,
            stored_len: 0x0002_4344,
            content_checksum: 0x5152_5354,
            tag: [0x66; 16],
        }
    }

    #[test]
    fn frame_header_has_these_bytes() {
        let bytes = header().encode();
        assert_eq!(&bytes[..4], b"TPSF");
        assert_eq!(bytes[4..8], checksum(&bytes).to_le_bytes());
        assert_eq!(bytes[8..16], [0x11; 8]);
        assert_eq!(bytes[16..24], [0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
        assert_eq!(bytes[24..28], [2, 1, 0, 0]);
        assert_eq!(bytes[28..36], [0x34, 0x33, 0x32, 0, 0x44, 0x43, 2, 0]);
        assert_eq!(bytes[36..40], [0x54, 0x53, 0x52, 0x51]);
        assert_eq!(bytes[40..56], [0x66; 16]);
        assert_eq!(bytes[56..64], [0; 8]);
        assert_eq!(header().place(), bytes[8..36]);
        assert_eq!(FrameHeader::decode(&bytes), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_header_is_found() {
        let mut bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        for (is_compressed, raw_len, stored_len) in [(true, 7, 7), (true, 7, 8), (false, 7, 6)] {
            let header = FrameHeader { is_compressed, raw_len, stored_len, ..header() };
            assert!(FrameHeader::decode(&header.encode()).is_err());
        }
    }
}
