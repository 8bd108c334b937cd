//! Giving up records that the cluster has decided against: a suffix of the journal, which was appended
//! here and never committed. Their numbers are taken again by others.
//!
//! Nothing is cut. A segment is begun that supersedes: its first LSN is that of the first record given
//! up, its sequence is the highest, and it has the hard state at its head. It is whole and durable before
//! it has its name, so a crash leaves either all of the records or none:
//!
//! ```text
//! sync what is kept                       a name promises that what is before it is durable
//! remove a newest segment without header  nobody could tell whether it was begun before or after
//! make the file, header and hard state in it, as `spare-<n>.new`, and sync it
//! rename it to its first LSN, over the segment of that name if there is one; sync the folder
//! remove the segments that begin above it; sync the folder
//! ```
//!
//! Recovery goes on in the new segment as soon as its first LSN is due, and finishes the removal: what
//! begins above it with a lower sequence are remains (see `survey`). The file is a new one and not a
//! spare, and goes to nobody's shelf: a file under a spare's name never has a header whose first LSN may
//! come again.

use std::{path::PathBuf, sync::atomic::Ordering};

use crate::{
    disk::OpenMode,
    error::{Error, Result},
    format::{
        bytes::get_u64,
        segment::{JOURNAL_BLOCK_SIZE, SEGMENT_HEADER_SIZE, SegmentHeader},
    },
    ids::{Lsn, Term},
    sync::{Planted, is_planted},
};

use super::{
    Journal, JournalPosition, Shared,
    reserve::ALLOCATE,
    roll::first_segment_len,
    segment::{align_block, read_header, segment_name},
    spare::Live,
    writer::{Current, HEAD_LEN, Writer, push_framed},
};

#[allow(dead_code, reason = "for who replicates the database")]
impl Journal {
    /// Gives up the records above `after`; durable when it returns.
    ///
    /// # Errors
    /// [`Io`](Error::Io): where nothing has changed a later call may succeed, else it is poison.
    /// [`Poisoned`](Error::Poisoned).
    ///
    /// # Panics
    /// If `after` is not a record of this journal, if it is below what is committed, and if the journal is
    /// not replicated.
    pub fn truncate(&self, after: JournalPosition) -> Result<()> {
        let shared = &*self.shared;
        let _trim = shared.trim_turn.lock();
        let _turn = shared.sync_turn.lock();
        let mut writer = shared.writer.lock();
        shared.check_poison()?;
        assert!(writer.hard_state.is_some(), "the journal is not replicated");
        assert!(after.lsn <= writer.last.lsn, "record {} was not appended", after.lsn);
        let committed = shared.known_committed.load(Ordering::Acquire);
        assert!(after.lsn.0 >= committed, "record {} is committed", after.lsn.next());
        if after == writer.last {
            return Ok(());
        }
        shared.sync_current(&mut writer)?;
        assert_eq!(shared.read_position(after.lsn)?, after, "it is of another history");
        shared.remove_empty(&mut writer, after.lsn)?;
        let term = shared.terms.lock().term(after.lsn).unwrap_or(Term(0));
        shared.begin_superseding(&mut writer, (after, term), HEAD_LEN)
    }
}

impl Shared {
    /// Makes everything durable that was appended. Called with `sync_turn` held.
    pub(super) fn sync_current(&self, writer: &mut Writer) -> Result<()> {
        let Some(current) = writer.current.as_mut() else { return Ok(()) };
        if writer.groups.durable < writer.groups.written {
            self.poison_on_error("sync of the journal", || {
                current.file.sync_data().map_err(Error::io("sync", &current.path))
            })?;
            current.durable_len = current.offset;
            self.hold_from(current.header.first_lsn);
        }
        writer.groups.durable = writer.groups.written;
        writer.synced = writer.last.lsn;
        Ok(())
    }

    /// Removes the segments above `after` that have no header: they hold nothing.
    fn remove_empty(&self, writer: &mut Writer, after: Lsn) -> Result<()> {
        let above: Vec<Lsn> = self.shelf.lock().segments.iter().map(|live| live.first).collect();
        for first in above.into_iter().filter(|&first| first > after.next()) {
            if read_header(&*self.config.disk, &self.config.dir, first)?.is_some() {
                continue;
            }
            writer.current.take_if(|current| current.header.first_lsn == first);
            self.shelf.lock().segments.retain(|live| live.first != first);
            self.poison_on_error("truncation of the journal", || {
                self.remove_segment(first)?;
                self.sync_folder()
            })?;
        }
        Ok(())
    }

    fn remove_segment(&self, first: Lsn) -> Result<()> {
        let path = self.config.dir.join(segment_name(first));
        self.config.disk.remove(&path).map_err(Error::io("remove", path))
    }

    pub(super) fn sync_folder(&self) -> Result<()> {
        let dir = &self.config.dir;
        self.config.disk.sync_dir(dir).map_err(Error::io("sync", dir))
    }

    /// As a roll, where the next segment has the name of one that holds the hard state alone: that one
    /// stays until the new one is durable.
    pub(super) fn roll_over(&self, writer: &mut Writer, needed: u64) -> Result<()> {
        self.sync_current(writer)?;
        let after = (writer.last, writer.term);
        let group_len = needed.saturating_sub(SEGMENT_HEADER_SIZE as u64);
        self.begin_superseding(writer, after, group_len + HEAD_LEN)
    }

    /// Begins a segment behind `after`, with the hard state at its head and room for a group, and
    /// removes what begins above it. Called with `sync_turn` held, everything up to `after` being durable.
    pub(super) fn begin_superseding(
        &self,
        writer: &mut Writer,
        (after, term): (JournalPosition, Term),
        group_len: u64,
    ) -> Result<()> {
        let dir = &self.config.dir;
        let len = align_block(SEGMENT_HEADER_SIZE as u64 + HEAD_LEN + group_len)
            .max(first_segment_len(self.config.segment_size_max));
        let number = self.shelf.lock().take_number();
        let new = dir.join(format!("spare-{number}.new"));
        let path = dir.join(segment_name(after.lsn.next()));
        let begun = match self.make_superseding(writer, (after, term), len, &new) {
            Ok(current) => Current { path: path.clone(), ..current },
            Err(error) => {
                if let Err(error) = self.config.disk.remove(&new) {
                    tracing::debug!(%error, file = %new.display(), "cannot remove a half-made segment");
                }
                return Err(error);
            }
        };
        self.poison_on_error("truncation of the journal", || {
            let disk = &self.config.disk;
            disk.rename(&new, &path).map_err(Error::io("rename to", &path))?;
            self.sync_folder()?;
            self.set_begun(writer, (after, term), begun)
        })
    }

    /// Makes the file under a name that no recovery keeps.
    fn make_superseding(
        &self,
        writer: &Writer,
        (after, term): (JournalPosition, Term),
        len: u64,
        new: &PathBuf,
    ) -> Result<Current> {
        let disk = &self.config.disk;
        let random = disk.random().map_err(Error::io("draw random bytes for", new))?;
        let header = SegmentHeader {
            database_id: self.config.database_id,
            epoch: self.config.epoch,
            first_lsn: after.lsn.next(),
            incarnation: get_u64(&random, 0),
            chain: after.chain,
            segment_len: len,
            sequence: writer.next_sequence,
            supersedes: true,
        };
        let mut bytes = header.encode().to_vec();
        let hard_state = writer.seal_first_hard_state(&self.head(), (after, term));
        push_framed(&mut bytes, header.incarnation, &hard_state, after.lsn);
        bytes.resize(bytes.len().next_multiple_of(JOURNAL_BLOCK_SIZE), 0);
        let file = disk.open(new, OpenMode::CreateNew).map_err(Error::io("create", new))?;
        file.allocate(len).map_err(Error::io(ALLOCATE, new))?;
        file.write_at(0, &bytes).map_err(Error::io("write", new))?;
        if !is_planted(Planted::HeadNotSynced) {
            file.sync_data().map_err(Error::io("sync", new))?;
        }
        let offset = bytes.len() as u64;
        Ok(Current {
            file,
            path: PathBuf::new(),
            header,
            offset,
            durable_len: offset,
            group_count: 1,
            ends_in_hard_state: true,
            is_spare_asked: false,
            is_reserve: false,
        })
    }

    /// The new segment is there: what is above `after` is no more.
    fn set_begun(
        &self,
        writer: &mut Writer,
        (after, term): (JournalPosition, Term),
        begun: Current,
    ) -> Result<()> {
        let first = after.lsn.next();
        let given_up = after.lsn < writer.last.lsn;
        if let Some(current) = writer.current.take() {
            self.note_used(&current);
        }
        let live = Live { first, len: begun.header.segment_len, used: begun.offset };
        let above = {
            let mut shelf = self.shelf.lock();
            let at = shelf.segments.partition_point(|live| live.first < first);
            let mut above = shelf.segments.split_off(at);
            above.retain(|live| live.first > first);
            shelf.segments.push(live);
            above
        };
        (writer.last, writer.term, writer.synced) = (after, term, after.lsn);
        writer.groups.durable = writer.groups.written;
        writer.next_sequence += 1;
        writer.current = Some(begun);
        self.held_from.store(first.0, Ordering::Release);
        self.appended.store(after.lsn.0, Ordering::Release);
        if given_up {
            self.terms.lock().truncate(after.lsn);
            self.marks.lock().truncate(after.lsn);
            self.truncations.fetch_add(1, Ordering::AcqRel);
        }
        for live in &above {
            self.remove_segment(live.first)?;
        }
        if above.is_empty() { Ok(()) } else { self.sync_folder() }
    }
}
