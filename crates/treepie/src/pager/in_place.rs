//! Changing a version in place, instead of copying it, where nobody looks at it.
//!
//! Most pages that a transaction changes were changed before, and no reader has begun since. Such a
//! version is *taken over*: its bytes go to a new version in front of it, which has an LSN that no
//! reader reaches until it is sealed, and the old one is *hidden*. Before a block of the page is
//! changed for the first time, it is saved:
//!
//! ```text
//! before    slot ──> 12 [bytes] ──> 7 [bytes]
//! taken     slot ──> ∞  [bytes] ──> 12 (saved blocks) ──> 7 [bytes]
//! sealed    slot ──> 15 [bytes] ──> 12 (saved blocks) ──> 7 [bytes]
//! ```
//!
//! Who begins to read meanwhile, at LSN 12, 13 or 14, finds the hidden version and has it made anew
//! ([`Directory::restore`]): the bytes in front of it with the saved blocks over them. Nobody waits for
//! a transaction, only for the change of one page, which holds the *turn*.
//!
//! Why nobody sees a change: a version is taken over only when no reader at its LSN or above was ever
//! registered, other than the writer itself. The writer hides it and then looks at
//! [`Registry::latest`]; a reader raises that and then looks at versions. Both orders are
//! sequentially consistent: either the writer sees the reader, and copies the page after all, or the
//! reader sees that the version is hidden. The checkpoint, which is a reader and does not raise it,
//! pins what it looks at, under the lock of the chains, under which versions are taken over too.

#![allow(unsafe_code, reason = "bytes of versions, changed by the only one who can reach them")]

use std::ptr::{NonNull, null_mut};

use crate::{
    error::Result,
    ids::{Lsn, PageId},
    sync::{
        LeafMutexGuard, Planted,
        atomic::{
            Ordering::{Relaxed, Release, SeqCst},
            fence,
        },
        is_planted,
    },
};

use super::{
    directory::{Change, Directory, FOREVER, Found},
    pool::{Frame, Pool},
    readers::Registry,
    saved::Saved,
    taken::Taken,
    version::{Node, answer, fill, lsn_of, node_at, node_ref},
};

impl Directory {
    /// The turn to change pages in place.
    #[inline]
    pub fn turn(&self) -> LeafMutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Takes the newest version of a page over, if there is one of `len` bytes that nobody can be
    /// looking at, and memory for what changes may be had. The caller is the writer.
    pub fn take_over(
        &self,
        registry: &Registry,
        pool: &Pool,
        page: PageId,
        len: usize,
    ) -> Option<Taken> {
        let slot = self.slot(page)?;
        if lsn_of(NonNull::new(slot.load(Relaxed))?) <= registry.latest()
            || pool.memory_used() + len > pool.limits().memory_max
        {
            return None;
        }
        let mut chains = self.chains.lock();
        // The checkpoint may have ended the chain meanwhile.
        let before = NonNull::new(slot.load(Relaxed))?;
        let node = node_at(before);
        let lsn = lsn_of(before);
        if lsn <= registry.latest()
            || node.pinned.load(Relaxed)
            || node.len.load(Relaxed) != len as u64
        {
            return None;
        }
        let frame = node.hide()?;
        // Pairs with the fence of `Registry::add`.
        fence(SeqCst);
        if lsn <= registry.latest() && !is_planted(Planted::TakenUnseen) {
            node.show(frame);
            return None;
        }
        let saved = chains.new_saved();
        node.saved.store(saved.as_ptr(), Relaxed);
        node.owns_saved.store(false, Relaxed);
        let data = frame.data;
        let front = chains.new_node();
        fill(node_at(front), page, FOREVER, Some(frame), before.as_ptr());
        slot.store(front.as_ptr(), Release);
        chains.version_count += 1;
        pool.add_saved(Saved::default().memory_len());
        Some(Taken { page, front, before, data, len, saved })
    }

    /// What a page is at `lsn`, where `find` says that it is hidden. The caller is a registered reader,
    /// as in `find`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the system has no memory.
    #[cold]
    pub fn restore<'a>(&self, page: PageId, lsn: Lsn, pool: &Pool) -> Result<Found<'a>> {
        let mut spare = Some(pool.page_for_reader()?);
        let chains = self.chains.lock();
        let found = self.walk_back(page, lsn, |node, source, hidden| {
            let mut frame = spare.take().expect("one version is made");
            self.rebuild(frame.bytes_mut(), source, hidden);
            node.show(frame);
            answer(node)
        });
        drop(chains);
        spare.into_iter().for_each(|frame| pool.release(frame));
        Ok(found)
    }

    /// Looks up what a page is at `lsn`, under the lock of the chains. A hidden version is handed to
    /// `make` with the node in front of it that has bytes, and all hidden ones in between, itself
    /// included, newest first.
    fn walk_back<'a>(
        &self,
        page: PageId,
        lsn: Lsn,
        make: impl FnOnce(&'a Node, &'a Node, &[&'a Node]) -> Found<'a>,
    ) -> Found<'a> {
        let Some(slot) = self.slot(page) else { return Found::Map };
        let (mut link, mut source, mut hidden) = (slot, None, Vec::new());
        while let Some(node) = node_ref(link) {
            if node.is_hidden() {
                hidden.push(node);
            } else {
                source = Some(node);
                hidden.clear();
            }
            if node.lsn.load(Relaxed) > lsn.0 {
                link = &node.next;
                continue;
            }
            if !node.is_hidden() {
                return answer(node);
            }
            return make(node, source.expect("a hidden version has one in front of it"), &hidden);
        }
        Found::Map
    }

    /// Gives the version of a page at `lsn` its bytes back, if it is hidden: those in front of it, that they
    /// are made of, are about to be taken out, and lose theirs. Under the lock of the chains.
    pub(super) fn uncover(&self, page: PageId, lsn: Lsn) {
        self.walk_back(page, lsn, |node, source, hidden| {
            let mut bytes = vec![0; node.len.load(Relaxed) as usize];
            self.rebuild(&mut bytes, source, hidden);
            let mut frame = source.hide().expect("the version in front has its bytes");
            frame.bytes_mut().copy_from_slice(&bytes);
            node.show(frame);
            answer(node)
        });
    }

    fn rebuild(&self, bytes: &mut [u8], source: &Node, hidden: &[&Node]) {
        let newer = source.data().expect("the version in front of a hidden one has its bytes");
        assert_eq!(source.len.load(Relaxed), bytes.len() as u64, "versions have one length");
        let _turn = self.turn();
        // SAFETY: the version stays while the lock of the chains is held, with `len` bytes, which
        // change only in the turn, which is held here.
        let newer = unsafe { std::slice::from_raw_parts(newer.as_ptr(), bytes.len()) };
        bytes.copy_from_slice(newer);
        for node in hidden {
            let saved = NonNull::new(node.saved.load(Relaxed)).expect("a hidden version has saved");
            // SAFETY: what it saved lives as long as it is hidden in a chain, and changes only in the
            // turn, which is held here.
            unsafe { saved.as_ref() }.apply(bytes);
        }
    }
}

/// What the checkpoint is to write of a page.
#[derive(Debug)]
pub enum Pinned<'a> {
    /// A version, which stays as it is until its chain is cut.
    Version(Lsn, &'a [u8]),
    /// A copy of one that is hidden.
    Copy(Lsn, Vec<u8>),
    /// Nothing: it is free.
    Free,
    /// Nothing: the file has it.
    Map,
}

impl Change<'_> {
    /// What a page is at `lsn`, for the checkpoint, which is registered there: it is not changed in
    /// place until it has been written and cut.
    pub fn pin<'a>(&self, page: PageId, lsn: Lsn) -> Pinned<'a> {
        let mut copy = None;
        let found = self.directory.walk_back(page, lsn, |node, source, hidden| {
            let mut bytes = vec![0; node.len.load(Relaxed) as usize];
            self.directory.rebuild(&mut bytes, source, hidden);
            copy = Some((lsn_of(NonNull::from(node)), bytes));
            Found::Hidden
        });
        match found {
            Found::Map => Pinned::Map,
            Found::Free => Pinned::Free,
            Found::Version(lsn, bytes) => {
                self.directory.pin_node(page, lsn);
                Pinned::Version(lsn, bytes)
            }
            Found::Hidden => {
                let (lsn, bytes) = copy.expect("a hidden version was copied");
                Pinned::Copy(lsn, bytes)
            }
        }
    }

    /// Gives a page that was changed in place its LSN.
    ///
    /// # Panics
    /// If another version came in front of it.
    pub fn retake(&mut self, taken: Taken, lsn: Lsn, pool: &Pool) {
        let slot = self.directory.slot(taken.page).expect("its chain holds the page");
        assert_eq!(slot.load(Relaxed), taken.front.as_ptr(), "page {} was taken", taken.page);
        node_at(taken.front).lsn.store(lsn.0, Release);
        if taken.is_linked() {
            let before = node_at(taken.before);
            before.owns_saved.store(true, Relaxed);
        } else {
            self.chains.free_saved(taken.saved, pool);
        }
        self.supersede(taken.page, lsn);
    }

    /// Undoes all changes of a page that was taken over.
    ///
    /// # Panics
    /// If another version came in front of it.
    pub fn give_back(&mut self, taken: Taken, pool: &Pool) {
        let slot = self.directory.slot(taken.page).expect("its chain holds the page");
        assert_eq!(slot.load(Relaxed), taken.front.as_ptr(), "page {} was taken", taken.page);
        let front = node_at(taken.front);
        if taken.is_linked() {
            let before = node_at(taken.before);
            // Else a reader has had it made anew: the frame in front goes.
            if before.is_hidden() {
                let mut frame = front.hide().expect("a page that was taken over has its bytes");
                self.undo(&mut frame, &taken);
                before.show(frame);
            }
            before.saved.store(null_mut(), Relaxed);
        }
        self.chains.free_saved(taken.saved, pool);
        slot.store(front.next.load(Relaxed), Release);
        if slot.load(Relaxed).is_null() {
            self.chain_ends(taken.page);
        }
        self.unlink(taken.front, FOREVER, FOREVER);
    }

    fn undo(&self, frame: &mut Frame, taken: &Taken) {
        let _turn = self.directory.turn();
        taken.saved().apply(frame.bytes_mut());
    }
}
