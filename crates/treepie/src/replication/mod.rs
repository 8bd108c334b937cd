//! The door for replication: records go out when they are sealed, and come in from elsewhere; somebody
//! else says which of them are final.
//!
//! Whoever replicates a database takes its [`Door`], one at a time. The database is then a *follower*: it
//! applies what it is given, and refuses writes, until the door says that it *leads*. Nothing of consensus
//! is in here. What the owner of the door has to keep to:
//!
//! ```text
//! leader     Outlet::sealed(record)    in the order of LSNs; send it, and give it to the journal:
//!            append(.., &[record]), sync()
//!            commit(lsn)               when enough nodes have it; also before the own sync
//! follower   SharedRecord::receive(bytes)
//!            append(.., &[record]), sync(), and only then say so
//!            commit(lsn)               when the leader says so
//! ```
//!
//! - `append`, `sync` and `truncate` come from one thread, `commit`, `lead` and `follow` from one. Both may
//!   run beside the other, and beside readers and writers.
//! - LSN and chain hash say whether a record continues another. The log never has a gap, and nothing that
//!   is committed is truncated: what would break that is refused ([`Error::Misfit`], [`Error::Door`]).
//! - Term and vote are durable with the same write and the same sync as the records that they come with.
//! - After [`Error::Poisoned`], or an error of `append` or `sync` that poisons, the node is out until the
//!   database is reopened: `follow(None)` tells the callers that wait.

mod log;
mod members;

use std::{fmt, sync::Arc};

use crate::{
    error::{Error, Result},
    format::record::{Compression, RecordBuilder, RecordMeta},
    ids::{Lsn, Term},
    journal::JournalPosition,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    txn::{core::Core, follower, outlet::Role},
};

pub use self::log::LogRecords;
use crate::format::shared::effective_term;
pub use crate::{
    format::{hard_state::HardState, record::RecordKind, shared::SharedRecord},
    txn::outlet::Outlet,
};

/// The hard state of a database that was in no cluster before: records without a term are of the first.
const FIRST_HARD_STATE: HardState = HardState { term: Term(1), vote: 0 };

/// How far a replicated log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The oldest LSN whose term is known: that of the record before the oldest one that is kept, or of
    /// the state that the database was made of.
    pub first: Lsn,
    /// The last appended record.
    pub last: Lsn,
    /// Its term.
    pub last_term: Term,
    /// Its chain hash.
    pub last_chain: u64,
    /// Up to where records are final, and readers see them.
    pub committed: Lsn,
    /// Up to where they are durable here.
    pub synced: Lsn,
    /// The newest hard state.
    pub hard_state: HardState,
}

/// The door. Dropping it gives it back, and leaves a follower of nobody. While it lives the database stays
/// open.
pub struct Door {
    core: Arc<Core>,
    /// Waits for room in memory, as writers do; keeps the database open.
    room: Box<dyn Fn() -> Result<()> + Send + Sync>,
    /// Where a follower reads on that has more to apply than is in memory.
    reader: Mutex<Option<LogRecords>>,
    is_closed: AtomicBool,
}

impl Door {
    /// Takes the door of a database.
    pub(crate) fn open(
        core: Arc<Core>,
        outlet: Arc<dyn Outlet>,
        room: Box<dyn Fn() -> Result<()> + Send + Sync>,
    ) -> Result<Door> {
        core.check_poison()?;
        core.replicated.take_door(outlet)?;
        let door = Door { core, room, reader: Mutex::new(None), is_closed: AtomicBool::new(false) };
        door.enter()?;
        Ok(door)
    }

    /// Makes a standalone database a replicated one.
    fn enter(&self) -> Result<()> {
        let core = &*self.core;
        if core.replicated.is_on() {
            return Ok(());
        }
        let _writer = core.merger.writer(core);
        core.pipeline.sync(core)?;
        core.journal.make_replicated(FIRST_HARD_STATE)?;
        core.replicated.enter();
        Ok(())
    }

    /// Gives the door back before it is dropped, and leaves a follower of nobody: callers who wait are
    /// told, and somebody else may take it. What is called after that finds the door as a follower does,
    /// and must not write.
    ///
    /// # Errors
    /// As [`follow`](Door::follow).
    pub fn close(&self) -> Result<()> {
        if self.is_closed.swap(true, AcqRel) {
            return Ok(());
        }
        let followed = self.follow(None);
        *self.reader.lock() = None;
        self.core.replicated.give_door_back();
        followed
    }

    /// Whether the database still takes what is appended and committed.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn check(&self) -> Result<()> {
        self.core.check_poison()
    }

    /// How many pages of the data file did not verify when they were read, and were not written since; and
    /// how many of them nobody has supplied yet ([`Database::repair_page`](crate::Database::repair_page)).
    #[must_use]
    pub fn damaged_pages(&self) -> (u64, u64) {
        let damaged = &self.core.pager.damaged;
        (damaged.len(), damaged.open_len())
    }

    /// How far the log is.
    #[must_use]
    pub fn state(&self) -> LogState {
        let core = &*self.core;
        let last = core.journal.last();
        LogState {
            first: core.journal.first_known(),
            last: last.lsn,
            last_term: self.term_of_last(last.lsn),
            last_chain: last.chain,
            committed: core.watermarks.committed(),
            synced: core.watermarks.synced(),
            hard_state: core.journal.hard_state().unwrap_or(FIRST_HARD_STATE),
        }
    }

    /// The term of the last record; it is known, unless the journal begins behind it.
    fn term_of_last(&self, last: Lsn) -> Term {
        effective_term(self.core.journal.term_of(last).unwrap_or_default())
    }

    /// Whether the database takes writes.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.core.replicated.role() == Role::Leader
    }

    /// Says of which term the last record is of a database that was made of pages, where the journal does
    /// not have it.
    ///
    /// # Errors
    /// [`Error::Door`] when the journal does. [`Error::Io`], which poisons the database.
    pub fn set_base_term(&self, term: Term) -> Result<()> {
        let _turn = self.core.replicated.log_turn.lock();
        self.core.check_poison()?;
        let result = self.core.journal.set_base_term(term);
        self.poison_if_needed(result)
    }

    /// The term of a record; none of one that is not kept any more, or not there yet. No I/O.
    #[must_use]
    pub fn term(&self, lsn: Lsn) -> Option<Term> {
        if lsn <= self.core.watermarks.appended() {
            return self.core.journal.term_of(lsn).map(effective_term);
        }
        self.core.replicated.recent(lsn).map(|record| record.term())
    }

    /// A record, if it is one of the recent ones that are in memory. No I/O.
    #[must_use]
    pub fn recent(&self, lsn: Lsn) -> Option<SharedRecord> {
        self.core.replicated.recent(lsn)
    }

    /// A record: one of the recent ones, from memory, else from the journal, which takes longer the
    /// deeper it lies in its segment: for many of them see [`records`](Door::records).
    ///
    /// # Errors
    /// [`Error::Trimmed`] when it is not kept any more, [`Error::Door`] when it is not there yet,
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn record(&self, lsn: Lsn) -> Result<SharedRecord> {
        if let Some(record) = self.core.replicated.recent(lsn) {
            return Ok(record);
        }
        let records = self.records(Lsn(lsn.0.saturating_sub(1)))?.next_record()?;
        let record = records.filter(|record| record.lsn() == lsn);
        record.ok_or(Error::Door { action: "read", reason: "there is no such record" })
    }

    /// The appended records above `after`, the oldest first, those included that are not committed. What
    /// was not read yet stays in the journal, up to
    /// [`journal_pins_max`](crate::Options::journal_pins_max).
    ///
    /// # Errors
    /// [`Error::Trimmed`] when the first of them is not kept any more.
    pub fn records(&self, after: Lsn) -> Result<LogRecords> {
        LogRecords::begin(Arc::clone(&self.core), after)
    }

    /// Puts records behind the last one, and a hard state, with one write. They are durable after
    /// [`sync`](Door::sync).
    ///
    /// # Errors
    /// [`Error::Misfit`] when they do not continue the log; [`Error::Io`] when there is no room, and
    /// nothing has changed, or when the write fails: then the database is poisoned. [`Error::Poisoned`].
    pub fn append(&self, hard_state: Option<HardState>, records: &[SharedRecord]) -> Result<()> {
        let core = &*self.core;
        let _turn = core.replicated.log_turn.lock();
        core.check_poison()?;
        self.check_append(hard_state, records)?;
        let sealed: Vec<_> = records.iter().map(SharedRecord::record).collect();
        if hard_state.is_none() && records.is_empty() {
            return Ok(());
        }
        let committed = core.watermarks.committed();
        let appended = core.journal.append_group(hard_state.as_ref(), &sealed, committed);
        self.poison_if_needed(appended)?;
        core.replicated.note_appended(core, records);
        let bytes: usize = records.iter().map(SharedRecord::len).sum();
        let counter = &core.counters.record_bytes;
        counter.fetch_add(bytes as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    fn check_append(&self, hard_state: Option<HardState>, records: &[SharedRecord]) -> Result<()> {
        let core = &*self.core;
        let known = core.journal.hard_state().unwrap_or(FIRST_HARD_STATE);
        if hard_state.is_some_and(|state| state.term < known.term) {
            return Err(Error::Door { action: "append", reason: "terms never fall" });
        }
        let is_leading = self.is_leading();
        let mut last = core.journal.last();
        let mut term = self.term_of_last(last.lsn);
        for record in records {
            let reason = if record.lsn() != last.lsn.next() {
                "the record has another number than the next one"
            } else if record.chain_before() != last.chain {
                "the record continues another one of that number"
            } else if record.term() < term {
                "the record is of an earlier term than the one before it"
            } else if record.page_size() != core.pager.page_size() {
                "the record is of another page size"
            } else if is_leading && !self.has_sealed(record) && self.is_leading() {
                "who leads appends what it has sealed"
            } else {
                last = JournalPosition { lsn: record.lsn(), chain: record.chain() };
                term = record.term();
                continue;
            };
            let wanted = Lsn(record.lsn().0.saturating_sub(1));
            return Err(self.misfit(wanted, last.lsn, reason));
        }
        Ok(())
    }

    fn has_sealed(&self, record: &SharedRecord) -> bool {
        let sealed = self.core.replicated.recent(record.lsn());
        sealed.is_some_and(|sealed| sealed.chain() == record.chain())
    }

    fn misfit(&self, wanted: Lsn, found: Lsn, reason: &'static str) -> Error {
        Error::Misfit { path: self.core.path.clone(), wanted, found, reason }
    }

    /// A failed write of the journal ends writing; a disk without room does not.
    fn poison_if_needed<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            if self.core.journal.is_poisoned() {
                self.core.poison("write of the journal", error);
            }
        })
    }

    /// Makes what was appended durable; returns up to which record that is.
    ///
    /// # Errors
    /// [`Error::Io`] when the sync fails: the database is poisoned. [`Error::Poisoned`].
    pub fn sync(&self) -> Result<Lsn> {
        let synced = self.core.replicated.sync_log(&self.core)?;
        self.core.ask_checkpoint();
        Ok(synced)
    }

    /// Gives up the records above `after`, which are not committed: others will have their numbers.
    /// Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Misfit`] when one of them is committed; [`Error::Door`] while the database leads;
    /// [`Error::Io`], which poisons it.
    pub fn truncate(&self, after: Lsn) -> Result<()> {
        let core = &*self.core;
        let _turn = core.replicated.log_turn.lock();
        let _sync = core.replicated.sync_turn.lock();
        core.check_poison()?;
        if self.is_leading() {
            return Err(Error::Door { action: "truncate", reason: "the database leads" });
        }
        let committed = core.watermarks.committed();
        if after < committed {
            return Err(self.misfit(after, committed, "what is committed is not given up"));
        }
        if after < core.journal.last().lsn {
            let truncated = self.position(after).and_then(|to| core.journal.truncate(to));
            self.poison_if_needed(truncated)?;
        }
        core.replicated.note_truncated(core, after);
        Ok(())
    }

    /// The record `lsn` and its chain hash.
    fn position(&self, lsn: Lsn) -> Result<JournalPosition> {
        let committed = self.core.commits.lock().back().map(|point| point.position);
        if let Some(position) = committed.filter(|position| position.lsn == lsn) {
            return Ok(position);
        }
        self.core.journal.position_of(lsn)
    }

    /// Makes records final up to `lsn`: readers see what they did, and the callers who wait are told. A
    /// follower applies them, and compares each page that they change with what the leader made of it.
    ///
    /// Of what is final already nothing is said. A leader may be ahead of its own journal.
    ///
    /// # Errors
    /// [`Error::Door`] when there is no such record yet. [`Error::Diverged`]: this replica applies no
    /// more. [`Error::Bound`] and [`Error::Io`] when there is no memory: it may be tried again.
    /// [`Error::Poisoned`], [`Error::Corrupt`].
    pub fn commit(&self, lsn: Lsn) -> Result<()> {
        let core = &*self.core;
        let _turn = core.replicated.commit_turn.lock();
        core.check_poison()?;
        if lsn <= core.watermarks.committed() {
            return Ok(());
        }
        if self.is_leading() {
            core.replicated.commit_sealed(core, lsn)?;
            core.journal.note_committed(lsn.min(core.journal.last().lsn));
            return Ok(());
        }
        if lsn > core.watermarks.appended() {
            return Err(Error::Door { action: "commit", reason: "the record is not there yet" });
        }
        core.replicated.check_diverged()?;
        while core.watermarks.committed() < lsn {
            (self.room)()?;
            let record = self.next_to_apply()?;
            follower::commit_received(core, &record)?;
        }
        core.journal.note_committed(lsn);
        core.watch.wake();
        core.ask_checkpoint();
        core.replicated.settle(core);
        Ok(())
    }

    /// The record that follows what is committed.
    fn next_to_apply(&self) -> Result<SharedRecord> {
        let committed = self.core.watermarks.committed();
        let mut reader = self.reader.lock();
        if let Some(record) = self.core.replicated.recent(committed.next()) {
            *reader = None;
            return Ok(record);
        }
        let mut records = match reader.take() {
            Some(records) if records.last() == committed => records,
            _ => self.records(committed)?,
        };
        let record = records.next_record()?;
        *reader = Some(records);
        record.ok_or(Error::Door { action: "commit", reason: "the record is not there yet" })
    }

    /// Opens the database for writes, in a term: everything in the log is committed, the empty record of
    /// the new leader included.
    ///
    /// # Errors
    /// [`Error::Door`] when it is not, or the term is lower than one before. [`Error::Diverged`],
    /// [`Error::Poisoned`], [`Error::Corrupt`].
    pub fn lead(&self, term: Term) -> Result<()> {
        let core = &*self.core;
        let _turn = core.replicated.commit_turn.lock();
        let refuse = |reason| Err(Error::Door { action: "lead", reason });
        core.check_poison()?;
        core.replicated.check_diverged()?;
        if self.is_leading() {
            return refuse("the database leads already");
        }
        let mut writer = core.merger.writer(core);
        let last = core.journal.last();
        if last != writer.tail || core.watermarks.committed() != last.lsn {
            return refuse("records are not committed yet");
        }
        if self.term_of_last(last.lsn) > term {
            return refuse("the term is lower than that of the last record");
        }
        follower::refresh_space(core, &mut writer)?;
        core.replicated.lead(term);
        Ok(())
    }

    /// Takes no more writes; `leader` is who does, if that is known. What was sealed and is not committed
    /// leaves readers' sight as if it had never been, and the callers who wait for it are told that its
    /// outcome is not known. Its records stay in the journal, as far as they were appended, until they are
    /// committed or truncated.
    ///
    /// Waits for a transaction that is open.
    ///
    /// # Errors
    /// None now.
    pub fn follow(&self, leader: Option<u64>) -> Result<()> {
        let core = &*self.core;
        let _turn = core.replicated.commit_turn.lock();
        // Before the writer's place is taken: who has it may be waiting for way.
        if core.replicated.begin_to_follow(leader) {
            let mut writer = core.merger.writer(core);
            let sealed = core.replicated.lose(core);
            follower::drop_speculation(core, &mut writer, &sealed);
            drop(writer);
            core.replicated.settle(core);
        }
        Ok(())
    }

    /// The empty record behind the last one with which a new leader begins. It is not appended.
    ///
    /// # Errors
    /// [`Error::Door`] while the database leads: its own records follow.
    pub fn no_op(&self, term: Term) -> Result<SharedRecord> {
        let core = &*self.core;
        if self.is_leading() {
            let reason = "the database leads already";
            return Err(Error::Door { action: "make an empty record", reason });
        }
        let last = core.journal.last();
        let meta = RecordMeta {
            kind: RecordKind::NoOp,
            lsn: last.lsn.next(),
            term,
            page_size: core.pager.page_size(),
            time_us: core.disk.now_us(),
            known_committed: core.watermarks.committed(),
            chain_before: last.chain,
        };
        let record = RecordBuilder::default().finish(&meta, Compression::Off);
        Ok(SharedRecord::sealed(record))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "the replication door was not closed in order");
        }
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("state", &self.state()).finish_non_exhaustive()
    }
}
