//! The journal as a Raft log: the hard state of this replica, and terms and chain hashes by LSN.
//!
//! A journal is replicated from its first hard state on, for ever. The newest one is written again at
//! the head of each segment, and the newest segment in which one is durable is never trimmed. So it is
//! found wherever a recovery begins.

use std::sync::atomic::Ordering;

use crate::{
    error::{Error, Result},
    format::{hard_state::HardState, record::SealedRecord},
    ids::{Lsn, Term},
    sync::{Planted, is_planted},
};

use super::{
    Journal, JournalPosition, Shared,
    cursor::{Cursor, Expected},
    spare::Shelf,
    writer::{HEAD_LEN, Head, Writer},
};

#[allow(dead_code, reason = "for who replicates the database")]
impl Journal {
    /// Makes it a replicated one: begins a segment with this hard state at its head, which is durable,
    /// as is everything before it. Does nothing to one that is replicated.
    ///
    /// # Errors
    /// [`Io`](Error::Io), which is poison unless nothing has changed; [`Poisoned`](Error::Poisoned).
    pub fn make_replicated(&self, hard_state: HardState) -> Result<()> {
        let shared = &*self.shared;
        let _trim = shared.trim_turn.lock();
        let _turn = shared.sync_turn.lock();
        let mut writer = shared.writer.lock();
        shared.check_poison()?;
        if writer.hard_state.is_some() {
            return Ok(());
        }
        shared.sync_current(&mut writer)?;
        writer.hard_state = Some(hard_state);
        // All that a journal which is not replicated holds is committed.
        shared.known_committed.store(writer.last.lsn.0, Ordering::Release);
        let after = (writer.last, writer.term);
        let begun = shared.begin_superseding(&mut writer, after, HEAD_LEN);
        if begun.is_err() {
            writer.hard_state = None;
        }
        begun
    }

    /// The newest hard state that was appended; none in a journal that is not replicated.
    pub fn hard_state(&self) -> Option<HardState> {
        self.shared.writer.lock().hard_state
    }

    /// The last record that was appended.
    pub fn last(&self) -> JournalPosition {
        self.shared.writer.lock().last
    }

    /// The term in the header of a record that was appended; no I/O. None below the first one that is
    /// known ([`first_known`](Journal::first_known)), and above the last one.
    pub fn term_of(&self, lsn: Lsn) -> Option<Term> {
        if lsn.0 > self.shared.appended.load(Ordering::Acquire) {
            return None;
        }
        self.shared.terms.lock().term(lsn)
    }

    /// The first LSN whose term is known: that of the record before the oldest one, or a later one.
    pub fn first_known(&self) -> Lsn {
        self.shared.terms.lock().first().map_or(Lsn(0), |first| first.0)
    }

    /// Says what term the last record has, where the journal has not got that record: behind an
    /// installation. Durable when it returns.
    ///
    /// # Errors
    /// [`Door`](Error::Door) when the term is known. As [`append_group`](Journal::append_group) and
    /// [`sync`](Journal::sync).
    ///
    /// # Panics
    /// If the journal is not replicated.
    pub fn set_base_term(&self, term: Term) -> Result<()> {
        let hard_state = {
            let mut writer = self.shared.writer.lock();
            if !self.shared.terms.lock().tell(writer.last.lsn, term) {
                let reason = "the journal has the term of the last record";
                return Err(Error::Door { action: "set the first term", reason });
            }
            writer.term = term;
            writer.hard_state.expect("the journal is replicated")
        };
        self.append_group(Some(&hard_state), &[], Lsn(0))?;
        self.sync().map(|_| ())
    }

    /// Notes up to where the consensus has committed: nothing of that is ever given up, and the hard
    /// states to come say so.
    pub fn note_committed(&self, lsn: Lsn) {
        self.shared.known_committed.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// A record that was appended and its chain hash; reads the journal unless it is the last one.
    ///
    /// # Errors
    /// [`Trimmed`](Error::Trimmed) when it is gone, and what reading gives.
    ///
    /// # Panics
    /// If it is above the last one.
    pub fn position_of(&self, lsn: Lsn) -> Result<JournalPosition> {
        let last = self.last();
        assert!(lsn <= last.lsn, "record {lsn} was not appended yet");
        if lsn == last.lsn {
            return Ok(last);
        }
        let pin = self.pin(lsn)?;
        let read = self.shared.read_position(lsn);
        // Where it was given up meanwhile, what was read is not to be believed.
        let pinned = self.advance_pin(pin, lsn);
        self.unpin(pin);
        pinned.and(read)
    }

    /// How often records were given up: whoever reads on behind what is committed begins anew when it
    /// has risen.
    pub fn truncation_count(&self) -> u64 {
        self.shared.truncations.load(Ordering::Acquire)
    }
}

impl Shared {
    /// The hard state for the head of the next group, where one belongs there.
    pub(super) fn head_of(
        &self,
        writer: &mut Writer,
        hard_state: Option<&HardState>,
    ) -> Option<SealedRecord> {
        if hard_state.is_none() && !writer.needs_hard_state() {
            return None;
        }
        if let Some(new) = hard_state {
            let before = writer.hard_state.expect("the journal is replicated");
            assert!(before.term <= new.term, "{before:?} is followed by {new:?}");
            writer.hard_state = Some(*new);
        } else if is_planted(Planted::HardStateNotVouchedFor)
            && writer.current.as_ref().is_some_and(|current| current.offset > 0)
        {
            return None;
        }
        Some(writer.seal_hard_state(&self.head()))
    }

    pub(super) fn head(&self) -> Head {
        Head {
            page_size: self.config.page_size,
            time_us: self.config.disk.now_us(),
            known_committed: Lsn(self.known_committed.load(Ordering::Acquire)),
        }
    }

    /// Notes that the segment `first` has the newest durable hard state.
    pub(super) fn hold_from(&self, first: Lsn) {
        if self.held_from.load(Ordering::Acquire) != u64::MAX {
            self.held_from.store(first.0, Ordering::Release);
        }
    }

    /// How many segments are older than the one with the newest durable hard state.
    pub(super) fn held(&self, shelf: &Shelf) -> usize {
        let held_from = self.held_from.load(Ordering::Acquire);
        if is_planted(Planted::HardStateTrimmed) {
            return shelf.segments.len();
        }
        shelf.segments.partition_point(|live| live.first.0 < held_from)
    }

    /// Forgets the terms of records that were trimmed, but for the last one of them.
    pub(super) fn forget_terms(&self) {
        let oldest = self.shelf.lock().segments.first().map(|live| live.first);
        if let Some(oldest) = oldest {
            self.terms.lock().trim(Lsn(oldest.0 - 1));
        }
    }

    /// Chain hash of a record below the last one that the journal has, or that a segment begins behind.
    pub(super) fn read_position(&self, lsn: Lsn) -> Result<JournalPosition> {
        let expected = Expected {
            identity: Some((self.config.database_id, self.config.epoch)),
            page_size: Some(self.config.page_size),
            position: None,
            is_live: true,
            needs_hard_state: false,
        };
        let (disk, dir) = (self.config.disk.clone(), &self.config.dir);
        let mut cursor = Cursor::open(disk, dir, lsn, expected)?;
        while cursor.last().0 < lsn && cursor.step()? {}
        match cursor.last() {
            (found, Some(chain)) if found == lsn => Ok(JournalPosition { lsn, chain }),
            (found, _) => Err(Error::JournalGap {
                folder: dir.clone(),
                missing: found.next(),
                evidence: format!("records up to {lsn} were appended"),
            }),
        }
    }
}
