//! Copies of all pages, as users ask for them and see how far they are.

use std::panic::Location;

use crate::{
    copy::{self, CopyOptions, PageCopy},
    error::Result,
    ids::Lsn,
};

use super::Database;

/// A copy that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyInfo {
    /// LSN of its state.
    pub lsn: Lsn,
    /// How long ago it began, in microseconds.
    pub age_us: u64,
    /// Where it was begun: file, line and column of the caller.
    pub opened_at: String,
    /// Pages that were read.
    pub pages_read: u64,
    /// Pages that there are to read.
    pub pages: u64,
    /// Bytes of its side file that are in use.
    pub side_file_len: u64,
}

impl Database {
    /// Begins a copy of all pages as of the newest commit, or of those that have changed since an
    /// earlier copy: what backups are made of. It brings the data file up to that commit first, and
    /// then goes on beside writers and checkpoints, which it does not hold back.
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// # db.write(|tx| tx.tree("birds")?.insert("pica", "magpie"))?;
    /// let mut copy = db.copy_pages(&treepie::CopyOptions::new())?;
    /// let mut pages = Vec::new();
    /// while let Some(first) = copy.next(&mut pages, 1 << 20)? {
    ///     println!("{} pages from page {first} on", pages.len() / copy.page_size());
    ///     pages.clear();
    /// }
    /// // Later, what has changed since.
    /// let later = treepie::CopyOptions::new().base(copy.as_base());
    /// assert!(db.copy_pages(&later)?.is_from_map());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Snapshots that are open, however old, do not hinder it: what they keep from the data file goes to
    /// the side file at once.
    ///
    /// # Errors
    /// - [`Error::Base`](crate::Error::Base) for an increment on what is no earlier state of this database.
    /// - [`Error::Bound`](crate::Error::Bound) when 16 copies are being made, when `readers_max` snapshots
    ///   are open, and when what old snapshots keep is more than `side_file_max`.
    /// - [`Error::Poisoned`](crate::Error::Poisoned), [`Error::Io`](crate::Error::Io).
    /// - [`Error::Corrupt`](crate::Error::Corrupt) when a free-space bitmap is damaged.
    #[track_caller]
    pub fn copy_pages(&self, options: &CopyOptions) -> Result<PageCopy> {
        let shared = &*self.shared;
        copy::begin(&shared.core, &shared.checkpointer, options, Location::caller())
    }

    /// The copies that are being made, those that began first in front.
    #[must_use]
    pub fn copies(&self) -> Vec<CopyInfo> {
        let core = &*self.shared.core;
        let now = core.disk.now_us();
        let copies = core.pager.copies.all();
        copies
            .iter()
            .map(|copy| {
                let state = copy.state();
                CopyInfo {
                    lsn: copy.lsn(),
                    age_us: now.saturating_sub(copy.opened_us()),
                    opened_at: copy.location().to_string(),
                    pages_read: state.done,
                    pages: state.total,
                    side_file_len: state.side_len,
                }
            })
            .collect()
    }
}
