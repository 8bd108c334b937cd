//! How fast a scrub goes: bytes a second, on the average since it began, without catching up.

use std::time::{Duration, Instant};

/// Longest wait at a time: between two of them whoever asked is asked whether to go on.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// When the next bytes may be read.
#[derive(Debug)]
pub struct Pace {
    rate: Option<u64>,
    due: Instant,
}

impl Pace {
    /// `rate` bytes a second; as fast as it goes without.
    pub fn new(rate: Option<u64>) -> Pace {
        Pace { rate, due: Instant::now() }
    }

    /// Notes that so many bytes were read. Time that was not used is not saved up.
    pub fn add(&mut self, bytes: u64) {
        let Some(rate) = self.rate else { return };
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
        let time = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let now = Instant::now();
        self.due = crate::sync::deadline(self.due.max(now), time);
    }

    /// How long to wait before it is worth asking again; nothing when the time has come.
    pub fn wait(&self) -> Option<Duration> {
        self.rate?;
        let rest = self.due.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then(|| rest.min(WAIT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_and_no_rate_takes_none() {
        let mut pace = Pace::new(Some(1 << 20));
        pace.add(100 << 20);
        assert_eq!(pace.wait(), Some(WAIT_MAX));
        assert!(pace.due.saturating_duration_since(Instant::now()) > Duration::from_secs(90));
        let mut pace = Pace::new(None);
        pace.add(u64::MAX);
        assert_eq!(pace.wait(), None);
    }

    #[test]
    fn absurd_rates_are_waits_and_no_panics() {
        let mut pace = Pace::new(Some(0));
        pace.add(u64::MAX);
        assert_eq!(pace.wait(), Some(WAIT_MAX));
    }
}
