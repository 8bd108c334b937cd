//! Looking inside: the records of the journal, and single pages.

use std::{path::PathBuf, sync::Arc};

use crate::{
    error::{Error, Result},
    format::{change::PageChange, page, record::Record},
    ids::{Lsn, PageId, Term, TreeId},
    journal::JournalReader,
    recovery::JOURNAL_DIR,
};

use super::Database;

/// One record of the journal, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordSummary {
    /// Its number.
    pub lsn: Lsn,
    /// Raft term; 0 when never replicated.
    pub term: Term,
    /// When it was sealed, microseconds since 1970.
    pub time_us: u64,
    /// Segment file that holds it.
    pub file: PathBuf,
    /// Where it begins in that file, in bytes.
    pub offset: u64,
    /// Its length in the file in bytes.
    pub stored_len: u64,
    /// Length of its payload before compression, in bytes.
    pub raw_len: u64,
    /// Highest LSN that was known to be committed when it was sealed.
    pub known_committed: Lsn,
    /// Pages that it changes, runs of large values counted by their pages.
    pub pages_changed: u64,
    /// Pages that it frees.
    pub pages_freed: u64,
    /// Bytes of annotations.
    pub annotation_bytes: u64,
    /// Hash of the record before it.
    pub chain_before: u64,
}

/// Records of the journal in the order of their LSNs, from [`Database::journal_records`]. Ends
/// after the last record, or after the first error.
#[derive(Debug)]
pub struct JournalRecords {
    reader: JournalReader,
}

impl Iterator for JournalRecords {
    type Item = Result<RecordSummary>;

    fn next(&mut self) -> Option<Self::Item> {
        let stored = match self.reader.next()? {
            Ok(stored) => stored,
            Err(error) => return Some(Err(error)),
        };
        let damaged =
            |what| Error::Corrupt { file: stored.file.clone(), offset: stored.offset, what };
        let record = match Record::parse(&stored.bytes) {
            Ok(record) => record,
            Err(what) => return Some(Err(damaged(what))),
        };
        let (mut pages_changed, mut pages_freed) = (0, 0);
        for change in record.changes() {
            match change {
                Ok(PageChange::Page { .. }) => pages_changed += 1,
                Ok(PageChange::Run { page_count, .. }) => pages_changed += u64::from(page_count),
                Ok(PageChange::Free { page_count, .. }) => pages_freed += u64::from(page_count),
                Err(what) => return Some(Err(damaged(what))),
            }
        }
        Some(Ok(RecordSummary {
            lsn: record.lsn(),
            term: record.term(),
            time_us: record.time_us(),
            file: stored.file.clone(),
            offset: stored.offset,
            stored_len: stored.bytes.len() as u64,
            raw_len: record.raw_len() as u64,
            known_committed: record.known_committed(),
            pages_changed,
            pages_freed,
            annotation_bytes: record.annotations().flatten().map(|a| a.len() as u64).sum(),
            chain_before: record.chain_before(),
        }))
    }
}

/// One page of the data file, as of the newest commit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PageDump {
    /// Its number.
    pub page: PageId,
    /// `leaf`, `branch`, `overflow`, `bitmap`, `meta` or `unknown`.
    pub kind: &'static str,
    /// LSN of its last change.
    pub lsn: Lsn,
    /// Level in its tree.
    pub level: u8,
    /// Entries or children.
    pub count: usize,
    /// Number of the tree that owns it.
    pub tree: TreeId,
    /// Why it is not valid; `None` when it is.
    pub damage: Option<String>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Database {
    /// The records of the journal from `from` on, or from the oldest that is kept. Checkpoints
    /// recycle what is before them, in whole segments.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Corrupt`] for a damaged segment header.
    pub fn journal_records(&self, from: Lsn) -> Result<JournalRecords> {
        let core = &self.shared.core;
        let reader = JournalReader::open(Arc::clone(&core.disk), &core.path.join(JOURNAL_DIR))?;
        Ok(JournalRecords { reader: reader.from(from)? })
    }

    /// The bytes of one page as of the newest commit, damaged or not.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file has no such page, [`Error::Bound`].
    #[track_caller]
    pub fn page(&self, id: PageId) -> Result<PageDump> {
        let pager = &self.shared.core.pager;
        let snapshot = self.read()?;
        let bytes = pager.page_unverified(id, snapshot.lsn())?;
        let damage = match id.0 {
            0 | 1 => None,
            _ => pager.page_verified_again(id, snapshot.lsn()).err().map(|e| e.to_string()),
        };
        let kind = match (id.0, page::kind(bytes)) {
            (0 | 1, _) => "meta",
            (_, Some(page::PageKind::Leaf)) => "leaf",
            (_, Some(page::PageKind::Branch)) => "branch",
            (_, Some(page::PageKind::Overflow)) => "overflow",
            (_, Some(page::PageKind::Bitmap)) => "bitmap",
            (_, None) => "unknown",
        };
        Ok(PageDump {
            page: id,
            kind,
            lsn: page::lsn(bytes),
            level: page::level(bytes),
            count: page::count(bytes),
            tree: page::tree(bytes),
            damage,
            bytes: bytes[..pager.page_size()].to_vec(),
        })
    }
}
