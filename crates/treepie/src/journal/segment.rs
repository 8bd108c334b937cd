//! Segment files: their names, and reading one of them.
//!
//! A segment is named after the LSN of its first record, as 20 digits: `<first LSN>.seg`. It is
//! read through a window of at least 1 MiB, so that a walk over its records makes few calls.
//!
//! Bytes whose checksum does not hold may be a torn write, or stale: whether that is damage is for
//! the `cursor` to say, and they come back as an inner error. Bytes whose checksum holds, and that
//! break a rule or have a newer version, are no torn write: they are an error at once.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    disk::{Disk, DiskFile, OpenMode},
    error::{Damage, Error, Result, Structure},
    format::{
        frame::{FRAME_ALIGN, FRAME_SIZE, Frame, has_magic},
        hard_state::{HARD_STATE_RECORD_LEN, StoredHardState},
        record::{self, RECORD_HEADER_SIZE, Record, RecordHeader, RecordKind, claimed_checksum},
        segment::{self, JOURNAL_BLOCK_SIZE, SEGMENT_HEADER_SIZE, SegmentHeader},
    },
    ids::{Lsn, Term},
    limits::{LSN_MAX, RECORD_LEN_MAX},
    sync::{Planted, is_planted},
};

const BLOCK: u64 = JOURNAL_BLOCK_SIZE as u64;
const WINDOW_SIZE: u64 = 1 << 20;
/// What a scan looks at in each block: a frame, and the record's own checksum behind it.
const PEEK_SIZE: usize = FRAME_SIZE + 8;
const _: () = assert!(RECORD_LEN_MAX + (RECORD_HEADER_SIZE as u64) < u32::MAX as u64);

/// Name of the segment whose first record is `first`.
pub fn segment_name(first: Lsn) -> String {
    format!("{:020}.seg", first.0)
}

/// First LSN of the segments in the folder, ascending. Other files are left alone.
///
/// # Errors
/// [`Error::Corrupt`] for a segment whose name is no LSN that a record can have.
pub fn list_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<Lsn>> {
    let names = disk.list(dir).map_err(Error::io("list", dir))?;
    let mut segments = Vec::new();
    for name in &names {
        let Some(digits) = segment_digits(name) else { continue };
        let first = digits.parse().ok().filter(|first| (1..=LSN_MAX).contains(first));
        let impossible = "its name is no LSN that a record can have";
        let what = Damage::layout(Structure::Segment, impossible);
        let refused = || Error::Corrupt { file: dir.join(name), offset: 0, what };
        segments.push(Lsn(first.ok_or_else(refused)?));
    }
    segments.sort_unstable();
    Ok(segments)
}

fn segment_digits(name: &str) -> Option<&str> {
    let digits = name.strip_suffix(".seg")?;
    let is_number = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(digits)
}

/// The header of a segment, if there is a whole one of this life.
pub fn read_header(disk: &dyn Disk, dir: &Path, first: Lsn) -> Result<Option<SegmentHeader>> {
    let path = dir.join(segment_name(first));
    let file = match disk.open(&path, OpenMode::ReadOnly) {
        // Trimmed since it was listed.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io("open", &path))?,
    };
    if file.len().map_err(Error::io("read the length of", &path))? < SEGMENT_HEADER_SIZE as u64 {
        return Ok(None);
    }
    let mut block = [0; SEGMENT_HEADER_SIZE];
    file.read_at(0, &mut block).map_err(Error::io("read", &path))?;
    let header = segment::verify_checksum(&block).and_then(|()| SegmentHeader::decode(&block));
    Ok(header.ok().filter(|header| header.first_lsn == first))
}

/// The next multiple of 8.
pub fn align_frame(offset: u64) -> u64 {
    offset.next_multiple_of(FRAME_ALIGN as u64)
}

/// The next multiple of 4 KiB.
pub fn align_block(offset: u64) -> u64 {
    offset.next_multiple_of(BLOCK)
}

/// A record found in a segment.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Where the record begins in the file, in bytes.
    pub offset: u64,
    /// Its bytes.
    pub len: usize,
    /// Its verified header.
    pub header: RecordHeader,
    /// The record up to which everything was durable when this one was written.
    pub vouches_for: Lsn,
}

/// What a scan behind the last valid record has found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Remains {
    /// A frame that vouches for the missing record.
    pub vouching: Option<Lsn>,
    /// Whether there are frames of this life at or above the missing record at all.
    pub any: bool,
}

/// One segment, being read.
#[derive(Debug)]
pub struct SegmentReader {
    path: PathBuf,
    first_lsn: Lsn,
    window: Window,
    header: Result<SegmentHeader, Damage>,
}

impl SegmentReader {
    /// Opens a segment and reads its header, which need not be whole.
    pub fn open(disk: &dyn Disk, dir: &Path, first_lsn: Lsn) -> Result<SegmentReader> {
        let path = dir.join(segment_name(first_lsn));
        let file = disk.open(&path, OpenMode::ReadOnly).map_err(Error::io("open", &path))?;
        SegmentReader::of_file(file, path, first_lsn)
    }

    /// As `open`, for a file that is open.
    pub fn of_file(
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        first_lsn: Lsn,
    ) -> Result<SegmentReader> {
        let window = Window::new(file, &path)?;
        let header = Err(Damage::layout(Structure::Segment, "it was not read yet"));
        let mut reader = SegmentReader { path, first_lsn, window, header };
        reader.read_header()?;
        Ok(reader)
    }

    fn read_header(&mut self) -> Result<()> {
        let file_len = self.window.file_len;
        let Some(block) = self.window.bytes(0, SEGMENT_HEADER_SIZE)? else {
            self.header = Err(Damage::Short { structure: Structure::Segment, file_len });
            return Ok(());
        };
        self.header = match segment::verify_checksum(block) {
            Err(damage) => Err(damage),
            Ok(()) => match SegmentHeader::decode(block) {
                Ok(header) if header.first_lsn != self.first_lsn => {
                    Err(Damage::layout(Structure::Segment, "it is that of another segment"))
                }
                Ok(header) => Ok(header),
                Err(what) => return Err(Error::refused(&self.path, 0, what)),
            },
        };
        Ok(())
    }

    /// Reads the file again from here on: it may have grown, or been written to.
    pub fn refresh(&mut self) -> Result<()> {
        self.window = Window::new(self.window.file.clone(), &self.path)?;
        if self.header.is_err() {
            self.read_header()?;
        }
        Ok(())
    }

    /// The header, or why there is none of this life.
    pub fn header(&self) -> &Result<SegmentHeader, Damage> {
        &self.header
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The error for damage at `offset`.
    pub fn corrupt(&self, offset: u64, what: Damage) -> Error {
        Error::Corrupt { file: self.path.clone(), offset, what }
    }

    /// The record `lsn`, or a local record in front of it, whose frame is at the next multiple of 8 or of
    /// 4 KiB from `offset` on. The inner error is that of the first place: no whole record is there.
    pub fn find(&mut self, offset: u64, lsn: Lsn) -> Result<Result<Found, Damage>> {
        let near = align_frame(offset);
        let far = align_block(offset);
        let damage = match self.record_at(near, lsn)? {
            Err(damage) if far != near => damage,
            found => return Ok(found),
        };
        Ok(self.record_at(far, lsn)?.map_err(|_| damage))
    }

    fn record_at(&mut self, offset: u64, lsn: Lsn) -> Result<Result<Found, Damage>> {
        let header = match &self.header {
            Ok(header) => *header,
            Err(damage) => return Ok(Err(damage.clone())),
        };
        let damaged = |what| Ok(Err(Damage::layout(Structure::Record(lsn), what)));
        let Some(frame) = self.frame_at(offset)? else {
            return damaged("its frame is missing or damaged");
        };
        let is_of_this_life =
            frame.incarnation == header.incarnation || is_planted(Planted::StaleRecordAccepted);
        let is_before = frame.lsn.0 == lsn.0 - 1;
        if !is_of_this_life || (frame.lsn != lsn && !is_before) {
            return damaged("the frame of another record is in its place");
        }
        let offset = offset + FRAME_SIZE as u64;
        let record_len = u64::from(frame.record_len);
        let len_max = RECORD_HEADER_SIZE as u64 + RECORD_LEN_MAX;
        if !(RECORD_HEADER_SIZE as u64..=len_max).contains(&record_len) {
            let what = Damage::layout(Structure::Record(lsn), "its length is not possible");
            return Err(self.corrupt(offset, what));
        }
        let len = usize::try_from(record_len).unwrap_or(usize::MAX);
        let Some(bytes) = self.window.bytes(offset, len)? else {
            return damaged("the file ends inside it");
        };
        if let Err(damage) = record::verify_checksum(bytes) {
            return Ok(Err(damage));
        }
        match RecordHeader::decode(bytes, frame.lsn) {
            // A local record has the number of the one before it.
            Ok(header) if header.kind().is_local() != is_before => {
                damaged("the frame of another record is in its place")
            }
            Ok(_) if frame.unsynced == 0 && !is_before => {
                damaged("its frame vouches for the record itself")
            }
            Ok(header) => Ok(Ok(Found { offset, len, header, vouches_for: frame.vouches_for() })),
            Err(what) => Err(Error::refused(&self.path, offset, what)),
        }
    }

    /// The bytes of a record that was found.
    pub fn bytes(&mut self, found: &Found) -> Result<&[u8]> {
        let file_len = self.window.file_len;
        match self.window.bytes(found.offset, found.len)? {
            Some(bytes) => Ok(bytes),
            None => {
                let structure = Structure::Record(found.header.lsn());
                let what = Damage::Short { structure, file_len };
                Err(Error::Corrupt { file: self.path.clone(), offset: found.offset, what })
            }
        }
    }

    /// A record that was found; its header is not verified again.
    pub fn record(&mut self, found: &Found) -> Result<Record<'_>> {
        let file_len = self.window.file_len;
        let structure = Structure::Record(found.header.lsn());
        let bytes = self.window.bytes(found.offset, found.len)?;
        let record = bytes.ok_or(Damage::Short { structure, file_len });
        record.and_then(|bytes| Record::open(found.header, bytes)).map_err(|what| Error::Corrupt {
            file: self.path.clone(),
            offset: found.offset,
            what,
        })
    }

    fn frame_at(&mut self, offset: u64) -> Result<Option<Frame>> {
        let Some(bytes) = self.window.bytes(offset, PEEK_SIZE)? else { return Ok(None) };
        let Some((frame, record)) = bytes.split_first_chunk::<FRAME_SIZE>() else {
            return Ok(None);
        };
        Ok(Frame::parse(frame, claimed_checksum(record)).ok())
    }

    /// Where a record ends whose frame is whole, at the next multiple of 8 or of 4 KiB from `offset` on.
    pub fn end_of(&mut self, offset: u64, lsn: Lsn) -> Result<Option<u64>> {
        let Ok(header) = self.header else { return Ok(None) };
        for place in [align_frame(offset), align_block(offset)] {
            if let Some(frame) = self.frame_at(place)?
                && (frame.incarnation, frame.lsn) == (header.incarnation, lsn)
            {
                return Ok(Some(place + FRAME_SIZE as u64 + u64::from(frame.record_len)));
            }
        }
        Ok(None)
    }

    /// Where to go on with the first record from `lsn` up to `last` that a block from `offset` on begins
    /// with, or a hard state in front of it.
    pub fn next_frame(&mut self, offset: u64, lsn: Lsn, last: Lsn) -> Result<Option<(u64, Lsn)>> {
        let Ok(header) = self.header else { return Ok(None) };
        let mut at = align_block(offset).max(BLOCK);
        while at < self.window.file_len {
            if let Some(frame) = self.frame_at(at)?
                && frame.incarnation == header.incarnation
                && frame.lsn <= last
            {
                let found = match self.hard_state_at(at)? {
                    None => (at, frame.lsn),
                    Some(_) => {
                        let len = FRAME_SIZE as u64 + u64::from(frame.record_len);
                        (align_frame(at + len), frame.lsn.next())
                    }
                };
                if (lsn..=last).contains(&found.1) {
                    return Ok(Some(found));
                }
            }
            at += BLOCK;
        }
        Ok(None)
    }

    /// Where a frame of this life, though damaged, seems to be: the next multiple of 8 or of 4 KiB
    /// from `offset` on.
    pub fn damaged_frame(&mut self, offset: u64, lsn: Lsn) -> Result<Option<u64>> {
        let Ok(header) = self.header else { return Ok(None) };
        for place in [align_frame(offset), align_block(offset)] {
            let frame = self.window.bytes(place, FRAME_SIZE)?.and_then(|b| b.first_chunk());
            if frame.is_some_and(|frame| Frame::resembles(frame, header.incarnation, lsn)) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The hard state whose frame is at `at`.
    fn hard_state_at(&mut self, at: u64) -> Result<Option<StoredHardState>> {
        let bytes = self.window.bytes(at + FRAME_SIZE as u64, HARD_STATE_RECORD_LEN)?;
        let record = bytes.and_then(|bytes| Record::parse(bytes).ok());
        let record = record.filter(|record| record.kind() == RecordKind::HardState);
        Ok(record.and_then(|record| StoredHardState::decode(&record).ok()))
    }

    /// The record before the first one, and its term, as the hard state at the head says.
    pub fn told_at_head(&mut self) -> Result<Option<(Lsn, Term)>> {
        let found = match self.find(SEGMENT_HEADER_SIZE as u64, self.first_lsn)? {
            Ok(found) if found.header.kind() == RecordKind::HardState => found,
            _ => return Ok(None),
        };
        Ok(Some((found.header.lsn(), found.header.term())))
    }

    /// Looks at every block from `offset` on for frames of records at or above `missing`, and for hard
    /// states, which vouch for bytes. Without a header, frames of any life count: those of earlier lives
    /// are of lower LSNs.
    pub fn scan(&mut self, offset: u64, missing: Lsn) -> Result<Remains> {
        let incarnation = self.header.as_ref().ok().map(|header| header.incarnation);
        let mut remains = Remains::default();
        let mut at = align_block(offset).max(BLOCK);
        while at < self.window.file_len {
            let is_frame = self.window.bytes(at, PEEK_SIZE)?.is_some_and(has_magic);
            let frame = if is_frame { self.frame_at(at)? } else { None };
            if let Some(frame) = frame
                && incarnation.is_none_or(|incarnation| incarnation == frame.incarnation)
                && (frame.lsn >= missing || incarnation.is_some() && frame.lsn.next() == missing)
            {
                let hard_state = self.hard_state_at(at)?;
                let vouches_for_bytes = incarnation.is_some()
                    && hard_state.is_some_and(|found| found.durable_len > align_block(offset));
                remains.any |= frame.lsn >= missing || hard_state.is_some();
                if vouches_for_bytes || frame.vouches_for() >= missing {
                    remains.vouching = Some(frame.lsn);
                    return Ok(remains);
                }
            }
            at += BLOCK;
        }
        Ok(remains)
    }
}

/// Part of a file in memory.
#[derive(Debug)]
struct Window {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    file_len: u64,
    start: u64,
    buf: Vec<u8>,
}

impl Window {
    fn new(file: Arc<dyn DiskFile>, path: &Path) -> Result<Window> {
        let file_len = file.len().map_err(Error::io("read the length of", path))?;
        Ok(Window { file, path: path.to_path_buf(), file_len, start: 0, buf: Vec::new() })
    }

    /// `len` bytes at `offset`; `None` when the file ends before.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(len as u64).filter(|&end| end <= self.file_len) else {
            return Ok(None);
        };
        if offset < self.start || end > self.start + self.buf.len() as u64 {
            self.load(offset, end)?;
        }
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.buf.get(at..).and_then(|bytes| bytes.get(..len)))
    }

    /// Fills the window from `offset` to at least `end`; what it holds of that is kept.
    fn load(&mut self, offset: u64, end: u64) -> Result<()> {
        let buf_end = self.start + self.buf.len() as u64;
        let kept = if (self.start..buf_end).contains(&offset) {
            self.buf.drain(..usize::try_from(offset - self.start).unwrap_or(usize::MAX));
            self.buf.len()
        } else {
            self.buf.clear();
            0
        };
        self.start = offset;
        let end = end.max(offset + WINDOW_SIZE).min(self.file_len);
        let len = usize::try_from(end - offset).unwrap_or(usize::MAX);
        self.buf.resize(len, 0);
        // A window grown for a large record is given back with the next load.
        self.buf.shrink_to(len.max(WINDOW_SIZE as usize));
        let read = self.file.read_at(offset + kept as u64, &mut self.buf[kept..]);
        read.map_err(|error| {
            self.buf.clear();
            Error::io("read", &self.path)(error)
        })
    }
}
