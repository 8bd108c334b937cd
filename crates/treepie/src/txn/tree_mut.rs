//! A tree in a write transaction: what a caller's closure works with.

use std::ops::RangeBounds;

use crate::{
    error::{Error, Result},
    tree::{self, Edit, Key},
};

use super::{
    cursor::Cursor, open_trees::OpenTree, pages::TxnPages, range::Range, snapshot::borrowed_bounds,
};

/// A tree in a write transaction. Reads see the changes made so far; nobody else does before the
/// commit.
#[derive(Debug)]
pub struct TreeMut<'t> {
    pages: &'t mut TxnPages,
    open: &'t mut OpenTree,
    broken: &'t mut Option<&'static str>,
}

impl<'t> TreeMut<'t> {
    pub(super) fn new(
        pages: &'t mut TxnPages,
        open: &'t mut OpenTree,
        broken: &'t mut Option<&'static str>,
    ) -> TreeMut<'t> {
        TreeMut { pages, open, broken }
    }

    /// Sets the value of a key. Returns whether the key had one before. Both may be empty.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`], [`Error::ValueTooLong`]: nothing was changed. [`Error::Corrupt`],
    /// [`Error::Bound`], [`Error::Io`]: the transaction can only be undone.
    pub fn insert(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<bool> {
        let result = self.edit().insert(key.as_ref(), value.as_ref());
        self.note("insert", result)
    }

    /// Removes a key. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Bound`], [`Error::Io`]: the transaction can only be undone.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        let result = self.edit().remove(key.as_ref());
        self.note("remove", result)
    }

    /// Removes the entries whose keys lie in `bounds`. Returns how many there were. The work is in
    /// proportion to what is removed; leaves that go as a whole are freed without a look at their
    /// entries, unless values are in runs of their own.
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// let receipt = db.write(|tx| {
    ///     let mut tree = tx.tree("t")?;
    ///     for key in ["a", "b", "c", "d"] { tree.insert(key, "")?; }
    ///     tree.remove_range("b"..="c")
    /// })?;
    /// assert_eq!(receipt.value, 2);
    /// assert_eq!(db.read()?.tree("t")?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`remove`](TreeMut::remove).
    pub fn remove_range<K: AsRef<[u8]>>(&mut self, bounds: impl RangeBounds<K>) -> Result<u64> {
        let (lower, upper) = borrowed_bounds(&bounds);
        let result = self.edit().remove_range(lower, upper);
        self.note("remove_range", result)
    }

    /// Removes all entries. The tree stays, empty; its pages are free.
    ///
    /// # Errors
    /// As [`remove`](TreeMut::remove).
    pub fn clear(&mut self) -> Result<()> {
        let result = self.edit().clear();
        self.note("clear", result)
    }

    #[inline]
    fn edit(&mut self) -> Edit<'_, TxnPages> {
        let OpenTree { state, hint, .. } = &mut *self.open;
        Edit::new(self.pages, state, hint)
    }

    /// An operation that failed for what the disk or memory did has stopped half-way.
    fn note<T>(&mut self, operation: &'static str, result: Result<T>) -> Result<T> {
        if let Err(error) = &result
            && !matches!(error, Error::KeyTooLong { .. } | Error::ValueTooLong { .. })
        {
            self.broken.get_or_insert(operation);
        }
        result
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<&[u8]>> {
        tree::get(self.pages, &self.open.state, key.as_ref())
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        tree::contains_key(self.pages, &self.open.state, key.as_ref())
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.open.state.entries
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry with the lowest key.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn first(&self) -> Result<Option<(Key<'_>, &[u8])>> {
        tree::first(self.pages, &self.open.state)
    }

    /// The entry with the highest key.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn last(&self) -> Result<Option<(Key<'_>, &[u8])>> {
        tree::last(self.pages, &self.open.state)
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> Range<'_> {
        self.range::<&[u8]>(..)
    }

    /// The entries whose keys lie in `bounds`, from both ends.
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Range<'_> {
        let (lower, upper) = borrowed_bounds(&bounds);
        Range::txn(tree::Range::new(&*self.pages, &self.open.state, lower, upper))
    }

    /// The entries whose keys begin with `prefix`, from both ends.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Range<'_> {
        Range::txn(tree::Range::prefix(&*self.pages, &self.open.state, prefix.as_ref()))
    }

    /// A cursor over the entries as they are now, that can seek to and fro. It is nowhere until it is
    /// moved. It borrows the tree: to change entries that it finds, note their keys and let go of it,
    /// or see [`remove_range`](TreeMut::remove_range).
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// db.write(|tx| {
    ///     let mut tree = tx.tree("queue")?;
    ///     for key in ["job 3", "job 1", "job 2"] { tree.insert(key, "")?; }
    ///     let mut cursor = tree.cursor();
    ///     assert!(cursor.seek("job 2")? && cursor.prev()?);
    ///     let key = cursor.key().expect("at an entry").to_vec();
    ///     assert_eq!(key, b"job 1");
    ///     tree.remove(key)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor::txn(tree::Cursor::new(&*self.pages, &self.open.state))
    }
}

impl<'a> IntoIterator for &'a TreeMut<'_> {
    type Item = <Range<'a> as Iterator>::Item;
    type IntoIter = Range<'a>;

    fn into_iter(self) -> Range<'a> {
        self.iter()
    }
}
