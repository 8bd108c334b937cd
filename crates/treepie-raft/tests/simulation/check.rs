//! What must hold, checked as it happens. What is wrong is remembered, and the run ends.

use std::collections::BTreeMap;

use treepie::ids::{Lsn, Term};
use treepie_raft::{ids::NodeId, log::HardState};

/// What the nodes have done so far.
#[derive(Debug, Default)]
pub struct Check {
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    appended: BTreeMap<(Lsn, Term), u64>,
    committed: BTreeMap<Lsn, u64>,
    hard_states: BTreeMap<NodeId, HardState>,
    /// The highest LSN that somebody was told is committed, or has read.
    pub floor: Lsn,
    pub wrong: Option<String>,
    pub reads: u64,
    pub acknowledged: u64,
}

impl Check {
    pub fn fail(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    /// Election safety; and leader completeness: `chain` is that of the new leader's log.
    pub fn leads(&mut self, term: Term, id: NodeId, chain: impl Fn(Lsn) -> Option<u64>, base: Lsn) {
        match self.leaders.insert(term, id) {
            None => {
                let Some((lsn, committed)) = self.committed.last_key_value() else { return };
                if *lsn >= base && chain(*lsn) != Some(*committed) {
                    self.fail(format!("node {id} leads in term {term} without LSN {lsn}"));
                }
            }
            Some(other) if other != id => {
                self.fail(format!("nodes {other} and {id} lead in term {term}"));
            }
            Some(_) => {}
        }
    }

    /// A vote that leaves.
    pub fn votes(&mut self, id: NodeId, term: Term, candidate: NodeId) {
        let before = *self.votes.entry((id, term)).or_insert(candidate);
        if before != candidate {
            self.fail(format!("node {id} votes for {before} and {candidate} in term {term}"));
        }
    }

    /// Term and vote never go back.
    pub fn hard_state(&mut self, id: NodeId, state: HardState) {
        let before = self.hard_states.entry(id).or_default();
        let changes_vote =
            state.term == before.term && before.vote != 0 && state.vote != before.vote;
        if state.term < before.term || changes_vote {
            let what = format!("node {id} went from {before:?} back to {state:?}");
            return self.fail(what);
        }
        *before = state;
    }

    /// Log matching: one number and one term are one history.
    pub fn appends(&mut self, id: NodeId, lsn: Lsn, term: Term, chain: u64) {
        let before = *self.appended.entry((lsn, term)).or_insert(chain);
        if before != chain {
            self.fail(format!("node {id} has another record {lsn} of term {term}"));
        }
    }

    /// State machine safety: the same history on all nodes, for ever.
    pub fn commits(&mut self, id: NodeId, lsn: Lsn, chain: u64) {
        let before = *self.committed.entry(lsn).or_insert(chain);
        if before != chain {
            self.fail(format!("node {id} commits another record {lsn}"));
        }
    }

    /// A caller was told that it is committed.
    pub fn acknowledges(&mut self, lsn: Lsn) {
        self.acknowledged += 1;
        self.floor = self.floor.max(lsn);
    }

    /// A read that began when `floor` held sees this LSN.
    pub fn reads(&mut self, id: NodeId, floor: Lsn, sees: Lsn) {
        self.reads += 1;
        if sees < floor {
            self.fail(format!("a read on node {id} sees LSN {sees}, after {floor} was seen"));
        }
        self.floor = self.floor.max(sees);
    }

    /// An acknowledgement covers what is durable.
    pub fn acks(&mut self, id: NodeId, index: Lsn, durable: Lsn) {
        if index > durable {
            self.fail(format!("node {id} acknowledges LSN {index}, and {durable} is durable"));
        }
    }

    /// Terms that had a leader.
    pub fn leader_count(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub fn committed_last(&self) -> Lsn {
        self.committed.last_key_value().map_or(Lsn(0), |(lsn, _)| *lsn)
    }
}
