//! Dropping versions that never become visible: those of records that a leader has sealed, and that it
//! lost the right to have committed.
//!
//! Nobody reads them: readers are at the visible LSN or below it. They are in front of what is read, and
//! what is read may be made of them, where it was changed in place.

use std::ptr::{NonNull, null_mut};

use crate::{
    ids::{Lsn, PageId},
    sync::{
        Planted,
        atomic::Ordering::{Relaxed, Release},
        is_planted,
    },
};

use super::{
    directory::{Change, FOREVER},
    pool::Pool,
    version::{lsn_of, node_at},
};

impl Change<'_> {
    /// Takes all versions above `lsn` out of a page's chain. The caller is the writer, no transaction is
    /// open, and no reader is above `lsn`.
    pub fn drop_above(&mut self, page: PageId, lsn: Lsn, pool: &Pool) {
        let Some(slot) = self.directory.slot(page) else { return };
        let head = NonNull::new(slot.load(Relaxed));
        if head.is_none_or(|head| lsn_of(head) <= lsn) || is_planted(Planted::SpeculationKept) {
            return;
        }
        self.directory.uncover(page, lsn);
        let mut until = FOREVER;
        while let Some(node) = NonNull::new(slot.load(Relaxed)).filter(|node| lsn_of(*node) > lsn) {
            let from = lsn_of(node);
            slot.store(node_at(node).next.load(Relaxed), Release);
            self.unlink(node, from, until);
            until = from;
        }
        let Some(base) = NonNull::new(slot.load(Relaxed)) else {
            self.chain_ends(page);
            return;
        };
        // It is in front again, and is made of nothing: what it has saved is of no use.
        let base = node_at(base);
        let saved = NonNull::new(base.saved.swap(null_mut(), Relaxed));
        if base.owns_saved.swap(false, Relaxed)
            && let Some(saved) = saved
        {
            self.chains.free_saved(saved, pool);
        }
    }

    /// Forgets what was superseded by versions above `lsn`.
    pub fn forget_superseded(&mut self, lsn: Lsn) {
        while self.chains.superseded.back().is_some_and(|(newer, _)| *newer > lsn) {
            self.chains.superseded.pop_back();
        }
    }
}
