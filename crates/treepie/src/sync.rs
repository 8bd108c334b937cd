//! What threads meet at: the locks and atomics of the parts that a schedule checker runs.
//!
//! A normal build takes them from `parking_lot` and the standard library. With
//! `--cfg shuttle` they are `shuttle`'s, which then decides who runs when (`tests/schedules.rs`).

use std::time::{Duration, Instant};

/// A word that one thread sets once, and any number wait for.
#[derive(Debug, Default)]
pub struct Flag {
    word: std::sync::atomic::AtomicU32,
}

const SET: u32 = 1;

impl Flag {
    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.word.load(std::sync::atomic::Ordering::Acquire) == SET
    }

    /// Sets it and wakes all who wait, with one call to the system.
    pub fn set(&self) {
        self.word.store(SET, std::sync::atomic::Ordering::Release);
        atomic_wait::wake_all(&raw const self.word);
    }

    /// Waits until it is set.
    pub fn wait(&self) {
        while !self.is_set() {
            atomic_wait::wait(&self.word, 0);
        }
    }
}

/// The moment that is `wait` from `begin`; far away where that cannot be told.
pub fn deadline(begin: Instant, wait: Duration) -> Instant {
    begin.checked_add(wait).unwrap_or_else(|| begin + Duration::from_secs(1 << 30))
}
