//! Replicated mode: records leave by an outlet, and somebody else says when they are final.
//!
//! ```text
//! leader     seal ──> outlet ──> … the journal, and the other nodes …  ──> commit(lsn): publish, settle
//!                └──> parked: the callers, by LSN                          └ in the order of LSNs
//! follower   append, sync  ──> commit(lsn): apply (`follower`), publish
//! ```
//!
//! Nothing here writes to the journal by itself: that is what the owner of the door does
//! (`replication`). A database that is not replicated asks one atomic, and is done.
//!
//! Who loses leadership says so first, which wakes whoever waits for way; then it takes the writer's
//! place, so that no transaction is between its first change and its seal, and drops what is not
//! final. Lock order: the turn of commits; the one writer's mutex; the turns of the log; the state
//! here; the commits.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    error::{Error, Result},
    format::{record::SealedRecord, shared::SharedRecord},
    ids::{Lsn, PageId, Term},
    journal::{Room, group_len},
    sync::{Condvar, Mutex, MutexGuard, Planted, is_planted},
};

use super::{
    core::{CommitPoint, Core},
    outlet::{Outlet, Role},
    parked::{Lost, Parked, Part, Waiter, Who},
    recent::Recent,
};

/// How long a sync waits for the journal to have what is final.
const APPEND_WAIT_MAX: Duration = Duration::from_millis(100);

/// What a database is in a cluster, and what waits for the others.
pub struct Replicated {
    /// A [`Role`]. Changed under `state`; the writer, who reads it, does not mind if it changes a moment
    /// later: whatever it seals until its place is taken is dropped then.
    role: AtomicU8,
    state: Mutex<State>,
    /// Way was made, records were appended, or the role changed.
    changed: Condvar,
    /// One commit, or change of the role, at a time.
    pub commit_turn: Mutex<()>,
    /// One append, or truncation, at a time.
    pub log_turn: Mutex<()>,
    /// One sync at a time, and none beside a truncation.
    pub sync_turn: Mutex<()>,
    /// Up to where the journal says, durably, that records are committed.
    vouched: AtomicU64,
}

struct State {
    /// There while somebody has the door.
    outlet: Option<Arc<dyn Outlet>>,
    leader: Option<u64>,
    /// That of what is sealed.
    term: Term,
    /// Sealed here, and not final.
    uncommitted: VecDeque<Uncommitted>,
    /// Bytes of their records.
    bytes: u64,
    /// Whether the next batch may run although one before it is not final.
    overlaps: bool,
    parked: VecDeque<Parked>,
    /// Somebody settles what is due.
    is_settling: bool,
    recent: Recent,
    /// Where this replica went astray.
    diverged: Option<(Lsn, PageId)>,
}

/// A record that was sealed here and is not final.
#[derive(Debug)]
pub struct Uncommitted {
    record: SharedRecord,
    point: CommitPoint,
    /// Pages that have a version of its LSN.
    pub pages: Vec<PageId>,
}

impl State {
    fn has_way(&self, core: &Core) -> bool {
        let may_overlap = self.overlaps || !core.bounds.background;
        self.uncommitted.is_empty()
            || (may_overlap && core.bounds.merging.has_way(self.uncommitted.len(), self.bytes))
    }
}

impl Replicated {
    /// The follower of nobody, if the database is in a cluster.
    pub fn new(recent_bytes_max: usize, is_on: bool) -> Replicated {
        let role = if is_on { Role::Follower } else { Role::Standalone };
        Replicated {
            role: AtomicU8::new(role as u8),
            state: Mutex::new(State {
                outlet: None,
                leader: None,
                term: Term(0),
                uncommitted: VecDeque::new(),
                bytes: 0,
                overlaps: false,
                parked: VecDeque::new(),
                is_settling: false,
                recent: Recent::new(recent_bytes_max),
                diverged: None,
            }),
            changed: Condvar::new(),
            commit_turn: Mutex::new(()),
            log_turn: Mutex::new(()),
            sync_turn: Mutex::new(()),
            vouched: AtomicU64::new(0),
        }
    }

    /// Whether the database is in a cluster.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.role.load(Relaxed) != Role::Standalone as u8
    }

    /// What the database is now.
    pub fn role(&self) -> Role {
        match self.role.load(Relaxed) {
            0 => Role::Standalone,
            1 => Role::Follower,
            _ => Role::Leader,
        }
    }

    /// The term of what is sealed now.
    pub fn term(&self) -> Term {
        if self.is_on() { self.state.lock().term } else { Term(0) }
    }

    /// Refuses writes where they are not taken.
    ///
    /// # Errors
    /// [`Error::NotLeader`].
    #[inline]
    pub fn check_writes(&self) -> Result<()> {
        if self.role.load(Relaxed) == Role::Follower as u8 { self.refuse() } else { Ok(()) }
    }

    #[cold]
    fn refuse(&self) -> Result<()> {
        Err(Error::NotLeader { leader: self.state.lock().leader })
    }

    /// Where this replica went astray, if it did.
    ///
    /// # Errors
    /// [`Error::Diverged`].
    pub fn check_diverged(&self) -> Result<()> {
        match self.state.lock().diverged {
            Some((lsn, page)) => Err(Error::Diverged { lsn, page }),
            None => Ok(()),
        }
    }

    /// Notes where it did.
    pub fn set_diverged(&self, lsn: Lsn, page: PageId) {
        self.state.lock().diverged.get_or_insert((lsn, page));
    }

    /// Wakes who waits for way, to look again.
    pub fn wake(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// Gives the door away, if nobody has it.
    ///
    /// # Errors
    /// [`Error::Door`].
    pub fn take_door(&self, outlet: Arc<dyn Outlet>) -> Result<()> {
        let mut state = self.state.lock();
        if state.outlet.is_some() {
            return Err(Error::Door { action: "open", reason: "somebody else has it" });
        }
        state.outlet = Some(outlet);
        Ok(())
    }

    /// Takes the door back.
    pub fn give_door_back(&self) {
        self.state.lock().outlet = None;
    }

    /// Makes a database that is in no cluster the follower of nobody.
    pub fn enter(&self) {
        self.set_role(&mut self.state.lock(), Role::Follower, None);
    }

    /// Opens it for writes. The caller is the writer.
    pub fn lead(&self, term: Term) {
        let mut state = self.state.lock();
        assert!(state.uncommitted.is_empty(), "who begins to lead has sealed nothing");
        state.term = term;
        self.set_role(&mut state, Role::Leader, None);
    }

    /// Takes no more writes; what is being sealed at this moment still is. Returns whether there is
    /// something to be dropped.
    pub fn begin_to_follow(&self, leader: Option<u64>) -> bool {
        let mut state = self.state.lock();
        let was_leader = self.role() == Role::Leader;
        self.set_role(&mut state, Role::Follower, leader);
        was_leader
    }

    fn set_role(&self, state: &mut State, role: Role, leader: Option<u64>) {
        self.role.store(role as u8, Relaxed);
        state.leader = leader;
        self.changed.notify_all();
    }

    /// Gives up what was sealed and is not final, and returns it, oldest first; its callers are told that
    /// the outcome is not known. The caller is the writer, has begun to follow, and settles.
    pub fn lose(&self, core: &Core) -> Vec<Uncommitted> {
        let mut state = self.state.lock();
        let committed = core.watermarks.committed();
        let lost = Lost { committed, leader: state.leader };
        state.parked.iter_mut().for_each(|parked| parked.lost = Some(lost));
        state.bytes = 0;
        let last = core.watermarks.appended().max(committed);
        core.watermarks.fall_to(last);
        state.recent.cut(last);
        state.uncommitted.drain(..).collect()
    }

    /// Waits until another record may be sealed. The caller is the writer.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Poisoned`]; [`Error::Bound`] without threads, where nobody else
    /// could make way.
    pub fn wait_for_way(&self, core: &Core) -> Result<()> {
        let merging = &core.bounds.merging;
        let mut state = self.state.lock();
        loop {
            core.check_poison()?;
            if self.role() != Role::Leader {
                return Err(Error::NotLeader { leader: state.leader });
            }
            if state.has_way(core) {
                return Ok(());
            }
            if !core.bounds.background {
                return Err(Error::Bound {
                    option: "in_flight_records_max",
                    max: merging.in_flight_records_max as u64,
                    hint: "without threads nobody waits; have what is in flight committed first",
                });
            }
            self.changed.wait(&mut state);
        }
    }

    /// Whether the next batch may run although this one is not final.
    pub fn set_overlaps(&self, overlaps: bool) {
        self.state.lock().overlaps = overlaps;
    }

    /// Makes room in the journal for a record behind all that were sealed and not written.
    ///
    /// # Errors
    /// Those of [`Journal::reserve`](crate::journal::Journal::reserve).
    pub fn reserve(&self, core: &Core, record: &SealedRecord, room: Room) -> Result<()> {
        let appended = core.watermarks.appended();
        let state = self.state.lock();
        let sealed = state.uncommitted.iter().map(|sealed| sealed.record.record());
        let waiting = sealed.filter(|record| record.lsn > appended);
        let in_flight: u64 = waiting.map(|record| group_len(&[record])).sum();
        drop(state);
        // The reserve is for what finds nothing in front of it.
        let room = if in_flight == 0 { room } else { Room::Common };
        core.journal.reserve(in_flight + group_len(&[record]), room)
    }

    /// Sends a sealed record out. The caller is the writer.
    pub fn push(&self, core: &Core, record: SealedRecord, point: CommitPoint, pages: Vec<PageId>) {
        let record = SharedRecord::sealed(record);
        let mut state = self.state.lock();
        core.watermarks.set_sealed(record.lsn());
        state.bytes += record.len() as u64;
        state.recent.push(record.clone());
        state.recent.shrink(core.watermarks.appended());
        state.uncommitted.push_back(Uncommitted { record: record.clone(), point, pages });
        let outlet = state.outlet.clone();
        drop(state);
        outlet.into_iter().for_each(|outlet| outlet.sealed(record.clone()));
    }

    /// The writer has let go.
    pub fn released(&self) {
        let outlet = self.state.lock().outlet.clone();
        outlet.into_iter().for_each(|outlet| outlet.released());
    }

    /// Parks closures until the record is final that they share. The caller is the writer.
    pub(super) fn park(&self, lsn: Lsn, has_record: bool, part: Part) {
        self.add_parked(Parked { lsn, has_record, lost: None, who: Who::Part(part) });
    }

    /// The same for a transaction of its own, whose caller waits.
    pub(super) fn park_one(&self, lsn: Lsn, has_record: bool) -> Arc<Waiter> {
        let waiter = Arc::<Waiter>::default();
        let who = Who::One(Arc::clone(&waiter));
        self.add_parked(Parked { lsn, has_record, lost: None, who });
        waiter
    }

    fn add_parked(&self, parked: Parked) {
        self.state.lock().parked.push_back(parked);
    }

    /// Tells the callers of what is final by now. One does that at a time: who finds another at it leaves
    /// it to that one.
    pub fn settle(&self, core: &Core) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_settling, true) {
            return;
        }
        loop {
            let committed = core.watermarks.committed();
            let Some(parked) = state.parked.pop_front_if(|parked| parked.is_due(committed)) else {
                break;
            };
            drop(state);
            // A panic of a caller's own is none of the others'.
            if catch_unwind(AssertUnwindSafe(|| parked.settle())).is_err() {
                tracing::error!("settling a write has panicked");
            }
            state = self.state.lock();
        }
        state.is_settling = false;
    }

    /// Makes what was sealed here final up to `lsn`.
    ///
    /// # Errors
    /// [`Error::Door`] when it was not sealed.
    pub fn commit_sealed(&self, core: &Core, lsn: Lsn) -> Result<()> {
        let mut state = self.state.lock();
        if lsn > core.watermarks.sealed() {
            return Err(Error::Door { action: "commit", reason: "the record was not sealed" });
        }
        while let Some(sealed) = state.uncommitted.pop_front_if(|s| s.record.lsn() <= lsn) {
            state.bytes -= sealed.record.len() as u64;
            core.publish(&mut core.commits.lock(), sealed.point);
        }
        self.changed.notify_all();
        drop(state);
        core.watch.wake();
        core.ask_checkpoint();
        self.settle(core);
        Ok(())
    }

    /// Notes that the journal has these records. The caller has the turn of the log.
    pub fn note_appended(&self, core: &Core, records: &[SharedRecord]) {
        let Some(last) = records.last() else { return };
        let mut state = self.state.lock();
        if self.role() != Role::Leader {
            records.iter().for_each(|record| state.recent.push(record.clone()));
        }
        core.watermarks.set_sealed(core.watermarks.sealed().max(last.lsn()));
        core.watermarks.set_appended(last.lsn());
        state.recent.shrink(last.lsn());
        self.changed.notify_all();
    }

    /// Notes that it has not got those above `lsn` any more. The caller has the turns of the log and of
    /// syncs.
    pub fn note_truncated(&self, core: &Core, lsn: Lsn) {
        let mut state = self.state.lock();
        state.recent.cut(lsn);
        core.watermarks.fall_to(lsn);
    }

    /// A record that is in memory.
    pub fn recent(&self, lsn: Lsn) -> Option<SharedRecord> {
        self.state.lock().recent.get(lsn).cloned()
    }

    /// Bytes of the records that are.
    pub fn recent_bytes(&self) -> usize {
        self.state.lock().recent.bytes()
    }

    /// Makes durable what is final by now, as far as the journal has it; returns up to where it is.
    ///
    /// # Errors
    /// Those of [`sync_log`](Replicated::sync_log).
    pub fn sync(&self, core: &Core) -> Result<Lsn> {
        let goal = core.watermarks.committed();
        loop {
            let synced = self.sync_log(core)?;
            // Others may have made it final before the journal here has it.
            if synced >= goal || !core.bounds.background {
                return Ok(synced);
            }
            let mut state = self.state.lock();
            if core.watermarks.appended() < goal && self.wait_for_append(&mut state) {
                return Ok(synced);
            }
        }
    }

    /// Returns whether nothing came.
    fn wait_for_append(&self, state: &mut MutexGuard<'_, State>) -> bool {
        self.changed.wait_for(state, APPEND_WAIT_MAX).timed_out()
    }

    /// Makes it durable that records are committed up to `lsn`, which the journal has, before the data file
    /// gets anything of what they did: after a crash they are applied again then, whatever is left of a
    /// page that was being written. Returns whether it is: the disk may have no room for it.
    ///
    /// # Errors
    /// [`Error::Io`] when the write or the sync fails: the database is poisoned. [`Error::Poisoned`].
    pub fn vouch(&self, core: &Core, lsn: Lsn) -> Result<bool> {
        if !self.is_on()
            || self.vouched.load(Relaxed) >= lsn.0
            || is_planted(Planted::CommitsNotVouchedFor)
        {
            return Ok(true);
        }
        let turn = self.log_turn.lock();
        core.check_poison()?;
        let hard_state = core.journal.hard_state().expect("a replicated journal has one");
        let committed = core.watermarks.committed().min(core.watermarks.appended());
        let noted = core.journal.append_group(Some(&hard_state), &[], committed);
        if let Err(error) = noted {
            if !core.journal.is_poisoned() {
                tracing::warn!(%error, "the journal cannot vouch for commits");
                return Ok(false);
            }
            core.poison("write of the journal", &error);
            return Err(error);
        }
        drop(turn);
        self.sync_log(core)?;
        self.vouched.fetch_max(committed.0, Relaxed);
        Ok(true)
    }

    /// Makes durable what the journal has; returns up to where it is.
    ///
    /// # Errors
    /// [`Error::Io`] when the sync fails: the database is poisoned. [`Error::Poisoned`].
    pub fn sync_log(&self, core: &Core) -> Result<Lsn> {
        let turn = self.sync_turn.lock();
        core.check_poison()?;
        let synced = match core.journal.sync() {
            Ok(synced) => synced,
            Err(error) => {
                core.poison("sync of the journal", &error);
                return Err(error);
            }
        };
        core.counters.syncs.fetch_add(1, Relaxed);
        // Who appends says so a moment after the journal has it.
        let synced = synced.min(core.watermarks.appended());
        core.watermarks.set_synced(core.watermarks.synced().max(synced));
        drop(turn);
        core.watch.wake();
        Ok(synced)
    }
}

impl fmt::Debug for Replicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicated").field("role", &self.role()).finish_non_exhaustive()
    }
}
