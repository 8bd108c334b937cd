//! Power cuts while everything runs at once: two writers, the checkpoint's thread and the one that
//! prepares segments, on a simulated disk whose calls return late. The disk's log has one order of
//! all that they did, and in it the moment when each commit was acknowledged; the power is cut at
//! every operation of that log.
//!
//! A seed gives the workloads, not the order of the threads: a failure cannot be repeated, so the
//! files of the image that failed are saved, and its message says where.

use std::{fs, path::PathBuf, thread, time::Duration};

use parking_lot::Mutex;
use treepie::{Database, Options, WriteTxn};
use treepie_testkit::{
    PlantedBug, SimDisk, mix,
    tally::{note, thousands},
    workload::{Op, Shape, Step, generate},
};

use crate::{
    harness::{self, DIR, for_seeds, insert, new_model, seeds},
    power_cuts::{Recorded, cut_everywhere, options_of},
};

const WRITERS: u64 = 2;
/// How often the database is opened, one time after the other.
const LIVES: u64 = 2;

/// A checkpoint that is always due, and segments that are always full.
fn options(seed: u64, disk: &SimDisk) -> Options {
    options_of(seed, disk)
        .background_threads(true)
        .checkpoint_interval(Duration::from_millis(1))
        .checkpoint_distance(24 << 10)
        .journal_segment_size(16 << 10)
}

/// Commits: LSN, place in the order in which the closures ran, and what they did.
type Commits = Mutex<Vec<(u64, u64, Vec<Op>)>>;

/// Runs the workloads of a seed, with the bugs planted once the database is made; also returns how many checkpoints there were.
fn record(seed: u64, bugs: &[PlantedBug]) -> (Recorded, u64) {
    let disk = SimDisk::new(seed);
    disk.set_yields(30);
    let commits = Commits::default();
    let (mut checkpoints, mut early_writes) = (0, 0);
    for life in 0..LIVES {
        let db = options(seed, &disk).open(DIR).expect("it opens");
        bugs.iter().filter(|_| life == 0).for_each(|bug| disk.plant(bug.clone()));
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (db, disk, commits) = (&db, &disk, &commits);
                let name = mix(seed, life * WRITERS + writer);
                scope.spawn(move || write_steps(db, disk, commits, name));
            }
        });
        let stats = db.stats();
        checkpoints += stats.checkpoints;
        early_writes += stats.pages_written;
        db.close().expect("closing");
    }
    let mut commits = commits.into_inner();
    commits.sort_unstable_by_key(|(lsn, place, _)| (*lsn, *place));
    let places: Vec<u64> = commits.iter().map(|(_, place, _)| *place).collect();
    assert_eq!(places, (1..=places.len() as u64).collect::<Vec<_>>(), "seed {seed}");
    let mut model = new_model();
    let mut last = 1;
    for merged in commits.chunk_by(|(one, ..), (other, ..)| one == other) {
        let lsn = merged[0].0;
        assert_eq!(lsn, last + 1, "seed {seed}: LSNs have no gaps");
        last = lsn;
        let ops: Vec<Op> = merged.iter().flat_map(|(.., ops)| ops.iter().cloned()).collect();
        model.commit(lsn, &ops);
    }
    (Recorded { seed, log: disk.log(), model, early_writes }, checkpoints)
}

/// One writer's work. A commit is marked in the disk's log when it was acknowledged; each takes the
/// next place in an order that all share, since those that are merged have one LSN.
fn write_steps(db: &Database, disk: &SimDisk, commits: &Commits, name: u64) {
    let shape = Shape { steps: 25, keys: 60, reopen_every: 6, ..Shape::default() };
    let mut held = None;
    for (number, step) in generate(name, &shape).into_iter().enumerate() {
        match step {
            Step::Write(mut ops) => {
                ops.push(insert("steps", &format!("{name:016x}/{number}"), b"done"));
                let receipt = db.write(|tx| {
                    harness::apply(tx, &ops)?;
                    take_place(tx)
                });
                let receipt = receipt.expect("a commit");
                disk.mark(receipt.lsn.0);
                let place = receipt.value;
                ops.push(insert("order", "last", &place.to_be_bytes()));
                commits.lock().push((receipt.lsn.0, place, ops));
            }
            Step::Abort(ops) => {
                let aborted = db.write(|tx| {
                    harness::apply(tx, &ops)?;
                    Err::<(), _>(treepie::Error::rejected("on purpose"))
                });
                assert!(aborted.is_err(), "{aborted:?}");
            }
            Step::Checkpoint => drop(db.checkpoint().expect("a checkpoint")),
            // It cannot be closed here: a snapshot is taken instead, or let go.
            Step::Reopen => held = held.is_none().then(|| db.read().expect("a snapshot")),
        }
    }
}

/// Takes the next place in the order of all closures.
fn take_place(tx: &mut WriteTxn<'_>) -> treepie::Result<u64> {
    let mut order = tx.tree("order")?;
    let last = order.get("last")?.and_then(|bytes| bytes.try_into().ok());
    let place = last.map_or(0, u64::from_be_bytes) + 1;
    order.insert("last", place.to_be_bytes())?;
    Ok(place)
}

/// Saves the image that a message of [`cut_everywhere`] names; returns the folder.
fn save(recorded: &Recorded, failure: &str) -> PathBuf {
    let number = |name: &str| {
        let rest = failure.split(name).nth(1).expect("the message names it");
        let digits = rest.chars().take_while(char::is_ascii_digit).collect::<String>();
        digits.parse::<u64>().expect("a number")
    };
    let cut = usize::try_from(number("cut ")).expect("a place in the log");
    let mut player = recorded.log.player(recorded.seed);
    player.advance_to(cut);
    let image = player.image(number("image seed "));
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cut-{}", recorded.seed));
    for path in image.file_paths() {
        let target = dir.join(path.strip_prefix("/").expect("paths begin at the root"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        fs::write(target, image.file_bytes(&path).expect("it is there")).expect("a file");
    }
    dir
}

#[test]
fn acknowledged_commits_of_several_threads_survive_a_power_cut_at_every_operation() {
    let seeds = seeds(1, 16);
    let results = for_seeds(&seeds, |seed| {
        let (recorded, checkpoints) = record(seed, &[]);
        let images = cut_everywhere(&recorded, 4).unwrap_or_else(|failure| {
            panic!("{failure}\nthe image is saved in {}", save(&recorded, &failure).display())
        });
        (images, recorded.log.len(), checkpoints, recorded.early_writes)
    });
    let images: u64 = results.iter().map(|(images, ..)| images).sum();
    let cuts: usize = results.iter().map(|(_, cuts, ..)| cuts).sum();
    let checkpoints: u64 = results.iter().map(|(_, _, checkpoints, _)| checkpoints).sum();
    let pages: u64 = results.iter().map(|(.., pages)| pages).sum();
    println!("{checkpoints} checkpoints, {pages} pages written");
    note(1, "power cuts, threads", &format!("{} images of {cuts} cuts", thousands(images)));
    if seeds.len() > 1 {
        assert!(images >= 20_000, "only {images} images");
        assert!(checkpoints > 50, "only {checkpoints} checkpoints");
    }
}

/// The test above finds a journal that is not synced before a commit is acknowledged, and a data
/// file that is not synced before its meta page.
#[test]
fn a_file_that_threads_do_not_sync_is_found() {
    for name in ["journal", "data"] {
        let bug = PlantedBug::SkipSyncData(name.to_owned());
        let found = (1..9).find_map(|seed| {
            let (recorded, _) = record(seed, std::slice::from_ref(&bug));
            cut_everywhere(&recorded, 4).err().map(|failure| (recorded, failure))
        });
        let (recorded, failure) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?} is found: {failure}");
        assert!(save(&recorded, &failure).join("db/data").exists(), "the image was not saved");
    }
}
