//! A random script of three sites and a model: one leads, records are shipped by hand, leaders change, the
//! power is cut. What the sites say is compared with the model, and with one another, page by page.
//!
//! The consensus is in the script: it sees all logs, and has those records committed that Raft would. So
//! what is tested is what the door makes of it.

use std::collections::{BTreeMap, HashMap};

use treepie::{
    Error, Snapshot, Submitted, WriteTxn,
    ids::{Lsn, Term},
    replication::{HardState, LogState, SharedRecord},
};

use crate::{
    Rng, mix,
    model::Model,
    workload::{Op, Shape, Step, generate},
};

use super::{
    compare::{apply, compare},
    site::{Site, fingerprint},
};

/// Sites of a script.
const SITES: usize = 3;
/// Records that are appended or shipped with one write, at most.
const GROUP_MAX: u64 = 6;

/// What a script has done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Records that were committed.
    pub commits: u64,
    /// Leaders that were made.
    pub leaders: u64,
    /// Callers who were told that the outcome is not known.
    pub unknown: u64,
    /// Suffixes that were truncated.
    pub truncations: u64,
    /// Power cuts.
    pub cuts: u64,
    /// States that were compared with the model.
    pub states: u64,
    /// Fingerprints of all pages that were compared.
    pub fingerprints: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Counts) -> Counts {
        Counts {
            commits: self.commits + other.commits,
            leaders: self.leaders + other.leaders,
            unknown: self.unknown + other.unknown,
            truncations: self.truncations + other.truncations,
            cuts: self.cuts + other.cuts,
            states: self.states + other.states,
            fingerprints: self.fingerprints + other.fingerprints,
        }
    }
}

/// A caller who waits, and the record of its change.
struct Caller {
    write: Submitted<()>,
    /// The last record that it changed, or saw.
    lsn: Lsn,
    /// Whether that is a record of its own.
    has_record: bool,
    /// Its closure fails by itself.
    fails: bool,
}

struct World {
    rng: Rng,
    sites: Vec<Site>,
    writes: Vec<Vec<Op>>,
    /// Who leads, and how far its log is on paper: with what it has sealed and not appended.
    leader: Option<usize>,
    term: u64,
    log: BTreeMap<Lsn, SharedRecord>,
    /// What the record of a chain hash has done.
    done: HashMap<u64, Vec<Op>>,
    /// The records that are committed, by chain hash, and the states that they lead to.
    committed: BTreeMap<Lsn, u64>,
    model: Model,
    prints: HashMap<Lsn, u64>,
    callers: Vec<Caller>,
    snapshot: Option<(usize, Snapshot)>,
    counts: Counts,
}

/// Runs the script of a seed.
///
/// # Errors
/// What was broken, and at which step.
pub fn run(seed: u64, steps: u64) -> Result<Counts, String> {
    let mut world = World::new(seed, steps).map_err(|what| format!("at the beginning: {what}"))?;
    for step in 0..steps {
        world.step(seed).map_err(|what| format!("step {step}: {what}"))?;
    }
    world.end().map_err(|what| format!("at the end: {what}"))?;
    Ok(world.counts)
}

fn text(error: Error) -> String {
    error.to_string()
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl World {
    fn new(seed: u64, steps: u64) -> Result<World, String> {
        let sites = Site::group(seed, SITES as u64).map_err(text)?;
        let shape = Shape {
            steps: usize::try_from(steps).unwrap_or(usize::MAX),
            trees: 3,
            keys: 60,
            value_pages_max: 4,
            checkpoint_every: 0,
            reopen_every: 0,
            ..Shape::default()
        };
        let writes = generate(seed, &shape).into_iter().filter_map(|step| match step {
            Step::Write(ops) => Some(ops),
            _ => None,
        });
        let mut world = World {
            rng: Rng::new(mix(seed, 0xd00f)),
            writes: writes.collect(),
            sites,
            leader: None,
            term: 1,
            log: BTreeMap::new(),
            done: HashMap::new(),
            committed: BTreeMap::new(),
            model: Model::new(),
            prints: HashMap::new(),
            callers: Vec::new(),
            snapshot: None,
            counts: Counts::default(),
        };
        let state = world.sites[0].door().state();
        world.committed.insert(state.last, state.last_chain);
        world.model.commit(state.last.0, &[]);
        Ok(world)
    }

    fn state(&self, site: usize) -> LogState {
        self.sites[site].door().state()
    }

    fn step(&mut self, seed: u64) -> Result<(), String> {
        let site = self.rng.index(SITES);
        match (self.rng.below(100), self.leader) {
            (0..30, Some(leader)) => self.write(leader),
            (30..40, Some(leader)) => self.append(leader),
            (40..62, Some(leader)) if site != leader => self.ship(leader, site),
            (62..75, Some(leader)) => self.commit(leader),
            (75..83, Some(leader)) if site != leader => self.follow(leader, site),
            (83..86, _) => self.sites[site].door().sync().map(|_| ()).map_err(text),
            (86..89, _) => self.check_pages(site),
            (89..91, _) => self.sites[site].db().checkpoint().map(|_| ()).map_err(text),
            (91..94, _) => self.hold_or_release(site),
            (94..96, _) => self.cut_power(seed, site),
            (96..100, _) | (_, None) => self.elect(site),
            _ => Ok(()),
        }
    }

    fn write(&mut self, leader: usize) -> Result<(), String> {
        let Some(ops) = self.writes.pop() else { return Ok(()) };
        let (fails, own) = (self.rng.chance(1, 8), ops.clone());
        let change = move |tx: &mut WriteTxn<'_>| {
            apply(tx, &own)?;
            if fails { Err(Error::rejected("on purpose")) } else { Ok(()) }
        };
        let write = self.sites[leader].db().submit(change).map_err(text)?;
        let sealed = self.sites[leader].take_sealed();
        match sealed.as_slice() {
            [] => {
                // It failed, found no way, or changed nothing: in the last case it waits for others.
                let lsn = self.log.keys().next_back().copied().unwrap_or_default();
                if !write.is_done() {
                    self.callers.push(Caller { write, lsn, has_record: false, fails });
                }
                Ok(())
            }
            [record] => {
                ensure(!fails, || "a closure that failed has a record".to_owned())?;
                ensure(!write.is_done(), || format!("record {} is final at once", record.lsn()))?;
                self.done.insert(record.chain(), ops);
                let lsn = record.lsn();
                self.callers.push(Caller { write, lsn, has_record: true, fails });
                self.log.insert(record.lsn(), record.clone());
                Ok(())
            }
            more => Err(format!("{} records of one closure", more.len())),
        }
    }

    /// The leader's journal gets some of what was sealed.
    fn append(&mut self, leader: usize) -> Result<(), String> {
        let door = self.sites[leader].door();
        let next = door.state().last.next();
        let count = 1 + self.rng.below(GROUP_MAX);
        let records: Vec<_> =
            self.log.range(next..).take(count as usize).map(|r| r.1.clone()).collect();
        door.append(None, &records).map_err(text)?;
        if self.rng.chance(2, 3) {
            door.sync().map_err(text)?;
        }
        Ok(())
    }

    /// The last record that a site has in common with the leader.
    fn common(&self, site: usize) -> Result<Lsn, String> {
        let door = self.sites[site].door();
        let mut at = door.state().last;
        let end = self.log.keys().next_back().copied().unwrap_or_default();
        at = at.min(end);
        while let Some(record) = self.log.get(&at) {
            let own = door.state();
            let chain = if at == own.last {
                own.last_chain
            } else {
                door.record(at).map_err(text)?.chain()
            };
            if chain == record.chain() {
                break;
            }
            at = Lsn(at.0 - 1);
        }
        // What it has committed as a leader may be more than what its journal has.
        let final_here = door.state().committed.min(door.state().last);
        ensure(at >= final_here, || {
            format!("site {site} has committed {final_here} and has {at} in common")
        })?;
        Ok(at)
    }

    /// Sends a site what it has not got of the leader's log, or a part of it.
    fn ship(&mut self, leader: usize, site: usize) -> Result<(), String> {
        let count = 1 + self.rng.below(GROUP_MAX);
        let is_synced = self.rng.chance(3, 4);
        self.ship_some(leader, site, count, is_synced)
    }

    fn ship_some(
        &mut self,
        leader: usize,
        site: usize,
        count: u64,
        sync: bool,
    ) -> Result<(), String> {
        let common = self.common(site)?;
        let (term, door) = (Term(self.term), self.sites[site].door());
        if door.state().last > common {
            door.truncate(common).map_err(text)?;
            self.counts.truncations += 1;
        }
        let records = self.log.range(common.next()..).take(count as usize);
        let records = records.map(|(_, record)| SharedRecord::receive(record.bytes().to_vec()));
        let records = records.collect::<Result<Vec<_>, _>>().map_err(text)?;
        let is_new = door.state().hard_state.term < term;
        let hard_state = is_new.then_some(HardState { term, vote: leader as u64 + 1 });
        door.append(hard_state, &records).map_err(text)?;
        if sync {
            door.sync().map_err(text)?;
        }
        Ok(())
    }

    /// Up to where the log of a site is the leader's, and durable.
    fn acknowledged(&self, leader: usize, site: usize) -> Result<Lsn, String> {
        let synced = self.state(site).synced;
        if site == leader { Ok(synced) } else { Ok(self.common(site)?.min(synced)) }
    }

    fn commit(&mut self, leader: usize) -> Result<(), String> {
        let acknowledged = (0..SITES).map(|site| self.acknowledged(leader, site));
        let mut acknowledged = acknowledged.collect::<Result<Vec<_>, _>>()?;
        acknowledged.sort_unstable();
        let lsn = acknowledged[SITES / 2];
        if self.log.get(&lsn).is_none_or(|record| record.term() != Term(self.term)) {
            return Ok(());
        }
        self.commit_at(leader, lsn)
    }

    fn commit_at(&mut self, leader: usize, lsn: Lsn) -> Result<(), String> {
        self.sites[leader].door().commit(lsn).map_err(text)?;
        let last = self.committed.keys().next_back().copied().unwrap_or_default();
        let new: Vec<_> = self.log.range(last.next()..).take_while(|(at, _)| **at <= lsn).collect();
        for (at, record) in new {
            let none = Vec::new();
            let ops = self.done.get(&record.chain()).unwrap_or(&none);
            self.model.commit(at.0, ops);
            self.committed.insert(*at, record.chain());
            self.counts.commits += 1;
        }
        self.check_callers(lsn)?;
        self.check_state(leader)
    }

    /// Those whose records are committed have been told so, and nobody else.
    fn check_callers(&mut self, committed: Lsn) -> Result<(), String> {
        for caller in std::mem::take(&mut self.callers) {
            let (lsn, is_done) = (caller.lsn, caller.write.is_done());
            ensure(is_done == (lsn <= committed), || {
                format!("the caller of {lsn} is told {is_done}, and {committed} is committed")
            })?;
            if is_done {
                match caller.write.wait() {
                    Ok(receipt) if receipt.lsn == lsn && !caller.fails => {}
                    Err(Error::Rejected(_)) if caller.fails => {}
                    other => return Err(format!("the caller of {lsn} is told {other:?}")),
                }
            } else {
                self.callers.push(caller);
            }
        }
        Ok(())
    }

    fn follow(&mut self, leader: usize, site: usize) -> Result<(), String> {
        let known = self.state(leader).committed;
        let lsn = self.common(site)?.min(known);
        self.sites[site].door().commit(lsn).map_err(text)?;
        self.check_state(site)
    }

    /// What readers of a site see is what the model has.
    fn check_state(&mut self, site: usize) -> Result<(), String> {
        self.counts.states += 1;
        let snapshot = self.sites[site].db().read().map_err(text)?;
        let committed = self.state(site).committed;
        ensure(snapshot.lsn() == committed, || "readers see another state".to_owned())?;
        compare(&snapshot, &self.model).map_err(|what| format!("site {site}: {what}"))
    }

    /// All pages are those that other sites had at this LSN.
    fn check_pages(&mut self, site: usize) -> Result<(), String> {
        let (lsn, print) = fingerprint(self.sites[site].db()).map_err(text)?;
        self.counts.fingerprints += 1;
        let known = *self.prints.entry(lsn).or_insert(print);
        ensure(known == print, || format!("the pages of site {site} differ at LSN {lsn}"))?;
        let report = self.sites[site].db().check().map_err(text)?;
        ensure(report.is_clean(), || format!("site {site}: {:?}", report.problems))
    }

    fn hold_or_release(&mut self, site: usize) -> Result<(), String> {
        match self.snapshot.take() {
            Some((site, snapshot)) => compare(&snapshot, &self.model)
                .map_err(|what| format!("a snapshot of site {site} changed: {what}")),
            None => {
                self.snapshot = Some((site, self.sites[site].db().read().map_err(text)?));
                Ok(())
            }
        }
    }

    /// The leader of before is told that it leads no more.
    fn depose(&mut self, new: Option<usize>) -> Result<(), String> {
        let Some(leader) = self.leader.take() else { return Ok(()) };
        let number = new.map(|site| site as u64 + 1);
        self.sites[leader].door().follow(number).map_err(text)?;
        self.told_unknown()?;
        self.check_state(leader)?;
        self.check_pages(leader)
    }

    fn told_unknown(&mut self) -> Result<(), String> {
        for caller in std::mem::take(&mut self.callers) {
            ensure(caller.write.is_done(), || format!("nobody told the caller of {}", caller.lsn))?;
            match caller.write.wait() {
                Err(Error::OutcomeUnknown { lsn, .. })
                    if caller.has_record && lsn == caller.lsn =>
                {
                    self.counts.unknown += 1;
                }
                Err(Error::NotLeader { .. }) if !caller.has_record => {}
                // It failed, or found no way.
                Err(Error::Rejected(_)) if caller.fails => {}
                Err(Error::Bound { .. }) if !caller.has_record => {}
                other => return Err(format!("the caller of {} is told {other:?}", caller.lsn)),
            }
        }
        Ok(())
    }

    /// A site becomes the leader, if another one votes for it.
    fn elect(&mut self, candidate: usize) -> Result<(), String> {
        let of = |site: usize| {
            let state = self.state(site);
            (state.last_term, state.last)
        };
        let mut voters = (0..SITES).filter(|site| *site != candidate && of(*site) <= of(candidate));
        let Some(voter) = voters.next_back() else { return Ok(()) };
        self.depose(Some(candidate))?;
        self.term += 1;
        self.counts.leaders += 1;
        let (term, vote) = (Term(self.term), candidate as u64 + 1);
        let hard_state = Some(HardState { term, vote });
        let door = self.sites[candidate].door();
        let record = door.no_op(term).map_err(text)?;
        door.append(hard_state, std::slice::from_ref(&record)).map_err(text)?;
        door.sync().map_err(text)?;
        let first = self.committed.keys().next().copied().unwrap_or_default();
        let log = self.sites[candidate].log(first).map_err(text)?;
        self.log = log.into_iter().map(|record| (record.lsn(), record)).collect();
        self.ship_some(candidate, voter, u64::MAX >> 1, true)?;
        self.commit_at(candidate, record.lsn())?;
        self.sites[candidate].door().lead(term).map_err(text)?;
        self.leader = Some(candidate);
        Ok(())
    }

    fn cut_power(&mut self, seed: u64, site: usize) -> Result<(), String> {
        let before = self.state(site);
        let synced = self.acknowledged_state(site)?;
        if self.snapshot.as_ref().is_some_and(|(of, _)| *of == site) {
            self.snapshot = None;
        }
        self.counts.cuts += 1;
        let cut = mix(seed, self.counts.cuts);
        self.sites[site].cut_power(cut).map_err(text)?;
        if self.leader == Some(site) {
            self.leader = None;
            self.told_unknown()?;
        }
        let after = self.state(site);
        ensure(after.last >= before.synced, || format!("{before:?} became {after:?}"))?;
        ensure(after.hard_state.term >= synced, || format!("{before:?} became {after:?}"))?;
        let newest = self.committed.keys().next_back().copied().unwrap_or_default();
        ensure(after.committed <= newest, || format!("{} is final, {newest} is", after.committed))?;
        self.check_state(site)
    }

    /// The term that a site has promised durably: that of what is synced, at least.
    fn acknowledged_state(&self, site: usize) -> Result<Term, String> {
        let door = self.sites[site].door();
        Ok(door.term(door.state().synced).unwrap_or_default())
    }

    /// Everybody agrees in the end.
    fn end(&mut self) -> Result<(), String> {
        self.snapshot = None;
        for site in 0..SITES {
            if self.leader.is_none() {
                self.elect(site)?;
            }
        }
        let leader = self.leader.ok_or("nobody can lead")?;
        let everything = u64::MAX >> 1;
        let records: Vec<_> =
            self.log.range(self.state(leader).last.next()..).map(|r| r.1.clone()).collect();
        self.sites[leader].receive(&records).map_err(text)?;
        for site in (0..SITES).filter(|site| *site != leader) {
            self.ship_some(leader, site, everything, true)?;
        }
        self.commit(leader)?;
        for site in 0..SITES {
            if site != leader {
                self.follow(leader, site)?;
            }
            self.check_pages(site)?;
        }
        let states: Vec<_> = (0..SITES).map(|site| self.state(site).committed).collect();
        ensure(states.windows(2).all(|pair| pair[0] == pair[1]), || format!("{states:?}"))
    }
}
