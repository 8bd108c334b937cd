//! The replication door keeps the promises of its conformance suite.

use std::panic::{AssertUnwindSafe, catch_unwind};

use treepie_testkit::{
    replication::{promises, script},
    tally::{note, thousands},
};

use crate::harness::{for_seeds, seeds};

#[test]
fn the_door_keeps_all_promises() {
    let (seeds, mut count) = (seeds(1, 3), 0_u64);
    let mut broken = Vec::new();
    for promise in promises::ALL {
        for &seed in &seeds {
            let shown = catch_unwind(AssertUnwindSafe(|| (promise.script)(seed)));
            let what = match shown {
                Ok(Ok(())) => String::new(),
                Ok(Err(what)) => what,
                Err(_) => "a panic".to_owned(),
            };
            if !what.is_empty() {
                broken.push(format!("{} (seed {seed}): {what}", promise.name));
            }
            count += 1;
        }
    }
    note(11, "promises of the door", &format!("{} scripts", thousands(count)));
    assert!(
        broken.is_empty(),
        "{broken:#?}\nagain: TREEPIE_SEED=<seed> cargo test -p treepie --test engine replication"
    );
}

/// Steps of one script.
const STEPS: u64 = 300;

#[test]
fn three_sites_agree_with_the_model_whoever_leads() {
    let seeds = seeds(1, 40);
    let results = for_seeds(&seeds, |seed| {
        catch_unwind(|| script::run(seed, STEPS)).unwrap_or_else(|_| Err("a panic".to_owned()))
    });
    let mut total = script::Counts::default();
    for (seed, result) in seeds.iter().zip(results) {
        let counts = result.unwrap_or_else(|what| {
            panic!(
                "seed {seed}: {what}; again: TREEPIE_SEED={seed} cargo test -p treepie --test engine \
                 three_sites_agree"
            )
        });
        total = total.plus(&counts);
    }
    assert!(total.truncations > 0 && total.unknown > 0 && total.cuts > 0, "{total:?}");
    let counts = format!(
        "{} seeds, {} commits, {} leaders, {} power cuts",
        seeds.len(),
        thousands(total.commits),
        thousands(total.leaders),
        thousands(total.cuts)
    );
    note(11, "three sites by hand", &counts);
}
