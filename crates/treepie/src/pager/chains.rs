//! What the directory knows under its lock: memory for nodes, which chains there are, what was taken
//! out of them, and what may be.

#![allow(unsafe_code, reason = "owns what versions saved, by pointer")]

use std::{
    collections::{HashMap, VecDeque},
    ptr::NonNull,
};

use crate::{
    ids::{Lsn, PageId},
    sync::atomic::AtomicPtr,
};

use super::{pool::Pool, saved::Saved, version::Node};

/// Pages of one chunk.
pub(super) const CHUNK_LEN: usize = 4096;
const NODES_PER_SLAB: usize = 1024;
/// Memory of saved blocks that is kept for transactions to come, in bytes.
const SAVED_KEPT_LEN: usize = 64 << 20;

/// Where the chains of so many pages begin.
pub(super) struct Chunk {
    pub(super) slots: [AtomicPtr<Node>; CHUNK_LEN],
}

/// What is known only to those who change chains.
#[derive(Default)]
pub(super) struct Chains {
    pub(super) nodes_free: Vec<NonNull<Node>>,
    pub(super) node_slabs: Vec<Box<[Node]>>,
    /// Chunks that exist, and how many of their chains are not empty.
    pub(super) chunks: HashMap<usize, (NonNull<Chunk>, usize)>,
    /// Pages whose chain became not empty and that `take_dirty` did not return since, in the order
    /// in which they became so.
    pub(super) dirty: VecDeque<PageId>,
    pub(super) limbo: Vec<Unlinked>,
    /// What an old reader still needed when it was looked at last.
    pub(super) held: Vec<Unlinked>,
    /// Readers that had ended then, and what was taken out since: looking is paid for by it.
    pub(super) held_looked_at: u64,
    pub(super) unlinked_since: usize,
    pub(super) version_count: usize,
    /// Pages with a version in front of others, by the LSN from which on these may go: no reader to
    /// come needs them once it is visible.
    pub(super) superseded: VecDeque<(Lsn, Vec<PageId>)>,
    /// Memory for the walk through a chain.
    pub(super) walked: Vec<NonNull<Node>>,
    /// What transactions saved, to be used again.
    saved_free: Vec<NonNull<Saved>>,
    saved_free_len: usize,
}

/// A version that was taken out of its chain, and whose answer it may still be.
pub(super) struct Unlinked {
    pub(super) node: NonNull<Node>,
    pub(super) from: Lsn,
    pub(super) until: Lsn,
    pub(super) epoch: u64,
}

// SAFETY: nodes and chunks are owned by the directory, whichever thread drops it; their fields are
// atomic, and the vectors of pointers are used only under the mutex.
unsafe impl Send for Chains {}

impl Chains {
    pub(super) fn new_node(&mut self) -> NonNull<Node> {
        if let Some(node) = self.nodes_free.pop() {
            return node;
        }
        let slab: Box<[Node]> = (0..NODES_PER_SLAB).map(|_| Node::empty()).collect();
        self.nodes_free.extend(slab.iter().map(NonNull::from));
        self.node_slabs.push(slab);
        self.nodes_free.pop().expect("a slab was just added")
    }

    pub(super) fn new_saved(&mut self) -> NonNull<Saved> {
        let Some(saved) = self.saved_free.pop() else {
            return NonNull::from(Box::leak(Box::default()));
        };
        // SAFETY: nobody else looks at what is free.
        self.saved_free_len -= unsafe { saved.as_ref() }.capacity();
        saved
    }

    /// Takes back what a version or a transaction owned, and counts it no more.
    pub(super) fn free_saved(&mut self, saved: NonNull<Saved>, pool: &Pool) {
        // SAFETY: its owner gives it up: a version in no chain any more, or a transaction.
        pool.remove_saved(unsafe { saved.as_ref() }.memory_len());
        self.keep_saved(saved);
    }

    /// Gives up what is kept to be used again.
    pub(super) fn drop_kept(&mut self) {
        self.saved_free.drain(..).for_each(drop_saved);
        self.saved_free_len = 0;
    }

    /// Takes back what nobody looks at any more, to be used again.
    fn keep_saved(&mut self, mut saved: NonNull<Saved>) {
        // SAFETY: it was made by `new_saved`, and is given back by its only owner.
        let capacity = unsafe { saved.as_mut() }.clear();
        if self.saved_free_len + capacity <= SAVED_KEPT_LEN {
            self.saved_free_len += capacity;
            self.saved_free.push(saved);
        } else {
            drop_saved(saved);
        }
    }
}

pub(super) fn drop_saved(saved: NonNull<Saved>) {
    // SAFETY: made by `new_saved` with the layout of a box, and given up by its only owner.
    drop(unsafe { Box::from_raw(saved.as_ptr()) });
}
