//! Range, as users see it: over the pages of a snapshot, or of a write transaction.

use std::{fmt, iter::FusedIterator};

use crate::{
    error::Result,
    tree::{self, Key},
};

use super::{pages::TxnPages, snapshot::SnapshotPages};

/// Iterator over the entries between two bounds, in the order of their keys, from both ends. It ends
/// after its first error.
///
/// It comes from the `range`, `prefix` and `iter` of a [`Tree`](crate::Tree) or a
/// [`TreeMut`](crate::TreeMut), and reads no page before it is asked for an entry.
#[must_use = "nothing is read before the iterator is used"]
pub struct Range<'a>(Source<'a>);

enum Source<'a> {
    Snapshot(tree::Range<'a, SnapshotPages>),
    Txn(tree::Range<'a, TxnPages>),
}

impl<'a> Range<'a> {
    #[inline]
    pub(super) fn snapshot(range: tree::Range<'a, SnapshotPages>) -> Range<'a> {
        Range(Source::Snapshot(range))
    }

    #[inline]
    pub(super) fn txn(range: tree::Range<'a, TxnPages>) -> Range<'a> {
        Range(Source::Txn(range))
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = Result<(Key<'a>, &'a [u8])>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Snapshot(range) => range.next(),
            Source::Txn(range) => range.next(),
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Snapshot(range) => range.next_back(),
            Source::Txn(range) => range.next_back(),
        }
    }
}

impl FusedIterator for Range<'_> {}

impl fmt::Debug for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Range").finish_non_exhaustive()
    }
}
