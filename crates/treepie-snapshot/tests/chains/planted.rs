//! Bugs that are planted in the engine, and found by restoring chains.

use std::panic::{AssertUnwindSafe, catch_unwind};

use treepie::planted::{Planted, plant};
use treepie_testkit::tally;

use crate::chain;

const BUGS: [Planted; 3] =
    [Planted::NoHandOver, Planted::HandOverAfterWrite, Planted::LateGeneration];
const SEEDS: u64 = 60;

/// What the chains find, if anything.
fn found() -> Option<String> {
    (1..=SEEDS).find_map(|seed| {
        let result = catch_unwind(AssertUnwindSafe(|| chain::check(seed)));
        match result {
            Ok(Ok(_)) => None,
            Ok(Err(what)) => Some(what),
            Err(_) => Some(format!("seed {seed}: a panic")),
        }
    })
}

#[test]
fn every_planted_bug_of_copies_is_found_by_the_chains() {
    assert_eq!(found(), None, "without a bug");
    for bug in BUGS {
        plant(Some(bug));
        let what = found();
        plant(None);
        println!("{bug:?}: {}", what.as_deref().unwrap_or("NOT FOUND"));
        assert!(what.is_some(), "{bug:?} is not found");
    }
    tally::note(14, "planted bugs, chains", &format!("{0}/{0} found", BUGS.len()));
}
