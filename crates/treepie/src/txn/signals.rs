//! Between writers and the checkpoint: who asks for what, and who waits.

use std::{mem, time::Duration};

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
    /// Passes that began, whether they could write anything or not. One runs at a time.
    begun: u64,
    /// The number of the last pass that has finished.
    finished: u64,
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

    /// Waits for work for at most `timeout`; on time-out there is none. With the answer a pass
    /// begins, which [`pass_finished`](Signals::pass_finished) ends.
    pub fn wait_for_work(&self, timeout: Duration) -> Ask {
        let mut state = self.state.lock();
        if state.asked == Ask::Nothing && !state.stop {
            self.work.wait_for(&mut state, timeout);
        }
        if state.stop {
            return Ask::Stop;
        }
        state.begun += 1;
        mem::take(&mut state.asked)
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

    /// Notes that the pass that began last is finished.
    pub fn pass_finished(&self) {
        let mut state = self.state.lock();
        state.finished = state.begun;
        self.progress.notify_all();
    }

    /// Asks, and waits until a pass that began later has finished, or `timeout` is over. A pass
    /// that is running already may have looked before there was anything to do.
    pub fn ask_and_wait(&self, ask: Ask, timeout: Duration) {
        let mut state = self.state.lock();
        state.asked = state.asked.max(ask);
        self.work.notify_one();
        let begun = state.begun;
        if !state.stop {
            self.progress.wait_while_for(
                &mut state,
                |state| state.finished <= begun && !state.stop,
                timeout,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    /// Longer than any machine needs to wake a thread.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_asks_during_a_pass_waits_for_the_next_one() {
        let signals = Arc::new(Signals::default());
        assert_eq!(signals.wait_for_work(Duration::ZERO), Ask::Nothing);
        let waiter = thread::spawn({
            let signals = Arc::clone(&signals);
            move || signals.ask_and_wait(Ask::WriteEarly, LONG)
        });
        while signals.state.lock().asked == Ask::Nothing {
            thread::yield_now();
        }
        signals.pass_finished();
        // Long enough to see a waiter leave that takes this pass for the one that it asked for.
        (0..10_000).for_each(|_| thread::yield_now());
        assert!(!waiter.is_finished(), "the pass had begun before it was asked for");
        assert_eq!(signals.wait_for_work(LONG), Ask::WriteEarly);
        signals.pass_finished();
        waiter.join().expect("the pass that was asked for has finished");
    }

    #[test]
    fn who_waits_leaves_when_the_thread_is_to_end() {
        let signals = Arc::new(Signals::default());
        let waiter = thread::spawn({
            let signals = Arc::clone(&signals);
            move || signals.ask_and_wait(Ask::Checkpoint, LONG)
        });
        while signals.state.lock().asked == Ask::Nothing {
            thread::yield_now();
        }
        signals.stop();
        waiter.join().expect("it does not wait for a pass that never comes");
        assert_eq!(signals.wait_for_work(LONG), Ask::Stop);
    }
}
