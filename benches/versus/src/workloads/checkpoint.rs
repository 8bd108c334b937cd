//! Commits while a checkpoint runs, which shares the disk with them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    contest::Context,
    engine::Engine,
    measure::{Figure, Unit, percentile_us},
    workloads::write::Writer,
};

/// Row and length of the transactions that are measured.
pub type Commits = (&'static str, u64);
/// One put per commit.
pub const PUT_1: Commits = ("checkpoint-put-1", 1);
/// 1,000 puts per commit.
pub const BATCH_1000: Commits = ("checkpoint-batch-1000", 1000);

/// Puts per transaction of what the checkpoint is to write.
const DIRTY_BATCH_LEN: u64 = 1000;

/// Times of the commits that began while a checkpoint was running, over as many checkpoints as it
/// takes to fill the turn. Before each, `--checkpoint-puts` random puts give it something to do.
pub fn commits<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    (row, len): Commits,
) -> Result<Vec<Figure>> {
    if !E::HAS_CHECKPOINT {
        return Ok(Vec::new());
    }
    let mut writer = Writer::new(context, round, 0);
    let (mut times, mut elapsed) = (Vec::new(), Duration::ZERO);
    let turn = context.limit.start();
    while times.is_empty() || turn.goes_on(times.len() as u64) {
        for _ in 0..context.options.checkpoint_puts.div_ceil(DIRTY_BATCH_LEN) {
            writer.put(engine, DIRTY_BATCH_LEN)?;
        }
        let start = Instant::now();
        commit_beside(engine, &mut writer, len, &mut times)?;
        elapsed += start.elapsed();
    }
    figures(row, times, elapsed)
}

/// Commits as long as a checkpoint runs, once at least.
fn commit_beside<E: Engine>(
    engine: &E,
    writer: &mut Writer<'_>,
    len: u64,
    times: &mut Vec<Duration>,
) -> Result<()> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let checkpoint = scope.spawn(|| {
            let result = engine.settle();
            ended.store(true, Ordering::Relaxed);
            result
        });
        loop {
            let start = Instant::now();
            writer.put(engine, len)?;
            times.push(start.elapsed());
            if ended.load(Ordering::Relaxed) {
                break;
            }
        }
        checkpoint.join().map_err(|_| "the checkpoint panicked")?
    })
}

fn figures(row: &str, mut times: Vec<Duration>, elapsed: Duration) -> Result<Vec<Figure>> {
    times.sort_unstable();
    let mut figures = vec![Figure::rate(row, times.len() as u64, elapsed, Unit::Commits)];
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let time = percentile_us(&times, share).ok_or("no commit met a checkpoint")?;
        figures.push(Figure::new(format!("{row}-{name}"), time, Unit::Microseconds));
    }
    let stall = percentile_us(&times, 1.0).ok_or("no commit met a checkpoint")? / 1e3;
    figures.push(Figure::new(format!("{row}-stall"), stall, Unit::Milliseconds));
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stall_is_the_longest_commit() {
        let times = (1..=2000).rev().map(Duration::from_micros).collect();
        let figures = figures("row", times, Duration::from_secs(1)).unwrap();
        let values: Vec<_> = figures.iter().map(|figure| figure.value.round()).collect();
        assert_eq!(values, [2000.0, 1000.0, 1980.0, 1998.0, 2.0]);
        assert_eq!(figures[4].row, "row-stall");
    }
}
