//! The power is cut at every operation of drawn scripts: savepoints, merged closures, lazy
//! durabilities, range removals, held snapshots, killed processes. A script that fails is made short
//! and printed, and its text can be run again:
//!
//! ```text
//! TREEPIE_SEED=<seed> cargo test -p treepie --test engine script_cuts
//! TREEPIE_SCRIPT=<file> cargo test -p treepie --test engine script_cuts
//! ```

use std::time::Instant;

use treepie_testkit::{
    PlantedBug, mix,
    script::{Manner, Script},
    tally::{note, thousands},
};

use crate::{
    harness::{for_seeds, seeds},
    life::{Lived, live, look_at},
    shorten::{script_from_file, script_of, told},
};

/// Images of each cut.
const DRAWS: u64 = 10;
const SEEDS: u64 = 80;
/// Scripts that are tried, to make one that failed short.
const TRIES: usize = 600;

/// Cuts at every operation. Returns how many images there were, or the first failure.
fn cut_everywhere(lived: &Lived, draws: u64) -> Result<u64, String> {
    let seed = lived.setup.seed;
    let mut player = lived.log.player(seed);
    let mut images = 0;
    loop {
        let acknowledged = player.acknowledged().unwrap_or(0);
        for draw in 0..draws {
            let image_seed = mix(seed, draw);
            images += 1;
            look_at(lived, &player.image(image_seed), acknowledged).map_err(|what| {
                let (cut, all) = (player.position(), lived.log.len());
                format!("cut {cut} of {all}, image seed {image_seed}: {what}")
            })?;
        }
        if !player.advance() {
            return Ok(images);
        }
    }
}

/// Lives through a script and cuts everywhere.
fn run(script: &Script, bugs: &[PlantedBug], draws: u64) -> Result<(u64, Lived), String> {
    let lived = live(script, bugs)?;
    Ok((cut_everywhere(&lived, draws)?, lived))
}

/// What a failure says.
fn failure(script: &Script, bugs: &[PlantedBug], what: &str) -> String {
    told(script, what, "script_cuts", TRIES, |candidate| run(candidate, bugs, DRAWS).err())
}

#[test]
fn acknowledged_commits_of_scripts_survive_a_power_cut_at_every_operation() {
    let begin = Instant::now();
    let seeds = seeds(1, SEEDS);
    let results = for_seeds(&seeds, |seed| {
        let script = Script::of_seed(seed, &Manner::of_seed(seed));
        run(&script, &[], DRAWS).unwrap_or_else(|what| panic!("{}", failure(&script, &[], &what)))
    });
    let images: u64 = results.iter().map(|(images, _)| images).sum();
    let cuts: u64 = results.iter().map(|(_, lived)| lived.log.len() as u64 + 1).sum();
    let early: u64 = results.iter().map(|(_, lived)| lived.early_writes).sum();
    let seconds = begin.elapsed().as_secs_f64();
    let counts = format!(
        "{} images of {} cuts of {} scripts in {seconds:.0} s",
        thousands(images),
        thousands(cuts),
        seeds.len()
    );
    note(1, "power cuts, scripts", &counts);
    if seeds.len() > 1 {
        assert!(images >= 155_000, "only {images} images");
        assert!(early > 0, "no seed wrote pages before their checkpoint");
    }
}

#[test]
fn a_script_gives_the_same_operations_on_disk_each_time() {
    for seed in 1..13 {
        let script = Script::of_seed(seed, &Manner::of_seed(seed));
        let hash = || {
            let lived = live(&script, &[]).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
            let end = lived.log.image(lived.log.len(), seed);
            (lived.log.len(), end.state_hash(), lived.model.newest().hash())
        };
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}

/// Runs the script that `TREEPIE_SCRIPT` names, as a failure printed it. Does nothing without.
#[test]
fn a_script_from_a_file_survives_a_power_cut_at_every_operation() {
    let Some(script) = script_from_file() else { return };
    let (images, _) = run(&script, &[], DRAWS).unwrap_or_else(|what| panic!("{what}"));
    println!("{images} images");
}

/// A bug that was put in is found, and the script that shows it becomes a handful of steps, which
/// still show it when they are read back from their text, and pass without the bug.
fn finds_and_shortens(bug: PlantedBug, steps_max: usize) {
    let bugs = std::slice::from_ref(&bug);
    let found = (1..13).find_map(|seed| {
        let script = Script::of_seed(seed, &Manner::of_seed(seed));
        run(&script, bugs, DRAWS).err().map(|what| (script, what))
    });
    let (script, what) = found.unwrap_or_else(|| panic!("{bug:?} was not found by any seed"));
    let told = failure(&script, bugs, &what);
    println!("{bug:?} is found: {told}");
    let short = script_of(&told);
    assert!(short.steps.len() <= steps_max, "{bug:?}: {} steps\n{short}", short.steps.len());
    assert!(script.steps.len() >= 30, "it was not long: {} steps", script.steps.len());
    assert!(run(&short, bugs, DRAWS).is_err(), "{bug:?} is not in\n{short}");
    let without = run(&short, &[], DRAWS);
    assert!(without.is_ok(), "without {bug:?}: {without:?}");
}

#[test]
fn an_unsynced_journal_is_found_and_its_script_becomes_a_handful_of_steps() {
    finds_and_shortens(PlantedBug::SkipSyncData("/db/journal".to_owned()), 1);
}

#[test]
fn an_unsynced_data_file_is_found_and_its_script_becomes_a_handful_of_steps() {
    finds_and_shortens(PlantedBug::SkipSyncData("/db/data".to_owned()), 3);
}

#[test]
fn an_unsynced_journal_folder_is_found_and_its_script_becomes_a_handful_of_steps() {
    finds_and_shortens(PlantedBug::SkipSyncDir("/db/journal".to_owned()), 6);
}
