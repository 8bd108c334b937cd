//! Writing: one group of records is one write at a multiple of 4 KiB of the current segment, zero
//! padded to one. Blocks that were acknowledged are never written again.
//!
//! In a replicated journal some groups begin with a hard state (see `format::hard_state`): the first one
//! of each segment, the one behind a group without records, and whichever was asked to.

use std::{path::PathBuf, sync::Arc};

use crate::{
    disk::DiskFile,
    error::{Error, Result},
    format::{
        bytes::is_zero,
        frame::{FRAME_SIZE, Frame},
        hard_state::{HardState, StoredHardState},
        record::{RecordKind, RecordMeta, SealedRecord},
        segment::{JOURNAL_BLOCK_SIZE, SEGMENT_HEADER_SIZE, SegmentHeader},
    },
    ids::{Lsn, Term},
};

use super::{
    JournalPosition,
    reserve::Room,
    segment::{align_block, align_frame},
};

/// A group longer than this goes out in several writes, so that the buffer stays bounded, in bytes.
const BUFFER_LEN_MAX: usize = 4 << 20;
/// A record of this length or more is written from where it is, in bytes.
const DIRECT_LEN_MIN: usize = 256 << 10;

/// Where the next group goes.
#[derive(Debug)]
pub struct Writer {
    /// The last record that was appended.
    pub last: JournalPosition,
    /// Its term.
    pub term: Term,
    /// The last record known to be durable.
    pub synced: Lsn,
    /// Groups written so far, and how many of them are durable.
    pub groups: Groups,
    /// What this replica remembers of the elections; none in a journal that is not replicated.
    pub hard_state: Option<HardState>,
    /// Sequence of the next segment.
    pub next_sequence: u64,
    /// The current segment; none before the first append.
    pub current: Option<Current>,
    /// Length of the next segment in bytes.
    pub next_len: u64,
    buf: Vec<u8>,
}

/// Groups of all segments since the journal was opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Groups {
    /// Written.
    pub written: u64,
    /// Durable.
    pub durable: u64,
}

/// What is at the head of a group in front of the records.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Size of a page in bytes.
    pub page_size: usize,
    /// Wall-clock time in microseconds since 1970.
    pub time_us: u64,
    /// Highest LSN known to be committed.
    pub known_committed: Lsn,
}

/// Room that a hard state takes in front of records, at most, in bytes.
pub const HEAD_LEN: u64 = JOURNAL_BLOCK_SIZE as u64;

/// The segment that is being written.
#[derive(Debug)]
pub struct Current {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// Its path.
    pub path: PathBuf,
    /// Its header, which goes out with the first group.
    pub header: SegmentHeader,
    /// Where the next group begins, in bytes; 0 before the first one.
    pub offset: u64,
    /// Bytes that are known to be durable.
    pub durable_len: u64,
    /// Groups written so far.
    pub group_count: u64,
    /// Whether the last one had no records, so that no frame vouches for it.
    pub ends_in_hard_state: bool,
    /// Whether a spare to follow was asked for.
    pub is_spare_asked: bool,
    /// Whether it was the reserve: then it is not for everyone.
    pub is_reserve: bool,
}

/// Bytes of a group in a segment, padding included.
pub fn group_len(records: &[&SealedRecord]) -> u64 {
    let framed = |record: &&SealedRecord| FRAME_SIZE as u64 + record.bytes().len() as u64;
    align_block(records.iter().map(|record| align_frame(framed(record))).sum())
}

impl Writer {
    /// Nothing is written yet behind `last`, which is durable.
    pub fn new(
        last: JournalPosition,
        term: Term,
        next_len: u64,
        next_sequence: u64,
        hard_state: Option<HardState>,
    ) -> Writer {
        let groups = Groups::default();
        let (synced, current, buf) = (last.lsn, None, Vec::new());
        Writer { last, term, synced, groups, hard_state, next_sequence, current, next_len, buf }
    }

    /// Whether something was written that is not known to be durable.
    pub fn is_unsynced(&self) -> bool {
        self.groups.durable < self.groups.written
    }

    /// Room that a hard state in front of the next group takes, at most, in bytes.
    pub fn head_len(&self) -> u64 {
        if self.hard_state.is_some() { HEAD_LEN } else { 0 }
    }

    /// Whether the next group begins with the hard state, asked for or not.
    pub fn needs_hard_state(&self) -> bool {
        let current = self.current.as_ref();
        self.hard_state.is_some()
            && current.is_some_and(|current| current.offset == 0 || current.ends_in_hard_state)
    }

    /// The record of the hard state, behind the last record.
    ///
    /// # Panics
    /// If there is no hard state.
    pub fn seal_hard_state(&self, head: &Head) -> SealedRecord {
        let durable_len = self.current.as_ref().map_or(0, |current| current.durable_len);
        self.seal_behind(head, (self.last, self.term), durable_len)
    }

    /// The same for the head of a segment that begins behind `after`.
    pub fn seal_first_hard_state(
        &self,
        head: &Head,
        after: (JournalPosition, Term),
    ) -> SealedRecord {
        self.seal_behind(head, after, 0)
    }

    fn seal_behind(
        &self,
        head: &Head,
        (position, term): (JournalPosition, Term),
        durable_len: u64,
    ) -> SealedRecord {
        let meta = RecordMeta {
            kind: RecordKind::HardState,
            lsn: position.lsn,
            term,
            page_size: head.page_size,
            time_us: head.time_us,
            known_committed: head.known_committed.min(position.lsn),
            chain_before: position.chain,
        };
        let state = self.hard_state.expect("the journal is replicated");
        StoredHardState { state, durable_len }.seal(&meta)
    }

    /// Whether the current segment has room for a group.
    pub fn has_room(&self, group_len: u64, room: Room) -> bool {
        let current = self.current.as_ref();
        current.filter(|current| !current.is_reserve || room.has_reserve()).is_some_and(|current| {
            let begin = current.offset.max(SEGMENT_HEADER_SIZE as u64);
            begin + group_len + self.head_len() <= current.header.segment_len
        })
    }

    /// Writes the group at the end of the current segment, with a hard state in front if there is one;
    /// returns the bytes written. `begin_term` is called where a term begins.
    ///
    /// # Panics
    /// If the records do not continue the last one, or there is no room.
    pub fn write(
        &mut self,
        hard_state: Option<&SealedRecord>,
        records: &[&SealedRecord],
        begin_term: &mut dyn FnMut(Lsn, Term),
    ) -> Result<u64> {
        let current = self.current.as_mut().expect("a segment was begun");
        let mut out = Output { current, buf: std::mem::take(&mut self.buf), written: 0 };
        out.buf.clear();
        if out.current.offset == 0 {
            out.buf.extend_from_slice(&out.current.header.encode());
        }
        if let Some(hard_state) = hard_state {
            out.push_record(hard_state, self.synced)?;
        }
        for record in records {
            assert_eq!(record.lsn, self.last.lsn.next(), "records are appended without gaps");
            assert_eq!(
                record.chain_before(),
                self.last.chain,
                "record {} breaks the chain",
                record.lsn
            );
            self.last = JournalPosition { lsn: record.lsn, chain: record.chain };
            if record.term != self.term {
                begin_term(record.lsn, record.term);
                self.term = record.term;
            }
            out.push_record(record, self.synced)?;
        }
        out.finish()?;
        let written = out.written;
        self.buf = out.buf;
        let current = self.current.as_mut().expect("a segment was begun");
        current.offset += written;
        current.group_count += 1;
        current.ends_in_hard_state = records.is_empty();
        self.groups.written += 1;
        assert!(current.offset <= current.header.segment_len, "{current:?}");
        Ok(written)
    }
}

/// A frame and the record behind it, padded to the place of the next frame.
pub fn push_framed(buf: &mut Vec<u8>, incarnation: u64, record: &SealedRecord, synced: Lsn) {
    buf.extend_from_slice(&frame_of(incarnation, record, synced).encode(record.checksum()));
    buf.extend_from_slice(record.bytes());
    buf.resize(buf.len().next_multiple_of(8), 0);
}

fn frame_of(incarnation: u64, record: &SealedRecord, synced: Lsn) -> Frame {
    Frame {
        incarnation,
        record_len: u32::try_from(record.bytes().len()).expect("a record is below 4 GiB"),
        unsynced: u32::try_from(record.lsn.0 - synced.0).unwrap_or(u32::MAX),
        lsn: record.lsn,
    }
}

struct Output<'a> {
    current: &'a Current,
    buf: Vec<u8>,
    written: u64,
}

impl Output<'_> {
    fn push_record(&mut self, record: &SealedRecord, synced: Lsn) -> Result<()> {
        let frame = frame_of(self.current.header.incarnation, record, synced);
        self.buf.extend_from_slice(&frame.encode(record.checksum()));
        let rest = match record.bytes() {
            bytes if bytes.len() < DIRECT_LEN_MIN => bytes,
            bytes => self.push_direct(bytes)?,
        };
        self.buf.extend_from_slice(rest);
        self.buf.resize(self.buf.len().next_multiple_of(8), 0);
        if self.buf.len() > BUFFER_LEN_MAX {
            self.flush(self.buf.len() / JOURNAL_BLOCK_SIZE * JOURNAL_BLOCK_SIZE)?;
        }
        Ok(())
    }

    /// Writes the whole blocks of a long record from where they are, and returns what is left.
    fn push_direct<'r>(&mut self, bytes: &'r [u8]) -> Result<&'r [u8]> {
        let begun = self.buf.len() % JOURNAL_BLOCK_SIZE;
        let (head, rest) = bytes.split_at((JOURNAL_BLOCK_SIZE - begun) % JOURNAL_BLOCK_SIZE);
        self.buf.extend_from_slice(head);
        self.flush(self.buf.len())?;
        let (blocks, rest) = rest.split_at(rest.len() / JOURNAL_BLOCK_SIZE * JOURNAL_BLOCK_SIZE);
        let offset = self.current.offset + self.written;
        let write = self.current.file.write_at(offset, blocks);
        write.map_err(Error::io("write", &self.current.path))?;
        self.written += blocks.len() as u64;
        Ok(rest)
    }

    fn finish(&mut self) -> Result<()> {
        self.buf.resize(self.buf.len().next_multiple_of(JOURNAL_BLOCK_SIZE), 0);
        self.flush(self.buf.len())
    }

    fn flush(&mut self, len: usize) -> Result<()> {
        let offset = self.current.offset + self.written;
        debug_assert!(offset > 0 || !is_zero(&self.buf[..SEGMENT_HEADER_SIZE]));
        let write = self.current.file.write_at(offset, &self.buf[..len]);
        write.map_err(Error::io("write", &self.current.path))?;
        self.written += len as u64;
        self.buf.drain(..len);
        Ok(())
    }
}
