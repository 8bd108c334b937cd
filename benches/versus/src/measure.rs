//! Figures, and when a turn ends.

use std::time::{Duration, Instant};

use crate::Result;

/// One figure of one turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured. A workload may give several.
    pub row: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
}

impl Figure {
    /// A figure of a row.
    pub fn new(row: impl Into<String>, value: f64, unit: Unit) -> Figure {
        Figure { row: row.into(), value, unit }
    }

    /// `count` things in `elapsed`, per second.
    pub fn rate(row: impl Into<String>, count: u64, elapsed: Duration, unit: Unit) -> Figure {
        Figure::new(row, count as f64 / elapsed.as_secs_f64(), unit)
    }

    /// `bytes` as megabytes.
    pub fn megabytes(row: impl Into<String>, bytes: u64) -> Figure {
        Figure::new(row, bytes as f64 / 1e6, Unit::Megabytes)
    }
}

/// Commits per second, and how long half of them and 99 in 100 took at most.
pub fn latencies(row: &str, mut times: Vec<Duration>, elapsed: Duration) -> Result<Vec<Figure>> {
    times.sort_unstable();
    let mut figures = vec![Figure::rate(row, times.len() as u64, elapsed, Unit::Commits)];
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let time = percentile_us(&times, share).ok_or("the turn was too short")?;
        figures.push(Figure::new(format!("{row}-{name}"), time, Unit::Microseconds));
    }
    Ok(figures)
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Single reads per second.
    Gets,
    /// Entries per second.
    Entries,
    /// Scans per second.
    Scans,
    /// Transactions per second.
    Commits,
    /// Writes of single entries per second.
    Puts,
    /// Megabytes per second.
    MegabytesPerSecond,
    /// Megabytes.
    Megabytes,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// Bytes written to the device per byte of keys and values.
    BytesPerByte,
    /// A part of another figure, 1 being all of it.
    Share,
}

impl Unit {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Gets => "gets/s",
            Unit::Entries => "entries/s",
            Unit::Scans => "scans/s",
            Unit::Commits => "commits/s",
            Unit::Puts => "puts/s",
            Unit::MegabytesPerSecond => "MB/s",
            Unit::Megabytes => "MB",
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::BytesPerByte => "bytes/byte",
            Unit::Share => "share",
        }
    }

    /// Whether less of it is better.
    pub fn less_is_better(self) -> bool {
        matches!(
            self,
            Unit::Megabytes | Unit::Microseconds | Unit::Milliseconds | Unit::BytesPerByte
        )
    }
}

/// When a turn ends: after a time, or after a count if that comes first.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The time.
    pub time: Duration,
    /// The count.
    pub count: u64,
}

impl Limit {
    /// The part of each of some threads that share the count.
    pub fn shared_by(self, threads: u64) -> Limit {
        Limit { count: self.count.div_ceil(threads), ..self }
    }

    /// Starts the clock.
    pub fn start(self) -> Turn {
        Turn { start: Instant::now(), limit: self }
    }
}

/// A turn under way.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    start: Instant,
    limit: Limit,
}

impl Turn {
    /// Whether it goes on after `count` operations.
    pub fn goes_on(&self, count: u64) -> bool {
        count < self.limit.count && self.start.elapsed() < self.limit.time
    }

    /// Time since it began.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The median; of an even number, the mean of the two in the middle. `None` if there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The value that `share` of the sorted times do not pass, in microseconds. `None` if there are
/// none.
pub fn percentile_us(sorted: &[Duration], share: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let time = sorted.get(rank.max(1) - 1)?;
    Some(time.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn percentile_is_a_measured_time() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_micros).collect();
        let at = |share| percentile_us(&times, share).unwrap().round() as u64;
        assert_eq!((at(0.5), at(0.99), at(1.0), at(0.0)), (100, 198, 200, 1));
        assert_eq!(percentile_us(&[], 0.5), None);
    }

    #[test]
    fn latencies_are_a_rate_and_two_percentiles() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_micros).collect();
        let figures = latencies("puts-1", times, Duration::from_secs(2)).unwrap();
        let rows: Vec<_> = figures.iter().map(|f| (f.row.as_str(), f.value.round())).collect();
        assert_eq!(rows, [("puts-1", 50.0), ("puts-1-p50", 50.0), ("puts-1-p99", 99.0)]);
        assert!(latencies("puts-1", Vec::new(), Duration::from_secs(2)).is_err());
    }

    #[test]
    fn threads_share_a_count() {
        let limit = Limit { time: Duration::MAX, count: 10 };
        assert_eq!(limit.shared_by(4).count, 3);
    }

    #[test]
    fn turn_ends_after_its_count() {
        let turn = Limit { time: Duration::MAX, count: 3 }.start();
        assert!(turn.goes_on(2));
        assert!(!turn.goes_on(3));
    }
}
