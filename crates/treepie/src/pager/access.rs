//! What a tree asks of its pages. Snapshots implement [`PageRead`], write transactions both.

pub use super::map::prefetch_lines;

use crate::{
    error::Result,
    format::{blocks::ChangedBlocks, page::PageKind},
    ids::{PageId, TreeId},
};

use super::saved::Saving;

/// Bytes at the front of a page that a look into a leaf of middling entries reads: header, prefix,
/// heads, cell offsets.
pub const FRONT_LEN: usize = 5 * 64;

/// Reads pages of one state of the database.
///
/// Every page that is handed out was verified since the database was opened: its checksum, its
/// number and the layout rules of its kind (`format::node::validate` for leaves and branches).
/// Still, whoever reads it must not panic, should its bytes break those rules later.
pub trait PageRead {
    /// Size of a page in bytes.
    fn page_size(&self) -> usize;

    /// The bytes of a leaf or branch page.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) when the page is damaged, is of another kind, or lies
    /// past the end of the file.
    fn page(&self, id: PageId) -> Result<&[u8]>;

    /// As `page`, for a leaf: where bytes come from memory that is far away, its front is fetched
    /// as a whole.
    ///
    /// # Errors
    /// As `page`.
    #[inline(always)]
    fn leaf(&self, id: PageId) -> Result<&[u8]> {
        self.page(id)
    }

    /// The bytes of the value in the run that begins at `id`: `value_len` of them.
    ///
    /// # Errors
    /// [`Corrupt`](crate::Error::Corrupt) as for `page`, or when the run holds another length.
    fn run(&self, id: PageId, value_len: u64) -> Result<&[u8]>;

    /// The error for a page whose content contradicts what leads to it.
    fn damaged(&self, id: PageId, what: &'static str) -> crate::Error;

    /// Hints that the page is about to be read.
    fn prefetch(&self, _id: PageId) {}
}

/// Changes pages of a transaction.
pub trait PageWrite: PageRead {
    /// The page, to be changed in this transaction. Its first call in a transaction copies it.
    ///
    /// # Errors
    /// Those of `page`, and [`Bound`](crate::Error::Bound) when the transaction has no memory left.
    fn page_mut(&mut self, id: PageId) -> Result<PageMut<'_>>;

    /// A new page, zeroed except for its header (number, kind, level, tree).
    ///
    /// # Errors
    /// [`Bound`](crate::Error::Bound) when memory or page numbers are used up.
    fn allocate(&mut self, kind: PageKind, level: u8, tree: TreeId) -> Result<PageId>;

    /// Gives a page back. Readers of older states still see it.
    ///
    /// # Errors
    /// Those of changing the free-space bitmap.
    ///
    /// # Panics
    /// If the page is free already.
    fn free(&mut self, id: PageId) -> Result<()>;

    /// Stores a large value in a new run of consecutive pages and returns the first one.
    ///
    /// # Errors
    /// As `allocate`.
    fn allocate_run(&mut self, tree: TreeId, value: &[u8]) -> Result<PageId>;

    /// Gives the run of a value of `value_len` bytes back. Errors and panics as `free`.
    ///
    /// # Errors
    /// As `free`.
    fn free_run(&mut self, id: PageId, value_len: u64) -> Result<()>;
}

/// A page that is being changed; what changes is noted as it changes.
#[derive(Debug)]
pub struct PageMut<'a> {
    bytes: &'a mut [u8],
    changed: &'a mut ChangedBlocks,
    saving: Option<Saving<'a>>,
}

impl<'a> PageMut<'a> {
    /// Couples the bytes of a page with the note of what changed in them.
    #[inline]
    pub fn new(bytes: &'a mut [u8], changed: &'a mut ChangedBlocks) -> PageMut<'a> {
        PageMut { bytes, changed, saving: None }
    }

    /// The same for a page that is changed in place: what changes is saved first.
    #[inline]
    pub fn in_place(
        bytes: &'a mut [u8],
        changed: &'a mut ChangedBlocks,
        saving: Saving<'a>,
    ) -> PageMut<'a> {
        PageMut { bytes, changed, saving: Some(saving) }
    }

    #[inline]
    fn note(&mut self, offset: usize, len: usize) {
        if let Some(saving) = &mut self.saving {
            saving.keep(self.bytes, self.changed, offset, len);
        }
        self.changed.note(offset, len);
    }

    /// The page as it is now.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// `len` bytes from `offset` on, to be changed: they are noted.
    ///
    /// # Panics
    /// If they do not lie inside the page.
    #[inline]
    pub fn range_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        self.note(offset, len);
        &mut self.bytes[offset..offset + len]
    }

    /// Overwrites bytes from `offset` on. Panics as `range_mut`.
    #[inline]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.range_mut(offset, bytes.len()).copy_from_slice(bytes);
    }

    /// Moves `len` bytes inside the page. Panics as `range_mut`.
    #[inline]
    pub fn shift(&mut self, from: usize, to: usize, len: usize) {
        self.note(to, len);
        self.bytes.copy_within(from..from + len, to);
    }
}
