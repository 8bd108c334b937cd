//! Reads of the loaded database, which is in memory.

use std::{hint::black_box, thread};

use crate::{
    Result,
    contest::Context,
    data::{Random, mix},
    engine::{Engine, KEY_MIN, Tally, View},
    measure::{Figure, Limit, Unit},
};

/// Reads per snapshot.
const SNAPSHOT_READS: u64 = 1000;
const SHORT_SCAN_LEN: u64 = 10;

/// Random gets by some threads, each with a snapshot of its own.
pub fn gets<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    threads: u64,
) -> Result<Vec<Figure>> {
    let turn = context.limit.start();
    let counts: Result<Vec<u64>> = thread::scope(|scope| {
        let spawn = |thread| scope.spawn(move || get_until_end(engine, context, round, thread));
        let handles: Vec<_> = (0..threads).map(spawn).collect();
        handles.into_iter().map(|h| h.join().map_err(|_| "a reader panicked")?).collect()
    });
    let row = if threads == 1 { "get-1" } else { "get-2" };
    Ok(vec![Figure::rate(row, counts?.iter().sum(), turn.elapsed(), Unit::Gets)])
}

/// Random gets until the turn ends; how many there were.
pub fn get_until_end<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    thread: u64,
) -> Result<u64> {
    let mut random = Random::new(mix(context.entries.seed ^ u64::from(round)) ^ thread);
    repeat(engine, context, |view, key, tally| {
        context.entries.key(random.below(context.entries.count), key);
        if view.get(key, tally)? { Ok(()) } else { Err("a key is missing".into()) }
    })
}

/// Whole scans, one at least.
pub fn full_scans<E: Engine>(engine: &E, context: &Context, limit: Limit) -> Result<Vec<Figure>> {
    let entries = context.entries;
    let turn = limit.start();
    let mut scans = 0;
    while scans == 0 || turn.goes_on(scans) {
        let mut tally = Tally::default();
        engine.read(|view| view.scan(KEY_MIN, u64::MAX, &mut tally))?;
        let bytes = entries.count * entries.value_len as u64;
        if (tally.entries, tally.value_bytes) != (entries.count, bytes) {
            return Err(format!("the scan saw {tally:?}").into());
        }
        black_box(tally);
        scans += 1;
    }
    Ok(vec![Figure::rate("scan-full", scans * entries.count, turn.elapsed(), Unit::Entries)])
}

/// Scans of ten entries.
pub fn short_scans<E: Engine>(engine: &E, context: &Context, round: u32) -> Result<Vec<Figure>> {
    let entries = context.entries;
    let starts = entries.count.saturating_sub(SHORT_SCAN_LEN - 1).max(1);
    let mut random = Random::new(mix(entries.seed ^ u64::from(round)));
    let turn = context.limit.start();
    let scans = repeat(engine, context, |view, key, tally| {
        entries.key(random.below(starts), key);
        view.scan(key, SHORT_SCAN_LEN, tally)
    })?;
    Ok(vec![Figure::rate("scan-10", scans, turn.elapsed(), Unit::Scans)])
}

/// Scans of all entries that share a prefix.
pub fn prefix_scans<E: Engine>(engine: &E, context: &Context, round: u32) -> Result<Vec<Figure>> {
    let entries = context.entries;
    let mut random = Random::new(mix(entries.seed ^ u64::from(round)));
    let mut read = 0;
    let turn = context.limit.start();
    repeat(engine, context, |view, key, tally| {
        entries.key(random.below(entries.count), key);
        let before = tally.entries;
        view.scan_prefix(&key[..entries.prefix_len()], tally)?;
        read += tally.entries - before;
        if tally.entries == before { Err("a prefix is missing".into()) } else { Ok(()) }
    })?;
    Ok(vec![Figure::rate("scan-prefix", read, turn.elapsed(), Unit::Entries)])
}

/// Repeats a read until the turn ends, with a new snapshot now and then; how often it was done.
fn repeat<E: Engine>(
    engine: &E,
    context: &Context,
    mut read: impl FnMut(&E::View<'_>, &mut Vec<u8>, &mut Tally) -> Result<()>,
) -> Result<u64> {
    let turn = context.limit.start();
    let (mut key, mut tally) = (Vec::new(), Tally::default());
    let mut count = 0;
    while turn.goes_on(count) {
        let reads = SNAPSHOT_READS.min(context.limit.count - count);
        engine.read(|view| (0..reads).try_for_each(|_| read(view, &mut key, &mut tally)))?;
        count += reads;
    }
    black_box(tally);
    Ok(count)
}
