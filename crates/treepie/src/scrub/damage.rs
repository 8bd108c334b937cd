//! What scrubs have found: a list that is bounded, and in which every place stands once.

use std::{fmt, path::PathBuf};

use crate::{
    ids::{Lsn, PageId, TreeId},
    sync::LeafMutex,
};

/// Most items that are kept.
pub const DAMAGE_MAX: usize = 1_000;

/// Damage of a file, found by reading it from the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundDamage {
    /// The damaged file.
    pub file: PathBuf,
    /// Where the damage begins in the file, in bytes: that of the page or record.
    pub offset: u64,
    /// How many bytes are concerned; 0 where that is not known.
    pub len: u64,
    /// The first damaged page, in the data file.
    pub page: Option<PageId>,
    /// The record, in the journal.
    pub record: Option<Lsn>,
    /// The tree that owns the page: as its header says, or the branch that leads to it.
    pub tree: Option<TreeId>,
    /// The name of that tree, where the catalog has one.
    pub tree_name: Option<Vec<u8>>,
    /// What is wrong.
    pub what: String,
    /// What can be done.
    pub advice: &'static str,
    /// When it was found first, in microseconds since 1970.
    pub found_us: u64,
}

impl FoundDamage {
    pub(crate) fn new(
        file: PathBuf,
        offset: u64,
        what: String,
        advice: &'static str,
    ) -> FoundDamage {
        FoundDamage {
            file,
            offset,
            len: 0,
            page: None,
            record: None,
            tree: None,
            tree_name: None,
            what,
            advice,
            found_us: 0,
        }
    }
}

impl fmt::Display for FoundDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged at byte {}", self.file.display(), self.offset)?;
        if let Some(page) = self.page {
            write!(f, " (page {page}")?;
            match (&self.tree_name, self.tree) {
                (Some(name), _) => write!(f, " of tree \"{}\")", name.escape_ascii())?,
                (None, Some(tree)) => write!(f, " of tree {tree})")?,
                (None, None) => f.write_str(")")?,
            }
        }
        write!(f, ": {}; {}", self.what, self.advice)
    }
}

/// The list.
#[derive(Debug, Default)]
pub struct DamageList {
    inner: LeafMutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    items: Vec<FoundDamage>,
    count: u64,
}

impl DamageList {
    /// Adds an item, and says it as an event, unless its place is there already.
    pub fn add(&self, item: &FoundDamage) {
        let mut inner = self.inner.lock();
        let is_known = inner
            .items
            .iter()
            .any(|known| (&known.file, known.offset) == (&item.file, item.offset));
        // Beyond the bound places are not remembered, and count each time.
        if is_known {
            return;
        }
        inner.count += 1;
        if inner.items.len() < DAMAGE_MAX {
            inner.items.push(item.clone());
        }
        drop(inner);
        tracing::error!(
            file = %item.file.display(),
            offset = item.offset,
            len = item.len,
            page = item.page.map(|page| page.0),
            record = item.record.map(|lsn| lsn.0),
            tree = item.tree.map(|tree| tree.0),
            what = item.what,
            advice = item.advice,
            "a scrub has found damage"
        );
    }

    /// The items, those first that were found first.
    pub fn items(&self) -> Vec<FoundDamage> {
        self.inner.lock().items.clone()
    }

    /// How many there were, kept or not.
    pub fn count(&self) -> u64 {
        self.inner.lock().count
    }
}
