//! The page directory: for each page, the chain of its versions that are not (only) in the file.
//!
//! ```text
//! table[page / 4096] ──> chunk[page % 4096] ──> version 19 ──> version 12 ──> (the map)
//!        null: nothing dirty in these 4,096 pages        null: use the map
//! ```
//!
//! A reader at LSN `s` takes the first version with an LSN of at most `s`; where there is none, the
//! bytes in the map are its page. The look-up takes no lock and writes nothing. Chains are changed
//! under one mutex, by the writer (who puts new versions in front and takes out what nobody needs)
//! and by the checkpoint (who takes out what it has written to the file).
//!
//! Why a reader may follow the pointers:
//!
//! 1. Chunks and nodes are never given back to the allocator while the directory lives; nodes are
//!    used again, for other versions. Every field is atomic.
//! 2. A node is used again only with a higher LSN than any reader of that time has. So a reader that
//!    looks at a node that it was not meant to see finds an LSN above its own and goes on, as it
//!    would have before.
//! 3. It may go on into another chain that way. Therefore the look-up of more than one step reads
//!    `unlinks` before and after, and starts again when versions were taken out meanwhile.
//! 4. A version whose bytes are changed in place is hidden first, from all who begin to read then
//!    (`in_place`).
//! 5. The version that is a reader's answer stays, with its frame, until the reader ends
//!    ([`Readers::need`](super::readers::Readers::need)).

#![allow(unsafe_code, reason = "lock-free chains of versions that readers follow by pointer")]

use std::{
    fmt,
    ptr::{NonNull, null_mut},
};

use crate::{
    ids::{Lsn, PageId},
    sync::{
        LeafMutex, Mutex, MutexGuard, Planted,
        atomic::{
            AtomicPtr, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            fence,
        },
        is_planted,
    },
};

use super::{
    chains::{CHUNK_LEN, Chains, Chunk, Unlinked, drop_saved},
    pool::Pool,
    readers::{ReaderEntry, ReaderSlot, Readers, Registry},
    version::{Node, answer, fill, lsn_of, node_at, node_ref, recycle, release_run},
    zeroed::ZeroedSlice,
};

pub use super::{taken::NewVersion, version::Found};

const TABLE_LEN: usize = (1 << 32) / CHUNK_LEN;
/// Until a version is superseded, any LSN above its own may have it as the answer.
pub(super) const FOREVER: Lsn = Lsn(u64::MAX);

/// All versions of all pages.
pub struct Directory {
    table: ZeroedSlice<AtomicPtr<Chunk>>,
    unlinks: AtomicU64,
    pub(super) chains: Mutex<Chains>,
    /// Who changes a page in place, or makes an older version of one anew.
    pub(super) turn: LeafMutex<()>,
}

impl Directory {
    /// A directory in which every page is as the map shows it.
    pub fn new() -> Directory {
        Directory {
            table: ZeroedSlice::new(TABLE_LEN).expect("8 MiB of address space are left"),
            unlinks: AtomicU64::new(0),
            chains: Mutex::default(),
            turn: LeafMutex::new(()),
        }
    }

    /// Where the chain of a page begins, if its chunk has any.
    pub(super) fn slot(&self, page: PageId) -> Option<&AtomicPtr<Node>> {
        let chunk: &Chunk = chunk_ref(&self.table[page.0 as usize / CHUNK_LEN])?;
        Some(&chunk.slots[page.0 as usize % CHUNK_LEN])
    }

    /// Keeps the version of a page at `lsn` from being changed in place. Under the lock of the chains.
    pub(super) fn pin_node(&self, page: PageId, lsn: Lsn) {
        let mut link = self.slot(page);
        while let Some(node) = link.and_then(node_ref) {
            if node.lsn.load(Relaxed) == lsn.0 {
                node.pinned.store(true, Relaxed);
            }
            link = Some(&node.next);
        }
    }

    /// Looks up what `page` is at `lsn`.
    ///
    /// The caller is registered as a reader of `lsn`, and stays so for as long as it uses the
    /// bytes: `'a` must not outlive the registration.
    #[inline(always)]
    pub fn find<'a>(&self, page: PageId, lsn: Lsn) -> Found<'a> {
        let index = page.0 as usize;
        let Some(chunk) = chunk_ref(&self.table[index / CHUNK_LEN]) else { return Found::Map };
        let slot = &chunk.slots[index % CHUNK_LEN];
        let Some(head) = node_ref(slot) else { return Found::Map };
        if head.lsn.load(Acquire) <= lsn.0 {
            return answer(head);
        }
        self.find_older(slot, page, lsn)
    }

    #[cold]
    fn find_older<'a>(&self, slot: &AtomicPtr<Node>, page: PageId, lsn: Lsn) -> Found<'a> {
        loop {
            let unlinks = self.unlinks.load(Acquire);
            let mut next = slot;
            let mut found = None;
            for steps in 1_usize.. {
                let Some(node) = node_ref(next) else { break };
                if node.lsn.load(Acquire) <= lsn.0 {
                    found = Some(node);
                    break;
                }
                if steps % 64 == 0 && self.unlinks.load(Acquire) != unlinks {
                    break;
                }
                next = &node.next;
            }
            fence(Acquire);
            if self.unlinks.load(Relaxed) == unlinks || is_planted(Planted::WalkNotRepeated) {
                let Some(node) = found else { return Found::Map };
                assert_eq!(node.page.load(Relaxed), page.0, "a chain holds another page's version");
                return answer(node);
            }
        }
    }

    /// Gives back the memory that no slab of the pool holds: nobody looks anything up any more.
    pub fn release_runs(&mut self, pool: &Pool) {
        let nodes = self.chains.get_mut().node_slabs.iter().flatten();
        nodes.for_each(|node| release_run(node, pool));
    }

    /// Takes the lock that whoever changes chains holds; not held across I/O. The readers are
    /// looked at under it: whoever registers under it too is seen by every later change.
    pub fn change<'a>(&'a self, registry: &'a Registry) -> Change<'a> {
        let chains = self.chains.lock();
        Change { directory: self, chains, registry, readers: registry.readers() }
    }
}

/// The right to change chains.
pub struct Change<'a> {
    pub(super) directory: &'a Directory,
    pub(super) chains: MutexGuard<'a, Chains>,
    registry: &'a Registry,
    pub(super) readers: Readers,
}

impl Change<'_> {
    /// Registers a reader of the oldest LSN that is read now, and returns it: every version that is
    /// an answer there is still in its chain, and stays until the reader is removed. Nothing while a
    /// reader is being registered that may be older, or may not stay where it is.
    ///
    /// # Errors
    /// [`Error::Bound`](crate::Error::Bound) when all slots are taken.
    pub fn add_oldest_reader(
        &self,
        now_us: u64,
        location: &'static std::panic::Location<'static>,
    ) -> crate::Result<Option<ReaderSlot>> {
        let oldest = if is_planted(Planted::PastOldestReader) {
            Some(self.registry.visible())
        } else {
            self.registry.oldest_settled()
        };
        oldest.map(|lsn| self.registry.add_at(lsn, now_us, location)).transpose()
    }

    /// As [`push`](Change::push), or [`retake`](Change::retake) for what was changed in place.
    ///
    /// # Panics
    /// As they do.
    pub fn put(&mut self, page: PageId, lsn: Lsn, version: NewVersion, pool: &Pool) {
        match version {
            NewVersion::Taken(taken) => self.retake(taken, lsn, pool),
            version => self.push(page, lsn, version),
        }
    }

    /// Puts a new version in front of a page's chain. A page without a chain that is freed needs
    /// none: readers of older states see it in the map.
    ///
    /// # Panics
    /// If the chain has a version of this LSN or a later one.
    pub fn push(&mut self, page: PageId, lsn: Lsn, version: NewVersion) {
        let chunk = self.chunk(page);
        let slot = &chunk.slots[page.0 as usize % CHUNK_LEN];
        let head = slot.load(Relaxed);
        let frame = match version {
            NewVersion::Frame(frame) => Some(frame),
            NewVersion::Taken(taken) => panic!("{taken:?} is in its chain already"),
            NewVersion::Free if head.is_null() => return,
            NewVersion::Free => None,
        };
        if let Some(before) = node_ref(slot) {
            let before = before.lsn.load(Relaxed);
            assert!(before < lsn.0, "page {page}: version {lsn} after version {before}");
        } else {
            self.chain_begins(page);
        }
        let node = self.chains.new_node();
        fill(node_at(node), page, lsn, frame, head);
        slot.store(node.as_ptr(), Release);
        self.chains.version_count += 1;
        if !head.is_null() {
            self.supersede(page, lsn);
        }
    }

    /// Takes all versions of at most `lsn` out of a page's chain: the file has what is left to see.
    /// Returns whether newer versions remain.
    pub fn cut(&mut self, page: PageId, lsn: Lsn) -> bool {
        let chunk = self.chunk(page);
        let slot = &chunk.slots[page.0 as usize % CHUNK_LEN];
        let was_empty = slot.load(Relaxed).is_null();
        let mut link = slot;
        let mut until = FOREVER;
        while let Some(node) = node_ref(link) {
            let node_lsn = Lsn(node.lsn.load(Relaxed));
            if node_lsn <= lsn {
                break;
            }
            until = node_lsn;
            link = &node.next;
        }
        let mut rest = link.swap(null_mut(), Release);
        while let Some(node) = NonNull::new(rest) {
            let from = lsn_of(node);
            rest = node_at(node).next.load(Relaxed);
            self.unlink(node, from, until);
            until = from;
        }
        let empty = slot.load(Relaxed).is_null();
        if empty && !was_empty {
            self.chain_ends(page);
        }
        !empty
    }

    /// Whether a page has versions that are not only in the file.
    pub fn is_chain(&mut self, page: PageId) -> bool {
        !self.chunk(page).slots[page.0 as usize % CHUNK_LEN].load(Relaxed).is_null()
    }

    pub(super) fn unlink(&mut self, node: NonNull<Node>, from: Lsn, until: Lsn) {
        self.chains.version_count -= 1;
        // The epoch is filled in when the change ends.
        self.chains.limbo.push(Unlinked { node, from, until, epoch: 0 });
    }

    /// At most `count_max` pages whose chains are not empty and that no earlier call returned, those
    /// first that have been so for the longest time.
    pub fn take_dirty(&mut self, count_max: usize) -> Vec<PageId> {
        let count = count_max.min(self.chains.dirty.len());
        self.chains.dirty.drain(..count).collect()
    }

    /// Gives pages back that the checkpoint could not finish, or that were changed again.
    pub fn keep_dirty(&mut self, pages: impl IntoIterator<Item = PageId>) {
        self.chains.dirty.extend(pages);
    }

    /// How many versions are in chains.
    pub fn version_count(&self) -> usize {
        self.chains.version_count
    }

    /// Bytes of the versions that an old reader keeps in memory although their chains ended.
    pub fn held_bytes(&self) -> u64 {
        self.chains.held.iter().map(|item| node_at(item.node).memory_len()).sum()
    }

    /// For each of `readers` (ascending by LSN), the bytes of the versions that go when it ends:
    /// those in limbo that it needs, and those whose successor no other reader is below.
    pub fn pinned_bytes(&self, readers: &[ReaderEntry]) -> Vec<u64> {
        let mut pinned = vec![0; readers.len()];
        for item in &self.chains.held {
            let start = readers.partition_point(|reader| reader.lsn < item.from);
            if let Some(reader) = readers.get(start).filter(|reader| reader.lsn < item.until) {
                let len = node_at(item.node).memory_len();
                let end = readers.partition_point(|other| other.lsn <= reader.lsn);
                pinned[start..end].iter_mut().for_each(|bytes| *bytes += len);
            }
        }
        pinned
    }

    /// Ends the change: what was superseded by what is visible now is taken out; what was taken out,
    /// and is no reader's answer, goes back to the pool. What old readers hold is looked at again when any of them has ended, at once if `thorough`.
    pub fn finish(mut self, pool: &Pool, thorough: bool) {
        self.prune_superseded(pool);
        let registry = self.registry;
        let chains = &mut *self.chains;
        if !chains.limbo.is_empty() {
            // Order matters: the count rises before any node is used again (`find_older`), the
            // epoch closes before the readers are looked at (`Registry::add`).
            self.directory.unlinks.fetch_add(1, SeqCst);
        }
        let epoch = registry.close_epoch();
        let ended = registry.ended();
        let readers = registry.readers();
        let mut unlinked = std::mem::take(&mut chains.limbo);
        unlinked.iter_mut().for_each(|item| item.epoch = epoch);
        chains.unlinked_since += unlinked.len() + 1;
        let due = thorough || chains.unlinked_since >= chains.held.len();
        if due && chains.held_looked_at != ended {
            unlinked.append(&mut chains.held);
            chains.held_looked_at = ended;
            chains.unlinked_since = 0;
        }
        for item in unlinked.drain(..) {
            let is_needed = readers.need(item.from, item.until, item.epoch);
            if is_needed && !is_planted(Planted::FrameFreedEarly) {
                chains.held.push(item);
            } else {
                if let Some(saved) = recycle(item.node, pool) {
                    chains.free_saved(saved, pool);
                }
                chains.nodes_free.push(item.node);
            }
        }
        chains.limbo = unlinked;
    }

    fn chunk<'c>(&mut self, page: PageId) -> &'c Chunk {
        let index = page.0 as usize / CHUNK_LEN;
        let (chunk, _) = *self.chains.chunks.entry(index).or_insert_with(|| (zeroed_chunk(), 0));
        // SAFETY: chunks live as long as the directory, and this change no longer than that.
        unsafe { chunk.as_ref() }
    }

    fn chain_begins(&mut self, page: PageId) {
        let index = page.0 as usize / CHUNK_LEN;
        let (chunk, live) = self.chains.chunks.get_mut(&index).expect("the chunk was just made");
        *live += 1;
        self.directory.table[index].store(chunk.as_ptr(), Release);
        self.chains.dirty.push_back(page);
    }

    pub(super) fn chain_ends(&mut self, page: PageId) {
        let index = page.0 as usize / CHUNK_LEN;
        let (_, live) = self.chains.chunks.get_mut(&index).expect("the chunk holds a chain");
        *live -= 1;
        if *live == 0 {
            self.directory.table[index].store(null_mut(), Release);
        }
    }
}

#[inline(always)]
fn chunk_ref<'a>(slot: &AtomicPtr<Chunk>) -> Option<&'a Chunk> {
    // SAFETY: the table holds null or a chunk, which lives as long as the directory; the reference
    // is used only inside calls on the directory.
    unsafe { slot.load(Acquire).as_ref() }
}

fn zeroed_chunk() -> NonNull<Chunk> {
    let chunk = Box::<Chunk>::new_zeroed();
    // SAFETY: zeros are null pointers.
    let chunk = unsafe { chunk.assume_init() };
    NonNull::from(Box::leak(chunk))
}

impl Drop for Directory {
    fn drop(&mut self) {
        let chains = self.chains.get_mut();
        chains.drop_kept();
        for node in chains.node_slabs.iter().flatten() {
            if let Some(saved) = NonNull::new(node.saved.load(Relaxed))
                && node.owns_saved.load(Relaxed)
            {
                drop_saved(saved);
            }
        }
        for (chunk, _) in chains.chunks.values() {
            // SAFETY: made by `zeroed_chunk` with the layout of a box; nobody looks anything up
            // while the directory is dropped.
            drop(unsafe { Box::from_raw(chunk.as_ptr()) });
        }
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{panic::Location, thread};

    use super::*;
    use crate::{
        format::blocks::ChangedBlocks,
        pager::{
            access::PageMut,
            model::{PAGE_SIZE, World},
            taken::Taken,
        },
    };

    const PAGES: u32 = 24;

    fn world() -> World {
        World::new(PAGES, 64 << 20)
    }

    #[test]
    fn every_reader_sees_its_state_while_versions_come_and_go() {
        let world = world();
        let last = 6_000;
        thread::scope(|scope| {
            scope.spawn(|| (1..=last).for_each(|lsn| world.commit(lsn)));
            scope.spawn(|| {
                while world.registry.visible() < Lsn(last) {
                    world.write_early();
                }
            });
            for patience in [1, 3, 40] {
                let world = &world;
                scope.spawn(move || {
                    while world.registry.visible() < Lsn(last) {
                        world.read(patience);
                    }
                });
            }
        });
        world.end();
        println!("{:?} in place, {:?} made anew", world.in_place, world.restored);
    }

    /// Changes page 0 in place and leaves it to the caller what becomes of it.
    fn change_in_place(world: &World, lsn: u64) -> Taken {
        let taken = world.directory.take_over(&world.registry, &world.pool, PageId(0), PAGE_SIZE);
        let mut taken = taken.expect("nobody looks at it");
        let mut changed = ChangedBlocks::new();
        let (bytes, saving) = taken.change(world.directory.turn(), &world.pool);
        let mut page = PageMut::in_place(bytes, &mut changed, saving);
        page.range_mut(lsn as usize * 100, 100).fill(lsn as u8);
        drop(page);
        taken
    }

    fn seal(world: &World, taken: Taken, lsn: u64) {
        let mut change = world.directory.change(&world.registry);
        change.retake(taken, Lsn(lsn), &world.pool);
        change.finish(&world.pool, false);
    }

    /// The bytes of page 0 that three changes leave their mark on.
    fn marks(world: &World, reader: &ReaderSlot) -> [u8; 3] {
        let bytes = match world.directory.find(PageId(0), reader.lsn()) {
            Found::Hidden => world.directory.restore(PageId(0), reader.lsn(), &world.pool),
            found => Ok(found),
        };
        match bytes.expect("memory is enough") {
            Found::Version(_, bytes) => [bytes[150], bytes[250], bytes[350]],
            found => panic!("{found:?}"),
        }
    }

    fn world_with_a_version() -> World {
        let world = World::new(1, 64 << 20);
        push(&world, 1);
        world
    }

    fn push(world: &World, lsn: u64) {
        let mut frame = world.pool.page().expect("memory");
        frame.bytes_mut().fill(0);
        let mut change = world.directory.change(&world.registry);
        change.push(PageId(0), Lsn(lsn), NewVersion::Frame(frame));
        change.finish(&world.pool, false);
        world.registry.publish(Lsn(lsn));
    }

    #[test]
    fn who_begins_after_a_change_in_place_sees_what_was_before_it() {
        let world = world_with_a_version();
        let taken = change_in_place(&world, 2);
        let reader = world.registry.add(0, Location::caller()).expect("a slot is free");
        assert_eq!(marks(&world, &reader), [0, 0, 0]);
        let mut change = world.directory.change(&world.registry);
        change.give_back(taken, &world.pool);
        change.finish(&world.pool, false);
        assert_eq!(marks(&world, &reader), [0, 0, 0]);
        // It may look at the page at any time: from then on the page is copied.
        assert!(
            world.directory.take_over(&world.registry, &world.pool, PageId(0), PAGE_SIZE).is_none()
        );
        world.registry.remove(&reader);
    }

    #[test]
    fn a_reader_between_changes_in_place_sees_its_own_state() {
        let world = world_with_a_version();
        seal(&world, change_in_place(&world, 2), 2);
        let first = world.registry.add(0, Location::caller()).expect("a slot is free");
        world.registry.publish(Lsn(2));
        seal(&world, change_in_place(&world, 3), 3);
        world.registry.publish(Lsn(3));
        let third = world.registry.add(0, Location::caller()).expect("a slot is free");
        // Nobody is at LSN 2; what it saved is still a part of LSN 1.
        world.directory.change(&world.registry).finish(&world.pool, false);
        assert_eq!(marks(&world, &first), [0, 0, 0]);
        assert_eq!(marks(&world, &third), [0, 2, 3]);
        world.registry.remove(&first);
        world.registry.remove(&third);
        push(&world, 4);
        world.directory.change(&world.registry).finish(&world.pool, true);
        assert_eq!(world.directory.change(&world.registry).version_count(), 1);
        assert_eq!(world.pool.memory_used(), PAGE_SIZE);
    }

    #[test]
    fn changes_in_place_behind_a_reader_that_does_not_look_leave_few_versions() {
        let world = world_with_a_version();
        seal(&world, change_in_place(&world, 2), 2);
        let idle = world.registry.add(0, Location::caller()).expect("a slot is free");
        world.registry.publish(Lsn(2));
        for lsn in 3..500 {
            seal(&world, change_in_place(&world, 1 + lsn % 20), lsn);
            world.registry.publish(Lsn(lsn));
        }
        let count = world.directory.change(&world.registry).version_count();
        assert!(count <= 3, "{count} versions for one reader");
        assert_eq!(marks(&world, &idle), [0, 0, 0]);
        assert!(world.pool.memory_used() <= 4 * PAGE_SIZE, "{} bytes", world.pool.memory_used());
        world.registry.remove(&idle);
    }

    #[test]
    fn a_reader_is_not_refused_when_memory_is_used_up() {
        let world = World::new(1, 1 << 20);
        push(&world, 1);
        let taken = change_in_place(&world, 2);
        let mut frames = Vec::new();
        while let Ok(frame) = world.pool.page() {
            frames.push(frame);
        }
        let reader = world.registry.add(0, Location::caller()).expect("a slot is free");
        assert_eq!(marks(&world, &reader), [0, 0, 0]);
        world.registry.remove(&reader);
        seal(&world, taken, 2);
        world.registry.publish(Lsn(2));
        // Without memory for what changes, nothing is changed in place.
        let pool = &world.pool;
        assert!(world.directory.take_over(&world.registry, pool, PageId(0), PAGE_SIZE).is_none());
        frames.into_iter().for_each(|frame| pool.release(frame));
        assert!(world.directory.take_over(&world.registry, pool, PageId(0), PAGE_SIZE).is_some());
    }

    #[test]
    fn an_old_reader_keeps_its_own_versions_and_no_others() {
        let world = world();
        (1..=10).for_each(|lsn| world.commit(lsn));
        let old = world.registry.add(0, Location::caller()).expect("a slot is free");
        (11..=500).for_each(|lsn| world.commit(lsn));
        let versions = world.directory.change(&world.registry).version_count();
        assert!(versions <= 3 * PAGES as usize, "{versions} versions of {PAGES} pages");
        assert!(world.pool.memory_used() <= 3 * PAGES as usize * PAGE_SIZE);
        world.write_early();
        world.read_all(old.lsn());
        world.registry.remove(&old);
        world.end();
    }

    #[test]
    fn a_freed_page_is_free_from_its_lsn_on() {
        let world = world();
        world.commit(1);
        let page = PageId((0..PAGES).find(|page| world.changes(*page, 1)).expect("it changes one"));
        let before = world.registry.add(0, Location::caller()).expect("a slot is free");
        let mut change = world.directory.change(&world.registry);
        change.push(page, Lsn(2), NewVersion::Free);
        change.finish(&world.pool, false);
        world.registry.publish(Lsn(2));
        assert!(matches!(world.directory.find(page, Lsn(1)), Found::Version(Lsn(1), _)));
        assert_eq!(world.directory.find(page, Lsn(2)), Found::Free);
        world.registry.remove(&before);
    }

    #[test]
    fn runs_that_are_versions_still_go_back_when_the_directory_ends() {
        let World { mut directory, registry, pool, .. } = world();
        let mut change = directory.change(&registry);
        for page in [3, 9] {
            let frame = pool.run(3 * PAGE_SIZE).expect("memory");
            change.push(PageId(page), Lsn(1), NewVersion::Frame(frame));
        }
        change.finish(&pool, true);
        assert_eq!(pool.memory_used(), 6 * PAGE_SIZE);
        directory.release_runs(&pool);
        assert_eq!(pool.memory_used(), 0);
    }
}
