//! Rolling to a new segment, and the thread that prepares its file ahead.

use std::sync::Arc;

use crate::{
    disk::OpenMode,
    error::{Error, Result},
    format::{
        bytes::get_u64,
        segment::{JOURNAL_BLOCK_SIZE, SEGMENT_HEADER_SIZE, SegmentHeader},
    },
    sync::{Planted, atomic::Ordering, is_planted},
};

use super::{
    Shared,
    reserve::{Room, is_full},
    segment::{align_block, segment_name},
    spare::{Live, RESERVE, Spare, prepare_spare},
    writer::{Current, Writer},
};

/// Length of the first segment in bytes: a small database stays small. Each following one is twice
/// as long, up to the limit.
const FIRST_LEN: u64 = 256 << 10;
/// Groups of this length or more get segments that are allocated but not zeroed, in bytes.
const LONG_GROUP_LEN: u64 = 128 << 10;
/// Shortest segment: its header and one block.
pub const LEN_MIN: u64 = (SEGMENT_HEADER_SIZE + JOURNAL_BLOCK_SIZE) as u64;

/// Length of the longest segment for the option's value, in bytes: whole blocks.
pub fn segment_len_max(segment_size_max: u64) -> u64 {
    let block = JOURNAL_BLOCK_SIZE as u64;
    (segment_size_max / block * block).max(LEN_MIN)
}

/// Length of the first segment in bytes.
pub fn first_segment_len(segment_size_max: u64) -> u64 {
    FIRST_LEN.min(segment_len_max(segment_size_max))
}

impl Shared {
    /// Begins a new segment with room for a group. Called with `sync_turn` held.
    pub fn roll(&self, writer: &mut Writer, group_len: u64, room: Room) -> Result<()> {
        let needed = align_block(SEGMENT_HEADER_SIZE as u64 + group_len + writer.head_len());
        let next = writer.last.lsn.next();
        if writer.hard_state.is_some()
            && self.shelf.lock().segments.last().is_some_and(|live| live.first == next)
        {
            return self.roll_over(writer, needed);
        }
        let len_min = needed.max(writer.next_len);
        let is_zeroing = group_len < LONG_GROUP_LEN;
        let spare = match self.take_or_make_spare(len_min, is_zeroing) {
            Err(error) if is_full(&error) => {
                self.find_room((needed, len_min), is_zeroing, room, error)?
            }
            made => made?,
        };
        let rolled = self.poison_on_error("roll of the journal", || self.roll_to(writer, spare));
        self.shelf.lock().is_reserve_rolling = false;
        rolled
    }

    fn roll_to(&self, writer: &mut Writer, spare: Spare) -> Result<()> {
        if let Some(current) = writer.current.take() {
            if writer.is_unsynced() && !is_planted(Planted::OldSegmentNotSynced) {
                current.file.sync_data().map_err(Error::io("sync", &current.path))?;
            }
            self.note_used(&current);
            if current.offset > 0 {
                self.hold_from(current.header.first_lsn);
            }
        }
        writer.synced = writer.last.lsn;
        writer.groups.durable = writer.groups.written;
        let (disk, dir) = (&self.config.disk, &self.config.dir);
        let first_lsn = writer.last.lsn.next();
        let path = dir.join(segment_name(first_lsn));
        disk.rename(&dir.join(spare.name()), &path).map_err(Error::io("rename to", &path))?;
        if !is_planted(Planted::FolderNotSynced) {
            disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        let file = disk.open(&path, OpenMode::ReadWrite).map_err(Error::io("open", &path))?;
        let random = disk.random().map_err(Error::io("draw random bytes for", &path))?;
        self.note_segment(Live { first: first_lsn, len: spare.len, used: 0 }, writer);
        let header = SegmentHeader {
            database_id: self.config.database_id,
            epoch: self.config.epoch,
            first_lsn,
            incarnation: get_u64(&random, 0),
            chain: writer.last.chain,
            segment_len: spare.len / JOURNAL_BLOCK_SIZE as u64 * JOURNAL_BLOCK_SIZE as u64,
            sequence: writer.next_sequence,
            supersedes: false,
        };
        writer.next_sequence += 1;
        writer.current = Some(Current {
            file,
            path,
            header,
            offset: 0,
            durable_len: 0,
            group_count: 0,
            ends_in_hard_state: false,
            is_spare_asked: false,
            is_reserve: spare.number == RESERVE,
        });
        Ok(())
    }

    pub(super) fn note_used(&self, current: &Current) {
        let mut shelf = self.shelf.lock();
        let first = current.header.first_lsn;
        if let Some(live) = shelf.segments.iter_mut().find(|live| live.first == first) {
            live.used = current.offset;
        }
    }

    pub(super) fn note_segment(&self, live: Live, writer: &mut Writer) {
        writer.next_len = (live.len * 2).min(segment_len_max(self.config.segment_size_max));
        let mut shelf = self.shelf.lock();
        // An empty segment of this name, of an interrupted roll, was replaced.
        shelf.segments.retain(|segment| segment.first != live.first);
        shelf.segments.push(live);
    }

    pub(super) fn take_or_make_spare(&self, len_min: u64, is_zeroing: bool) -> Result<Spare> {
        let mut shelf = self.shelf.lock();
        loop {
            if let Some(spare) = shelf.take_spare(len_min) {
                self.is_short.store(false, Ordering::Relaxed);
                return Ok(spare);
            }
            if shelf.preparing.is_none_or(|len| len < len_min) {
                break;
            }
            self.calls.hurry.store(true, Ordering::Relaxed);
            self.shelf_changed.wait(&mut shelf);
        }
        shelf.wanted = None;
        let spare = Spare { number: shelf.take_number(), len: len_min };
        drop(shelf);
        let (disk, dir) = (&*self.config.disk, &self.config.dir);
        let made = prepare_spare(disk, dir, spare, is_zeroing, None)?;
        self.is_short.store(false, Ordering::Relaxed);
        Ok(made.expect("nothing stops it"))
    }

    /// Asks for the next segment's file once the current one is more than half full.
    pub fn ask_for_spare(&self, writer: &mut Writer) {
        let next_len = writer.next_len;
        let Some(current) = &mut writer.current else { return };
        let is_half_full = current.offset * 2 > current.header.segment_len;
        if !self.config.background || !is_half_full || current.is_spare_asked {
            return;
        }
        current.is_spare_asked = true;
        let group_len = current.offset / current.group_count.max(1);
        let mut shelf = self.shelf.lock();
        if !shelf.has_spare(next_len) {
            shelf.wanted = Some(next_len);
            shelf.is_zeroing = group_len < LONG_GROUP_LEN;
            self.shelf_changed.notify_all();
        }
    }
}

/// Prepares spares as they are asked for, until the journal is dropped.
pub fn prepare_spares(shared: &Arc<Shared>) {
    let mut shelf = shared.shelf.lock();
    while !shared.calls.stop.load(Ordering::Relaxed) {
        if std::mem::take(&mut shelf.is_reserve_wanted) {
            drop(shelf);
            if let Err(error) = shared.fill_reserve() {
                tracing::warn!(%error, "cannot make the journal's reserve");
            }
            shelf = shared.shelf.lock();
            continue;
        }
        let Some(len) = shelf.wanted.take() else {
            shared.shelf_changed.wait(&mut shelf);
            continue;
        };
        let spare = Spare { number: shelf.take_number(), len };
        shelf.preparing = Some(len);
        shared.calls.hurry.store(false, Ordering::Relaxed);
        let is_zeroing = shelf.is_zeroing;
        drop(shelf);
        let config = &shared.config;
        let (disk, dir) = (&*config.disk, &config.dir);
        let made = prepare_spare(disk, dir, spare, is_zeroing, Some(&shared.calls));
        shelf = shared.shelf.lock();
        shelf.preparing = None;
        match made {
            Ok(made) => {
                shelf.spares.extend(made);
                shared.is_short.store(false, Ordering::Relaxed);
            }
            // The roll makes one itself, a shorter one where that is all there is room for, and fails if
            // it cannot.
            Err(error) => {
                tracing::warn!(%error, "cannot prepare a journal segment ahead");
            }
        }
        shared.shelf_changed.notify_all();
    }
}
