//! Copies of a database, and what is left of their streams: what random operations make of them, and
//! which states can be restored, found by trying.

use std::collections::BTreeSet;

use proptest::prelude::*;
use treepie::Lineage;

use crate::repository::{
    Entry, Kind,
    testing::{entry, fork, lineage},
};

/// What happens to a database and its repository. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Commits(u64),
    Full(u64),
    Increment {
        base: usize,
        bytes: u64,
    },
    Records(u64),
    /// Records that were written to no archive.
    Unarchived,
    /// Records again that are there already, in another file.
    RecordsAgain(u64),
    /// Restores to an LSN and goes on from there.
    Fork(u64),
    /// Goes on with another copy.
    Switch(usize),
    /// A file is lost.
    Lose(usize),
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..40_u64).prop_map(Op::Commits),
        2 => (100..2000_u64).prop_map(Op::Full),
        3 => (0..4_usize, 10..200_u64).prop_map(|(base, bytes)| Op::Increment { base, bytes }),
        4 => (1..400_u64).prop_map(Op::Records),
        1 => Just(Op::Unarchived),
        1 => (1..60_u64).prop_map(Op::RecordsAgain),
        1 => (0..1000_u64).prop_map(Op::Fork),
        1 => (0..4_usize).prop_map(Op::Switch),
        1 => (0..1000_usize).prop_map(Op::Lose),
    ]
}

/// One copy of the database.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) lineage: Lineage,
    pub(super) parent: Option<usize>,
    pub(super) lsn: u64,
    pub(super) archived: u64,
}

/// A database's copies, and the streams that are left of them.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) copies: Vec<Copy>,
    pub(super) entries: Vec<Entry>,
}

impl History {
    pub(super) fn play(ops: &[Op]) -> History {
        let first = Copy { lineage: lineage(0), parent: None, lsn: 0, archived: 0 };
        let mut history = History { copies: vec![first], entries: Vec::new() };
        let mut at = 0;
        for op in ops {
            history.step(op, &mut at);
        }
        let mut ids = BTreeSet::new();
        history.entries.retain(|entry| ids.insert(entry.id.clone()));
        history
    }

    fn step(&mut self, op: &Op, at: &mut usize) {
        let copy = self.copies[*at].clone();
        let Copy { lineage, lsn, archived, .. } = copy;
        match *op {
            Op::Commits(count) => self.copies[*at].lsn += count,
            Op::Full(bytes) => self.entries.push(entry(Kind::Full, lineage, 0, lsn, bytes)),
            Op::Increment { base, bytes } => {
                let own = self
                    .entries
                    .iter()
                    .rev()
                    .filter(|entry| entry.is_snapshot() && entry.stream.lineage == lineage);
                let below = own.map(|entry| entry.stream.last.lsn.0).filter(|base| *base < lsn);
                if let Some(base) = below.take(4).nth(base) {
                    self.entries.push(entry(Kind::Increment, lineage, base, lsn, bytes));
                }
            }
            Op::Records(bytes) if archived < lsn => {
                self.entries.push(entry(Kind::Records, lineage, archived, lsn, bytes));
                self.copies[*at].archived = lsn;
            }
            Op::Unarchived => self.copies[*at].archived = lsn,
            Op::RecordsAgain(count) if lineage.forked_at.0 < lsn => {
                let base = lsn.saturating_sub(count).max(lineage.forked_at.0);
                self.entries.push(entry(Kind::Records, lineage, base, lsn, count * 7));
            }
            Op::Fork(place) if self.copies.len() < 6 => {
                let begins = lineage.forked_at.0;
                let forked_at = begins + place % (lsn - begins + 1);
                let lineage = fork(lineage, forked_at);
                let is_new = self.copies.iter().all(|copy| copy.lineage != lineage);
                if is_new {
                    let parent = Some(*at);
                    self.copies.push(Copy { lineage, parent, lsn: forked_at, archived: forked_at });
                    *at = self.copies.len() - 1;
                }
            }
            Op::Switch(copy) => *at = copy % self.copies.len(),
            Op::Lose(index) if !self.entries.is_empty() => {
                let index = index % self.entries.len();
                self.entries.remove(index);
            }
            Op::Records(_) | Op::RecordsAgain(_) | Op::Fork(_) | Op::Lose(_) => {}
        }
    }

    pub(super) fn of(&self, lineage: &Lineage) -> usize {
        let found = self.copies.iter().position(|copy| copy.lineage == *lineage);
        found.expect("streams are of copies")
    }

    /// The copy whose history has this LSN of another one: itself, or who it forked from.
    pub(super) fn owner(&self, mut copy: usize, lsn: u64) -> usize {
        while lsn < self.copies[copy].lineage.forked_at.0 {
            copy = self.copies[copy].parent.expect("the first one begins at 0");
        }
        copy
    }

    /// Whether an LSN of a copy's history is this one of another copy: at a fork it is of both.
    pub(super) fn is_same_state(&self, copy: usize, other: usize, lsn: u64) -> bool {
        let mut owner = self.owner(copy, lsn);
        while owner != other && self.copies[owner].lineage.forked_at.0 == lsn {
            match self.copies[owner].parent {
                Some(parent) => owner = self.owner(parent, lsn),
                None => return false,
            }
        }
        owner == other
    }

    /// Whether no copy on the way to this one is without streams: nobody could tell where such a one
    /// forked from.
    pub(super) fn has_all_ancestors(&self, mut copy: usize, entries: &[&Entry]) -> bool {
        while let Some(parent) = self.copies[copy].parent {
            let lineage = self.copies[parent].lineage;
            if !entries.iter().any(|entry| entry.stream.lineage == lineage) {
                return false;
            }
            copy = parent;
        }
        true
    }

    /// Every state that can be restored from these entries, found by trying until nothing is new.
    pub(super) fn reachable(&self, entries: &[&Entry]) -> BTreeSet<(usize, u64)> {
        let mut states: BTreeSet<(usize, u64)> = BTreeSet::new();
        loop {
            let before = states.len();
            for entry in entries {
                let stream = &entry.stream;
                let copy = self.of(&stream.lineage);
                let (base, last) = (stream.base.lsn.0, stream.last.lsn.0);
                match stream.kind {
                    Kind::Full => drop(states.insert((copy, last))),
                    Kind::Increment if states.contains(&(copy, base)) => {
                        states.insert((copy, last));
                    }
                    Kind::Records => {
                        let inside = states.range((copy, base)..(copy, last)).next().copied();
                        let from = inside.map_or(last, |(_, lsn)| lsn);
                        states
                            .extend((from..=last).filter(|_| inside.is_some()).map(|x| (copy, x)));
                    }
                    Kind::Increment => {}
                }
            }
            for (copy, of) in self.copies.iter().enumerate() {
                let fork = of.lineage.forked_at.0;
                let parent = of.parent.map(|parent| self.owner(parent, fork));
                if parent.is_some_and(|parent| states.contains(&(parent, fork))) {
                    states.insert((copy, fork));
                }
            }
            if states.len() == before {
                return states;
            }
        }
    }

    /// Whether the parent of each fork can be told.
    pub(super) fn is_told(&self) -> bool {
        let entries: Vec<&Entry> = self.entries.iter().collect();
        let all = entries
            .iter()
            .all(|entry| self.has_all_ancestors(self.of(&entry.stream.lineage), &entries));
        all && !self.is_ambiguous()
    }

    /// Whether a fork's parent may have to be told from another copy of the same epoch.
    fn is_ambiguous(&self) -> bool {
        self.copies.iter().any(|child| {
            let could_be = self.copies.iter().map(|copy| copy.lineage).filter(|lineage| {
                lineage.epoch < child.lineage.epoch && lineage.forked_at <= child.lineage.forked_at
            });
            let mut epochs = BTreeSet::new();
            could_be.into_iter().any(|lineage| !epochs.insert(lineage.epoch))
        })
    }
}
