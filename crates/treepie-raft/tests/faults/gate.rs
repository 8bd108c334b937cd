//! A gate at which a thread of a node waits for a test, and a test for the thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// Longer than anything here takes; a failure is late, a success is not.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Where a planted bug keeps what is waited for from coming.
pub const SHORT_PATIENCE: Duration = Duration::from_secs(4);

/// Waits for what must come; an error if it does not.
pub fn wait(what: &str, mut has_come: impl FnMut() -> bool) -> Result<(), String> {
    wait_for(PATIENCE, what, &mut has_come)
}

/// As `wait`, no longer than `patience`.
pub fn wait_for(
    patience: Duration,
    what: &str,
    mut has_come: impl FnMut() -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    while !has_come() {
        if Instant::now() >= deadline {
            return Err(format!("it did not come: {what}"));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Shut until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    waiting: usize,
}

impl Gate {
    pub fn shut(&self) {
        self.0.0.lock().is_shut = true;
    }

    pub fn open(&self) {
        self.0.0.lock().is_shut = false;
        self.0.1.notify_all();
    }

    /// Goes through, once it is open.
    pub fn pass(&self) {
        let mut state = self.0.0.lock();
        state.waiting += 1;
        while state.is_shut {
            self.0.1.wait(&mut state);
        }
        state.waiting -= 1;
    }

    /// Whether somebody waits at it.
    pub fn is_waited_at(&self) -> bool {
        self.0.0.lock().waiting > 0
    }
}

/// Opens a gate also where a check ends early.
pub struct Opened<'a>(pub &'a Gate);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}
