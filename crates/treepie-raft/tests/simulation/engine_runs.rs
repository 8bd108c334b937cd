//! The same clusters with real databases: what the engine does behind its door is part of the run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use treepie_testkit::tally::{note, thousands};

use crate::{
    engine::EngineLog,
    rivals,
    runs::{number, run_for},
    world::{Bug, Counts, World},
};

/// Seeds in one run of the tests.
const SEEDS: u64 = 500;
/// Seeds of schedules of two rivals.
const RIVAL_SEEDS: u64 = 60;
/// Simulated time in which things go wrong, and time to come to rest, in microseconds.
const ROUGH_US: u64 = 4_000_000;
const CALM_US: u64 = 5_000_000;

type Outcome = Result<World<EngineLog>, String>;

fn caught(run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// Runs a seed, and looks at each database afterwards.
fn run(seed: u64, bug: Option<Bug>) -> Outcome {
    caught(|| checked(run_for(seed, bug, ROUGH_US, CALM_US)?))
}

fn checked(world: World<EngineLog>) -> Outcome {
    for (id, node) in &world.nodes {
        node.log.check().map_err(|wrong| format!("node {id}: {wrong}"))?;
    }
    Ok(world)
}

fn explain(seed: u64, test: &str, wrong: &str) -> String {
    format!(
        "seed {seed}: {wrong}\nrun it again: TREEPIE_SEED={seed} cargo test -p treepie-raft \
         --test simulation {test} -- --nocapture"
    )
}

#[test]
fn clusters_of_real_databases_keep_every_promise_and_have_the_same_pages() {
    let first = number("TREEPIE_SEED");
    let count = number("TREEPIE_SEEDS").unwrap_or(SEEDS);
    let seeds = first.map_or(0..count, |seed| seed..seed + 1);
    let (mut sum, mut acknowledged) = (Counts::default(), 0);
    let (mut pages, mut states, mut repeated) = (0, 0, 0);
    for seed in seeds.clone() {
        let world = run(seed, None)
            .unwrap_or_else(|wrong| panic!("{}", explain(seed, "clusters_of_real", &wrong)));
        sum.crashes += world.counts.crashes;
        sum.cuts += world.counts.cuts;
        sum.truncations += world.counts.truncations;
        sum.installs += world.counts.installs;
        sum.changes += world.counts.changes;
        sum.transfers += world.counts.transfers;
        acknowledged += world.check.acknowledged;
        let book = world.origin.book.lock();
        pages += book.prints_compared;
        states += book.states_compared;
        repeated += book.repeated;
    }
    if first.is_none() && count >= SEEDS {
        let rare = [sum.truncations * 5, sum.installs, sum.crashes, sum.cuts, repeated];
        assert!(rare.iter().all(|count| *count >= 50), "too little happens: {sum:?}, {repeated}");
    }
    let counts = format!(
        "{} seeds, {} commits acknowledged, {} repeated, {} power cuts, {} partitions, {} truncations, \
         {} installs, {} changes of members, {} transfers; pages compared {} times, states {} times",
        seeds.count(),
        thousands(acknowledged),
        thousands(repeated),
        thousands(sum.crashes),
        thousands(sum.cuts),
        thousands(sum.truncations),
        thousands(sum.installs),
        thousands(sum.changes),
        thousands(sum.transfers),
        thousands(pages),
        thousands(states),
    );
    note(15, "clusters of databases", &counts);
}

#[test]
fn databases_keep_records_of_earlier_terms_when_rivals_lead_in_turn() {
    let first = number("TREEPIE_SEED");
    for seed in first.map_or(0..RIVAL_SEEDS, |seed| seed..seed + 1) {
        caught(|| checked(rivals::run(seed, None)?))
            .unwrap_or_else(|wrong| panic!("{}", explain(seed, "databases_keep", &wrong)));
    }
    note(15, "rivals with databases", &format!("{RIVAL_SEEDS} seeds"));
}

#[test]
fn bugs_that_are_planted_around_databases_are_found() {
    let mut found = Vec::new();
    for bug in [Bug::VoteNotSynced, Bug::AckBeforeSync] {
        match (0..SEEDS).find(|seed| run(*seed, Some(bug)).is_err()) {
            Some(seed) => found.push(format!("{bug:?} by seed {seed}")),
            None => panic!("{bug:?} is not found by {SEEDS} seeds"),
        }
    }
    note(15, "planted bugs, databases", &format!("{}/2: {}", found.len(), found.join(", ")));
}
