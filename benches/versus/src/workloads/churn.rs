//! Removes a random half of a database's entries and inserts them again.

use std::{path::Path, time::Instant};

use crate::{
    Result,
    contest::Context,
    data::{Entries, Shuffle},
    engine::{Batch, Engine, KEY_MIN, Tally, View, occupied},
    measure::{Figure, Unit},
    workloads::load,
};

/// Halves a database and fills it again.
pub fn halve_and_fill<E: Engine>(dir: &Path, context: &Context) -> Result<Vec<Figure>> {
    let entries = Entries { count: context.options.churn_entries, ..context.entries };
    let half = entries.count / 2;
    let batch_len = context.options.churn_batch;
    let engine = E::open(dir, context.setup)?;
    load::fill_randomly(&engine, entries, context.options.load_batch)?;
    let size_before = occupied(dir)?;

    let start = Instant::now();
    remove_half(&engine, entries, batch_len)?;
    let removed = start.elapsed();
    expect_entries(&engine, entries.count - half)?;

    let start = Instant::now();
    load::put_shuffled(&engine, entries, 0..half, batch_len)?;
    let inserted = start.elapsed();
    expect_entries(&engine, entries.count)?;
    engine.close()?;

    Ok(vec![
        Figure::rate("churn-remove", half, removed, Unit::Entries),
        Figure::rate("churn-reinsert", half, inserted, Unit::Entries),
        Figure::megabytes("churn-file-before", size_before),
        Figure::megabytes("churn-file-after", occupied(dir)?),
    ])
}

fn remove_half<E: Engine>(engine: &E, entries: Entries, batch_len: u64) -> Result<()> {
    let order = Shuffle::new(entries.count, entries.seed);
    let mut key = Vec::new();
    for range in load::batches(entries.count / 2, batch_len) {
        engine.write(|batch| {
            for position in range {
                entries.key(order.at(position), &mut key);
                batch.remove(&key)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn expect_entries<E: Engine>(engine: &E, count: u64) -> Result<()> {
    let mut tally = Tally::default();
    engine.read(|view| view.scan(KEY_MIN, u64::MAX, &mut tally))?;
    if tally.entries == count {
        return Ok(());
    }
    Err(format!("{} entries instead of {count}", tally.entries).into())
}
