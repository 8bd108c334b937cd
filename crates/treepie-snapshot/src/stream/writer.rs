//! Writing a stream: pages in ascending order, then records, then `finish`.

use std::{io::Write, mem};

use treepie::ids::{Lsn, PageId};

use super::{
    gather::Gather,
    options::StreamOptions,
    pack::{PackJob, Packer},
    pool::Pool,
    records::RecordTrack,
    summary::StreamSummary,
};
use crate::{
    error::{Error, Result},
    format::{
        frame::{FRAME_HEADER_SIZE, FrameKind},
        header::{
            self, Coding, Position, STREAM_HEADER_SIZE, StreamCompression, StreamHeader, StreamKind,
        },
        pages::{PageRules, group_of},
        records::{RECORD_VERSION, RECORDS_START, RecordHead, encode_start},
        trailer::Trailer,
    },
    hash::{Digest, GroupsHasher},
    limits,
    seal::{self, Cipher},
};

/// Writes a stream.
///
/// Nothing is a stream before [`finish`](StreamWriter::finish): a reader refuses one without a trailer.
pub struct StreamWriter<W: Write> {
    out: W,
    header: StreamHeader,
    coding: Coding,
    pool: Pool<Packer>,
    /// Frames that may be in work.
    frames_max: usize,
    spare: Vec<PackJob>,
    pages: Gather,
    /// The least page that may come.
    next_page: u64,
    page_count: u64,
    /// Records of the next frame, behind their start.
    records: Vec<u8>,
    track: RecordTrack,
    sequence: u64,
    counted: Trailer,
    digest: blake3::Hasher,
    page_hash: GroupsHasher,
    /// Bytes that were written.
    offset: u64,
    is_broken: bool,
}

impl<W: Write> StreamWriter<W> {
    /// Begins a stream: writes its header.
    ///
    /// # Errors
    /// [`Error::Options`] for a header or options that cannot be; [`Error::NoEncryption`] if a key was
    /// given to a build without it; [`Error::Io`].
    pub fn new(mut out: W, header: StreamHeader, options: &StreamOptions) -> Result<Self> {
        options.check(header.page_size)?;
        let coding = coding(options)?;
        header::check(&header, &coding).map_err(|what| Error::options("header", what))?;
        let stored = header::encode(&header, &coding);
        let (frames_max, threads) = limits::work(options.threads, options.level, coding.frame_len);
        let pool = start_pool(&header, &coding, options, &stored, threads.max(1))?;
        out.write_all(&stored).map_err(|error| Error::io("write", 0, error))?;
        let mut digest = blake3::Hasher::new();
        digest.update(&stored);
        Ok(StreamWriter {
            out,
            header,
            coding,
            frames_max: if pool.is_inline() { 1 } else { frames_max },
            pool,
            spare: Vec::new(),
            pages: Gather::new(header.page_size, coding.frame_len),
            next_page: 0,
            page_count: 0,
            records: Vec::new(),
            track: RecordTrack::new(&header),
            sequence: 0,
            counted: Trailer::default(),
            digest,
            page_hash: GroupsHasher::default(),
            offset: STREAM_HEADER_SIZE as u64,
            is_broken: false,
        })
    }

    /// What the stream says of its content.
    #[must_use]
    pub fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// The last record so far, or the header's position: where the stream would end.
    #[must_use]
    pub fn position(&self) -> Position {
        self.track.last()
    }

    /// Bytes that were written so far. What waits in frames is not counted.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.offset
    }

    /// Adds consecutive pages, behind all that were added before.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] for pages that do not ascend, are past the end of the data file, or come to a
    /// stream of records or behind records; [`Error::Io`], [`Error::Cancelled`]. After an error nothing
    /// more can be added.
    pub fn pages(&mut self, first: PageId, bytes: &[u8]) -> Result<()> {
        self.guarded(|writer| writer.add_pages(first, bytes))
    }

    /// Adds a record, the one that follows the last one.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] if it is not that, or no record; [`Error::Io`], [`Error::Cancelled`]. After an
    /// error nothing more can be added.
    pub fn record(&mut self, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        self.guarded(|writer| writer.add_record(lsn, bytes))
    }

    /// Ends the frame, and writes and flushes all that was added: for streams that are written while
    /// they are read. Pages of the last page's group of 128 cannot be added any more.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Cancelled`].
    pub fn flush(&mut self) -> Result<()> {
        self.guarded(|writer| {
            writer.end_frames()?;
            writer.retire_all()?;
            writer.out.flush().map_err(|error| Error::io("flush", writer.offset, error))
        })
    }

    /// Ends the stream at `last`: the last record, or the header's position if there is none. Returns
    /// what it was written to, flushed. Who needs it durable syncs it.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`] if the stream ends elsewhere; [`Error::Io`], [`Error::Cancelled`].
    pub fn finish(mut self, last: Position) -> Result<(W, StreamSummary)> {
        self.guarded(|writer| writer.write_trailer(last))?;
        let stored_len = self.offset;
        let summary = StreamSummary::new(self.header, self.coding, &self.counted, stored_len);
        Ok((self.out, summary))
    }

    /// After an error the frames that were lost with it would be missing.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.is_broken {
            return Err(Error::Broken);
        }
        let result = work(self);
        self.is_broken = result.is_err();
        result
    }

    fn add_pages(&mut self, first: PageId, mut bytes: &[u8]) -> Result<()> {
        let page_size = self.header.page_size;
        if bytes.is_empty() || !bytes.len().is_multiple_of(page_size) {
            let (expected, found) = (page_size as u64, bytes.len() as u64);
            return Err(Error::OutOfOrder {
                what: "the bytes are no whole pages",
                expected,
                found,
            });
        }
        self.check_pages(first, (bytes.len() / page_size) as u64)?;
        let mut first = first;
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.pages.group_len(first, bytes));
            while !self.pages.push(first, piece) {
                let (pages, buffer) = (FrameKind::Pages, self.buffer());
                let content = self.pages.cut(buffer);
                self.send(pages, content)?;
            }
            let count = u32::try_from(piece.len() / page_size).unwrap_or(u32::MAX);
            first = PageId(first.0.saturating_add(count));
            bytes = rest;
        }
        Ok(())
    }

    fn check_pages(&mut self, first: PageId, count: u64) -> Result<()> {
        let out_of_order = |what, expected, found| Err(Error::OutOfOrder { what, expected, found });
        let (first, end) = (u64::from(first.0), u64::from(first.0) + count);
        if self.header.kind == StreamKind::Records || self.position() != self.header.position {
            let what = "pages come before records, and not into a stream of records";
            return out_of_order(what, self.track.last().lsn.0, first);
        }
        if first < self.next_page {
            let what = "pages ascend, and a group of 128 is not cut by a flush";
            return out_of_order(what, self.next_page, first);
        }
        if end > u64::from(self.header.page_count) {
            let what = "pages are within the data file";
            return out_of_order(what, self.header.page_count.into(), end - 1);
        }
        self.next_page = end;
        self.page_count += count;
        Ok(())
    }

    fn add_record(&mut self, lsn: Lsn, mut bytes: &[u8]) -> Result<()> {
        self.check_record(lsn, bytes)?;
        if !self.pages.is_empty() {
            self.end_frames()?;
        }
        let content_max = RECORDS_START + self.coding.frame_len;
        if self.records.len() + bytes.len() > content_max {
            self.end_frames()?;
        }
        while !bytes.is_empty() {
            if self.records.is_empty() {
                let offset = self.track.open().map_or(0, |(_, seen, _)| seen);
                self.records.extend_from_slice(&encode_start(lsn, offset));
            }
            let room = content_max - self.records.len();
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            self.records.extend_from_slice(piece);
            self.track.push(piece);
            if !rest.is_empty() {
                self.end_frames()?;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn check_record(&mut self, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        let last = self.track.last();
        let (expected, found) = (last.lsn.0.saturating_add(1), lsn.0);
        let wrong = |what| Err(Error::OutOfOrder { what, expected, found });
        let head = match RecordHead::decode(bytes) {
            Ok(head) if head.version <= RECORD_VERSION => head,
            Ok(_) => return wrong("a record has a newer version"),
            Err(what) => return wrong(what),
        };
        if head.len != bytes.len() as u64 || head.lsn != lsn {
            return wrong("a record has another length or number than it says");
        }
        if lsn.0 != expected {
            return wrong("records follow one another");
        }
        if !head.follows(&last) {
            return wrong("a record continues the history of the one before it");
        }
        self.track.begin(head);
        Ok(())
    }

    /// Ends the frame that is being filled.
    fn end_frames(&mut self) -> Result<()> {
        if !self.pages.is_empty() {
            let buffer = self.buffer();
            let content = self.pages.take(buffer);
            self.send(FrameKind::Pages, content)?;
            // The rest of the last group would come in a second frame.
            let last = u32::try_from(self.next_page - 1).unwrap_or(u32::MAX);
            let group = u64::from(group_of(last)) + 1;
            self.next_page = group * limits::GROUP_PAGES as u64;
        }
        if !self.records.is_empty() {
            let buffer = self.buffer();
            let content = mem::replace(&mut self.records, buffer);
            self.send(FrameKind::Records, content)?;
        }
        Ok(())
    }

    /// An empty buffer that was used before, if there is one.
    fn buffer(&mut self) -> Vec<u8> {
        let used = self.spare.last_mut().map(|job| mem::take(&mut job.raw));
        let mut buffer = used.unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(limits::content_len_max(self.coding.frame_len));
        buffer
    }

    fn send(&mut self, kind: FrameKind, content: Vec<u8>) -> Result<()> {
        while self.pool.len() >= self.frames_max {
            self.retire()?;
        }
        let mut job = self.spare.pop().unwrap_or_else(PackJob::new);
        (job.kind, job.sequence, job.raw) = (kind, self.sequence, content);
        self.sequence += 1;
        self.pool.submit(job);
        Ok(())
    }

    fn retire_all(&mut self) -> Result<()> {
        while self.pool.len() > 0 {
            self.retire()?;
        }
        Ok(())
    }

    /// Writes the oldest frame.
    fn retire(&mut self) -> Result<()> {
        let Some(job) = self.pool.take() else { return Ok(()) };
        let head = job.head.expect("a frame that was worked on has a header");
        if job.kind != FrameKind::Trailer {
            self.counted.frame_count += 1;
            self.counted.raw_len += job.raw_len as u64;
            add_frame(&mut self.digest, job.kind, head.raw_len, &job.content_hash);
            job.groups.iter().for_each(|group| self.page_hash.push(group));
        }
        let written = self.out.write_all(&head.encode());
        let written = written.and_then(|()| self.out.write_all(job.stored()));
        written.map_err(|error| Error::io("write", self.offset, error))?;
        self.offset += (FRAME_HEADER_SIZE + job.stored().len()) as u64;
        self.spare.push(job);
        Ok(())
    }

    fn write_trailer(&mut self, last: Position) -> Result<()> {
        let end = self.track.last();
        if last != end {
            let what = "the stream ends at its last record";
            let (expected, found) = (end.lsn.0, last.lsn.0);
            return Err(Error::OutOfOrder { what, expected, found });
        }
        self.end_frames()?;
        self.retire_all()?;
        let (first_time_us, last_time_us) = self.track.times_us();
        self.counted = Trailer {
            page_count: self.page_count,
            record_count: self.track.count(),
            last,
            first_time_us,
            last_time_us,
            digest: Digest(*self.digest.finalize().as_bytes()),
            page_hash: self.page_hash.digest(),
            ..self.counted
        };
        let mut content = self.buffer();
        content.extend_from_slice(&self.counted.encode());
        self.send(FrameKind::Trailer, content)?;
        self.retire_all()?;
        self.out.flush().map_err(|error| Error::io("flush", self.offset, error))
    }
}

/// Adds a frame to the digest of a stream.
pub(super) fn add_frame(
    digest: &mut blake3::Hasher,
    kind: FrameKind,
    raw_len: u32,
    content_hash: &Digest,
) {
    digest.update(&[kind as u8]);
    digest.update(&raw_len.to_le_bytes());
    digest.update(&content_hash.0);
}

fn coding(options: &StreamOptions) -> Result<Coding> {
    let mut random = [0; 48];
    getrandom::fill(&mut random)
        .map_err(|error| Error::io("draw random numbers for", 0, error.into()))?;
    let (stream_id, salt) = random.split_at(16);
    let (stream_id, salt) = (stream_id.first_chunk(), salt.first_chunk());
    let (stream_id, salt) = stream_id.zip(salt).expect("48 bytes are 16 and 32");
    let encryption = options.key.as_ref().map(|key| seal::describe(key, *salt)).transpose()?;
    Ok(Coding {
        stream_id: *stream_id,
        frame_len: options.frame_len,
        compression: match options.level {
            0 => StreamCompression::None,
            _ => StreamCompression::Zstd,
        },
        encryption,
    })
}

fn start_pool(
    header: &StreamHeader,
    coding: &Coding,
    options: &StreamOptions,
    stored: &[u8; STREAM_HEADER_SIZE],
    threads: usize,
) -> Result<Pool<Packer>> {
    let key = options.key.as_ref().zip(coding.encryption.as_ref());
    let cipher = key.map(|(key, encryption)| Cipher::new(key, encryption, stored)).transpose()?;
    let (page_size, frame_len) = (header.page_size, coding.frame_len);
    let rules = PageRules { page_size, page_count: header.page_count, frame_len };
    let stream = *coding.stream_id.first_chunk().expect("8 of 16 bytes");
    let packer = |_| Packer::new(stream, rules, options.level, cipher.clone());
    let packers = (0..threads).map(packer).collect::<std::io::Result<Vec<_>>>();
    let pool = packers.and_then(|packers| Pool::new(packers, options.is_background));
    pool.map_err(|error| Error::io("start threads for", 0, error))
}
