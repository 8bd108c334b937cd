//! Locks, conditions, atomics and threads as they are.

pub use std::{
    sync::{atomic, mpsc},
    thread, thread_local,
};

pub use parking_lot::{Condvar, Mutex, MutexGuard};

/// How often who waits for a [`Flag`](super::Flag) lets others run before it sleeps.
pub(super) const YIELDS: u32 = 8;

/// A number that threads wait for a change of.
#[derive(Debug, Default)]
pub struct Word(atomic::AtomicU32);

impl Word {
    /// Its value.
    pub fn load(&self) -> u32 {
        self.0.load(atomic::Ordering::Acquire)
    }

    /// Changes it; wakes nobody.
    pub fn store(&self, value: u32) {
        self.0.store(value, atomic::Ordering::Release);
    }

    /// Sleeps until it is woken, unless the value is another than `value`. May wake by itself.
    pub fn wait(&self, value: u32) {
        atomic_wait::wait(&self.0, value);
    }

    /// Wakes all who sleep, with one call to the system.
    pub fn wake_all(&self) {
        atomic_wait::wake_all(&raw const self.0);
    }
}
