//! Hard state: what a replica must not forget between two votes. The payload of a local record of
//! kind 16 (see `record`), which has no page changes, and this as its one annotation.
//!
//! | Offset | Size | Field         | Meaning                                                    |
//! |-------:|-----:|---------------|------------------------------------------------------------|
//! |      0 |    8 | `term`        | Newest Raft term that this replica has seen, at least 1    |
//! |      8 |    8 | `vote`        | Node that it has voted for in this term; 0: none           |
//! |     16 |    8 | `durable_len` | Bytes of the segment that were durable when it was written |
//!
//! It is the first record of its write. Each segment of a replicated journal begins with one, so that
//! no trim loses it; the newest one counts, and terms never fall. `known_committed` in its header is
//! not above its `lsn`.
//!
//! A local record takes no LSN, so that no frame vouches for it by number. `durable_len` does, for
//! everything of the segment below it; and a write that follows one without other records begins
//! with a hard state again.

use crate::{
    error::{Damage, Structure},
    ids::Term,
};

use super::{
    bytes::{get_u64, put_u64},
    record::{Compression, Record, RecordBuilder, RecordKind, RecordMeta, SealedRecord},
};

/// Size of the annotation in bytes.
const SIZE: usize = 24;
const TERM_OFFSET: usize = 0;
const VOTE_OFFSET: usize = 8;
const DURABLE_LEN_OFFSET: usize = 16;
const _: () = assert!(SIZE == DURABLE_LEN_OFFSET + 8);

/// Bytes of a record of a hard state: its header, the length of the annotation, the annotation.
pub const HARD_STATE_RECORD_LEN: usize = super::record::RECORD_HEADER_SIZE + 4 + SIZE;

/// What a replica must remember of the elections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The newest term that it has seen.
    pub term: Term,
    /// The node that it has voted for in this term; 0 for none.
    pub vote: u64,
}

/// A hard state, and what its record vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredHardState {
    /// The hard state.
    pub state: HardState,
    /// Bytes of the segment that were durable when it was written.
    pub durable_len: u64,
}

impl StoredHardState {
    /// The record. Of `meta`, LSN, term and chain hash are those of the record before.
    pub fn seal(&self, meta: &RecordMeta) -> SealedRecord {
        assert_eq!(meta.kind, RecordKind::HardState, "it has a kind of its own");
        let mut bytes = [0; SIZE];
        put_u64(&mut bytes, TERM_OFFSET, self.state.term.0);
        put_u64(&mut bytes, VOTE_OFFSET, self.state.vote);
        put_u64(&mut bytes, DURABLE_LEN_OFFSET, self.durable_len);
        let mut builder = RecordBuilder::default();
        builder.annotate(&bytes);
        builder.finish(meta, Compression::Off)
    }

    /// Reads the payload of a record of this kind.
    ///
    /// # Errors
    /// [`Damage`] when a rule is broken: the bytes are what was written.
    pub fn decode(record: &Record<'_>) -> Result<StoredHardState, Damage> {
        let wrong = |what| Damage::layout(Structure::Record(record.lsn()), what);
        if record.changes().next().is_some() {
            return Err(wrong("a hard state changes pages"));
        }
        let mut annotations = record.annotations();
        let bytes = annotations.next().ok_or(wrong("a hard state is missing"))??;
        if bytes.len() != SIZE || annotations.next().is_some() {
            return Err(wrong("a hard state has another length"));
        }
        let term = Term(get_u64(bytes, TERM_OFFSET));
        if term == Term(0) {
            return Err(wrong("a hard state has no term"));
        }
        if record.known_committed() > record.lsn() {
            return Err(wrong("a hard state commits records to come"));
        }
        let state = HardState { term, vote: get_u64(bytes, VOTE_OFFSET) };
        Ok(StoredHardState { state, durable_len: get_u64(bytes, DURABLE_LEN_OFFSET) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{format::record::RECORD_HEADER_SIZE, ids::Lsn};

    const STORED: StoredHardState = StoredHardState {
        state: HardState { term: Term(0x0102_0304_0506_0708), vote: 0x1112_1314_1516_1718 },
        durable_len: 0x2000,
    };

    fn meta() -> RecordMeta {
        RecordMeta {
            kind: RecordKind::HardState,
            lsn: Lsn(9),
            term: Term(3),
            page_size: 4096,
            time_us: 5,
            known_committed: Lsn(8),
            chain_before: 7,
        }
    }

    #[test]
    fn hard_state_has_these_bytes() {
        let sealed = STORED.seal(&meta());
        let bytes = sealed.bytes();
        assert_eq!(bytes.len(), HARD_STATE_RECORD_LEN);
        assert_eq!((bytes[10], &bytes[16..24]), (16, &[9, 0, 0, 0, 0, 0, 0, 0][..]));
        let mut golden = vec![24, 0, 0, 0];
        golden.extend([8, 7, 6, 5, 4, 3, 2, 1]);
        golden.extend([0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]);
        golden.extend([0, 0x20, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[RECORD_HEADER_SIZE..], golden);
        let record = Record::parse(bytes).expect("valid");
        assert_eq!(StoredHardState::decode(&record), Ok(STORED));
    }

    #[test]
    fn hard_state_that_breaks_a_rule_is_refused() {
        let annotated = |annotations: &[&[u8]], meta: &RecordMeta| {
            let mut builder = RecordBuilder::default();
            annotations.iter().for_each(|bytes| builder.annotate(bytes));
            builder.finish(meta, Compression::Off)
        };
        let valid = [1; SIZE];
        for annotations in
            [&[][..], &[&[][..]], &[&valid[1..]], &[&[0; SIZE][..]], &[&valid[..], &valid[..]]]
        {
            let sealed = annotated(annotations, &meta());
            let record = Record::parse(sealed.bytes()).expect("a record");
            assert!(StoredHardState::decode(&record).is_err(), "{annotations:?}");
        }
        let ahead = RecordMeta { known_committed: Lsn(10), ..meta() };
        let sealed = annotated(&[&valid[..]], &ahead);
        let record = Record::parse(sealed.bytes()).expect("a record");
        assert!(StoredHardState::decode(&record).is_err());
    }

    #[test]
    fn local_record_of_another_replica_is_not_received() {
        let bytes = STORED.seal(&meta()).bytes().to_vec();
        assert!(SealedRecord::receive(bytes).is_err());
    }
}
