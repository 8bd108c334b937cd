//! A version of a page: the node of a chain, and the frame that it owns.
//!
//! Every field is atomic: readers look at nodes while they are used again (`directory.rs` has the
//! argument why they may).

#![allow(unsafe_code, reason = "nodes are reached by pointer, and lend their frames")]

use std::{
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicBool, AtomicPtr as PlainPtr, AtomicU8, AtomicU32, AtomicU64 as PlainU64},
};

use crate::{
    ids::{Lsn, PageId},
    sync::atomic::{
        AtomicPtr, AtomicU64,
        Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
};

use super::{
    pool::{Frame, Origin, Pool},
    saved::Saved,
};

/// One version in a chain.
pub(super) struct Node {
    pub(super) lsn: AtomicU64,
    pub(super) next: AtomicPtr<Node>,
    /// Null for a page that was freed by this LSN (its `len` is 0 then), and while its bytes are
    /// hidden because those of the version in front of it were made of them.
    data: AtomicPtr<u8>,
    pub(super) len: PlainU64,
    pub(super) page: AtomicU32,
    origin: AtomicU8,
    /// The checkpoint is looking at it: it stays as it is.
    pub(super) pinned: AtomicBool,
    /// What makes its bytes of those of the version in front of it, if they are or were hidden. Only
    /// for those who hold the lock of the chains.
    pub(super) saved: PlainPtr<Saved>,
    /// Whether `saved` goes with it; before sealing it belongs to the transaction.
    pub(super) owns_saved: AtomicBool,
}

/// What a page is at an LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The bytes in the map.
    Map,
    /// This version: one page, or all pages of a run.
    Version(Lsn, &'a [u8]),
    /// Nothing: it is free.
    Free,
    /// A version whose bytes were changed in place: [`Directory::restore`](super::directory::Directory::restore)
    /// makes them anew.
    Hidden,
}

impl Node {
    /// A node that no chain has yet.
    pub(super) fn empty() -> Node {
        Node {
            lsn: AtomicU64::new(u64::MAX),
            next: AtomicPtr::new(null_mut()),
            data: AtomicPtr::new(null_mut()),
            len: PlainU64::new(0),
            page: AtomicU32::new(0),
            origin: AtomicU8::new(0),
            pinned: AtomicBool::new(false),
            saved: PlainPtr::new(null_mut()),
            owns_saved: AtomicBool::new(false),
        }
    }

    /// Takes the bytes away from whoever finds the version from now on. Nothing for a page that is
    /// free or hidden already.
    pub(super) fn hide(&self) -> Option<Frame> {
        let data = NonNull::new(self.data.load(Relaxed))?;
        self.data.store(null_mut(), SeqCst);
        Some(self.frame_of(data))
    }

    /// Gives bytes to whoever finds the version from now on.
    pub(super) fn show(&self, frame: Frame) {
        self.origin.store(frame.origin as u8, Relaxed);
        self.data.store(frame.data.as_ptr(), Release);
    }

    /// Makes what it has saved its difference to what is in front of `newer`, which is hidden as well
    /// and goes. Both are sealed, and the caller has the lock of the chains.
    pub(super) fn absorb(&self, newer: &Node, pool: &Pool) {
        let [own, other] = [self, newer].map(|node| {
            assert!(node.owns_saved.load(Relaxed), "a transaction holds what was saved");
            NonNull::new(node.saved.load(Relaxed)).expect("a hidden version has saved")
        });
        let mut own = own;
        // SAFETY: a sealed version owns what it saved, and only holders of the lock look at it.
        let own = unsafe { own.as_mut() };
        let before = own.memory_len();
        // SAFETY: the same of the other one, which is not this one.
        own.absorb(unsafe { other.as_ref() });
        pool.add_saved(own.memory_len() - before);
    }

    /// Where its bytes are.
    pub(super) fn data(&self) -> Option<NonNull<u8>> {
        NonNull::new(self.data.load(Relaxed))
    }

    /// Whether its bytes were taken away.
    pub(super) fn is_hidden(&self) -> bool {
        self.data.load(Relaxed).is_null() && self.len.load(Relaxed) > 0
    }

    fn frame_of(&self, data: NonNull<u8>) -> Frame {
        let origin = match self.origin.load(Relaxed) {
            0 => Origin::Slab,
            1 => Origin::Scratch,
            2 => Origin::Run,
            _ => Origin::ScratchRun,
        };
        Frame { data, len: self.len.load(Relaxed) as usize, origin }
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory_len(&self) -> u64 {
        if self.data.load(Relaxed).is_null() { 0 } else { self.len.load(Relaxed) }
    }
}

/// Makes a node that nobody can reach yet a version. Its LSN goes first: a reader that still looks
/// at it from its life before must find one above its own.
pub(super) fn fill(node: &Node, page: PageId, lsn: Lsn, frame: Option<Frame>, next: *mut Node) {
    node.lsn.store(lsn.0, Release);
    node.page.store(page.0, Relaxed);
    node.next.store(next, Release);
    let (data, len, origin) = match frame {
        Some(frame) => (frame.data.as_ptr(), frame.len as u64, frame.origin),
        None => (null_mut(), 0, Origin::Slab),
    };
    node.data.store(data, Relaxed);
    node.len.store(len, Relaxed);
    node.origin.store(origin as u8, Relaxed);
    node.pinned.store(false, Relaxed);
}

/// Gives the frame of a version back to the pool, and returns what it had saved, if that was its own.
pub(super) fn recycle(node: NonNull<Node>, pool: &Pool) -> Option<NonNull<Saved>> {
    let node = node_at(node);
    if let Some(data) = NonNull::new(node.data.swap(null_mut(), Relaxed)) {
        pool.release(node.frame_of(data));
    }
    let saved = NonNull::new(node.saved.swap(null_mut(), Relaxed))?;
    node.owns_saved.swap(false, Relaxed).then_some(saved)
}

/// Gives a frame of its own allocation back, while the directory is dropped; all others go with the
/// pool.
pub(super) fn release_run(node: &Node, pool: &Pool) {
    let is_run = node.origin.load(Relaxed) == Origin::Run as u8;
    if is_run && !node.data.load(Relaxed).is_null() {
        let saved = recycle(NonNull::from(node), pool);
        assert!(saved.is_none(), "a run is never changed in place");
    }
}

/// LSN of a version.
pub(super) fn lsn_of(node: NonNull<Node>) -> Lsn {
    Lsn(node_at(node).lsn.load(Relaxed))
}

/// What a reader whose answer this version is sees.
#[inline(always)]
pub(super) fn answer<'a>(node: &Node) -> Found<'a> {
    let data = node.data.load(Acquire);
    let len = node.len.load(Relaxed) as usize;
    if data.is_null() {
        return if len == 0 { Found::Free } else { Found::Hidden };
    }
    // SAFETY: the node is the caller's answer, and the caller is registered: its frame stays until
    // the registration ends (`find`), and nobody writes to a frame once it is a version, unless no
    // such reader was there when it was hidden (`in_place`).
    let bytes = unsafe { std::slice::from_raw_parts(data, len) };
    Found::Version(Lsn(node.lsn.load(Relaxed)), bytes)
}

/// The node that a slot or link leads to.
#[inline(always)]
pub(super) fn node_ref<'a>(slot: &AtomicPtr<Node>) -> Option<&'a Node> {
    // SAFETY: slots and links hold null or a node, which lives as long as the directory; the
    // reference is used only inside calls on the directory.
    unsafe { slot.load(Acquire).as_ref() }
}

/// A node that a chain had.
pub(super) fn node_at<'a>(node: NonNull<Node>) -> &'a Node {
    // SAFETY: as in `node_ref`.
    unsafe { node.as_ref() }
}
