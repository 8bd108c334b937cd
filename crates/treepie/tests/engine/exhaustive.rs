//! Small workloads, exhaustively: all sequences of up to three operations of twelve kinds, the power
//! cut at every operation on the disk, and every subset of what is unsynced there, in sectors of 512
//! and of 4,096 bytes, wherever it has at most twelve parts.
//!
//! A run takes one part of the sequences; `TREEPIE_SLICE=<n>` takes another one, and
//! `TREEPIE_SLICE=all` takes them all.

use std::{env, ops::Bound, time::Instant};

use treepie::{Compression, Durability};
use treepie_testkit::{
    PlantedBug, Player, Rng, SimDisk, mix,
    model::Model,
    script::{Act, Closure, End, Script, Setup, Step, Value},
    tally::{note, thousands},
};

use crate::{
    harness::for_seeds,
    life::{Life, Lived, look_at},
};

/// Kinds of operations.
const KINDS: usize = 12;
/// Decisions of a cut of which all combinations are looked at.
const CHOICES_MAX: u32 = 12;
/// Of more decisions, so many combinations are drawn.
const DRAWS: u64 = 16;
/// Parts of all sequences.
const SLICES: usize = 5;

const SETUP: Setup = Setup {
    seed: 9,
    segment_size: 16 << 10,
    checkpoint_distance: 24 << 10,
    compression: Compression::Off,
    checkpoint_on_close: true,
};

fn insert(tree: &str, key: &str, len: usize) -> Act {
    Act::Insert(tree.to_owned(), key.as_bytes().to_vec(), Value { len, fill: 1 })
}

fn write(durability: Durability, acts: Vec<Act>) -> Step {
    Step::Write(Closure { durability, acts, end: End::Stays })
}

/// An operation of each kind, on a tree that has "a", "b" and a run of pages under "c".
fn step(kind: usize) -> Step {
    let key = |key: &str| Bound::Included(key.as_bytes().to_vec());
    let t = || "t".to_owned();
    match kind {
        0 => write(Durability::Sync, vec![insert("t", "a", 20)]),
        1 => write(Durability::Sync, vec![insert("t", "d", 900), insert("t", "b", 900)]),
        2 => write(Durability::Sync, vec![insert("t", "c", 9000)]),
        3 => write(Durability::Sync, vec![Act::Remove(t(), b"a".to_vec())]),
        4 => write(Durability::Sync, vec![Act::RemoveRange(t(), key("b"), key("c"))]),
        5 => write(Durability::Sync, vec![Act::Drop(t()), Act::Annotate(10)]),
        6 => {
            let undone = vec![insert("t", "a", 2000), Act::Drop("u".to_owned())];
            let acts = vec![insert("u", "a", 20), Act::Savepoint(undone, End::Fails)];
            write(Durability::Sync, acts)
        }
        7 => write(Durability::Buffered, vec![insert("t", "e", 50)]),
        8 => write(Durability::Memory, vec![insert("t", "f", 50)]),
        9 => Step::Checkpoint,
        10 => Step::Reopen,
        _ => Step::Kill,
    }
}

/// The sequence of a number: all of one operation, then all of two, then all of three.
fn sequence(mut number: usize) -> Vec<usize> {
    for len in 1.. {
        let count = KINDS.pow(len);
        if number < count {
            return (0..len).map(|place| number / KINDS.pow(place) % KINDS).collect();
        }
        number -= count;
    }
    unreachable!("numbers are finite")
}

const SEQUENCES: usize = KINDS + KINDS * KINDS + KINDS * KINDS * KINDS;

/// A database at rest, with records behind its checkpoint in a segment that is half full.
fn base() -> (SimDisk, Model) {
    let disk = SimDisk::new(SETUP.seed);
    let mut life = Life::begin(&SETUP, &disk);
    let acts = vec![insert("t", "a", 100), insert("t", "b", 700), insert("t", "c", 9000)];
    life.open().expect("a new database opens");
    life.step(&write(Durability::Sync, acts)).expect("a commit");
    life.step(&Step::Checkpoint).expect("a checkpoint");
    life.step(&step(0)).expect("a commit");
    let rest = disk.restart().settled(SETUP.seed);
    (rest, life.model)
}

#[derive(Clone, Copy, Default)]
struct Counts {
    images: u64,
    /// Cuts of which all subsets were looked at, and those that had too many.
    whole: u64,
    drawn: u64,
}

/// Runs a sequence, and cuts inside its last operation: what comes before it is the last operation
/// of a shorter sequence.
fn run(base: &(SimDisk, Model), kinds: &[usize], bugs: &[PlantedBug]) -> Result<Counts, String> {
    let disk = base.0.settled(SETUP.seed);
    bugs.iter().for_each(|bug| disk.plant(bug.clone()));
    let mut life = Life::resume(&SETUP, &disk, base.1.clone());
    life.open().map_err(|stop| format!("{stop:?}"))?;
    let mut from = 0;
    for (number, kind) in kinds.iter().enumerate() {
        if number > 0 {
            from = disk.log().len();
        }
        life.step(&step(*kind)).map_err(|stop| format!("{stop:?}"))?;
    }
    let lived = life.lived();
    let mut player = lived.log.player(SETUP.seed);
    player.advance_to(from);
    let mut counts = Counts::default();
    loop {
        cut_here(&lived, &player, &mut counts)?;
        if !player.advance() {
            return Ok(counts);
        }
    }
}

/// Every subset of what is unsynced at one place.
fn cut_here(lived: &Lived, player: &Player<'_>, counts: &mut Counts) -> Result<(), String> {
    let acknowledged = player.acknowledged().unwrap_or(0);
    let mut sizes = vec![512, 4096];
    // Where only names and lengths are open, both say the same.
    sizes.dedup_by_key(|size| player.choices(*size));
    for size in sizes {
        let choices = player.choices(size);
        let is_whole = choices <= CHOICES_MAX;
        let mut rng = Rng::new(mix(player.position() as u64, size));
        let all = (0..1_u64 << choices.min(CHOICES_MAX)).filter(|_| is_whole);
        let some = (0..DRAWS).filter(|_| !is_whole).map(|_| rng.next_u64());
        counts.whole += u64::from(is_whole);
        counts.drawn += u64::from(!is_whole);
        for bits in all.chain(some) {
            counts.images += 1;
            look_at(lived, &player.image_of(size, bits), acknowledged).map_err(|what| {
                let (cut, all) = (player.position(), lived.log.len());
                format!("cut {cut} of {all}, sectors of {size}, subset {bits:#b}: {what}")
            })?;
        }
    }
    Ok(())
}

/// A failure shows the sequence as a script, after what the base did.
fn told(number: usize, what: &str) -> String {
    let steps = sequence(number).into_iter().map(step).collect();
    let script = Script { setup: SETUP, steps };
    format!(
        "sequence {number}: {what}\n\n{script}\nagain: TREEPIE_SEED={number} cargo test -p treepie --test engine exhaustive"
    )
}

/// Numbers of the sequences that this run is about.
fn chosen() -> Vec<u64> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let slice = number("TREEPIE_SLICE").unwrap_or(0) % SLICES;
    let is_all = env::var("TREEPIE_SLICE").is_ok_and(|text| text == "all");
    let one = number("TREEPIE_SEED");
    let is_chosen = |n: &usize| match one {
        Some(one) => *n == one,
        None => is_all || *n < KINDS || n % SLICES == slice,
    };
    (0..SEQUENCES).filter(is_chosen).map(|n| n as u64).collect()
}

#[test]
fn every_subset_of_every_cut_of_every_small_workload_opens_to_a_commit() {
    let begin = Instant::now();
    let base = base();
    let numbers = chosen();
    let results = for_seeds(&numbers, |number| {
        let number = usize::try_from(number).expect("it is an index");
        run(&base, &sequence(number), &[]).unwrap_or_else(|what| panic!("{}", told(number, &what)))
    });
    let sum = |count: fn(&Counts) -> u64| results.iter().map(count).sum::<u64>();
    let counts = format!(
        "{} images, every subset of {} cuts ({} had too many), {} of {} workloads, {:.0} s",
        thousands(sum(|counts| counts.images)),
        thousands(sum(|counts| counts.whole)),
        thousands(sum(|counts| counts.drawn)),
        numbers.len(),
        thousands(SEQUENCES as u64),
        begin.elapsed().as_secs_f64()
    );
    note(2, "small and exhaustive", &counts);
    assert!(numbers.len() == 1 || sum(|counts| counts.whole) > 500, "{counts}");
}

#[test]
fn sequences_are_all_different_and_hold_every_operation() {
    let all: std::collections::BTreeSet<Vec<usize>> = (0..SEQUENCES).map(sequence).collect();
    assert_eq!(all.len(), SEQUENCES);
    assert!(all.contains(&vec![11, 11, 11]) && all.contains(&vec![0]));
}

/// The smallest workloads suffice to find a sync that is left out.
#[test]
fn a_skipped_sync_is_found_by_a_small_workload() {
    let base = base();
    for (bug, len_max) in [
        (PlantedBug::SkipSyncData("/db/journal".to_owned()), 1),
        (PlantedBug::SkipSyncData("/db/data".to_owned()), 2),
        (PlantedBug::SkipSyncDir("/db/journal".to_owned()), 3),
    ] {
        let bugs = std::slice::from_ref(&bug);
        let found = (0..SEQUENCES)
            .map(sequence)
            .find_map(|kinds| run(&base, &kinds, bugs).err().map(|what| (kinds, what)));
        let (kinds, what) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?} is found by {kinds:?}: {what}");
        assert!(kinds.len() <= len_max, "{bug:?} takes {kinds:?}");
    }
}
