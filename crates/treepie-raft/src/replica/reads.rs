//! Reads that wait: for a quorum to confirm who leads, then for the state to be applied.
//!
//! All reads that wait at one time share one question. A question that stays without an answer, because
//! the leader has committed nothing in its term yet or a message was lost, is asked again.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    time::Duration,
};

use treepie::ids::{Lsn, Term};

use crate::ids::NodeId;

use super::effect::ReadError;

/// Reads that wait, at most.
const READS_MAX: usize = 65_536;
/// Questions on the way, at most.
const ROUNDS_MAX: usize = 4;

/// A question to a quorum.
#[derive(Debug)]
struct Round {
    context: Vec<u8>,
    asked: Duration,
    asked_tick: u64,
    /// The term in which this node led when it asked.
    led: Option<Term>,
    reads: Vec<u64>,
}

/// The reads of one replica.
#[derive(Debug)]
pub(super) struct Reads {
    id: NodeId,
    /// Tells this start of the node apart from others: an answer to an older question must not pass.
    life: u64,
    round: u64,
    deadlines: HashMap<u64, Duration>,
    waiting: Vec<u64>,
    rounds: VecDeque<Round>,
    /// What is confirmed and not applied yet.
    confirmed: BTreeMap<Lsn, Vec<u64>>,
    lease: Option<(Term, Duration)>,
    /// In this term leadership was to be handed over: who is told so late may take it at any time.
    no_lease: Option<Term>,
}

impl Reads {
    pub(super) fn new(id: NodeId, life: u64) -> Reads {
        Reads {
            id,
            life,
            round: 0,
            deadlines: HashMap::new(),
            waiting: Vec::new(),
            rounds: VecDeque::new(),
            confirmed: BTreeMap::new(),
            lease: None,
            no_lease: None,
        }
    }

    /// A new read, that waits for a quorum or for an LSN.
    pub(super) fn add(
        &mut self,
        id: u64,
        deadline: Duration,
        at_least: Option<Lsn>,
    ) -> Result<(), ReadError> {
        if self.deadlines.len() >= READS_MAX {
            return Err(ReadError::Busy);
        }
        self.deadlines.insert(id, deadline);
        match at_least {
            None => self.waiting.push(id),
            Some(lsn) => self.confirmed.entry(lsn).or_default().push(id),
        }
        Ok(())
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The waiting ones need to ask nobody: the state at `lsn` will do.
    pub(super) fn confirm_waiting(&mut self, lsn: Lsn) {
        let reads = mem::take(&mut self.waiting);
        self.confirmed.entry(lsn).or_default().extend(reads);
    }

    /// The question of all that wait, if there is room for one more.
    pub(super) fn ask(&mut self, now: Duration, tick: u64, led: Option<Term>) -> Option<Vec<u8>> {
        if self.waiting.is_empty() || self.rounds.len() >= ROUNDS_MAX {
            return None;
        }
        self.round += 1;
        let words = [self.id.0, self.life, self.round];
        let context: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let reads = mem::take(&mut self.waiting);
        let round = Round { context: context.clone(), asked: now, asked_tick: tick, led, reads };
        self.rounds.push_back(round);
        Some(context)
    }

    /// A quorum has confirmed a question: it was asked, and in which term this node led, if it did.
    pub(super) fn confirm(&mut self, context: &[u8], lsn: Lsn) -> Option<(Duration, Option<Term>)> {
        let at = self.rounds.iter().position(|round| round.context == context)?;
        let round = self.rounds.remove(at)?;
        self.confirmed.entry(lsn).or_default().extend(round.reads);
        Some((round.asked, round.led))
    }

    /// Asks again what was asked `ticks` ago.
    pub(super) fn ask_again(&mut self, tick: u64, ticks: u64) {
        while self.rounds.front().is_some_and(|round| tick - round.asked_tick > ticks) {
            self.waiting
                .extend(self.rounds.pop_front().map(|round| round.reads).unwrap_or_default());
        }
    }

    /// Asks everything again: who leads has changed.
    pub(super) fn ask_all_again(&mut self) {
        self.waiting.extend(mem::take(&mut self.rounds).into_iter().flat_map(|round| round.reads));
        self.lease = None;
    }

    /// Reads whose state is applied.
    pub(super) fn answered(&mut self, applied: Lsn) -> Vec<(u64, Lsn)> {
        let mut answered = Vec::new();
        while let Some(entry) = self.confirmed.first_entry().filter(|entry| *entry.key() <= applied)
        {
            let (lsn, reads) = entry.remove_entry();
            let alive = reads.into_iter().filter(|id| self.deadlines.remove(id).is_some());
            answered.extend(alive.map(|id| (id, lsn)));
        }
        answered
    }

    /// Reads that have waited too long; they are forgotten.
    pub(super) fn expired(&mut self, now: Duration) -> Vec<u64> {
        let mut expired: Vec<u64> =
            self.deadlines.iter().filter(|(_, end)| **end <= now).map(|(id, _)| *id).collect();
        if expired.is_empty() {
            return expired;
        }
        expired.sort_unstable();
        for id in &expired {
            self.deadlines.remove(id);
        }
        let deadlines = &self.deadlines;
        self.waiting.retain(|id| deadlines.contains_key(id));
        for round in &mut self.rounds {
            round.reads.retain(|id| deadlines.contains_key(id));
        }
        self.confirmed.retain(|_, reads| {
            reads.retain(|id| deadlines.contains_key(id));
            !reads.is_empty()
        });
        expired
    }

    /// Until then no other node can lead.
    pub(super) fn extend_lease(&mut self, term: Term, until: Duration) {
        if self.no_lease == Some(term) {
            return;
        }
        let longest = self.lease.filter(|(leased, _)| *leased == term).map(|(_, until)| until);
        self.lease = Some((term, longest.unwrap_or_default().max(until)));
    }

    /// Ends the lease, until another quorum confirms.
    pub(super) fn end_lease(&mut self) {
        self.lease = None;
    }

    /// There is no lease any more in this term.
    pub(super) fn forbid_lease(&mut self, term: Term) {
        self.no_lease = Some(term);
        self.lease = None;
    }

    pub(super) fn has_lease(&self, term: Term, now: Duration) -> bool {
        self.lease.is_some_and(|(leased, until)| leased == term && now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reads(life: u64) -> Reads {
        Reads::new(NodeId(1), life)
    }

    #[test]
    fn reads_that_wait_at_one_time_share_a_question() {
        let mut reads = reads(1);
        for id in 1..=3 {
            reads.add(id, SECOND * 9, None).expect("room");
        }
        let context = reads.ask(SECOND, 5, Some(Term(2))).expect("they wait");
        assert_eq!(reads.ask(SECOND, 5, Some(Term(2))), None, "nobody else does");
        assert_eq!(reads.confirm(&context, Lsn(7)), Some((SECOND, Some(Term(2)))));
        assert_eq!(reads.answered(Lsn(6)), []);
        assert_eq!(reads.answered(Lsn(7)), [(1, Lsn(7)), (2, Lsn(7)), (3, Lsn(7))]);
    }

    #[test]
    fn answer_to_a_question_of_an_earlier_life_counts_for_nothing() {
        let (mut before, mut after) = (reads(1), reads(2));
        for reads in [&mut before, &mut after] {
            reads.add(1, SECOND, None).expect("room");
        }
        let old = before.ask(SECOND, 1, None).expect("it waits");
        let new = after.ask(SECOND, 1, None).expect("it waits");
        assert_eq!(after.confirm(&old, Lsn(1)), None);
        assert!(after.confirm(&new, Lsn(2)).is_some());
    }

    #[test]
    fn question_without_answer_is_asked_again_until_its_reads_expire() {
        let mut reads = reads(1);
        reads.add(1, SECOND * 2, None).expect("room");
        reads.add(2, SECOND * 8, None).expect("room");
        let first = reads.ask(SECOND, 10, None).expect("they wait");
        reads.ask_again(14, 5);
        assert!(!reads.is_waiting());
        reads.ask_again(16, 5);
        assert!(reads.is_waiting());
        assert_eq!(reads.confirm(&first, Lsn(3)), None, "it was given up");
        assert_eq!(reads.expired(SECOND * 2), [1]);
        let second = reads.ask(SECOND * 3, 16, None).expect("one still waits");
        reads.confirm(&second, Lsn(4));
        assert_eq!(reads.answered(Lsn(9)), [(2, Lsn(4))]);
    }

    #[test]
    fn lease_ends_with_its_time_and_term_and_at_a_hand_over() {
        let mut reads = reads(1);
        reads.extend_lease(Term(2), SECOND * 5);
        reads.extend_lease(Term(2), SECOND * 4);
        assert!(reads.has_lease(Term(2), SECOND * 4));
        assert!(!reads.has_lease(Term(2), SECOND * 5), "its time is over");
        assert!(!reads.has_lease(Term(3), SECOND), "another term");
        reads.forbid_lease(Term(2));
        reads.extend_lease(Term(2), SECOND * 9);
        assert!(!reads.has_lease(Term(2), SECOND), "whoever was told may lead at any time");
        reads.extend_lease(Term(3), SECOND * 9);
        assert!(reads.has_lease(Term(3), SECOND));
    }
}
