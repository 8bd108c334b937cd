//! Segment header: the first 4 KiB block of every journal file.
//!
//! | Offset | Size | Field         | Meaning                                                     |
//! |-------:|-----:|---------------|-------------------------------------------------------------|
//! |      0 |    8 | `magic`       | `TREEPIEJ`                                                  |
//! |      8 |    4 | `version`     | Format version, now 1                                       |
//! |     12 |    4 | `checksum`    | CRC-32 of the block but these 4 bytes                       |
//! |     16 |   16 | `database_id` | Refuses a segment of another database                       |
//! |     32 |    8 | `epoch`       | Lineage epoch: refuses a segment of another lineage         |
//! |     40 |    8 | `first_lsn`   | LSN of the first record, also the name of the file; at most 2^63 |
//! |     48 |    8 | `incarnation` | Random, one per life of the file; its frames repeat it      |
//! |     56 |    8 | `chain`       | Chain hash of the record before `first_lsn`                 |
//! |     64 |    8 | `segment_len` | Length of the file when begun, a multiple of 4 KiB          |
//! |     72 |    8 | `sequence`    | Higher than that of every segment begun before it           |
//! |     80 |    4 | `flags`       | Bit 0: it supersedes                                        |
//! |     84 | 4012 | `reserved`    | Zero; anything else is corruption                           |
//!
//! In every version the first 16 bytes are laid out like this, and the checksum is that of this one
//! block. A header whose checksum holds is what was written: one with a newer version, or one that
//! breaks a rule, is refused.
//!
//! A segment that **supersedes** was begun where records were given up that the consensus of the
//! cluster decided against: it takes their numbers again. Records with its first LSN and above in
//! segments with a lower `sequence` count no more, and a segment whose first LSN is not below its own
//! and whose `sequence` is lower is what is left of an interrupted removal.
//!
//! The header goes out in the same write as the first records, or is durable before the file has its
//! name. A file whose header is not whole,
//! or names another first LSN than the file does, holds no records of this life. Closing the
//! database cuts the newest segment off behind its last record, so the file may be shorter than
//! `segment_len`.

use crate::{
    error::{Damage, Structure},
    ids::{DatabaseId, Lsn},
    limits::LSN_MAX,
};

use super::{
    bytes::{get_array, get_u32, get_u64, is_zero, put_array, put_u32, put_u64},
    checksum::crc32,
};

/// Unit of the journal in bytes: writes begin at a multiple of it and fill a multiple of it.
pub const JOURNAL_BLOCK_SIZE: usize = 4096;
/// Size of the segment header in bytes.
pub const SEGMENT_HEADER_SIZE: usize = JOURNAL_BLOCK_SIZE;
/// Highest sequence of a segment: counting on from there cannot overflow.
pub const SEQUENCE_MAX: u64 = 1 << 63;
/// Newest format version of a segment that this build reads, and the one that it writes.
pub const SEGMENT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"TREEPIEJ";
const VERSION_OFFSET: usize = 8;
const CHECKSUM_OFFSET: usize = 12;
const DATABASE_ID_OFFSET: usize = 16;
const EPOCH_OFFSET: usize = 32;
const FIRST_LSN_OFFSET: usize = 40;
const INCARNATION_OFFSET: usize = 48;
const CHAIN_OFFSET: usize = 56;
const SEGMENT_LEN_OFFSET: usize = 64;
const SEQUENCE_OFFSET: usize = 72;
const FLAGS_OFFSET: usize = 80;
const RESERVED_OFFSET: usize = 84;
const _: () = assert!(RESERVED_OFFSET == 8 + 4 + 4 + 16 + 6 * 8 + 4);
const _: () = assert!(SEGMENT_HEADER_SIZE == RESERVED_OFFSET + 4012);

const FLAG_SUPERSEDES: u32 = 1;

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The database that it belongs to.
    pub database_id: DatabaseId,
    /// Lineage epoch of the database.
    pub epoch: u64,
    /// LSN of its first record.
    pub first_lsn: Lsn,
    /// Random number of this life of the file.
    pub incarnation: u64,
    /// Chain hash of the record before the first one.
    pub chain: u64,
    /// Length of the file in bytes.
    pub segment_len: u64,
    /// Higher than that of every segment that was begun before.
    pub sequence: u64,
    /// Whether its records take the numbers of others that were given up.
    pub supersedes: bool,
}

impl SegmentHeader {
    /// The block as it is stored.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE] {
        let mut block = [0; SEGMENT_HEADER_SIZE];
        put_array(&mut block, 0, &MAGIC);
        put_u32(&mut block, VERSION_OFFSET, SEGMENT_VERSION);
        put_array(&mut block, DATABASE_ID_OFFSET, &self.database_id.0);
        put_u64(&mut block, EPOCH_OFFSET, self.epoch);
        put_u64(&mut block, FIRST_LSN_OFFSET, self.first_lsn.0);
        put_u64(&mut block, INCARNATION_OFFSET, self.incarnation);
        put_u64(&mut block, CHAIN_OFFSET, self.chain);
        put_u64(&mut block, SEGMENT_LEN_OFFSET, self.segment_len);
        put_u64(&mut block, SEQUENCE_OFFSET, self.sequence);
        put_u32(&mut block, FLAGS_OFFSET, if self.supersedes { FLAG_SUPERSEDES } else { 0 });
        let checksum = block_checksum(&block);
        put_u32(&mut block, CHECKSUM_OFFSET, checksum);
        block
    }

    /// Reads a block whose checksum was verified.
    ///
    /// # Errors
    /// [`Damage::Version`] when its version is newer, [`Damage::Layout`] when a rule is broken. Either
    /// way the bytes are what was written.
    pub fn decode(block: &[u8]) -> Result<SegmentHeader, Damage> {
        let (block, structure) = (header_block(block)?, Structure::Segment);
        let layout = |what| Err(Damage::layout(structure, what));
        match get_u32(block, VERSION_OFFSET) {
            0 => return layout("format version 0"),
            found if found > SEGMENT_VERSION => {
                return Err(Damage::Version { structure, found, supported: SEGMENT_VERSION });
            }
            _ => {}
        }
        if !is_zero(&block[RESERVED_OFFSET..]) {
            return layout("reserved bytes are not zero");
        }
        let flags = get_u32(block, FLAGS_OFFSET);
        if flags & !FLAG_SUPERSEDES != 0 {
            return layout("unknown flags");
        }
        let header = SegmentHeader {
            database_id: DatabaseId(get_array(block, DATABASE_ID_OFFSET)),
            epoch: get_u64(block, EPOCH_OFFSET),
            first_lsn: Lsn(get_u64(block, FIRST_LSN_OFFSET)),
            incarnation: get_u64(block, INCARNATION_OFFSET),
            chain: get_u64(block, CHAIN_OFFSET),
            segment_len: get_u64(block, SEGMENT_LEN_OFFSET),
            sequence: get_u64(block, SEQUENCE_OFFSET),
            supersedes: flags & FLAG_SUPERSEDES != 0,
        };
        if !(1..=LSN_MAX).contains(&header.first_lsn.0) {
            return layout("its first LSN is not possible");
        }
        if header.sequence > SEQUENCE_MAX {
            return layout("its sequence is not possible");
        }
        Ok(header)
    }
}

/// Checks that a block is a whole segment header, whatever its version.
///
/// # Errors
/// [`Damage`] when it is short, is none, or a byte changed.
pub fn verify_checksum(block: &[u8]) -> Result<(), Damage> {
    let block = header_block(block)?;
    if get_array::<8>(block, 0) != MAGIC {
        return Err(Damage::layout(Structure::Segment, "its magic is missing"));
    }
    let (stored, computed) = (get_u32(block, CHECKSUM_OFFSET), block_checksum(block));
    if stored != computed {
        return Err(Damage::Checksum { structure: Structure::Segment, stored, computed });
    }
    Ok(())
}

fn header_block(block: &[u8]) -> Result<&[u8; SEGMENT_HEADER_SIZE], Damage> {
    let file_len = block.len() as u64;
    block.first_chunk().ok_or(Damage::Short { structure: Structure::Segment, file_len })
}

fn block_checksum(block: &[u8; SEGMENT_HEADER_SIZE]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(crc32(&block[..CHECKSUM_OFFSET]));
    crc.update(&block[CHECKSUM_OFFSET + 4..]);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(block: &[u8]) -> Result<SegmentHeader, Damage> {
        verify_checksum(block).and_then(|()| SegmentHeader::decode(block))
    }

    fn header() -> SegmentHeader {
        SegmentHeader {
            database_id: DatabaseId([0x77; 16]),
            epoch: 0x0102_0304_0506_0708,
            first_lsn: Lsn(0x1112_1314_1516_1718),
            incarnation: 0x2122_2324_2526_2728,
            chain: 0x3132_3334_3536_3738,
            segment_len: 0x4_0000,
            sequence: 0x4142_4344_4546_4748,
            supersedes: true,
        }
    }

    #[test]
    fn segment_header_has_these_bytes() {
        let block = header().encode();
        assert_eq!(&block[..12], b"TREEPIEJ\x01\0\0\0");
        let rest = [&block[..12], &block[16..]].concat();
        assert_eq!(block[12..16], crc32(&rest).to_le_bytes());
        assert_eq!(block[12..16], [0x40, 0xc3, 0x4d, 0x81]);
        assert_eq!(block[16..32], [0x77; 16]);
        assert_eq!(block[32..40], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(block[40..48], [0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        assert_eq!(block[48..56], [0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21]);
        assert_eq!(block[56..64], [0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x31]);
        assert_eq!(block[64..72], [0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(block[72..80], [0x48, 0x47, 0x46, 0x45, 0x44, 0x43, 0x42, 0x41]);
        assert_eq!(block[80..84], [1, 0, 0, 0]);
        assert!(is_zero(&block[84..]));
        assert_eq!(parse(&block), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_segment_header_is_found() {
        let mut block = header().encode();
        for bit in 0..block.len() * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&block).is_err(), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(parse(&block[..4095]).is_err());
    }
}
