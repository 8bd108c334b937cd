//! The runs: many seeds, the same seed twice, and mistakes that have to be found.

use std::panic::{AssertUnwindSafe, catch_unwind};

use treepie::ids::Lsn;

use treepie_testkit::tally::{note, thousands};

use treepie_raft::{ids::NodeId, members::Change};

use crate::{
    model::ModelLog,
    rivals,
    store::Store,
    world::{Bug, Counts, World, place},
};

/// Seeds in one run of the tests.
const SEEDS: u64 = 500;
/// Seeds that look for a mistake, at most: some are rare.
const BUG_SEEDS: u64 = 3000;
/// Simulated time in which things go wrong, in microseconds.
const ROUGH_US: u64 = 6_000_000;
/// Time to come to rest: five to ten election timeouts.
const CALM_US: u64 = 5_000_000;

pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs a seed. The error says what is wrong.
fn run(seed: u64, bug: Option<Bug>) -> Result<World<ModelLog>, String> {
    run_for(seed, bug, ROUGH_US, CALM_US)
}

/// The same, for so long, and then in calm.
pub fn run_for<S: Store>(
    seed: u64,
    bug: Option<Bug>,
    rough_us: u64,
    calm_us: u64,
) -> Result<World<S>, String> {
    let nodes = if seed.is_multiple_of(3) { 5 } else { 3 };
    let mut world = World::new(seed, nodes, bug);
    world.run(rough_us);
    world.calm();
    world.run(calm_us);
    if let Some(wrong) = world.check.wrong.take() {
        return Err(format!("{wrong}, after {} us", world.at));
    }
    converged(&world)?;
    Ok(world)
}

/// After a calm time somebody leads, all members have what was acknowledged, and go on.
pub fn converged<S: Store>(world: &World<S>) -> Result<(), String> {
    let statuses: Vec<_> = world
        .nodes
        .iter()
        .filter_map(|(id, node)| Some((*id, node.replica.as_ref()?.status())))
        .collect();
    let Some((_, leader)) = statuses.iter().find(|(_, status)| status.is_open) else {
        return Err(format!("nobody leads after a calm time: {statuses:?}"));
    };
    let floor = world.check.floor;
    for id in leader.members.voters() {
        let status = statuses.iter().find(|(other, _)| *other == id).map(|(_, status)| status);
        let committed = status.map_or(Lsn(0), |status| status.applied);
        // Writes go on, so a follower may be a little behind.
        if committed.0 + 200 < floor.0 {
            return Err(format!("node {id} has {committed}, and {floor} was acknowledged"));
        }
    }
    match world.committed() >= floor {
        true => Ok(()),
        false => Err(format!("{floor} was acknowledged and is not committed")),
    }
}

fn explain(seed: u64, wrong: &str) -> String {
    format!(
        "seed {seed}: {wrong}\nrun it again: TREEPIE_SEED={seed} cargo test -p treepie-raft \
         --test simulation clusters_keep -- --nocapture"
    )
}

#[test]
fn clusters_keep_every_promise_of_consensus() {
    let first = number("TREEPIE_SEED");
    let count = number("TREEPIE_SEEDS").unwrap_or(SEEDS);
    let seeds = first.map_or(0..count, |seed| seed..seed + 1);
    let (mut sum, mut acknowledged, mut reads) = (Counts::default(), 0, 0);
    for seed in seeds.clone() {
        let world = match catch_unwind(AssertUnwindSafe(|| run(seed, None))) {
            Ok(Ok(world)) => world,
            Ok(Err(wrong)) => panic!("{}", explain(seed, &wrong)),
            Err(_) => panic!("{}", explain(seed, "a panic")),
        };
        sum.steps += world.counts.steps;
        sum.crashes += world.counts.crashes;
        sum.cuts += world.counts.cuts;
        sum.truncations += world.counts.truncations;
        sum.installs += world.counts.installs;
        sum.changes += world.counts.changes;
        sum.transfers += world.counts.transfers;
        acknowledged += world.check.acknowledged;
        reads += world.check.reads;
    }
    if first.is_none() && count >= SEEDS {
        let rare =
            [sum.truncations, sum.installs, sum.changes, sum.transfers, sum.crashes, sum.cuts];
        assert!(rare.iter().all(|count| *count >= 100), "too little happens: {sum:?}");
    }
    let counts = format!(
        "{} seeds, {} steps, {} commits acknowledged, {} reads, {} crashes, {} partitions, {} \
         truncations, {} installs, {} changes of members, {} transfers",
        seeds.count(),
        thousands(sum.steps),
        thousands(acknowledged),
        thousands(reads),
        thousands(sum.crashes),
        thousands(sum.cuts),
        thousands(sum.truncations),
        thousands(sum.installs),
        thousands(sum.changes),
        thousands(sum.transfers),
    );
    note(15, "clusters on a model log", &counts);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..4 {
        let traces = [(); 2].map(|()| {
            let world = run(seed, None).unwrap_or_else(|wrong| panic!("{}", explain(seed, &wrong)));
            (world.trace, world.counts.steps)
        });
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}

#[test]
fn cluster_that_one_node_founds_grows_shrinks_and_hands_over() {
    for seed in 0..20 {
        let mut world = World::founded(seed);
        let step = |world: &mut World<ModelLog>, change: Change| {
            let leader = world.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
            let changed = leader.change(seed, &change);
            assert_eq!(changed, Ok(()), "seed {seed}: {change:?}");
            if let Change::AddLearner { id, .. } = change {
                world.add_node(id);
            }
            world.run(2_000_000);
            assert_eq!(world.check.wrong, None, "seed {seed}");
        };
        world.run(2_000_000);
        for id in [2, 3, 4].map(NodeId) {
            step(&mut world, Change::AddLearner { id, place: place(id) });
            if id < NodeId(4) {
                step(&mut world, Change::Promote(id));
            }
        }
        step(&mut world, Change::Replace { old: NodeId(2), new: NodeId(4) });
        let leader = world.leader().expect("somebody leads");
        assert_eq!(leader.transfer(NodeId(4)), Ok(()));
        world.run(2_000_000);
        let leader = world.leader().expect("somebody leads");
        assert_eq!(leader.status().leader, Some(NodeId(4)), "seed {seed}");
        // It leads, and removes itself: the others go on.
        step(&mut world, Change::Remove(NodeId(4)));
        world.run(3_000_000);
        let status = world.leader().expect("somebody leads").status();
        let voters: Vec<u64> = status.members.voters().map(|id| id.0).collect();
        assert_eq!((voters, world.counts.changes), (vec![1, 3], 7), "seed {seed}");
        converged(&world).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
}

#[test]
fn planted_bugs_are_found() {
    let bugs = [
        Bug::VoteNotSynced,
        Bug::AckBeforeSync,
        Bug::TruncationForgotten,
        Bug::ReadWithoutQuorum,
        Bug::InstalledOverNewer,
        Bug::WildClocks,
    ];
    let mut found = Vec::new();
    let bugs: Vec<Bug> = match std::env::var("TREEPIE_BUG") {
        Ok(name) => bugs.into_iter().filter(|bug| format!("{bug:?}") == name).collect(),
        Err(_) => bugs.into(),
    };
    for &bug in &bugs {
        let is_found = |seed: &u64| {
            catch_unwind(AssertUnwindSafe(|| run(*seed, Some(bug))))
                .map_or(true, |ran| ran.is_err())
        };
        match (0..BUG_SEEDS).find(is_found) {
            Some(seed) => {
                println!("{bug:?} is found by seed {seed}");
                found.push(format!("{bug:?} by seed {seed}"));
            }
            None => panic!("{bug:?} is not found by {BUG_SEEDS} seeds"),
        }
    }
    note(15, "planted bugs", &format!("{}/{}: {}", found.len(), bugs.len(), found.join(", ")));
}

/// Seeds of schedules of two rivals.
const RIVAL_SEEDS: u64 = 200;

#[test]
fn records_of_earlier_terms_stay_when_rivals_lead_in_turn() {
    let mut leaders = 0;
    let first = number("TREEPIE_SEED");
    for seed in first.map_or(0..RIVAL_SEEDS, |seed| seed..seed + 1) {
        let world = catch_unwind(AssertUnwindSafe(|| rivals::run::<ModelLog>(seed, None)));
        let wrong = match world {
            Ok(Ok(world)) => {
                leaders += world.check.leader_count();
                continue;
            }
            Ok(Err(wrong)) => wrong,
            Err(_) => "a panic".to_owned(),
        };
        panic!(
            "seed {seed}: {wrong}\nrun it again: TREEPIE_SEED={seed} cargo test -p treepie-raft \
             --test simulation records_of_earlier_terms -- --nocapture"
        );
    }
    let counts = format!("{RIVAL_SEEDS} seeds, {} leaders", thousands(leaders));
    note(15, "rivals on a model log", &counts);
}

#[test]
fn counting_replicas_of_earlier_terms_is_found() {
    let is_found = |seed: &u64| {
        let bug = Some(Bug::OldTermCommitted);
        catch_unwind(AssertUnwindSafe(|| rivals::run::<ModelLog>(*seed, bug)))
            .map_or(true, |ran| ran.is_err())
    };
    let seed = (0..RIVAL_SEEDS).find(is_found);
    let seed = seed.unwrap_or_else(|| panic!("it is not found by {RIVAL_SEEDS} seeds"));
    note(15, "planted bugs, rivals", &format!("1/1: OldTermCommitted by seed {seed}"));
}
