//! Records and segments: append, sync, recover, trim, read. Knows no trees and no pages.
//!
//! A journal is a folder of segment files (`segment`), each a header block and then records in
//! frames (see `format`). The rules:
//!
//! - A group of records is one write at a 4 KiB boundary, padded to one. Acknowledged blocks are
//!   never written again, and after a recovery the first append begins a new segment, so that
//!   remains of a torn tail are never behind new records.
//! - A roll to a new segment: sync the old one; rename a spare to the new name; sync the folder; the
//!   header goes out with the first records. So a segment's name alone proves that all records
//!   before it were durable.
//! - A failed write or sync poisons the journal: every later append and sync fails. Nothing is
//!   retried, since the kernel may have dropped the pages and will report success.
//! - What ends a journal, and what is corruption: see `cursor`. What a full disk leaves: `reserve`.
//! - A replicated journal has the hard state of its replica in it (`replicated`), and records that
//!   the cluster decided against are given up (`truncate`).
//!
//! Locks, in this order: `trim_turn`, `sync_turn`, `writer`, `shelf`, `pins`; `marks` and `terms` last.

mod cursor;
mod marks;
mod pins;
mod reader;
mod recover;
mod replicated;
mod reserve;
mod roll;
mod segment;
mod spare;
mod survey;
mod terms;
mod trim;
mod truncate;
mod verify;
mod writer;

#[cfg(test)]
mod memory_disk;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use crate::{
    disk::{Disk, DiskFile},
    error::{Error, Result},
    format::{hard_state::HardState, record::SealedRecord},
    ids::{DatabaseId, Lsn},
    sync::{
        Condvar, Mutex, Planted,
        atomic::{AtomicBool, AtomicU64, Ordering},
        is_planted,
        thread::JoinHandle,
    },
};

use self::{
    marks::Marks,
    pins::Pins,
    spare::{Calls, Shelf},
    terms::Terms,
    writer::Writer,
};

pub use self::{
    cursor::TornTail,
    pins::{Keep, PinInfo},
    reader::{JournalReader, StoredRecord},
    reserve::{Room, is_full, reserve_len},
    segment::segment_name,
    verify::{SegmentStep, SegmentVerifier},
    writer::group_len,
};

/// A place in the history: a record and its chain hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPosition {
    /// The record's number.
    pub lsn: Lsn,
    /// Its chain hash.
    pub chain: u64,
}

/// Where a journal is and what it belongs to.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The disk under it.
    pub disk: Arc<dyn Disk>,
    /// Its folder.
    pub dir: PathBuf,
    /// Its database.
    pub database_id: DatabaseId,
    /// Lineage epoch of the database.
    pub epoch: u64,
    /// Size of a page in bytes.
    pub page_size: usize,
    /// Longest segment in bytes, but for a group of records that is longer.
    pub segment_size_max: u64,
    /// Length of the reserve in bytes ([`reserve_len`]); 0 for none.
    pub reserve_len: u64,
    /// Whether a thread prepares spares ahead; else they are made when they are needed.
    pub background: bool,
    /// What stays of segments that the checkpoint does not need.
    pub keep: Keep,
}

/// What a recovery has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The last record.
    pub last: JournalPosition,
    /// The last record that was applied: in a replicated journal the last one that is known to be
    /// committed, else the last one.
    pub committed: JournalPosition,
    /// When that one was sealed, microseconds since 1970; 0 if the journal has not got it any more.
    pub committed_us: u64,
    /// The newest hard state; none in a journal that is not replicated.
    pub hard_state: Option<HardState>,
    /// Records above the checkpoint.
    pub records: u64,
    /// Their bytes in the journal, headers and padding included.
    pub bytes: u64,
    /// What was dropped behind the last record.
    pub torn_tail: Option<TornTail>,
}

/// One segment of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// File name.
    pub file: String,
    /// LSN of the first record.
    pub first_lsn: Lsn,
    /// Length of the file in bytes.
    pub len: u64,
    /// Bytes in use.
    pub used: u64,
}

/// What a journal consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalReport {
    /// Its segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Spare files.
    pub spare_count: usize,
    /// Length in bytes of the file that is kept for removals on a full disk; 0 when there is none.
    pub reserve_len: u64,
    /// Bytes of all segments and spares on the disk, and of the reserve.
    pub bytes: u64,
    /// First LSN of the oldest segment.
    pub first_lsn: Lsn,
    /// The last record.
    pub last_lsn: Lsn,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    preparer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    config: JournalConfig,
    /// One sync at a time: a sync that fails may make one that runs beside it succeed.
    sync_turn: Mutex<()>,
    writer: Mutex<Writer>,
    trim_turn: Mutex<()>,
    shelf: Mutex<Shelf>,
    shelf_changed: Condvar,
    pins: Mutex<Pins>,
    marks: Mutex<Marks>,
    poison: OnceLock<&'static str>,
    calls: Calls,
    /// The last attempt to make a segment met a full disk.
    is_short: AtomicBool,
    terms: Mutex<Terms>,
    /// LSN of the last record that was appended.
    appended: AtomicU64,
    /// Highest LSN that the consensus is known to have committed.
    known_committed: AtomicU64,
    /// First LSN of the newest segment with a durable hard state; `u64::MAX` in a journal without one.
    held_from: AtomicU64,
    /// How often records were given up.
    truncations: AtomicU64,
}

impl Journal {
    /// Makes room for `len` bytes of groups that are about to be appended ([`group_len`]), so that a
    /// full disk is met before anything depends on them. With [`Room::Reserve`], that is the
    /// reserve in the end.
    ///
    /// # Errors
    /// [`Io`](Error::Io) when no segment can be made: nothing has changed, and a later call may
    /// succeed. [`Poisoned`](Error::Poisoned), and `Io` with poison when a step fails whose outcome
    /// is not known.
    pub fn reserve(&self, group_len: u64, room: Room) -> Result<()> {
        let shared = &*self.shared;
        if shared.writer.lock().has_room(group_len, room) {
            return Ok(());
        }
        let turn = shared.sync_turn.lock();
        let mut writer = shared.writer.lock();
        shared.check_poison()?;
        if !writer.has_room(group_len, room) {
            shared.roll(&mut writer, group_len, room)?;
        }
        drop((writer, turn));
        shared.keep_reserve()
    }

    /// Whether the last attempt to make a segment met a full disk.
    pub fn is_short(&self) -> bool {
        self.shared.is_short.load(Ordering::Relaxed)
    }

    /// Whether a checkpoint at `lsn` would free a segment.
    pub fn would_free(&self, lsn: Lsn) -> bool {
        self.shared.shelf.lock().segments.get(1).is_some_and(|second| second.first <= lsn.next())
    }

    /// Lets the thread that prepares spares look once more whether the disk has room.
    pub fn look_for_room(&self) {
        let next_len = self.shared.writer.lock().next_len;
        let mut shelf = self.shared.shelf.lock();
        if self.shared.config.background && !shelf.has_spare(next_len) {
            shelf.wanted = Some(next_len);
            self.shared.shelf_changed.notify_all();
        }
    }

    /// Its folder.
    #[allow(dead_code, reason = "for who replicates the database")]
    pub fn dir(&self) -> &Path {
        &self.shared.config.dir
    }

    /// Whether a failed write or sync has ended the journal until it is opened again.
    pub fn is_poisoned(&self) -> bool {
        self.shared.poison.get().is_some()
    }

    /// Appends records behind the last one: one write, not durable before a sync.
    ///
    /// # Errors
    /// [`Io`](Error::Io) when the write fails, and [`Poisoned`](Error::Poisoned) from then on.
    ///
    /// # Panics
    /// If the records do not continue the last one in number and chain.
    pub fn append(&self, records: &[&SealedRecord]) -> Result<()> {
        self.append_group(None, records, Lsn(0))
    }

    /// As [`append`](Journal::append), with a new hard state in front of the records, if there is one.
    /// `known_committed` is what the caller knows of the consensus: none of that is ever given up, and
    /// hard states say so.
    ///
    /// # Errors
    /// As [`append`](Journal::append).
    ///
    /// # Panics
    /// As [`append`](Journal::append), and if a hard state is to be written to a journal that is not
    /// replicated, or its term is below that of the last one.
    pub fn append_group(
        &self,
        hard_state: Option<&HardState>,
        records: &[&SealedRecord],
        known_committed: Lsn,
    ) -> Result<()> {
        if hard_state.is_none() && records.is_empty() {
            return Ok(());
        }
        let shared = &*self.shared;
        if known_committed > Lsn(0) {
            self.note_committed(known_committed);
        }
        let group_len = group_len(records);
        let mut turn = None;
        let mut writer = shared.writer.lock();
        // Room was made before; a group that needs the reserve has it.
        let room = Room::Reserve;
        if !writer.has_room(group_len, room) {
            drop(writer);
            turn = Some(shared.sync_turn.lock());
            writer = shared.writer.lock();
        }
        shared.check_poison()?;
        if !writer.has_room(group_len, room) {
            shared.roll(&mut writer, group_len, room)?;
        }
        drop(turn);
        let head = shared.head_of(&mut writer, hard_state);
        let written = shared.poison_on_error("write of the journal", || {
            let mut begin_term = |lsn, term| shared.terms.lock().begin(lsn, term);
            writer.write(head.as_ref(), records, &mut begin_term)
        })?;
        shared.ask_for_spare(&mut writer);
        shared.appended.store(writer.last.lsn.0, Ordering::Release);
        shared.marks.lock().add(writer.last.lsn, written);
        Ok(())
    }

    /// Makes everything appended before durable; returns the LSN of the last durable record.
    ///
    /// # Errors
    /// [`Io`](Error::Io) when the sync fails, and [`Poisoned`](Error::Poisoned) from then on.
    pub fn sync(&self) -> Result<Lsn> {
        let shared = &*self.shared;
        let _turn = shared.sync_turn.lock();
        shared.check_poison()?;
        let (file, path, last, written, len) = {
            let writer = shared.writer.lock();
            match &writer.current {
                Some(current) if writer.is_unsynced() => {
                    let (file, path) = (current.file.clone(), current.path.clone());
                    (file, path, writer.last.lsn, writer.groups.written, current.offset)
                }
                _ => return Ok(writer.synced),
            }
        };
        // Appends go on meanwhile; a roll waits for its turn.
        shared.poison_on_error("sync of the journal", || {
            sync_file(&*file).map_err(Error::io("sync", path))
        })?;
        shared.check_poison()?;
        let mut writer = shared.writer.lock();
        (writer.synced, writer.groups.durable) = (last, written);
        if let Some(current) = &mut writer.current {
            current.durable_len = len;
            shared.hold_from(current.header.first_lsn);
        }
        Ok(last)
    }

    /// Keeps the records above `after` from being trimmed; returns the number of the pin.
    ///
    /// # Errors
    /// [`Trimmed`](Error::Trimmed) when the first of them is gone.
    pub fn pin(&self, after: Lsn) -> Result<u64> {
        let shelf = self.shared.shelf.lock();
        let last = self.shared.config.dir.clone();
        match shelf.segments.first() {
            Some(oldest) if oldest.first > after.next() => {
                Err(Error::Trimmed { folder: last, wanted: after.next(), oldest: oldest.first })
            }
            _ => Ok(self.shared.pins.lock().add(after)),
        }
    }

    /// Moves a pin up to `after`.
    ///
    /// # Errors
    /// [`Trimmed`](Error::Trimmed) when what it kept was too much, and was given up.
    ///
    /// # Panics
    /// If there is no such pin.
    pub fn advance_pin(&self, number: u64, after: Lsn) -> Result<()> {
        let oldest = self.shared.shelf.lock().segments.first().map_or(Lsn(0), |live| live.first);
        let mut pins = self.shared.pins.lock();
        pins.advance(number, after);
        match pins.get(number) {
            PinInfo { is_broken: false, .. } => Ok(()),
            PinInfo { after, .. } => {
                let folder = self.shared.config.dir.clone();
                Err(Error::Trimmed { folder, wanted: after.next(), oldest })
            }
        }
    }

    /// Ends a pin.
    pub fn unpin(&self, number: u64) {
        self.shared.pins.lock().remove(number);
    }

    /// All pins, the oldest first.
    pub fn pins(&self) -> Vec<PinInfo> {
        self.shared.pins.lock().all()
    }

    /// Gives up the segments whose records are all at or below `checkpointed`, and which nobody has
    /// pinned: some become spares, the others are removed. The newest segment stays. Runs beside append and sync.
    ///
    /// # Errors
    /// [`Io`](Error::Io); the journal is still whole, and a later call tries again.
    pub fn trim(&self, checkpointed: Lsn) -> Result<()> {
        self.shared.marks.lock().trim(checkpointed);
        self.shared.trim(checkpointed)
    }

    /// Gives back to the file system what waits for records to come: spares, and the end of the
    /// newest segment. Everything must be durable; the next append begins a new segment.
    ///
    /// # Errors
    /// [`Io`](Error::Io); the journal is still whole.
    ///
    /// # Panics
    /// If records are not synced.
    pub fn shrink(&self) -> Result<()> {
        let writer = self.shared.writer.lock();
        assert_eq!(writer.synced, writer.last.lsn, "records are not synced");
        drop(writer);
        self.shared.shrink()
    }

    /// Bytes of journal behind `lsn`, at most some 64 KiB too many.
    pub fn bytes_after(&self, lsn: Lsn) -> u64 {
        self.shared.marks.lock().behind(lsn)
    }

    /// What the journal consists of now.
    pub fn report(&self) -> JournalReport {
        let writer = self.shared.writer.lock();
        let shelf = self.shared.shelf.lock();
        let current = writer.current.as_ref().map(|c| (c.header.first_lsn, c.offset));
        let segments: Vec<SegmentInfo> = (shelf.segments.iter())
            .map(|live| SegmentInfo {
                file: segment_name(live.first),
                first_lsn: live.first,
                len: live.len,
                used: current.filter(|c| c.0 == live.first).map_or(live.used, |c| c.1),
            })
            .collect();
        let spares = shelf.spares.iter().chain(&shelf.reserve);
        let spare_bytes: u64 = spares.map(|spare| spare.len).sum();
        JournalReport {
            spare_count: shelf.spares.len(),
            reserve_len: shelf.reserve_len(),
            bytes: segments.iter().map(|segment| segment.len).sum::<u64>() + spare_bytes,
            first_lsn: segments.first().map_or(writer.last.lsn.next(), |s| s.first_lsn),
            last_lsn: writer.last.lsn,
            segments,
        }
    }
}

/// Syncs a segment, but for planted bugs.
fn sync_file(file: &dyn DiskFile) -> io::Result<()> {
    if is_planted(Planted::JournalNotSynced) {
        return Ok(());
    }
    match file.sync_data() {
        Err(_) if is_planted(Planted::SyncErrorIgnored) => Ok(()),
        Err(_) if is_planted(Planted::SyncRetried) => file.sync_data(),
        result => result,
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.calls.stop.store(true, Ordering::Relaxed);
        // The lock orders the flag before the thread's next look at it: no wake-up is lost.
        drop(self.shared.shelf.lock());
        self.shared.shelf_changed.notify_all();
        if let Some(Err(panic)) = self.preparer.take().map(JoinHandle::join) {
            tracing::error!(?panic, "the thread that prepares journal segments has panicked");
        }
    }
}

impl Shared {
    fn check_poison(&self) -> Result<()> {
        self.poison.get().map_or(Ok(()), |&action| Err(Error::Poisoned { action }))
    }

    fn poison_on_error<T>(
        &self,
        action: &'static str,
        call: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let result = call();
        if result.is_err() && !is_planted(Planted::NotPoisoned) {
            self.poison.get_or_init(|| action);
        }
        result
    }
}
