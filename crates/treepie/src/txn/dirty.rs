//! The pages that a transaction has changed, by number, and the undo log of its savepoints.
//!
//! A page's frame and notes lie in a slot; an index of eight bytes an entry finds it, so that a
//! transaction of thousands of pages still searches in the first caches. Memory of both is kept
//! from transaction to transaction.
//!
//! A savepoint costs what is changed after it: the first time that a page is touched after the
//! savepoint, its state before goes into the undo log (nothing but its number, when it was not dirty
//! yet). The transaction's first closure needs no savepoint at all: to undo it is to undo
//! everything.

use rustc_hash::FxHashMap;

use crate::{
    error::Result,
    format::blocks::ChangedBlocks,
    ids::PageId,
    pager::{
        access::PageMut,
        directory::NewVersion,
        pool::{Frame, Pool},
        store::Pager,
        taken::Taken,
    },
    sync::{Planted, is_planted},
};

/// Slots whose memory is kept for the next transaction.
const SLOTS_KEPT_MAX: usize = 16 << 10;

/// A page that the transaction has changed or made.
#[derive(Debug)]
pub(super) struct DirtyPage {
    pub body: Body,
    pub changed: ChangedBlocks,
    /// It was allocated in this transaction: its bytes were zero before.
    pub is_new: bool,
    /// The savepoint after which its state was saved last; 0 is the transaction itself.
    saved_in: u32,
}

/// Where the bytes of a dirty page are.
#[derive(Debug)]
pub(super) enum Body {
    /// In a frame of the transaction's own.
    Own(Frame),
    /// Where those of the version before were.
    Taken(Taken),
}

impl Body {
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Body::Own(frame) => frame.bytes(),
            Body::Taken(taken) => taken.bytes(),
        }
    }

    /// Gives back what it has: a page that was changed in place becomes what it was.
    pub fn release(self, pager: &Pager) {
        match self {
            Body::Own(frame) => pager.pool.release(frame),
            Body::Taken(taken) => pager.give_back([taken]),
        }
    }

    /// What readers of the transaction's LSN will see.
    pub fn into_version(self) -> NewVersion {
        match self {
            Body::Own(frame) => NewVersion::Frame(frame),
            Body::Taken(taken) => NewVersion::Taken(taken),
        }
    }
}

impl DirtyPage {
    /// The page, to be changed.
    #[inline]
    pub fn edit<'a>(&'a mut self, pager: &'a Pager) -> PageMut<'a> {
        match &mut self.body {
            Body::Own(frame) => PageMut::new(frame.bytes_mut(), &mut self.changed),
            Body::Taken(taken) => {
                let (bytes, saving) = taken.change(pager.directory.turn(), &pager.pool);
                PageMut::in_place(bytes, &mut self.changed, saving)
            }
        }
    }

    fn copy(&self, pool: &Pool) -> Result<DirtyPage> {
        let DirtyPage { ref changed, is_new, saved_in, .. } = *self;
        let body = Body::Own(copy_of(self.body.bytes(), pool)?);
        Ok(DirtyPage { body, changed: changed.clone(), is_new, saved_in })
    }

    /// Takes a page that is changed in place out of its chain, which is as it was before then.
    fn detach(&mut self, pager: &Pager) -> Result<()> {
        if matches!(self.body, Body::Taken(_)) {
            let own = Body::Own(copy_of(self.body.bytes(), &pager.pool)?);
            std::mem::replace(&mut self.body, own).release(pager);
        }
        Ok(())
    }
}

/// One step of going back to a savepoint.
#[derive(Debug)]
enum Undo {
    /// The page was not dirty.
    Clean(PageId),
    /// The page was dirty, in this state.
    Page(PageId, DirtyPage),
    /// The run was not there.
    NoRun(PageId),
    /// The run was there.
    Run(PageId, Frame),
}

/// All dirty pages of one transaction.
#[derive(Debug, Default)]
pub(super) struct DirtyPages {
    index: FxHashMap<PageId, u32>,
    slots: Vec<Option<DirtyPage>>,
    vacant: Vec<u32>,
    runs: std::collections::BTreeMap<PageId, Frame>,
    undo: Vec<Undo>,
    /// The innermost savepoint that is open; 0 when none is.
    savepoint: u32,
    /// Savepoints of the transaction so far.
    savepoint_count: u32,
}

/// Where the undo log of a savepoint begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct UndoMark {
    len: usize,
    outer: u32,
}

impl DirtyPages {
    #[inline]
    pub fn get(&self, id: PageId) -> Option<&DirtyPage> {
        if self.index.is_empty() {
            return None;
        }
        let slot = *self.index.get(&id)?;
        self.slots[slot as usize].as_ref()
    }

    pub fn contains(&self, id: PageId) -> bool {
        self.index.contains_key(&id)
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty() && self.runs.is_empty()
    }

    /// Pages, runs not counted.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// The numbers of all pages, ascending.
    pub fn ids(&self) -> Vec<PageId> {
        let mut ids: Vec<PageId> = self.index.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// The page, to be changed: its state goes into the undo log where a savepoint asks for it.
    ///
    /// # Errors
    /// Those of [`Pool::page`].
    #[inline]
    pub fn get_mut(&mut self, id: PageId, pool: &Pool) -> Result<Option<&mut DirtyPage>> {
        let Some(&slot) = self.index.get(&id) else { return Ok(None) };
        let page = self.slots[slot as usize].as_mut().expect("the index leads to pages");
        if page.saved_in < self.savepoint {
            let before = page.copy(pool)?;
            page.saved_in = self.savepoint;
            self.undo.push(Undo::Page(id, before));
        }
        Ok(Some(page))
    }

    /// Adds a page that is not there.
    ///
    /// # Panics
    /// If it is.
    pub fn insert(&mut self, id: PageId, body: Body, is_new: bool) -> &mut DirtyPage {
        if self.savepoint > 0 {
            self.undo.push(Undo::Clean(id));
        }
        let saved_in = self.savepoint;
        self.put(id, DirtyPage { body, changed: ChangedBlocks::new(), is_new, saved_in })
    }

    fn put(&mut self, id: PageId, page: DirtyPage) -> &mut DirtyPage {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("page numbers have 32 bits")
        });
        let before = self.index.insert(id, slot);
        assert!(before.is_none(), "page {id} is dirty already");
        self.slots[slot as usize].insert(page)
    }

    /// Takes a page out, for good: its record is being made.
    pub fn take(&mut self, id: PageId) -> Option<DirtyPage> {
        let slot = self.index.remove(&id)?;
        self.vacant.push(slot);
        self.slots[slot as usize].take()
    }

    /// Drops a page that became free.
    ///
    /// # Errors
    /// Those of [`Pool::page`].
    pub fn remove(&mut self, id: PageId, pager: &Pager) -> Result<()> {
        let Some(mut page) = self.take(id) else { return Ok(()) };
        if self.savepoint == 0 {
            page.body.release(pager);
            return Ok(());
        }
        let detached = page.detach(pager);
        if detached.is_ok() {
            self.undo.push(Undo::Page(id, page));
        } else {
            self.put(id, page);
        }
        detached
    }

    pub fn run(&self, id: PageId) -> Option<&Frame> {
        self.runs.get(&id)
    }

    pub fn has_run(&self, id: PageId) -> bool {
        self.runs.contains_key(&id)
    }

    /// All runs.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = &Frame> {
        self.runs.values()
    }

    /// Takes all runs out, ascending: their record is being made.
    pub fn take_runs(&mut self) -> impl Iterator<Item = (PageId, Frame)> + use<> {
        std::mem::take(&mut self.runs).into_iter()
    }

    pub fn insert_run(&mut self, id: PageId, frame: Frame) {
        if self.savepoint > 0 {
            self.undo.push(Undo::NoRun(id));
        }
        let before = self.runs.insert(id, frame);
        assert!(before.is_none(), "a run begins at page {id} already");
    }

    /// Drops a run that became free.
    pub fn remove_run(&mut self, id: PageId, pool: &Pool) {
        let Some(frame) = self.runs.remove(&id) else { return };
        if self.savepoint > 0 {
            self.undo.push(Undo::Run(id, frame));
        } else {
            pool.release(frame);
        }
    }

    /// Opens a savepoint inside those that are open.
    pub fn begin_savepoint(&mut self) -> UndoMark {
        let mark = UndoMark { len: self.undo.len(), outer: self.savepoint };
        self.savepoint_count += 1;
        self.savepoint = self.savepoint_count;
        mark
    }

    /// Closes the innermost savepoint and keeps what came after it.
    pub fn keep_savepoint(&mut self, mark: UndoMark, pager: &Pager) {
        self.savepoint = mark.outer;
        if mark.outer > 0 {
            return;
        }
        assert_eq!(mark.len, 0, "the outermost savepoint begins the undo log");
        for undo in self.undo.drain(..) {
            undo.release(pager);
        }
    }

    /// Closes the innermost savepoint and undoes what came after it.
    pub fn undo_savepoint(&mut self, mark: UndoMark, pager: &Pager) {
        if self.undo.len() > mark.len && is_planted(Planted::UndoLost) {
            self.lose_undo(Some(mark.len), pager);
        }
        while self.undo.len() > mark.len {
            match self.undo.pop().expect("the log is longer than the mark") {
                Undo::Clean(id) => self.drop_page(id, pager),
                Undo::Page(id, before) => {
                    self.drop_page(id, pager);
                    self.put(id, before);
                }
                Undo::NoRun(id) => {
                    self.runs.remove(&id).into_iter().for_each(|run| pager.pool.release(run));
                }
                Undo::Run(id, frame) => {
                    let before = self.runs.insert(id, frame);
                    assert!(before.is_none(), "a run begins at page {id} already");
                }
            }
        }
        self.savepoint = mark.outer;
    }

    /// Loses one step of the undo log, as a planted bug; returns how many there were.
    pub fn lose_undo(&mut self, step: Option<usize>, pager: &Pager) -> usize {
        let steps = self.undo.len();
        step.map(|step| self.undo.remove(step)).into_iter().for_each(|lost| lost.release(pager));
        steps
    }

    fn drop_page(&mut self, id: PageId, pager: &Pager) {
        if let Some(page) = self.take(id) {
            page.body.release(pager);
        }
    }

    /// Drops everything, and keeps memory for the next transaction.
    pub fn clear(&mut self, pager: &Pager) {
        self.undo_savepoint(UndoMark { len: 0, outer: 0 }, pager);
        let mut taken = Vec::new();
        for page in self.slots.drain(..).flatten() {
            match page.body {
                Body::Own(frame) => pager.pool.release(frame),
                Body::Taken(page) => taken.push(page),
            }
        }
        if !taken.is_empty() {
            pager.give_back(taken);
        }
        for (_, frame) in std::mem::take(&mut self.runs) {
            pager.pool.release(frame);
        }
        self.index.clear();
        self.vacant.clear();
        self.savepoint_count = 0;
        self.slots.shrink_to(SLOTS_KEPT_MAX);
        self.index.shrink_to(SLOTS_KEPT_MAX);
        self.vacant.shrink_to(SLOTS_KEPT_MAX);
    }
}

impl Undo {
    fn release(self, pager: &Pager) {
        match self {
            Undo::Page(_, page) => page.body.release(pager),
            Undo::Run(_, frame) => pager.pool.release(frame),
            Undo::Clean(_) | Undo::NoRun(_) => {}
        }
    }
}

fn copy_of(bytes: &[u8], pool: &Pool) -> Result<Frame> {
    let mut frame = pool.page()?;
    frame.bytes_mut().copy_from_slice(bytes);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        disk::{Disk, OpenMode, RealDisk},
        ids::Lsn,
        pager::{pool::PoolLimits, store::PagerConfig},
    };

    const PAGE_SIZE: usize = 4096;

    fn pager() -> (tempfile::TempDir, Pager) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("data");
        let config = PagerConfig {
            file: RealDisk.open(&path, OpenMode::CreateNew).expect("a file"),
            path,
            scratch_dir: dir.path().to_owned(),
            page_size: PAGE_SIZE,
            map_size: 1 << 20,
            pool: PoolLimits { memory_max: 64 << 20, scratch_max: 0 },
            readers_max: 4,
            visible: Lsn(1),
        };
        (dir, Pager::open(config, Arc::new(RealDisk)).expect("a pager"))
    }

    fn put(dirty: &mut DirtyPages, pager: &Pager, id: u32, byte: u8) {
        let id = PageId(id);
        if dirty.get_mut(id, &pager.pool).expect("memory").is_none() {
            let taken = pager
                .directory
                .take_over(&pager.registry, &pager.pool, id, PAGE_SIZE)
                .map(Body::Taken);
            let body = taken.unwrap_or_else(|| Body::Own(pager.pool.page().expect("memory")));
            dirty.insert(id, body, false);
        }
        let page = dirty.get_mut(id, &pager.pool).expect("memory").expect("it was just put there");
        page.edit(pager).range_mut(0, PAGE_SIZE).fill(byte);
    }

    fn bytes(dirty: &DirtyPages) -> Vec<(u32, u8)> {
        let byte = |id| dirty.get(id).expect("a page").body.bytes()[PAGE_SIZE - 1];
        dirty.ids().into_iter().map(|id| (id.0, byte(id))).collect()
    }

    #[test]
    fn an_undone_savepoint_leaves_what_was_before_it() {
        let ((_dir, pager), mut dirty) = (pager(), DirtyPages::default());
        put(&mut dirty, &pager, 1, 10);
        put(&mut dirty, &pager, 2, 20);
        let mark = dirty.begin_savepoint();
        put(&mut dirty, &pager, 1, 11);
        put(&mut dirty, &pager, 3, 31);
        dirty.remove(PageId(2), &pager).expect("memory");
        put(&mut dirty, &pager, 2, 22);
        dirty.insert_run(PageId(9), pager.pool.run(PAGE_SIZE).expect("memory"));
        dirty.undo_savepoint(mark, &pager);
        assert_eq!(bytes(&dirty), [(1, 10), (2, 20)]);
        assert!(!dirty.has_run(PageId(9)));
        dirty.clear(&pager);
        assert_eq!(pager.pool.memory_used(), 0);
    }

    #[test]
    fn nested_savepoints_are_undone_with_the_outer_one_or_alone() {
        let ((_dir, pager), mut dirty) = (pager(), DirtyPages::default());
        put(&mut dirty, &pager, 1, 10);
        dirty.insert_run(PageId(9), pager.pool.run(PAGE_SIZE).expect("memory"));
        let outer = dirty.begin_savepoint();
        let first = dirty.begin_savepoint();
        put(&mut dirty, &pager, 1, 11);
        dirty.remove_run(PageId(9), &pager.pool);
        dirty.keep_savepoint(first, &pager);
        put(&mut dirty, &pager, 1, 12);
        let second = dirty.begin_savepoint();
        put(&mut dirty, &pager, 1, 13);
        dirty.undo_savepoint(second, &pager);
        assert_eq!(bytes(&dirty), [(1, 12)]);
        dirty.undo_savepoint(outer, &pager);
        assert_eq!(bytes(&dirty), [(1, 10)]);
        assert!(dirty.has_run(PageId(9)));
        dirty.clear(&pager);
        assert_eq!(pager.pool.memory_used(), 0);
    }

    #[test]
    fn a_savepoint_that_is_kept_gives_its_copies_back() {
        let ((_dir, pager), mut dirty) = (pager(), DirtyPages::default());
        put(&mut dirty, &pager, 1, 10);
        let mark = dirty.begin_savepoint();
        put(&mut dirty, &pager, 1, 11);
        assert_eq!(pager.pool.memory_used(), 2 * PAGE_SIZE);
        dirty.keep_savepoint(mark, &pager);
        assert_eq!(pager.pool.memory_used(), PAGE_SIZE);
        assert_eq!(bytes(&dirty), [(1, 11)]);
        dirty.clear(&pager);
    }

    #[test]
    fn a_page_changed_in_place_goes_back_to_what_a_savepoint_and_a_version_were() {
        let ((_dir, pager), mut dirty) = (pager(), DirtyPages::default());
        put(&mut dirty, &pager, 1, 10);
        put(&mut dirty, &pager, 2, 20);
        let mut change = pager.directory.change(&pager.registry);
        for id in [PageId(1), PageId(2)] {
            let page = dirty.take(id).expect("it is dirty");
            change.put(id, Lsn(1), page.body.into_version(), &pager.pool);
        }
        change.finish(&pager.pool, false);
        let version = |id| match pager.page(PageId(id), Lsn(1)) {
            Ok(bytes) => bytes[PAGE_SIZE - 1],
            Err(error) => panic!("{error}"),
        };
        put(&mut dirty, &pager, 1, 11);
        assert!(matches!(dirty.get(PageId(1)).expect("dirty").body, Body::Taken(_)));
        let mark = dirty.begin_savepoint();
        put(&mut dirty, &pager, 1, 12);
        put(&mut dirty, &pager, 2, 22);
        dirty.remove(PageId(2), &pager).expect("memory");
        dirty.undo_savepoint(mark, &pager);
        assert_eq!(bytes(&dirty), [(1, 11)]);
        assert_eq!((version(1), version(2)), (10, 20));
        put(&mut dirty, &pager, 2, 23);
        dirty.clear(&pager);
        assert_eq!((version(1), version(2)), (10, 20));
        assert_eq!(pager.pool.memory_used(), 2 * PAGE_SIZE);
    }
}
