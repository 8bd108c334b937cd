//! From what consensus wants to effects: jobs of the journal, and what leaves before and after them.

use std::{collections::BTreeMap, mem, time::Duration};

use treepie::ids::{Lsn, Term};

use crate::{
    consensus::{Handle, Role, Turn},
    log::{HardState, Log, LogRecord, raft_term},
    members::Members,
    message::{EntryKind, Message, MessageKind},
};

use super::{
    Replica,
    effect::{Effect, Job, Stopped},
    outgoing::{join_acks, join_appends},
    receive::members_of,
};

/// What waits until a job of the journal is done.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) job: u64,
    /// The turn of the core that is durable with it, if it is one's.
    turn: Option<u64>,
    hard_state: Option<HardState>,
    records: Vec<(Lsn, Term)>,
    messages: Vec<Message>,
}

/// The handle of a record.
pub(super) fn handle<R: LogRecord>(record: &R) -> Handle {
    Handle { entry: record.entry(), chain: record.chain() }
}

/// Remembers what a membership record says, until it is committed; forgets what it takes the place of.
pub(super) fn note_members<R: LogRecord>(
    coming: &mut BTreeMap<Lsn, Members>,
    record: &R,
) -> Result<(), ()> {
    coming.split_off(&record.lsn());
    if record.kind() == EntryKind::Membership {
        coming.insert(record.lsn(), members_of(record).ok_or(())?);
    }
    Ok(())
}

impl<L: Log> Replica<L> {
    /// What is to be done, in this order. Call it after each input, or after several.
    ///
    /// # Errors
    /// [`Stopped`] when this node takes no more part: nothing is to be done then, and nothing was.
    pub fn effects(&mut self, now: Duration) -> Result<Vec<Effect<L::Record>>, Stopped> {
        self.pass_time(now);
        if self.stopped.is_none()
            && let Err(stopped) = self.run()
        {
            self.stop(stopped);
        }
        match &self.stopped {
            Some(stopped) => Err(stopped.clone()),
            None => Ok(mem::take(&mut self.effects)),
        }
    }

    fn run(&mut self) -> Result<(), Stopped> {
        if self.has_lost_its_place() {
            self.stop_leading();
        }
        while self.awaited.is_none() {
            self.propose_held();
            self.start_reads()?;
            self.announce()?;
            if !self.core.has_turn() {
                break;
            }
            self.take_turn()?;
            if self.has_lost_its_place() {
                self.stop_leading();
            }
        }
        if self.awaited.is_none() {
            self.arrived.clear();
            self.arrived_len = 0;
            self.publish();
            self.drive_members();
        }
        for (id, lsn) in self.reads.answered(self.applied) {
            self.effects.push(Effect::Answer { id, outcome: Ok(lsn) });
        }
        match &self.stopped {
            Some(stopped) => Err(stopped.clone()),
            None => Ok(()),
        }
    }

    fn stop_leading(&mut self) {
        self.open = None;
        self.held.clear();
        self.reads.ask_all_again();
        self.give_up_change();
        self.awaited = Some(self.tell_leader());
    }

    fn tell_leader(&mut self) -> u64 {
        self.told = self.core.leader().filter(|leader| *leader != self.options.id);
        self.follows += 1;
        self.effects.push(Effect::Follow { leader: self.told, number: self.follows });
        self.follows
    }

    fn propose_held(&mut self) {
        while self.core.transfers_to().is_none()
            && !self.has_lost_its_place()
            && let Some(record) = self.held.pop_front()
        {
            self.propose(record);
        }
    }

    fn start_reads(&mut self) -> Result<(), Stopped> {
        if !self.reads.is_waiting() {
            return Ok(());
        }
        let (term, leads) = (self.core.term(), self.core.role() == Role::Leader);
        if leads && !self.core.has_committed_in_its_term() {
            return Ok(());
        }
        if leads && self.options.lease && self.reads.has_lease(term, self.now) {
            self.reads.confirm_waiting(self.core.committed());
        } else if self.core.leader().is_some()
            && let Some(context) = self.reads.ask(self.now, self.ticks, leads.then_some(term))
        {
            self.core.read_index(context)?;
        }
        Ok(())
    }

    fn take_turn(&mut self) -> Result<(), Stopped> {
        let mut records: Vec<L::Record> = Vec::new();
        let mut turn = {
            let Replica { core, arrived, log, coming, .. } = self;
            core.take(|lsn, term| {
                let record = match arrived.remove(&(lsn, term)) {
                    Some(record) => record,
                    // An entry that nobody sent is the one with which this node began to lead.
                    None => log.no_op(term).ok()?,
                };
                let is_it = record.lsn() == lsn && raft_term(record.term()) == term;
                if !is_it || note_members(coming, &record).is_err() {
                    return None;
                }
                let handle = handle(&record);
                records.push(record);
                Some(handle)
            })?
        };
        self.check_chain(&records)?;
        self.issue(&mut turn, records);
        for lsn in mem::take(&mut turn.memberships) {
            self.apply_members(lsn)?;
        }
        self.core.advance_apply()?;
        for (context, lsn) in mem::take(&mut turn.confirmed) {
            self.confirm_reads(&context, lsn);
        }
        for (peer, at_least) in turn.installs {
            self.effects.push(Effect::Install { peer, at_least });
        }
        Ok(())
    }

    /// Each record continues the history that the one before it ends.
    fn check_chain(&self, records: &[L::Record]) -> Result<(), Stopped> {
        for record in records {
            let lsn = Lsn(record.lsn().0 - 1);
            if self.core.handles().chain(lsn).is_some_and(|chain| chain != record.chain_before()) {
                return Err(Stopped::Divergence { lsn });
            }
        }
        Ok(())
    }

    /// Gives the journal its job, and lets messages go: now, or when it is done.
    fn issue(&mut self, turn: &mut Turn, records: Vec<L::Record>) {
        let hard_state = turn.hard_state.take().filter(|state| *state != self.issued_state);
        let is_job = hard_state.is_some() || !records.is_empty();
        let numbers = records.iter().map(|r| (r.lsn(), raft_term(r.term()))).collect();
        if is_job {
            self.issue_job(hard_state, records);
        }
        let mut after = join_acks(mem::take(&mut turn.after_sync));
        let mut at_once = join_appends(mem::take(&mut turn.at_once));
        let is_durable = |message: &Message| message.term <= self.durable_state.term;
        // What a voter alone in its cluster sends to learners must wait for its own vote.
        let early: Vec<Message> = at_once.extract_if(.., |message| !is_durable(message)).collect();
        after.extend(early);
        // That a leader was heard promises nothing about the log, and must not wait for a slow disk.
        let is_reply = |message: &Message| message.kind == MessageKind::HeartbeatReply;
        at_once.extend(after.extract_if(.., |message| is_reply(message) && is_durable(message)));
        let done = Outstanding {
            job: self.jobs,
            turn: Some(turn.number),
            hard_state,
            records: numbers,
            messages: after,
        };
        self.send(at_once);
        match is_job || !self.outstanding.is_empty() {
            true => self.outstanding.push_back(done),
            false => self.settle(done),
        }
    }

    fn issue_job(&mut self, hard_state: Option<HardState>, records: Vec<L::Record>) {
        let first = records.first().map(LogRecord::lsn);
        let truncate_after = first.filter(|first| *first <= self.log_last).map(|f| Lsn(f.0 - 1));
        if let Some(first) = first {
            let replaced = self.unsynced.split_off(&first);
            self.unsynced_len -= len_of(replaced.values());
            self.unsynced_len += len_of(records.iter());
            self.unsynced.extend(records.iter().map(|record| (record.lsn(), record.clone())));
        }
        if let Some(last) = records.last() {
            (self.issued, self.log_last) = (last.lsn(), last.lsn());
        }
        self.issued_state = hard_state.unwrap_or(self.issued_state);
        self.jobs += 1;
        let number = self.jobs;
        self.effects.push(Effect::Persist(Job { number, truncate_after, hard_state, records }));
    }

    /// Records were sealed that consensus never took: the log has to be without them.
    pub(super) fn cut_off(&mut self) {
        self.log_last = self.issued;
        self.jobs += 1;
        let (number, truncate_after) = (self.jobs, Some(self.issued));
        let (hard_state, records) = (None, Vec::new());
        self.effects.push(Effect::Persist(Job { number, truncate_after, hard_state, records }));
        let (records, messages) = (Vec::new(), Vec::new());
        let done = Outstanding { job: number, turn: None, hard_state: None, records, messages };
        self.outstanding.push_back(done);
    }

    /// A job is done: what waited for it goes on.
    pub(super) fn settle(&mut self, done: Outstanding) {
        self.durable_state = done.hard_state.unwrap_or(self.durable_state);
        for (lsn, term) in done.records {
            let is_it = |record: &L::Record| raft_term(record.term()) == term;
            if self.unsynced.get(&lsn).is_some_and(is_it)
                && let Some(record) = self.unsynced.remove(&lsn)
            {
                self.unsynced_len -= u64::from(record.record_len());
            }
        }
        self.send(done.messages);
        if let (Some(turn), None) = (done.turn, &self.stopped) {
            let persisted = self.core.persisted(turn);
            self.check(persisted);
        }
    }

    /// Says what readers may see, and opens for writes.
    fn publish(&mut self) {
        let committed = self.core.committed();
        let visible = match self.open {
            // A majority has it, and the versions are in memory.
            Some(_) => committed,
            None => committed.min(self.core.persisted_lsn()),
        };
        if visible > self.published {
            self.published = visible;
            self.effects.push(Effect::Commit(visible));
        }
        if self.core.role() == Role::Leader {
            let is_all = self.published == self.core.last();
            if self.open.is_none() && is_all && self.core.has_committed_in_its_term() {
                self.open = Some(self.core.term());
                self.told = None;
                self.effects.push(Effect::Lead(self.core.term()));
            }
        } else if self.core.leader() != self.told {
            self.tell_leader();
        }
    }

    fn confirm_reads(&mut self, context: &[u8], lsn: Lsn) {
        let Some((asked, led)) = self.reads.confirm(context, lsn) else { return };
        let term = self.core.term();
        if led == Some(term) && self.core.role() == Role::Leader {
            // Who has answered grants no vote for an election timeout of its own clock, and the first of
            // its ticks may come at once; a fifth is for clocks that run faster.
            let ticks = self.options.election_ticks.saturating_sub(1);
            self.reads.extend_lease(term, asked + self.options.tick * ticks * 4 / 5);
        }
    }
}

fn len_of<'a, R: LogRecord>(records: impl Iterator<Item = &'a R>) -> u64 {
    records.map(|record| u64::from(record.record_len())).sum()
}
