//! Removes a random half of a database's entries and inserts them again, several times.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Result,
    contest::Context,
    data::{Entries, Shuffle, mix},
    engine::{Batch, Engine, KEY_MIN, Tally, View, occupied},
    measure::{Figure, Unit},
    workloads::load,
};

/// Halves a database and fills it again, round after round, each with another half.
///
/// Sizes are those of the settled database: after the load, and at the end.
pub fn halve_and_fill<E: Engine>(dir: &Path, context: &Context) -> Result<Vec<Figure>> {
    let options = &context.options;
    let entries = Entries { count: options.churn_entries, ..context.entries };
    let half = entries.count / 2;
    let engine = E::open(dir, context.setup)?;
    load::fill_randomly(&engine, entries, options.load_batch)?;
    engine.settle()?;
    let size_before = occupied(dir)?;

    let (mut removing, mut inserting) = (Duration::ZERO, Duration::ZERO);
    for round in 0..options.churn_rounds {
        let order = Shuffle::new(entries.count, mix(entries.seed ^ u64::from(round)));
        let start = Instant::now();
        remove(&engine, entries, order, half, options.churn_batch)?;
        removing += start.elapsed();
        expect_entries(&engine, entries.count - half)?;

        let start = Instant::now();
        load::put_ordered(&engine, entries, order, half, options.churn_batch)?;
        inserting += start.elapsed();
        expect_entries(&engine, entries.count)?;
    }
    engine.settle()?;
    let size_after = occupied(dir)?;
    engine.close()?;

    let count = half * u64::from(options.churn_rounds);
    Ok(vec![
        Figure::rate("churn-remove", count, removing, Unit::Entries),
        Figure::rate("churn-reinsert", count, inserting, Unit::Entries),
        Figure::megabytes("churn-file-before", size_before),
        Figure::megabytes("churn-file-after", size_after),
    ])
}

/// Removes the first `count` entries of an order.
fn remove<E: Engine>(
    engine: &E,
    entries: Entries,
    order: Shuffle,
    count: u64,
    batch_len: u64,
) -> Result<()> {
    let mut key = Vec::new();
    for range in load::batches(count, batch_len) {
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
