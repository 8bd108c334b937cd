//! Writing: one group of records is one write at a multiple of 4 KiB of the current segment, zero
//! padded to one. Blocks that were acknowledged are never written again.

use std::{path::PathBuf, sync::Arc};

use crate::{
    disk::DiskFile,
    error::{Error, Result},
    format::{
        bytes::is_zero,
        frame::{FRAME_SIZE, Frame},
        record::SealedRecord,
        segment::{JOURNAL_BLOCK_SIZE, SEGMENT_HEADER_SIZE, SegmentHeader},
    },
    ids::Lsn,
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
    /// The last record known to be durable.
    pub synced: Lsn,
    /// The current segment; none before the first append.
    pub current: Option<Current>,
    /// Length of the next segment in bytes.
    pub next_len: u64,
    buf: Vec<u8>,
}

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
    /// Groups written so far.
    pub group_count: u64,
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
    pub fn new(last: JournalPosition, next_len: u64) -> Writer {
        Writer { last, synced: last.lsn, current: None, next_len, buf: Vec::new() }
    }

    /// Whether the current segment has room for a group.
    pub fn has_room(&self, group_len: u64, room: Room) -> bool {
        let current = self.current.as_ref();
        current.filter(|current| !current.is_reserve || room.has_reserve()).is_some_and(|current| {
            let begin = current.offset.max(SEGMENT_HEADER_SIZE as u64);
            begin + group_len <= current.header.segment_len
        })
    }

    /// Writes the group at the end of the current segment; returns the bytes written.
    ///
    /// # Panics
    /// If the records do not continue the last one, or there is no room.
    pub fn write(&mut self, records: &[&SealedRecord]) -> Result<u64> {
        let current = self.current.as_mut().expect("a segment was begun");
        let mut out = Output { current, buf: std::mem::take(&mut self.buf), written: 0 };
        out.buf.clear();
        if out.current.offset == 0 {
            out.buf.extend_from_slice(&out.current.header.encode());
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
            out.push_record(record, self.synced)?;
        }
        out.finish()?;
        let written = out.written;
        self.buf = out.buf;
        let current = self.current.as_mut().expect("a segment was begun");
        current.offset += written;
        current.group_count += 1;
        assert!(current.offset <= current.header.segment_len, "{current:?}");
        Ok(written)
    }
}

struct Output<'a> {
    current: &'a Current,
    buf: Vec<u8>,
    written: u64,
}

impl Output<'_> {
    fn push_record(&mut self, record: &SealedRecord, synced: Lsn) -> Result<()> {
        let unsynced = record.lsn.0 - synced.0;
        let frame = Frame {
            incarnation: self.current.header.incarnation,
            record_len: u32::try_from(record.bytes().len()).expect("a record is below 4 GiB"),
            unsynced: u32::try_from(unsynced).unwrap_or(u32::MAX),
            lsn: record.lsn,
        };
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
