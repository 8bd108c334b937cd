//! Which states can be reached from which streams, and at what cost.
//!
//! A state is an LSN of a lineage. A full stream leads to its own state from nowhere; an increment from
//! the state that it builds on to its own; a file of records from every state inside it to its end, and
//! to every *stop* on the way. Where a lineage was forked, the parent's state is the child's too. The
//! search is Dijkstra's, by the bytes that a restore would read, then by the number of files.
//!
//! A lineage does not name its parent, only the LSN and the chain hash that it forked at. Its parent
//! is of a lower epoch and has that chain hash there. Where no stream begins or ends at that LSN, it
//! is one of the epoch before that began at or before the fork. Should two be in question, because
//! one backup was restored twice, the chain hash at the fork stops a restore that took the wrong one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use treepie::{Lineage, ids::Lsn};

use super::{
    Kind,
    entry::Entry,
    manifest::{Known, LineageKey, key_of},
};

/// The streams of one repository, ordered for searches.
#[derive(Debug)]
pub(super) struct Chains<'a> {
    branches: Vec<Branch<'a>>,
    by_key: BTreeMap<LineageKey, usize>,
    known: Known,
}

/// The streams of one lineage.
#[derive(Debug)]
struct Branch<'a> {
    lineage: Lineage,
    fulls: Vec<&'a Entry>,
    /// By the LSN that they build on.
    increments: BTreeMap<Lsn, Vec<&'a Entry>>,
    records: Records<'a>,
    newest_us: u64,
    newest_lsn: Lsn,
}

/// Files of records by where they begin, each with the highest end of those up to it: whoever looks
/// for the ones around an LSN stops where no earlier one reaches so far.
#[derive(Debug, Default)]
struct Records<'a> {
    files: Vec<(&'a Entry, Lsn)>,
}

impl<'a> Records<'a> {
    fn seal(&mut self) {
        self.files.sort_by_key(|(entry, _)| (entry.stream.base.lsn, entry.stream.last.lsn));
        let mut reach = Lsn(0);
        for (entry, highest) in &mut self.files {
            reach = reach.max(entry.stream.last.lsn);
            *highest = reach;
        }
    }

    /// Those that lead on from `lsn`.
    fn from(&self, lsn: Lsn) -> impl Iterator<Item = &'a Entry> {
        let end = self.files.partition_point(|(entry, _)| entry.stream.base.lsn <= lsn);
        let candidates = self.files[..end].iter().rev();
        candidates
            .take_while(move |(_, highest)| *highest > lsn)
            .map(|(entry, _)| *entry)
            .filter(move |entry| entry.stream.last.lsn > lsn)
    }
}

/// A state: the number of a branch, and an LSN.
pub(super) type State = (usize, Lsn);

/// How a state is reached at least cost.
#[derive(Clone, Copy, Debug)]
struct Arrival<'a> {
    from: Option<State>,
    /// None where a child begins at its parent's state.
    by: Option<&'a Entry>,
}

/// One stream on the way to a state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg<'a> {
    pub entry: &'a Entry,
    /// The state before; none for a full stream.
    pub from: Option<Lsn>,
    pub until: Lsn,
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Reach<'a> {
    arrivals: BTreeMap<State, Arrival<'a>>,
    /// Ranges of LSNs that can be restored, both ends in, in no order.
    pub covered: Vec<(Lsn, Lsn)>,
    /// The epoch of each branch.
    epochs: Vec<u64>,
}

/// The branches that lead to one.
#[derive(Debug, Default)]
struct Family {
    /// The places where a restore may stop in each of them.
    places: BTreeMap<usize, BTreeSet<Lsn>>,
    parents: BTreeMap<usize, Vec<usize>>,
}

impl<'a> Chains<'a> {
    pub(super) fn new(entries: impl IntoIterator<Item = &'a Entry>) -> Chains<'a> {
        let mut chains =
            Chains { branches: Vec::new(), by_key: BTreeMap::new(), known: Known::default() };
        for entry in entries {
            chains.known.note(&entry.stream);
            let branch = chains.branch_mut(entry.stream.lineage);
            branch.newest_us = branch.newest_us.max(entry.stream.created_us);
            branch.newest_lsn = branch.newest_lsn.max(entry.stream.last.lsn);
            match entry.stream.kind {
                Kind::Full => branch.fulls.push(entry),
                Kind::Increment => {
                    branch.increments.entry(entry.stream.base.lsn).or_default().push(entry);
                }
                Kind::Records => branch.records.files.push((entry, Lsn(0))),
            }
        }
        for branch in &mut chains.branches {
            branch.records.seal();
        }
        chains
    }

    fn branch_mut(&mut self, lineage: Lineage) -> &mut Branch<'a> {
        let index = *self.by_key.entry(key_of(&lineage)).or_insert(self.branches.len());
        if index == self.branches.len() {
            self.branches.push(Branch {
                lineage,
                fulls: Vec::new(),
                increments: BTreeMap::new(),
                records: Records::default(),
                newest_us: 0,
                newest_lsn: Lsn(0),
            });
        }
        &mut self.branches[index]
    }

    /// All lineages, with the time of the newest stream of each.
    pub(super) fn lineages(&self) -> impl Iterator<Item = (Lineage, u64)> {
        self.branches.iter().map(|branch| (branch.lineage, branch.newest_us))
    }

    /// The lineage of a branch.
    pub(super) fn lineage(&self, branch: usize) -> Lineage {
        self.branches[branch].lineage
    }

    /// The number of a lineage's branch.
    pub(super) fn branch(&self, lineage: &Lineage) -> Option<usize> {
        self.by_key.get(&key_of(lineage)).copied()
    }

    /// The highest LSN that a stream of this branch holds.
    pub(super) fn newest_lsn(&self, branch: usize) -> Lsn {
        self.branches[branch].newest_lsn
    }

    /// The chain hash at a state, where a stream begins or ends there.
    pub(super) fn chain(&self, (branch, lsn): State) -> Option<u64> {
        let lineage = &self.branches[branch].lineage;
        if lineage.epoch > 0 && lineage.forked_at == lsn {
            return Some(lineage.forked_chain);
        }
        self.known.chain(lineage, lsn)
    }

    /// The branches that one may have forked from.
    fn parents(&self, child: usize) -> Vec<usize> {
        let of = &self.branches[child].lineage;
        let (mut certain, mut possible) = (Vec::new(), Vec::new());
        for (index, branch) in self.branches.iter().enumerate() {
            let lineage = &branch.lineage;
            if lineage.epoch >= of.epoch || lineage.forked_at > of.forked_at {
                continue;
            }
            match self.chain((index, of.forked_at)) {
                Some(chain) if chain == of.forked_chain => certain.push(index),
                None if lineage.fork_count() + 1 == of.fork_count() => possible.push(index),
                _ => {}
            }
        }
        if certain.is_empty() { possible } else { certain }
    }

    /// The branch and its possible ancestors. A stop in an ancestor is where a child forked from it,
    /// and each of `stops` below such a place.
    fn family(&self, branch: usize, stops: &[Lsn]) -> Family {
        let mut family = Family::default();
        family.places.insert(branch, stops.iter().copied().collect());
        let mut children = vec![branch];
        while let Some(child) = children.pop() {
            let forked_at = self.branches[child].lineage.forked_at;
            let parents = self.parents(child);
            for &parent in &parents {
                let places = family.places.entry(parent).or_default();
                places.insert(forked_at);
                places.extend(stops.iter().copied().filter(|&stop| stop < forked_at));
                if !family.parents.contains_key(&parent) {
                    children.push(parent);
                }
            }
            family.parents.insert(child, parents);
        }
        family
    }

    /// The entries that may lead to a state of a branch: its own, and its ancestors' up to where
    /// they were left. With each goes the highest LSN that counts of it.
    pub(super) fn of_family(&self, branch: usize) -> Vec<(&'a Entry, Lsn)> {
        let mut entries = Vec::new();
        for (index, places) in self.family(branch, &[]).places {
            let of = &self.branches[index];
            let bound = bound_of(index, branch, &places);
            let increments = of.increments.values().flatten().copied();
            let records = of.records.files.iter().map(|(entry, _)| *entry);
            let all = of.fulls.iter().copied().chain(increments).chain(records);
            let counts = |entry: &&Entry| match entry.stream.kind {
                Kind::Records => entry.stream.base.lsn < bound,
                Kind::Full | Kind::Increment => entry.stream.last.lsn <= bound,
            };
            let bounded = |entry: &'a Entry| (entry, entry.stream.last.lsn.min(bound));
            entries.extend(all.filter(counts).map(bounded));
        }
        entries
    }

    /// Finds all that can be reached in a branch and its ancestors, with each of `stops` as a state of
    /// its own where a file of records goes over it.
    pub(super) fn search(&self, branch: usize, stops: &[Lsn]) -> Reach<'a> {
        let mut search = Search {
            chains: self,
            family: self.family(branch, stops),
            target: branch,
            open: BinaryHeap::new(),
            best: BTreeMap::new(),
            reach: Reach {
                arrivals: BTreeMap::new(),
                covered: Vec::new(),
                epochs: self.branches.iter().map(|branch| branch.lineage.epoch).collect(),
            },
        };
        search.run();
        search.reach
    }
}

/// How far a branch counts.
fn bound_of(branch: usize, target: usize, places: &BTreeSet<Lsn>) -> Lsn {
    if branch == target {
        return Lsn(u64::MAX);
    }
    places.last().copied().unwrap_or_default()
}

/// Bytes, then files.
type Cost = (u64, u32);

struct Search<'s, 'a> {
    chains: &'s Chains<'a>,
    family: Family,
    target: usize,
    open: BinaryHeap<Reverse<(Cost, State)>>,
    best: BTreeMap<State, (Cost, Arrival<'a>)>,
    reach: Reach<'a>,
}

impl<'a> Search<'_, 'a> {
    fn run(&mut self) {
        let branches: Vec<usize> = self.family.places.keys().copied().collect();
        for branch in branches {
            for &full in &self.chains.branches[branch].fulls {
                let arrival = Arrival { from: None, by: Some(full) };
                self.offer((branch, full.stream.last.lsn), (full.bytes, 1), arrival);
            }
        }
        while let Some(Reverse((cost, state))) = self.open.pop() {
            let (best, arrival) = self.best[&state];
            if best == cost && !self.reach.arrivals.contains_key(&state) {
                self.reach.arrivals.insert(state, arrival);
                self.go_on(state, cost);
            }
        }
    }

    fn bound(&self, branch: usize) -> Lsn {
        bound_of(branch, self.target, &self.family.places[&branch])
    }

    fn offer(&mut self, state: State, cost: Cost, arrival: Arrival<'a>) {
        if state.1 > self.bound(state.0) {
            return;
        }
        if self.best.get(&state).is_none_or(|(best, _)| cost < *best) {
            self.best.insert(state, (cost, arrival));
            self.open.push(Reverse((cost, state)));
        }
    }

    fn go_on(&mut self, (branch, lsn): State, cost: Cost) {
        let from = Some((branch, lsn));
        let of = &self.chains.branches[branch];
        self.reach.covered.push((lsn, lsn));
        for &entry in of.increments.get(&lsn).into_iter().flatten() {
            let arrival = Arrival { from, by: Some(entry) };
            self.offer((branch, entry.stream.last.lsn), plus(cost, entry), arrival);
        }
        for entry in of.records.from(lsn) {
            let arrival = Arrival { from, by: Some(entry) };
            let (last, cost) = (entry.stream.last.lsn, plus(cost, entry));
            self.offer((branch, last), cost, arrival);
            self.reach.covered.push((lsn, last.min(self.bound(branch))));
            let after = lsn.next()..last;
            if after.is_empty() {
                continue;
            }
            // An increment goes on from wherever it was based, be it in the middle of records.
            let bases = of.increments.range(after.clone()).map(|(base, _)| *base);
            let places = self.family.places[&branch].range(after).copied();
            let stops: Vec<Lsn> = bases.chain(places).collect();
            for stop in stops {
                self.offer((branch, stop), cost, arrival);
            }
        }
        let children: Vec<usize> = self.family.parents.keys().copied().collect();
        for child in children {
            let is_fork = self.chains.branches[child].lineage.forked_at == lsn;
            if is_fork && self.family.parents[&child].contains(&branch) {
                self.offer((child, lsn), cost, Arrival { from, by: None });
            }
        }
    }
}

fn plus((bytes, files): Cost, entry: &Entry) -> Cost {
    (bytes.saturating_add(entry.bytes), files + 1)
}

impl<'a> Reach<'a> {
    /// The streams on the cheapest way to a state, in their order; none if it cannot be reached. A
    /// state of an ancestor counts as well, where the branch itself had not begun.
    pub(super) fn way_to(&self, branch: usize, lsn: Lsn) -> Option<Vec<Leg<'a>>> {
        let mut state = self.state_at(branch, lsn)?;
        let mut legs = Vec::new();
        loop {
            let arrival = self.arrivals[&state];
            if let Some(entry) = arrival.by {
                let from = arrival.from.map(|(_, lsn)| lsn);
                legs.push(Leg { entry, from, until: state.1 });
            }
            match arrival.from {
                Some(from) => state = from,
                None => break,
            }
        }
        legs.reverse();
        Some(legs)
    }

    /// The state of the branch at this LSN, or else of its nearest ancestor that has one.
    pub(super) fn state_at(&self, branch: usize, lsn: Lsn) -> Option<State> {
        if self.arrivals.contains_key(&(branch, lsn)) {
            return Some((branch, lsn));
        }
        let states = self.arrivals.keys().copied().filter(|(_, at)| *at == lsn);
        states.max_by_key(|(branch, _)| self.epochs[*branch])
    }

    /// Whether the state is reached that a stream builds on.
    pub(super) fn has_base_of(&self, branch: usize, entry: &Entry) -> bool {
        let base = entry.stream.base.lsn;
        entry.stream.kind == Kind::Full || self.arrivals.contains_key(&(branch, base))
    }

    /// The lowest state of a branch from one LSN to another, both in.
    pub(super) fn first_state(&self, branch: usize, from: Lsn, to: Lsn) -> Option<Lsn> {
        if from > to {
            return None;
        }
        let mut states = self.arrivals.range((branch, from)..=(branch, to));
        states.next().map(|((_, lsn), _)| *lsn)
    }

    /// The highest LSN that can be restored up to `lsn`, and the lowest above.
    pub(super) fn nearest(&self, lsn: Lsn) -> (Option<Lsn>, Option<Lsn>) {
        let below = self.covered.iter().filter(|(from, _)| *from <= lsn);
        let below = below.map(|(_, to)| (*to).min(lsn)).max();
        let above = self.covered.iter().filter(|(_, to)| *to > lsn);
        (below, above.map(|(from, _)| (*from).max(lsn.next())).min())
    }
}
