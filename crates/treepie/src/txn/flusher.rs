//! What is done behind the writers' backs, so that they need not: syncing, some time later, what was
//! acknowledged before it was durable; touching memory for versions ahead of need.

use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, deadline};

use super::core::Core;

/// Who asks for what, and the thread that does it.
#[derive(Debug, Default)]
pub struct Flusher {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// When what is not durable was there first.
    unsynced_since: Option<Instant>,
    wants_memory: bool,
    stopping: bool,
}

/// What the thread does next.
enum Chore {
    Sync,
    Memory,
    Stop,
}

impl Flusher {
    /// Asks for a sync within the interval; does not wait.
    pub fn ask_sync(&self) {
        let mut state = self.state.lock();
        if state.unsynced_since.is_none() {
            state.unsynced_since = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// Asks for memory ahead of need; does not wait.
    pub fn ask_memory(&self) {
        let mut state = self.state.lock();
        if !state.wants_memory {
            state.wants_memory = true;
            self.changed.notify_one();
        }
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_one();
    }

    /// The life of the thread. What is asked to be synced is so after `interval`.
    pub fn serve(&self, core: &Core, interval: Duration) {
        loop {
            let done = match self.next(interval) {
                Chore::Stop => return,
                Chore::Sync => core.pipeline.sync(core).map(|_| ()),
                Chore::Memory => core.pager.pool.prepare(),
            };
            if let Err(error) = done {
                // Whoever writes next meets it, and is told.
                tracing::error!(%error, "a chore in the background has failed");
            }
        }
    }

    fn next(&self, interval: Duration) -> Chore {
        let mut state = self.state.lock();
        loop {
            if state.stopping {
                return Chore::Stop;
            }
            if std::mem::take(&mut state.wants_memory) {
                return Chore::Memory;
            }
            let Some(since) = state.unsynced_since else {
                self.changed.wait(&mut state);
                continue;
            };
            if self.changed.wait_until(&mut state, deadline(since, interval)).timed_out() {
                state.unsynced_since = None;
                return Chore::Sync;
            }
        }
    }
}
