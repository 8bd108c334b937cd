//! A record that many hold at once: the journal writes it, several peers are sent it, and a follower
//! applies it, all from the one piece of memory in which it was sealed or received.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use crate::{
    error::{Damage, Error, Result, Structure},
    ids::{Lsn, Term},
};

use super::record::{Record, RecordHeader, RecordKind, SealedRecord};

/// A sealed record; cloning it copies no bytes.
#[derive(Clone)]
pub struct SharedRecord(Arc<Inner>);

struct Inner {
    record: SealedRecord,
    /// Of one that was sealed here, only when somebody asks for it.
    header: OnceLock<RecordHeader>,
}

impl SharedRecord {
    /// Takes a record that came from another node, in the memory in which it came.
    ///
    /// # Errors
    /// [`Error::Received`] when a byte changed on the way, or it is no record that travels. The inside of
    /// its payload is looked at when it is applied.
    pub fn receive(bytes: Vec<u8>) -> Result<SharedRecord> {
        let header = RecordHeader::verify(&bytes).map_err(|what| Error::Received { what })?;
        SharedRecord::stored(header, bytes)
    }

    /// A record that was read from the journal, which has verified it.
    ///
    /// # Errors
    /// As `receive`.
    pub(crate) fn stored(header: RecordHeader, bytes: Vec<u8>) -> Result<SharedRecord> {
        let record = SealedRecord::receive_verified(&header, bytes)
            .map_err(|what| Error::Received { what })?;
        Ok(SharedRecord(Arc::new(Inner { record, header: OnceLock::from(header) })))
    }

    /// A record that was sealed here.
    pub(crate) fn sealed(record: SealedRecord) -> SharedRecord {
        SharedRecord(Arc::new(Inner { record, header: OnceLock::new() }))
    }

    /// Its number.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.0.record.lsn
    }

    /// Its term. One that was sealed before the database was replicated counts as of term 1.
    #[must_use]
    pub fn term(&self) -> Term {
        effective_term(self.0.record.term)
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> RecordKind {
        self.0.record.kind
    }

    /// Its chain hash: equal hashes, equal histories.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.0.record.chain
    }

    /// Chain hash of the record before it.
    #[must_use]
    pub fn chain_before(&self) -> u64 {
        self.0.record.chain_before()
    }

    /// The checksum in its header.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        self.0.record.checksum()
    }

    /// Bytes of header and payload.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a record is never empty")]
    pub fn len(&self) -> usize {
        self.0.record.bytes().len()
    }

    /// Size of the pages that it changes, in bytes.
    pub(crate) fn page_size(&self) -> usize {
        self.header().map_or(0, |header| header.page_size())
    }

    /// Header and payload, as they are stored and sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.record.bytes()
    }

    /// What was annotated when it was sealed.
    ///
    /// # Errors
    /// [`Error::Received`] when its payload breaks a rule.
    pub fn annotations(&self) -> Result<Vec<Vec<u8>>> {
        let received = |what| Error::Received { what };
        let record = self.open().map_err(received)?;
        let annotations = record.annotations().map(|bytes| bytes.map(<[u8]>::to_vec));
        annotations.collect::<Result<_, _>>().map_err(received)
    }

    /// As the journal takes it.
    pub(crate) fn record(&self) -> &SealedRecord {
        &self.0.record
    }

    /// Opens its payload.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn open(&self) -> Result<Record<'_>, Damage> {
        Record::open(self.header()?, self.bytes())
    }

    /// Its header.
    ///
    /// # Errors
    /// What is wrong with it; nothing is, since it was sealed or received.
    pub(crate) fn header(&self) -> Result<RecordHeader, Damage> {
        if let Some(header) = self.0.header.get() {
            return Ok(*header);
        }
        let header = RecordHeader::decode(self.bytes(), self.lsn())?;
        Ok(*self.0.header.get_or_init(|| header))
    }

    /// The error for a record whose payload breaks a rule.
    pub(crate) fn damaged(&self, what: &'static str) -> Error {
        Error::Received { what: Damage::layout(Structure::Record(self.lsn()), what) }
    }
}

/// The term that a record counts as: one that was sealed before there were terms is of the first.
#[must_use]
pub fn effective_term(term: Term) -> Term {
    term.max(Term(1))
}

impl fmt::Debug for SharedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRecord")
            .field("lsn", &self.lsn())
            .field("term", &self.term())
            .field("kind", &self.kind())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::{Compression, RecordBuilder, RecordMeta};

    fn sealed(kind: RecordKind) -> Vec<u8> {
        let mut builder = RecordBuilder::default();
        builder.annotate(b"hello");
        let meta = RecordMeta {
            kind,
            lsn: Lsn(7),
            term: Term(0),
            page_size: 4096,
            time_us: 1,
            known_committed: Lsn(6),
            chain_before: 9,
        };
        builder.finish(&meta, Compression::Off).bytes().to_vec()
    }

    #[test]
    fn a_received_record_keeps_its_memory_and_says_what_it_is() {
        let bytes = sealed(RecordKind::Transaction);
        let address = bytes.as_ptr();
        let record = SharedRecord::receive(bytes).expect("whole");
        assert_eq!(record.bytes().as_ptr(), address);
        assert_eq!((record.lsn(), record.term(), record.chain_before()), (Lsn(7), Term(1), 9));
        assert_eq!(record.open().expect("whole").annotations().count(), 1);
    }

    #[test]
    fn a_changed_byte_and_a_local_record_are_not_received() {
        let mut bytes = sealed(RecordKind::Transaction);
        *bytes.last_mut().expect("a byte") ^= 1;
        assert!(matches!(SharedRecord::receive(bytes), Err(Error::Received { .. })));
        let local = SharedRecord::receive(sealed(RecordKind::HardState));
        assert!(matches!(local, Err(Error::Received { .. })));
    }
}
