//! Between writers and the checkpoint: who asks for what, and who waits.

use std::time::Duration;

use crate::sync::{Condvar, Mutex};

/// What was asked of the checkpoint and what it has done.
#[derive(Debug, Default)]
pub struct Signals {
    state: Mutex<SignalState>,
    /// Wakes the checkpoint thread.
    work: Condvar,
    /// Wakes those who wait for it.
    progress: Condvar,
}

#[derive(Debug, Default)]
struct SignalState {
    asked: Ask,
    stop: bool,
    /// Counts finished passes, whether they could write anything or not.
    passes: u64,
}

/// What the checkpoint is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// Nothing.
    #[default]
    Nothing,
    /// Write versions to the data file, so that their memory is free.
    WriteEarly,
    /// A whole checkpoint: write, sync, meta page, recycle.
    Checkpoint,
    /// End the thread.
    Stop,
}

impl Signals {
    /// Asks for work; does not wait.
    pub fn ask(&self, ask: Ask) {
        let mut state = self.state.lock();
        if ask > state.asked {
            state.asked = ask;
            self.work.notify_one();
        }
    }

    /// Ends the thread after what it is doing.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.wake_all();
    }

    /// Wakes everyone, to look again.
    pub fn wake_all(&self) {
        let _state = self.state.lock();
        self.work.notify_all();
        self.progress.notify_all();
    }

    /// Waits for work for at most `timeout`; on time-out there is none.
    pub fn wait_for_work(&self, timeout: Duration) -> Ask {
        let mut state = self.state.lock();
        if state.asked == Ask::Nothing && !state.stop {
            self.work.wait_for(&mut state, timeout);
        }
        if state.stop {
            return Ask::Stop;
        }
        std::mem::take(&mut state.asked)
    }

    /// Lets `pause` pass, or less when the thread is to end.
    pub fn pause(&self, pause: Duration) {
        let mut state = self.state.lock();
        if !state.stop {
            self.progress.wait_while_for(&mut state, |state| !state.stop, pause);
        }
    }

    /// Whether the thread is to end.
    pub fn is_stopping(&self) -> bool {
        self.state.lock().stop
    }

    /// Notes that a pass is finished.
    pub fn pass_finished(&self) {
        self.state.lock().passes += 1;
        self.progress.notify_all();
    }

    /// Asks, and waits until a pass that began later has finished, or `timeout` is over.
    pub fn ask_and_wait(&self, ask: Ask, timeout: Duration) {
        let mut state = self.state.lock();
        state.asked = state.asked.max(ask);
        self.work.notify_one();
        let passes = state.passes;
        if !state.stop {
            self.progress.wait_while_for(
                &mut state,
                |state| state.passes == passes && !state.stop,
                timeout,
            );
        }
    }
}
