//! Record: what a transaction did, as it is stored in every journal and sent to every replica. A
//! header of 128 bytes, then the payload.
//!
//! | Offset | Size | Field             | Meaning                                                 |
//! |-------:|-----:|-------------------|---------------------------------------------------------|
//! |      0 |    4 | `magic`           | `TPRC`                                                  |
//! |      4 |    4 | `checksum`        | CRC-32 of header and stored payload, this field as zero |
//! |      8 |    2 | `version`         | Format version, now 1                                   |
//! |     10 |    1 | `kind`            | 1 transaction, 2 no-op, 3 membership; local only: 16 hard state, 17 checkpoint mark, 18 snapshot base |
//! |     11 |    1 | `flags`           | Bit 0: the payload is one LZ4 block                     |
//! |     12 |    4 | `page_size`       | Size of a page in bytes                                 |
//! |     16 |    8 | `lsn`             | Its number                                              |
//! |     24 |    8 | `term`            | Raft term, 0 when never replicated                      |
//! |     32 |    8 | `chain`           | Chain hash of the record before it                      |
//! |     40 |    8 | `stored_len`      | Bytes of the payload as stored                          |
//! |     48 |    8 | `raw_len`         | Bytes of the payload, not compressed                    |
//! |     56 |    8 | `annotations_len` | Bytes of the annotations at the end of the payload      |
//! |     64 |    8 | `time_us`         | Wall clock when it was sealed, µs since 1970            |
//! |     72 |    8 | `known_committed` | Highest LSN known to be committed when it was sealed    |
//! |     80 |    4 | `change_count`    | Page changes in the payload                             |
//! |     84 |   44 | `reserved`        | Zero; anything else is corruption                       |
//!
//! The payload, not compressed: `change_count` page changes (see `change`), then annotations, each
//! a length (u32) and that many bytes, which the engine does not interpret. A compressed payload is
//! at most 48 MiB longer than it is stored: nothing that a few bytes claim makes a reader allocate much.
//!
//! **In every version** a record has at least 128 bytes, `magic`, `checksum` and `version` are where
//! they are here, and the checksum is that of all its bytes; how many there are says what carries it
//! (in a segment, the frame). So whether a record is whole is known before its version is looked at.
//! One that is whole and has a newer version, or breaks a rule, was written like that: it is refused,
//! wherever it stands, and is never taken for a torn write.
//!
//! A **local** record belongs to one journal and is not replicated. It takes no number: its `lsn` and
//! `term` are those of the record before it, and the record behind it has the same `chain` as it has.
//!
//! The **chain hash** of a record is the XXH3-64 of all its stored bytes. It covers the hash of the
//! record before it, so equal hashes mean equal histories. That of LSN 0 is the XXH3-64 of the
//! database id and the lineage epoch (u64).

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::{Damage, Structure},
    ids::{DatabaseId, Lsn, Term},
    limits::{PAGE_SIZE_MAX, PAGE_SIZE_MIN, RECORD_LEN_MAX},
};

use super::{
    bytes::{get_u16, get_u32, get_u64, is_zero},
    change::{PageChange, split_change},
    compression,
};

pub use super::{
    compression::Compression,
    sealed::{RecordBuilder, RecordMeta, SealedRecord},
};

/// Size of a record's header in bytes; a record of any version has at least as many.
pub const RECORD_HEADER_SIZE: usize = 128;
/// Format version of records.
pub const RECORD_VERSION: u16 = 1;
/// Where a record's own checksum is.
pub const RECORD_CHECKSUM_OFFSET: usize = 4;

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"TPRC");
pub(super) const VERSION_OFFSET: usize = 8;
pub(super) const KIND_OFFSET: usize = 10;
pub(super) const FLAGS_OFFSET: usize = 11;
pub(super) const PAGE_SIZE_OFFSET: usize = 12;
pub(super) const LSN_OFFSET: usize = 16;
pub(super) const TERM_OFFSET: usize = 24;
pub(super) const CHAIN_OFFSET: usize = 32;
pub(super) const STORED_LEN_OFFSET: usize = 40;
pub(super) const RAW_LEN_OFFSET: usize = 48;
pub(super) const ANNOTATIONS_LEN_OFFSET: usize = 56;
pub(super) const TIME_OFFSET: usize = 64;
pub(super) const KNOWN_COMMITTED_OFFSET: usize = 72;
pub(super) const CHANGE_COUNT_OFFSET: usize = 80;
const RESERVED_OFFSET: usize = 84;
const _: () = assert!(RESERVED_OFFSET == 4 + 4 + 2 + 1 + 1 + 4 + 8 * 8 + 4);
const _: () = assert!(RECORD_HEADER_SIZE == RESERVED_OFFSET + 44);

pub(super) const FLAG_LZ4: u8 = 1;
/// A builder keeps at most this much memory for the next record, in bytes.
pub(super) const BUFFER_KEPT_MAX: usize = 64 << 20;

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// Changes of pages.
    Transaction = 1,
    /// Nothing: a new leader's first record.
    NoOp = 2,
    /// A change of the members of the cluster.
    Membership = 3,
    /// Local: term and vote of this replica.
    HardState = 16,
    /// Local: a checkpoint was completed.
    CheckpointMark = 17,
    /// Local: the journal begins behind an installed snapshot.
    SnapshotBase = 18,
}

impl RecordKind {
    fn from_u8(kind: u8) -> Option<RecordKind> {
        Some(match kind {
            1 => RecordKind::Transaction,
            2 => RecordKind::NoOp,
            3 => RecordKind::Membership,
            16 => RecordKind::HardState,
            17 => RecordKind::CheckpointMark,
            18 => RecordKind::SnapshotBase,
            _ => return None,
        })
    }

    /// Whether it is of one replica alone: it takes no LSN, and no record's chain hash covers it.
    #[must_use]
    pub fn is_local(self) -> bool {
        self as u8 >= RecordKind::HardState as u8
    }
}

/// Chain hash of LSN 0.
#[must_use]
pub fn genesis_chain(database_id: &DatabaseId, epoch: u64) -> u64 {
    let mut text = [0; 24];
    text[..16].copy_from_slice(&database_id.0);
    text[16..].copy_from_slice(&epoch.to_le_bytes());
    xxh3_64(&text)
}

/// Checksum of a record's stored bytes, its own field taken as zero.
pub(super) fn record_checksum(bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytes.get(..RECORD_CHECKSUM_OFFSET).unwrap_or(bytes));
    crc.update(&[0; 4]);
    crc.update(bytes.get(RECORD_CHECKSUM_OFFSET + 4..).unwrap_or(&[]));
    crc.finalize()
}

/// Checks that a record is whole, whatever its version.
///
/// # Errors
/// [`Damage`] when it is too short, or a byte changed.
pub fn verify_checksum(bytes: &[u8]) -> Result<(), Damage> {
    let structure = Structure::Record(claimed_lsn(bytes));
    if bytes.len() < RECORD_HEADER_SIZE {
        return Err(Damage::Short { structure, file_len: bytes.len() as u64 });
    }
    let (stored, computed) = (claimed_checksum(bytes), record_checksum(bytes));
    if stored != computed {
        return Err(Damage::Checksum { structure, stored, computed });
    }
    Ok(())
}

fn claimed_lsn(bytes: &[u8]) -> Lsn {
    Lsn(get_u64(bytes, LSN_OFFSET))
}

/// The verified header of a record, and its chain hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    kind: RecordKind,
    is_lz4: bool,
    page_size: usize,
    lsn: Lsn,
    term: Term,
    chain_before: u64,
    chain: u64,
    stored_len: usize,
    raw_len: usize,
    annotations_len: usize,
    time_us: u64,
    known_committed: Lsn,
    change_count: u32,
}

impl RecordHeader {
    /// What the record is for.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Highest LSN known to be committed when it was sealed.
    #[must_use]
    pub fn known_committed(&self) -> Lsn {
        self.known_committed
    }

    /// Verifies the stored bytes of one whole record, except for the inside of its payload.
    ///
    /// # Errors
    /// Those of [`verify_checksum`] and of [`decode`](RecordHeader::decode).
    pub fn verify(bytes: &[u8]) -> Result<RecordHeader, Damage> {
        verify_checksum(bytes)?;
        RecordHeader::decode(bytes, claimed_lsn(bytes))
    }

    /// Reads the header of the record `lsn`, whose checksum was verified.
    ///
    /// # Errors
    /// [`Damage::Version`] when its version is newer, [`Damage::Layout`] when a rule is broken. Either
    /// way the bytes are what was written.
    pub fn decode(bytes: &[u8], lsn: Lsn) -> Result<RecordHeader, Damage> {
        let structure = Structure::Record(lsn);
        let version = get_u16(bytes, VERSION_OFFSET);
        if version > RECORD_VERSION {
            let (found, supported) = (version.into(), RECORD_VERSION.into());
            return Err(Damage::Version { structure, found, supported });
        }
        match RecordHeader::decode_fields(bytes) {
            Ok(header) if header.lsn != lsn => {
                Err(Damage::layout(structure, "it has the number of another record"))
            }
            decoded => decoded.map_err(|what| Damage::layout(structure, what)),
        }
    }

    fn decode_fields(bytes: &[u8]) -> Result<RecordHeader, &'static str> {
        if get_u32(bytes, 0) != MAGIC {
            return Err("its magic is missing");
        }
        if get_u16(bytes, VERSION_OFFSET) == 0 {
            return Err("format version 0");
        }
        let stored_len = get_u64(bytes, STORED_LEN_OFFSET);
        let is_len = bytes.len().checked_sub(RECORD_HEADER_SIZE).map(|len| len as u64);
        if stored_len > RECORD_LEN_MAX || is_len != Some(stored_len) {
            return Err("it has another length than its header says");
        }
        let Some(fields) = bytes.first_chunk::<RECORD_HEADER_SIZE>() else {
            return Err("it is shorter than a header");
        };
        let flags = fields[FLAGS_OFFSET];
        if flags & !FLAG_LZ4 != 0 {
            return Err("unknown flags");
        }
        if !is_zero(&fields[RESERVED_OFFSET..]) {
            return Err("reserved bytes are not zero");
        }
        let size = |offset| usize::try_from(get_u64(bytes, offset)).map_err(|_| "a length is huge");
        let header = RecordHeader {
            kind: RecordKind::from_u8(fields[KIND_OFFSET]).ok_or("unknown kind of record")?,
            is_lz4: flags & FLAG_LZ4 != 0,
            page_size: usize::try_from(get_u32(bytes, PAGE_SIZE_OFFSET)).unwrap_or(0),
            lsn: Lsn(get_u64(bytes, LSN_OFFSET)),
            term: Term(get_u64(bytes, TERM_OFFSET)),
            chain_before: get_u64(bytes, CHAIN_OFFSET),
            chain: xxh3_64(bytes),
            stored_len: size(STORED_LEN_OFFSET)?,
            raw_len: size(RAW_LEN_OFFSET)?,
            annotations_len: size(ANNOTATIONS_LEN_OFFSET)?,
            time_us: get_u64(bytes, TIME_OFFSET),
            known_committed: Lsn(get_u64(bytes, KNOWN_COMMITTED_OFFSET)),
            change_count: get_u32(bytes, CHANGE_COUNT_OFFSET),
        };
        header.check_lengths().map(|()| header)
    }

    fn check_lengths(&self) -> Result<(), &'static str> {
        let is_power = self.page_size.is_power_of_two();
        if !is_power || !(PAGE_SIZE_MIN..=PAGE_SIZE_MAX).contains(&self.page_size) {
            return Err("its page size is not possible");
        }
        if self.annotations_len > self.raw_len {
            return Err("its annotations are longer than its payload");
        }
        if self.raw_len as u64 > RECORD_LEN_MAX {
            return Err("its payload passes the limit");
        }
        match self.is_lz4 {
            true if self.raw_len > compression::raw_len_max(self.stored_len) => {
                Err("its payload became smaller than the limit, or than it can")
            }
            false if self.raw_len != self.stored_len => Err("it has two payload lengths"),
            _ => Ok(()),
        }
    }

    /// Its number.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Chain hash of the record before it.
    #[must_use]
    pub fn chain_before(&self) -> u64 {
        self.chain_before
    }

    /// Its chain hash.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.chain
    }

    /// Size of a page in bytes.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Raft term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// When it was sealed, microseconds since 1970.
    #[must_use]
    pub fn time_us(&self) -> u64 {
        self.time_us
    }
}

/// A stored record, verified.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    header: RecordHeader,
    payload: Cow<'a, [u8]>,
}

impl Record<'_> {
    /// Verifies the stored bytes of one whole record, and decompresses its payload if need be.
    ///
    /// # Errors
    /// [`Damage`] when a byte changed, a rule is broken, or the payload does not decompress.
    pub fn parse(bytes: &[u8]) -> Result<Record<'_>, Damage> {
        Record::open(RecordHeader::verify(bytes)?, bytes)
    }

    /// The record with a header that was verified over these bytes before.
    ///
    /// # Errors
    /// [`Damage`] when the payload does not decompress.
    pub fn open(header: RecordHeader, bytes: &[u8]) -> Result<Record<'_>, Damage> {
        let stored = bytes.get(RECORD_HEADER_SIZE..).unwrap_or(&[]);
        let payload = match header.is_lz4 {
            false => Cow::Borrowed(stored),
            true => Cow::Owned(compression::unpack(stored, header.raw_len).ok_or(
                Damage::layout(Structure::Record(header.lsn), "its payload does not decompress"),
            )?),
        };
        Ok(Record { header, payload })
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.header.kind
    }

    /// Its number.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.header.lsn
    }

    /// Raft term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.header.term
    }

    /// Wall-clock time when it was sealed, in microseconds since 1970.
    #[must_use]
    pub fn time_us(&self) -> u64 {
        self.header.time_us
    }

    /// Highest LSN known to be committed when it was sealed.
    #[must_use]
    pub fn known_committed(&self) -> Lsn {
        self.header.known_committed
    }

    /// Chain hash of the record before it.
    #[must_use]
    pub fn chain_before(&self) -> u64 {
        self.header.chain_before
    }

    /// Its chain hash.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.header.chain
    }

    /// Size of a page in bytes.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.header.page_size
    }

    /// Bytes of its payload, not compressed.
    #[must_use]
    pub fn raw_len(&self) -> usize {
        self.header.raw_len
    }

    /// The page changes, in the order in which they were added. Ends behind the first error.
    pub fn changes(&self) -> impl Iterator<Item = Result<PageChange<'_>, Damage>> {
        let (mut rest, _) = self.parts();
        let mut left = Some(self.header.change_count);
        std::iter::from_fn(move || {
            let count = left.take()?;
            let result = match count {
                0 if rest.is_empty() => return None,
                0 => Err("there are bytes behind its last page change"),
                _ => split_change(rest, self.header.page_size),
            };
            Some(match result {
                Ok((change, behind)) => {
                    (rest, left) = (behind, Some(count - 1));
                    Ok(change)
                }
                Err(what) => Err(Damage::layout(Structure::Record(self.header.lsn), what)),
            })
        })
    }

    /// The annotations, in the order in which they were added. Ends behind the first error.
    pub fn annotations(&self) -> impl Iterator<Item = Result<&[u8], Damage>> {
        let (_, mut rest) = self.parts();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let len = usize::try_from(get_u32(rest, 0)).unwrap_or(usize::MAX);
            let bytes = rest.get(4..).and_then(|rest| rest.split_at_checked(len));
            let Some((annotation, behind)) = bytes else {
                rest = &[];
                let structure = Structure::Record(self.header.lsn);
                return Some(Err(Damage::layout(structure, "an annotation is cut off")));
            };
            rest = behind;
            Some(Ok(annotation))
        })
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        let changes_len = self.header.raw_len.saturating_sub(self.header.annotations_len);
        self.payload.split_at_checked(changes_len).unwrap_or((&[], &[]))
    }
}

/// The checksum that the record which begins here carries; not verified.
#[must_use]
pub fn claimed_checksum(bytes: &[u8]) -> u32 {
    get_u32(bytes, RECORD_CHECKSUM_OFFSET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::{blocks::ChangedBlocks, bytes::put_u32},
        ids::PageId,
    };

    fn meta(lsn: u64) -> RecordMeta {
        RecordMeta {
            kind: RecordKind::Transaction,
            lsn: Lsn(lsn),
            term: Term(0x0a),
            page_size: 4096,
            time_us: 0x0b,
            known_committed: Lsn(0x0c),
            chain_before: 0x0d,
        }
    }

    fn builder(page: &[u8]) -> RecordBuilder {
        let mut changed = ChangedBlocks::new();
        changed.note(0, page.len());
        let mut builder = RecordBuilder::default();
        builder.page(PageId(3), false, &changed, page);
        builder.free(PageId(4), 5);
        builder.annotate(b"hello");
        builder.annotate(b"");
        builder
    }

    #[test]
    fn record_has_these_bytes() {
        let mut builder = RecordBuilder::default();
        builder.free(PageId(4), 5);
        builder.annotate(b"hi");
        assert_eq!(builder.payload_len(), 18);
        let sealed = builder.finish(&meta(0x0102_0304_0506_0708), Compression::Auto);
        let mut golden =
            vec![b'T', b'P', b'R', b'C', 0x15, 0xcb, 0x82, 0x7f, 1, 0, 1, 0, 0, 16, 0, 0];
        for word in [0x0102_0304_0506_0708u64, 10, 13, 18, 18, 6, 11, 12, 1] {
            golden.extend(word.to_le_bytes());
        }
        golden.resize(RECORD_HEADER_SIZE, 0);
        golden.extend([3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, b'h', b'i']);
        assert_eq!(sealed.bytes(), golden);
        assert_eq!(sealed.chain, xxh3_64(&golden));
        assert_eq!(sealed.chain_before(), 13);
        assert_eq!(builder.payload_len(), 0);
    }

    #[test]
    fn record_comes_back_as_it_was_built_compressed_or_not() {
        let page: Vec<u8> = (0..4096u32).map(|i| (i / 64) as u8).collect();
        for compression in [Compression::Off, Compression::Auto, Compression::Lz4] {
            let sealed = builder(&page).finish(&meta(7), compression);
            let is_small = sealed.bytes().len() < 1000;
            assert_eq!(is_small, compression == Compression::Lz4);
            let record = Record::parse(sealed.bytes()).expect("valid");
            assert_eq!((record.lsn(), record.term(), record.time_us()), (Lsn(7), Term(10), 11));
            assert_eq!((record.known_committed(), record.chain_before()), (Lsn(12), 13));
            assert_eq!((record.chain(), record.changes().count()), (sealed.chain, 2));
            let changes: Vec<_> = record.changes().map(|change| change.expect("valid")).collect();
            let PageChange::Page { id: PageId(3), from_zeros: false, blocks } = changes[0] else {
                panic!("{changes:?}")
            };
            assert_eq!(blocks.runs().collect::<Vec<_>>(), [(0, &page[..])]);
            assert_eq!(changes[1], PageChange::Free { first: PageId(4), page_count: 5 });
            let annotations: Vec<_> = record.annotations().map(|a| a.expect("valid")).collect();
            assert_eq!(annotations, [&b"hello"[..], b""]);
        }
    }

    #[test]
    fn auto_compresses_large_repetitive_payloads_only() {
        let mut noise = 1u64;
        let random: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (noise >> 56) as u8
        })
        .take(300_000)
        .collect();
        for (bytes, is_lz4) in
            [(&vec![7; 300_000], true), (&random, false), (&vec![7; 200_000], false)]
        {
            let mut builder = RecordBuilder::default();
            builder.run(PageId(20), 100, bytes);
            let sealed = builder.finish(&meta(7), Compression::Auto);
            assert_eq!(sealed.bytes().len() < bytes.len(), is_lz4);
            let record = Record::parse(sealed.bytes()).expect("valid");
            let change = record.changes().next().expect("one").expect("valid");
            assert!(matches!(change, PageChange::Run { bytes: found, .. } if found == bytes));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_record_is_found() {
        let mut bytes = builder(&[9; 64]).finish(&meta(7), Compression::Off).bytes().to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::parse(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for cut in 0..bytes.len() {
            assert!(Record::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn hostile_header_under_a_right_checksum_is_an_error_and_not_a_panic() {
        let valid = builder(&[9; 64]).finish(&meta(7), Compression::Off).bytes().to_vec();
        let fields = [
            STORED_LEN_OFFSET,
            RAW_LEN_OFFSET,
            ANNOTATIONS_LEN_OFFSET,
            CHANGE_COUNT_OFFSET,
            KIND_OFFSET,
            FLAGS_OFFSET,
            VERSION_OFFSET,
            PAGE_SIZE_OFFSET,
            RESERVED_OFFSET,
            RECORD_HEADER_SIZE,
            RECORD_HEADER_SIZE + 2,
            RECORD_HEADER_SIZE + 8,
        ];
        for offset in fields {
            for value in [0, 1, 2, 3, 0x7f, 0xff] {
                for width in [1, 4, 8] {
                    let mut bytes = valid.clone();
                    bytes[offset..offset + width].fill(value);
                    let checksum = record_checksum(&bytes);
                    put_u32(&mut bytes, RECORD_CHECKSUM_OFFSET, checksum);
                    let Ok(record) = Record::parse(&bytes) else { continue };
                    let changes = record.changes().filter(Result::is_ok).count();
                    let annotations = record.annotations().count();
                    assert!(changes <= 64 && annotations <= 64, "{offset} {value} {width}");
                }
            }
        }
    }

    #[test]
    fn genesis_chain_depends_on_database_and_epoch() {
        let id = DatabaseId([1; 16]);
        assert_eq!(genesis_chain(&id, 1), genesis_chain(&id, 1));
        assert_ne!(genesis_chain(&id, 1), genesis_chain(&id, 2));
        assert_ne!(genesis_chain(&id, 1), genesis_chain(&DatabaseId([2; 16]), 1));
    }
}
