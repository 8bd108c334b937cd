//! Batches of several closures, made on purpose: someone else is the writer while they gather.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, Scope},
    time::{Duration, Instant},
};

use treepie::{Database, Stats};

/// Longer than anything here takes; who waits so long waits for ever.
pub const LONG: Duration = Duration::from_secs(60);

/// A caller, who calls `write` once.
pub type Caller<'env, T> = Box<dyn FnOnce() -> T + Send + 'env>;

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not come to hold.
#[track_caller]
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LONG, "waited in vain until {what}");
        thread::yield_now();
    }
}

/// Waits until statistics say something.
#[track_caller]
pub fn until_stats(db: &Database, what: &str, condition: impl Fn(&Stats) -> bool) {
    until(what, || condition(&db.stats()));
}

/// Lets callers join one batch, in their order, each on a thread of its own; then lets it run.
/// Returns how each of their threads ended.
pub fn together<'env, T: Send + 'env>(
    db: &Database,
    callers: Vec<Caller<'env, T>>,
) -> Vec<thread::Result<T>> {
    let held = db.begin_write().expect("the writer");
    let before = db.stats().waiting;
    thread::scope(move |scope| {
        let threads: Vec<_> = (1..)
            .zip(callers)
            .map(|(number, caller)| {
                let thread = scope.spawn(caller);
                until_stats(db, "a closure waits", |stats| stats.waiting == before + number);
                thread
            })
            .collect();
        held.rollback();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    })
}

/// Is the writer on another thread when asked to, so that this one may submit meanwhile.
pub struct Holder {
    orders: SyncSender<Order>,
    held: Receiver<()>,
}

enum Order {
    Hold,
    Release,
}

impl Holder {
    /// Ends with the scope, when it is dropped.
    pub fn start<'scope>(scope: &'scope Scope<'scope, '_>, db: &'scope Database) -> Holder {
        let (orders, received) = sync_channel(0);
        let (holds, held) = sync_channel(0);
        scope.spawn(move || {
            let mut txn = None;
            for order in received {
                match order {
                    Order::Hold => {
                        txn = Some(db.begin_write().expect("the writer"));
                        holds.send(()).expect("someone asked");
                    }
                    Order::Release => txn = None,
                }
            }
            drop(txn);
        });
        Holder { orders, held }
    }

    /// Returns when no closure can run.
    pub fn hold(&self) {
        self.orders.send(Order::Hold).expect("the holder lives");
        self.held.recv().expect("the holder lives");
    }

    /// Lets closures run again.
    pub fn release(&self) {
        self.orders.send(Order::Release).expect("the holder lives");
    }
}
