//! Meta pages: pages 0 and 1. The newest valid one says where recovery begins.
//!
//! | Offset | Size | Field           | Meaning                                                 |
//! |-------:|-----:|-----------------|---------------------------------------------------------|
//! |      0 |    8 | `magic`         | `TREEPIED`                                              |
//! |      8 |    4 | `version`       | Format version, now 1                                   |
//! |     12 |    4 | `checksum`      | CRC-32 of the whole page but these 4 bytes              |
//! |     16 |    8 | `features`      | Required feature bits; an unknown one is refused        |
//! |     24 |    8 | `generation`    | Number of this checkpoint; its page is `generation % 2` |
//! |     32 |   16 | `database_id`   | UUID, drawn at creation                                 |
//! |     48 |    8 | `epoch`         | Lineage: 0 at creation, raised by each restore: the upper half counts them, the lower half is random |
//! |     56 |    8 | `forked_at`     | Lineage: LSN that this epoch began after                |
//! |     64 |    8 | `forked_chain`  | Lineage: chain hash of the record with that LSN         |
//! |     72 |    4 | `page_size`     | Bytes of a page                                         |
//! |     76 |    4 | `page_count`    | Pages in use at the checkpoint: one past the highest    |
//! |     80 |    8 | `checkpoint`    | LSN up to which the data file holds everything          |
//! |     88 |    8 | `chain`         | Chain hash of the record with that LSN                  |
//! |     96 |    8 | `created_us`    | Creation time, microseconds since 1970                  |
//! |    104 |    8 | `written_us`    | Time of this checkpoint, microseconds since 1970        |
//! |    112 |      | `reserved`      | Zero up to the end of the page                          |
//!
//! Validity: magic, checksum, version, page size, `generation` of the right parity, neither it nor
//! `checkpoint` above 2^63, and `page_count` at most what whole groups of bitmaps hold. In every version `magic`, `version`, `checksum` and `page_size` are where
//! they are here, and the checksum is that of the whole page, of at most 64 KiB. So a version is
//! believed only where the checksum holds: a flipped bit in it is damage. Behind the creation only the checkpoint writes them, always over the older one, after the data file was
//! synced.

use crate::{
    error::{Damage, Structure},
    ids::{DatabaseId, Lsn},
    limits::{LSN_MAX, PAGE_SIZE_MAX, PAGE_SIZE_MIN},
};

use super::{
    bitmap::page_count_max,
    bytes::{get_array, get_u32, get_u64, is_zero, put_array, put_u32, put_u64},
};

/// First bytes of a data file.
pub const META_MAGIC: [u8; 8] = *b"TREEPIED";
/// Format version that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Feature bits that this build knows.
pub const FEATURES: u64 = 0;
/// Largest page of any version, in bytes: as much as is read to tell a newer version from damage.
pub const META_PAGE_SIZE_MAX: usize = 64 << 10;
/// Bytes in use; the rest of the page is zero.
pub const META_SIZE: usize = 112;
const CHECKSUM_OFFSET: usize = 12;
const _: () = assert!(META_SIZE == 8 + 4 + 4 + 8 + 8 + 16 + 8 + 8 + 8 + 4 + 4 + 8 + 8 + 8 + 8);
const _: () = assert!(META_SIZE <= 512, "one sector holds all of it");

/// Tells a backup, a replica and a stranger apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The database.
    pub database_id: DatabaseId,
    /// 0 at creation, raised by each restore.
    pub epoch: u64,
    /// LSN that this epoch began after.
    pub forked_at: Lsn,
    /// Chain hash of the record with that LSN.
    pub forked_chain: u64,
}

/// The content of a meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Number of this checkpoint, from 0.
    pub generation: u64,
    /// Identity and history.
    pub lineage: Lineage,
    /// Bytes of a page.
    pub page_size: usize,
    /// One past the highest page in use.
    pub page_count: u32,
    /// LSN up to which the data file holds everything.
    pub checkpoint: Lsn,
    /// Chain hash of the record with that LSN.
    pub chain: u64,
    /// Creation time, microseconds since 1970.
    pub created_us: u64,
    /// Time of this checkpoint, microseconds since 1970.
    pub written_us: u64,
}

/// Why bytes are not a meta page of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// They begin with something else.
    #[error("the meta page begins with {0:02x?}")]
    Magic([u8; 8]),
    /// A newer format, under a right checksum.
    #[error("the meta page has format version {0}")]
    Version(u32),
    /// Unknown required features, under a right checksum.
    #[error("the meta page needs features {0:#x}")]
    Features(u64),
    /// Damage.
    #[error(transparent)]
    Damage(Damage),
}

impl Lineage {
    /// How many forks led to it.
    #[must_use]
    pub fn fork_count(&self) -> u64 {
        self.epoch >> 32
    }

    /// The lineage of a copy that goes its own way behind the record `at`. The upper half of an epoch
    /// counts the forks that led to it; the lower half is `random`, so that two copies of one state do
    /// not take each other for the same.
    #[must_use]
    pub fn fork(&self, at: Lsn, chain: u64, random: u32) -> Lineage {
        let generation = (self.fork_count() + 1).min(u64::from(u32::MAX));
        Lineage {
            database_id: self.database_id,
            epoch: generation << 32 | u64::from(random),
            forked_at: at,
            forked_chain: chain,
        }
    }
}

impl Meta {
    /// Number of the meta page that holds this checkpoint.
    #[must_use]
    pub fn page_number(&self) -> u32 {
        u32::from(!self.generation.is_multiple_of(2))
    }

    /// The page, `page_size` bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; self.page_size];
        put_array(&mut page, 0, &META_MAGIC);
        put_u32(&mut page, 8, FORMAT_VERSION);
        put_u64(&mut page, 16, FEATURES);
        put_u64(&mut page, 24, self.generation);
        put_array(&mut page, 32, &self.lineage.database_id.0);
        put_u64(&mut page, 48, self.lineage.epoch);
        put_u64(&mut page, 56, self.lineage.forked_at.0);
        put_u64(&mut page, 64, self.lineage.forked_chain);
        put_u32(&mut page, 72, self.page_size as u32);
        put_u32(&mut page, 76, self.page_count);
        put_u64(&mut page, 80, self.checkpoint.0);
        put_u64(&mut page, 88, self.chain);
        put_u64(&mut page, 96, self.created_us);
        put_u64(&mut page, 104, self.written_us);
        let checksum = checksum(&page);
        put_u32(&mut page, CHECKSUM_OFFSET, checksum);
        page
    }

    /// Whether this build has pages of this size, in bytes.
    #[must_use]
    pub fn is_page_size(size: usize) -> bool {
        (PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&size) && size.is_power_of_two()
    }

    /// Reads the page size that a meta page of any version claims, before anything is verified: how
    /// many bytes `decode` needs. `None` when it is not a page size.
    #[must_use]
    pub fn claimed_page_size(bytes: &[u8]) -> Option<usize> {
        let page_size = get_u32(bytes, 72) as usize;
        let is_size = (PAGE_SIZE_MIN..=META_PAGE_SIZE_MAX).contains(&page_size);
        (is_size && page_size.is_power_of_two()).then_some(page_size)
    }

    /// Reads and verifies meta page `number` (0 or 1) from `page`, a whole page.
    ///
    /// # Errors
    /// Why it is not valid.
    pub fn decode(page: &[u8], number: u32) -> Result<Meta, MetaError> {
        let structure = Structure::Meta(number);
        let damage = |what| MetaError::Damage(Damage::layout(structure, what));
        let magic = get_array(page, 0);
        if magic != META_MAGIC {
            return Err(MetaError::Magic(magic));
        }
        let (stored, computed) = (get_u32(page, CHECKSUM_OFFSET), checksum(page));
        if stored != computed {
            return Err(MetaError::Damage(Damage::Checksum { structure, stored, computed }));
        }
        match get_u32(page, 8) {
            0 => return Err(damage("format version 0")),
            version if version > FORMAT_VERSION => return Err(MetaError::Version(version)),
            _ => {}
        }
        if get_u64(page, 16) & !FEATURES != 0 {
            return Err(MetaError::Features(get_u64(page, 16)));
        }
        let page_size = Meta::claimed_page_size(page).filter(|&size| Meta::is_page_size(size));
        let page_size = page_size.ok_or_else(|| damage("impossible page size"))?;
        let meta = Meta {
            generation: get_u64(page, 24),
            lineage: Lineage {
                database_id: DatabaseId(get_array(page, 32)),
                epoch: get_u64(page, 48),
                forked_at: Lsn(get_u64(page, 56)),
                forked_chain: get_u64(page, 64),
            },
            page_size,
            page_count: get_u32(page, 76),
            checkpoint: Lsn(get_u64(page, 80)),
            chain: get_u64(page, 88),
            created_us: get_u64(page, 96),
            written_us: get_u64(page, 104),
        };
        if page.len() != page_size {
            return Err(damage("the page size is not the size of the page"));
        }
        if meta.page_number() != number {
            return Err(damage("the other meta page's bytes are in its place"));
        }
        if meta.generation > LSN_MAX || meta.checkpoint.0 > LSN_MAX {
            return Err(damage("its generation or its checkpoint is above the limit"));
        }
        if meta.page_count > page_count_max(page_size) {
            return Err(damage("it counts more pages than there can be"));
        }
        if !page.get(META_SIZE..).is_some_and(is_zero) {
            return Err(damage("reserved bytes are not zero"));
        }
        Ok(meta)
    }
}

fn checksum(page: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(page.get(..CHECKSUM_OFFSET).unwrap_or(&[]));
    hasher.update(page.get(CHECKSUM_OFFSET + 4..).unwrap_or(&[]));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Meta {
        Meta {
            generation: 0x0102_0304_0506_0709,
            lineage: Lineage {
                database_id: DatabaseId(*b"0123456789abcdef"),
                epoch: 2,
                forked_at: Lsn(3),
                forked_chain: 4,
            },
            page_size: 4096,
            page_count: 0x1112_1314,
            checkpoint: Lsn(5),
            chain: 6,
            created_us: 7,
            written_us: 8,
        }
    }

    #[test]
    fn meta_page_has_these_bytes() {
        let page = sample().encode();
        let mut golden = b"TREEPIED\x01\0\0\0".to_vec();
        golden.extend(checksum(&page).to_le_bytes());
        golden.extend([0; 8]);
        golden.extend([9, 7, 6, 5, 4, 3, 2, 1]);
        golden.extend(b"0123456789abcdef");
        golden.extend([2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([0, 0x10, 0, 0, 0x14, 0x13, 0x12, 0x11]);
        golden.extend([5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
        golden.resize(4096, 0);
        assert_eq!(page, golden);
        assert_eq!(Meta::decode(&page, 1), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_of_a_meta_page_is_found() {
        let page = sample().encode();
        for bit in 0..META_SIZE * 8 + 64 {
            let mut damaged = page.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Meta::decode(&damaged, 1).is_err(), "bit {bit}");
        }
    }

    fn stamped(mut page: Vec<u8>) -> Vec<u8> {
        let sum = checksum(&page);
        put_u32(&mut page, CHECKSUM_OFFSET, sum);
        page
    }

    #[test]
    fn newer_version_and_unknown_features_are_believed_only_under_a_right_checksum() {
        let mut page = sample().encode();
        put_u32(&mut page, 8, 2);
        assert!(matches!(
            Meta::decode(&page, 1),
            Err(MetaError::Damage(Damage::Checksum { structure: Structure::Meta(1), .. }))
        ));
        page[16..72].fill(0xee);
        page[76..].fill(0xee);
        assert_eq!(Meta::decode(&stamped(page), 1), Err(MetaError::Version(2)));
        let mut page = sample().encode();
        put_u64(&mut page, 16, 1 << 40);
        assert!(matches!(Meta::decode(&page, 1), Err(MetaError::Damage(_))));
        assert_eq!(Meta::decode(&stamped(page), 1), Err(MetaError::Features(1 << 40)));
    }

    #[test]
    fn numbers_from_which_counting_would_overflow_are_refused() {
        for offset in [24, 76, 80] {
            let mut page = sample().encode();
            page[offset..offset + 4].fill(0xff);
            page[offset + 7] |= u8::from(offset != 76) << 7;
            assert!(matches!(
                Meta::decode(&stamped(page), 1),
                Err(MetaError::Damage(Damage::Layout { .. }))
            ));
        }
    }
}
