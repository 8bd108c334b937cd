//! The consensus core, behind this module alone: nothing else names its crate.
//!
//! It decides about numbers and terms. It sees no record, no clock, no file and no socket; its ticks, its
//! random numbers and all it is told come from the replica. What it is told was checked before: it
//! panics where an invariant is broken, and such a panic is caught here and ends this node's part in the
//! cluster, not the process.

mod conf;
mod convert;
mod handles;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use raft::{
    Config as CoreConfig, Error as CoreError, ProgressState, RawNode, ReadOnlyOption,
    SnapshotStatus, StateRole, eraftpb::MessageType,
};
use slog::{Discard, Logger, o};
use treepie::ids::{Lsn, Term};

use crate::{
    ids::NodeId,
    log::HardState,
    message::{EntryKind, Message},
};

pub(crate) use conf::{Step, conf_state, step};
pub(crate) use handles::{Beginning, Handle, Handles};

/// Messages with entries on the way to a follower, at most. Bytes are the transport's to bound.
const IN_FLIGHT_MAX: usize = 256;
/// Reads of followers that wait for a quorum, at most.
const READS_MAX: usize = 1_024;

/// The core has stopped: one of its invariants was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("consensus has stopped: {0}")]
pub struct Broken(pub(crate) String);

/// What a core is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) id: NodeId,
    pub(crate) election_ticks: u32,
    pub(crate) heartbeat_ticks: u32,
    pub(crate) seed: u64,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It receives records.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It gives out records.
    Leader,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proposed {
    /// It is the next entry.
    Accepted,
    /// It is none: this node does not lead, or hands its place over.
    Dropped,
}

/// What the core wants done. Messages `after_sync` leave once all up to `number` is durable.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) number: u64,
    /// Term and vote, if they have changed.
    pub(crate) hard_state: Option<HardState>,
    /// New entries, whose handles the log has by now.
    pub(crate) entries: Vec<Lsn>,
    pub(crate) at_once: Vec<Message>,
    pub(crate) after_sync: Vec<Message>,
    /// Membership records that are committed and durable here.
    pub(crate) memberships: Vec<Lsn>,
    /// Reads that a quorum has confirmed.
    pub(crate) confirmed: Vec<(Vec<u8>, Lsn)>,
    /// Members whose next record was trimmed, and the least that they have to be given.
    pub(crate) installs: Vec<(NodeId, Lsn)>,
}

/// How far another node is, as a leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Up to where it has synced the same records.
    pub matched: Lsn,
    /// Bytes of the records that it lacks; those of records that are long gone from memory by their mean.
    pub lag_len: u64,
    /// It has answered lately.
    pub is_active: bool,
    /// It waits for a page stream.
    pub installs: bool,
}

/// The core of one node.
pub(crate) struct Core {
    raw: RawNode<Handles>,
    broken: Option<Broken>,
    election_ticks: usize,
    random: u64,
}

impl Core {
    /// Begins as a follower, with the log that `handles` has.
    pub(crate) fn open(config: Config, handles: Handles, applied: Lsn) -> Result<Core, Broken> {
        let election_ticks = config.election_ticks as usize;
        let core = CoreConfig {
            id: config.id.0,
            election_tick: election_ticks,
            heartbeat_tick: config.heartbeat_ticks as usize,
            applied: applied.0,
            // One entry a message: sizes that the core sees are those of handles.
            max_size_per_msg: 0,
            max_inflight_msgs: IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            // With the next entry, or when the owner asks for it.
            skip_bcast_commit: true,
            read_only_option: ReadOnlyOption::Safe,
            ..CoreConfig::default()
        };
        let logger = Logger::root(Discard, o!());
        let made = caught(|| RawNode::new(&core, handles, &logger))?;
        let raw = made.map_err(|error| Broken(error.to_string()))?;
        let random = config.seed ^ config.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok(Core { raw, broken: None, election_ticks, random })
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut RawNode<Handles>) -> T) -> Result<T, Broken> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        caught(|| call(&mut self.raw)).inspect_err(|broken| self.broken = Some(broken.clone()))
    }

    /// One tick of the clock.
    pub(crate) fn tick(&mut self) -> Result<(), Broken> {
        // The core would draw from a generator that no seed reaches.
        if self.raw.raft.election_elapsed == 0 {
            let timeout = self.election_ticks + self.draw(self.election_ticks);
            self.raw.raft.set_randomized_election_timeout(timeout);
        }
        self.call(|raw| raw.tick()).map(|_| ())
    }

    /// A number in `0..bound` (splitmix64).
    fn draw(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % bound as u64).expect("below a usize")
    }

    /// A message that was checked. What comes from strangers, or too late, is ignored.
    pub(crate) fn step(&mut self, message: &Message) -> Result<(), Broken> {
        let Some(core) = convert::to_core(message) else { return Ok(()) };
        let is_read = core.get_msg_type() == MessageType::MsgReadIndex;
        if is_read && self.raw.raft.pending_read_count() >= READS_MAX {
            return Ok(());
        }
        match self.call(|raw| raw.step(core))? {
            Ok(()) | Err(CoreError::StepPeerNotFound | CoreError::ProposalDropped) => Ok(()),
            Err(error) => self.fail(format!("a message: {error}")),
        }
    }

    fn fail<T>(&mut self, what: String) -> Result<T, Broken> {
        let broken = Broken(what);
        self.broken = Some(broken.clone());
        Err(broken)
    }

    /// Proposes the next entry, with what it changes about the members.
    pub(crate) fn propose(&mut self, change: &Step) -> Result<Proposed, Broken> {
        let before = self.last();
        let proposed = match change {
            Step::Nothing => self.call(|raw| raw.propose(Vec::new(), Vec::new()))?,
            Step::Conf(change) => {
                // The core would append something else in its place, and say nothing.
                if self.has_pending_change() {
                    return Ok(Proposed::Dropped);
                }
                let change = change.clone();
                self.call(|raw| raw.propose_conf_change(Vec::new(), change))?
            }
        };
        match proposed {
            Ok(()) if self.role() == Role::Leader && self.last() == before.next() => {
                Ok(Proposed::Accepted)
            }
            Ok(()) => self.fail("a proposal did not become the next entry".to_owned()),
            Err(CoreError::ProposalDropped) => Ok(Proposed::Dropped),
            Err(error) => self.fail(format!("a proposal: {error}")),
        }
    }

    /// Whether there may be a change of members that is not applied here.
    pub(crate) fn has_pending_change(&self) -> bool {
        self.raw.raft.has_pending_conf()
    }

    /// Changes the members, as a committed record says.
    pub(crate) fn apply(&mut self, change: &Step) -> Result<(), Broken> {
        let Step::Conf(change) = change else { return Ok(()) };
        match self.call(|raw| raw.apply_conf_change(change))? {
            Ok(_) => Ok(()),
            Err(error) => self.fail(format!("a change of members: {error}")),
        }
    }

    /// All that was handed out as committed is applied.
    pub(crate) fn advance_apply(&mut self) -> Result<(), Broken> {
        self.call(RawNode::advance_apply)?;
        let applied = Lsn(self.raw.raft.raft_log.applied);
        self.raw.mut_store().set_applied(applied);
        Ok(())
    }

    /// Whether there is a turn to take.
    pub(crate) fn has_turn(&self) -> bool {
        self.broken.is_none() && self.raw.has_ready()
    }

    /// Takes what the core wants done. `resolve` gives the handles of new entries, in their order.
    pub(crate) fn take(
        &mut self,
        mut resolve: impl FnMut(Lsn, Term) -> Option<Handle>,
    ) -> Result<Turn, Broken> {
        let before = self.raw.raft.hard_state();
        let mut ready = self.call(RawNode::ready)?;
        let mut turn = Turn { number: ready.number(), ..Turn::default() };
        if ready.hs().is_some() && ready.must_sync() {
            turn.hard_state = Some(HardState { term: Term(before.term), vote: before.vote });
        }
        for entry in ready.take_entries() {
            let (lsn, term) = (Lsn(entry.index), Term(entry.term));
            let Some(handle) = resolve(lsn, term) else {
                return self.fail(format!("there is no record for entry {lsn} of term {term}"));
            };
            self.raw.mut_store().push(handle);
            turn.entries.push(lsn);
        }
        for entry in ready.take_committed_entries() {
            let handle = self.raw.store().get(Lsn(entry.index));
            if handle.is_some_and(|handle| handle.entry.kind == EntryKind::Membership) {
                turn.memberships.push(Lsn(entry.index));
            }
        }
        let reads = ready.take_read_states().into_iter();
        turn.confirmed = reads.map(|read| (read.request_ctx, Lsn(read.index))).collect();
        let (at_once, after_sync) = (ready.take_messages(), ready.take_persisted_messages());
        turn.at_once = self.outgoing(&at_once, &mut turn.installs);
        turn.after_sync = self.outgoing(&after_sync, &mut turn.installs);
        self.call(|raw| raw.advance_append_async(ready))?;
        Ok(turn)
    }

    fn outgoing(
        &self,
        messages: &[raft::eraftpb::Message],
        installs: &mut Vec<(NodeId, Lsn)>,
    ) -> Vec<Message> {
        let mut out = Vec::with_capacity(messages.len());
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                let at_least = message.get_snapshot().get_metadata().index;
                installs.push((NodeId(message.to), Lsn(at_least)));
            } else if let Some(message) = convert::from_core(message, self.raw.store()) {
                out.push(message);
            }
        }
        out
    }

    /// All up to the turn `number` is durable.
    pub(crate) fn persisted(&mut self, number: u64) -> Result<(), Broken> {
        self.call(|raw| raw.on_persist_ready(number))
    }

    /// Asks a quorum whether this node, or whom it follows, still leads.
    pub(crate) fn read_index(&mut self, context: Vec<u8>) -> Result<(), Broken> {
        self.call(|raw| raw.read_index(context))
    }

    /// Hands leadership over.
    pub(crate) fn transfer(&mut self, to: NodeId) -> Result<(), Broken> {
        self.call(|raw| raw.transfer_leader(to.0))
    }

    /// A message to this member was lost.
    pub(crate) fn unreachable(&mut self, peer: NodeId) -> Result<(), Broken> {
        self.call(|raw| raw.report_unreachable(peer.0))
    }

    /// A page stream to this member has ended.
    pub(crate) fn install_ended(&mut self, peer: NodeId, is_whole: bool) -> Result<(), Broken> {
        let status = if is_whole { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.call(|raw| raw.report_snapshot(peer.0, status))
    }

    /// Tells all others what is committed, and whatever else they lack.
    pub(crate) fn announce(&mut self) -> Result<(), Broken> {
        self.call(|raw| raw.raft.bcast_append())
    }

    /// Stops leading, in this term.
    pub(crate) fn step_down(&mut self) -> Result<(), Broken> {
        self.call(|raw| {
            let term = raw.raft.term;
            raw.raft.become_follower(term, 0);
        })
    }

    /// Records before `first` are gone.
    pub(crate) fn trim(&mut self, first: Lsn) {
        self.raw.mut_store().trim(first);
    }

    pub(crate) fn handles(&self) -> &Handles {
        self.raw.store()
    }

    pub(crate) fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    pub(crate) fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.raw.raft.leader_id)).filter(|id| *id != NodeId::NONE)
    }

    pub(crate) fn committed(&self) -> Lsn {
        Lsn(self.raw.raft.raft_log.committed)
    }

    pub(crate) fn persisted_lsn(&self) -> Lsn {
        Lsn(self.raw.raft.raft_log.persisted)
    }

    pub(crate) fn last(&self) -> Lsn {
        Lsn(self.raw.raft.raft_log.last_index())
    }

    /// The term of an entry, those not taken yet included.
    pub(crate) fn term_of(&self, lsn: Lsn) -> Option<Term> {
        let term = self.raw.raft.raft_log.term(lsn.0).ok()?;
        // The core says 0 of what is trimmed.
        (lsn <= self.last() && (term > 0 || lsn.0 == 0)).then_some(Term(term))
    }

    pub(crate) fn has_committed_in_its_term(&self) -> bool {
        self.raw.raft.commit_to_current_term()
    }

    pub(crate) fn transfers_to(&self) -> Option<NodeId> {
        self.raw.raft.lead_transferee.map(NodeId)
    }

    /// How far another node is.
    pub(crate) fn progress(&self, id: NodeId) -> Option<Progress> {
        let progress = self.raw.raft.prs().get(id.0)?;
        Some(Progress {
            matched: Lsn(progress.matched),
            lag_len: self.handles().len_above(Lsn(progress.matched)),
            is_active: progress.recent_active,
            installs: progress.state == ProgressState::Snapshot,
        })
    }
}

/// Runs a call of the core. What it panics with is its last word.
fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Broken(text.unwrap_or_else(|| "an invariant is broken".to_owned()))
    })
}
