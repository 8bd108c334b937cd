//! The flusher: syncs what was acknowledged before it was durable, some time later.

use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, deadline};

use super::core::Core;

/// Who asks for a sync, and the thread that makes it.
#[derive(Debug, Default)]
pub struct Flusher {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    asked: bool,
    stopping: bool,
}

impl Flusher {
    /// Asks for a sync within the interval; does not wait.
    pub fn ask(&self) {
        let mut state = self.state.lock();
        if !state.asked {
            state.asked = true;
            self.changed.notify_one();
        }
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.state.lock().stopping = true;
        self.changed.notify_one();
    }

    /// The life of the thread: `interval` after it was asked, everything sealed by then is synced.
    pub fn serve(&self, core: &Core, interval: Duration) {
        loop {
            let mut state = self.state.lock();
            while !state.asked && !state.stopping {
                self.changed.wait(&mut state);
            }
            let until = deadline(Instant::now(), interval);
            while !state.stopping && !self.changed.wait_until(&mut state, until).timed_out() {}
            if state.stopping {
                return;
            }
            state.asked = false;
            drop(state);
            if let Err(error) = core.pipeline.sync(core) {
                // Whoever writes next is told.
                tracing::error!(%error, "writes that were acknowledged before their sync are open");
            }
        }
    }
}
