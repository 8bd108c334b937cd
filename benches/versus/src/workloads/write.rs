//! Durable writes: every transaction has been synced when the next one begins.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Result,
    contest::Context,
    data::{Random, fill, mix},
    engine::{Batch, Engine},
    measure::{Figure, Unit, percentile_us},
};

/// Row and length of the small batches.
pub const BATCH_1000: (&str, u64) = ("batch-1000", 1000);
/// Row and length of the large batches.
pub const BATCH_10000: (&str, u64) = ("batch-10000", 10_000);
/// Row and length of large values.
pub const KIB_64: (&str, usize) = ("large-64k", 64 << 10);
/// Row and length of larger values.
pub const MIB_1: (&str, usize) = ("large-1m", 1 << 20);
/// Row and length of the largest values.
pub const MIB_4: (&str, usize) = ("large-4m", 4 << 20);

/// One put of a random entry per commit.
pub fn single_puts<E: Engine>(engine: &E, context: &Context, round: u32) -> Result<Vec<Figure>> {
    let mut writer = Writer::new(context, round);
    let mut times = Vec::new();
    let turn = context.limit.start();
    while turn.goes_on(times.len() as u64) {
        let start = Instant::now();
        writer.put(engine, 1)?;
        times.push(start.elapsed());
    }
    latencies(times, turn.elapsed())
}

/// Commits per second, and how long they took.
pub fn latencies(mut times: Vec<Duration>, elapsed: Duration) -> Result<Vec<Figure>> {
    times.sort_unstable();
    let percentile = |share| percentile_us(&times, share).ok_or("the turn was too short");
    Ok(vec![
        Figure::rate("put-1", times.len() as u64, elapsed, Unit::Commits),
        Figure::new("put-1-p50", percentile(0.5)?, Unit::Microseconds),
        Figure::new("put-1-p99", percentile(0.99)?, Unit::Microseconds),
    ])
}

/// Batches of puts of random entries. The limit counts puts.
pub fn batches<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    (row, len): (&'static str, u64),
) -> Result<Vec<Figure>> {
    let mut writer = Writer::new(context, round);
    let mut count = 0;
    let turn = context.limit.start();
    while turn.goes_on(count) {
        writer.put(engine, len)?;
        count += len;
    }
    Ok(vec![Figure::rate(row, count, turn.elapsed(), Unit::Puts)])
}

/// Replaces values of random entries.
pub struct Writer<'a> {
    context: &'a Context,
    random: Random,
    generation: u64,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer whose entries and values depend on the round.
    pub fn new(context: &'a Context, round: u32) -> Writer<'a> {
        let generation = u64::from(round) + 1;
        let random = Random::new(mix(context.entries.seed ^ generation.rotate_left(32)));
        Writer { context, random, generation, key: Vec::new(), value: Vec::new() }
    }

    /// Commits `len` puts.
    pub fn put<E: Engine>(&mut self, engine: &E, len: u64) -> Result<()> {
        let entries = self.context.entries;
        engine.write(|batch| {
            for _ in 0..len {
                let number = self.random.below(entries.count);
                entries.key(number, &mut self.key);
                entries.value(number, self.generation, &mut self.value);
                batch.put(&self.key, &self.value)?;
            }
            Ok(())
        })
    }
}

/// One large value per commit into an empty database, under ascending keys.
pub fn large<E: Engine>(
    dir: &Path,
    context: &Context,
    (row, len): (&'static str, usize),
) -> Result<Vec<Figure>> {
    let engine = E::open(dir, context.setup)?;
    let mut value = vec![0; len];
    fill(context.entries.seed, &mut value);
    let bytes_max = context.options.large_mib << 20;
    let (mut bytes, mut count) = (0, 0_u64);
    let turn = context.limit.start();
    while bytes < bytes_max && turn.goes_on(count) {
        value[..8].copy_from_slice(&count.to_le_bytes());
        engine.write(|batch| batch.put(&count.to_be_bytes(), &value))?;
        bytes += len as u64;
        count += 1;
    }
    let elapsed = turn.elapsed();
    engine.close()?;
    let rate = bytes as f64 / 1e6 / elapsed.as_secs_f64();
    Ok(vec![Figure::new(row, rate, Unit::MegabytesPerSecond)])
}
