//! Frame: the 32 bytes before each record of a segment. Local to the file; the record behind it is
//! the same on every replica. Its layout goes with the version of the segment.
//!
//! | Offset | Size | Field         | Meaning                                                     |
//! |-------:|-----:|---------------|-------------------------------------------------------------|
//! |      0 |    4 | `magic`       | `TPFR`                                                      |
//! |      4 |    4 | `checksum`    | CRC-32 of bytes 0..4, 8..32, and of the record's checksum   |
//! |      8 |    8 | `incarnation` | That of the segment: stale bytes of an earlier life differ  |
//! |     16 |    4 | `record_len`  | Bytes of the record that follows                            |
//! |     20 |    4 | `unsynced`    | Records up to this one that were not known to be durable    |
//! |     24 |    8 | `lsn`         | LSN of the record; of a local one, that of the record before it |
//!
//! `lsn - unsynced` is the last LSN known to be durable when the write of this frame began: the
//! frame **vouches** for it. A later frame that vouches for a missing record tells corruption from
//! a torn tail: blocks of writes that no sync covered may reach the disk in any order, so that a
//! valid later record alone proves nothing.
//!
//! Where frames are: a write begins at a multiple of 4 KiB, frame after frame at the next multiple
//! of 8 behind the record before, and is zero-padded to a multiple of 4 KiB. The next frame is thus
//! at the next multiple of 8, or, where none with the expected LSN is valid there, at the next
//! multiple of 4 KiB.

use crate::{
    error::{Damage, Structure},
    ids::Lsn,
};

use super::{
    bytes::{get_u32, get_u64, put_u32, put_u64},
    checksum::crc32,
};

/// Size of a frame in bytes.
pub const FRAME_SIZE: usize = 32;
/// Alignment of a frame in the file in bytes.
pub const FRAME_ALIGN: usize = 8;

const MAGIC: u32 = u32::from_le_bytes(*b"TPFR");
const CHECKSUM_OFFSET: usize = 4;
const INCARNATION_OFFSET: usize = 8;
const RECORD_LEN_OFFSET: usize = 16;
const UNSYNCED_OFFSET: usize = 20;
const LSN_OFFSET: usize = 24;
const _: () = assert!(FRAME_SIZE == 4 + 4 + 8 + 4 + 4 + 8);

/// What stands before a record in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Life of the file that the record belongs to.
    pub incarnation: u64,
    /// Bytes of the record.
    pub record_len: u32,
    /// Records up to this one, itself included, that were not known to be durable when it was
    /// written; `u32::MAX` stands for that many or more, and vouches for nothing. 0 only before a
    /// local record, which is not the one with the LSN.
    pub unsynced: u32,
    /// LSN of the record.
    pub lsn: Lsn,
}

impl Frame {
    /// The last LSN that was durable when this frame was written; 0 where that is not known.
    #[must_use]
    pub fn vouches_for(&self) -> Lsn {
        match self.unsynced {
            u32::MAX => Lsn(0),
            unsynced => Lsn(self.lsn.0.saturating_sub(u64::from(unsynced))),
        }
    }

    /// The bytes as stored, for a record with this checksum of its own.
    #[must_use]
    pub fn encode(&self, record_checksum: u32) -> [u8; FRAME_SIZE] {
        let mut bytes = [0; FRAME_SIZE];
        put_u32(&mut bytes, 0, MAGIC);
        put_u64(&mut bytes, INCARNATION_OFFSET, self.incarnation);
        put_u32(&mut bytes, RECORD_LEN_OFFSET, self.record_len);
        put_u32(&mut bytes, UNSYNCED_OFFSET, self.unsynced);
        put_u64(&mut bytes, LSN_OFFSET, self.lsn.0);
        let checksum = frame_checksum(&bytes, record_checksum);
        put_u32(&mut bytes, CHECKSUM_OFFSET, checksum);
        bytes
    }

    /// Reads and verifies stored bytes, given the checksum that the record behind them carries.
    ///
    /// # Errors
    /// [`Damage`] when this is no frame, or it changed, or belongs to another record.
    pub fn parse(bytes: &[u8; FRAME_SIZE], record_checksum: u32) -> Result<Frame, Damage> {
        let frame = Frame {
            incarnation: get_u64(bytes, INCARNATION_OFFSET),
            record_len: get_u32(bytes, RECORD_LEN_OFFSET),
            unsynced: get_u32(bytes, UNSYNCED_OFFSET),
            lsn: Lsn(get_u64(bytes, LSN_OFFSET)),
        };
        let structure = Structure::Record(frame.lsn);
        if !has_magic(bytes) {
            return Err(Damage::layout(structure, "there is no frame before it"));
        }
        let stored = get_u32(bytes, CHECKSUM_OFFSET);
        let computed = frame_checksum(bytes, record_checksum);
        if stored != computed {
            return Err(Damage::Checksum { structure, stored, computed });
        }
        Ok(frame)
    }

    /// Whether the bytes, though damaged, were likely a frame of this life of the file, or of this
    /// record: tells a torn write from stale bytes. Only for messages.
    #[must_use]
    pub fn resembles(bytes: &[u8; FRAME_SIZE], incarnation: u64, lsn: Lsn) -> bool {
        get_u64(bytes, INCARNATION_OFFSET) == incarnation
            || (has_magic(bytes) && get_u64(bytes, LSN_OFFSET) == lsn.0)
    }
}

/// Whether a frame may begin here: quick, for scans.
#[inline]
#[must_use]
pub fn has_magic(bytes: &[u8]) -> bool {
    get_u32(bytes, 0) == MAGIC
}

fn frame_checksum(bytes: &[u8; FRAME_SIZE], record_checksum: u32) -> u32 {
    let mut text = [0; FRAME_SIZE];
    text[..4].copy_from_slice(&bytes[..4]);
    text[4..28].copy_from_slice(&bytes[8..]);
    text[28..].copy_from_slice(&record_checksum.to_le_bytes());
    crc32(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame {
        incarnation: 0x0102_0304_0506_0708,
        record_len: 0x1112_1314,
        unsynced: 3,
        lsn: Lsn(0x2122_2324_2526_2728),
    };

    #[test]
    fn frame_has_these_bytes() {
        let bytes = FRAME.encode(0xdead_beef);
        assert_eq!(&bytes[..4], b"TPFR");
        assert_eq!(bytes[4..8], [0x2b, 0x2b, 0xae, 0xef]);
        assert_eq!(bytes[8..16], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[16..20], [0x14, 0x13, 0x12, 0x11]);
        assert_eq!(bytes[20..24], [3, 0, 0, 0]);
        assert_eq!(bytes[24..32], [0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
        assert_eq!(Frame::parse(&bytes, 0xdead_beef), Ok(FRAME));
        assert_eq!(FRAME.vouches_for(), Lsn(0x2122_2324_2526_2725));
        assert_eq!(Frame { unsynced: u32::MAX, ..FRAME }.vouches_for(), Lsn(0));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_or_of_the_record_checksum_is_found() {
        let mut bytes = FRAME.encode(0xdead_beef);
        for bit in 0..FRAME_SIZE * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::parse(&bytes, 0xdead_beef).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for bit in 0..32 {
            assert!(Frame::parse(&bytes, 0xdead_beef ^ (1 << bit)).is_err(), "bit {bit}");
        }
    }
}
