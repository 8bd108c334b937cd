//! Power cuts while several records are in flight: threads write, syncs take their time, and the
//! power is cut at every operation on the disk. What is there then is all writes up to one of them,
//! in the order in which they were committed, with everything that was acknowledged as durable.
//!
//! A seed gives what each thread writes; who comes first is as the machine has it, and the model is
//! made from the order that the closures saw.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use treepie::{Database, Durability, Error, Options, Overlap};
use treepie_testkit::{
    PlantedBug, Rng, SimDisk, mix,
    tally::{note, thousands},
    workload::{Op, Shape, Step, generate},
};

use crate::{
    batches::LONG,
    harness::{self, DIR, apply, for_seeds, insert, new_model, seeds, verify},
    power_cuts::{Recorded, cut_everywhere, options_of},
    ruled_disk::{Ruled, SlowJournal},
};

/// Threads that write at a time.
const WRITERS: u64 = 6;
const GROUP: Durability = Durability::Group { delay_max: Duration::from_micros(200) };

/// What is put in to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// Every other sync is reported before it is done.
    EarlyAcknowledgement,
    /// The journal is never synced.
    NoSync,
    /// A closure that fails stays.
    LostUndo,
}

/// A closure that was committed.
struct Committed {
    /// Where it came in the order of all, as it saw it itself.
    sequence: u64,
    lsn: u64,
    ops: Vec<Op>,
}

/// A database that several threads write to, and what they are told.
struct Life<'a> {
    seed: u64,
    durability: Durability,
    bug: Bug,
    disk: &'a SimDisk,
    db: &'a Database,
    runs: &'a AtomicU64,
    /// Most records that were seen in flight.
    depth: AtomicU64,
    committed: Mutex<Vec<Committed>>,
}

impl Life<'_> {
    /// Applies operations and takes the next number, as one closure.
    fn write(&self, ops: &[Op], fails: bool) {
        let written = self.db.write_as(self.durability, |tx| {
            self.runs.fetch_add(1, Relaxed);
            let stats = self.db.stats();
            let done = stats.committed.min(stats.appended);
            self.depth.fetch_max(stats.sealed.0 - done.0, Relaxed);
            apply(tx, ops)?;
            if fails && self.bug != Bug::LostUndo {
                return Err(Error::rejected("on purpose"));
            }
            let mut tree = tx.tree("sequence")?;
            let last = tree
                .get("last")?
                .map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().expect("eight bytes")));
            tree.insert("last", (last + 1).to_be_bytes())?;
            Ok(last + 1)
        });
        let receipt = match written {
            Ok(receipt) => receipt,
            Err(error) => return assert!(fails, "seed {}: {error}", self.seed),
        };
        if matches!(self.durability, Durability::Sync | Durability::Group { .. }) {
            self.disk.mark(receipt.lsn.0);
        }
        let mut ops = if fails { Vec::new() } else { ops.to_vec() };
        ops.push(insert("sequence", "last", &receipt.value.to_be_bytes()));
        self.committed.lock().push(Committed { sequence: receipt.value, lsn: receipt.lsn.0, ops });
    }

    fn live(&self, writer: u64) {
        let shape = Shape { steps: 10, trees: 2, keys: 60, ops_max: 8, ..Shape::default() };
        let mut rng = Rng::new(mix(self.seed, writer));
        for step in generate(mix(self.seed, writer), &shape) {
            match step {
                Step::Write(ops) => self.write(&ops, false),
                Step::Abort(ops) => self.write(&ops, true),
                Step::Checkpoint => drop(self.db.checkpoint().expect("a checkpoint")),
                Step::Reopen => {}
            }
            if rng.chance(1, 6) {
                let synced = self.db.sync().expect("a sync");
                self.disk.mark(synced.0);
            }
        }
    }
}

fn options(seed: u64, disk: &SimDisk) -> Options {
    let mut rng = Rng::new(mix(seed, 78));
    options_of(seed, disk)
        .overlap(Overlap::Always)
        .gather_max(Duration::ZERO)
        .merge_closures_max(*rng.pick(&[1, 1, 3, 64]))
        .in_flight_records_max(*rng.pick(&[3, 8]))
        .sync_interval(LONG)
        .background_threads(rng.chance(1, 2))
}

/// Returns what was recorded, and how many records were in flight at most.
fn record(seed: u64, durability: Durability, bug: Bug) -> (Recorded, u64) {
    let disk = SimDisk::new(seed);
    if bug == Bug::NoSync {
        disk.plant(PlantedBug::SkipSyncData("journal".to_owned()));
    }
    let runs = Arc::new(AtomicU64::new(0));
    let is_early = bug == Bug::EarlyAcknowledgement;
    let rule = SlowJournal { runs: Arc::clone(&runs), is_early, syncs: AtomicU64::new(0) };
    let db = options(seed, &disk).disk(Ruled::new(&disk, rule)).open(DIR).expect("it opens");
    let (depth, committed) = (AtomicU64::new(0), Mutex::default());
    let life = Life { seed, durability, bug, disk: &disk, db: &db, runs: &runs, depth, committed };
    thread::scope(|scope| {
        let life = &life;
        (0..WRITERS).for_each(|writer| drop(scope.spawn(move || life.live(writer))));
    });
    let (depth, committed) = (life.depth.into_inner(), life.committed.into_inner());
    db.close().expect("it closes");
    let model = model_of(seed, committed);
    (Recorded { seed, log: disk.log(), model, early_writes: 0 }, depth)
}

/// The states that the closures themselves say there were.
fn model_of(seed: u64, mut committed: Vec<Committed>) -> treepie_testkit::model::Model {
    committed.sort_unstable_by_key(|closure| closure.sequence);
    let mut model = new_model();
    for (number, closure) in (1..).zip(&committed) {
        assert_eq!(closure.sequence, number, "seed {seed}: none is missing, none ran twice");
    }
    for record in committed.chunk_by(|a, b| a.lsn == b.lsn) {
        let lsn = record[0].lsn;
        assert_eq!(lsn, model.lsn() + 1, "seed {seed}: LSNs are in the order of the closures");
        let ops: Vec<Op> = record.iter().flat_map(|closure| closure.ops.clone()).collect();
        model.commit(lsn, &ops);
    }
    model
}

/// Cuts everywhere in workloads of all seeds; `least` is how many images there are at least.
fn cut_all(first: u64, count: u64, durability: Durability, what: &str, least: u64) {
    let begin = Instant::now();
    let results = for_seeds(&seeds(first, count), |seed| {
        let (recorded, depth) = record(seed, durability, Bug::None);
        let images = cut_everywhere(&recorded, 3).unwrap_or_else(|failure| panic!("{failure}"));
        (images, depth)
    });
    let images: u64 = results.iter().map(|(images, _)| images).sum();
    let depth = results.iter().map(|(_, depth)| *depth).max().unwrap_or_default();
    let counts = format!(
        "{} images of {} seeds, up to {depth} records in flight, {:.0} s",
        thousands(images),
        results.len(),
        begin.elapsed().as_secs_f64()
    );
    note(1, &format!("power cuts, {what}"), &counts);
    if results.len() > 1 {
        assert!(depth >= 3, "the pipeline was never deep: {depth}");
        assert!(images >= least, "only {images} images");
    }
}

#[test]
fn acknowledged_commits_of_a_deep_pipeline_survive_a_power_cut_at_every_operation() {
    cut_all(1000, 24, Durability::Sync, "deep pipeline", 10_000);
}

#[test]
fn writes_that_wait_for_others_survive_a_power_cut_at_every_operation() {
    cut_all(1100, 10, GROUP, "waiting writes", 3_000);
}

#[test]
fn buffered_writes_survive_a_power_cut_up_to_one_of_them_at_least_to_the_last_sync() {
    cut_all(1200, 10, Durability::Buffered, "buffered writes", 3_000);
}

#[test]
fn writes_in_memory_survive_a_power_cut_up_to_one_of_them_at_least_to_the_last_sync() {
    cut_all(1300, 10, Durability::Memory, "writes in memory", 3_000);
}

/// A bug that was put in must be found, and the same seed without it must pass.
fn finds(bug: Bug) {
    let found = (1000..1010).find_map(|seed| {
        let (recorded, _) = record(seed, Durability::Sync, bug);
        cut_everywhere(&recorded, 3).err().map(|what| (seed, what))
    });
    let (seed, what) = found.unwrap_or_else(|| panic!("{bug:?} was not found by any seed"));
    println!("{bug:?} is found: {what}");
    let without = cut_everywhere(&record(seed, Durability::Sync, Bug::None).0, 3);
    assert!(without.is_ok(), "without the bug: {without:?}");
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    finds(Bug::EarlyAcknowledgement);
}

#[test]
fn a_pipeline_without_syncs_is_found() {
    finds(Bug::NoSync);
}

#[test]
fn a_failed_closure_that_is_not_undone_is_found() {
    finds(Bug::LostUndo);
}

/// One after another, each state known: what a killed process and a power cut leave.
#[test]
fn each_durability_loses_what_it_says_and_no_more() {
    for durability in [Durability::Sync, GROUP, Durability::Buffered, Durability::Memory] {
        let disk = SimDisk::new(5);
        let options = harness::options(&disk).in_flight_records_max(64);
        let db = options.open(DIR).expect("a new database opens");
        let mut model = new_model();
        let mut write = |number: u32| {
            let ops = [insert("t", &format!("key {number:04}"), &[7; 900])];
            let written = db.write_as(durability, |tx| apply(tx, &ops)).expect("a commit");
            model.commit(written.lsn.0, &ops);
        };
        (0..10).for_each(&mut write);
        let synced = db.sync().expect("a sync").0;
        (10..20).for_each(&mut write);
        let log = disk.log();
        let killed = disk.restart();
        drop(db);
        let last = model.lsn();
        assert_eq!((synced, last), (11, 21));
        let look = |disk: &SimDisk, what: &str| {
            let db = harness::options(disk).open(DIR).expect("it opens again");
            verify(&db, &model).unwrap_or_else(|error| panic!("{durability:?}, {what}: {error}"))
        };
        let mut player = log.player(6);
        player.advance_to(log.len());
        let after_cuts: Vec<u64> = (0..40)
            .map(|seed| look(&player.image(seed), &format!("power cut, image seed {seed}")))
            .collect();
        let after_kill = look(&killed, "killed");
        let least = *after_cuts.iter().min().expect("there are some");
        match durability {
            Durability::Buffered => {
                assert_eq!(after_kill, last, "the operating system has it");
                assert!(least >= synced && least < last, "{after_cuts:?}");
            }
            Durability::Memory => {
                assert_eq!(after_kill, synced);
                assert_eq!(least, synced);
            }
            _ => assert_eq!((after_kill, least), (last, last), "{durability:?}"),
        }
    }
}

/// A durable write takes along what was written before it without waiting.
#[test]
fn a_durable_write_makes_those_before_it_durable() {
    let disk = SimDisk::new(6);
    let db = harness::options(&disk).open(DIR).expect("a new database opens");
    let mut model = new_model();
    for (number, durability) in (0..).zip([
        Durability::Memory,
        Durability::Buffered,
        Durability::Memory,
        Durability::Memory,
        Durability::Sync,
    ]) {
        let ops = [insert("t", &format!("key {number}"), &[7; 3000])];
        let written = db.write_as(durability, |tx| apply(tx, &ops)).expect("a commit");
        model.commit(written.lsn.0, &ops);
    }
    let log = disk.log();
    for seed in 0..20 {
        let image = log.image(log.len(), seed);
        let db = harness::options(&image).open(DIR).expect("it opens again");
        assert_eq!(verify(&db, &model), Ok(6), "image seed {seed}");
    }
}
