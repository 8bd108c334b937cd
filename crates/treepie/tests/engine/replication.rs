//! The replication door keeps the promises of its conformance suite.

use std::panic::catch_unwind;

use treepie_testkit::{
    replication::{cuts, promises, script},
    tally::{note, thousands},
};

use crate::harness::{for_seeds, seeds};

/// Shows all promises with a seed; returns how many, or the first that is broken.
pub fn all_promises(seed: u64) -> Result<u64, String> {
    for promise in promises::ALL {
        let shown = catch_unwind(|| (promise.script)(seed));
        shown
            .unwrap_or_else(|_| Err("a panic".to_owned()))
            .map_err(|what| format!("{}: {what}", promise.name))?;
    }
    Ok(promises::ALL.len() as u64)
}

/// Runs the script of three sites with a seed.
pub fn three_sites(seed: u64) -> Result<script::Counts, String> {
    catch_unwind(|| script::run(seed, STEPS)).unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// What a failure prints.
fn again(seed: u64, what: &str, test: &str) -> String {
    format!(
        "seed {seed}: {what}\nagain: TREEPIE_SEED={seed} cargo test -p treepie --test engine {test}"
    )
}

#[test]
fn door_keeps_all_promises() {
    let count = seeds(1, 3).into_iter().map(|seed| {
        all_promises(seed).unwrap_or_else(|what| panic!("{}", again(seed, &what, "all_promises")))
    });
    note(11, "promises of the door", &format!("{} scripts", thousands(count.sum())));
}

#[test]
fn follower_comes_back_from_every_power_cut() {
    let images = for_seeds(&seeds(1, 6), |seed| {
        let run = catch_unwind(|| cuts::run(seed)).unwrap_or_else(|_| Err("a panic".to_owned()));
        run.unwrap_or_else(|what| panic!("{}", again(seed, &what, "every_power_cut")))
    });
    let count = images.iter().sum();
    assert!(count > 500, "{count} images");
    note(11, "power cuts of a follower", &format!("{} images", thousands(count)));
}

/// Steps of one script.
const STEPS: u64 = 300;

#[test]
fn three_sites_agree_with_the_model_whoever_leads() {
    let seeds = seeds(1, 40);
    let results = for_seeds(&seeds, three_sites);
    let mut total = script::Counts::default();
    for (seed, result) in seeds.iter().zip(results) {
        let counts =
            result.unwrap_or_else(|what| panic!("{}", again(*seed, &what, "three_sites_agree")));
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
