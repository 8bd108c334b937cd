//! The pipeline: from sealed records to final commits, in the order of their LSNs.
//!
//! ```text
//! seal ──> in flight ──> append (one write) ──> sync ──> commit: readers see it, callers are told
//!          bounded in records and bytes         └ whoever has the turn does it for all in flight
//! ```
//!
//! Whoever has sealed a record asks for its commit ([`Pipeline::commit`]); one at a time has the
//! turn, and takes along everything that is in flight by then: one write, one sync. What is sealed
//! meanwhile waits for the next turn. Which steps a record needs is a matter of its durability:
//!
//! | durability | final when                    | written, synced                               |
//! |------------|-------------------------------|-----------------------------------------------|
//! | `Sync`     | synced                        | at once                                       |
//! | `Buffered` | written                       | at once; synced with the next sync            |
//! | `Memory`   | all records before it are     | with the next write; synced with the next sync|
//!
//! A record is never final before the one in front of it. Lock order: the one writer's mutex, for
//! those who have it; then the turn; then the queue; then the commits.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::Instant,
};

use crate::{
    error::{Error, Result},
    format::record::SealedRecord,
    ids::Lsn,
    journal::{Room, group_len, is_full},
    options::Durability,
    sync::{LeafMutex, Mutex, Planted, is_planted},
};

use super::{
    core::{CommitPoint, Core},
    meters::Step,
};

/// Buffers of written records that are kept for records to come.
const SPARES_MAX: usize = 4;
/// Most bytes of all of them.
const SPARES_LEN_MAX: usize = 64 << 20;

/// A record that is sealed and not written yet.
#[derive(Debug)]
pub struct InFlight {
    /// The record.
    pub record: SealedRecord,
    /// What a checkpoint at its LSN needs to know.
    pub point: CommitPoint,
    /// When it is final.
    pub durability: Durability,
}

/// What is between sealing and committing.
#[derive(Debug, Default)]
pub struct Pipeline {
    turn: Mutex<()>,
    queue: Mutex<Queue>,
    failure: OnceLock<Failure>,
    spares: LeafMutex<Vec<SealedRecord>>,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<InFlight>,
    /// Bytes of `records`, and of those that are being written.
    bytes: u64,
    /// What they take in the journal at most, each by itself.
    reserved: u64,
}

impl Queue {
    fn written(&mut self, records: &[&SealedRecord], bytes: u64) {
        self.bytes -= bytes;
        self.reserved -= records.iter().map(|record| group_len(&[record])).sum::<u64>();
    }
}

/// The write or sync that failed, and up to where it leaves the outcome open.
#[derive(Debug)]
struct Failure {
    unknown_to: Lsn,
    source: Arc<Error>,
}

impl Pipeline {
    /// Records in flight, and their bytes; those that are being written count in the bytes alone.
    pub fn load(&self) -> (usize, u64) {
        let queue = self.queue.lock();
        (queue.records.len(), queue.bytes)
    }

    /// A record whose memory nobody needs any more.
    pub fn spare(&self) -> Option<SealedRecord> {
        self.spares.lock().pop()
    }

    /// Makes room in the journal for a record behind all that are in flight. `room` is what it may
    /// take where the disk is full.
    ///
    /// # Errors
    /// Those of [`Journal::reserve`](crate::journal::Journal::reserve).
    pub fn reserve(&self, core: &Core, record: &SealedRecord, room: Room) -> Result<()> {
        if core.replicated.is_on() {
            return core.replicated.reserve(core, record, room);
        }
        let in_flight = self.queue.lock().reserved;
        match core.journal.reserve(in_flight + group_len(&[record]), Room::Common) {
            Err(error) if room == Room::Reserve && is_full(&error) => {
                // What is in flight has its room, and goes there before the reserve is begun.
                self.write_out(core)?;
                core.journal.reserve(group_len(&[record]), room)
            }
            reserved => reserved,
        }
    }

    /// Writes what is in flight, so that none of it is.
    ///
    /// # Errors
    /// [`Error::Poisoned`]: what is unknown is the outcome of others.
    pub fn write_out(&self, core: &Core) -> Result<()> {
        let written = self.commit(core, core.watermarks.sealed(), Durability::Buffered);
        written.map_err(|error| match error {
            Error::OutcomeUnknown { .. } => {
                Error::Poisoned { action: "write or sync of the journal" }
            }
            error => error,
        })
    }

    /// Puts a sealed record behind those in flight. The caller is the writer, so that the order is
    /// that of the LSNs.
    pub fn push(&self, core: &Core, in_flight: InFlight) {
        let mut queue = self.queue.lock();
        queue.bytes += in_flight.record.bytes().len() as u64;
        queue.reserved += group_len(&[&in_flight.record]);
        core.watermarks.set_sealed(in_flight.record.lsn);
        if in_flight.durability == Durability::Memory {
            publish_next(core, in_flight.point);
        }
        if !in_flight.durability.is_synced() {
            core.flusher.ask_sync();
        }
        queue.records.push_back(in_flight);
    }

    /// Makes everything up to `lsn` final, as `durability` asks for. Returns when it is.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] when the write or sync fails that was to make it final,
    /// [`Error::Poisoned`] when an earlier one did, so that the record was never written.
    pub fn commit(&self, core: &Core, lsn: Lsn, durability: Durability) -> Result<()> {
        if is_final(core, lsn, durability) {
            return Ok(());
        }
        let _turn = self.turn.lock();
        // Goes before the turn does: nobody appends behind what a panic left out.
        let _guard = PoisonOnPanic { core };
        if is_final(core, lsn, durability) {
            return Ok(());
        }
        self.check_failure(core, lsn)?;
        let group = self.take(core);
        if is_final(core, lsn, durability) {
            // A record in memory only, whose predecessors are final now.
            self.put_back(group);
            return Ok(());
        }
        if is_planted(Planted::AcknowledgedBeforeWrite) && lsn.0.is_multiple_of(2) {
            self.put_back(group);
            return Ok(());
        }
        let sync = durability.is_synced() || group.iter().any(|r| r.durability.is_synced());
        let sync = sync && !is_planted(Planted::AcknowledgedBeforeSync);
        let last = group.last().map_or(core.watermarks.appended(), |last| last.record.lsn);
        if let Err(source) = self.write(core, &group, sync) {
            if is_planted(Planted::NotPoisoned) {
                return Err(source);
            }
            let action = if sync { "write or sync of the journal" } else { "write of the journal" };
            core.poison(action, &source);
            let failure = Failure { unknown_to: last, source: Arc::new(source) };
            self.failure.get_or_init(|| failure);
            return self.check_failure(core, lsn);
        }
        self.recycle(group);
        Ok(())
    }

    /// Takes what is in flight; what is final by the mere order of things becomes so.
    fn take(&self, core: &Core) -> Vec<InFlight> {
        let mut queue = self.queue.lock();
        let group: Vec<InFlight> = queue.records.drain(..).collect();
        for record in group.iter().take_while(|record| record.durability == Durability::Memory) {
            publish_next(core, record.point);
        }
        group
    }

    fn put_back(&self, group: Vec<InFlight>) {
        let mut queue = self.queue.lock();
        for record in group.into_iter().rev() {
            queue.records.push_front(record);
        }
    }

    /// Writes a group, syncs the journal if that is asked for, and publishes.
    fn write(&self, core: &Core, group: &[InFlight], sync: bool) -> Result<()> {
        let begin = Instant::now();
        let records: Vec<&SealedRecord> = group.iter().map(|record| &record.record).collect();
        let bytes: u64 = records.iter().map(|record| record.bytes().len() as u64).sum();
        core.journal.append(&records)?;
        self.queue.lock().written(&records, bytes);
        if let Some(last) = group.last() {
            core.watermarks.set_appended(last.record.lsn);
        }
        core.counters.record_bytes.fetch_add(bytes, Relaxed);
        let written = core.meters.step(Step::Write, begin);
        let mut end = written;
        if is_planted(Planted::EarlyPublish) {
            group.iter().for_each(|record| publish(core, record.point));
        }
        if sync {
            let synced = core.journal.sync()?;
            core.watermarks.set_synced(synced);
            core.counters.syncs.fetch_add(1, Relaxed);
            end = core.meters.step(Step::Sync, written);
        }
        group.iter().for_each(|record| publish(core, record.point));
        core.meters.step(Step::Commit, end);
        core.watch.wake();
        core.ask_checkpoint();
        Ok(())
    }

    fn recycle(&self, group: Vec<InFlight>) {
        let mut spares = self.spares.lock();
        for record in group.into_iter().map(|in_flight| in_flight.record) {
            let len: usize = spares.iter().chain([&record]).map(SealedRecord::memory_len).sum();
            if spares.len() < SPARES_MAX && len <= SPARES_LEN_MAX {
                spares.push(record);
            }
        }
    }

    fn check_failure(&self, core: &Core, lsn: Lsn) -> Result<()> {
        match self.failure.get() {
            Some(failure) if lsn <= failure.unknown_to => {
                Err(Error::OutcomeUnknown { lsn, source: Arc::clone(&failure.source) })
            }
            Some(_) => Err(Error::Poisoned { action: "write or sync of the journal" }),
            None => core.check_poison(),
        }
    }

    /// How the record `lsn` ended, once a commit has failed.
    ///
    /// # Errors
    /// As [`Pipeline::commit`].
    pub fn verdict(&self, core: &Core, lsn: Lsn, durability: Durability) -> Result<()> {
        if is_final(core, lsn, durability) { Ok(()) } else { self.check_failure(core, lsn) }
    }

    /// Makes everything that is sealed by now final and durable; returns up to where that is.
    ///
    /// # Errors
    /// As [`Pipeline::commit`].
    pub fn sync(&self, core: &Core) -> Result<Lsn> {
        if core.replicated.is_on() {
            return core.replicated.sync(core);
        }
        let lsn = core.watermarks.sealed();
        self.commit(core, lsn, Durability::Sync)?;
        Ok(lsn)
    }
}

/// Ends writing when a commit panics half-way.
struct PoisonOnPanic<'a> {
    core: &'a Core,
}

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        const ACTION: &str = "commit that panicked";
        if std::thread::panicking() {
            self.core.poison(ACTION, &Error::Poisoned { action: ACTION });
        }
    }
}

fn is_final(core: &Core, lsn: Lsn, durability: Durability) -> bool {
    let marks = &core.watermarks;
    let enough = match durability {
        Durability::Memory => true,
        Durability::Buffered => marks.appended() >= lsn,
        Durability::Sync | Durability::Group { .. } => marks.synced() >= lsn,
    };
    // Readers see it: `committed` rises a moment before.
    let visible = if is_planted(Planted::FinalBeforeVisible) {
        marks.committed()
    } else {
        core.pager.registry.visible()
    };
    enough && visible >= lsn
}

/// Publishes a commit if all before it are published, and it is not.
fn publish_next(core: &Core, point: CommitPoint) {
    let mut commits = core.commits.lock();
    if core.watermarks.committed().next() == point.position.lsn {
        core.publish(&mut commits, point);
    }
}

/// Publishes a commit that all before it are published of.
fn publish(core: &Core, point: CommitPoint) {
    let mut commits = core.commits.lock();
    if core.watermarks.committed() < point.position.lsn {
        core.publish(&mut commits, point);
    }
}
