//! Waiting for commits: threads that follow the journal sleep here until there is more of it.

use std::time::{Duration, Instant};

use crate::sync::{
    Condvar, Mutex,
    atomic::{AtomicU64, Ordering::SeqCst, fence},
    deadline,
};

/// Who waits for commits. A commit that nobody waits for pays one fence and one load.
#[derive(Debug, Default)]
pub struct Watch {
    waiting: AtomicU64,
    turn: Mutex<()>,
    changed: Condvar,
}

impl Watch {
    /// Wakes all who wait; the caller has raised a watermark, or poisoned the database.
    pub fn wake(&self) {
        // Either this load sees who waits, or its look at the watermark sees the new one.
        fence(SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            let _turn = self.turn.lock();
            self.changed.notify_all();
        }
    }

    /// Waits until `is_there`, at most for `timeout`; returns whether it is.
    pub fn wait(&self, timeout: Duration, is_there: &dyn Fn() -> bool) -> bool {
        let until = deadline(Instant::now(), timeout);
        let mut turn = self.turn.lock();
        // Changed under the lock alone.
        self.waiting.store(self.waiting.load(SeqCst) + 1, SeqCst);
        fence(SeqCst);
        let mut found = is_there();
        while !found {
            let now = Instant::now();
            if now >= until {
                break;
            }
            self.changed.wait_for(&mut turn, until - now);
            found = is_there();
        }
        self.waiting.store(self.waiting.load(SeqCst) - 1, SeqCst);
        found
    }
}
