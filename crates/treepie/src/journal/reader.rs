//! Reading a journal from outside: `treepie journal`, shipping, checks. Works on a closed database
//! and, up to what is appended, on an open one.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{disk::Disk, error::Result, format::record::RecordHeader, ids::Lsn};

use super::cursor::{Cursor, Expected};

/// A record as it is stored, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The segment that holds it.
    pub file: PathBuf,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its bytes in the file.
    pub len: u64,
    /// Its verified header.
    pub header: RecordHeader,
    /// Header and payload; see [`Record::parse`](crate::format::record::Record::parse).
    pub bytes: Vec<u8>,
}

/// The records of a journal, in LSN order. One record is in memory at a time. Ends at the tail, or
/// behind the first error.
#[derive(Debug)]
pub struct JournalReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cursor: Cursor,
    from: Lsn,
    is_done: bool,
}

impl JournalReader {
    /// Opens the journal in `dir`, at its oldest record.
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io), and [`Corrupt`](crate::Error::Corrupt) for the first segment.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<JournalReader> {
        let cursor = Cursor::open(disk.clone(), dir, Lsn(0), EXPECTED)?;
        let dir = dir.to_path_buf();
        Ok(JournalReader { disk, dir, cursor, from: Lsn(0), is_done: false })
    }

    /// Begins at the record `lsn`, or at the oldest one above it.
    ///
    /// # Errors
    /// As `open`.
    pub fn from(mut self, lsn: Lsn) -> Result<JournalReader> {
        let before = Lsn(lsn.0.saturating_sub(1));
        self.cursor = Cursor::open(self.disk.clone(), &self.dir, before, EXPECTED)?;
        self.from = lsn;
        Ok(self)
    }

    /// The next record, or none at the tail: then it can be asked again, once more is appended.
    ///
    /// # Errors
    /// [`Io`](crate::Error::Io), [`Corrupt`](crate::Error::Corrupt).
    pub fn read_next(&mut self) -> Result<Option<StoredRecord>> {
        while self.cursor.step()? {
            if self.cursor.last().0 < self.from {
                continue;
            }
            let header = self.cursor.header();
            let (file, offset, bytes) = self.cursor.stored()?;
            let bytes = bytes.to_vec();
            return Ok(Some(StoredRecord { file, offset, len: bytes.len() as u64, header, bytes }));
        }
        Ok(None)
    }
}

const EXPECTED: Expected = Expected {
    identity: None,
    page_size: None,
    position: None,
    is_live: true,
    needs_hard_state: false,
};

impl Iterator for JournalReader {
    type Item = Result<StoredRecord>;

    fn next(&mut self) -> Option<Result<StoredRecord>> {
        if self.is_done {
            return None;
        }
        let next = self.read_next().transpose();
        self.is_done = !matches!(next, Some(Ok(_)));
        next
    }
}
