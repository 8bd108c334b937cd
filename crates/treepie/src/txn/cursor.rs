//! Cursor, as users see it: over the pages of a snapshot, or of a write transaction.

use std::fmt;

use crate::{
    error::Result,
    tree::{self, Key},
};

use super::{pages::TxnPages, snapshot::SnapshotPages};

/// A place among the entries of a tree: at an entry, or nowhere.
///
/// The moves return whether there is an entry to be at; where there is none, or after an error,
/// the cursor is nowhere, and `next` and `prev` leave it there.
///
/// ```
/// # fn main() -> treepie::Result<()> {
/// # let dir = tempfile::tempdir().expect("a folder");
/// # let db = treepie::Database::open(dir.path())?;
/// # db.write(|tx| {
/// #     let mut tree = tx.tree("t")?;
/// #     for key in ["ant", "bee", "cow"] { tree.insert(key, "")?; }
/// #     Ok(())
/// # })?;
/// let snapshot = db.read()?;
/// let mut cursor = snapshot.tree("t")?.cursor();
/// assert!(cursor.seek("b")?);
/// assert_eq!(cursor.key().expect("at an entry").to_vec(), b"bee");
/// assert!(cursor.next()?);
/// assert!(!cursor.next()?, "behind the last one");
/// assert!(cursor.key().is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cursor<'a>(Source<'a>);

#[derive(Clone)]
enum Source<'a> {
    Snapshot(tree::Cursor<'a, SnapshotPages>),
    Txn(tree::Cursor<'a, TxnPages>),
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn snapshot(cursor: tree::Cursor<'a, SnapshotPages>) -> Cursor<'a> {
        Cursor(Source::Snapshot(cursor))
    }

    #[inline]
    pub(super) fn txn(cursor: tree::Cursor<'a, TxnPages>) -> Cursor<'a> {
        Cursor(Source::Txn(cursor))
    }

    /// Goes to the first entry.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) when a page on the way is damaged, as all moves.
    #[inline]
    pub fn first(&mut self) -> Result<bool> {
        match &mut self.0 {
            Source::Snapshot(cursor) => cursor.first(),
            Source::Txn(cursor) => cursor.first(),
        }
    }

    /// Goes to the last entry.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    #[inline]
    pub fn last(&mut self) -> Result<bool> {
        match &mut self.0 {
            Source::Snapshot(cursor) => cursor.last(),
            Source::Txn(cursor) => cursor.last(),
        }
    }

    /// Goes to the first entry that is not below `key`.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    #[inline]
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        match &mut self.0 {
            Source::Snapshot(cursor) => cursor.seek(key.as_ref()),
            Source::Txn(cursor) => cursor.seek(key.as_ref()),
        }
    }

    /// Goes to the last entry that is not above `key`.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    #[inline]
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        match &mut self.0 {
            Source::Snapshot(cursor) => cursor.seek_for_prev(key.as_ref()),
            Source::Txn(cursor) => cursor.seek_for_prev(key.as_ref()),
        }
    }

    /// Goes to the next entry.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    #[allow(clippy::should_implement_trait, reason = "a cursor goes both ways, as BTreeMap's do")]
    #[inline]
    pub fn next(&mut self) -> Result<bool> {
        match &mut self.0 {
            Source::Snapshot(cursor) => cursor.next(),
            Source::Txn(cursor) => cursor.next(),
        }
    }

    /// Goes to the entry before.
    ///
    /// # Errors
    /// As [`first`](Cursor::first).
    #[inline]
    pub fn prev(&mut self) -> Result<bool> {
        match &mut self.0 {
            Source::Snapshot(cursor) => cursor.prev(),
            Source::Txn(cursor) => cursor.prev(),
        }
    }

    /// The key here; `None` nowhere.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Option<Key<'a>> {
        match &self.0 {
            Source::Snapshot(cursor) => cursor.key(),
            Source::Txn(cursor) => cursor.key(),
        }
    }

    /// The value here; `None` nowhere.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) when the value is in a run that is damaged.
    #[inline]
    pub fn value(&self) -> Result<Option<&'a [u8]>> {
        match &self.0 {
            Source::Snapshot(cursor) => cursor.value(),
            Source::Txn(cursor) => cursor.value(),
        }
    }

    /// The entry here; `None` nowhere.
    ///
    /// # Errors
    /// As [`value`](Cursor::value).
    #[inline]
    pub fn entry(&self) -> Result<Option<(Key<'a>, &'a [u8])>> {
        match &self.0 {
            Source::Snapshot(cursor) => cursor.entry(),
            Source::Txn(cursor) => cursor.entry(),
        }
    }
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("key", &self.key()).finish_non_exhaustive()
    }
}
