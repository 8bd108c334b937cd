//! A snapshot: all trees at one LSN, for as long as anyone holds it.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    panic::Location,
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    format::page::{self, PageKind},
    ids::{Lsn, PageId, TreeId},
    pager::{access::PageRead, readers::ReaderSlot},
    tree::{self, Key, TreeState},
};

use super::{catalog::Catalog, core::Core, cursor::Cursor, range::Range};

/// All trees at one LSN. Cheap to clone, and it may go to other threads; what is read from it
/// borrows from it. The state never changes while any clone lives, and nobody waits for it: neither
/// writers nor other readers. It keeps the data file from taking over what changed since, so long
/// ones cost memory; [`Database::report`](crate::Database::report) lists them.
///
/// ```
/// # fn main() -> treepie::Result<()> {
/// # let dir = tempfile::tempdir().expect("a folder");
/// # let db = treepie::Database::open(dir.path())?;
/// db.write(|tx| tx.tree("birds")?.insert("pica", "magpie"))?;
/// let snapshot = db.read()?;
/// db.write(|tx| tx.tree("birds")?.remove("pica"))?;
/// assert_eq!(snapshot.tree("birds")?.get("pica")?, Some(&b"magpie"[..]));
/// assert_eq!(db.read()?.tree("birds")?.get("pica")?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    pages: Arc<SnapshotPages>,
}

/// The pages of a snapshot: where its ranges and cursors read from.
pub(crate) struct SnapshotPages {
    core: Arc<Core>,
    reader: ReaderSlot,
}

/// What a snapshot knows of one tree, without reading its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TreeInfo {
    /// Name.
    pub name: Vec<u8>,
    /// Number; never used again.
    pub id: TreeId,
    /// First page; the same for the life of the tree.
    pub root: PageId,
    /// Number of entries.
    pub entries: u64,
    /// Levels of pages; 1 when the root is a leaf.
    pub depth: u8,
    /// Pages with entries.
    pub leaf_pages: u64,
    /// Pages above them.
    pub branch_pages: u64,
    /// Pages of large values.
    pub overflow_pages: u64,
    /// Bytes of all keys and values.
    pub payload_len: u64,
}

impl TreeInfo {
    pub(crate) fn new(name: Vec<u8>, state: &TreeState) -> TreeInfo {
        TreeInfo {
            name,
            id: state.id,
            root: state.root,
            entries: state.entries,
            depth: state.depth,
            leaf_pages: state.leaf_pages.into(),
            branch_pages: state.branch_pages.into(),
            overflow_pages: state.overflow_pages.into(),
            payload_len: state.payload_len,
        }
    }
}

impl Snapshot {
    /// Opens a snapshot of the newest visible state.
    pub(crate) fn open(core: &Arc<Core>, location: &'static Location<'static>) -> Result<Snapshot> {
        let reader = core.pager.registry.add(core.disk.now_us(), location)?;
        let core = Arc::clone(core);
        Ok(Snapshot { pages: Arc::new(SnapshotPages { core, reader }) })
    }

    /// LSN of the state.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.pages.reader.lsn()
    }

    /// The tree of this name.
    ///
    /// # Errors
    /// [`Error::UnknownTree`], [`Error::Corrupt`].
    ///
    /// [`find_tree`](Snapshot::find_tree) is for trees that may be missing.
    pub fn tree(&self, name: impl AsRef<[u8]>) -> Result<Tree<'_>> {
        let name = name.as_ref();
        self.find_tree(name)?.ok_or_else(|| Error::UnknownTree { name: name.to_owned() })
    }

    /// The tree of this name, where there is one.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn find_tree(&self, name: impl AsRef<[u8]>) -> Result<Option<Tree<'_>>> {
        let pages = &*self.pages;
        if name.as_ref().is_empty() {
            return Ok(None);
        }
        let state = Catalog::open(pages)?.find(pages, name.as_ref())?;
        Ok(state.map(|state| Tree { pages, state }))
    }

    /// All trees in the order of their names, those of the engine (`$…`) included.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn trees(&self) -> Result<Vec<TreeInfo>> {
        let pages = &*self.pages;
        let trees = Catalog::open(pages)?.list(pages)?;
        Ok(trees.into_iter().map(|(name, state)| TreeInfo::new(name, &state)).collect())
    }

    pub(crate) fn pages(&self) -> &SnapshotPages {
        &self.pages
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("lsn", &self.lsn()).finish_non_exhaustive()
    }
}

impl PageRead for SnapshotPages {
    #[inline(always)]
    fn page_size(&self) -> usize {
        self.core.pager.page_size()
    }

    #[inline(always)]
    fn page(&self, id: PageId) -> Result<&[u8]> {
        let bytes = self.core.pager.page(id, self.reader.lsn())?;
        match page::kind(bytes) {
            Some(PageKind::Leaf | PageKind::Branch) => Ok(bytes),
            _ => Err(self.damaged(id, "neither a leaf nor a branch")),
        }
    }

    #[inline(always)]
    fn leaf(&self, id: PageId) -> Result<&[u8]> {
        let bytes = self.core.pager.leaf(id, self.reader.lsn())?;
        match page::kind(bytes) {
            Some(PageKind::Leaf) => Ok(bytes),
            _ => Err(self.damaged(id, "not a leaf")),
        }
    }

    fn run(&self, id: PageId, value_len: u64) -> Result<&[u8]> {
        self.core.pager.run(id, value_len, self.reader.lsn())
    }

    #[cold]
    fn damaged(&self, id: PageId, what: &'static str) -> Error {
        self.core.pager.damaged(id, what)
    }

    #[inline(always)]
    fn prefetch(&self, id: PageId) {
        self.core.pager.prefetch(id, self.reader.lsn());
    }
}

impl Drop for SnapshotPages {
    fn drop(&mut self) {
        self.core.pager.registry.remove(&self.reader);
    }
}

impl fmt::Debug for SnapshotPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotPages").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// A tree in a snapshot. What it returns borrows from the snapshot, not from this handle, which may
/// be copied and dropped.
///
/// Looking a tree up costs a look into the catalog; keep the handle for many reads.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'s> {
    pages: &'s SnapshotPages,
    state: TreeState,
}

impl<'s> Tree<'s> {
    /// The value of a key: one slice, whatever its length, of the mapped file or of a page in
    /// memory; nothing is copied.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<&'s [u8]>> {
        tree::get(self.pages, &self.state, key.as_ref())
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        tree::contains_key(self.pages, &self.state, key.as_ref())
    }

    /// Number of entries; known without counting.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.state.entries
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
    pub fn first(&self) -> Result<Option<(Key<'s>, &'s [u8])>> {
        tree::first(self.pages, &self.state)
    }

    /// The entry with the highest key.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn last(&self) -> Result<Option<(Key<'s>, &'s [u8])>> {
        tree::last(self.pages, &self.state)
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> Range<'s> {
        self.range::<&[u8]>(..)
    }

    /// The entries whose keys lie in `bounds`, from both ends.
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// # db.write(|tx| {
    /// #     let mut tree = tx.tree("t")?;
    /// #     for key in ["a", "b", "c", "d"] { tree.insert(key, "")?; }
    /// #     Ok(())
    /// # })?;
    /// let snapshot = db.read()?;
    /// let mut keys = Vec::new();
    /// for entry in snapshot.tree("t")?.range("b"..="c").rev() {
    ///     let (key, _value) = entry?;
    ///     keys.push(key.to_vec());
    /// }
    /// assert_eq!(keys, [b"c", b"b"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, bounds: impl RangeBounds<K>) -> Range<'s> {
        let (lower, upper) = borrowed_bounds(&bounds);
        Range::snapshot(tree::Range::new(self.pages, &self.state, lower, upper))
    }

    /// The entries whose keys begin with `prefix`, from both ends.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Range<'s> {
        Range::snapshot(tree::Range::prefix(self.pages, &self.state, prefix.as_ref()))
    }

    /// A cursor that can seek to and fro. It is nowhere until it is moved.
    #[must_use]
    pub fn cursor(&self) -> Cursor<'s> {
        Cursor::snapshot(tree::Cursor::new(self.pages, &self.state))
    }

    pub(crate) fn state(&self) -> &TreeState {
        &self.state
    }
}

impl<'s> IntoIterator for &Tree<'s> {
    type Item = <Range<'s> as Iterator>::Item;
    type IntoIter = Range<'s>;

    fn into_iter(self) -> Range<'s> {
        self.iter()
    }
}

/// The bounds of a range as bounds of byte strings.
pub(super) fn borrowed_bounds<'b, K: AsRef<[u8]> + 'b>(
    bounds: &'b impl RangeBounds<K>,
) -> (Bound<&'b [u8]>, Bound<&'b [u8]>) {
    fn borrow<K: AsRef<[u8]>>(bound: Bound<&K>) -> Bound<&[u8]> {
        bound.map(|key| key.as_ref())
    }
    (borrow(bounds.start_bound()), borrow(bounds.end_bound()))
}
