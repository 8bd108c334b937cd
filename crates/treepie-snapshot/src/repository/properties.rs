//! Random histories of databases and their repositories, with a model that goes through them state by
//! state: what a plan promises can be restored, and what a policy promises stays so.
//!
//! A history is drawn from a seed; on failure it is made shorter, and the seed and the command are
//! printed. Bugs are planted in what a policy keeps, to show that the model finds them.

mod history;

use std::collections::{BTreeMap, BTreeSet};

use history::{Copy, History, op};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use treepie::ids::Lsn;
use treepie_testkit::tally::{note, thousands};

use super::{
    Entry, Keep, Kept, Kind, Plan, RepositoryError, Retention, Target, Until,
    manifest::key_of,
    plan,
    testing::{STEP_US, chain, entry, fork, lineage, time},
};
use crate::calendar;

fn policy() -> impl Strategy<Value = Retention> {
    let count = || prop_oneof![2 => Just(0_usize), 1 => 1..4_usize];
    let age = |most: u64| prop_oneof![Just(None), (0..most).prop_map(|n| Some(n * STEP_US))];
    (count(), count(), count(), age(300), age(300)).prop_map(
        |(last, hourly, daily, young, points)| {
            Retention {
                // Without any rule it would be refused.
                last: if hourly + daily == 0 { last.max(1) } else { last },
                hourly,
                daily,
                within_us: young,
                records_for_us: points,
                ..Retention::default()
            }
        },
    )
}

/// Follows a plan as a restore does; what is wrong with it, if anything.
fn fault_of(history: &History, plan: &Plan, copy: usize) -> Option<String> {
    let mut at: Option<(usize, u64)> = None;
    for step in &plan.steps {
        let stream = &step.entry.stream;
        let owner = history.of(&stream.lineage);
        let (base, last) = (stream.base.lsn.0, stream.last.lsn.0);
        let until = match step.until {
            Until::End => last,
            Until::Lsn(lsn) => lsn.0,
            Until::Time { time_us, lsn_max } => {
                (base..=lsn_max.0).rev().find(|lsn| time(*lsn) <= time_us)?
            }
        };
        if step.from.map(|lsn| lsn.0) != at.map(|(_, lsn)| lsn) {
            return Some(format!("step from {:?}, but {at:?} was reached", step.from));
        }
        let same = at.is_none_or(|(copy, lsn)| history.is_same_state(owner, copy, lsn));
        let fits = match (stream.kind, at) {
            (Kind::Full, None) => true,
            (Kind::Increment, Some((_, lsn))) => same && lsn == base,
            (Kind::Records, Some((_, lsn))) => same && base <= lsn && lsn <= until && until <= last,
            _ => false,
        };
        if !fits {
            return Some(format!("{} does not go on from {at:?}", stream.summary()));
        }
        let lineage = history.copies[owner].lineage;
        if step.chain.is_some_and(|expected| expected != chain(lineage, until)) {
            return Some(format!("wrong chain hash at {until} in {}", stream.summary()));
        }
        at = Some((owner, until));
    }
    let Some((owner, lsn)) = at else { return Some("it has no steps".to_owned()) };
    let is_there = history.is_same_state(copy, owner, lsn);
    let is_late = lsn < plan.lsn.0;
    (!is_there || is_late).then(|| format!("it ends at {lsn} of copy {owner}, not of {copy}"))
}

fn planned(entries: &[&Entry], target: Target, copy: &Copy) -> Result<Plan, RepositoryError> {
    let lineage = copy.lineage;
    let branch = plan::Branch { epoch: lineage.epoch, forked_at: Some(lineage.forked_at) };
    plan::plan(entries, target, Some(branch), "here", Vec::new())
}

/// Asks for every LSN of every copy. Returns how many were asked for.
fn check_plans(history: &History) -> Result<u64, TestCaseError> {
    let entries: Vec<&Entry> = history.entries.iter().collect();
    let states = history.reachable(&entries);
    let mut asked = 0;
    for (index, copy) in history.copies.iter().enumerate() {
        let is_alone = history
            .copies
            .iter()
            .filter(|other| other.lineage.forked_at == copy.lineage.forked_at)
            .filter(|other| other.lineage.epoch == copy.lineage.epoch)
            .count()
            == 1;
        let has_streams = entries.iter().any(|entry| entry.stream.lineage == copy.lineage);
        if !has_streams || !is_alone || !history.has_all_ancestors(index, &entries) {
            continue;
        }
        let branch_of = |lsn| (history.owner(index, lsn), lsn);
        let can = |lsn| states.contains(&(index, lsn)) || states.contains(&branch_of(lsn));
        for lsn in 0..=copy.lsn + 1 {
            asked += 1;
            let found = planned(&entries, Target::Lsn(Lsn(lsn)), copy);
            let context = format!("LSN {lsn} of copy {index}");
            match found {
                Ok(plan) => {
                    let fault = fault_of(history, &plan, index);
                    prop_assert!(can(lsn), "{context} was planned, but cannot be restored");
                    prop_assert_eq!(fault, None, "{}", context);
                }
                Err(RepositoryError::Hole(hole)) => {
                    prop_assert!(!can(lsn), "{context}: {hole}");
                    prop_assert!(hole.below.is_none_or(|below| below.0 < lsn && can(below.0)));
                    prop_assert!(hole.above.is_none_or(|above| above.0 > lsn && can(above.0)));
                    let between = (0..lsn).rev().find(|lsn| can(*lsn)).map(Lsn);
                    prop_assert_eq!(hole.below, between, "{}: the nearest below", context);
                }
                Err(RepositoryError::Empty { .. }) => prop_assert!(!can(lsn), "{context}"),
                Err(error) => prop_assert!(false, "{context}: {error}"),
            }
            asked += 1;
            // A time in the middle between two commits: the state is the one before.
            let found = planned(&entries, Target::Time(time(lsn) + STEP_US / 2), copy);
            if let Ok(plan) = found {
                let fault = fault_of(history, &plan, index);
                prop_assert_eq!(fault, None, "the time of {}", context);
                let end = match plan.steps.last().map(|step| step.until) {
                    Some(Until::Time { time_us, lsn_max }) => {
                        let fits = |x: &u64| time(*x) <= time_us;
                        (0..=lsn_max.0).rev().find(fits).unwrap_or_default()
                    }
                    _ => plan.lsn.0,
                };
                let is_exact = end == lsn || plan.ends_before_target && end < lsn;
                prop_assert!(is_exact, "the time of {context} gave LSN {end}");
            }
        }
    }
    Ok(asked)
}

/// A bug in what a policy keeps.
#[derive(Clone, Copy, Debug)]
enum Planted {
    Nothing,
    /// What an increment builds on goes.
    ForgetsBases,
    /// The first file of the records that are kept goes.
    ShortWindow,
    /// The newest snapshot of an hour goes.
    NotTheNewest,
    /// The newest state goes.
    ForgetsNewest,
    /// What cannot be restored is counted among the last.
    CountsBroken,
    /// A state is counted as often as there are snapshots of it.
    CountsCopies,
}

fn plant(bug: Planted, kept: &mut Kept, entries: &[&Entry], policy: &Retention) {
    let only = |why: Keep| BTreeSet::from([why]);
    match bug {
        Planted::Nothing => {}
        Planted::ForgetsBases => kept.retain(|_, why| *why != only(Keep::Needed)),
        Planted::ShortWindow => {
            let records = entries.iter().filter(|entry| entry.stream.kind == Kind::Records);
            let mut records: Vec<_> = records.filter(|e| kept.contains_key(&e.id)).collect();
            records.sort_by_key(|entry| entry.stream.base.lsn);
            if let Some(first) = records.first() {
                kept.remove(&first.id);
            }
        }
        Planted::NotTheNewest => kept.retain(|_, why| *why != only(Keep::Hourly)),
        Planted::ForgetsNewest => kept.retain(|_, why| !why.contains(&Keep::Newest)),
        Planted::CountsBroken => {
            let broken = kept.values().filter(|why| why.contains(&Keep::Broken)).count();
            let mut last: Vec<_> = entries
                .iter()
                .filter(|e| kept.get(&e.id).is_some_and(|why| *why == only(Keep::Last)))
                .collect();
            last.sort_by_key(|entry| (entry.stream.last_time_us, entry.stream.created_us));
            for entry in last.into_iter().take(broken.min(policy.last)) {
                kept.remove(&entry.id);
            }
        }
        Planted::CountsCopies => {
            let is_broken = |e: &Entry| kept.get(&e.id).is_some_and(|w| w.contains(&Keep::Broken));
            let snapshots = entries.iter().filter(|e| e.is_snapshot() && !is_broken(e));
            let mut snapshots: Vec<_> = snapshots.collect();
            snapshots.sort_by_key(|e| (e.stream.last_time_us, e.stream.created_us, e.id.clone()));
            for entry in snapshots.iter().rev().skip(policy.last) {
                if kept.get(&entry.id).is_some_and(|why| *why == only(Keep::Last)) {
                    kept.remove(&entry.id);
                }
            }
        }
    }
}

/// Compares what can be restored before a prune and after. Returns how many states were promised.
fn check_retention(
    history: &History,
    policy: &Retention,
    later: u64,
    bug: Planted,
) -> Result<u64, TestCaseError> {
    let all: Vec<&Entry> = history.entries.iter().collect();
    let newest = history.copies.iter().map(|copy| copy.lsn).max().unwrap_or_default();
    let now_us = time(newest) + later * STEP_US;
    let mut kept = policy.apply(&all, now_us).expect("it has a rule");
    plant(bug, &mut kept, &all, policy);
    let left: Vec<&Entry> =
        all.iter().copied().filter(|entry| kept.contains_key(&entry.id)).collect();
    let (before, after) = (history.reachable(&all), history.reachable(&left));
    let state = |entry: &Entry| (history.of(&entry.stream.lineage), entry.stream.last.lsn.0);
    let can_before = |entry: &&Entry| {
        let (copy, _) = state(entry);
        entry.stream.kind == Kind::Full || before.contains(&(copy, entry.stream.base.lsn.0))
    };
    let mut snapshots: Vec<&Entry> =
        all.iter().copied().filter(|entry| entry.is_snapshot()).filter(can_before).collect();
    snapshots.sort_by_key(|e| (e.stream.last_time_us, e.stream.created_us, e.id.clone()));
    snapshots.reverse();
    let mut seen = BTreeSet::new();
    let states: Vec<_> = snapshots.iter().copied().filter(|e| seen.insert(state(e))).collect();

    let mut promised: BTreeSet<(usize, u64)> = BTreeSet::new();
    promised.extend(states.iter().take(policy.last).map(|entry| state(entry)));
    for (count, period) in
        [(policy.hourly, calendar::hour as fn(u64) -> u64), (policy.daily, calendar::day)]
    {
        let mut newest_of: BTreeMap<u64, &Entry> = BTreeMap::new();
        for entry in snapshots.iter().rev() {
            newest_of.insert(period(entry.stream.last_time_us), entry);
        }
        promised.extend(newest_of.values().rev().take(count).map(|entry| state(entry)));
    }
    if let Some(age) = policy.within_us {
        let young = snapshots.iter().filter(|e| e.stream.last_time_us + age >= now_us);
        promised.extend(young.map(|entry| state(entry)));
    }
    // A snapshot that is kept can still be restored, whatever it was kept for.
    let kept_snapshots = snapshots.iter().filter(|entry| kept.contains_key(&entry.id));
    promised.extend(kept_snapshots.map(|entry| state(entry)));
    if let Some(age) = policy.records_for_us {
        for entry in all.iter().filter(|entry| !entry.is_snapshot()) {
            let (copy, last) = state(entry);
            let points = (entry.stream.base.lsn.0 + 1..=last).map(|lsn| (copy, lsn));
            let young = points.filter(|(_, lsn)| time(*lsn) + age >= now_us);
            promised.extend(young.filter(|point| before.contains(point)));
        }
    } else {
        let leading = all.iter().copied().filter(|e| !e.is_snapshot() || kept.contains_key(&e.id));
        promised.extend(history.reachable(&leading.collect::<Vec<_>>()));
    }
    let newest_copy = all
        .iter()
        .max_by_key(|entry| (entry.stream.created_us, entry.stream.lineage.epoch))
        .map(|entry| history.of(&entry.stream.lineage));
    promised.extend(before.iter().rev().find(|(copy, _)| Some(*copy) == newest_copy));
    for point in &promised {
        prop_assert!(after.contains(point), "{point:?} was promised; kept: {kept:?}");
    }
    let is_idempotent = policy.apply(&left, now_us).expect("it has a rule").len() <= left.len();
    prop_assert!(is_idempotent);
    Ok(promised.len() as u64)
}

/// How many cases, of which seed.
fn runner(default_seed: u64, cases: u32) -> (TestRunner, u64) {
    let seed = std::env::var("TREEPIE_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or(default_seed);
    let mut bytes = [0; 32];
    treepie_testkit::Rng::new(seed).fill(&mut bytes);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    (TestRunner::new_with_rng(config, rng), seed)
}

fn rerun(seed: u64, test: &str) -> String {
    format!("TREEPIE_SEED={seed} cargo test -p treepie-snapshot --lib {test}")
}

#[test]
fn plans_lead_to_every_state_that_can_be_restored_and_to_no_other() {
    let (mut runner, seed) = runner(13_001, 2500);
    let asked = std::cell::Cell::new(0);
    let histories = std::cell::Cell::new(0_u64);
    let result = runner.run(&vec(op(), 1..24), |ops| {
        let history = History::play(&ops);
        if !history.is_told() {
            return Ok(());
        }
        histories.set(histories.get() + 1);
        asked.set(asked.get() + check_plans(&history)?);
        Ok(())
    });
    if let Err(error) = result {
        let again = rerun(seed, "plans_lead_to_every_state");
        panic!("seed {seed}: {error}\nrerun: {again}");
    }
    let counts =
        format!("{} histories, {} targets", thousands(histories.get()), thousands(asked.get()));
    note(13, "repository: plans", &counts);
}

#[test]
fn what_a_policy_promises_can_be_restored_after_every_prune() {
    let (mut runner, seed) = runner(13_002, 4000);
    let promised = std::cell::Cell::new(0);
    let histories = std::cell::Cell::new(0_u64);
    let cases = (vec(op(), 1..30), policy(), 0..200_u64);
    let result = runner.run(&cases, |(ops, policy, later)| {
        let history = History::play(&ops);
        if !history.is_told() {
            return Ok(());
        }
        histories.set(histories.get() + 1);
        let count = check_retention(&history, &policy, later, Planted::Nothing)?;
        promised.set(promised.get() + count);
        Ok(())
    });
    if let Err(error) = result {
        let again = rerun(seed, "what_a_policy_promises");
        panic!("seed {seed}: {error}\nrerun: {again}");
    }
    let counts = format!(
        "{} histories, {} promised states",
        thousands(histories.get()),
        thousands(promised.get())
    );
    note(13, "repository: retention", &counts);
}

#[test]
fn planted_bugs_of_retention_are_found() {
    let bugs = [
        Planted::ForgetsBases,
        Planted::ShortWindow,
        Planted::NotTheNewest,
        Planted::ForgetsNewest,
        Planted::CountsBroken,
        Planted::CountsCopies,
    ];
    for bug in bugs {
        let (mut runner, seed) = runner(13_003, 4000);
        let cases = (vec(op(), 1..30), policy(), 0..200_u64);
        let result = runner.run(&cases, |(ops, policy, later)| {
            let history = History::play(&ops);
            if !history.is_told() {
                return Ok(());
            }
            check_retention(&history, &policy, later, bug).map(|_| ())
        });
        let is_found = matches!(result, Err(TestError::Fail(..)));
        assert!(is_found, "{bug:?} was not found with seed {seed}: {result:?}");
    }
    note(13, "repository: planted bugs", &format!("{} of retention, all found", bugs.len()));
}

#[test]
fn planted_bugs_of_plans_are_found() {
    let main = lineage(0);
    let child = fork(main, 25);
    let history = History {
        copies: vec![
            Copy { lineage: main, parent: None, lsn: 40, archived: 40 },
            Copy { lineage: child, parent: Some(0), lsn: 50, archived: 50 },
        ],
        entries: vec![
            entry(Kind::Full, main, 0, 10, 100),
            entry(Kind::Increment, main, 10, 20, 100),
            entry(Kind::Records, main, 20, 40, 100),
            entry(Kind::Records, child, 25, 50, 100),
        ],
    };
    let entries: Vec<&Entry> = history.entries.iter().collect();
    let right = planned(&entries, Target::Lsn(Lsn(45)), &history.copies[1]).unwrap();
    assert_eq!((right.steps.len(), fault_of(&history, &right, 1)), (4, None));
    let wrong = |change: fn(&mut Plan)| {
        let mut plan = right.clone();
        change(&mut plan);
        fault_of(&history, &plan, 1)
    };
    let changes: [fn(&mut Plan); 6] = [
        |plan| drop(plan.steps.remove(0)),
        |plan| drop(plan.steps.remove(1)),
        |plan| drop(plan.steps.pop()),
        |plan| plan.steps.swap(1, 2),
        |plan| plan.steps[2].until = Until::End,
        |plan| plan.steps[2].until = Until::Lsn(Lsn(24)),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(wrong(change).is_some(), "change {number} was not found");
    }
    note(13, "repository: planted bugs", &format!("{} of plans, all found", changes.len()));
}

#[test]
fn lineages_of_copies_differ() {
    let child = fork(lineage(0), 5);
    assert_ne!(key_of(&lineage(0)), key_of(&child));
    assert_eq!(chain(child, 5), chain(lineage(0), 5));
}
