//! Reading a stream: its header, then its content piece by piece, each one verified before it is
//! handed out; then what the trailer vouches for.

use std::io::{ErrorKind, Read};

use treepie::ids::Lsn;

use super::{
    options::ReadOptions,
    pool::Pool,
    records::RecordTrack,
    summary::StreamSummary,
    unpack::{UnpackJob, Unpacker},
    writer::add_frame,
};
use crate::{
    error::{Error, Place, Result, StreamDamage},
    format::{
        frame::{FRAME_HEADER_SIZE, FrameHeader, FrameKind},
        header::{self, Coding, STREAM_HEADER_SIZE, StreamCompression, StreamHeader, StreamKind},
        pages::{PageRules, PageTable, Pages, group_of},
        records::{RECORD_VERSION, RECORDS_START, RecordHead, decode_start},
        trailer::{TRAILER_SIZE, Trailer},
    },
    hash::{Digest, GroupsHasher},
    limits::{self, content_len_max},
    seal::Cipher,
};

/// A piece of a stream's content.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// Pages, ascending, behind those before.
    Pages(Pages<'a>),
    /// A record, or a part of a long one.
    Record(RecordPiece<'a>),
}

/// A record, or a part of one: long records come in several pieces, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPiece<'a> {
    /// Number of the record.
    pub lsn: Lsn,
    /// Bytes of the whole record.
    pub record_len: u64,
    /// Where the piece begins in it.
    pub offset: u64,
    /// The piece.
    pub bytes: &'a [u8],
}

impl RecordPiece<'_> {
    /// Whether it is the whole record.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.record_len
    }
}

/// Reads a stream.
///
/// What it hands out is verified: checksums, places of frames, the order of pages, the chain of records,
/// and, where it is encrypted, its authentication. Only at its end, when [`next`](StreamReader::next) has
/// returned `None`, is it known that the stream is whole: until then nothing that was made of it may be
/// published.
pub struct StreamReader<R: Read> {
    input: R,
    header: StreamHeader,
    coding: Coding,
    pool: Pool<Unpacker>,
    frames_max: usize,
    spare: Vec<UnpackJob>,
    /// The frame whose content is being handed out, and how much of it was.
    current: Option<UnpackJob>,
    at: usize,
    track: RecordTrack,
    /// The least group that may come.
    next_group: u64,
    counted: Trailer,
    digest: blake3::Hasher,
    page_hash: GroupsHasher,
    /// Bytes and frames that were read.
    offset: u64,
    sequence: u64,
    /// Nothing more is read: the trailer was, or there was an error, told in its turn.
    is_read: bool,
    failed: Option<Error>,
    is_broken: bool,
    summary: Option<StreamSummary>,
}

/// What comes next.
enum Step {
    Pages,
    Record { lsn: Lsn, record_len: u64, offset: u64, start: usize, len: usize },
    End,
}

impl<R: Read> StreamReader<R> {
    /// Reads the header. The input need not be buffered; not a byte behind the trailer is read.
    ///
    /// # Errors
    /// [`Error::NotAStream`], [`Error::Cut`], [`Error::Damaged`]; [`Error::UnsupportedVersion`] and
    /// [`Error::UnsupportedFeatures`]; [`Error::KeyMissing`], [`Error::WrongKey`], [`Error::NoEncryption`];
    /// [`Error::Io`].
    pub fn new(mut input: R, options: &ReadOptions) -> Result<Self> {
        let mut stored = [0; STREAM_HEADER_SIZE];
        let len = read_full(&mut input, &mut stored, 0)?;
        if len < stored.len() {
            return Err(match stored.first_chunk::<8>() {
                Some(found) if len >= 8 && found != b"TREEPIES" => {
                    Error::NotAStream { found: *found }
                }
                _ => Error::Cut { place: Place::Header, offset: len as u64 },
            });
        }
        let (header, coding) = header::decode(&stored)?;
        let (frames_max, threads) = limits::work(options.threads, 0, coding.frame_len);
        let pool = start_pool(&header, &coding, options, &stored, threads.max(1))?;
        let mut digest = blake3::Hasher::new();
        digest.update(&stored);
        Ok(StreamReader {
            input,
            header,
            coding,
            frames_max: if pool.is_inline() { 1 } else { frames_max },
            pool,
            spare: Vec::new(),
            current: None,
            at: 0,
            track: RecordTrack::new(&header),
            next_group: 0,
            counted: Trailer::default(),
            digest,
            page_hash: GroupsHasher::default(),
            offset: STREAM_HEADER_SIZE as u64,
            sequence: 0,
            is_read: false,
            failed: None,
            is_broken: false,
            summary: None,
        })
    }

    /// What the stream says of its content. Of an encrypted stream it is authenticated by the first
    /// frame: before, somebody may have changed it.
    #[must_use]
    pub fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// How its bytes are made.
    #[must_use]
    pub fn coding(&self) -> &Coding {
        &self.coding
    }

    /// Bytes that were read so far.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.offset
    }

    /// The next piece of content; `None` when the trailer was read and vouches for all of them.
    ///
    /// # Errors
    /// [`Error::Cut`], [`Error::Damaged`], [`Error::UnsupportedVersion`], [`Error::Io`],
    /// [`Error::Cancelled`]; after one of them [`Error::Broken`].
    #[allow(clippy::should_implement_trait, reason = "it lends from the reader, and can fail")]
    pub fn next(&mut self) -> Result<Option<Content<'_>>> {
        if self.summary.is_some() {
            return Ok(None);
        }
        if self.is_broken {
            return Err(Error::Broken);
        }
        let step = self.step();
        self.is_broken = step.is_err();
        let step = step?;
        let raw = self.current.as_ref().map_or(&[][..], |job| &job.raw[..]);
        match step {
            Step::End => Ok(None),
            Step::Pages => {
                let table = PageTable::parse(raw, &rules(&self.header, &self.coding));
                let table = table.expect("the table was verified with the frame");
                Ok(Some(Content::Pages(Pages::new(&table))))
            }
            Step::Record { lsn, record_len, offset, start, len } => {
                let bytes = raw.get(start..start + len).expect("the piece is inside the frame");
                Ok(Some(Content::Record(RecordPiece { lsn, record_len, offset, bytes })))
            }
        }
    }

    /// The whole stream, when [`next`](StreamReader::next) has returned `None`.
    #[must_use]
    pub fn summary(&self) -> Option<&StreamSummary> {
        self.summary.as_ref()
    }

    /// Ends reading: reads what is left, and returns the input, behind the trailer.
    ///
    /// # Errors
    /// Those of [`next`](StreamReader::next).
    pub fn finish(mut self) -> Result<(R, StreamSummary)> {
        while self.next()?.is_some() {}
        let summary = self.summary.expect("the stream has ended");
        Ok((self.input, summary))
    }

    fn step(&mut self) -> Result<Step> {
        loop {
            if self.has_records() {
                return self.next_record();
            }
            self.spare.extend(self.current.take());
            self.read_ahead();
            let Some(job) = self.pool.take() else {
                return Err(self.failed.take().unwrap_or(Error::Broken));
            };
            let job = self.current.insert(job);
            let (kind, place) = (job.head.kind, Place::Frame(job.head.sequence));
            let (offset, outcome) = (job.offset, job.outcome.clone());
            let accepted = outcome.and_then(|()| self.accept(kind));
            accepted.map_err(|what| Error::Damaged { place, offset, what })?;
            match kind {
                FrameKind::Pages => return Ok(Step::Pages),
                FrameKind::Records => self.begin_records()?,
                FrameKind::Trailer => return Ok(Step::End),
            }
        }
    }

    /// Keeps the pool busy. An error is told when all frames before it were handed out.
    fn read_ahead(&mut self) {
        while !self.is_read && self.pool.len() < self.frames_max {
            match self.read_frame() {
                Ok(job) => {
                    self.is_read = job.head.kind == FrameKind::Trailer;
                    self.pool.submit(job);
                }
                Err(error) => {
                    self.is_read = true;
                    self.failed = Some(error);
                }
            }
        }
    }

    fn read_frame(&mut self) -> Result<UnpackJob> {
        let place = Place::Frame(self.sequence);
        let start = self.offset;
        let mut bytes = [0; FRAME_HEADER_SIZE];
        let len = read_full(&mut self.input, &mut bytes, self.offset)?;
        self.offset += len as u64;
        if len < bytes.len() {
            return Err(Error::Cut { place, offset: self.offset });
        }
        let head =
            FrameHeader::decode(&bytes).and_then(|head| self.check_head(&head).map(|()| head));
        let head = head.map_err(|what| Error::Damaged { place, offset: start, what })?;
        let mut job = self.spare.pop().unwrap_or_else(|| UnpackJob::new(head));
        (job.head, job.offset) = (head, start);
        job.stored.clear();
        // The buffer grows with what comes: nothing is taken for what a header merely claims.
        let input = self.input.by_ref().take(head.stored_len.into());
        let len = { input }.read_to_end(&mut job.stored);
        let len = len.map_err(|error| Error::io("read", self.offset, error))?;
        self.offset += len as u64;
        if len < head.stored_len as usize {
            return Err(Error::Cut { place, offset: self.offset });
        }
        self.sequence += 1;
        Ok(job)
    }

    /// Checks that a frame is the next one of this stream, and no longer than it may be.
    fn check_head(&self, head: &FrameHeader) -> Result<(), StreamDamage> {
        let layout = |what| Err(StreamDamage::Layout(what));
        if !self.coding.stream_id.starts_with(&head.stream) {
            return Err(StreamDamage::OtherStream);
        }
        if head.sequence != self.sequence {
            return Err(StreamDamage::Sequence { found: head.sequence });
        }
        if head.raw_len as usize > content_len_max(self.coding.frame_len) {
            return layout("it is longer than the frames of this stream can be");
        }
        if head.is_compressed && self.coding.compression == StreamCompression::None {
            return layout("it is compressed, and the stream is not");
        }
        if head.tag != [0; 16] && self.coding.encryption.is_none() {
            return layout("it is encrypted, and the stream is not");
        }
        let is_trailer = head.kind == FrameKind::Trailer;
        if is_trailer && (head.is_compressed || head.raw_len as usize != TRAILER_SIZE) {
            return layout("the trailer has another length");
        }
        Ok(())
    }

    /// Counts a frame whose content was verified, and checks what concerns more than one frame.
    fn accept(&mut self, kind: FrameKind) -> Result<(), StreamDamage> {
        let job = self.current.as_ref().expect("a frame was taken");
        if self.track.open().is_some() && kind != FrameKind::Records {
            return Err(StreamDamage::Layout("the record before it is not complete"));
        }
        match kind {
            FrameKind::Pages => {
                if self.header.kind == StreamKind::Records || self.track.count() > 0 {
                    return Err(StreamDamage::Layout("it holds pages where there can be none"));
                }
                let rules = rules(&self.header, &self.coding);
                let table = PageTable::parse(&job.raw, &rules).map_err(StreamDamage::Layout)?;
                let (first, end) = table.span();
                if u64::from(group_of(first)) < self.next_group {
                    return Err(StreamDamage::Layout("its pages do not ascend"));
                }
                self.next_group = u64::from(group_of(end.saturating_sub(1))) + 1;
                self.counted.page_count += table.page_count();
            }
            FrameKind::Records => {}
            FrameKind::Trailer => return self.accept_trailer(),
        }
        self.counted.frame_count += 1;
        self.counted.raw_len += u64::from(job.head.raw_len);
        add_frame(&mut self.digest, kind, job.head.raw_len, &job.content_hash);
        job.groups.iter().for_each(|group| self.page_hash.push(group));
        Ok(())
    }

    fn accept_trailer(&mut self) -> Result<(), StreamDamage> {
        let job = self.current.as_ref().expect("a frame was taken");
        let trailer = Trailer::decode(&job.raw)?;
        let (first_time_us, last_time_us) = self.track.times_us();
        let counted = Trailer {
            record_count: self.track.count(),
            last: self.track.last(),
            first_time_us,
            last_time_us,
            digest: Digest(*self.digest.finalize().as_bytes()),
            page_hash: self.page_hash.digest(),
            ..self.counted
        };
        trailer.compare(&counted)?;
        let summary = StreamSummary::new(self.header, self.coding, &trailer, self.offset);
        self.summary = Some(summary);
        Ok(())
    }

    /// Whether the current frame has records that were not handed out.
    fn has_records(&self) -> bool {
        let job = self.current.as_ref().filter(|job| job.head.kind == FrameKind::Records);
        job.is_some_and(|job| self.at < job.raw.len())
    }

    /// Checks that a frame of records begins where the one before it ended.
    fn begin_records(&mut self) -> Result<()> {
        let job = self.current.as_ref().expect("a frame was taken");
        let expected = match self.track.open() {
            Some((lsn, seen, _)) => (lsn, seen),
            None => (Lsn(self.track.last().lsn.0.saturating_add(1)), 0),
        };
        match decode_start(&job.raw) {
            Ok(start) if start == expected => {}
            Ok(_) => return Err(self.damaged("it does not begin where the records before it end")),
            Err(what) => return Err(self.damaged(what)),
        }
        self.at = RECORDS_START;
        Ok(())
    }

    fn next_record(&mut self) -> Result<Step> {
        if self.track.open().is_none() {
            self.begin_record()?;
        }
        let raw = &self.current.as_ref().expect("a frame of records").raw;
        let rest = raw.get(self.at..).unwrap_or_default();
        let (lsn, offset, record_len) = self.track.open().expect("a record was begun");
        let len = usize::try_from(record_len - offset).unwrap_or(usize::MAX).min(rest.len());
        self.track.push(rest.get(..len).unwrap_or_default());
        let start = self.at;
        self.at += len;
        Ok(Step::Record { lsn, record_len, offset, start, len })
    }

    fn begin_record(&mut self) -> Result<()> {
        let raw = &self.current.as_ref().expect("a frame of records").raw;
        let head = RecordHead::decode(raw.get(self.at..).unwrap_or_default());
        let head = head.map_err(|what| self.damaged(what))?;
        if head.version > RECORD_VERSION {
            let (found, supported) = (head.version.into(), RECORD_VERSION.into());
            return Err(Error::UnsupportedVersion { structure: "record", found, supported });
        }
        if !head.follows(&self.track.last()) {
            return Err(self.damaged("a record does not continue the history of the one before it"));
        }
        self.track.begin(head);
        Ok(())
    }

    /// A rule that the content of the current frame breaks.
    fn damaged(&self, what: &'static str) -> Error {
        let job = self.current.as_ref().expect("a frame was taken");
        let (place, what) = (Place::Frame(job.head.sequence), StreamDamage::Layout(what));
        Error::Damaged { place, offset: job.offset, what }
    }
}

impl UnpackJob {
    fn new(head: FrameHeader) -> UnpackJob {
        UnpackJob {
            head,
            offset: 0,
            stored: Vec::new(),
            raw: Vec::new(),
            outcome: Ok(()),
            content_hash: Digest::default(),
            groups: Vec::new(),
        }
    }
}

fn rules(header: &StreamHeader, coding: &Coding) -> PageRules {
    let (page_size, page_count) = (header.page_size, header.page_count);
    PageRules { page_size, page_count, frame_len: coding.frame_len }
}

fn start_pool(
    header: &StreamHeader,
    coding: &Coding,
    options: &ReadOptions,
    stored: &[u8; STREAM_HEADER_SIZE],
    threads: usize,
) -> Result<Pool<Unpacker>> {
    let cipher = match &coding.encryption {
        None => None,
        Some(encryption) => {
            let key = options.keys.find(&encryption.key_id)?;
            Some(Cipher::new(&key, encryption, stored)?)
        }
    };
    let rules = rules(header, coding);
    let unpackers = (0..threads).map(|_| Unpacker::new(rules, cipher.clone()));
    let pool = unpackers
        .collect::<std::io::Result<Vec<_>>>()
        .and_then(|workers| Pool::new(workers, false));
    pool.map_err(|error| Error::io("start threads for", 0, error))
}

/// Reads until the buffer is full or the input ends; returns how much there is.
fn read_full(input: &mut impl Read, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", offset + len as u64, error)),
        }
    }
    Ok(len)
}
