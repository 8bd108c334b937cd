//! How a copy is made.

use crate::{format::meta::Lineage, ids::Lsn};

/// Default of [`CopyOptions::side_file_max`].
const SIDE_FILE_MAX: u64 = 8 << 30;

/// An earlier copy that an incremental one continues: [`PageCopy::as_base`](super::PageCopy::as_base)
/// gives what is needed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Lineage of the database when that copy was made.
    pub lineage: Lineage,
    /// LSN of that copy.
    pub lsn: Lsn,
    /// Chain hash at that LSN.
    pub chain: u64,
}

/// How a copy is made; see [`Database::copy_pages`](crate::Database::copy_pages).
///
/// ```
/// let options = treepie::CopyOptions::new().side_file_max(1 << 30).skip_damage(true);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    pub(super) base: Option<Base>,
    pub(super) unproved_base: bool,
    pub(super) side_file_max: u64,
    pub(super) skip_damage: bool,
}

impl Default for CopyOptions {
    fn default() -> CopyOptions {
        CopyOptions::new()
    }
}

impl CopyOptions {
    /// A full copy, which ends at the first damaged page.
    #[must_use]
    pub fn new() -> CopyOptions {
        CopyOptions {
            base: None,
            unproved_base: false,
            side_file_max: SIDE_FILE_MAX,
            skip_damage: false,
        }
    }

    /// Only pages that have changed since an earlier copy. Default: none, a full copy.
    #[must_use]
    pub fn base(mut self, base: Base) -> CopyOptions {
        self.base = Some(base);
        self
    }

    /// Whether a base is believed whose chain hash nothing in the database knows any more. Somebody else
    /// has to know then that it is of this history: two copies of one folder that both went on have the
    /// same lineage, and an increment on the other one's state is worth nothing. Default: no.
    #[must_use]
    pub fn unproved_base(mut self, believed: bool) -> CopyOptions {
        self.unproved_base = believed;
        self
    }

    /// Bytes of the side file, which takes the old bytes of pages that are written over before the
    /// copy has read them. A copy that needs more ends with `Bound` "side_file_max"; the database
    /// never waits for it. Default: 8 GiB.
    #[must_use]
    pub fn side_file_max(mut self, bytes: u64) -> CopyOptions {
        self.side_file_max = bytes;
        self
    }

    /// Whether damaged pages are left out and listed, instead of being an error. Large values are
    /// then read twice, so that none of a damaged one is given out. Default: no.
    #[must_use]
    pub fn skip_damage(mut self, skip: bool) -> CopyOptions {
        self.skip_damage = skip;
        self
    }
}
