//! Makes a failing script short: takes away whatever it fails without, then makes simpler what is
//! left.
//!
//! Steps, closures of batches and operations are *nodes*, numbered in the order in which they are
//! written; a node that goes takes along what is in it. First whole stretches of nodes go, then
//! shorter ones, down to single nodes (delta debugging); then values become short, keys get names
//! that can be read, savepoints dissolve, and closures become plain ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use treepie::Durability;

use super::{Act, Closure, End, Script, Step, Value};

/// The shortest script that was found to fail, after `tries_max` tries at most.
///
/// `fails` tells whether a script still shows the fault. It is not asked about `script` itself.
pub fn minimise(script: &Script, tries_max: usize, fails: impl FnMut(&Script) -> bool) -> Script {
    let mut search = Search { best: script.clone(), tries: tries_max, fails };
    loop {
        let before = search.best.clone();
        search.remove_nodes();
        search.simplify();
        if search.best == before || search.tries == 0 {
            return search.best;
        }
    }
}

struct Search<F> {
    best: Script,
    tries: usize,
    fails: F,
}

impl<F: FnMut(&Script) -> bool> Search<F> {
    /// Takes a candidate if it still fails.
    fn offer(&mut self, candidate: Script) -> bool {
        if self.tries == 0 || candidate == self.best {
            return false;
        }
        self.tries -= 1;
        let is_taken = (self.fails)(&candidate);
        if is_taken {
            self.best = candidate;
        }
        is_taken
    }

    fn remove_nodes(&mut self) {
        let mut size = count(&self.best).next_power_of_two() / 2;
        while size > 0 && self.tries > 0 {
            let mut at = 0;
            let mut is_shorter = false;
            while at < count(&self.best) {
                let gone: BTreeSet<usize> = (at..at + size).collect();
                let candidate = without(&self.best, &gone);
                if self.offer(candidate) {
                    is_shorter = true;
                } else {
                    at += size;
                }
            }
            if !is_shorter || size > 1 {
                size /= 2;
            }
        }
    }

    fn simplify(&mut self) {
        let mut at = 0;
        while at < count(&self.best) {
            let candidates = simpler(&self.best, at);
            // What was taken can perhaps be made simpler still.
            if !candidates.into_iter().any(|candidate| self.offer(candidate)) {
                at += 1;
            }
        }
        self.name_keys();
    }

    /// Each key gets the shortest name that is free and keeps the fault.
    fn name_keys(&mut self) {
        for key in keys(&self.best) {
            let taken = keys(&self.best);
            let name = (b'a'..=b'z').map(|letter| vec![letter]).find(|name| !taken.contains(name));
            let Some(name) = name else { return };
            if key.len() > 1 || !key[0].is_ascii_lowercase() {
                let names = BTreeMap::from([(key, name)]);
                let candidate = renamed(&self.best, &names);
                self.offer(candidate);
            }
        }
    }
}

/// Nodes of a script.
fn count(script: &Script) -> usize {
    script.steps.iter().map(step_count).sum()
}

fn step_count(step: &Step) -> usize {
    match step {
        Step::Write(closure) => 1 + closure.count(),
        Step::Batch(closures) => {
            1 + closures.iter().map(|closure| 1 + closure.count()).sum::<usize>()
        }
        _ => 1,
    }
}

/// The script without some of its nodes.
fn without(script: &Script, gone: &BTreeSet<usize>) -> Script {
    let mut at = 0;
    let mut steps = Vec::new();
    for step in &script.steps {
        let end = at + step_count(step);
        if !gone.contains(&at) {
            at += 1;
            steps.push(match step {
                Step::Write(closure) => Step::Write(closure_without(closure, gone, &mut at)),
                Step::Batch(closures) => {
                    let mut left = Vec::new();
                    for closure in closures {
                        let end = at + 1 + closure.count();
                        if !gone.contains(&at) {
                            at += 1;
                            left.push(closure_without(closure, gone, &mut at));
                        }
                        at = end;
                    }
                    Step::Batch(left)
                }
                other => other.clone(),
            });
        }
        at = end;
    }
    Script { setup: script.setup, steps }
}

fn closure_without(closure: &Closure, gone: &BTreeSet<usize>, at: &mut usize) -> Closure {
    Closure { acts: acts_without(&closure.acts, gone, at), ..closure.clone() }
}

fn acts_without(acts: &[Act], gone: &BTreeSet<usize>, at: &mut usize) -> Vec<Act> {
    let mut left = Vec::new();
    for act in acts {
        let end = *at + act.count();
        if !gone.contains(at) {
            *at += 1;
            left.push(match act {
                Act::Savepoint(inner, how) => Act::Savepoint(acts_without(inner, gone, at), *how),
                other => other.clone(),
            });
        }
        *at = end;
    }
    left
}

/// Scripts in which one node is simpler, the simplest first.
fn simpler(script: &Script, node: usize) -> Vec<Script> {
    let mut at = 0;
    for (index, step) in script.steps.iter().enumerate() {
        let end = at + step_count(step);
        if node < end {
            let steps = simpler_steps(step, node - at).into_iter();
            let candidates = steps.map(|step| {
                let mut candidate = script.clone();
                candidate.steps[index] = step;
                candidate
            });
            return candidates.collect();
        }
        at = end;
    }
    Vec::new()
}

fn simpler_steps(step: &Step, node: usize) -> Vec<Step> {
    match step {
        Step::Write(closure) => {
            simpler_closures(closure, node).into_iter().map(Step::Write).collect()
        }
        Step::Batch(closures) if node == 0 => match closures.as_slice() {
            [only] => vec![Step::Write(only.clone())],
            _ => Vec::new(),
        },
        Step::Batch(closures) => {
            let mut at = 1;
            for (index, closure) in closures.iter().enumerate() {
                let end = at + 1 + closure.count();
                if node < end {
                    let candidates = simpler_closures(closure, node - at).into_iter();
                    let batches = candidates.map(|closure| {
                        let mut batch = closures.clone();
                        batch[index] = closure;
                        Step::Batch(batch)
                    });
                    return batches.collect();
                }
                at = end;
            }
            Vec::new()
        }
        Step::Kill => vec![Step::Reopen],
        _ => Vec::new(),
    }
}

fn simpler_closures(closure: &Closure, node: usize) -> Vec<Closure> {
    if node > 0 {
        let lists = simpler_lists(&closure.acts, node - 1).into_iter();
        return lists.map(|acts| Closure { acts, ..closure.clone() }).collect();
    }
    let mut candidates = Vec::new();
    if closure.end != End::Stays {
        candidates.push(Closure { end: End::Stays, ..closure.clone() });
    }
    if closure.durability != Durability::Sync {
        candidates.push(Closure { durability: Durability::Sync, ..closure.clone() });
    }
    candidates
}

fn simpler_lists(acts: &[Act], node: usize) -> Vec<Vec<Act>> {
    let mut at = 0;
    for (index, act) in acts.iter().enumerate() {
        let end = at + act.count();
        if node < end {
            let replaced = |new: Vec<Act>| {
                let mut list = acts.to_vec();
                list.splice(index..=index, new);
                list
            };
            return simpler_acts(act, node - at).into_iter().map(replaced).collect();
        }
        at = end;
    }
    Vec::new()
}

/// What one operation, or one inside of it, can be replaced by.
fn simpler_acts(act: &Act, node: usize) -> Vec<Vec<Act>> {
    match act {
        Act::Savepoint(inner, end) if node > 0 => {
            let lists = simpler_lists(inner, node - 1).into_iter();
            lists.map(|list| vec![Act::Savepoint(list, *end)]).collect()
        }
        Act::Savepoint(inner, End::Stays) => vec![inner.clone()],
        Act::Savepoint(inner, _) => {
            vec![inner.clone(), vec![Act::Savepoint(inner.clone(), End::Stays)]]
        }
        Act::Insert(tree, key, value) => {
            let mut lens = vec![0, 1, value.len / 2, value.len * 7 / 8];
            lens.retain(|len| *len < value.len);
            let shorter = lens.into_iter().map(|len| Value { len, fill: value.fill });
            let plain = (value.fill != 1).then_some(Value { len: value.len, fill: 1 });
            let values = shorter.chain(plain);
            values.map(|value| vec![Act::Insert(tree.clone(), key.clone(), value)]).collect()
        }
        Act::Annotate(len) if *len > 0 => vec![vec![Act::Annotate(0)]],
        _ => Vec::new(),
    }
}

/// All keys of a script.
fn keys(script: &Script) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let acts = script.steps.iter().flat_map(Step::closures).flat_map(|closure| &closure.acts);
    acts.for_each(|act| add_keys(act, &mut found));
    found.remove(&Vec::new());
    found
}

fn add_keys(act: &Act, found: &mut BTreeSet<Vec<u8>>) {
    match act {
        Act::Insert(_, key, _) | Act::Remove(_, key) => {
            found.insert(key.clone());
        }
        Act::RemoveRange(_, lower, upper) => {
            for bound in [lower, upper] {
                if let Bound::Included(key) | Bound::Excluded(key) = bound {
                    found.insert(key.clone());
                }
            }
        }
        Act::Savepoint(acts, _) => acts.iter().for_each(|act| add_keys(act, found)),
        _ => {}
    }
}

/// The script with other keys.
fn renamed(script: &Script, names: &BTreeMap<Vec<u8>, Vec<u8>>) -> Script {
    let mut script = script.clone();
    for step in &mut script.steps {
        let closures = match step {
            Step::Write(closure) => std::slice::from_mut(closure),
            Step::Batch(closures) => closures,
            _ => continue,
        };
        closures.iter_mut().for_each(|closure| rename_acts(&mut closure.acts, names));
    }
    script
}

fn rename_acts(acts: &mut [Act], names: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let rename = |key: &mut Vec<u8>| {
        if let Some(name) = names.get(key) {
            key.clone_from(name);
        }
    };
    for act in acts {
        match act {
            Act::Insert(_, key, _) | Act::Remove(_, key) => rename(key),
            Act::RemoveRange(_, lower, upper) => {
                for bound in [lower, upper] {
                    if let Bound::Included(key) | Bound::Excluded(key) = bound {
                        rename(key);
                    }
                }
            }
            Act::Savepoint(inner, _) => rename_acts(inner, names),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::State, script::Manner};

    #[test]
    fn nodes_are_counted_and_removed_with_what_is_in_them() {
        for seed in 0..30 {
            let script = Script::of_seed(seed, &Manner::of_seed(seed));
            let all = count(&script);
            let none = without(&script, &(0..all).collect());
            assert!(none.steps.is_empty(), "seed {seed}");
            assert_eq!(without(&script, &BTreeSet::new()), script, "seed {seed}");
            for node in 0..all {
                let left = count(&without(&script, &BTreeSet::from([node])));
                assert!(left < all, "seed {seed}, node {node}");
            }
        }
    }

    /// The fault: a tree is dropped that has a value of at least 700 bytes.
    fn has_fault(script: &Script) -> bool {
        let mut state = State::default();
        for closure in script.steps.iter().flat_map(Step::closures) {
            if closure.end != End::Stays {
                continue;
            }
            for act in &closure.acts {
                if let Act::Drop(tree) = act
                    && let Some(entries) = state.tree(tree.as_bytes())
                    && entries.values().any(|value| value.len() >= 700)
                {
                    return true;
                }
                act.apply(&mut state);
            }
        }
        false
    }

    #[test]
    fn a_script_of_dozens_of_steps_is_cut_down_to_what_makes_it_fail() {
        let seed = (0..).find(|&seed| has_fault(&Script::of_seed(seed, &Manner::of_seed(seed))));
        let seed = seed.expect("some seed has it");
        let script = Script::of_seed(seed, &Manner::of_seed(seed));
        let mut tries = 0;
        let short = minimise(&script, 5000, |candidate| {
            tries += 1;
            has_fault(candidate)
        });
        assert!(has_fault(&short), "{short}");
        assert!(tries < 2000, "{tries} tries");
        assert!(short.acts() == 2 && short.steps.len() <= 2, "from {}:\n{short}", script.acts());
        assert!(short.to_string().contains("\"a\" 7"), "a short key and a short value:\n{short}");
    }

    #[test]
    fn no_more_tries_are_made_than_allowed() {
        let script = Script::of_seed(3, &Manner::of_seed(3));
        let mut tries = 0;
        minimise(&script, 10, |_| {
            tries += 1;
            false
        });
        assert_eq!(tries, 10);
    }
}
