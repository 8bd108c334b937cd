//! What a salvage found, and what is lost.

use std::fmt;

use crate::ids::{Lsn, PageId, TreeId};

/// Most losses that are listed.
pub(super) const LOSSES_MAX: usize = 10_000;

/// How far a salvage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageProgress {
    /// Pages that were looked at.
    pub pages_done: u64,
    /// Pages of the data file.
    pub pages_total: u64,
    /// Entries that were saved.
    pub entries: u64,
    /// Losses so far.
    pub losses: u64,
}

/// One tree of the new database.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvagedTree {
    /// Its name; `tree-N` where the name of tree N is lost.
    pub name: Vec<u8>,
    /// Its number in the damaged database.
    pub id: TreeId,
    /// Entries that were saved.
    pub entries: u64,
    /// Entries that it had, where the catalog says it.
    pub expected: Option<u64>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// The tree.
    pub tree: Option<Vec<u8>>,
    /// The page.
    pub page: Option<PageId>,
    /// Keys that are concerned: from this one on, or from the lowest of the tree.
    pub from: Option<Vec<u8>>,
    /// Up to this one, which is not concerned, or to the highest of the tree.
    pub until: Option<Vec<u8>>,
    /// Whether it is one value, that of the key `from`.
    pub is_value: bool,
    /// What is wrong.
    pub what: String,
    /// Entries of this range that were found elsewhere and saved.
    pub found: u64,
}

impl Loss {
    pub(super) fn of(what: String) -> Loss {
        Loss { tree: None, page: None, from: None, until: None, is_value: false, what, found: 0 }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tree) = &self.tree {
            write!(f, "tree \"{}\": ", tree.escape_ascii())?;
        }
        // What is wrong with a page mostly begins with the page.
        if let Some(page) = self.page.filter(|_| !self.what.starts_with("page ")) {
            write!(f, "page {page}: ")?;
        }
        f.write_str(&self.what)?;
        let shown = |key: &Vec<u8>| format!("\"{}\"", key.escape_ascii());
        match (&self.from, &self.until) {
            (Some(key), _) if self.is_value => write!(f, "; the value of {} is lost", shown(key))?,
            _ if self.tree.is_none() => {}
            (None, None) => f.write_str("; any key may be lost")?,
            (Some(from), None) => write!(f, "; keys from {} on may be lost", shown(from))?,
            (None, Some(until)) => write!(f, "; keys below {} may be lost", shown(until))?,
            (Some(from), Some(until)) => {
                write!(f, "; keys from {} to below {} may be lost", shown(from), shown(until))?;
            }
        }
        if self.found > 0 {
            write!(f, "; {} entries of them were found by their pages' headers", self.found)?;
        }
        Ok(())
    }
}

/// What a salvage has done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Whether it came to its end; otherwise the new database is not complete.
    pub is_complete: bool,
    /// Size of a page in bytes.
    pub page_size: usize,
    /// LSN of the state that was saved, where that is known.
    pub lsn: Option<Lsn>,
    /// Records of the journal that were applied.
    pub records: u64,
    /// The trees of the new database.
    pub trees: Vec<SalvagedTree>,
    /// Entries of all of them.
    pub entries: u64,
    /// What could not be read, the first 10,000 items of it.
    pub losses: Vec<Loss>,
    /// How many there were.
    pub loss_count: u64,
}

impl SalvageReport {
    /// Whether everything was there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_complete && self.loss_count == 0
    }

    /// Entries that are known to be lost; those of trees without a catalog entry are not counted.
    #[must_use]
    pub fn entries_lost(&self) -> u64 {
        let lost = |tree: &SalvagedTree| tree.expected.unwrap_or(0).saturating_sub(tree.entries);
        self.trees.iter().map(lost).sum()
    }

    /// Adds a loss; returns its place in the list, if it is kept.
    pub(super) fn add(&mut self, loss: Loss) -> Option<usize> {
        self.loss_count += 1;
        tracing::warn!(%loss, "a salvage has lost something");
        if self.losses.len() >= LOSSES_MAX {
            return None;
        }
        self.losses.push(loss);
        Some(self.losses.len() - 1)
    }
}
