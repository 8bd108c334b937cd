//! A flag that one thread sets once, and any number sleep for.

use super::{Planted, Word, is_planted};

const SET: u32 = 1;

/// The flag.
#[derive(Debug, Default)]
pub struct Flag {
    word: Word,
}

impl Flag {
    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.word.load() == SET
    }

    /// Sets it and wakes all who wait.
    pub fn set(&self) {
        if is_planted(Planted::WokenBeforeSet) {
            self.word.wake_all();
        }
        self.word.store(SET);
        if !is_planted(Planted::WokenBeforeSet) {
            self.word.wake_all();
        }
    }

    /// Waits until it is set.
    pub fn wait(&self) {
        while !self.is_set() {
            self.word.wait(0);
        }
    }
}
