//! Map of changed pages: which pages were written to the data file since copies of it were begun.
//! With it an incremental copy reads what has changed, and nothing else.
//!
//! | Offset | Size | Field              | Meaning                                               |
//! |-------:|-----:|--------------------|-------------------------------------------------------|
//! |      0 |    8 | `magic`            | `TREEPIEC`                                            |
//! |      8 |    4 | `version`          | Format version, now 1                                 |
//! |     12 |    4 | `checksum`         | CRC-32 of the whole file but these 4 bytes            |
//! |     16 |   16 | `database_id`      | The database                                          |
//! |     32 |    8 | `epoch`            | Lineage epoch                                         |
//! |     40 |    8 | `checkpoint`       | LSN of the meta page that the map belongs to          |
//! |     48 |    8 | `chain`            | Chain hash of the record with that LSN                |
//! |     56 |    4 | `page_size`        | Bytes of a page                                       |
//! |     60 |    4 | `generation_count` | 1 to 16 generations follow, the oldest first          |
//!
//! Each generation has a header, and one piece for each 4,096 neighbouring pages of which any was
//! written:
//!
//! | Offset | Size | Field         | Meaning                                                    |
//! |-------:|-----:|---------------|------------------------------------------------------------|
//! |      0 |    8 | `from`        | LSN of the copy that it began with; they rise              |
//! |      8 |    8 | `from_chain`  | Chain hash of the record with that LSN                     |
//! |     16 |    4 | `piece_count` | Pieces that follow                                         |
//! |     20 |    4 | `reserved`    | Zero                                                       |
//!
//! | Offset | Size | Field      | Meaning                                                       |
//! |-------:|-----:|------------|---------------------------------------------------------------|
//! |      0 |    4 | `number`   | Its first page divided by 4,096; they rise                    |
//! |      4 |    4 | `reserved` | Zero                                                          |
//! |      8 |  512 | `bits`     | Bit `i` of byte `j` stands for page `8 j + i` of the piece    |
//!
//! A page whose LSN is above `from` was written in that generation or in a later one; one that is
//! marked need not have changed. The file is written when the database is closed, and holds as long as
//! the newest meta page is the one that it names: what is replayed from there on is marked again. One
//! that is damaged, or belongs to another meta page, is ignored: the pages themselves say it all.

use std::collections::BTreeMap;

use crate::{
    error::{Damage, Structure},
    ids::{DatabaseId, Lsn},
};

use super::bytes::{get_array, get_u32, get_u64, put_array, put_u32, put_u64};

/// First bytes of the file.
pub const CHANGED_MAGIC: [u8; 8] = *b"TREEPIEC";
/// Format version that this build writes and reads.
pub const CHANGED_VERSION: u32 = 1;
/// Most generations: the two oldest become one where another is begun.
pub const GENERATIONS_MAX: usize = 16;
/// Pages of one piece.
pub const PIECE_PAGES: u32 = 4096;
const PIECE_WORDS: usize = PIECE_PAGES as usize / 64;
const HEADER_SIZE: usize = 64;
const GENERATION_SIZE: usize = 24;
const PIECE_SIZE: usize = 8 + PIECE_PAGES as usize / 8;
const CHECKSUM_OFFSET: usize = 12;
const STRUCTURE: Structure = Structure::ChangedPages;
const _: () = assert!(HEADER_SIZE == 8 + 4 + 4 + 16 + 8 + 8 + 8 + 4 + 4);
const _: () = assert!(GENERATION_SIZE == 8 + 8 + 4 + 4 && PIECE_SIZE == 4 + 4 + 512);

/// Bits of 4,096 neighbouring pages.
pub type Piece = Box<[u64; PIECE_WORDS]>;

/// What was written from one copy to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// LSN of the copy that it began with.
    pub from: Lsn,
    /// Chain hash of the record with that LSN.
    pub from_chain: u64,
    /// Pages that were written, by the number of their piece.
    pub pieces: BTreeMap<u32, Piece>,
}

impl Generation {
    /// Marks a page.
    #[allow(clippy::indexing_slicing, reason = "a page of the piece has a word in it")]
    pub fn mark(&mut self, page: u32) {
        let index = (page % PIECE_PAGES) as usize;
        let piece = self.pieces.entry(page / PIECE_PAGES);
        piece.or_insert_with(|| Box::new([0; PIECE_WORDS]))[index / 64] |= 1 << (index % 64);
    }

    /// Marks what another one has marked.
    pub fn add(&mut self, other: Generation) {
        for (number, bits) in other.pieces {
            let own = self.pieces.entry(number).or_insert_with(|| Box::new([0; PIECE_WORDS]));
            own.iter_mut().zip(bits.iter()).for_each(|(own, bits)| *own |= bits);
        }
    }
}

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedMap {
    /// The database.
    pub database_id: DatabaseId,
    /// Epoch of its lineage.
    pub epoch: u64,
    /// LSN of the meta page that it belongs to.
    pub checkpoint: Lsn,
    /// Chain hash of the record with that LSN.
    pub chain: u64,
    /// Bytes of a page.
    pub page_size: usize,
    /// The oldest first.
    pub generations: Vec<Generation>,
}

/// The longest file for so many pages: what its reader allocates at most.
#[must_use]
pub fn len_max(page_count: u32) -> u64 {
    let pieces = u64::from(page_count.div_ceil(PIECE_PAGES));
    let generation = GENERATION_SIZE as u64 + pieces * PIECE_SIZE as u64;
    HEADER_SIZE as u64 + GENERATIONS_MAX as u64 * generation
}

impl ChangedMap {
    /// The file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_SIZE];
        put_array(&mut bytes, 0, &CHANGED_MAGIC);
        put_u32(&mut bytes, 8, CHANGED_VERSION);
        put_array(&mut bytes, 16, &self.database_id.0);
        put_u64(&mut bytes, 32, self.epoch);
        put_u64(&mut bytes, 40, self.checkpoint.0);
        put_u64(&mut bytes, 48, self.chain);
        put_u32(&mut bytes, 56, self.page_size as u32);
        put_u32(&mut bytes, 60, self.generations.len() as u32);
        for generation in &self.generations {
            bytes.extend(generation.from.0.to_le_bytes());
            bytes.extend(generation.from_chain.to_le_bytes());
            bytes.extend((generation.pieces.len() as u32).to_le_bytes());
            bytes.extend([0; 4]);
            for (number, bits) in &generation.pieces {
                bytes.extend(number.to_le_bytes());
                bytes.extend([0; 4]);
                bits.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
            }
        }
        let checksum = checksum(&bytes);
        put_u32(&mut bytes, CHECKSUM_OFFSET, checksum);
        bytes
    }

    /// Reads and verifies the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<ChangedMap, Damage> {
        let damage = |what| Err(Damage::layout(STRUCTURE, what));
        if bytes.len() < HEADER_SIZE || get_array(bytes, 0) != CHANGED_MAGIC {
            return damage("it begins with something else");
        }
        let (stored, computed) = (get_u32(bytes, CHECKSUM_OFFSET), checksum(bytes));
        if stored != computed {
            return Err(Damage::Checksum { structure: STRUCTURE, stored, computed });
        }
        let found = get_u32(bytes, 8);
        if found != CHANGED_VERSION {
            return Err(Damage::Version {
                structure: STRUCTURE,
                found,
                supported: CHANGED_VERSION,
            });
        }
        let count = get_u32(bytes, 60) as usize;
        if !(1..=GENERATIONS_MAX).contains(&count) {
            return damage("an impossible number of generations");
        }
        let mut rest = bytes.get(HEADER_SIZE..).unwrap_or(&[]);
        let mut generations: Vec<Generation> = Vec::with_capacity(count);
        for _ in 0..count {
            let generation = decode_generation(&mut rest)?;
            if generations.last().is_some_and(|before| before.from >= generation.from) {
                return damage("generations do not rise");
            }
            generations.push(generation);
        }
        if !rest.is_empty() {
            return damage("bytes behind its last generation");
        }
        Ok(ChangedMap {
            database_id: DatabaseId(get_array(bytes, 16)),
            epoch: get_u64(bytes, 32),
            checkpoint: Lsn(get_u64(bytes, 40)),
            chain: get_u64(bytes, 48),
            page_size: get_u32(bytes, 56) as usize,
            generations,
        })
    }
}

fn decode_generation(rest: &mut &[u8]) -> Result<Generation, Damage> {
    let header = take(rest, GENERATION_SIZE)?;
    if get_u32(header, 20) != 0 {
        return Err(Damage::layout(STRUCTURE, "reserved bytes are not zero"));
    }
    let mut generation = Generation {
        from: Lsn(get_u64(header, 0)),
        from_chain: get_u64(header, 8),
        pieces: BTreeMap::new(),
    };
    for _ in 0..get_u32(header, 16) {
        let piece = take(rest, PIECE_SIZE)?;
        let number = get_u32(piece, 0);
        let last = generation.pieces.last_key_value();
        if get_u32(piece, 4) != 0 || last.is_some_and(|(last, _)| *last >= number) {
            return Err(Damage::layout(STRUCTURE, "pieces do not rise, or are not what they say"));
        }
        let bits = std::array::from_fn(|word| get_u64(piece, 8 + word * 8));
        generation.pieces.insert(number, Box::new(bits));
    }
    Ok(generation)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Damage> {
    match rest.split_at_checked(len) {
        Some((front, behind)) => {
            *rest = behind;
            Ok(front)
        }
        None => Err(Damage::layout(STRUCTURE, "it ends before what it counts")),
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..CHECKSUM_OFFSET).unwrap_or(&[]));
    hasher.update(bytes.get(CHECKSUM_OFFSET + 4..).unwrap_or(&[]));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::super::checksum::crc32;
    use super::*;

    fn sample() -> ChangedMap {
        let mut first = Generation { from: Lsn(3), from_chain: 4, pieces: BTreeMap::new() };
        first.mark(9);
        first.mark(4096);
        let second = Generation { from: Lsn(0x0102), from_chain: 7, pieces: BTreeMap::new() };
        ChangedMap {
            database_id: DatabaseId(*b"0123456789abcdef"),
            epoch: 2,
            checkpoint: Lsn(0x1112_1314),
            chain: 6,
            page_size: 8192,
            generations: vec![first, second],
        }
    }

    fn stamped(mut bytes: Vec<u8>) -> Vec<u8> {
        let sum = checksum(&bytes);
        put_u32(&mut bytes, CHECKSUM_OFFSET, sum);
        bytes
    }

    #[test]
    fn map_of_changed_pages_has_these_bytes() {
        let bytes = sample().encode();
        let mut golden = b"TREEPIEC\x01\0\0\0".to_vec();
        golden.extend(get_u32(&bytes, 12).to_le_bytes());
        golden.extend(b"0123456789abcdef");
        golden.extend([2, 0, 0, 0, 0, 0, 0, 0, 0x14, 0x13, 0x12, 0x11, 0, 0, 0, 0]);
        golden.extend([6, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 2, 0, 0, 0]);
        golden.extend([3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        golden.extend([0; 510]);
        golden.extend([1, 0, 0, 0, 0, 0, 0, 0, 1]);
        golden.extend([0; 511]);
        golden.extend([2, 1, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, golden);
        assert_eq!(get_u32(&bytes, 12), crc32(&[&bytes[..12], &bytes[16..]].concat()));
        assert_eq!(ChangedMap::decode(&bytes), Ok(sample()));
        assert!(bytes.len() as u64 <= len_max(4097));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_map_is_found() {
        let bytes = sample().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(ChangedMap::decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(ChangedMap::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn maps_that_break_a_rule_under_a_right_checksum_are_refused() {
        let changed = |offset: usize, byte: u8| {
            let mut bytes = sample().encode();
            bytes[offset] = byte;
            ChangedMap::decode(&stamped(bytes))
        };
        assert!(matches!(changed(8, 2), Err(Damage::Version { found: 2, .. })));
        // Counts, reserved bytes, and orders.
        for (offset, byte) in [(60, 0), (60, 17), (60, 1), (60, 3), (80, 9), (80, 1), (84, 1)] {
            assert!(changed(offset, byte).is_err(), "byte {offset} as {byte}");
        }
        let second_piece = HEADER_SIZE + GENERATION_SIZE + PIECE_SIZE;
        assert!(changed(second_piece, 0).is_err() && changed(second_piece + 4, 1).is_err());
        assert!(changed(second_piece + PIECE_SIZE + 1, 0).is_err(), "generations fall");
        let many = [&sample().encode()[..], &[0]].concat();
        assert!(ChangedMap::decode(&stamped(many)).is_err());
    }
}
