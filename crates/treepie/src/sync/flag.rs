//! A count that one thread raises, and any number wait for: how many closures of a batch are settled.
//!
//! Who waits lets others run a few times before it sleeps. Where there are more threads than cores,
//! they are what it waits for, and the count has often risen by its next turn: that costs less than to
//! fall asleep and be woken by another core. Where nobody else wants to run, it is a few microseconds.

use super::{Planted, Word, YIELDS, is_planted, thread};

/// The count; all of them at its highest value.
#[derive(Debug, Default)]
pub struct Flag {
    word: Word,
}

impl Flag {
    /// Raises it and wakes all who wait; whoever waits for more goes back to sleep.
    pub fn raise(&self, count: u32) {
        if is_planted(Planted::WokenBeforeSet) {
            self.word.wake_all();
        }
        self.word.store(count);
        if !is_planted(Planted::WokenBeforeSet) {
            self.word.wake_all();
        }
    }

    /// Waits until it is above `index`.
    pub fn wait(&self, index: u32) {
        let mut yields = YIELDS;
        while yields > 0 {
            yields -= 1;
            if self.word.load() > index {
                return;
            }
            thread::yield_now();
        }
        loop {
            let count = self.word.load();
            if count > index {
                return;
            }
            self.word.wait(count);
        }
    }
}
