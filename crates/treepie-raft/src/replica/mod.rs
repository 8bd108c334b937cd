//! One node's part in its cluster, without threads, sockets, files or clocks.
//!
//! Who owns a replica tells it what happens (a tick, a message with its records, a sealed record, a job
//! of the journal that is done, …) and then takes the [`Effect`]s: messages to send, jobs for the
//! journal, what readers may see. The same inputs give the same effects.
//!
//! What holds:
//!
//! - A vote or an acknowledgement leaves after the sync that covers it; a leader's entries leave at once.
//! - A leader takes writes when all entries up to the one that began its term are committed, durable and
//!   visible here; then only its own sequencer proposes, so that LSN and Raft index are one number.
//! - After a leader has lost its place nothing is decided until `followed` says that it seals no more.
//! - Entries are committed when a majority has synced them, whether or not this node has.

mod effect;
mod membership;
mod outgoing;
mod reads;
mod receive;
mod turn;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use treepie::ids::{Lsn, Term};

use crate::{
    consensus::{Beginning, Config, Core, Handle, Handles, Step, conf_state},
    ids::NodeId,
    log::{HardState, Log, LogRecord, LogState, raft_term},
    members::{ChangeError, Members},
};

pub use crate::consensus::{Broken, Progress, Role};
pub use effect::{Effect, Job, Options, ReadError, Refused, Status, Stopped};

use membership::Wanted;
use outgoing::Notices;
use reads::Reads;
use turn::Outstanding;

/// Records that were sealed and wait for a hand-over to end, at most.
const HELD_MAX: usize = 65_536;
/// Records to read again at the start: those behind what is known to be committed.
const TAIL_MAX: u64 = 1 << 20;

/// One node's part in its cluster.
pub struct Replica<L: Log> {
    log: Arc<L>,
    options: Options,
    core: Core,
    members: Members,
    /// Members after records that are not committed yet.
    coming: BTreeMap<Lsn, Members>,
    /// The log has members: the cluster was founded.
    is_founded: bool,
    wanted: Option<Wanted>,
    stopped: Option<Stopped>,
    now: Duration,
    last_tick: Duration,
    ticks: u64,

    /// The term in which it takes writes.
    open: Option<Term>,
    /// What the database was told about who leads.
    told: Option<NodeId>,
    follows: u64,
    /// Until this call of `Log::follow` is done, nothing is decided.
    awaited: Option<u64>,
    /// Sealed records that wait for a hand-over to end.
    held: VecDeque<L::Record>,

    /// Records whose entries the core has not given out yet.
    arrived: BTreeMap<(Lsn, Term), L::Record>,
    arrived_len: u64,
    /// Records that are on their way to the journal.
    unsynced: BTreeMap<Lsn, L::Record>,
    unsynced_len: u64,
    outstanding: VecDeque<Outstanding>,
    jobs: u64,
    /// The last record that was given to the journal.
    issued: Lsn,
    /// The last record that the log may have: sealed ones count until they are cut off.
    log_last: Lsn,
    issued_state: HardState,
    durable_state: HardState,

    /// The last LSN that readers may see, as was said.
    published: Lsn,
    /// The last one that they do see.
    applied: Lsn,
    /// When a leader was last heard, and what was committed then, until it is applied.
    contact: Option<(Duration, Lsn)>,
    /// When the state here was last known to be the leader's.
    fresh: Option<Duration>,
    reads: Reads,
    notices: Notices,
    effects: Vec<Effect<L::Record>>,
}

impl<L: Log> Replica<L> {
    /// Begins as a follower with what the log has. Its committed part is applied.
    ///
    /// After a page stream was installed, the log has the term and vote of before: the owner writes them
    /// first, for they must never go back.
    ///
    /// # Errors
    /// [`Stopped`] when the log cannot be read, or contradicts itself.
    pub fn open(log: Arc<L>, options: Options, now: Duration) -> Result<Replica<L>, Stopped> {
        let state = log.state();
        let stored = log.members().map_err(|error| Stopped::Journal(error.to_string()))?;
        let is_founded = stored.is_some();
        let tail = read_tail(&*log, &state)?;
        let members = match (stored, &options.found) {
            (Some(bytes), _) => Members::decode(&bytes).map_err(broken)?,
            (None, Some(place)) => Members::found(options.id, place.clone()).map_err(broken)?,
            (None, None) => membership::founded(&tail.coming, options.id),
        };
        let mut handles = Handles::new(beginning(&*log, &state, &tail)?, conf_state(&members));
        for handle in &tail.handles {
            handles.push(*handle);
        }
        let config = Config {
            id: options.id,
            election_ticks: options.election_ticks,
            heartbeat_ticks: options.heartbeat_ticks,
            seed: options.seed,
        };
        let core = Core::open(config, handles, state.committed)?;
        let reads = Reads::new(options.id, options.seed);
        Ok(Replica {
            log,
            core,
            members,
            coming: tail.coming,
            is_founded,
            wanted: None,
            stopped: None,
            now,
            last_tick: now,
            ticks: 0,
            open: None,
            told: None,
            follows: 0,
            awaited: None,
            held: VecDeque::new(),
            arrived: BTreeMap::new(),
            arrived_len: 0,
            unsynced: BTreeMap::new(),
            unsynced_len: 0,
            outstanding: VecDeque::new(),
            jobs: 0,
            issued: state.last,
            log_last: state.last,
            issued_state: state.hard_state,
            durable_state: state.hard_state,
            published: state.committed,
            applied: state.committed,
            contact: None,
            fresh: None,
            reads,
            notices: Notices::default(),
            effects: Vec::new(),
            options,
        })
    }

    /// Time has passed. Call it about as often as ticks are long; what was missed is not made up for,
    /// because a node that stood still must not believe that its leader was silent.
    pub fn tick(&mut self, now: Duration) {
        self.pass_time(now);
        if self.stopped.is_some() || self.now < self.last_tick + self.options.tick {
            return;
        }
        self.last_tick = self.now;
        self.ticks += 1;
        let first = self.log.state().first;
        self.core.trim(first);
        self.reads.ask_again(self.ticks, self.retry_ticks());
        for id in self.reads.expired(self.now) {
            self.effects.push(Effect::Answer { id, outcome: Err(ReadError::TimedOut) });
        }
        let ticked = self.core.tick();
        self.check(ticked);
    }

    fn retry_ticks(&self) -> u64 {
        u64::from(self.options.election_ticks / 2).max(2 * u64::from(self.options.heartbeat_ticks))
    }

    /// A record that the database has sealed in the term in which it leads, in the order of LSNs. One of
    /// a leadership that is over has no effect.
    pub fn sealed(&mut self, record: L::Record) {
        let term = raft_term(record.term());
        if self.stopped.is_some() || self.open != Some(term) || self.has_lost_its_place() {
            return;
        }
        let expected = self.core.last().0 + self.held.len() as u64 + 1;
        if record.lsn().0 != expected || self.held.len() >= HELD_MAX {
            tracing::error!(lsn = record.lsn().0, expected, "a sealed record is out of order");
            self.step_down();
        } else if self.core.transfers_to().is_some() || !self.held.is_empty() {
            // Consensus takes nothing new while it hands over; who gets the place must catch up.
            self.held.push_back(record);
        } else {
            self.propose(record);
        }
    }

    fn propose(&mut self, record: L::Record) {
        let change = match self.step_of(&record) {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(lsn = record.lsn().0, %error, "a change of members was sealed");
                return self.step_down();
            }
        };
        match self.core.propose(&change) {
            Ok(crate::consensus::Proposed::Accepted) => {
                self.arrived_len += u64::from(record.record_len());
                self.arrived.insert((record.lsn(), raft_term(record.term())), record);
            }
            Ok(crate::consensus::Proposed::Dropped) => self.step_down(),
            Err(stopped) => self.stop(stopped.into()),
        }
    }

    fn step_of(&self, record: &L::Record) -> Result<Step, ChangeError> {
        match record.kind() {
            crate::message::EntryKind::Membership => {
                let members = receive::members_of(record).ok_or(ChangeError::NotAStep)?;
                crate::consensus::step(&self.members, &members)
            }
            _ => Ok(Step::Nothing),
        }
    }

    /// The job `number`, and all before it, are durable.
    pub fn persisted(&mut self, number: u64) {
        while self.outstanding.front().is_some_and(|first| first.job <= number) {
            let Some(done) = self.outstanding.pop_front() else { break };
            self.settle(done);
        }
    }

    /// Readers see this LSN.
    pub fn applied(&mut self, lsn: Lsn) {
        self.applied = self.applied.max(lsn);
        if let Some((heard, _)) = self.contact.filter(|(_, committed)| *committed <= self.applied) {
            self.fresh = Some(heard);
            self.contact = None;
        }
    }

    /// The call of `Log::follow` with this number is done, and the log ends there (`Log::state`).
    pub fn followed(&mut self, number: u64, last: Lsn) {
        if self.awaited != Some(number) {
            return;
        }
        self.awaited = None;
        self.log_last = self.issued.max(last);
        if self.log_last > self.issued {
            self.cut_off();
        }
    }

    /// A read that is linearizable: an [`Effect::Answer`] says when a snapshot of this node will do. `now`
    /// was read from the clock after the read was asked for.
    ///
    /// # Errors
    /// [`ReadError::Busy`] when too many wait.
    pub fn read(&mut self, now: Duration, id: u64, deadline: Duration) -> Result<(), ReadError> {
        self.pass_time(now);
        self.reads.add(id, deadline, None)
    }

    /// A read of a state at or after an LSN: that of a receipt, say.
    ///
    /// # Errors
    /// As [`Replica::read`].
    pub fn read_at_least(
        &mut self,
        id: u64,
        lsn: Lsn,
        deadline: Duration,
    ) -> Result<(), ReadError> {
        self.reads.add(id, deadline, Some(lsn))
    }

    /// How old the state here may be: a snapshot of this moment holds all that was committed that long
    /// ago, as far as messages took no time. `None` when no leader was heard.
    pub fn staleness(&mut self, now: Duration) -> Option<Duration> {
        self.pass_time(now);
        match self.open {
            Some(term) if self.reads.has_lease(term, self.now) => Some(Duration::ZERO),
            // Without a quorum for so long it would have given its place up.
            Some(_) => Some(self.options.tick * (2 * self.options.election_ticks)),
            None => self.fresh.map(|fresh| self.now.saturating_sub(fresh)),
        }
    }

    /// Hands leadership over. Records that are sealed meanwhile wait; if the other does not take it within
    /// an election timeout, they go on here.
    ///
    /// # Errors
    /// [`ChangeError`] when this node does not lead, or the other cannot.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), ChangeError> {
        if self.open.is_none() || self.stopped.is_some() || self.has_lost_its_place() {
            return Err(ChangeError::NotLeader { leader: self.core.leader() });
        }
        if !self.members.voters().any(|id| id == to) {
            return Err(ChangeError::NotMember(to));
        }
        self.reads.forbid_lease(self.core.term());
        let transferred = self.core.transfer(to);
        self.check(transferred);
        Ok(())
    }

    /// A message to this node was lost.
    pub fn unreachable(&mut self, peer: NodeId) {
        if self.stopped.is_none() {
            let told = self.core.unreachable(peer);
            self.check(told);
        }
    }

    /// The page stream that an [`Effect::Install`] asked for has ended: the other node has installed it,
    /// or not.
    pub fn install_ended(&mut self, peer: NodeId, is_whole: bool) {
        if self.stopped.is_none() {
            let told = self.core.install_ended(peer, is_whole);
            self.check(told);
        }
    }

    /// Whether a state of this LSN, whose last record has this term, is one that this node has not: it may
    /// be installed then. A node that has the record must keep what it has acknowledged behind it.
    #[must_use]
    pub fn lacks(&self, lsn: Lsn, term: Term) -> bool {
        lsn > self.core.committed() && self.core.term_of(lsn) != Some(term)
    }

    /// A write or sync of the journal has failed, or a commit: the replica stops.
    pub fn failed(&mut self, error: &treepie::Error) {
        self.stop(match error {
            treepie::Error::Diverged { lsn, .. } => Stopped::Divergence { lsn: *lsn },
            error => Stopped::Journal(error.to_string()),
        });
    }

    /// A thread that does its work has panicked: the replica stops.
    pub fn panicked(&mut self, name: &str) {
        self.stop(Broken(format!("the thread \"{name}\" has panicked")).into());
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        let others = self.members.iter().map(|(id, _)| id).filter(|id| *id != self.options.id);
        let progress = match self.core.role() {
            Role::Leader => others.filter_map(|id| Some((id, self.core.progress(id)?))).collect(),
            _ => Vec::new(),
        };
        Status {
            role: self.core.role(),
            is_open: self.open.is_some() && !self.has_lost_its_place(),
            term: self.core.term(),
            leader: self.core.leader(),
            last: self.core.last(),
            persisted: self.core.persisted_lsn(),
            committed: self.core.committed(),
            applied: self.applied,
            transfers_to: self.core.transfers_to(),
            members: self.members.clone(),
            progress,
        }
    }

    /// Who leads, if known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.core.leader()
    }

    /// Why it has stopped, if it has.
    #[must_use]
    pub fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    fn pass_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    fn stop(&mut self, stopped: Stopped) {
        if self.stopped.is_none() {
            tracing::error!(node = self.options.id.0, %stopped, "the replica has stopped");
            self.stopped = Some(stopped);
            // It leads nobody, and hears of nobody, from here on.
            self.open = None;
            self.contact = None;
            self.fresh = None;
        }
    }

    fn check(&mut self, result: Result<(), Broken>) {
        if let Err(broken) = result {
            self.stop(broken.into());
        }
    }

    fn step_down(&mut self) {
        let result = self.core.step_down();
        self.check(result);
    }

    /// It takes writes, and the core leads no more, or in another term.
    fn has_lost_its_place(&self) -> bool {
        self.open.is_some_and(|term| self.core.role() != Role::Leader || self.core.term() != term)
    }
}

/// What is remembered of the records behind what is known to be committed.
#[derive(Default)]
struct Tail {
    /// Chain hash of the record before them.
    chain_before: Option<u64>,
    handles: Vec<Handle>,
    coming: BTreeMap<Lsn, Members>,
}

fn read_tail<L: Log>(log: &L, state: &LogState) -> Result<Tail, Stopped> {
    let count = state.last.0.saturating_sub(state.committed.0);
    if count > TAIL_MAX {
        return Err(Broken(format!("{count} records are not known to be committed")).into());
    }
    let (mut tail, mut wrong) = (Tail::default(), None);
    let visited = log.visit(state.committed, &mut |record| {
        let expected = state.committed.0 + tail.handles.len() as u64 + 1;
        let is_noted = turn::note_members(&mut tail.coming, &record).is_ok();
        if record.lsn().0 != expected || !is_noted {
            wrong.get_or_insert(record.lsn());
        } else if wrong.is_none() {
            tail.chain_before.get_or_insert(record.chain_before());
            tail.handles.push(turn::handle(&record));
        }
    });
    visited.map_err(|error| Stopped::Journal(error.to_string()))?;
    match wrong {
        Some(lsn) => Err(damaged(lsn)),
        None if tail.handles.len() as u64 != count => {
            Err(Broken("the log ends before its last record".to_owned()).into())
        }
        None => Ok(tail),
    }
}

/// What the core begins with: terms are asked for where they change.
fn beginning<L: Log>(log: &L, state: &LogState, tail: &Tail) -> Result<Beginning, Stopped> {
    let floor = state.first.min(state.committed);
    let term_of = |lsn: Lsn| match lsn.0 {
        0 => Some(Term(0)),
        _ => log.term(lsn).map(raft_term),
    };
    let unknown = |lsn: Lsn| Broken(format!("the term of LSN {lsn} is not known"));
    let mut ranges = Vec::new();
    let (mut first, end) = (floor, state.committed);
    while first <= end {
        let term = term_of(first).ok_or_else(|| unknown(first))?;
        ranges.push((first, term));
        // The last LSN of this term lies in `low..=high`.
        let (mut low, mut high) = (first.0, end.0);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let found = term_of(Lsn(middle)).ok_or_else(|| unknown(Lsn(middle)))?;
            if found == term { low = middle } else { high = middle - 1 }
        }
        first = Lsn(low + 1);
    }
    let chain = tail.chain_before.unwrap_or(state.last_chain);
    let hard_state = HardState { term: raft_term(state.hard_state.term), ..state.hard_state };
    Ok(Beginning { hard_state, committed: state.committed, floor, ranges, chain })
}

fn broken(error: impl std::fmt::Display) -> Stopped {
    Broken(error.to_string()).into()
}

fn damaged(lsn: Lsn) -> Stopped {
    Broken(format!("the record of LSN {lsn} is out of order, or its members are damaged")).into()
}
