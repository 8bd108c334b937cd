//! How long to wait before dialling again: twice as long after each failure, and never all at once.

use std::time::Duration;

/// Waits that grow.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max, next: min }
    }

    /// The next failure is the first one again.
    pub(super) fn reset(&mut self) {
        self.next = self.min;
    }

    /// The next wait is the longest: asking soon is of no use.
    pub(super) fn exhaust(&mut self) {
        self.next = self.max;
    }

    /// The next wait, of which the upper half is drawn by lot: nodes that failed together do not come
    /// back together.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next.min(self.max);
        self.next = wait.saturating_mul(2).min(self.max);
        // Without random numbers the waits are equal, which is no reason to fail.
        let lot = getrandom::u32().unwrap_or(u32::MAX);
        wait / 2 + wait.mul_f64(f64::from(lot) / f64::from(u32::MAX) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_maximum_and_begin_anew() {
        let (min, max) = (Duration::from_millis(10), Duration::from_millis(100));
        let mut backoff = Backoff::new(min, max);
        for _ in 0..2 {
            for full in [10, 20, 40, 80, 100, 100] {
                let (wait, full) = (backoff.wait(), Duration::from_millis(full));
                assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
            }
            backoff.reset();
        }
        backoff.exhaust();
        assert!(backoff.wait() >= max / 2);
    }
}
