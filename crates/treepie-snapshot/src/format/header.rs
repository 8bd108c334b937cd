//! Stream header: the first 256 bytes of a stream.
//!
//! | Offset | Size | Field           | Meaning                                                       |
//! |-------:|-----:|-----------------|---------------------------------------------------------------|
//! |      0 |    8 | `magic`         | `TREEPIES`                                                    |
//! |      8 |    4 | `version`       | Format version, now 1                                         |
//! |     12 |    4 | `checksum`      | CRC-32 of the header but these 4 bytes                        |
//! |     16 |    8 | `features`      | Required feature bits; an unknown one is refused              |
//! |     24 |    1 | `kind`          | 1 full, 2 increment, 3 records                                |
//! |     25 |    1 | `compression`   | 0 none, 1 zstd                                                |
//! |     26 |    1 | `encryption`    | 0 none, 1 XChaCha20-Poly1305                                  |
//! |     27 |    1 | `reserved`      | Zero                                                          |
//! |     28 |    4 | `page_size`     | Bytes of a page, 4,096 or 8,192                               |
//! |     32 |    4 | `page_count`    | Pages of the data file at `lsn`: one past the highest         |
//! |     36 |    4 | `frame_len`     | Bytes of pages or records in a frame at most, up to 8 MiB     |
//! |     40 |   16 | `stream_id`     | Random; frames repeat its first 8 bytes                       |
//! |     56 |   16 | `database_id`   | The database                                                  |
//! |     72 |    8 | `epoch`         | Its lineage: 0 at creation, raised by each restore            |
//! |     80 |    8 | `forked_at`     | Its lineage: LSN that this epoch began after                  |
//! |     88 |    8 | `forked_chain`  | Its lineage: chain hash of the record with that LSN           |
//! |     96 |    8 | `lsn`           | The pages are as of this LSN; records begin after it          |
//! |    104 |    8 | `chain`         | Chain hash of the record with that LSN                        |
//! |    112 |    8 | `base_lsn`      | Increment: the LSN that it builds on; records: `lsn`; full: 0 |
//! |    120 |    8 | `base_chain`    | Chain hash of the record with that LSN; full: 0               |
//! |    128 |    8 | `time_us`       | Wall clock of the record `lsn`, µs since 1970                 |
//! |    136 |    8 | `database_us`   | Creation of the database, µs since 1970                       |
//! |    144 |    8 | `created_us`    | Creation of the stream, µs since 1970                         |
//! |    152 |   32 | `salt`          | Encrypted: random; key of the stream = derived from key, salt |
//! |    184 |   32 | `key_id`        | Encrypted: id of the key, text, filled up with zeros          |
//! |    216 |   16 | `key_check`     | Encrypted: tells a wrong key from a changed stream            |
//! |    232 |   24 | `reserved`      | Zero; anything else is corruption                             |
//!
//! **In every version** the header has 256 bytes, and `magic`, `version` and `checksum` are where they
//! are here. A version or feature is believed only where the checksum holds.

use treepie::{
    Lineage,
    ids::{DatabaseId, Lsn},
    limits::{PAGE_SIZE_MAX, PAGE_SIZE_MIN},
};

use super::bytes::{get_array, get_u32, get_u64, is_zero, put_array, put_u32, put_u64};
use crate::{
    error::{Error, Place, Result, StreamDamage},
    limits::{FRAME_LEN_MAX, GROUP_PAGES},
    seal::KeyId,
};

/// Size of the header in bytes.
pub const STREAM_HEADER_SIZE: usize = 256;
/// Format version that this build writes, and the newest that it reads.
pub const STREAM_VERSION: u32 = 1;
/// Feature bits that this build knows.
pub const STREAM_FEATURES: u64 = 0;

const MAGIC: [u8; 8] = *b"TREEPIES";
const CHECKSUM_OFFSET: usize = 12;
const KIND_OFFSET: usize = 24;
const COMPRESSION_OFFSET: usize = 25;
const ENCRYPTION_OFFSET: usize = 26;
const KEY_OFFSET: usize = 152;
const RESERVED_OFFSET: usize = 232;
const _: () = assert!(KEY_OFFSET == 40 + 16 + 16 + 10 * 8);
const _: () = assert!(STREAM_HEADER_SIZE == RESERVED_OFFSET + 24);

/// What a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StreamKind {
    /// Every used page, as of one LSN; then, if there are any, records after it.
    Full = 1,
    /// The pages that changed since a base; then, if there are any, records.
    Increment = 2,
    /// Records alone.
    Records = 3,
}

/// A place in the history of a database: a record, and the hash of everything up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the record; 0 before the first one.
    pub lsn: Lsn,
    /// Its chain hash.
    pub chain: u64,
}

/// What a stream says of its content. Who writes one fills it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamHeader {
    /// What it holds.
    pub kind: StreamKind,
    /// Whose it is.
    pub lineage: Lineage,
    /// Bytes of a page.
    pub page_size: usize,
    /// Pages of the data file: one past the highest.
    pub page_count: u32,
    /// What the pages are as of. Records, if there are any, begin after it.
    pub position: Position,
    /// An increment: what it builds on. Records: the same as `position`. Full: LSN and chain hash 0.
    pub base: Position,
    /// Wall clock of the record at `position`, microseconds since 1970.
    pub time_us: u64,
    /// Creation of the database, microseconds since 1970.
    pub database_created_us: u64,
    /// Creation of the stream, microseconds since 1970.
    pub created_us: u64,
}

/// How the frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamCompression {
    /// Not at all.
    None = 0,
    /// Zstandard, each frame by itself.
    Zstd = 1,
}

/// How a stream is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// Random; with the key it gives the key of this one stream.
    pub salt: [u8; 32],
    /// Id of the key.
    pub key_id: KeyId,
    /// Derived from the key of the stream.
    pub key_check: [u8; 16],
}

/// How the bytes of a stream are made. The writer fills it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    /// Random number of the stream.
    pub stream_id: [u8; 16],
    /// Bytes of pages or records in a frame, at most.
    pub frame_len: usize,
    /// How frames are compressed.
    pub compression: StreamCompression,
    /// How frames are encrypted, if they are.
    pub encryption: Option<Encryption>,
}

/// Checks what a header says of itself, when it is written and when it is read.
///
/// # Errors
/// The broken rule.
pub fn check(header: &StreamHeader, coding: &Coding) -> Result<(), &'static str> {
    let page_size = header.page_size;
    if !page_size.is_power_of_two() || !(PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&page_size) {
        return Err("its page size is not possible");
    }
    if !(GROUP_PAGES * page_size..=FRAME_LEN_MAX).contains(&coding.frame_len) {
        return Err("its length of frames is not possible");
    }
    match header.kind {
        StreamKind::Full if header.base != Position::default() => Err("a full stream has a base"),
        StreamKind::Increment if header.base.lsn > header.position.lsn => {
            Err("it ends before its base")
        }
        StreamKind::Records if header.base != header.position => {
            Err("its records do not begin after its base")
        }
        _ => Ok(()),
    }
}

/// The header as it is stored.
#[must_use]
#[allow(clippy::indexing_slicing, reason = "the offsets are those of an array")]
pub fn encode(header: &StreamHeader, coding: &Coding) -> [u8; STREAM_HEADER_SIZE] {
    let mut bytes = [0; STREAM_HEADER_SIZE];
    put_array(&mut bytes, 0, &MAGIC);
    put_u32(&mut bytes, 8, STREAM_VERSION);
    put_u64(&mut bytes, 16, STREAM_FEATURES);
    bytes[KIND_OFFSET] = header.kind as u8;
    bytes[COMPRESSION_OFFSET] = coding.compression as u8;
    bytes[ENCRYPTION_OFFSET] = u8::from(coding.encryption.is_some());
    put_u32(&mut bytes, 28, u32::try_from(header.page_size).unwrap_or(0));
    put_u32(&mut bytes, 32, header.page_count);
    put_u32(&mut bytes, 36, u32::try_from(coding.frame_len).unwrap_or(0));
    put_array(&mut bytes, 40, &coding.stream_id);
    put_array(&mut bytes, 56, &header.lineage.database_id.0);
    put_u64(&mut bytes, 72, header.lineage.epoch);
    put_u64(&mut bytes, 80, header.lineage.forked_at.0);
    put_u64(&mut bytes, 88, header.lineage.forked_chain);
    put_u64(&mut bytes, 96, header.position.lsn.0);
    put_u64(&mut bytes, 104, header.position.chain);
    put_u64(&mut bytes, 112, header.base.lsn.0);
    put_u64(&mut bytes, 120, header.base.chain);
    put_u64(&mut bytes, 128, header.time_us);
    put_u64(&mut bytes, 136, header.database_created_us);
    put_u64(&mut bytes, 144, header.created_us);
    if let Some(encryption) = &coding.encryption {
        put_array(&mut bytes, KEY_OFFSET, &encryption.salt);
        put_array(&mut bytes, 184, encryption.key_id.stored());
        put_array(&mut bytes, 216, &encryption.key_check);
    }
    let checksum = checksum(&bytes);
    put_u32(&mut bytes, CHECKSUM_OFFSET, checksum);
    bytes
}

/// Reads and verifies a header.
///
/// # Errors
/// [`Error::NotAStream`], [`Error::Damaged`]; under a right checksum [`Error::UnsupportedVersion`] and
/// [`Error::UnsupportedFeatures`].
pub fn decode(bytes: &[u8; STREAM_HEADER_SIZE]) -> Result<(StreamHeader, Coding)> {
    let magic = get_array(bytes, 0);
    if magic != MAGIC {
        return Err(Error::NotAStream { found: magic });
    }
    let (stored, computed) = (get_u32(bytes, CHECKSUM_OFFSET), checksum(bytes));
    if stored != computed {
        return Err(damaged(StreamDamage::Checksum { stored, computed }));
    }
    let version = get_u32(bytes, 8);
    if version > STREAM_VERSION {
        let (structure, supported) = ("stream", STREAM_VERSION);
        return Err(Error::UnsupportedVersion { structure, found: version, supported });
    }
    let features = get_u64(bytes, 16);
    if version == 1 && features & !STREAM_FEATURES != 0 {
        return Err(Error::UnsupportedFeatures { found: features, supported: STREAM_FEATURES });
    }
    decode_fields(bytes, version).map_err(|what| damaged(StreamDamage::Layout(what)))
}

#[allow(clippy::indexing_slicing, reason = "the offsets are those of an array")]
fn decode_fields(
    bytes: &[u8; STREAM_HEADER_SIZE],
    version: u32,
) -> Result<(StreamHeader, Coding), &'static str> {
    if version == 0 {
        return Err("format version 0");
    }
    if bytes[27] != 0 || !is_zero(&bytes[RESERVED_OFFSET..]) {
        return Err("reserved bytes are not zero");
    }
    let position =
        |offset| Position { lsn: Lsn(get_u64(bytes, offset)), chain: get_u64(bytes, offset + 8) };
    let header = StreamHeader {
        kind: match bytes[KIND_OFFSET] {
            1 => StreamKind::Full,
            2 => StreamKind::Increment,
            3 => StreamKind::Records,
            _ => return Err("unknown kind of stream"),
        },
        lineage: Lineage {
            database_id: DatabaseId(get_array(bytes, 56)),
            epoch: get_u64(bytes, 72),
            forked_at: Lsn(get_u64(bytes, 80)),
            forked_chain: get_u64(bytes, 88),
        },
        page_size: usize::try_from(get_u32(bytes, 28)).unwrap_or(0),
        page_count: get_u32(bytes, 32),
        position: position(96),
        base: position(112),
        time_us: get_u64(bytes, 128),
        database_created_us: get_u64(bytes, 136),
        created_us: get_u64(bytes, 144),
    };
    let coding = Coding {
        stream_id: get_array(bytes, 40),
        frame_len: usize::try_from(get_u32(bytes, 36)).unwrap_or(0),
        compression: match bytes[COMPRESSION_OFFSET] {
            0 => StreamCompression::None,
            1 => StreamCompression::Zstd,
            _ => return Err("unknown compression"),
        },
        encryption: decode_encryption(bytes)?,
    };
    check(&header, &coding).map(|()| (header, coding))
}

#[allow(clippy::indexing_slicing, reason = "the offsets are those of an array")]
fn decode_encryption(bytes: &[u8; STREAM_HEADER_SIZE]) -> Result<Option<Encryption>, &'static str> {
    match bytes[ENCRYPTION_OFFSET] {
        0 if !is_zero(&bytes[KEY_OFFSET..RESERVED_OFFSET]) => {
            Err("it is not encrypted, and names a key")
        }
        0 => Ok(None),
        1 => Ok(Some(Encryption {
            salt: get_array(bytes, KEY_OFFSET),
            key_id: KeyId::from_stored(get_array(bytes, 184)).ok_or("its key has no proper id")?,
            key_check: get_array(bytes, 216),
        })),
        _ => Err("unknown encryption"),
    }
}

fn damaged(what: StreamDamage) -> Error {
    Error::Damaged { place: Place::Header, offset: 0, what }
}

#[allow(clippy::indexing_slicing, reason = "the offsets are those of an array")]
fn checksum(bytes: &[u8; STREAM_HEADER_SIZE]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..CHECKSUM_OFFSET]);
    crc.update(&bytes[CHECKSUM_OFFSET + 4..]);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> (StreamHeader, Coding) {
        let header = StreamHeader {
            kind: StreamKind::Increment,
            lineage: Lineage {
                database_id: DatabaseId([0x77; 16]),
                epoch: 0x0102_0304_0506_0708,
                forked_at: Lsn(0x1112_1314_1516_1718),
                forked_chain: 0x2122_2324_2526_2728,
            },
            page_size: 8192,
            page_count: 0x3132_3334,
            position: Position { lsn: Lsn(0x4142_4344_4546_4748), chain: 0x5152_5354_5556_5758 },
            base: Position { lsn: Lsn(0x0142_4344_4546_4748), chain: 0x6162_6364_6566_6768 },
            time_us: 0x7172_7374_7576_7778,
            database_created_us: 0x0172_7374_7576_7778,
            created_us: 0x0272_7374_7576_7778,
        };
        let coding = Coding {
            stream_id: [0x99; 16],
            frame_len: 1 << 20,
            compression: StreamCompression::Zstd,
            encryption: Some(Encryption {
                salt: [0x55; 32],
                key_id: KeyId::new("nightly").expect("a proper id"),
                key_check: [0x66; 16],
            }),
        };
        (header, coding)
    }

    #[test]
    fn stream_header_has_these_bytes() {
        let (header, coding) = header();
        let bytes = encode(&header, &coding);
        assert_eq!(&bytes[..12], b"TREEPIES\x01\0\0\0");
        assert_eq!(bytes[12..16], checksum(&bytes).to_le_bytes());
        assert_eq!(bytes[16..24], [0; 8]);
        assert_eq!(bytes[24..32], [2, 1, 1, 0, 0, 0x20, 0, 0]);
        assert_eq!(bytes[32..40], [0x34, 0x33, 0x32, 0x31, 0, 0, 0x10, 0]);
        assert_eq!(bytes[40..56], [0x99; 16]);
        assert_eq!(bytes[56..72], [0x77; 16]);
        let words = [
            header.lineage.epoch,
            header.lineage.forked_at.0,
            header.lineage.forked_chain,
            header.position.lsn.0,
            header.position.chain,
            header.base.lsn.0,
            header.base.chain,
            header.time_us,
            header.database_created_us,
            header.created_us,
        ];
        let stored: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(bytes[72..152], stored);
        assert_eq!(bytes[152..184], [0x55; 32]);
        assert_eq!(&bytes[184..192], b"nightly\0");
        assert!(is_zero(&bytes[192..216]));
        assert_eq!(bytes[216..232], [0x66; 16]);
        assert!(is_zero(&bytes[232..]));
        assert_eq!(decode(&bytes).expect("it is valid"), (header, coding));
    }

    #[test]
    fn every_flipped_bit_of_a_stream_header_is_found() {
        let (header, coding) = header();
        let mut bytes = encode(&header, &coding);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// Stamped anew after each change: what is left are the rules.
    #[test]
    fn header_that_breaks_a_rule_is_refused_under_a_right_checksum() {
        let (header, coding) = header();
        let changes: [(usize, u8); 12] = [
            (16, 1),
            (24, 0),
            (24, 4),
            (25, 2),
            (26, 2),
            (26, 0),
            (27, 1),
            (29, 0x30),
            (38, 0),
            (39, 1),
            (119, 0xff),
            (255, 1),
        ];
        for (offset, value) in changes {
            let mut bytes = encode(&header, &coding);
            bytes[offset] = value;
            let stamp = checksum(&bytes);
            put_u32(&mut bytes, CHECKSUM_OFFSET, stamp);
            assert!(decode(&bytes).is_err(), "byte {offset} is {value}");
        }
        let mut bytes = encode(&header, &coding);
        put_u32(&mut bytes, 8, 2);
        let stamp = checksum(&bytes);
        put_u32(&mut bytes, CHECKSUM_OFFSET, stamp);
        assert!(matches!(decode(&bytes), Err(Error::UnsupportedVersion { found: 2, .. })));
    }
}
