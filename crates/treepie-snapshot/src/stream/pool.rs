//! Threads that work on frames. Jobs come out in the order in which they went in, and no more are
//! inside than the owner lets in, so that its memory is bounded.
//!
//! In the background they have a lower priority than other threads: where those leave a processor idle,
//! they are as fast, and where they do not, they get next to nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

/// By how much threads in the background raise their nice value: to the highest, at which Linux weighs them
/// at a seventieth of other threads. Of the commits of 64 threads on two processors a backup left 25 % at 0,
/// 45 % at 10 and 62 % at 19, where it still did 390 MB/s: commits that wait for the disk leave time.
const BACKGROUND_NICE: i32 = 19;

/// What a thread does with a job.
pub trait Work: Send + 'static {
    /// What it is done with.
    type Job: Send + 'static;

    /// Does it.
    fn run(&mut self, job: &mut Self::Job);
}

/// Threads, or the calling thread alone.
#[derive(Debug)]
pub struct Pool<W: Work> {
    inline: Option<W>,
    shared: Arc<Shared<W::Job>>,
    threads: Vec<JoinHandle<()>>,
    /// Jobs that went in, and that came out.
    submitted: u64,
    taken: u64,
}

#[derive(Debug)]
struct Shared<J> {
    state: Mutex<State<J>>,
    /// There is a job, or no more will come.
    work: Condvar,
    /// A job is done, or none will be.
    done: Condvar,
}

#[derive(Debug)]
struct State<J> {
    waiting: VecDeque<(u64, J)>,
    done: BTreeMap<u64, J>,
    is_closed: bool,
    is_broken: bool,
}

impl<W: Work> Pool<W> {
    /// One thread for each worker; a single worker works in the calling thread, whose priority stays
    /// what it is.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new(mut workers: Vec<W>, is_background: bool) -> io::Result<Pool<W>> {
        let (waiting, done) = (VecDeque::new(), BTreeMap::new());
        let state = State { waiting, done, is_closed: false, is_broken: false };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let inline = if workers.len() == 1 { workers.pop() } else { None };
        let threads = Vec::with_capacity(workers.len());
        let mut pool = Pool { inline, shared, threads, submitted: 0, taken: 0 };
        for worker in workers {
            let shared = Arc::clone(&pool.shared);
            let named = thread::Builder::new().name("treepie-stream".to_owned());
            let serve = move || {
                if is_background {
                    lower_priority();
                }
                shared.serve(worker);
            };
            pool.threads.push(named.spawn(serve)?);
        }
        Ok(pool)
    }

    /// Jobs that are inside.
    pub fn len(&self) -> usize {
        usize::try_from(self.submitted - self.taken).unwrap_or(usize::MAX)
    }

    /// Whether the calling thread does the work.
    pub fn is_inline(&self) -> bool {
        self.inline.is_some()
    }

    /// Lets a job in.
    pub fn submit(&mut self, mut job: W::Job) {
        let ticket = self.submitted;
        self.submitted += 1;
        if let Some(worker) = &mut self.inline {
            worker.run(&mut job);
            self.shared.lock().done.insert(ticket, job);
            return;
        }
        self.shared.lock().waiting.push_back((ticket, job));
        self.shared.work.notify_one();
    }

    /// The oldest job, when it is done; `None` if none is inside.
    ///
    /// # Panics
    /// If a worker panicked.
    pub fn take(&mut self) -> Option<W::Job> {
        if self.submitted == self.taken {
            return None;
        }
        let mut state = self.shared.lock();
        loop {
            if let Some(job) = state.done.remove(&self.taken) {
                self.taken += 1;
                return Some(job);
            }
            assert!(!state.is_broken, "a thread that works on frames panicked");
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Lowers the priority of the calling thread. Elsewhere than on Linux the nice value is that of the whole
/// process.
fn lower_priority() {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::nice(BACKGROUND_NICE)
    {
        tracing::debug!(%error, "threads of a stream keep their priority");
    }
}

impl<W: Work> Drop for Pool<W> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        state.waiting.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of a worker was told by `take`, or nobody asked.
            let _ = thread.join();
        }
    }
}

impl<J> Shared<J> {
    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut worker: impl Work<Job = J>) {
        let _alarm = Alarm(self);
        while let Some((ticket, mut job)) = self.wait_for_work() {
            worker.run(&mut job);
            self.lock().done.insert(ticket, job);
            self.done.notify_one();
        }
    }

    fn wait_for_work(&self) -> Option<(u64, J)> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(job) = state.waiting.pop_front() {
                return Some(job);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells the owner when a worker ends; before the pool is closed only a panic ends one.
struct Alarm<'a, J>(&'a Shared<J>);

impl<J> Drop for Alarm<'_, J> {
    fn drop(&mut self) {
        self.0.lock().is_broken = true;
        self.0.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::Barrier,
    };

    use super::*;

    /// Lets each even job end only when the odd one behind it has begun.
    struct Pairs(Arc<Barrier>);

    impl Work for Pairs {
        type Job = u64;

        fn run(&mut self, job: &mut u64) {
            self.0.wait();
            *job += 1000;
        }
    }

    #[test]
    fn jobs_come_out_in_their_order_and_are_worked_on_side_by_side() {
        let barrier = Arc::new(Barrier::new(2));
        let workers = vec![Pairs(Arc::clone(&barrier)), Pairs(barrier)];
        let mut pool = Pool::new(workers, false).expect("threads start");
        (0..100).for_each(|job| pool.submit(job));
        assert_eq!(pool.len(), 100);
        for job in 0..100 {
            assert_eq!(pool.take(), Some(job + 1000));
        }
        assert_eq!(pool.take(), None);
    }

    struct Panics;

    impl Work for Panics {
        type Job = u64;

        fn run(&mut self, job: &mut u64) {
            assert!(*job < 3, "planted");
        }
    }

    #[test]
    fn panic_of_a_thread_is_told_and_does_not_hang() {
        let mut pool = Pool::new(vec![Panics, Panics], false).expect("threads start");
        (0..8).for_each(|job| pool.submit(job));
        let taken = catch_unwind(AssertUnwindSafe(|| while pool.take().is_some() {}));
        assert!(taken.is_err());
    }

    #[test]
    fn pool_that_is_dropped_ends_its_threads_with_work_left() {
        let mut pool = Pool::new(vec![Panics, Panics], false).expect("threads start");
        (0..1000).for_each(|_| pool.submit(0));
        drop(pool);
    }

    #[cfg(target_os = "linux")]
    struct Looks;

    #[cfg(target_os = "linux")]
    impl Work for Looks {
        type Job = i32;

        fn run(&mut self, job: &mut i32) {
            *job = nice();
        }
    }

    #[cfg(target_os = "linux")]
    fn nice() -> i32 {
        rustix::process::getpriority_process(None).expect("it is this thread's own")
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_in_the_background_yield_and_the_calling_thread_keeps_its_priority() {
        let own = nice();
        for (is_background, raised) in [(true, (own + BACKGROUND_NICE).min(19)), (false, own)] {
            let mut pool = Pool::new(vec![Looks, Looks], is_background).expect("threads start");
            pool.submit(0);
            assert_eq!((pool.take(), nice()), (Some(raised), own));
        }
    }

    #[test]
    fn single_worker_works_in_the_calling_thread() {
        let mut pool = Pool::new(vec![Panics], false).expect("no thread");
        assert!(pool.is_inline() && pool.threads.is_empty());
        pool.submit(2);
        assert_eq!((pool.take(), pool.len()), (Some(2), 0));
    }
}
