//! A walk over the records of a journal, in LSN order, each verified: frame, number, checksum,
//! chain. Recovery and the reader are two users of it. Local records are steps of their own, which
//! only recovery takes.
//!
//! **Where it goes on.** Where the next segment begins with the next record, that one is there, even
//! if the old segment has a record of this number: what follows there are remains of a torn tail that
//! a recovery dropped, or records that were given up (see `truncate`).
//!
//! **Where it ends.** When record `m` is not where it should be, and no segment begins with it:
//!
//! 1. Something vouches for `m`: it was durable once, and is lost. That is corruption, an error.
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
        hard_state::{HardState, StoredHardState},
        record::{Record, RecordHeader, RecordKind},
        segment::{JOURNAL_BLOCK_SIZE, SEGMENT_HEADER_SIZE},
    },
    ids::{DatabaseId, Lsn},
    sync::{Planted, is_planted},
};

use super::{
    segment::{Found, SegmentReader, align_frame, list_segments, segment_name},
    survey::Survey,
};

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
    /// Whether the newest hard state must be among what is read.
    pub needs_hard_state: bool,
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

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next record.
    Record,
    /// A local record, which has no number of its own.
    Local,
    /// Nothing: this is the end.
    End,
}

/// The walk.
#[derive(Debug)]
pub struct Cursor {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    expected: Expected,
    survey: Survey,
    segments: Vec<Lsn>,
    index: usize,
    reader: Option<SegmentReader>,
    /// Where the record before ends, in the current segment.
    offset: u64,
    next: Lsn,
    chain: Option<u64>,
    found: Option<Found>,
    torn_tail: Option<TornTail>,
    hard_state: Option<HardState>,
    known_committed: Lsn,
}

impl Cursor {
    /// Begins at the segment that holds the record after `from`, or, where that is needed to
    /// verify `from` itself, at the one that holds `from`. With no such segment, at the oldest.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, from: Lsn, expected: Expected) -> Result<Cursor> {
        let survey = Survey::of(&*disk, dir, list_segments(&*disk, dir)?)?;
        let segments = survey.segments();
        let behind = segments.partition_point(|&first| first <= from);
        let index = match segments.get(behind) {
            Some(&first) if first == from.next() => behind,
            _ => behind.saturating_sub(1),
        };
        let index = match expected.needs_hard_state {
            true => with_hard_state(&*disk, dir, &segments, index)?,
            false => index,
        };
        let next = segments.get(index).copied().unwrap_or(from.next());
        let mut cursor = Cursor {
            disk,
            dir: dir.to_path_buf(),
            expected,
            survey,
            segments,
            index,
            reader: None,
            offset: 0,
            next,
            chain: expected.position.filter(|&(lsn, _)| lsn.next() == next).map(|(_, chain)| chain),
            found: None,
            torn_tail: None,
            hard_state: None,
            known_committed: Lsn(0),
        };
        if !cursor.segments.is_empty() {
            cursor.open_segment()?;
        }
        Ok(cursor)
    }

    /// Steps to the next record. False at the end.
    pub fn step(&mut self) -> Result<bool> {
        loop {
            match self.step_any()? {
                Step::Record => return Ok(true),
                Step::Local => {}
                Step::End => return Ok(false),
            }
        }
    }

    /// Steps to the next record, local ones included.
    pub fn step_any(&mut self) -> Result<Step> {
        self.found = None;
        let mut is_retry = false;
        loop {
            let Some(reader) = &mut self.reader else { return Ok(Step::End) };
            let goes_on_behind = self.segments.get(self.index + 1) == Some(&self.next);
            let damage = match reader.find(self.offset, self.next)? {
                Ok(found) if found.header.kind().is_local() => {
                    return self.accept_local(found).map(|()| Step::Local);
                }
                Ok(found) if !goes_on_behind || is_planted(Planted::SupersededRecordAccepted) => {
                    return self.accept(found).map(|()| Step::Record);
                }
                Ok(_) => Damage::layout(Structure::Record(self.next), "it was given up"),
                Err(damage) => damage,
            };
            if goes_on_behind {
                self.index += 1;
                self.open_segment()?;
                is_retry = false;
                continue;
            }
            if self.expected.is_live && !is_retry {
                reader.refresh()?;
                self.list_again()?;
                is_retry = true;
                continue;
            }
            self.end(damage)?;
            return Ok(Step::End);
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

    /// The segments that an interrupted removal has left, and the sequence of the next new one.
    pub fn survey(&self) -> &Survey {
        &self.survey
    }

    /// The newest hard state so far; none in a journal that is not replicated.
    pub fn hard_state(&self) -> Option<HardState> {
        self.hard_state
    }

    /// The highest LSN that a record so far knows to be committed.
    pub fn known_committed(&self) -> Lsn {
        self.known_committed
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
        let listed = list_segments(&*self.disk, &self.dir)?;
        if !self.survey.is_of(&listed) {
            self.survey = Survey::of(&*self.disk, &self.dir, listed)?;
        }
        self.segments = self.survey.segments();
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
        self.check_place(reader, &found)?;
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
        self.known_committed = self.known_committed.max(header.known_committed());
        self.found = Some(found);
        Ok(())
    }

    fn accept_local(&mut self, found: Found) -> Result<()> {
        let reader = self.reader.as_mut().expect("it was found in a segment");
        if found.header.kind() == RecordKind::HardState {
            let stored = StoredHardState::decode(&reader.record(&found)?);
            let refused = |what| Error::refused(reader.path(), found.offset, what);
            let state = stored.map_err(refused)?.state;
            if self.hard_state.is_some_and(|before| before.term > state.term) {
                let structure = Structure::Record(found.header.lsn());
                return Err(refused(Damage::layout(structure, "its term is below an earlier one")));
            }
            self.hard_state = Some(state);
        }
        let reader = self.reader.as_ref().expect("it was found in a segment");
        self.check_place(reader, &found)?;
        self.offset = align_frame(found.offset + found.len as u64);
        self.known_committed = self.known_committed.max(found.header.known_committed());
        self.found = Some(found);
        Ok(())
    }

    /// Whether it continues the record before it, in this database.
    fn check_place(&self, reader: &SegmentReader, found: &Found) -> Result<()> {
        let structure = Structure::Record(found.header.lsn());
        let wrong = |what| Err(reader.corrupt(found.offset, Damage::layout(structure, what)));
        // A live segment may have had no header when it was opened.
        let chain = self.chain.or(reader.header().as_ref().ok().map(|header| header.chain));
        if chain.is_some_and(|chain| is_another(chain, found.header.chain_before())) {
            return wrong("it does not continue the record before it");
        }
        if self.expected.page_size.is_some_and(|size| size != found.header.page_size()) {
            return wrong("it is of another page size");
        }
        Ok(())
    }

    /// Finds that this is the end, or that a record is lost (error).
    fn end(&mut self, damage: Damage) -> Result<()> {
        match self.segments.get(self.index + 1).copied() {
            Some(first) if first < self.next => {
                let what = "it begins with records that the segment before it holds";
                return Err(Error::Corrupt {
                    file: self.dir.join(segment_name(first)),
                    offset: 0,
                    what: Damage::layout(Structure::Segment, what),
                });
            }
            Some(first) => {
                return Err(self.lost(damage, format!("{} begins behind it", segment_name(first))));
            }
            None => {}
        }
        let missing = self.next;
        if let Some((lsn, _)) = self.expected.position.filter(|&(lsn, _)| lsn >= missing) {
            let evidence = format!("the checkpoint holds everything up to {lsn}");
            return Err(self.lost(damage, evidence));
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
        Ok(())
    }

    /// The error for a record that is vouched for: corruption where its bytes are there, else a gap.
    fn lost(&mut self, damage: Damage, evidence: String) -> Error {
        let reader = self.reader.as_mut().expect("a segment is left");
        if reader.header().is_err() {
            return reader.corrupt(0, damage);
        }
        match reader.damaged_frame(self.offset, self.next) {
            Ok(Some(offset)) => reader.corrupt(offset, damage),
            Ok(None) => {
                Error::JournalGap { folder: self.dir.clone(), missing: self.next, evidence }
            }
            Err(error) => error,
        }
    }
}

/// The segment before, where the head of this one never reached the disk and that one has a hard state.
fn with_hard_state(disk: &dyn Disk, dir: &Path, segments: &[Lsn], index: usize) -> Result<usize> {
    let (Some(&first), Some(before)) = (segments.get(index), index.checked_sub(1)) else {
        return Ok(index);
    };
    let has_one = |first| {
        let mut reader = SegmentReader::open(disk, dir, first)?;
        reader.told_at_head().map(|told| told.is_some())
    };
    let is_before = !has_one(first)? && has_one(segments[before])?;
    Ok(if is_before { before } else { index })
}

fn is_another(chain: u64, expected: u64) -> bool {
    chain != expected && !is_planted(Planted::ChainNotVerified)
}
