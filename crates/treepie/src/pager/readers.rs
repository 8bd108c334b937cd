//! The registry of readers: who reads which LSN, since when, and from where.
//!
//! A reader occupies one slot for its life. Three rules of the engine rest on it:
//!
//! - The checkpoint overwrites a page of the data file with a version of LSN `v` only when every
//!   registered reader is at `v` or above ([`Registry::oldest`]).
//! - The memory of a version that was taken out of its chain is used again only when no reader that
//!   was registered at that time could have been given it ([`Readers::need`]).
//!
//! - A transaction changes a version in place only when no reader at its LSN or above was ever
//!   registered ([`Registry::latest`]): who registers later finds it hidden (`in_place`).
//!
//! Registering is lock-free: claim a slot, write the visible LSN into it, and read the visible LSN
//! again. Who scans the slots reads the visible LSN first. Both orders are sequentially consistent,
//! so either the scan sees the slot, or the reader sees an LSN at least as high as the scan did.

use std::{cell::Cell, panic::Location, sync::atomic::AtomicU64 as PlainU64};

use crate::{
    error::{Error, Result},
    ids::Lsn,
    sync::{
        LeafMutex, Planted,
        atomic::{AtomicU64, AtomicUsize, Ordering::*, fence},
        is_planted, thread_local,
    },
};

const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const LSN_BASE: u64 = 2;

thread_local! {
    /// Where this thread found a free slot last: threads keep to slots of their own.
    static LAST_SLOT: Cell<usize> = const { Cell::new(0) };
}

#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    /// 0 free, 1 claimed, otherwise the LSN plus 2.
    state: AtomicU64,
    /// Epoch of the registration; 0 while it is not known.
    epoch: AtomicU64,
    opened_us: PlainU64,
    location: LeafMutex<Option<&'static Location<'static>>>,
}

/// The slots, and the LSN that new readers get.
#[derive(Debug)]
pub struct Registry {
    slots: Box<[Slot]>,
    /// One past the highest slot that was ever used: what a scan looks at.
    used: AtomicUsize,
    visible: AtomicU64,
    /// The highest LSN that `add` has registered a reader of.
    latest: AtomicU64,
    /// Counts the times that versions were taken out of their chains.
    epoch: AtomicU64,
    /// Counts readers that ended.
    ended: AtomicU64,
    #[cfg(test)]
    stopped: LeafMutex<Stopped>,
}

/// A reader that a test has stopped inside [`Registry::add`].
#[cfg(test)]
#[derive(Debug, Default)]
enum Stopped {
    #[default]
    Nobody,
    /// It has read the visible LSN, and shows nothing yet: not before so many scans to come.
    BeforeItShows { lsn: Lsn, scans: u32 },
    /// It shows that LSN, and has not looked again.
    Showing(ReaderSlot),
}

/// A registered reader. It must be given back with [`Registry::remove`].
#[derive(Debug, PartialEq, Eq)]
pub struct ReaderSlot {
    index: usize,
    lsn: Lsn,
}

impl ReaderSlot {
    /// The LSN that it reads.
    #[inline(always)]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

/// What the registry knows of one reader.
#[derive(Clone, Copy, Debug)]
pub struct ReaderEntry {
    /// LSN that it reads.
    pub lsn: Lsn,
    /// Epoch of its registration; 0 when it is being registered.
    pub epoch: u64,
    /// When it was opened, in microseconds since 1970.
    pub opened_us: u64,
    /// Where it was opened.
    pub location: Option<&'static Location<'static>>,
}

impl Registry {
    /// A registry of `readers_max` slots; new readers get `visible`.
    pub fn new(readers_max: usize, visible: Lsn) -> Registry {
        let slot = || Slot {
            state: AtomicU64::new(FREE),
            epoch: AtomicU64::new(0),
            opened_us: PlainU64::new(0),
            location: LeafMutex::new(None),
        };
        Registry {
            slots: (0..readers_max).map(|_| slot()).collect(),
            used: AtomicUsize::new(0),
            visible: AtomicU64::new(visible.0),
            latest: AtomicU64::new(0),
            epoch: AtomicU64::new(1),
            ended: AtomicU64::new(0),
            #[cfg(test)]
            stopped: LeafMutex::default(),
        }
    }

    /// The LSN that new readers get.
    pub fn visible(&self) -> Lsn {
        Lsn(self.visible.load(SeqCst))
    }

    /// Publishes an LSN: readers from now on see it.
    ///
    /// # Panics
    /// If it is below the one before.
    pub fn publish(&self, lsn: Lsn) {
        let before = self.visible.swap(lsn.0, SeqCst);
        assert!(before <= lsn.0, "visible LSN {before} would fall to {lsn}");
    }

    /// Registers a reader of the visible LSN.
    ///
    /// # Errors
    /// [`Error::Bound`] when all slots are taken.
    pub fn add(&self, opened_us: u64, location: &'static Location<'static>) -> Result<ReaderSlot> {
        let index = self.claim()?;
        let slot = &self.slots[index];
        slot.opened_us.store(opened_us, Relaxed);
        *slot.location.lock() = Some(location);
        slot.epoch.store(0, SeqCst);
        let mut lsn = self.visible.load(SeqCst);
        loop {
            slot.state.store(lsn + LSN_BASE, SeqCst);
            let now = self.visible.load(SeqCst);
            if now == lsn || is_planted(Planted::OneLook) {
                break;
            }
            lsn = now;
        }
        if self.latest.load(SeqCst) < lsn && !is_planted(Planted::QuietReader) {
            self.latest.fetch_max(lsn, SeqCst);
        }
        slot.epoch.store(self.epoch.load(SeqCst), SeqCst);
        // Pairs with the fence of `close_epoch`: either a scan after it sees this slot, or the
        // look-ups of this reader see what was taken out before it. And with that of
        // `Directory::take_over`: either the writer sees `latest`, or this reader the hidden version.
        fence(SeqCst);
        Ok(ReaderSlot { index, lsn: Lsn(lsn) })
    }

    /// The highest LSN that a reader has looked at or may be looking at: the writer itself aside, and
    /// the checkpoint, which pins what it looks at.
    #[inline]
    pub fn latest(&self) -> Lsn {
        Lsn(self.latest.load(SeqCst))
    }

    /// Registers a reader of `lsn` whose answers stay in their chains, but may be changed in place:
    /// the writer, or the checkpoint. That is the LSN of another reader, and the caller holds the lock
    /// of the directory, so that nothing is taken out meanwhile; or it is the newest sealed LSN, and
    /// the caller is the writer: no version above it comes before the reader ends, and the newest
    /// versions of pages are taken out of their chains only when the file shows the same.
    ///
    /// # Errors
    /// [`Error::Bound`] when all slots are taken.
    pub fn add_at(
        &self,
        lsn: Lsn,
        opened_us: u64,
        location: &'static Location<'static>,
    ) -> Result<ReaderSlot> {
        let index = self.claim()?;
        let slot = &self.slots[index];
        slot.opened_us.store(opened_us, Relaxed);
        *slot.location.lock() = Some(location);
        slot.epoch.store(0, SeqCst);
        slot.state.store(lsn.0 + LSN_BASE, SeqCst);
        // As in `add`: what was taken out before is nothing that this reader can find.
        slot.epoch.store(self.epoch.load(SeqCst), SeqCst);
        fence(SeqCst);
        Ok(ReaderSlot { index, lsn })
    }

    fn claim(&self) -> Result<usize> {
        let count = self.slots.len();
        let start = LAST_SLOT.with(Cell::get);
        for index in (start..count).chain(0..start.min(count)) {
            let state = &self.slots[index].state;
            if state.load(Relaxed) == FREE
                && state.compare_exchange(FREE, CLAIMED, SeqCst, Relaxed).is_ok()
            {
                self.used.fetch_max(index + 1, SeqCst);
                LAST_SLOT.with(|slot| slot.set(index));
                return Ok(index);
            }
        }
        Err(Error::Bound {
            option: "readers_max",
            max: count as u64,
            hint: "end snapshots that are no longer read, or raise the bound",
        })
    }

    /// Ends a reader.
    pub fn remove(&self, reader: &ReaderSlot) {
        self.slots[reader.index].state.store(FREE, SeqCst);
        self.ended.fetch_add(1, SeqCst);
    }

    /// Counts the readers that have ended since the database was opened.
    pub fn ended(&self) -> u64 {
        self.ended.load(SeqCst)
    }

    /// Closes an epoch and returns its number: what was taken out of its chain before this call
    /// cannot be found by readers that register after it.
    pub fn close_epoch(&self) -> u64 {
        let epoch = self.epoch.fetch_add(1, SeqCst);
        fence(SeqCst);
        epoch
    }

    /// The lowest LSN that is read now or may be read by a reader to come.
    pub fn oldest(&self) -> Lsn {
        #[cfg(test)]
        self.show_stopped_reader();
        let visible = self.visible.load(SeqCst);
        Lsn(self.lsns().map(|lsn| lsn.0).min().map_or(visible, |lsn| lsn.min(visible)))
    }

    /// The same, for whoever wants to read there: all versions that are answers at that LSN are still
    /// in their chains, if the lock of the directory is held. Nothing while the oldest reader is below
    /// the visible LSN and still being registered: it may have to look again, and what it would have
    /// seen may be gone.
    pub fn oldest_settled(&self) -> Option<Lsn> {
        #[cfg(test)]
        self.show_stopped_reader();
        let Readers { visible, entries } = self.readers();
        match entries.first() {
            Some(reader) if reader.lsn < visible => (reader.epoch > 0).then_some(reader.lsn),
            _ => Some(visible),
        }
    }

    fn lsns(&self) -> impl Iterator<Item = Lsn> + '_ {
        self.slots[..self.used.load(SeqCst)].iter().filter_map(|slot| {
            let state = slot.state.load(SeqCst);
            (state >= LSN_BASE).then(|| Lsn(state - LSN_BASE))
        })
    }

    /// The readers of this moment, by LSN, and the LSN that new ones get at least.
    pub fn readers(&self) -> Readers {
        let visible = self.visible();
        let mut entries: Vec<ReaderEntry> = self.entries().collect();
        entries.sort_unstable_by_key(|reader| reader.lsn);
        Readers { visible, entries }
    }

    fn entries(&self) -> impl Iterator<Item = ReaderEntry> + '_ {
        self.slots[..self.used.load(SeqCst)].iter().filter_map(|slot| {
            let epoch = slot.epoch.load(SeqCst);
            let state = slot.state.load(SeqCst);
            if state < LSN_BASE {
                return None;
            }
            Some(ReaderEntry {
                lsn: Lsn(state - LSN_BASE),
                // A slot that changed hands meanwhile counts as being registered.
                epoch: if slot.epoch.load(SeqCst) == epoch { epoch } else { 0 },
                opened_us: slot.opened_us.load(Relaxed),
                location: *slot.location.lock(),
            })
        })
    }
}

#[cfg(test)]
impl Registry {
    /// Stops a reader inside its registration, when it has read `lsn` as the visible one: its slot
    /// shows that only after `scans` more scans for the oldest reader.
    pub fn stop_reader(&self, lsn: Lsn, scans: u32) {
        *self.stopped.lock() = Stopped::BeforeItShows { lsn, scans };
    }

    /// Lets that reader go on: it sees that its LSN is not the visible one any more. (It takes the
    /// visible one, and ends.)
    pub fn release_reader(&self) {
        match std::mem::take(&mut *self.stopped.lock()) {
            Stopped::Showing(reader) => self.remove(&reader),
            other => panic!("no scan has seen the reader: {other:?}"),
        }
    }

    fn show_stopped_reader(&self) {
        let mut stopped = self.stopped.lock();
        if let Stopped::BeforeItShows { lsn, scans } = &mut *stopped {
            if *scans == 0 {
                let slot = self.add_at(*lsn, 0, Location::caller()).expect("a slot is free");
                self.slots[slot.index].epoch.store(0, SeqCst);
                *stopped = Stopped::Showing(slot);
            } else {
                *scans -= 1;
            }
        }
    }
}

/// The readers of one moment.
#[derive(Debug)]
pub struct Readers {
    visible: Lsn,
    /// Ascending by LSN.
    entries: Vec<ReaderEntry>,
}

impl Readers {
    /// The visible LSN at that moment: readers to come have at least this one.
    pub fn visible(&self) -> Lsn {
        self.visible
    }

    /// All of them, ascending by LSN.
    pub fn entries(&self) -> &[ReaderEntry] {
        &self.entries
    }

    /// Whether a reader at an LSN in `from..until` was registered in `epoch` or before.
    pub fn need(&self, from: Lsn, until: Lsn, epoch: u64) -> bool {
        let start = self.entries.partition_point(|reader| reader.lsn < from);
        self.entries[start..]
            .iter()
            .take_while(|reader| reader.lsn < until)
            .any(|reader| reader.epoch <= epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(registry: &Registry) -> ReaderSlot {
        registry.add(0, Location::caller()).expect("a slot is free")
    }

    #[test]
    fn oldest_is_the_lowest_registered_lsn_or_the_visible_one() {
        let registry = Registry::new(4, Lsn(5));
        assert_eq!(registry.oldest(), Lsn(5));
        let old = add(&registry);
        registry.publish(Lsn(9));
        let new = add(&registry);
        assert_eq!((old.lsn(), new.lsn(), registry.oldest()), (Lsn(5), Lsn(9), Lsn(5)));
        registry.remove(&old);
        assert_eq!(registry.oldest(), Lsn(9));
        registry.remove(&new);
        assert_eq!(registry.ended(), 2);
    }

    #[test]
    fn a_full_registry_names_its_bound() {
        let registry = Registry::new(2, Lsn(0));
        let _readers = [add(&registry), add(&registry)];
        let error = registry.add(0, Location::caller()).expect_err("no slot is free");
        assert!(error.to_string().contains("`readers_max` of 2"), "{error}");
    }

    #[test]
    fn only_readers_of_the_interval_and_the_epoch_need_a_version() {
        let registry = Registry::new(8, Lsn(5));
        let early = add(&registry);
        let epoch = registry.close_epoch();
        let late = add(&registry);
        let readers = registry.readers();
        assert!(readers.need(Lsn(5), Lsn(6), epoch));
        assert!(!readers.need(Lsn(6), Lsn(9), epoch));
        assert!(!readers.need(Lsn(0), Lsn(5), epoch));
        registry.remove(&early);
        assert!(!registry.readers().need(Lsn(5), Lsn(6), epoch));
        registry.remove(&late);
    }
}
