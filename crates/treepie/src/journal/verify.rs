//! Verifying one segment from end to end, from the medium: for a scrub, while the database goes on.
//!
//! Unlike the `cursor` it goes on behind a damaged record, at the next block that begins with a valid
//! frame, so that all damage is found. Which records must be there is for the caller to say: it knows
//! what was synced. Whether the segment was given up meanwhile, and its file used for another one, is
//! for the caller too: it looks afterwards whether the segment is still one of the journal's.

use std::{io, path::Path, sync::Arc};

use crate::{
    disk::{Disk, DiskFile, DiskMap, OpenMode},
    error::{Damage, Error, Result, Structure},
    format::segment::SEGMENT_HEADER_SIZE,
    ids::Lsn,
};

use super::segment::{Found, SegmentReader, align_frame, segment_name};

/// What one step has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentStep {
    /// The next record is whole; its length in bytes.
    Verified(u64),
    /// A record that must be there is damaged.
    Damaged {
        /// Where it begins or should begin, in bytes.
        offset: u64,
        /// Its number; the first one of the segment when its header is damaged.
        lsn: Lsn,
        /// The next one that can be found.
        until: Lsn,
        /// What is wrong.
        what: Damage,
    },
    /// All records that must be there were looked at.
    End,
}

/// One segment, being verified.
#[derive(Debug)]
pub struct SegmentVerifier {
    reader: SegmentReader,
    offset: u64,
    next: Lsn,
    last: Lsn,
    chain: Option<u64>,
}

impl SegmentVerifier {
    /// Begins with the header of the segment `first`, in which all records up to `last` must be.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::UnsupportedVersion`] or [`Error::Corrupt`] for a header that is
    /// whole, and none that can be.
    pub fn open(disk: &dyn Disk, dir: &Path, first: Lsn, last: Lsn) -> Result<SegmentVerifier> {
        let path = dir.join(segment_name(first));
        let file = disk.open(&path, OpenMode::ReadOnly).map_err(Error::io("open", &path))?;
        let reader = SegmentReader::of_file(Arc::new(FromMedium(file)), path, first)?;
        let offset = SEGMENT_HEADER_SIZE as u64;
        let chain = reader.header().as_ref().ok().map(|header| header.chain);
        Ok(SegmentVerifier { reader, offset, next: first, last, chain })
    }

    /// Where the next record should be, in bytes.
    pub fn offset(&self) -> u64 {
        align_frame(self.offset)
    }

    /// The next record.
    pub fn next(&self) -> Lsn {
        self.next
    }

    /// Verifies the next record: frame, number, checksum, chain, payload.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn step(&mut self) -> Result<SegmentStep> {
        if self.next > self.last {
            return Ok(SegmentStep::End);
        }
        if let Err(what) = self.reader.header() {
            let (lsn, what) = (self.next, what.clone());
            self.next = self.last.next();
            return Ok(SegmentStep::Damaged { offset: 0, lsn, until: self.next, what });
        }
        let what = loop {
            let found = match self.reader.find(self.offset, self.next) {
                Ok(Ok(found)) => found,
                Ok(Err(what)) | Err(Error::Corrupt { what, .. }) => break what,
                Err(error) => return Err(error),
            };
            match self.verify(&found)? {
                Some(what) => break what,
                None if !found.header.kind().is_local() => return Ok(self.accept(&found)),
                // A local record has no number of its own.
                None => self.offset = align_frame(found.offset + found.len as u64),
            }
        };
        let (offset, lsn) = (align_frame(self.offset), self.next);
        self.chain = None;
        if let Some(end) = self.reader.end_of(self.offset, lsn)? {
            (self.offset, self.next) = (align_frame(end), lsn.next());
        } else if let Some(found) = self.reader.next_frame(offset + 1, lsn, self.last)? {
            (self.offset, self.next) = found;
        } else {
            self.next = self.last.next();
        }
        Ok(SegmentStep::Damaged { offset, lsn, until: self.next, what })
    }

    /// What is wrong with the inside of a record whose checksum holds.
    fn verify(&mut self, found: &Found) -> Result<Option<Damage>> {
        let structure = Structure::Record(found.header.lsn());
        if self.chain.is_some_and(|chain| chain != found.header.chain_before()) {
            let what = "it does not continue the record before it";
            return Ok(Some(Damage::layout(structure, what)));
        }
        let record = match self.reader.record(found) {
            Ok(record) => record,
            Err(Error::Corrupt { what, .. }) => return Ok(Some(what)),
            Err(error) => return Err(error),
        };
        let change = record.changes().find_map(Result::err);
        Ok(change.or_else(|| record.annotations().find_map(Result::err)))
    }

    fn accept(&mut self, found: &Found) -> SegmentStep {
        self.offset = align_frame(found.offset + found.len as u64);
        self.next = self.next.next();
        self.chain = Some(found.header.chain());
        SegmentStep::Verified(found.len as u64)
    }
}

/// A file whose reads go to the medium.
#[derive(Debug)]
struct FromMedium(Arc<dyn DiskFile>);

impl DiskFile for FromMedium {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_medium(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, buf)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.start_writeback(offset, len)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.0.map(reserve)
    }
}
