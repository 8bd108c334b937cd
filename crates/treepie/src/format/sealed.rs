//! Building records: what a transaction changes becomes the stored bytes of one record, which is
//! `record.rs`'s to read.

use std::mem;

use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::{Damage, Structure},
    ids::{Lsn, PageId, Term},
    limits::{LSN_MAX, RECORD_LEN_MAX},
};

use super::{
    blocks::ChangedBlocks,
    bytes::{get_u32, get_u64, put_u16, put_u32, put_u64},
    change::{encode_free, encode_page, encode_run},
    compression,
    record::{
        ANNOTATIONS_LEN_OFFSET, BUFFER_KEPT_MAX, CHAIN_OFFSET, CHANGE_COUNT_OFFSET, Compression,
        FLAG_LZ4, FLAGS_OFFSET, KIND_OFFSET, KNOWN_COMMITTED_OFFSET, LSN_OFFSET, MAGIC,
        PAGE_SIZE_OFFSET, RAW_LEN_OFFSET, RECORD_CHECKSUM_OFFSET, RECORD_HEADER_SIZE,
        RECORD_VERSION, RecordHeader, RecordKind, STORED_LEN_OFFSET, TERM_OFFSET, TIME_OFFSET,
        VERSION_OFFSET, record_checksum,
    },
};

/// What the header of a record says beside its lengths.
#[derive(Clone, Copy, Debug)]
pub struct RecordMeta {
    /// What it is for.
    pub kind: RecordKind,
    /// Its number.
    pub lsn: Lsn,
    /// Raft term.
    pub term: Term,
    /// Size of a page in bytes.
    pub page_size: usize,
    /// Wall-clock time in microseconds since 1970.
    pub time_us: u64,
    /// Highest LSN known to be committed.
    pub known_committed: Lsn,
    /// Chain hash of the record before it.
    pub chain_before: u64,
}

/// Gathers the payload of a record, behind room for its header: sealing copies nothing.
#[derive(Default, Debug)]
pub struct RecordBuilder {
    /// Empty, or room for the header and the page changes so far.
    bytes: Vec<u8>,
    annotations: Vec<u8>,
    change_count: u32,
}

impl RecordBuilder {
    /// Adds the changed blocks of a page. With `from_zeros`, the page is zero before the change,
    /// and blocks that are all zero are left out.
    ///
    /// # Panics
    /// If a changed block lies past the end of `page`.
    pub fn page(&mut self, id: PageId, from_zeros: bool, changed: &ChangedBlocks, page: &[u8]) {
        encode_page(self.begin_change(), id, from_zeros, changed, page);
    }

    /// Adds a run of pages that begins with `bytes` and is zero behind them.
    pub fn run(&mut self, first: PageId, page_count: u32, bytes: &[u8]) {
        encode_run(self.begin_change(), first, page_count, bytes);
    }

    /// Adds a run of pages that became free.
    pub fn free(&mut self, first: PageId, page_count: u32) {
        encode_free(self.begin_change(), first, page_count);
    }

    /// Adds bytes that the engine keeps with the record and does not interpret.
    ///
    /// # Panics
    /// If they are 4 GiB or longer.
    pub fn annotate(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("an annotation is shorter than 4 GiB");
        self.annotations.extend_from_slice(&len.to_le_bytes());
        self.annotations.extend_from_slice(bytes);
    }

    /// Bytes of the payload so far, not compressed.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.bytes.len().saturating_sub(RECORD_HEADER_SIZE) + self.annotations.len()
    }

    /// Drops what was added.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.annotations.clear();
        self.change_count = 0;
    }

    /// Seals what was added into a record. The builder is empty afterwards.
    ///
    /// # Panics
    /// If the payload is longer than `RECORD_LEN_MAX`.
    #[allow(clippy::indexing_slicing, reason = "a record that is being built has its header")]
    pub fn finish(&mut self, meta: &RecordMeta, compression: Compression) -> SealedRecord {
        let payload_len = self.payload_len();
        assert!(payload_len as u64 <= RECORD_LEN_MAX, "a record of {payload_len} bytes");
        self.reserve_header();
        self.bytes.extend_from_slice(&self.annotations);
        let mut bytes = mem::take(&mut self.bytes);
        put_u64(&mut bytes, RAW_LEN_OFFSET, payload_len as u64);
        put_u64(&mut bytes, ANNOTATIONS_LEN_OFFSET, self.annotations.len() as u64);
        put_u32(&mut bytes, CHANGE_COUNT_OFFSET, self.change_count);
        self.clear();
        if let Some(mut packed) = compression::pack(&bytes, RECORD_HEADER_SIZE, compression) {
            packed[FLAGS_OFFSET] |= FLAG_LZ4;
            bytes = packed;
        }
        seal(bytes, meta)
    }

    /// Takes the memory of a record back that nobody needs any more: what was touched before costs
    /// a tenth of what is touched for the first time.
    pub fn recycle(&mut self, record: SealedRecord) {
        let mut bytes = record.bytes;
        if self.bytes.is_empty() && bytes.capacity() <= BUFFER_KEPT_MAX {
            bytes.clear();
            self.bytes = bytes;
        }
    }

    fn begin_change(&mut self) -> &mut Vec<u8> {
        self.reserve_header();
        self.change_count += 1;
        &mut self.bytes
    }

    fn reserve_header(&mut self) {
        if self.bytes.is_empty() {
            self.bytes.resize(RECORD_HEADER_SIZE, 0);
        }
    }
}

#[allow(clippy::indexing_slicing, reason = "a record that is being built has its header")]
fn seal(mut bytes: Vec<u8>, meta: &RecordMeta) -> SealedRecord {
    let stored_len = (bytes.len() - RECORD_HEADER_SIZE) as u64;
    let page_size = u32::try_from(meta.page_size).expect("a page is small");
    put_u32(&mut bytes, 0, MAGIC);
    put_u16(&mut bytes, VERSION_OFFSET, RECORD_VERSION);
    bytes[KIND_OFFSET] = meta.kind as u8;
    put_u32(&mut bytes, PAGE_SIZE_OFFSET, page_size);
    put_u64(&mut bytes, LSN_OFFSET, meta.lsn.0);
    put_u64(&mut bytes, TERM_OFFSET, meta.term.0);
    put_u64(&mut bytes, CHAIN_OFFSET, meta.chain_before);
    put_u64(&mut bytes, STORED_LEN_OFFSET, stored_len);
    put_u64(&mut bytes, TIME_OFFSET, meta.time_us);
    put_u64(&mut bytes, KNOWN_COMMITTED_OFFSET, meta.known_committed.0);
    let checksum = record_checksum(&bytes);
    put_u32(&mut bytes, RECORD_CHECKSUM_OFFSET, checksum);
    let chain = xxh3_64(&bytes);
    SealedRecord { lsn: meta.lsn, term: meta.term, kind: meta.kind, chain, bytes }
}

/// A record, ready to be stored and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRecord {
    /// Its number.
    pub lsn: Lsn,
    /// Raft term.
    pub term: Term,
    /// What it is for.
    pub kind: RecordKind,
    /// Its chain hash.
    pub chain: u64,
    bytes: Vec<u8>,
}

#[allow(dead_code, reason = "for who replicates the database")]
impl SealedRecord {
    /// The record that another replica has sealed, in the memory in which it came.
    ///
    /// # Errors
    /// [`Damage`] when a byte changed, a rule is broken, or it is of a kind that does not travel. The
    /// inside of its payload is not looked at.
    pub fn receive(bytes: Vec<u8>) -> Result<SealedRecord, Damage> {
        let header = RecordHeader::verify(&bytes)?;
        SealedRecord::receive_verified(&header, bytes)
    }

    /// The same, where the header was verified over these bytes before.
    ///
    /// # Errors
    /// [`Damage`] when it is of a kind that does not travel, or its number is not possible.
    pub fn receive_verified(header: &RecordHeader, bytes: Vec<u8>) -> Result<SealedRecord, Damage> {
        let (lsn, term, kind) = (header.lsn(), header.term(), header.kind());
        let wrong = |what| Err(Damage::layout(Structure::Record(lsn), what));
        if kind.is_local() {
            return wrong("it is local to another replica");
        }
        if !(1..=LSN_MAX).contains(&lsn.0) {
            return wrong("its number is not possible");
        }
        Ok(SealedRecord { lsn, term, kind, chain: header.chain(), bytes })
    }

    /// Header and payload as stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub fn memory_len(&self) -> usize {
        self.bytes.capacity()
    }

    /// Chain hash of the record before it.
    #[must_use]
    pub fn chain_before(&self) -> u64 {
        get_u64(&self.bytes, CHAIN_OFFSET)
    }

    /// Its own checksum, as in its header.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        get_u32(&self.bytes, RECORD_CHECKSUM_OFFSET)
    }
}
