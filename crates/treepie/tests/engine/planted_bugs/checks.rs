//! Checks of whole workloads: the runs and the power cuts that the engine is tested with, of fewer
//! seeds.

use std::ops::Range;

use treepie::{Durability, Error};
use treepie_testkit::{
    Rng, SimDisk, mix,
    model::State,
    workload::{Op, Shape, Step, generate},
};

use crate::{
    harness::{self, DIR, apply, difference, insert, new_model, verify},
    power_cuts::{Recorded, cut_everywhere, options_of, record, shape_of},
};

/// Images of each cut.
const DRAWS: u64 = 4;

/// Workloads are run, and the power is cut at every operation of theirs.
pub fn power_cuts() -> Result<(), String> {
    const SEEDS: Range<u64> = 1..7;
    for seed in SEEDS {
        cut_everywhere(&record(seed, &shape_of(seed), &[]), DRAWS)?;
    }
    Ok(())
}

/// Workloads are run, with snapshots and reopening; everything is compared with the model.
pub fn model() -> Result<(), String> {
    for seed in 1..9 {
        record(seed, &shape_of(seed), &[]);
        let tall = Shape { steps: 60, ops_max: 200, trees: 1, keys: 500, ..Shape::default() };
        record(seed, &tall, &[]);
    }
    Ok(())
}

/// The power is cut while commits are acknowledged before they are durable: what is left is all of
/// them up to one, at or above the last sync that returned.
pub fn unsynced_commits() -> Result<(), String> {
    for seed in [1, 2, 4] {
        let disk = SimDisk::new(seed);
        let mut rng = Rng::new(mix(seed, 9));
        let db = options_of(seed, &disk).open(DIR).map_err(|error| error.to_string())?;
        disk.mark(1);
        let mut model = new_model();
        for step in generate(seed, &Shape { reopen_every: 0, ..shape_of(seed) }) {
            let Step::Write(ops) = step else { continue };
            let receipt = db.write_as(Durability::Buffered, |tx| apply(tx, &ops));
            model.commit(receipt.map_err(|error| error.to_string())?.lsn.0, &ops);
            if rng.chance(1, 12) {
                disk.mark(db.sync().map_err(|error| error.to_string())?.0);
            }
        }
        drop(db);
        cut_everywhere(&Recorded { seed, log: disk.log(), model, early_writes: 0 }, DRAWS)?;
    }
    Ok(())
}

/// The same, where pages of such commits go to the data file because memory is short.
pub fn unsynced_commits_in_little_memory() -> Result<(), String> {
    const ROWS: u64 = 300;
    let disk = SimDisk::new(1);
    let mut rng = Rng::new(2);
    let options = harness::options(&disk).journal_segment_size(4 << 20);
    let db = options.checkpoint_distance(4 << 20).open(DIR).map_err(|error| error.to_string())?;
    let mut model = new_model();
    let row = |number: u64, byte: u8| insert("t", &format!("row {number:04}"), &[byte; 900]);
    let all: Vec<Op> = (0..ROWS).map(|number| row(number, 0)).collect();
    model.commit(harness::write(&db, &all).map_err(|error| error.to_string())?, &all);
    db.checkpoint().map_err(|error| error.to_string())?;
    disk.mark(model.lsn());
    let (before, mut early) = (db.stats(), 0);
    for byte in 1..20 {
        let ops: Vec<Op> = (0..40).map(|_| row(rng.below(ROWS), byte)).collect();
        let receipt = db.write_as(Durability::Buffered, |tx| apply(tx, &ops));
        model.commit(receipt.map_err(|error| error.to_string())?.lsn.0, &ops);
        early = db.stats().pages_written - before.pages_written;
    }
    assert!(early > 200, "only {early} pages were written early");
    drop(db);
    cut_everywhere(&Recorded { seed: 1, log: disk.log(), model, early_writes: early }, DRAWS)
        .map(|_| ())
}

/// Parts of transactions are undone, and the rest is committed.
pub fn savepoints() -> Result<(), String> {
    let writes = |step| if let Step::Write(ops) = step { Some(ops) } else { None };
    for seed in 1..6 {
        let disk = SimDisk::new(seed);
        let db = harness::options(&disk).open(DIR).map_err(|error| error.to_string())?;
        let mut model = new_model();
        let steps: Vec<Vec<Op>> =
            generate(seed, &Shape::default()).into_iter().filter_map(writes).collect();
        for pair in steps.chunks_exact(2) {
            let receipt = db.write(|tx| {
                apply(tx, &pair[0])?;
                let undone = tx.savepoint(|tx| {
                    apply(tx, &pair[1])?;
                    Err::<(), _>(Error::rejected("on purpose"))
                });
                assert!(matches!(undone, Err(Error::Rejected(_))), "{undone:?}");
                Ok(())
            });
            model.commit(receipt.map_err(|error| error.to_string())?.lsn.0, &pair[0]);
            verify(&db, &model).map_err(|what| format!("seed {seed}: {what}"))?;
        }
    }
    Ok(())
}

/// What is wrong with an opened database that may have lost nothing, and shows `state`, wherever it
/// does not say itself that it cannot be read.
pub fn difference_or_damage(db: &treepie::Database, lsn: u64, state: &State) -> Result<(), String> {
    let snapshot = db.read().map_err(|error| error.to_string())?;
    if snapshot.lsn().0 != lsn {
        return Err(format!("it opened at LSN {} of {lsn}, without an error", snapshot.lsn()));
    }
    match difference(&snapshot, state) {
        Ok(Some(difference)) => Err(format!("a wrong answer: {difference}")),
        Ok(None) | Err(_) => Ok(()),
    }
}
