//! Who owns the replica: it tells it what has happened, and hands out what the replica wants done. It does
//! no I/O and touches no payload, so that whoever brings something can be the one who does it.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use treepie::{ids::Term, replication::SharedRecord};

use super::{
    feeder::Wanted,
    input::{Answered, ChangeDone, Input, Waiting},
    log::{DoorLog, bytes_of},
    probe::Bug,
    shared::Shared,
    station::{Next, Worker},
    works::Works,
    writer::Decision,
};
use crate::{
    ids::NodeId,
    log::Log,
    members::{ChangeError, Members},
    message::Message,
    replica::{Effect, ReadError, Refused, Replica, Stopped},
    transport::{RecordToSend, Sent, Transport},
};

/// Inputs that are taken before the replica is asked what it wants.
const INPUTS_MAX: usize = 256;

/// Where what the replica wants done is done.
pub(super) struct Hands {
    pub(super) log: Arc<DoorLog>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) works: Arc<Works>,
    pub(super) feeder: Sender<Wanted>,
    pub(super) shared: Arc<Shared>,
}

/// The replica, and who waits for it.
pub(super) struct Driver {
    replica: Replica<DoorLog>,
    hands: Hands,
    tick: Duration,
    next_tick: Duration,
    /// Who is told, when it has ended, that it has yielded.
    yields_to: Option<Sender<bool>>,
    reads: HashMap<u64, Waiting>,
    changes: HashMap<u64, ChangeDone>,
    /// When other nodes were heard last.
    heard: BTreeMap<NodeId, Duration>,
    /// Numbers of reads and changes.
    next: u64,
    /// It has stopped, and the database was told.
    is_over: bool,
}

impl Driver {
    pub(super) fn new(replica: Replica<DoorLog>, hands: Hands, tick: Duration) -> Driver {
        let next_tick = hands.shared.clock.now() + tick;
        Driver {
            replica,
            hands,
            tick,
            next_tick,
            yields_to: None,
            reads: HashMap::new(),
            changes: HashMap::new(),
            heard: BTreeMap::new(),
            next: 1,
            is_over: false,
        }
    }

    /// Takes inputs, and then does what the replica wants. Returns whether the node goes on.
    fn turn(&mut self, inputs: &mut VecDeque<Input>) -> bool {
        for _ in 0..INPUTS_MAX {
            let Some(input) = inputs.pop_front() else { break };
            if !self.take(input) {
                return false;
            }
        }
        let now = self.hands.shared.clock.now();
        if now >= self.next_tick {
            // A database that takes no more writes leads nobody.
            if let Err(error) = self.hands.log.door.check()
                && !self.is_deaf()
            {
                self.replica.failed(&error);
            }
            self.replica.tick(now);
            if self.hands.log.door.damaged_pages().1 > 0 {
                super::repair::begin(&self.hands.shared, now);
            }
            self.write_a_move_down();
            self.next_tick = now + self.tick;
        }
        self.act(now);
        true
    }

    fn give_changes_up(&mut self) {
        for (_, done) in self.changes.drain() {
            done(Err(ChangeError::NotLeader { leader: None }));
        }
    }

    /// Returns whether the node goes on.
    fn take(&mut self, input: Input) -> bool {
        let now = self.hands.shared.clock.now();
        match input {
            Input::Message(message, records, credit) => {
                self.message(now, &message, &records);
                drop(credit);
            }
            Input::Sealed(record) => self.replica.sealed(record),
            Input::Persisted(number) => self.replica.persisted(number),
            Input::Applied(lsn) => self.replica.applied(lsn),
            // It shows in what the node says of itself.
            Input::Led => {}
            Input::Followed(number, last) => self.replica.followed(number, last),
            Input::MembersRefused(term) => self.replica.members_refused(term),
            Input::Read(waiting) => self.read(now, waiting),
            Input::Staleness(done) => done(self.replica.staleness(now)),
            Input::Change(change, done) => {
                let id = self.number();
                match self.replica.change(id, &change) {
                    Ok(()) => drop(self.changes.insert(id, done)),
                    Err(error) => done(Err(error)),
                }
            }
            Input::Transfer(to, reply) => drop(reply.send(self.replica.transfer(to))),
            Input::Unreachable(node) => self.replica.unreachable(node),
            Input::InstallEnded(node, is_whole) => self.replica.install_ended(node, is_whole),
            Input::Failed(_) if self.is_deaf() => {}
            Input::Failed(error) => self.replica.failed(&error),
            Input::Panicked(name) => self.replica.panicked(name),
            Input::Status(reply) => {
                let silent = self.heard.iter().map(|(id, heard)| (*id, now.saturating_sub(*heard)));
                let (replica, stopped) = (self.replica.status(), self.replica.stopped().cloned());
                drop(reply.send(Answered { replica, stopped, silent: silent.collect() }));
            }
            Input::YieldTo(lsn, term, reply) => {
                if self.replica.lacks(lsn, term) {
                    self.yields_to = Some(reply);
                    return false;
                }
                // Who asked has given up where nobody hears it.
                let _ = reply.send(false);
            }
            Input::Stop => return false,
        }
        true
    }

    fn is_deaf(&self) -> bool {
        self.hands.shared.options.probe.has(Bug::FailureUnheard)
    }

    fn message(&mut self, now: Duration, message: &Message, records: &[SharedRecord]) {
        self.heard.insert(message.from, now);
        match self.replica.message(now, message, records) {
            Ok(()) | Err(Refused::Stopped) => {}
            Err(refused) => {
                let (from, kind) = (message.from.0, message.kind);
                tracing::warn!(from, ?kind, %refused, "a message was not taken");
            }
        }
    }

    /// A member that has moved is moved among the members too, by who leads.
    fn write_a_move_down(&mut self) {
        if self.replica.open_term().is_none() {
            return;
        }
        let shared = Arc::clone(&self.hands.shared);
        let Some((node, change)) = shared.moves.next(&shared.members.read()) else { return };
        let id = self.number();
        match self.replica.change(id, &change) {
            Ok(()) => tracing::info!(node = node.0, "a member is reached elsewhere from now on"),
            Err(ChangeError::Pending | ChangeError::NotLeader { .. }) => {}
            Err(error) => {
                tracing::warn!(node = node.0, %error, "a member that has moved stays where it was");
                shared.moves.forget(node);
            }
        }
    }

    fn read(&mut self, now: Duration, waiting: Waiting) {
        let (id, deadline) = (self.number(), waiting.deadline);
        let added = match waiting.at_least {
            None => self.replica.read(now, id, deadline),
            Some(lsn) => self.replica.read_at_least(id, lsn, deadline),
        };
        match added {
            Ok(()) if !self.is_over => drop(self.reads.insert(id, waiting)),
            Ok(()) => (waiting.done)(Err(ReadError::TimedOut)),
            Err(error) => (waiting.done)(Err(error)),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Hands out what the replica wants done.
    fn act(&mut self, now: Duration) {
        match self.replica.effects(now) {
            Ok(effects) => effects.into_iter().for_each(|effect| self.hand_out(effect)),
            Err(stopped) => self.stopped(&stopped),
        }
        let leads = self.hands.shared.note(&self.replica, &self.hands.log);
        self.hands.works.leads.store(leads, Relaxed);
    }

    fn stopped(&mut self, stopped: &Stopped) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        tracing::error!(%stopped, "this node takes no more part in its cluster");
        // Who waits for a commit learns that it is not known.
        self.hands.decide(Decision::Follow(None, u64::MAX));
        for (_, waiting) in self.reads.drain() {
            (waiting.done)(Err(ReadError::TimedOut));
        }
        self.give_changes_up();
    }

    fn hand_out(&mut self, effect: Effect<SharedRecord>) {
        let hands = &self.hands;
        match effect {
            Effect::Send { message, records } => hands.send(message, records),
            Effect::Persist(job) => {
                let weight = job.records.iter().map(|record| record.len() as u64).sum();
                hands.works.journal.leave(job, weight);
            }
            Effect::Commit(lsn) => hands.decide(Decision::Commit(lsn)),
            Effect::Lead(term) => hands.decide(Decision::Lead(term)),
            Effect::Follow { leader, number } => hands.decide(Decision::Follow(leader, number)),
            Effect::Answer { id, outcome } => {
                if let Some(waiting) = self.reads.remove(&id) {
                    (waiting.done)(outcome);
                }
            }
            Effect::SetMembers { term, members, change } => {
                hands.set_members(term, members, change);
            }
            Effect::Changed { id, outcome } => {
                if let Some(done) = self.changes.remove(&id) {
                    done(outcome);
                }
            }
            Effect::Members(members) => {
                hands.meet(&members);
                // Whoever is no member is not waited for.
                self.heard.retain(|id, _| members.get(*id).is_some());
            }
            Effect::Install { peer, .. } => hands.install(peer),
        }
    }
}

impl Worker<Input> for Driver {
    fn work(&mut self, mut inputs: VecDeque<Input>) -> Next {
        loop {
            if !self.turn(&mut inputs) {
                let works = &self.hands.works;
                for input in inputs {
                    works.replica.leave(input, 0);
                }
                return Next::End;
            }
            if inputs.is_empty() {
                break;
            }
        }
        let due = self.replica.due().map_or(self.next_tick, |due| due.min(self.next_tick));
        let wait = due.saturating_sub(self.hands.shared.clock.now());
        Next::Until(Instant::now() + wait)
    }

    /// Whoever waits for a read waits on for the next replica, if there will be one.
    fn end(mut self, inputs: VecDeque<Input>) {
        let mut left = self.hands.shared.left.lock();
        left.extend(self.reads.drain().map(|(_, waiting)| waiting));
        left.extend(inputs.into_iter().filter_map(|input| match input {
            Input::Read(waiting) => Some(waiting),
            _ => None,
        }));
        drop(left);
        self.give_changes_up();
        self.hands.works.leads.store(false, Relaxed);
        self.hands.works.journal.shut();
        self.hands.works.decisions.shut();
        if let Some(reply) = self.yields_to.take() {
            // The old replica has ended either way.
            let _ = reply.send(true);
        }
    }
}

impl Hands {
    fn decide(&self, decision: Decision) {
        let weight = u64::from(!matches!(decision, Decision::Commit(_)));
        self.works.decisions.leave(decision, weight);
    }

    fn send(&self, mut message: Message, records: Vec<Option<SharedRecord>>) {
        let to = message.to;
        let has_records = !records.is_empty();
        let mut here = Vec::with_capacity(records.len());
        for (entry, record) in message.entries.iter_mut().zip(&records) {
            let record = record.clone().or_else(|| self.log.door.recent(entry.lsn));
            let Some(record) = record.filter(|record| record.term() == entry.term) else { break };
            *entry = crate::log::LogRecord::entry(&record);
            here.push(RecordToSend::Here(bytes_of(record)));
        }
        let is_taken = if here.len() == records.len() {
            self.transport.send(message, here) == Sent::Queued
        } else {
            self.feeder.try_send((message, records)).is_ok()
        };
        if !is_taken && has_records {
            self.works.replica.leave(Input::Unreachable(to), 0);
        }
    }

    /// Sealing may wait for way, which only the other threads make.
    fn set_members(&self, term: Term, members: Vec<u8>, change: Vec<u8>) {
        let (log, works) = (Arc::clone(&self.log), Arc::clone(&self.works));
        let spawned = self.shared.spawn("treepie members", move || {
            if let Err(error) = log.set_members(term, &members, &change) {
                tracing::warn!(%error, "a change of members could not be sealed");
                works.replica.put(Input::MembersRefused(term));
            }
        });
        if !spawned {
            self.works.replica.leave(Input::MembersRefused(term), 0);
        }
    }

    /// The members have changed.
    fn meet(&self, members: &Members) {
        self.shared.meet(members);
    }

    fn install(&self, peer: NodeId) {
        let (shared, log, works) =
            (Arc::clone(&self.shared), Arc::clone(&self.log), Arc::clone(&self.works));
        let spawned = self.shared.spawn("treepie install", move || {
            let sent = super::install::push(&shared, &log, peer);
            if let Err(error) = &sent {
                tracing::warn!(node = peer.0, %error, "a node could not be given all pages");
            }
            works.replica.put(Input::InstallEnded(peer, sent.is_ok()));
        });
        if !spawned {
            self.works.replica.leave(Input::InstallEnded(peer, false), 0);
        }
    }
}
