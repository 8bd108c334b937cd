//! What clients of the simulated databases write, and what became of it: kept outside, and compared with
//! what the databases say.

use std::collections::{BTreeMap, HashMap};

use treepie::{Database, Result, WriteTxn, ids::Lsn};
use treepie_testkit::{Rng, mix};

use crate::store::Wrong;

/// Of each so many LSNs, the pages of one are compared on all nodes.
const PRINT_EVERY: u64 = 8;
const TREES: [&str; 2] = ["a", "b"];
const KEYS: u64 = 48;

/// One change: a tree, a key, and its value; none where it is removed.
type Put = (&'static str, Vec<u8>, Option<Vec<u8>>);

/// What an operation changes: the same each time it is asked.
fn puts(op: u64) -> Vec<Put> {
    let mut rng = Rng::new(mix(op, 0x0b5));
    let puts = (0..1 + rng.below(4)).map(|_| {
        let (tree, key) = (*rng.pick(&TREES), rng.below(KEYS).to_be_bytes().to_vec());
        let len = match rng.below(30) {
            0..5 => return (tree, key, None),
            5 => 6_000,
            _ => rng.index(200),
        };
        (tree, key, Some([&op.to_be_bytes()[..], &vec![op as u8; len]].concat()))
    });
    let mut puts: Vec<Put> = puts.collect();
    // So that none is without a record.
    puts.push(("ops", op.to_be_bytes().to_vec(), Some(Vec::new())));
    puts
}

/// Does an operation in a transaction.
pub fn apply(tx: &mut WriteTxn<'_>, op: u64) -> Result<Vec<u8>> {
    for (tree, key, value) in puts(op) {
        let mut tree = tx.tree(tree)?;
        match value {
            Some(value) => drop(tree.insert(key, value)?),
            None => drop(tree.remove(key)?),
        }
    }
    Ok(op.to_be_bytes().to_vec())
}

/// How the attempts at an operation stand.
#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    /// Whose clients still wait.
    open: u64,
    /// Of which nobody knows how they ended.
    unknown: u64,
    /// Refused: nothing was done.
    refused: u64,
    /// The LSN in which it ran.
    done: Option<Lsn>,
}

/// What all clients of one cluster know.
#[derive(Debug, Default)]
pub struct Book {
    attempts: BTreeMap<u64, Attempts>,
    /// To be tried again.
    again: Vec<u64>,
    /// What the record of a chain hash does.
    sealed: HashMap<u64, u64>,
    /// What is committed: chain hash, and the operation of it.
    history: BTreeMap<Lsn, (u64, Option<u64>)>,
    /// Hashes of all pages by LSN.
    prints: BTreeMap<Lsn, u64>,
    pub prints_compared: u64,
    pub states_compared: u64,
    pub repeated: u64,
    pub unknown: u64,
    pub refused: u64,
    wrong: Option<Wrong>,
}

impl Book {
    /// Remembers what is wrong.
    pub fn fail(&mut self, what: Wrong) {
        self.wrong.get_or_insert(what);
    }

    /// What is wrong, if anything is.
    pub fn check(&self) -> std::result::Result<(), Wrong> {
        self.wrong.clone().map_or(Ok(()), Err)
    }

    /// The operation that a client tries now: `new`, or one whose outcome it was not told.
    pub fn begin(&mut self, new: u64) -> u64 {
        let op = self.again.pop().unwrap_or(new);
        self.attempts.entry(op).or_default().open += 1;
        op
    }

    fn end(&mut self, op: u64) -> &mut Attempts {
        let attempts = self.attempts.entry(op).or_default();
        attempts.open -= 1;
        attempts
    }

    /// A client was told that its operation is done, in the record `lsn`.
    pub fn is_done(&mut self, op: u64, lsn: Lsn, is_repeated: bool) {
        self.end(op).done = Some(lsn);
        self.repeated += u64::from(is_repeated);
        let found = self.history.get(&lsn).map(|(_, done)| *done);
        if found != Some(Some(op)) {
            self.fail(format!("operation {op} is acknowledged at LSN {lsn}, which does {found:?}"));
        }
    }

    /// A client was told, or learns by silence, that the outcome is not known. It tries again.
    pub fn is_unknown(&mut self, op: u64) {
        self.end(op).unknown += 1;
        self.unknown += 1;
        if !mix(op, self.unknown).is_multiple_of(4) {
            self.again.push(op);
        }
    }

    /// A client was told that nothing was done. It tries again, or does not.
    pub fn is_refused(&mut self, op: u64) {
        let attempts = self.end(op);
        attempts.refused += 1;
        let is_only = attempts.open + attempts.unknown == 0 && attempts.done.is_none();
        self.refused += 1;
        if is_only && let Some(lsn) = self.lsn_of(op) {
            return self.fail(format!("operation {op} was refused, and is in LSN {lsn}"));
        }
        if mix(op, self.refused).is_multiple_of(2) {
            self.again.push(op);
        }
    }

    fn lsn_of(&self, op: u64) -> Option<Lsn> {
        self.history.iter().find(|(_, (_, done))| *done == Some(op)).map(|(lsn, _)| *lsn)
    }

    /// The record of a chain hash does this operation.
    pub fn seals(&mut self, chain: u64, op: u64) {
        self.sealed.insert(chain, op);
    }

    /// A node commits a record.
    pub fn commits(&mut self, lsn: Lsn, chain: u64) {
        let op = self.sealed.get(&chain).copied();
        if let Some((before, _)) = self.history.get(&lsn) {
            if *before != chain {
                self.fail(format!("two records {lsn} are committed"));
            }
            return;
        }
        if let Some(op) = op {
            if let Some(other) = self.lsn_of(op) {
                self.fail(format!("operation {op} is done in LSN {other} and again in {lsn}"));
            }
            let attempts = self.attempts.get(&op).copied().unwrap_or_default();
            if attempts.open + attempts.unknown == 0 && attempts.done.is_none() {
                self.fail(format!("LSN {lsn} does operation {op}, which was refused"));
            }
        }
        self.history.insert(lsn, (chain, op));
    }

    /// The LSNs behind `from` at which pages are looked at, and `to`.
    pub fn stops(&self, from: Lsn, to: Lsn) -> Vec<Lsn> {
        let lsns = (from.0 + 1..=to.0).map(Lsn);
        lsns.filter(|lsn| *lsn == to || self.wants(*lsn)).collect()
    }

    /// Whether the pages of this LSN are looked at.
    pub fn wants(&self, lsn: Lsn) -> bool {
        lsn.0.is_multiple_of(PRINT_EVERY) || self.prints.contains_key(&lsn)
    }

    /// A node has these pages at an LSN.
    pub fn prints(&mut self, id: treepie_raft::ids::NodeId, (lsn, print): (Lsn, u64)) {
        self.prints_compared += u64::from(self.prints.contains_key(&lsn));
        if *self.prints.entry(lsn).or_insert(print) != print {
            self.fail(format!("the pages of node {id} are other ones at LSN {lsn}"));
        }
    }

    /// Compares what readers of a database see with what was committed.
    pub fn compare(&mut self, db: &Database) -> Result<()> {
        self.states_compared += 1;
        let snapshot = db.read()?;
        let lsn = snapshot.lsn();
        let mut expected: BTreeMap<&str, BTreeMap<Vec<u8>, Vec<u8>>> = BTreeMap::new();
        for (_, op) in self.history.range(..=lsn).map(|(_, done)| done) {
            for (tree, key, value) in op.map(puts).unwrap_or_default() {
                let tree = expected.entry(tree).or_default();
                match value {
                    Some(value) => drop(tree.insert(key, value)),
                    None => drop(tree.remove(&key)),
                }
            }
        }
        for name in [TREES[0], TREES[1], "ops"] {
            let mut expected = expected.remove(name).unwrap_or_default();
            let Some(tree) = snapshot.find_tree(name)? else {
                if !expected.is_empty() {
                    self.fail(format!("tree {name} is missing at LSN {lsn}"));
                }
                continue;
            };
            for entry in tree.iter() {
                let (key, value) = entry?;
                let key = key.to_vec();
                if expected.remove(&key).as_deref() != Some(value) {
                    self.fail(format!("tree {name} has a wrong value at LSN {lsn}: {key:x?}"));
                }
            }
            if let Some(key) = expected.keys().next() {
                self.fail(format!("tree {name} lacks {key:x?} at LSN {lsn}"));
            }
        }
        Ok(())
    }
}
