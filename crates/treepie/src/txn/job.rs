//! A closure on its way through the merger, and its result on the way back.
//!
//! A closure may borrow from its caller's stack although another thread may run it: the caller does
//! not go on, not even by unwinding, before the closure is settled.

#![allow(unsafe_code, reason = "closures that borrow from the caller's stack are run elsewhere")]

use std::{
    any::Any,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    ids::Lsn,
    sync::LeafMutex,
};

use super::{
    merger::Joined,
    write::{Receipt, WriteTxn},
};

/// What a panic carries.
pub type Panic = Box<dyn Any + Send>;

/// A closure that waits for its turn, whatever its type.
pub trait Job: Send + Sync {
    /// Runs the closure, once. Returns whether its changes stay; a panic is caught and kept.
    fn run(&self, txn: &mut WriteTxn<'_>) -> bool;

    /// Says how it ended: committed at an LSN, or why not. What the closure itself returned goes
    /// before that if it was an error.
    fn settle(&self, outcome: Result<Lsn>);
}

/// A job in the merger's queue.
pub struct Queued {
    job: Held,
    /// Who asked for it.
    pub location: &'static Location<'static>,
    since: Instant,
}

enum Held {
    /// On the stack of a caller who waits.
    Borrowed(NonNull<dyn Job>),
    /// Of a caller who went on.
    Owned(Arc<dyn Job>),
}

// SAFETY: a `Job` is `Send + Sync`, so its address may be used by any thread; that it lives long
// enough is what `Queued::borrowed` asks of its caller.
unsafe impl Send for Queued {}
// SAFETY: as above.
unsafe impl Sync for Queued {}

impl Queued {
    /// A job on the caller's stack.
    ///
    /// # Safety
    /// `job` must neither move nor end before the queued job was settled or dropped.
    pub unsafe fn borrowed(job: &dyn Job, location: &'static Location<'static>) -> Queued {
        let job: NonNull<dyn Job + '_> = NonNull::from(job);
        // SAFETY: only the lifetime changes, which the caller vouches for.
        let job = unsafe { std::mem::transmute::<NonNull<dyn Job + '_>, NonNull<dyn Job>>(job) };
        Queued { job: Held::Borrowed(job), location, since: Instant::now() }
    }

    /// A job that lives by itself.
    pub fn owned(job: Arc<dyn Job>, location: &'static Location<'static>) -> Queued {
        Queued { job: Held::Owned(job), location, since: Instant::now() }
    }

    /// How long it has been waiting at `now`.
    pub fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// The job itself.
    pub fn job(&self) -> &dyn Job {
        match &self.job {
            // SAFETY: whoever made it keeps it alive until it is settled, and it is settled last.
            Held::Borrowed(job) => unsafe { job.as_ref() },
            Held::Owned(job) => &**job,
        }
    }
}

/// A closure and, later, its result.
pub struct Slot<F, T> {
    state: LeafMutex<State<F, T>>,
}

enum State<F, T> {
    Waiting(F),
    Running,
    Ran(T),
    Failed(Error),
    Panicked(Panic),
    Settled(Result<Receipt<T>>),
    Taken,
}

/// What settling leaves over.
enum Unused<F, T> {
    Change(F),
    Value(T),
}

impl<F, T> Slot<F, T>
where
    F: FnOnce(&mut WriteTxn<'_>) -> Result<T>,
{
    pub fn new(change: F) -> Slot<F, T> {
        Slot { state: LeafMutex::new(State::Waiting(change)) }
    }

    fn set(&self, state: State<F, T>) -> State<F, T> {
        std::mem::replace(&mut *self.state.lock(), state)
    }

    /// As [`Job::run`].
    pub fn run(&self, txn: &mut WriteTxn<'_>) -> bool {
        let State::Waiting(change) = self.set(State::Running) else {
            panic!("a closure is run once");
        };
        match catch_unwind(AssertUnwindSafe(|| change(txn))) {
            Ok(Ok(value)) => {
                self.set(State::Ran(value));
                true
            }
            Ok(Err(error)) => {
                self.set(State::Failed(error));
                false
            }
            Err(panic) => {
                self.set(State::Panicked(panic));
                false
            }
        }
    }

    /// As [`Job::settle`].
    pub fn settle(&self, outcome: Result<Lsn>) {
        let not_run = |outcome: Result<Lsn>| {
            let error = outcome.err().unwrap_or(Error::Poisoned { action: "run of a closure" });
            State::Settled(Err(error))
        };
        let mut state = self.state.lock();
        let (settled, unused) = match std::mem::replace(&mut *state, State::Taken) {
            State::Ran(value) => match outcome {
                Ok(lsn) => (State::Settled(Ok(Receipt { value, lsn })), None),
                Err(error) => (State::Settled(Err(error)), Some(Unused::Value(value))),
            },
            State::Failed(error) => (State::Settled(Err(error)), None),
            State::Panicked(panic) => (State::Panicked(panic), None),
            State::Waiting(change) => (not_run(outcome), Some(Unused::Change(change))),
            State::Running => (not_run(outcome), None),
            State::Settled(_) | State::Taken => panic!("a closure is settled once"),
        };
        *state = settled;
        drop(state);
        foreign("drop of a closure or its value", || drop(unused));
    }

    /// The result, once it is settled; the panic of the closure is passed on as it is.
    ///
    /// # Errors
    /// What the closure panicked with.
    pub fn take(&self) -> Result<Result<Receipt<T>>, Panic> {
        match self.set(State::Taken) {
            State::Settled(result) => Ok(result),
            State::Panicked(panic) => Err(panic),
            _ => panic!("the result of a closure is taken once, after it was settled"),
        }
    }
}

impl<F, T> Job for Slot<F, T>
where
    F: FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send,
    T: Send,
{
    fn run(&self, txn: &mut WriteTxn<'_>) -> bool {
        Slot::run(self, txn)
    }

    fn settle(&self, outcome: Result<Lsn>) {
        Slot::settle(self, outcome);
    }
}

/// Runs code of a caller's, such as wakers and drops, on a thread that has others to serve: they do
/// not suffer from a panic of it.
pub fn foreign(what: &str, code: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(code)).is_err() {
        tracing::error!("the {what} has panicked");
    }
}

/// What a panic said, where it said something.
pub fn panic_message(panic: &Panic) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "something that is no text".to_owned())
}

/// Lends a job on the stack to the merger: whoever holds what this returns does not go on before
/// the job is settled, not even by unwinding.
pub(super) fn lend<'j>(
    job: &'j dyn Job,
    location: &'static Location<'static>,
    join: impl FnOnce(Queued) -> Joined,
) -> Lent<'j> {
    // SAFETY: the job is borrowed for as long as `Lent` lives, which waits for it when it goes; it
    // is private to the transactions, and never forgotten.
    let queued = unsafe { Queued::borrowed(job, location) };
    Lent { joined: join(queued), _job: job }
}

/// A job that the merger has. Waits for it when it goes.
pub(super) struct Lent<'j> {
    joined: Joined,
    _job: &'j dyn Job,
}

impl Lent<'_> {
    /// Whether the caller is bound to lead.
    pub fn leads(&self) -> bool {
        self.joined.leads
    }

    /// Waits until the job is settled.
    pub fn wait(self) {}
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.joined.flag.wait(self.joined.index);
    }
}
