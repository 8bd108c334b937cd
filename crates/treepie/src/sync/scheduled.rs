//! The same faces, simulated: at each operation the scheduler may let another thread run.
//!
//! What is simulated is the order of operations, not the weakness of memory: every atomic operation
//! is sequentially consistent here. Time does not pass, but short waits may end with it: a wait with
//! a deadline within [`FAR`] ends after some turns, of which there may be none or many; one with a
//! deadline beyond it ends only when somebody wakes it.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, PoisonError, TryLockError, atomic as real},
    time::{Duration, Instant},
};

use shuttle::rand::Rng;

use super::LeafMutex;

pub use shuttle::{sync::mpsc, thread, thread_local};

/// Waits that are longer than this do not end by themselves.
const FAR: Duration = Duration::from_secs(60);
/// Turns of others after which a short wait ends at the latest.
const PATIENCE_MAX: u32 = 40;

/// Lets the scheduler decide who goes on. Does nothing outside of a simulation.
#[inline]
pub fn turn() {
    if shuttle::current::try_get_current_task().is_some() {
        // Time is not simulated: this is a point of decision and nothing else.
        thread::sleep(Duration::ZERO);
    }
}

/// Atomics with a point of decision before each operation. Zeros are valid, as of the real ones.
pub mod atomic {
    use super::{real, turn};

    pub use super::real::{Ordering, fence};

    macro_rules! number {
        ($name:ident, $number:ty) => {
            /// As the one of the standard library.
            #[derive(Debug, Default)]
            #[repr(transparent)]
            pub struct $name(real::$name);

            #[allow(dead_code, clippy::missing_docs_in_private_items, reason = "one face for all")]
            impl $name {
                pub const fn new(value: $number) -> $name {
                    $name(real::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $number {
                    turn();
                    self.0.load(order)
                }

                pub fn store(&self, value: $number, order: Ordering) {
                    turn();
                    self.0.store(value, order);
                }

                pub fn swap(&self, value: $number, order: Ordering) -> $number {
                    turn();
                    self.0.swap(value, order)
                }

                pub fn compare_exchange(
                    &self,
                    current: $number,
                    new: $number,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$number, $number> {
                    turn();
                    self.0.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    number!(AtomicBool, bool);
    number!(AtomicU32, u32);
    number!(AtomicU64, u64);
    number!(AtomicUsize, usize);

    impl AtomicU64 {
        /// As the one of the standard library.
        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            turn();
            self.0.fetch_add(value, order)
        }

        /// As the one of the standard library.
        pub fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            turn();
            self.0.fetch_max(value, order)
        }

        /// As the one of the standard library.
        pub fn fetch_min(&self, value: u64, order: Ordering) -> u64 {
            turn();
            self.0.fetch_min(value, order)
        }
    }

    impl AtomicUsize {
        /// As the one of the standard library.
        pub fn fetch_max(&self, value: usize, order: Ordering) -> usize {
            turn();
            self.0.fetch_max(value, order)
        }
    }

    /// As the one of the standard library.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct AtomicPtr<T>(real::AtomicPtr<T>);

    impl<T> AtomicPtr<T> {
        /// As the one of the standard library.
        pub const fn new(value: *mut T) -> AtomicPtr<T> {
            AtomicPtr(real::AtomicPtr::new(value))
        }

        /// As the one of the standard library.
        pub fn load(&self, order: Ordering) -> *mut T {
            turn();
            self.0.load(order)
        }

        /// As the one of the standard library.
        pub fn store(&self, value: *mut T, order: Ordering) {
            turn();
            self.0.store(value, order);
        }

        /// As the one of the standard library.
        pub fn swap(&self, value: *mut T, order: Ordering) -> *mut T {
            turn();
            self.0.swap(value, order)
        }
    }
}

/// A mutex with the face of `parking_lot`'s.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// What locking a [`Mutex`] gives.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// There but for the time of a wait.
    inner: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// A mutex that nobody holds.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(shuttle::sync::Mutex::new(value))
    }

    /// Waits until nobody else holds it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard { mutex: self, inner: Some(inner) }
    }

    /// Takes it if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = match self.0.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { mutex: self, inner: Some(inner) })
    }

    /// What it protects, for its only owner.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("the guard does not wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("the guard does not wait")
    }
}

/// A condition with the face of `parking_lot`'s.
#[derive(Debug, Default)]
pub struct Condvar {
    /// Those who wait for ever.
    patient: shuttle::sync::Condvar,
    patient_count: real::AtomicUsize,
    /// Those who wait for a time, each with a word that says that it was woken.
    impatient: LeafMutex<Vec<Arc<real::AtomicBool>>>,
}

/// How a wait with a deadline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether nobody has woken it.
    pub fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition that nobody waits for.
    pub const fn new() -> Condvar {
        Condvar {
            patient: shuttle::sync::Condvar::new(),
            patient_count: real::AtomicUsize::new(0),
            impatient: LeafMutex::new(Vec::new()),
        }
    }

    /// Gives the mutex free and waits until somebody wakes it.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.inner.take().expect("the guard does not wait");
        self.patient_count.fetch_add(1, real::Ordering::Relaxed);
        let inner = self.patient.wait(inner).unwrap_or_else(PoisonError::into_inner);
        guard.inner = Some(inner);
    }

    /// The same, until `deadline` at the latest.
    pub fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        self.wait_for(guard, deadline.saturating_duration_since(Instant::now()))
    }

    /// The same, for `timeout` at most.
    pub fn wait_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        if timeout > FAR {
            self.wait(guard);
            return WaitTimeoutResult(false);
        }
        let woken = Arc::new(real::AtomicBool::new(false));
        self.impatient.lock().push(Arc::clone(&woken));
        drop(guard.inner.take());
        let is_woken = || woken.load(real::Ordering::Relaxed);
        let mut patience = draw_patience();
        while !is_woken() && patience > 0 {
            thread::yield_now();
            patience -= 1;
        }
        let timed_out = !is_woken();
        self.impatient.lock().retain(|other| !Arc::ptr_eq(other, &woken));
        guard.inner = guard.mutex.lock().inner.take();
        WaitTimeoutResult(timed_out)
    }

    /// The same, as long as `condition` holds.
    pub fn wait_while_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        while condition(&mut *guard) {
            if self.wait_for(guard, timeout).timed_out() {
                return WaitTimeoutResult(true);
            }
        }
        WaitTimeoutResult(false)
    }

    /// Wakes one of those who wait.
    pub fn notify_one(&self) {
        turn();
        let patient = self.patient_count.load(real::Ordering::Relaxed);
        let mut impatient = self.impatient.lock();
        let mut rng = shuttle::rand::thread_rng();
        if !impatient.is_empty() && (patient == 0 || rng.gen_bool(0.5)) {
            let index = rng.gen_range(0..impatient.len());
            impatient.swap_remove(index).store(true, real::Ordering::Relaxed);
            return;
        }
        drop(impatient);
        self.patient_count.store(patient.saturating_sub(1), real::Ordering::Relaxed);
        self.patient.notify_one();
    }

    /// Wakes all of them.
    pub fn notify_all(&self) {
        turn();
        let impatient = std::mem::take(&mut *self.impatient.lock());
        impatient.iter().for_each(|woken| woken.store(true, real::Ordering::Relaxed));
        self.patient_count.store(0, real::Ordering::Relaxed);
        self.patient.notify_all();
    }
}

/// After how many turns a wait ends: at once, soon, or late.
fn draw_patience() -> u32 {
    let mut rng = shuttle::rand::thread_rng();
    match rng.gen_range(0..4) {
        0 => 0,
        1 => PATIENCE_MAX,
        _ => rng.gen_range(1..PATIENCE_MAX),
    }
}

/// None: a simulated thread that sleeps at once tries the order in which wake-ups get lost.
pub(super) const YIELDS: u32 = 0;

/// A number that threads wait for a change of.
#[derive(Debug, Default)]
pub struct Word {
    value: atomic::AtomicU32,
    sleepers: LeafMutex<Vec<thread::Thread>>,
}

impl Word {
    /// Its value.
    pub fn load(&self) -> u32 {
        self.value.load(real::Ordering::Acquire)
    }

    /// Changes it; wakes nobody.
    pub fn store(&self, value: u32) {
        self.value.store(value, real::Ordering::Release);
    }

    /// Sleeps until it is woken, unless the value is another than `value`. May wake by itself.
    pub fn wait(&self, value: u32) {
        if self.value.load(real::Ordering::Acquire) == value {
            // Nobody runs between the look and the sleep, as the system promises it.
            self.sleepers.lock().push(thread::current());
            thread::park();
        }
    }

    /// Wakes all who sleep.
    pub fn wake_all(&self) {
        turn();
        let sleepers = std::mem::take(&mut *self.sleepers.lock());
        sleepers.iter().for_each(thread::Thread::unpark);
    }
}
