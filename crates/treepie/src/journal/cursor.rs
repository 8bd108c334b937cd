//! A walk over the records of a journal, in LSN order, each verified: frame, number, checksum,
//! chain. Recovery and the reader are two users of it.
//!
//! **Where it ends.** When record `m` is not where it should be:
//!
//! 1. The next segment begins with `m`: go on there. What follows the last record of the old one
//!    are remains of a torn tail that a recovery dropped.
//! 2. Something vouches for `m`: it was durable once, and is lost. That is corruption, an error.
//!    Vouching are: the checkpoint, at or above `m`; a segment that begins above `m`, since the
//!    segment before it is synced before a new one gets its name; a frame in the rest of the newest
//!    segment, written when `m` was known to be durable (see `format::frame`).
//! 3. Otherwise no sync that covered `m` has returned: a torn tail, which is dropped. A valid record
//!    above `m` may well exist, since the disk may store the blocks of unsynced writes in any order.
//!
//! A record that is there, its frame and its checksum valid, never ends the walk: when its version is
//! newer, or it breaks a rule, that is an error. No torn write looks like that.
//!
//! So the records of the very last synced write cannot be told from a torn tail, should they rot:
//! nothing was written after their sync that could vouch for them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    disk::Disk,
    error::{Damage, Error, Result, Structure},
    format::{
        frame::FRAME_SIZE,
        record::{Record, RecordHeader},
        segment::{JOURNAL_BLOCK_SIZE, SEGMENT_HEADER_SIZE},
    },
    ids::{DatabaseId, Lsn},
    sync::{Planted, is_planted},
};

use super::segment::{Found, SegmentReader, align_frame, list_segments, segment_name};

/// What is known of a journal before it is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// Its database and lineage epoch.
    pub identity: Option<(DatabaseId, u64)>,
    /// Size of a page in bytes.
    pub page_size: Option<usize>,
    /// A record that must be there, unless all segments up to it were trimmed, and its chain hash.
    pub position: Option<(Lsn, u64)>,
    /// Whether someone may be writing to it.
    pub is_live: bool,
}

/// Bytes that were dropped behind the last valid record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: PathBuf,
    /// Where the frame of the first dropped record was found, or should be, in bytes.
    pub offset: u64,
    /// The first dropped record.
    pub lsn: Lsn,
}

/// The walk.
#[derive(Debug)]
pub struct Cursor {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    expected: Expected,
    segments: Vec<Lsn>,
    index: usize,
    reader: Option<SegmentReader>,
    /// Where the record before ends, in the current segment.
    offset: u64,
    next: Lsn,
    chain: Option<u64>,
    found: Option<Found>,
    torn_tail: Option<TornTail>,
}

impl Cursor {
    /// Begins at the segment that holds the record after `from`, or, where that is needed to
    /// verify `from` itself, at the one that holds `from`. With no such segment, at the oldest.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, from: Lsn, expected: Expected) -> Result<Cursor> {
        let segments = list_segments(&*disk, dir)?;
        let behind = segments.partition_point(|&first| first <= from);
        let index = match segments.get(behind) {
            Some(&first) if first == from.next() => behind,
            _ => behind.saturating_sub(1),
        };
        let next = segments.get(index).copied().unwrap_or(from.next());
        let mut cursor = Cursor {
            disk,
            dir: dir.to_path_buf(),
            expected,
            segments,
            index,
            reader: None,
            offset: 0,
            next,
            chain: expected.position.filter(|&(lsn, _)| lsn.next() == next).map(|(_, chain)| chain),
            found: None,
            torn_tail: None,
        };
        if !cursor.segments.is_empty() {
            cursor.open_segment()?;
        }
        Ok(cursor)
    }

    /// Steps to the next record. False at the end.
    pub fn step(&mut self) -> Result<bool> {
        self.found = None;
        let mut is_retry = false;
        loop {
            let Some(reader) = &mut self.reader else { return Ok(false) };
            let damage = match reader.find(self.offset, self.next)? {
                Ok(found) => return self.accept(found).map(|()| true),
                Err(damage) => damage,
            };
            if self.expected.is_live && !is_retry {
                reader.refresh()?;
                self.list_again()?;
                is_retry = true;
                continue;
            }
            if !self.leave_segment(damage)? {
                return Ok(false);
            }
            is_retry = false;
        }
    }

    /// The record that the last step found.
    ///
    /// # Panics
    /// If the last step did not return true.
    pub fn record(&mut self) -> Result<Record<'_>> {
        let found = self.found.expect("the step found a record");
        let reader = self.reader.as_mut().expect("it was found in a segment");
        reader.record(&found)
    }

    /// The header of that record. Panics as `record`.
    pub fn header(&self) -> RecordHeader {
        self.found.expect("the step found a record").header
    }

    /// The stored bytes of that record, its file and its place there. Panics as `record`.
    pub fn stored(&mut self) -> Result<(PathBuf, u64, &[u8])> {
        let found = self.found.expect("the step found a record");
        let reader = self.reader.as_mut().expect("it was found in a segment");
        Ok((reader.path().to_path_buf(), found.offset, reader.bytes(&found)?))
    }

    /// The record up to which everything was durable when that record was written: its frame and
    /// the name of its segment vouch for that.
    ///
    /// # Panics
    /// If the last step did not return true.
    pub fn vouched(&self) -> Lsn {
        let found = self.found.expect("the step found a record");
        found.vouches_for.max(Lsn(self.place().0.0 - 1))
    }

    /// Where the blocks of that record begin, in bytes; in the first block of a segment's records,
    /// that of the header. Panics as `vouched`.
    pub fn block_offset(&self) -> u64 {
        let found = self.found.expect("the step found a record");
        let frame = found.offset - FRAME_SIZE as u64;
        let block = frame / JOURNAL_BLOCK_SIZE as u64 * JOURNAL_BLOCK_SIZE as u64;
        if block > SEGMENT_HEADER_SIZE as u64 { block } else { 0 }
    }

    /// LSN and chain hash of the last record.
    pub fn last(&self) -> (Lsn, Option<u64>) {
        (Lsn(self.next.0 - 1), self.chain)
    }

    /// First LSN of each segment.
    pub fn segments(&self) -> &[Lsn] {
        &self.segments
    }

    /// The segment of the last step, and the bytes that are used in it.
    pub fn place(&self) -> (Lsn, u64) {
        (self.segments.get(self.index).copied().unwrap_or(self.next), self.offset)
    }

    /// What was dropped at the end.
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.torn_tail.as_ref()
    }

    /// Looks for segments that are new. The current one stays in the list, trimmed or not.
    fn list_again(&mut self) -> Result<()> {
        let current = self.segments[self.index];
        self.segments = list_segments(&*self.disk, &self.dir)?;
        self.index = self.segments.partition_point(|&first| first < current);
        if self.segments.get(self.index) != Some(&current) {
            self.segments.insert(self.index, current);
        }
        Ok(())
    }

    fn open_segment(&mut self) -> Result<()> {
        let first = self.segments[self.index];
        let reader = SegmentReader::open(&*self.disk, &self.dir, first)?;
        if let Ok(header) = *reader.header() {
            let wrong = |what| Err(reader.corrupt(0, Damage::layout(Structure::Segment, what)));
            let identity = (header.database_id, header.epoch);
            match self.expected.identity {
                Some((id, _)) if id != identity.0 => return wrong("it is of another database"),
                Some((_, epoch)) if epoch != identity.1 => {
                    return wrong("it is of another lineage");
                }
                _ => self.expected.identity = Some(identity),
            }
            if self.chain.is_some_and(|chain| is_another(chain, header.chain)) {
                return wrong("it does not continue the record before it");
            }
            self.chain = Some(header.chain);
        }
        self.offset = SEGMENT_HEADER_SIZE as u64;
        self.reader = Some(reader);
        Ok(())
    }

    fn accept(&mut self, found: Found) -> Result<()> {
        let reader = self.reader.as_ref().expect("it was found in a segment");
        let header = found.header;
        let structure = Structure::Record(header.lsn());
        let wrong = |what| Err(reader.corrupt(found.offset, Damage::layout(structure, what)));
        // A live segment may have had no header when it was opened.
        let chain = self.chain.or(reader.header().as_ref().ok().map(|header| header.chain));
        if chain.is_some_and(|chain| is_another(chain, header.chain_before())) {
            return wrong("it does not continue the record before it");
        }
        if self.expected.page_size.is_some_and(|size| size != header.page_size()) {
            return wrong("it is of another page size");
        }
        if self
            .expected
            .position
            .is_some_and(|(lsn, chain)| lsn == header.lsn() && chain != header.chain())
        {
            return wrong("it is not the record that the checkpoint holds");
        }
        self.offset = align_frame(found.offset + found.len as u64);
        self.next = self.next.next();
        self.chain = Some(header.chain());
        self.found = Some(found);
        Ok(())
    }

    /// Goes to the next segment, or finds the end (false), or that a record is lost (error).
    fn leave_segment(&mut self, damage: Damage) -> Result<bool> {
        match self.segments.get(self.index + 1).copied() {
            Some(first) if first == self.next => {
                self.index += 1;
                self.open_segment()?;
                return Ok(true);
            }
            Some(first) if first < self.next => {
                let what = "it begins with records that the segment before it holds";
                return Err(Error::Corrupt {
                    file: self.dir.join(segment_name(first)),
                    offset: 0,
                    what: Damage::layout(Structure::Segment, what),
                });
            }
            Some(first) => {
                return self.lost(damage, format!("{} begins behind it", segment_name(first)));
            }
            None => {}
        }
        let missing = self.next;
        if let Some((lsn, _)) = self.expected.position.filter(|&(lsn, _)| lsn >= missing) {
            return self.lost(damage, format!("the checkpoint holds everything up to {lsn}"));
        }
        let reader = self.reader.as_mut().expect("a segment is left");
        let remains = reader.scan(self.offset, missing)?;
        let damaged = reader.damaged_frame(self.offset, missing)?;
        let offset = damaged.unwrap_or(self.offset);
        if remains.vouching.is_some() && !is_planted(Planted::CutAtFirstBad) {
            let offset = reader.header().as_ref().map_or(0, |_| offset);
            return Err(reader.corrupt(offset, damage));
        }
        if remains.any || damaged.is_some() {
            let file = reader.path().to_path_buf();
            self.torn_tail = Some(TornTail { file, offset, lsn: missing });
        }
        Ok(false)
    }

    /// The error for a record that is vouched for: corruption where its bytes are there, else a gap.
    fn lost(&mut self, damage: Damage, evidence: String) -> Result<bool> {
        let reader = self.reader.as_mut().expect("a segment is left");
        if reader.header().is_err() {
            return Err(reader.corrupt(0, damage));
        }
        if let Some(offset) = reader.damaged_frame(self.offset, self.next)? {
            return Err(reader.corrupt(offset, damage));
        }
        Err(Error::JournalGap { folder: self.dir.clone(), missing: self.next, evidence })
    }
}

fn is_another(chain: u64, expected: u64) -> bool {
    chain != expected && !is_planted(Planted::ChainNotVerified)
}
