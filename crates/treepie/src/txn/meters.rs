//! How long the steps of a commit take, as histograms, and which closures were slow.

use std::{
    panic::Location,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::sync::LeafMutex;

/// A step of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// From a caller's request until its closure runs.
    QueueWait,
    /// One closure.
    Run,
    /// From changed pages to a record.
    Seal,
    /// One write of the journal.
    Write,
    /// One sync of the journal.
    Sync,
    /// Publishing what was written.
    Commit,
}

/// Steps in the order of [`Step`], and the batch size behind them.
const COUNT: usize = 7;
const BATCH_SIZE: usize = 6;
/// Longest time that is told apart, in nanoseconds: ten minutes.
const NANOS_MAX: u64 = 600_000_000_000;
/// Two digits of a value are kept.
const DIGITS: u8 = 2;
/// Call sites that are remembered as slow.
const SITES_MAX: usize = 64;

/// The spread of one measured quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spread {
    /// How often it was measured.
    pub count: u64,
    /// Half of the measurements are at most this.
    pub p50: u64,
    /// 90 % are at most this.
    pub p90: u64,
    /// 99 % are at most this.
    pub p99: u64,
    /// 99.9 % are at most this.
    pub p999: u64,
    /// The largest.
    pub max: u64,
}

/// How merged transactions went since the database was opened. Times are in nanoseconds, kept to
/// two digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteTimings {
    /// Closures in one batch.
    pub batch_size: Spread,
    /// From a caller's request until its closure runs.
    pub queue_wait_ns: Spread,
    /// One closure.
    pub run_ns: Spread,
    /// From changed pages to a record.
    pub seal_ns: Spread,
    /// One write of the journal.
    pub write_ns: Spread,
    /// One sync of the journal.
    pub sync_ns: Spread,
    /// Publishing what was written: readers see it.
    pub commit_ns: Spread,
    /// Closures that ran longer than `slow_closure`, by the place that passed them.
    pub slow: Vec<SlowSite>,
}

/// A place in the code whose closures were slow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowSite {
    /// File, line and column of the call.
    pub at: String,
    /// How many of its closures were slow.
    pub count: u64,
    /// The longest took this many nanoseconds.
    pub max_ns: u64,
}

#[derive(Debug)]
struct Slow {
    at: &'static Location<'static>,
    count: u64,
    max_ns: u64,
}

/// All meters of one database.
#[derive(Debug)]
pub struct Meters {
    histograms: [LeafMutex<Histogram<u64>>; COUNT],
    slow: LeafMutex<Vec<Slow>>,
}

impl Default for Meters {
    fn default() -> Meters {
        let histogram = || {
            Histogram::new_with_max(NANOS_MAX, DIGITS).expect("the bounds are those of the crate")
        };
        Meters {
            histograms: std::array::from_fn(|_| LeafMutex::new(histogram())),
            slow: LeafMutex::default(),
        }
    }
}

impl Meters {
    /// Notes how long a step took that began at `begin`; returns now.
    pub fn step(&self, step: Step, begin: Instant) -> Instant {
        let now = Instant::now();
        self.note(step, now - begin);
        now
    }

    /// Notes how long a step took.
    pub fn note(&self, step: Step, time: Duration) {
        self.histograms[step as usize].lock().saturating_record(nanos(time));
    }

    /// Notes how many closures a batch had.
    pub fn note_batch(&self, closures: usize) {
        self.histograms[BATCH_SIZE].lock().saturating_record(closures as u64);
    }

    /// Notes a slow closure by its call site.
    pub fn note_slow(&self, at: &'static Location<'static>, time: Duration) {
        tracing::warn!(%at, ms = time.as_millis() as u64, "a slow closure kept all writers waiting");
        let max_ns = nanos(time);
        let mut slow = self.slow.lock();
        if let Some(site) = slow.iter_mut().find(|site| site.at == at) {
            site.count += 1;
            site.max_ns = site.max_ns.max(max_ns);
        } else if slow.len() < SITES_MAX {
            slow.push(Slow { at, count: 1, max_ns });
        }
    }

    /// Everything so far.
    pub fn timings(&self) -> WriteTimings {
        let spread = |index: usize| spread(&self.histograms[index].lock());
        let slow = self.slow.lock();
        let site = |site: &Slow| SlowSite {
            at: site.at.to_string(),
            count: site.count,
            max_ns: site.max_ns,
        };
        WriteTimings {
            batch_size: spread(BATCH_SIZE),
            queue_wait_ns: spread(Step::QueueWait as usize),
            run_ns: spread(Step::Run as usize),
            seal_ns: spread(Step::Seal as usize),
            write_ns: spread(Step::Write as usize),
            sync_ns: spread(Step::Sync as usize),
            commit_ns: spread(Step::Commit as usize),
            slow: slow.iter().map(site).collect(),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn spread(histogram: &Histogram<u64>) -> Spread {
    let quantile = |q| if histogram.is_empty() { 0 } else { histogram.value_at_quantile(q) };
    Spread {
        count: histogram.len(),
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        max: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_tells_the_middle_from_the_tail() {
        let meters = Meters::default();
        (1..=1000).for_each(|us| meters.note(Step::Sync, Duration::from_micros(us)));
        let sync = meters.timings().sync_ns;
        assert_eq!(sync.count, 1000);
        assert!((495_000..=505_000).contains(&sync.p50), "{sync:?}");
        assert!((980_000..=1_000_000).contains(&sync.p99), "{sync:?}");
        assert!(sync.max >= 1_000_000, "{sync:?}");
    }

    #[test]
    fn slow_sites_are_counted_by_place_and_bounded() {
        let meters = Meters::default();
        let at = Location::caller();
        meters.note_slow(at, Duration::from_millis(3));
        meters.note_slow(at, Duration::from_millis(5));
        let slow = meters.timings().slow;
        assert_eq!((slow.len(), slow[0].count, slow[0].max_ns), (1, 2, 5_000_000));
        assert!(slow[0].at.contains("meters.rs"), "{slow:?}");
    }
}
