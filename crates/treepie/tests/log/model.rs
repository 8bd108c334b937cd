//! What a journal must hold: the log, the hard states, and how much of both is durable.

use treepie::{
    ids::{Lsn, Term},
    planted::journal::{HardState, JournalPosition, Recovered, genesis_chain},
};

use crate::run::{EPOCH, ID};

/// A record, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub term: u64,
    pub chain: u64,
    /// What it says is committed.
    pub known: u64,
    /// How many hard states were appended before it.
    pub states: usize,
}

/// The state of a journal after a step.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The record `n` is at `n - 1`.
    pub log: Vec<Entry>,
    /// How many records are durable.
    pub synced: usize,
    /// Every hard state that was ever appended; no two are equal.
    pub states: Vec<HardState>,
    /// How many of them are durable.
    pub states_synced: usize,
    /// What the consensus has committed.
    pub committed: u64,
    /// What the data file holds.
    pub checkpoint: u64,
}

/// Which histories a cut in the middle of a step may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// A beginning of the newer one, with all that is durable in the older one.
    Prefix,
    /// The newer one, or a beginning of the older one with all that is durable in it.
    OneOfBoth,
}

impl Model {
    pub fn last(&self) -> u64 {
        self.log.len() as u64
    }

    pub fn position(&self, lsn: u64) -> JournalPosition {
        let chain = match lsn.checked_sub(1) {
            None => genesis_chain(&ID, EPOCH),
            Some(index) => self.log[usize::try_from(index).expect("small")].chain,
        };
        JournalPosition { lsn: Lsn(lsn), chain }
    }

    pub fn is_replicated(&self) -> bool {
        !self.states.is_empty()
    }

    /// Everything that was appended is durable.
    pub fn sync(&mut self) {
        (self.synced, self.states_synced) = (self.log.len(), self.states.len());
    }

    /// What is wrong with what was found, if `self` was acknowledged and `next` was on its way.
    pub fn compare(&self, next: &Model, leaves: Leaves, found: &Found) -> Result<(), String> {
        let as_next = found.is_beginning_of(&next.log);
        let enough = found.last() as usize >= self.synced;
        let is_right = match leaves {
            Leaves::Prefix => as_next && enough,
            Leaves::OneOfBoth => {
                let whole = as_next && found.last() == next.last();
                whole || found.is_beginning_of(&self.log) && enough
            }
        };
        if !is_right {
            let (last, synced) = (found.last(), self.synced);
            let before = self.last();
            return Err(format!(
                "it ends at {last}; {synced} of {before} records were durable, {} come next; {found:?}",
                next.last()
            ));
        }
        let log = if as_next { &next.log } else { &self.log };
        self.compare_states(next, log, found)?;
        self.compare_committed(next, log, found)
    }

    fn compare_states(&self, next: &Model, log: &[Entry], found: &Found) -> Result<(), String> {
        let count = match found.recovered.hard_state {
            None => 0,
            Some(state) => {
                let index = next.states.iter().position(|known| *known == state);
                1 + index.ok_or(format!("{state:?} was never written"))?
            }
        };
        let last = found.last() as usize;
        let needed = last.checked_sub(1).map_or(0, |index| log[index].states);
        if count < self.states_synced || count < needed {
            let (synced, state) = (self.states_synced, found.recovered.hard_state);
            return Err(format!(
                "{state:?} is number {count}; {synced} were durable, record {last} needs {needed}"
            ));
        }
        for (lsn, term) in &found.terms {
            let entry = &log[usize::try_from(lsn - 1).expect("small")];
            if *term != Some(Term(entry.term)) {
                return Err(format!("record {lsn} has term {}, not {term:?}", entry.term));
            }
        }
        Ok(())
    }

    fn compare_committed(&self, next: &Model, log: &[Entry], found: &Found) -> Result<(), String> {
        let (from, committed) = (found.from as usize, found.recovered.committed.lsn.0);
        let last = found.last();
        let known = log[..last as usize].iter().map(|entry| entry.known).max().unwrap_or(0);
        let (low, high) = match found.recovered.hard_state {
            None => (last, last),
            Some(_) => (known.max(found.from), next.committed.min(last).max(found.from)),
        };
        if !(low..=high).contains(&committed) {
            return Err(format!("{committed} is taken for committed, not {low} to {high}"));
        }
        let expected = log[from..committed as usize].iter().map(|entry| entry.chain);
        if !found.applied.iter().copied().eq(expected) {
            return Err(format!(
                "{} records were applied to reach {committed}",
                found.applied.len()
            ));
        }
        Ok(())
    }
}

/// What an opening has found.
#[derive(Debug)]
pub struct Found {
    /// The checkpoint that it began at.
    pub began: JournalPosition,
    /// Its LSN, and the chain hashes of the records that were applied.
    pub from: u64,
    pub applied: Vec<u64>,
    /// LSN and chain hash of all records behind the checkpoint that a reader is shown.
    pub read: Vec<(u64, u64)>,
    /// The term of each record, as far as it must be known.
    pub terms: Vec<(u64, Option<Term>)>,
    pub recovered: Recovered,
}

impl Found {
    pub fn last(&self) -> u64 {
        self.recovered.last.lsn.0
    }

    fn is_beginning_of(&self, log: &[Entry]) -> bool {
        let last = self.last();
        let Some(entries) = log.get(self.from as usize..last as usize) else { return false };
        let same = (self.from + 1..).zip(entries.iter().map(|entry| entry.chain));
        let chain = last.checked_sub(1).map(|index| log[index as usize].chain);
        self.read.iter().copied().eq(same)
            && chain.is_none_or(|chain| chain == self.recovered.last.chain)
    }
}
