//! Durable batches: every transaction has been synced when the next one begins.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use crate::{
    Result,
    contest::Context,
    data::{Random, mix},
    device::Device,
    engine::{Batch, Engine},
    measure::{Figure, Unit},
};

/// Row and length of the small batches.
pub const BATCH_1000: (&str, u64) = ("batch-1000", 1000);
/// Row and length of the large batches.
pub const BATCH_10000: (&str, u64) = ("batch-10000", 10_000);

/// Batches of puts of random entries. The limit counts puts.
///
/// Besides the rate of the turn: the rate with the time for settling added, and what the device
/// wrote for it all per byte of keys and values. The turn begins settled, so that it pays for its
/// own writes, for all of them, and for no others.
pub fn batches<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    (row, len): (&str, u64),
) -> Result<Vec<Figure>> {
    let device = Device::of(&context.home)?;
    let mut writer = Writer::new(context, round, 0);
    let mut count = 0;
    engine.settle()?;
    let written_before = device.written()?;
    let start = Instant::now();
    let turn = context.batch_limit.start();
    while turn.goes_on(count) {
        writer.put(engine, len)?;
        count += len;
    }
    let elapsed = turn.elapsed();
    engine.settle()?;
    let settled = start.elapsed();

    let mut figures = vec![
        Figure::rate(row, count, elapsed, Unit::Puts),
        Figure::rate(format!("{row}-settled"), count, settled, Unit::Puts),
    ];
    if let (Some(before), Some(after)) = (written_before, device.written()?) {
        let bytes = count * (context.entries.key_len + context.entries.value_len) as u64;
        let ratio = (after - before) as f64 / bytes as f64;
        figures.push(Figure::new(format!("{row}-device"), ratio, Unit::BytesPerByte));
    }
    Ok(figures)
}

/// Writers so far, in the whole run.
static WRITERS: AtomicU64 = AtomicU64::new(0);

/// Replaces values of random entries, each time by one that was never there: some engines compare,
/// and write nothing where nothing changes.
pub struct Writer<'a> {
    context: &'a Context,
    random: Random,
    generation: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer whose entries depend on round and thread.
    pub fn new(context: &'a Context, round: u32, thread: u64) -> Writer<'a> {
        let part = (u64::from(round) + 1).rotate_left(32) ^ thread.rotate_left(48);
        let random = Random::new(mix(context.entries.seed ^ part));
        let generation = (WRITERS.fetch_add(1, Ordering::Relaxed) + 1) << 32;
        Writer { context, random, generation, key: Vec::new(), value: Vec::new() }
    }

    /// The next key and value.
    pub fn next(&mut self) -> (&[u8], &[u8]) {
        let entries = self.context.entries;
        let number = self.random.below(entries.count);
        self.generation += 1;
        entries.key(number, &mut self.key);
        entries.value(number, self.generation, &mut self.value);
        (&self.key, &self.value)
    }

    /// Commits `len` puts.
    pub fn put<E: Engine>(&mut self, engine: &E, len: u64) -> Result<()> {
        engine.write(|batch| {
            for _ in 0..len {
                let (key, value) = self.next();
                batch.put(key, value)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_values_are_the_same() {
        let mut context = Context::for_tests(100);
        context.entries.count = 1;
        let mut values = Vec::new();
        for _turn in 0..2 {
            let mut writer = Writer::new(&context, 0, 0);
            values.extend((0..3).map(|_| writer.next().1.to_vec()));
        }
        values.sort_unstable();
        values.dedup();
        assert_eq!(values.len(), 6);
    }
}
