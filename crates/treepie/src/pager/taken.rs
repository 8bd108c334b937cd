//! What a transaction made of a page: new bytes, those of the version before changed in place, or
//! nothing.

#![allow(unsafe_code, reason = "lends the bytes of a version that its owner alone can reach")]

use std::{fmt, ptr::NonNull};

use crate::{
    ids::PageId,
    sync::{LeafMutexGuard, atomic::Ordering::Relaxed},
};

use super::{
    pool::{Frame, Pool},
    saved::{Saved, Saving},
    version::{Node, node_at},
};

/// What a transaction made of a page.
#[derive(Debug)]
pub enum NewVersion {
    /// These bytes.
    Frame(Frame),
    /// The bytes of the version before, changed in place.
    Taken(Taken),
    /// It is free now.
    Free,
}

/// A version that was taken over, and is changed in place. It must be given on with
/// [`Change::retake`](super::directory::Change::retake) or back with [`Change::give_back`](super::directory::Change::give_back).
pub struct Taken {
    pub(super) page: PageId,
    /// The version to come.
    pub(super) front: NonNull<Node>,
    /// The one that is hidden.
    pub(super) before: NonNull<Node>,
    pub(super) data: NonNull<u8>,
    pub(super) len: usize,
    pub(super) saved: NonNull<Saved>,
}

// SAFETY: what it points to is reached by its owner, and by others only under the lock of the chains
// and in the turn.
unsafe impl Send for Taken {}
// SAFETY: `&Taken` gives out only `&[u8]`, of bytes that change through `&mut Taken` alone.
unsafe impl Sync for Taken {}

impl Taken {
    /// The bytes, as they have become.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the frame belongs to the version in front until this is given on or back, and
        // changes only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }

    /// What it held before.
    pub fn saved(&self) -> &Saved {
        // SAFETY: `saved` lives until this is given on or back, and changes only through `&mut self`.
        unsafe { self.saved.as_ref() }
    }

    /// The bytes to be changed, and what has to be told of it, in the caller's turn.
    #[inline]
    pub fn change<'a>(
        &'a mut self,
        turn: LeafMutexGuard<'a, ()>,
        pool: &'a Pool,
    ) -> (&'a mut [u8], Saving<'a>) {
        // SAFETY: as in `bytes`; whoever makes an older version anew waits for the turn.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) };
        // SAFETY: as in `saved`, and for the same reason exclusive.
        let saved = unsafe { self.saved.as_mut() };
        (bytes, Saving { saved, used: pool.used(), _turn: turn })
    }
}

impl Taken {
    /// Whether the hidden version is still in its chain: the checkpoint may have written it.
    pub(super) fn is_linked(&self) -> bool {
        node_at(self.front).next.load(Relaxed) == self.before.as_ptr()
            && node_at(self.before).saved.load(Relaxed) == self.saved.as_ptr()
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").field("page", &self.page).finish_non_exhaustive()
    }
}
