//! Pages of the data file that did not verify when they were read, until they are written anew: what is to
//! be fetched from another node. For those that the next records change, this is also where what was
//! fetched waits for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
};

use crate::{
    ids::{Lsn, PageId},
    sync::LeafMutex,
};

/// Pages that are noted, at most: of a file that is damaged all over, one after the other is repaired.
const PAGES_MAX: usize = 1024;
/// Bytes of pages that wait for their records, at most.
const SUPPLIED_LEN_MAX: usize = 16 << 20;

/// A page that did not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// What was visible then: another node's page as of an earlier LSN may lack changes of it.
    pub noted_at: Lsn,
    /// Told apart by it from an earlier note of the page, which was written since.
    pub number: u64,
}

#[derive(Debug, Default)]
struct Inner {
    notes: BTreeMap<PageId, Note>,
    supplied: BTreeMap<PageId, (Lsn, Arc<[u8]>)>,
    supplied_len: usize,
    next: u64,
}

/// The pages that are known to be damaged.
#[derive(Debug, Default)]
pub struct DamagedPages {
    inner: LeafMutex<Inner>,
    /// How many there are, to be looked at without the lock.
    count: AtomicU64,
    /// Of these, how many nobody has supplied yet.
    open: AtomicU64,
    repaired: AtomicU64,
}

impl DamagedPages {
    /// A page did not verify.
    pub fn note(&self, id: PageId, visible: Lsn) {
        let mut inner = self.inner.lock();
        if inner.notes.len() < PAGES_MAX && !inner.notes.contains_key(&id) {
            inner.next += 1;
            let note = Note { noted_at: visible, number: inner.next };
            inner.notes.insert(id, note);
        }
        self.count(&inner);
    }

    /// These pages were written.
    #[inline]
    pub fn written(&self, first: PageId, page_count: u32) {
        if self.len() > 0 {
            let last = PageId(first.0.saturating_add(page_count.saturating_sub(1)));
            let inner = self.inner.lock();
            let gone: Vec<PageId> = inner.notes.range(first..=last).map(|(id, _)| *id).collect();
            drop(inner);
            gone.into_iter().for_each(|id| self.forget(id));
        }
    }

    /// There is nothing to repair any more.
    pub fn forget(&self, id: PageId) {
        let mut inner = self.inner.lock();
        inner.notes.remove(&id);
        if let Some((_, bytes)) = inner.supplied.remove(&id) {
            inner.supplied_len -= bytes.len();
        }
        self.count(&inner);
    }

    fn count(&self, inner: &Inner) {
        self.count.store(inner.notes.len() as u64, Relaxed);
        self.open.store((inner.notes.len() - inner.supplied.len()) as u64, Relaxed);
    }

    /// How many pages are noted.
    pub fn len(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// How many of these nobody has supplied yet.
    pub fn open_len(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// How many were repaired.
    pub fn repaired(&self) -> u64 {
        self.repaired.load(Relaxed)
    }

    /// One was.
    pub fn count_repaired(&self) {
        self.repaired.fetch_add(1, Relaxed);
    }

    /// What is known of a page.
    pub fn get(&self, id: PageId) -> Option<Note> {
        self.inner.lock().notes.get(&id).copied()
    }

    /// The pages that nobody has supplied yet.
    pub fn open(&self) -> Vec<(PageId, Note)> {
        let inner = self.inner.lock();
        let open = inner.notes.iter().filter(|(id, _)| !inner.supplied.contains_key(id));
        open.map(|(id, note)| (*id, *note)).collect()
    }

    /// Keeps the bytes of a page as of a record that is still to come; false where there is no room.
    pub fn supply(&self, id: PageId, lsn: Lsn, bytes: &[u8]) -> bool {
        let mut inner = self.inner.lock();
        let has_room = inner.supplied_len + bytes.len() <= SUPPLIED_LEN_MAX;
        if has_room && inner.notes.contains_key(&id) && !inner.supplied.contains_key(&id) {
            inner.supplied_len += bytes.len();
            inner.supplied.insert(id, (lsn, bytes.into()));
            self.count(&inner);
        }
        has_room
    }

    /// What was supplied of a page, and as of which record.
    pub fn supplied(&self, id: PageId) -> Option<(Lsn, Arc<[u8]>)> {
        self.inner.lock().supplied.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_noted_until_it_is_written_and_a_later_note_is_another_one() {
        let pages = DamagedPages::default();
        pages.note(PageId(7), Lsn(3));
        pages.note(PageId(7), Lsn(9));
        let first = pages.get(PageId(7)).expect("it was noted");
        assert_eq!((first.noted_at, pages.len(), pages.open_len()), (Lsn(3), 1, 1));
        assert!(pages.supply(PageId(7), Lsn(12), &[1; 64]));
        assert_eq!((pages.len(), pages.open_len()), (1, 0));
        pages.written(PageId(8), 4);
        assert_eq!(pages.len(), 1);
        pages.written(PageId(4), 4);
        assert_eq!((pages.len(), pages.supplied(PageId(7))), (0, None));
        pages.note(PageId(7), Lsn(9));
        assert_ne!(pages.get(PageId(7)).expect("again").number, first.number);
    }

    #[test]
    fn notes_and_what_is_supplied_are_bounded() {
        let pages = DamagedPages::default();
        (0..5000).for_each(|id| pages.note(PageId(id), Lsn(1)));
        assert_eq!(pages.len(), PAGES_MAX as u64);
        let len = 8192;
        let taken = (0..5000).filter(|id| {
            pages.supply(PageId(*id), Lsn(2), &vec![0; len]);
            pages.supplied(PageId(*id)).is_some()
        });
        assert!(taken.count() * len <= SUPPLIED_LEN_MAX);
        (0..5000).for_each(|id| pages.forget(PageId(id)));
        assert_eq!((pages.len(), pages.inner.lock().supplied_len), (0, 0));
    }
}
