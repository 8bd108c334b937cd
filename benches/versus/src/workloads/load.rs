//! Loads: all entries into an empty database, durable and closed at the end.

use std::{path::Path, time::Instant};

use crate::{
    Result,
    contest::Context,
    data::{Entries, Shuffle},
    device::Device,
    engine::{Batch, Engine, occupied},
    measure::{Figure, Unit},
};

/// Loads in ascending order of keys.
pub fn sorted<E: Engine>(dir: &Path, context: &Context) -> Result<Vec<Figure>> {
    let start = Instant::now();
    let engine = E::open(dir, context.setup)?;
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let entries = context.entries;
    for range in batches(entries.count, context.options.load_batch) {
        engine.write(|batch| {
            for number in range {
                entries.key(number, &mut key);
                entries.value(number, 0, &mut value);
                batch.append(&key, &value)?;
            }
            Ok(())
        })?;
    }
    engine.close()?;
    Ok(vec![Figure::rate("load-sorted", entries.count, start.elapsed(), Unit::Puts)])
}

/// Loads in random order, and reports size and written bytes too.
pub fn random<E: Engine>(dir: &Path, context: &Context) -> Result<Vec<Figure>> {
    let device = Device::of(dir)?;
    let written_before = device.written()?;
    let start = Instant::now();
    let engine = E::open(dir, context.setup)?;
    fill_randomly(&engine, context.entries, context.options.load_batch)?;
    engine.close()?;
    let elapsed = start.elapsed();
    let mut figures = vec![
        Figure::rate("load-random", context.entries.count, elapsed, Unit::Puts),
        Figure::megabytes("load-random-file", occupied(dir)?),
    ];
    if let (Some(before), Some(after)) = (written_before, device.written()?) {
        figures.push(Figure::megabytes("load-random-device", after - before));
    }
    Ok(figures)
}

/// Puts all entries in random order, `batch_len` per transaction.
pub fn fill_randomly<E: Engine>(engine: &E, entries: Entries, batch_len: u64) -> Result<()> {
    let order = Shuffle::new(entries.count, entries.seed);
    put_ordered(engine, entries, order, entries.count, batch_len)
}

/// Puts the first `count` entries of an order.
pub fn put_ordered<E: Engine>(
    engine: &E,
    entries: Entries,
    order: Shuffle,
    count: u64,
    batch_len: u64,
) -> Result<()> {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for range in batches(count, batch_len) {
        engine.write(|batch| {
            for position in range {
                let number = order.at(position);
                entries.key(number, &mut key);
                entries.value(number, 0, &mut value);
                batch.put(&key, &value)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Cuts `0..count` into ranges of `len` numbers; the last one may be shorter.
pub fn batches(count: u64, len: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..count.div_ceil(len)).map(move |index| index * len..((index + 1) * len).min(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_everything_once() {
        let all: Vec<_> = batches(25, 10).collect();
        assert_eq!(all, [0..10, 10..20, 20..25]);
        assert_eq!(batches(0, 10).count(), 0);
    }
}
