//! A count that one thread raises, and any number sleep for: how many closures of a batch are settled.

use super::{Planted, Word, is_planted};

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
        loop {
            let count = self.word.load();
            if count > index {
                return;
            }
            self.word.wait(count);
        }
    }
}
