//! The power is cut at every operation of random scripts; every image opens to a state that the model
//! allows, and goes on from there.

use std::time::Instant;

use treepie::planted::journal::Journal;
use treepie_testkit::{
    Log, SimDisk, mix,
    tally::{note, thousands},
};

use crate::{
    model::{Found, Leaves, Model},
    run::{Op, Run, open},
};

/// A script that was run once: the disk's log, the models before each step and after the last one, and
/// what a cut in the middle of each step may leave.
pub struct Recorded {
    seed: u64,
    log: Log,
    models: Vec<Model>,
    leaves: Vec<Leaves>,
}

pub fn record(seed: u64, steps: usize) -> Recorded {
    let mut run = Run::begin(seed);
    let mut recorded =
        Recorded { seed, log: run.disk.log(), models: Vec::new(), leaves: Vec::new() };
    for step in 0..steps {
        let op = run.plan();
        let mut before = run.model.clone();
        if let Op::Trim(lsn) = op {
            // The meta page says so before the trim begins.
            (before.checkpoint, before.committed) = (lsn, before.committed.max(lsn));
        }
        recorded.models.push(before);
        recorded.leaves.push(op.leaves());
        run.perform(&op).unwrap_or_else(|error| panic!("seed {seed}, step {step}: {error}"));
        run.disk.mark(step as u64 + 1);
    }
    recorded.models.push(run.model.clone());
    recorded.leaves.push(Leaves::Prefix);
    recorded.log = run.disk.log();
    recorded
}

impl Recorded {
    /// Opens what a cut left, and tells what is wrong with it.
    fn look_at(&self, image: &SimDisk, acknowledged: usize, draw: u64) -> Result<(), String> {
        let before = &self.models[acknowledged];
        let next = self.models.get(acknowledged + 1).unwrap_or(before);
        let leaves = self.leaves[acknowledged];
        let opened = open(self.seed, image, before.position(before.checkpoint));
        let (journal, found) = opened.map_err(|error| format!("opening: {error}"))?;
        before.compare(next, leaves, &found)?;
        match draw % 8 {
            0 | 1 => self.cut_again(image, &found, draw),
            2 | 3 => self.go_on(image, journal, &found),
            _ => Ok(()),
        }
    }

    /// Another cut while it was opened: the next opening finds the same.
    fn cut_again(&self, image: &SimDisk, found: &Found, draw: u64) -> Result<(), String> {
        let log = image.log();
        let mut player = log.player(self.seed);
        let cut = mix(draw, self.seed) as usize % (log.len() + 1);
        player.advance_to(cut);
        let (_, again) = open(self.seed, &player.image(draw), found.began)
            .map_err(|error| format!("opening after a cut at {cut} of an opening: {error}"))?;
        let (first, second) = (&found.recovered, &again.recovered);
        if (first.last, first.hard_state) != (second.last, second.hard_state) {
            return Err(format!("an opening was cut at {cut}: {first:?}, then {second:?}"));
        }
        Ok(())
    }

    /// What is done after an opening is durable when it says so, and nothing that was dropped comes back.
    fn go_on(&self, image: &SimDisk, journal: Journal, found: &Found) -> Result<(), String> {
        let mut run = Run::begin(self.seed + 1);
        run.disk = image.clone();
        run.model = self.model_of(found);
        run.seed = self.seed;
        run.journal = Some(journal);
        let failed = |error| format!("going on: {error}");
        for _ in 0..3 {
            let op = run.plan();
            if !matches!(op, Op::Restart) {
                run.perform(&op).map_err(failed)?;
            }
        }
        run.perform(&Op::Sync).map_err(failed)?;
        let log = run.disk.log();
        let mut player = log.player(self.seed);
        player.advance_to(log.len());
        let from = run.model.position(run.model.checkpoint);
        let (_, again) = open(self.seed, &player.image_of(4096, 0), from).map_err(failed)?;
        run.model.compare(&run.model, Leaves::Prefix, &again)
    }

    /// The model of what was found.
    fn model_of(&self, found: &Found) -> Model {
        let is_of = |model: &&Model| {
            let last = found.last();
            model.last() >= last && model.position(last) == found.recovered.last
        };
        let model = self.models.iter().rev().find(is_of).expect("it was compared");
        let mut model = model.clone();
        model.log.truncate(found.last() as usize);
        let state = found.recovered.hard_state;
        let count = state.and_then(|state| model.states.iter().position(|known| *known == state));
        model.states.truncate(count.map_or(0, |index| index + 1));
        model.checkpoint = found.from;
        model.committed = found.recovered.committed.lsn.0;
        model.sync();
        model
    }
}

/// Cuts at every operation; returns how many images were looked at, or the first failure.
pub fn cut_everywhere(recorded: &Recorded, draws: u64) -> Result<u64, String> {
    let mut player = recorded.log.player(recorded.seed);
    let mut images = 0;
    loop {
        let Some(acknowledged) = player.acknowledged() else {
            // There is no folder yet.
            assert!(player.advance(), "the script has begun");
            continue;
        };
        let acknowledged = acknowledged as usize;
        for draw in 0..draws {
            let image_seed = mix(recorded.seed, draw);
            let image = player.image(image_seed);
            let draw = mix(image_seed, player.position() as u64);
            images += 1;
            recorded.look_at(&image, acknowledged, draw).map_err(|what| {
                let (seed, cut) = (recorded.seed, player.position());
                format!(
                    "seed {seed}, cut {cut} of {} in step {acknowledged}, image {image_seed}: {what}\n\
                     again: TREEPIE_SEED={seed} cargo test -p treepie --features planted --test log cuts",
                    recorded.log.len(),
                )
            })?;
        }
        if !player.advance() {
            return Ok(images);
        }
    }
}

/// The seeds of a test, so many times more as `TREEPIE_SEEDS` says, or the one that `TREEPIE_SEED`
/// names.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("TREEPIE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..count * number("TREEPIE_SEEDS").unwrap_or(1) + 1,
    }
}

#[test]
fn what_a_replica_promised_survives_a_power_cut_at_every_operation() {
    let begin = Instant::now();
    let (mut images, mut truncations, mut seed_count) = (0, 0, 0);
    for seed in seeds(40) {
        let recorded = record(seed, 40);
        truncations +=
            recorded.leaves.iter().filter(|leaves| **leaves == Leaves::OneOfBoth).count();
        images += cut_everywhere(&recorded, 4).unwrap_or_else(|failure| panic!("{failure}"));
        seed_count += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let counts = format!(
        "{} images of {seed_count} seeds, {truncations} truncations, in {seconds:.0} s",
        thousands(images)
    );
    note(1, "power cuts, log of consensus", &counts);
    assert!(seed_count == 1 || images > 20_000 && truncations > 40, "{counts}");
}

#[test]
fn same_seed_gives_the_same_operations_on_disk() {
    let hash = |seed| {
        let log = record(seed, 30).log;
        log.image(log.len(), seed).state_hash()
    };
    assert_eq!(hash(3), hash(3));
}
