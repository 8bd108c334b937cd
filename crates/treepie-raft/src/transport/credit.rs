//! Bytes that came and were not dealt with: who receives waits here before it reads more.

use std::{sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex};

/// How many bytes may be in use at a time.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// Bytes in use, given back when this is dropped.
#[derive(Debug)]
pub struct Credit {
    budget: Option<Arc<Budget>>,
    bytes: u64,
}

impl Budget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(max: u64) -> Arc<Budget> {
        Arc::new(Budget { max, used: Mutex::new(0), freed: Condvar::new() })
    }

    /// Bytes that are in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        *self.used.lock()
    }

    /// Waits until so many bytes are free, or all of them where it is more than there are. After each
    /// `tick` of waiting `waiting` says whether to go on; `None` when not.
    pub fn take(
        self: &Arc<Budget>,
        bytes: u64,
        tick: Duration,
        mut waiting: impl FnMut() -> bool,
    ) -> Option<Credit> {
        if bytes == 0 {
            return Some(Credit { budget: None, bytes });
        }
        let mut used = self.used.lock();
        while *used > 0 && used.saturating_add(bytes) > self.max {
            if self.freed.wait_for(&mut used, tick).timed_out() {
                drop(used);
                if !waiting() {
                    return None;
                }
                used = self.used.lock();
            }
        }
        *used = used.saturating_add(bytes);
        Some(Credit { budget: Some(Arc::clone(self)), bytes })
    }
}

impl Credit {
    /// Credit for nothing: of messages that did not come over a network.
    #[must_use]
    pub fn none() -> Credit {
        Credit { budget: None, bytes: 0 }
    }

    /// How many bytes it is for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            let mut used = budget.used.lock();
            *used = used.saturating_sub(self.bytes);
            drop(used);
            budget.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(1);

    #[test]
    fn credit_is_given_back_and_a_longer_record_goes_alone() {
        let budget = Budget::new(10);
        let first = budget.take(6, TICK, || false).expect("it is free");
        assert!(budget.take(5, TICK, || false).is_none(), "there is no room");
        let second = budget.take(4, TICK, || false).expect("there is");
        assert_eq!(budget.used(), 10);
        drop(first);
        drop(second);
        let alone = budget.take(100, TICK, || false).expect("nothing else is in use");
        assert!(budget.take(1, TICK, || false).is_none());
        assert!(budget.take(0, TICK, || false).is_some(), "nothing needs no room");
        drop(alone);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn waiting_ends_when_credit_is_given_back() {
        let budget = Budget::new(1);
        let held = Mutex::new(budget.take(1, TICK, || false));
        let taken = budget.take(1, TICK, || {
            held.lock().take();
            true
        });
        assert!(taken.is_some());
    }
}
