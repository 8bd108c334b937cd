//! A model of a database: for every LSN, the trees and their entries, in plain maps.
//!
//! A state is cheap to keep: trees that a transaction did not change are shared with the state
//! before, and values are shared always.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use crate::{
    rng::{hash_bytes, mix},
    workload::Op,
};

/// Entries of one tree, as the user sees them.
pub type Entries = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// All trees at one LSN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    trees: BTreeMap<Vec<u8>, Arc<Entries>>,
}

/// The states of a database, from before its first record (LSN 0) on.
#[derive(Clone, Debug)]
pub struct Model {
    states: BTreeMap<u64, State>,
}

impl State {
    /// Trees by name.
    pub fn trees(&self) -> impl Iterator<Item = (&[u8], &Entries)> {
        self.trees.iter().map(|(name, entries)| (name.as_slice(), &**entries))
    }

    /// The entries of a tree, if there is one of this name.
    #[must_use]
    pub fn tree(&self, name: &[u8]) -> Option<&Entries> {
        self.trees.get(name).map(|entries| &**entries)
    }

    /// A value, if tree and key are there.
    #[must_use]
    pub fn get(&self, tree: &[u8], key: &[u8]) -> Option<&[u8]> {
        self.tree(tree)?.get(key).map(|value| &**value)
    }

    /// Entries of all trees.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.trees.values().map(|entries| entries.len()).sum()
    }

    /// Applies one operation, as a transaction of the engine would: every operation but
    /// [`Op::DropTree`] makes its tree, should it be missing.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::CreateTree { tree } => {
                self.tree_mut(tree);
            }
            Op::DropTree { tree } => {
                self.trees.remove(tree.as_bytes());
            }
            Op::Clear { tree } => *self.tree_mut(tree) = Entries::new(),
            Op::Insert { tree, key, value } => {
                self.tree_mut(tree).insert(key.clone(), value.clone());
            }
            Op::Remove { tree, key } => {
                self.tree_mut(tree).remove(key);
            }
        }
    }

    /// Removes the entries of a tree whose keys lie between bounds; makes the tree, should it be
    /// missing. Bounds that are the wrong way round have nothing between them.
    pub fn remove_range(&mut self, tree: &str, lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) {
        let bounds = (lower.as_ref(), upper.as_ref());
        self.tree_mut(tree).retain(|key, _| !RangeBounds::<Vec<u8>>::contains(&bounds, key));
    }

    /// A hash of all names and entries.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.trees.iter().fold(0, |hash, (name, entries)| {
            let content = entries
                .iter()
                .fold(1, |hash, (key, value)| mix(hash, mix(hash_bytes(key), hash_bytes(value))));
            mix(hash, mix(hash_bytes(name), content))
        })
    }

    /// The first difference, in words for a failing test; `None` when they are equal.
    #[must_use]
    pub fn difference(&self, other: &State) -> Option<String> {
        for (name, entries) in &self.trees {
            let shown = name.escape_ascii();
            let Some(others) = other.trees.get(name) else {
                return Some(format!("tree \"{shown}\" is missing on the right"));
            };
            for (key, value) in &**entries {
                if others.get(key) != Some(value) {
                    let right = others.get(key).map(|value| value.len());
                    return Some(format!(
                        "tree \"{shown}\", key \"{}\": {} bytes on the left, {right:?} on the right",
                        key.escape_ascii(),
                        value.len()
                    ));
                }
            }
            if let Some(key) = others.keys().find(|key| !entries.contains_key(*key)) {
                return Some(format!(
                    "tree \"{shown}\", key \"{}\": on the right only",
                    key.escape_ascii()
                ));
            }
        }
        let extra = other.trees.keys().find(|name| !self.trees.contains_key(*name))?;
        Some(format!("tree \"{}\" is on the right only", extra.escape_ascii()))
    }

    /// Puts a tree in as it was read from a database, to compare.
    pub fn set_tree(&mut self, name: &[u8], entries: Entries) {
        self.trees.insert(name.to_vec(), Arc::new(entries));
    }

    fn tree_mut(&mut self, name: &str) -> &mut Entries {
        Arc::make_mut(self.trees.entry(name.as_bytes().to_vec()).or_default())
    }
}

impl Default for Model {
    fn default() -> Model {
        Model { states: BTreeMap::from([(0, State::default())]) }
    }
}

impl Model {
    /// A database without trees.
    #[must_use]
    pub fn new() -> Model {
        Model::default()
    }

    /// The newest LSN.
    #[must_use]
    pub fn lsn(&self) -> u64 {
        *self.states.keys().next_back().expect("LSN 0 is always there")
    }

    /// The newest state.
    #[must_use]
    pub fn newest(&self) -> &State {
        self.states.values().next_back().expect("LSN 0 is always there")
    }

    /// The state at an LSN: that of the newest commit at or below it; `None` when it is newer than
    /// every commit, or older than what was kept.
    #[must_use]
    pub fn at(&self, lsn: u64) -> Option<&State> {
        if lsn > self.lsn() {
            return None;
        }
        self.states.range(..=lsn).next_back().map(|(_, state)| state)
    }

    /// Commits a transaction under the LSN that the database gave it. A commit that got no LSN of
    /// its own, because it changed nothing, comes with that of the commit before.
    ///
    /// # Panics
    /// If the LSN goes back, or an LSN is given to two different states.
    pub fn commit(&mut self, lsn: u64, ops: &[Op]) {
        let mut state = self.newest().clone();
        ops.iter().for_each(|op| state.apply(op));
        self.commit_state(lsn, state);
    }

    /// Commits what a transaction has made of the newest state.
    ///
    /// # Panics
    /// As [`commit`](Model::commit).
    pub fn commit_state(&mut self, lsn: u64, state: State) {
        assert!(lsn >= self.lsn(), "LSN {lsn} comes after {}", self.lsn());
        let same = lsn > self.lsn() || state == *self.newest();
        assert!(same, "LSN {lsn} would mean two states");
        self.states.insert(lsn, state);
    }

    /// Forgets the commits above an LSN: a recovery did not bring them back.
    pub fn truncate(&mut self, lsn: u64) {
        self.states.retain(|&at, _| at <= lsn);
    }

    /// Forgets states below an LSN that nobody reads any more; the newest stays.
    pub fn forget_before(&mut self, lsn: u64) {
        let newest = self.lsn();
        self.states.retain(|&at, _| at >= lsn || at == newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(key: &str, value: &str) -> Op {
        Op::Insert {
            tree: "t".into(),
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().into(),
        }
    }

    #[test]
    fn every_lsn_keeps_its_state() {
        let mut model = Model::new();
        model.commit(1, &[insert("a", "1")]);
        model.commit(3, &[insert("a", "3"), Op::Remove { tree: "t".into(), key: b"b".to_vec() }]);
        model.commit(4, &[Op::DropTree { tree: "t".into() }]);
        assert_eq!(model.at(0).unwrap().tree(b"t"), None);
        assert_eq!(model.at(2).unwrap().get(b"t", b"a"), Some(&b"1"[..]));
        assert_eq!(model.at(3).unwrap().get(b"t", b"a"), Some(&b"3"[..]));
        assert_eq!(model.newest().tree(b"t"), None);
        assert!(model.at(5).is_none());
        model.truncate(2);
        assert_eq!(model.lsn(), 1);
    }

    #[test]
    fn a_difference_names_tree_and_key() {
        let mut left = State::default();
        left.apply(&insert("a", "1"));
        let mut right = left.clone();
        assert_eq!(left.difference(&right), None);
        right.apply(&insert("b", "2"));
        let words = left.difference(&right).unwrap();
        assert!(words.contains("\"t\"") && words.contains("\"b\""), "{words}");
        assert!(right.difference(&left).is_some());
        assert_ne!(left.hash(), right.hash());
    }
}
