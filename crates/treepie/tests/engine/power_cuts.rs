//! The power is cut at every operation of seeded workloads, and every image of every cut opens to a
//! state of the model: whole commits, in order, at or above the last one that was acknowledged.

use std::time::Instant;

use treepie::{Compression, Database, Options, Snapshot};
use treepie_testkit::{
    Log, PlantedBug, Rng, SimDisk, mix,
    model::Model,
    tally::{note, thousands},
    workload::{Shape, Step, generate},
};

use crate::{
    harness::{self, DIR, difference, for_seeds, new_model, seeds, verify},
    ruled_disk::{LateData, Ruled},
};

/// A workload that was run once, and what every image of it is compared with.
pub struct Recorded {
    pub seed: u64,
    pub log: Log,
    pub model: Model,
    pub early_writes: u64,
}

/// Options of a seed: segments, checkpoint distances and compression differ.
pub fn options_of(seed: u64, disk: &SimDisk) -> Options {
    let mut rng = Rng::new(mix(seed, 77));
    let distance = *rng.pick(&[24 << 10, 128 << 10, 1 << 20]);
    harness::options(disk)
        .journal_segment_size(*rng.pick(&[16 << 10, 16 << 10, 64 << 10]))
        .checkpoint_distance(if is_wide(seed) { 4 << 20 } else { distance })
        .compression(*rng.pick(&[Compression::Off, Compression::Auto]))
        .checkpoint_on_close(rng.chance(1, 2))
}

/// Whether the workload of a seed fills the memory of versions between checkpoints.
fn is_wide(seed: u64) -> bool {
    seed.is_multiple_of(4)
}

/// Workloads of a seed: small ones with many steps, and wide ones.
pub fn shape_of(seed: u64) -> Shape {
    match seed % 4 {
        0 => Shape { steps: 30, ops_max: 120, keys: 500, checkpoint_every: 0, ..Shape::default() },
        1 => Shape { steps: 30, trees: 6, checkpoint_every: 6, ..Shape::default() },
        2 => Shape { steps: 30, keys: 40, value_pages_max: 12, ..Shape::default() },
        _ => Shape { steps: 40, key_len_max: 400, reopen_every: 8, ..Shape::default() },
    }
}

/// Runs the workload of a seed on a new disk, with the bugs planted that are asked for.
pub fn record(seed: u64, shape: &Shape, bugs: &[PlantedBug]) -> Recorded {
    let disk = SimDisk::new(seed);
    bugs.iter().for_each(|bug| disk.plant(bug.clone()));
    let steps = generate(seed, shape);
    let mut life = Life::begin(seed, disk);
    for (number, step) in steps.iter().enumerate() {
        life.step(step, number);
    }
    life.end()
}

/// A database on a simulated disk while a workload runs.
struct Life {
    seed: u64,
    rng: Rng,
    disk: SimDisk,
    db: Option<Database>,
    model: Model,
    held: Option<Snapshot>,
    early_writes: u64,
}

impl Life {
    fn begin(seed: u64, disk: SimDisk) -> Life {
        let db = options_of(seed, &disk).open(DIR).expect("a new database opens");
        disk.mark(1);
        let rng = Rng::new(mix(seed, 3));
        let model = new_model();
        Life { seed, rng, disk, db: Some(db), model, held: None, early_writes: 0 }
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("it is open between steps")
    }

    fn step(&mut self, step: &Step, number: usize) {
        match step {
            Step::Write(ops) => {
                let before = self.db().stats();
                let lsn = harness::write(self.db(), ops)
                    .unwrap_or_else(|error| panic!("seed {}, step {number}: {error}", self.seed));
                self.disk.mark(lsn);
                self.model.commit(lsn, ops);
                let after = self.db().stats();
                let early = after.checkpoints == before.checkpoints;
                self.early_writes += u64::from(early && after.pages_written > before.pages_written);
            }
            Step::Abort(ops) => {
                let aborted = self.db().write(|tx| {
                    harness::apply(tx, ops)?;
                    Err::<(), _>(treepie::Error::rejected("on purpose"))
                });
                assert!(aborted.is_err(), "seed {}, step {number}", self.seed);
            }
            Step::Checkpoint => drop(self.db().checkpoint().expect("a checkpoint")),
            Step::Reopen => self.reopen(),
        }
        self.hold_or_release(number);
    }

    /// Some snapshots stay for a while, so that checkpoints do less than everything.
    fn hold_or_release(&mut self, number: usize) {
        if self.held.is_none() && self.rng.chance(1, 8) {
            self.held = Some(self.db().read().expect("a snapshot"));
        } else if self.rng.chance(1, 5) {
            self.release(number);
        }
        if self.rng.chance(1, 16) {
            self.db().checkpoint().expect("a checkpoint in an odd place");
        }
    }

    fn release(&mut self, number: usize) {
        if let Some(snapshot) = self.held.take() {
            let state = self.model.at(snapshot.lsn().0).expect("the model keeps everything");
            let found = difference(&snapshot, state).expect("a snapshot reads");
            assert_eq!(found, None, "seed {}, step {number}: a snapshot changed", self.seed);
        }
    }

    /// Closes in order, or dies; both keep what the page cache has.
    fn reopen(&mut self) {
        self.held = None;
        let db = self.db.take().expect("it is open");
        if self.rng.chance(1, 2) {
            db.close().expect("closing");
        } else {
            self.disk = self.disk.restart();
            drop(db);
        }
        let db = options_of(self.seed, &self.disk).open(DIR);
        let db = db.unwrap_or_else(|error| panic!("seed {}: reopening: {error}", self.seed));
        let lsn = verify(&db, &self.model).unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
        assert_eq!(lsn, self.model.lsn(), "seed {}: a commit is gone", self.seed);
        self.db = Some(db);
    }

    fn end(mut self) -> Recorded {
        self.release(usize::MAX);
        let db = self.db.take().expect("it is open");
        verify(&db, &self.model).unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
        db.close().expect("closing");
        let (seed, early_writes) = (self.seed, self.early_writes);
        Recorded { seed, log: self.disk.log(), model: self.model, early_writes }
    }
}

/// Opens what a cut left, and tells what is wrong with it.
pub fn look_at(recorded: &Recorded, image: &SimDisk, acknowledged: u64) -> Result<u64, String> {
    let options = options_of(recorded.seed, image).checkpoint_on_close(false);
    let db = options.open(DIR).map_err(|error| format!("opening: {error}"))?;
    let lsn = verify(&db, &recorded.model)?;
    if lsn < acknowledged {
        return Err(format!("LSN {acknowledged} was acknowledged, {lsn} is there"));
    }
    Ok(lsn)
}

/// Cuts at every operation, with `draws` images each. Returns how many images were looked at, or
/// the first failure.
pub fn cut_everywhere(recorded: &Recorded, draws: u64) -> Result<u64, String> {
    let mut player = recorded.log.player(recorded.seed);
    let mut images = 0;
    loop {
        let acknowledged = player.acknowledged().unwrap_or(0);
        for draw in 0..draws {
            let image_seed = mix(recorded.seed, draw);
            images += 1;
            look_at(recorded, &player.image(image_seed), acknowledged).map_err(|what| {
                let (seed, cut) = (recorded.seed, player.position());
                format!(
                    "seed {seed}, cut {cut} of {}, image seed {image_seed}: {what}\n\
                     again: TREEPIE_SEED={seed} cargo test -p treepie --test engine cuts",
                    recorded.log.len(),
                )
            })?;
        }
        if !player.advance() {
            return Ok(images);
        }
    }
}

#[test]
fn acknowledged_commits_survive_a_power_cut_at_every_operation() {
    let begin = Instant::now();
    let seeds = seeds(1, 48);
    let results = for_seeds(&seeds, |seed| {
        let recorded = record(seed, &shape_of(seed), &[]);
        let images = cut_everywhere(&recorded, 6).unwrap_or_else(|failure| {
            panic!(
                "{failure}\n\
                 again: TREEPIE_SEED={seed} cargo test -p treepie --test engine power_cuts"
            )
        });
        (images, recorded.early_writes, recorded.log.len())
    });
    let images: u64 = results.iter().map(|(images, ..)| images).sum();
    let early: u64 = results.iter().map(|(_, early, _)| early).sum();
    let cuts: usize = results.iter().map(|(.., cuts)| cuts).sum();
    let seconds = begin.elapsed().as_secs_f64();
    let counts = format!(
        "{} images of {cuts} cuts of {} seeds in {seconds:.0} s: {:.0} images/s",
        thousands(images),
        seeds.len(),
        images as f64 / seconds
    );
    note(1, "power cuts, transactions", &counts);
    if seeds.len() > 1 {
        // With those of the scripts, 200,000 at least.
        assert!(images >= 50_000, "only {images} images");
        assert!(early > 0, "no seed wrote pages before their checkpoint");
    }
}

/// All subsets of what is unsynced, wherever they are few.
#[test]
fn every_subset_of_unsynced_sectors_of_tiny_workloads_opens_to_a_commit() {
    const CHOICES_MAX: u32 = 8;
    let seeds = seeds(500, 6);
    let counts = for_seeds(&seeds, |seed| {
        let shape = Shape {
            steps: 3,
            ops_max: 3,
            trees: 2,
            keys: 3,
            value_pages_max: 1,
            checkpoint_every: 3,
            reopen_every: 0,
            ..Shape::default()
        };
        let recorded = record(seed, &shape, &[]);
        let mut player = recorded.log.player(seed);
        let (mut images, mut whole) = (0_u64, 0_u64);
        loop {
            let acknowledged = player.acknowledged().unwrap_or(0);
            for sector_size in [512, 4096] {
                let choices = player.choices(sector_size);
                if choices > CHOICES_MAX {
                    continue;
                }
                whole += 1;
                for bits in 0..1_u64 << choices {
                    images += 1;
                    let image = player.image_of(sector_size, bits);
                    look_at(&recorded, &image, acknowledged).unwrap_or_else(|what| {
                        let cut = player.position();
                        panic!(
                            "seed {seed}, cut {cut}, sectors of {sector_size}, bits {bits:#b}: \
                             {what} (again with TREEPIE_SEED={seed})"
                        )
                    });
                }
            }
            if !player.advance() {
                return (images, whole);
            }
        }
    });
    let images: u64 = counts.iter().map(|(images, _)| images).sum();
    let whole: u64 = counts.iter().map(|(_, whole)| whole).sum();
    println!("{images} images of {whole} cuts, every subset of each");
    assert!(seeds.len() == 1 || images > 1_000, "only {images} images");
}

/// A bug that was put in must be found: a harness that cannot fail proves nothing. Without the bug
/// the same seed must pass.
fn finds(bug: PlantedBug) {
    let found = (1..9).find_map(|seed| {
        let recorded = record(seed, &shape_of(seed), std::slice::from_ref(&bug));
        cut_everywhere(&recorded, 6).err().map(|what| (seed, what))
    });
    let (seed, what) = found.unwrap_or_else(|| panic!("{bug:?} was not found by any seed"));
    println!("{bug:?} is found: {what}");
    let without = cut_everywhere(&record(seed, &shape_of(seed), &[]), 6);
    assert!(without.is_ok(), "without the bug: {without:?}");
}

#[test]
fn a_journal_that_is_not_synced_is_found() {
    finds(PlantedBug::SkipSyncData("journal".to_owned()));
}

#[test]
fn a_data_file_that_is_not_synced_is_found() {
    finds(PlantedBug::SkipSyncData("data".to_owned()));
}

/// Here the meta page says too early what the data file holds.
#[test]
fn a_data_file_that_is_synced_only_after_its_meta_page_is_found() {
    let found = (1..9).any(|seed| {
        let disk = SimDisk::new(seed);
        let options = options_of(seed, &disk).disk(Ruled::new(&disk, LateData::default()));
        let db = options.open(DIR).expect("a new database opens");
        let mut model = new_model();
        for step in generate(seed, &Shape { reopen_every: 0, ..shape_of(seed) }) {
            match step {
                Step::Write(ops) => {
                    let lsn = harness::write(&db, &ops).expect("a commit");
                    disk.mark(lsn);
                    model.commit(lsn, &ops);
                }
                _ => drop(db.checkpoint().expect("a checkpoint")),
            }
        }
        drop(db);
        let recorded = Recorded { seed, log: disk.log(), model, early_writes: 0 };
        cut_everywhere(&recorded, 6).is_err()
    });
    assert!(found, "no seed found it");
}

#[test]
fn a_journal_folder_that_is_not_synced_is_found() {
    finds(PlantedBug::SkipSyncDir("journal".to_owned()));
}

#[test]
fn a_database_folder_that_is_not_synced_is_found() {
    finds(PlantedBug::SkipSyncDir("db".to_owned()));
}

#[test]
fn the_same_seed_gives_the_same_operations_on_disk() {
    for seed in [1, 2, 3] {
        let hashes: Vec<u64> = (0..2)
            .map(|_| {
                let recorded = record(seed, &shape_of(seed), &[]);
                let log = recorded.log;
                log.image(log.len(), seed).state_hash() ^ log.len() as u64
            })
            .collect();
        assert_eq!(hashes[0], hashes[1], "seed {seed}");
    }
}
