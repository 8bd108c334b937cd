//! Submitted writes whose outcome is handed over, and not waited for.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use parking_lot::Mutex;
use treepie::{Receipt, Result, Submitted};

/// Calls `done` with the outcome of a write, once: here and now when there is one, otherwise on the thread
/// that has committed. That thread commits for others too, so `done` hands over and does no more.
pub fn settle<T: Send + 'static>(
    submitted: Submitted<T>,
    done: impl FnOnce(Result<Receipt<T>>) + Send + 'static,
) {
    let state = Mutex::new(Some((submitted, done)));
    Arc::new(Settling { state }).look();
}

/// A write on its way, and who wants to know. It is its own waker.
struct Settling<T, F> {
    state: Mutex<Option<(Submitted<T>, F)>>,
}

impl<T, F> Settling<T, F>
where
    T: Send + 'static,
    F: FnOnce(Result<Receipt<T>>) + Send + 'static,
{
    fn look(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut state = self.state.lock();
        let Some((submitted, _)) = &mut *state else { return };
        let Poll::Ready(result) = Pin::new(submitted).poll(&mut Context::from_waker(&waker)) else {
            return;
        };
        let taken = state.take();
        drop(state);
        if let Some((_, done)) = taken {
            done(result);
        }
    }
}

impl<T, F> Wake for Settling<T, F>
where
    T: Send + 'static,
    F: FnOnce(Result<Receipt<T>>) + Send + 'static,
{
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use treepie::{Database, Error};

    use super::*;

    #[test]
    fn outcome_of_each_submitted_write_is_handed_over_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Database::open(folder.path().join("db")).expect("a new database");
        let (outcomes, came) = mpsc::channel();
        for n in 0..500_u32 {
            let submitted = db.submit(move |tx| {
                tx.tree("t")?.insert(n.to_be_bytes(), "")?;
                if n % 7 == 0 { Err(Error::rejected("a test says so")) } else { Ok(n) }
            });
            let outcomes = outcomes.clone();
            settle(submitted.expect("it takes writes"), move |outcome| {
                outcomes.send((n, outcome.map(|receipt| receipt.value).ok())).expect("it waits");
            });
        }
        drop(outcomes);
        let mut all: Vec<_> = came.iter().collect();
        all.sort_unstable();
        let expected = (0..500).map(|n| (n, Some(n).filter(|n| n % 7 != 0)));
        assert!(all.into_iter().eq(expected));
    }
}
