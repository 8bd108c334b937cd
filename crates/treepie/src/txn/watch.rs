//! Waiting for commits: threads that follow the journal sleep here until there is more of it.

use std::time::{Duration, Instant};

use crate::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst, fence},
    deadline,
};

/// Who waits for commits. A commit that nobody waits for pays one fence and one load.
#[derive(Debug, Default)]
pub struct Watch {
    waiting: AtomicU64,
    /// No commit will come any more.
    closed: AtomicBool,
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

    /// Ends all waits, for good: the database is closed.
    pub fn close(&self) {
        self.closed.store(true, SeqCst);
        self.wake();
    }

    /// Whether the database is closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// Waits until `is_there`, at most for `timeout`, and not for a closed database; returns whether
    /// it is.
    pub fn wait(&self, timeout: Duration, is_there: &dyn Fn() -> bool) -> bool {
        let until = deadline(Instant::now(), timeout);
        let mut turn = self.turn.lock();
        // Changed under the lock alone.
        self.waiting.store(self.waiting.load(SeqCst) + 1, SeqCst);
        fence(SeqCst);
        let mut found = is_there();
        while !found && !self.is_closed() {
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
