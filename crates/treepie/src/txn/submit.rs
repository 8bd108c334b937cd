//! Closures whose callers go on: a handle that is a future and can be waited for.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    error::{Error, Result},
    ids::Lsn,
    sync::{Condvar, Mutex, Planted, is_planted},
};

use super::{
    core::Core,
    job::{Job, Slot, foreign, panic_message},
    reentrance::is_writing_at,
    write::{Receipt, WriteTxn},
};

/// A write that was handed over with [`Database::submit`](crate::Database::submit). It is a future
/// that needs no runtime, and can be [waited for](Submitted::wait).
///
/// A waker is called on the thread that committed: it should wake, and no more.
///
/// Dropping it changes nothing: the write is committed as a whole, or not at all, as it would be.
#[must_use = "whether the write succeeded is known only to who waits for it"]
pub struct Submitted<T> {
    shared: Arc<dyn Outcome<T>>,
    /// Address of the core, to tell its writers.
    core: usize,
}

/// What a handle sees of its job.
trait Outcome<T>: Send + Sync {
    fn poll(&self, context: &Context<'_>) -> Poll<Result<Receipt<T>>>;
    fn wait(&self) -> Result<Receipt<T>>;
    fn is_done(&self) -> bool;
}

struct Shared<F, T> {
    slot: Slot<F, T>,
    end: Mutex<End>,
    ended: Condvar,
}

#[derive(Default)]
struct End {
    is_settled: bool,
    is_waited_for: bool,
    waker: Option<Waker>,
}

/// Makes a job of a closure, and the handle to it.
pub fn submitted<F, T>(core: &Core, change: F) -> (Arc<dyn Job>, Submitted<T>)
where
    F: FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    let slot = Slot::new(change);
    let shared = Arc::new(Shared { slot, end: Mutex::default(), ended: Condvar::new() });
    let job: Arc<dyn Job> = Arc::<Shared<F, T>>::clone(&shared);
    (job, Submitted { shared, core: std::ptr::from_ref(core).addr() })
}

impl<F, T> Job for Shared<F, T>
where
    F: FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send,
    T: Send,
{
    fn run(&self, txn: &mut WriteTxn<'_>) -> bool {
        self.slot.run(txn)
    }

    fn settle(&self, outcome: Result<Lsn>) {
        self.slot.settle(outcome);
        let stale = is_planted(Planted::StaleLook).then(|| self.end.lock().is_waited_for);
        let mut end = self.end.lock();
        end.is_settled = true;
        let (waker, is_waited_for) = (end.waker.take(), stale.unwrap_or(end.is_waited_for));
        drop(end);
        if is_waited_for {
            self.ended.notify_all();
        }
        let Some(waker) = waker else { return };
        foreign("waker of a submitted write", || waker.wake());
    }
}

impl<F, T> Shared<F, T>
where
    F: FnOnce(&mut WriteTxn<'_>) -> Result<T>,
{
    fn result(&self) -> Result<Receipt<T>> {
        self.slot
            .take()
            .unwrap_or_else(|panic| Err(Error::Panicked { message: panic_message(&panic) }))
    }
}

impl<F, T> Outcome<T> for Shared<F, T>
where
    F: FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send,
    T: Send,
{
    fn poll(&self, context: &Context<'_>) -> Poll<Result<Receipt<T>>> {
        let mut end = self.end.lock();
        if end.is_settled {
            return Poll::Ready(self.result());
        }
        match &mut end.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn wait(&self) -> Result<Receipt<T>> {
        let mut end = self.end.lock();
        while !end.is_settled {
            end.is_waited_for = true;
            self.ended.wait(&mut end);
        }
        self.result()
    }

    fn is_done(&self) -> bool {
        self.end.lock().is_settled
    }
}

impl<T> Submitted<T> {
    /// Waits until the write is committed as its durability asks for, or has failed.
    ///
    /// # Errors
    /// [`Error::Reentrant`] inside a write of the same database, before which it cannot begin: it is
    /// committed later all the same. Those of [`Database::write`](crate::Database::write); [`Error::Panicked`] where that would
    /// have panicked.
    pub fn wait(self) -> Result<Receipt<T>> {
        if is_writing_at(self.core) && !self.is_done() {
            return Err(Error::Reentrant);
        }
        self.shared.wait()
    }

    /// Whether it has ended, so that waiting would return at once.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.shared.is_done()
    }
}

impl<T> Future for Submitted<T> {
    type Output = Result<Receipt<T>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.shared.poll(context)
    }
}

impl<T> fmt::Debug for Submitted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitted").field("is_done", &self.shared.is_done()).finish()
    }
}
