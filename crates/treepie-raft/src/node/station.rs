//! Work that is done by whoever brings it, where nobody is at it; a thread does what is left over.
//!
//! Between a record that was sealed and its acknowledgement lie a dozen hand-overs. Were each one from a
//! thread to another, their wake-ups would take longer than the sync. So a job is left in a queue, and who
//! has left it tries to become the one who works: it does what is in the queue, its own and that of others
//! who came meanwhile. Who finds another at work goes on, for that one looks into the queue again after
//! it has let go.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{self, ThreadId},
    time::Instant,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// Who does jobs, one lot at a time.
pub(super) trait Worker<J>: Send {
    /// Does all of these, in their order.
    fn work(&mut self, jobs: VecDeque<J>) -> Next;

    /// It has worked for the last time; these are left.
    fn end(self, left: VecDeque<J>)
    where
        Self: Sized,
    {
        drop(left);
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More jobs, whenever they come.
    Wait,
    /// The same, and at this time in any case.
    Until(Instant),
    /// Nothing.
    End,
}

/// A queue, and who works off what is in it.
pub(super) struct Station<J, W> {
    queue: Mutex<Queue<J>>,
    worker: Mutex<Option<W>>,
    work: Condvar,
    /// Which thread works.
    at_work: Mutex<Option<ThreadId>>,
}

struct Queue<J> {
    jobs: VecDeque<J>,
    /// What the jobs weigh together.
    weight: u64,
    due: Option<Instant>,
    /// The thread sleeps, until this time at most.
    asleep: Option<Option<Instant>>,
    is_open: bool,
}

impl<J> Queue<J> {
    /// Sets when there is something to be done in any case. Returns whether the thread would sleep longer.
    fn set_due(&mut self, due: Option<Instant>) -> bool {
        self.due = due;
        let oversleeps =
            |due| self.asleep.is_some_and(|until| until.is_none_or(|until| due < until));
        due.is_some_and(oversleeps)
    }
}

impl<J, W: Worker<J>> Station<J, W> {
    pub(super) fn new() -> Station<J, W> {
        let jobs = VecDeque::new();
        let queue = Queue { jobs, weight: 0, due: None, asleep: None, is_open: true };
        Station {
            queue: Mutex::new(queue),
            worker: Mutex::new(None),
            work: Condvar::new(),
            at_work: Mutex::new(None),
        }
    }

    /// Here is who works, for the first time at once: what was left before is waiting.
    pub(super) fn begin(&self, worker: W) {
        *self.worker.lock() = Some(worker);
        self.queue.lock().due = Some(Instant::now());
    }

    /// Leaves a job, and wakes nobody: the caller works, or [wakes](Station::wake), soon. False, when
    /// nobody does any more.
    pub(super) fn leave(&self, job: J, weight: u64) -> bool {
        let mut queue = self.queue.lock();
        if queue.is_open {
            queue.jobs.push_back(job);
            queue.weight += weight;
        }
        queue.is_open
    }

    /// Leaves a job to others.
    pub(super) fn put(&self, job: J) -> bool {
        let is_left = self.leave(job, 0);
        self.wake();
        is_left
    }

    /// Wakes the thread if something is left, and nobody is at work.
    pub(super) fn wake(&self) {
        // Who is at work has let go before it looks into the queue for the last time: were it to see it
        // without this job, this look here would see that it has let go.
        if !self.queue.lock().jobs.is_empty() && !self.worker.is_locked() {
            self.work.notify_one();
        }
    }

    /// Whether there is something to do, and it weighs no more than this.
    pub(super) fn is_light(&self, weight_max: u64) -> bool {
        let queue = self.queue.lock();
        !queue.jobs.is_empty() && queue.weight <= weight_max
    }

    /// Does what is there, if nobody is at it. Returns whether it did something.
    ///
    /// # Errors
    /// [`Panicked`].
    pub(super) fn try_work(&self) -> Result<bool, Panicked> {
        if self.queue.lock().jobs.is_empty() {
            return Ok(false);
        }
        match self.worker.try_lock() {
            Some(worker) => self.work_off(worker).map(|()| true),
            None => Ok(false),
        }
    }

    /// Waits until there is something to do, and does it; false when nothing will be done any more. For
    /// the station's own thread.
    ///
    /// # Errors
    /// [`Panicked`].
    pub(super) fn wait_and_work(&self) -> Result<bool, Panicked> {
        let mut queue = self.queue.lock();
        while queue.jobs.is_empty() && queue.is_open {
            let due = queue.due;
            if due.is_some_and(|due| Instant::now() >= due) {
                break;
            }
            queue.asleep = Some(due);
            match due {
                Some(due) => drop(self.work.wait_until(&mut queue, due)),
                None => self.work.wait(&mut queue),
            }
            queue.asleep = None;
        }
        let goes_on = queue.is_open || !queue.jobs.is_empty();
        drop(queue);
        if goes_on {
            self.work_off(self.worker.lock())?;
        }
        Ok(goes_on)
    }

    fn work_off(&self, mut place: MutexGuard<'_, Option<W>>) -> Result<(), Panicked> {
        let mut queue = self.queue.lock();
        let jobs = std::mem::take(&mut queue.jobs);
        queue.weight = 0;
        drop(queue);
        let Some(worker) = place.as_mut() else { return Ok(()) };
        *self.at_work.lock() = Some(thread::current().id());
        let worked = catch_unwind(AssertUnwindSafe(|| worker.work(jobs)));
        match worked {
            Ok(Next::Wait) => self.sleep_until(None),
            Ok(Next::Until(due)) => self.sleep_until(Some(due)),
            Ok(Next::End) | Err(_) => {
                let left = self.close();
                if let (Some(worker), Ok(_)) = (place.take(), &worked) {
                    worker.end(left);
                }
            }
        }
        *self.at_work.lock() = None;
        worked.map(drop).map_err(|_| Panicked)
    }

    fn sleep_until(&self, due: Option<Instant>) {
        if self.queue.lock().set_due(due) {
            self.work.notify_one();
        }
    }

    fn close(&self) -> VecDeque<J> {
        let mut queue = self.queue.lock();
        queue.is_open = false;
        let left = std::mem::take(&mut queue.jobs);
        drop(queue);
        self.work.notify_all();
        left
    }

    /// Takes no more jobs. What is there is still done.
    pub(super) fn shut(&self) {
        self.queue.lock().is_open = false;
        self.work.notify_all();
    }

    /// Whether this thread is at work here, further up.
    pub(super) fn is_own(&self) -> bool {
        *self.at_work.lock() == Some(thread::current().id())
    }

    /// Waits until nobody is at work, and nobody will be any more.
    pub(super) fn retire(&self) {
        drop(self.worker.lock().take());
    }
}

/// Who worked has panicked, and works no more.
#[derive(Debug)]
pub(super) struct Panicked;

impl<J, W> std::fmt::Debug for Station<J, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Station")
            .field("waiting", &self.queue.lock().jobs.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        time::Duration,
    };

    use super::*;

    /// Sends each job on; a job 0 is its last one, and a job 13 makes it panic.
    struct Forwards(mpsc::Sender<u64>);

    impl Worker<u64> for Forwards {
        fn work(&mut self, jobs: VecDeque<u64>) -> Next {
            for job in jobs {
                assert_ne!(job, 13, "an unlucky job");
                self.0.send(job).expect("the test listens");
                if job == 0 {
                    return Next::End;
                }
            }
            Next::Wait
        }
    }

    fn station() -> (Arc<Station<u64, Forwards>>, mpsc::Receiver<u64>) {
        let (sender, receiver) = mpsc::channel();
        let station = Arc::new(Station::new());
        station.begin(Forwards(sender));
        (station, receiver)
    }

    #[test]
    fn every_job_is_done_once_in_the_order_of_its_thread_whoever_does_it() {
        const THREADS: u64 = 4;
        const JOBS: u64 = 20_000;
        let (station, done) = station();
        let own = thread::spawn({
            let station = Arc::clone(&station);
            move || while station.wait_and_work().expect("nobody panics") {}
        });
        thread::scope(|scope| {
            for number in 1..=THREADS {
                let station = &station;
                scope.spawn(move || {
                    for job in 0..JOBS {
                        assert!(station.leave(number << 32 | job, 1));
                        // Some do the work, others leave it to the thread.
                        if number % 2 == 0 {
                            station.try_work().expect("nobody panics");
                        }
                        station.wake();
                    }
                });
            }
            let mut next = [0; THREADS as usize + 1];
            for _ in 0..THREADS * JOBS {
                let job = done.recv_timeout(Duration::from_secs(60)).expect("no job is forgotten");
                let number = usize::try_from(job >> 32).expect("a few threads");
                assert_eq!(job & 0xffff_ffff, next[number], "jobs of thread {number}");
                next[number] += 1;
            }
        });
        station.put(0);
        own.join().expect("its thread ends with it");
        assert!(!station.put(1), "it takes nothing more");
    }

    /// Sends the time at which it works, and wants to work again 20 ms after a job.
    struct Clocks(mpsc::Sender<Instant>);

    impl Worker<()> for Clocks {
        fn work(&mut self, jobs: VecDeque<()>) -> Next {
            let now = Instant::now();
            self.0.send(now).expect("the test listens");
            let pause = if jobs.is_empty() { 60_000 } else { 20 };
            Next::Until(now + Duration::from_millis(pause))
        }
    }

    #[test]
    fn thread_that_sleeps_for_long_is_woken_when_somebody_else_finds_that_it_must_not() {
        let (sender, worked) = mpsc::channel();
        let station = Arc::new(Station::new());
        station.begin(Clocks(sender));
        let own = thread::spawn({
            let station = Arc::clone(&station);
            move || while station.wait_and_work().expect("nobody panics") {}
        });
        let patience = Duration::from_secs(30);
        worked.recv_timeout(patience).expect("it begins at once, and sleeps for a minute");
        while station.queue.lock().asleep.is_none() {
            thread::yield_now();
        }
        station.leave((), 0);
        while !station.try_work().expect("nobody panics") {
            thread::yield_now();
        }
        let first = worked.recv_timeout(patience).expect("this thread works");
        let again = worked.recv_timeout(patience).expect("its own thread does not oversleep");
        assert!(again >= first + Duration::from_millis(20));
        station.shut();
        own.join().expect("it ends");
    }

    #[test]
    fn panic_of_a_worker_is_told_and_nothing_is_taken_from_then_on() {
        let (station, done) = station();
        assert!(station.leave(13, 0) && station.leave(5, 0));
        assert!(station.try_work().is_err());
        assert!(!station.leave(6, 0));
        assert!(!station.wait_and_work().expect("there is nothing to do"));
        assert!(done.recv().is_err(), "who worked is gone");
    }

    #[test]
    fn weight_of_what_waits_is_what_was_left_since_somebody_worked() {
        let (station, _done) = station();
        assert!(!station.is_light(100), "there is nothing");
        station.leave(1, 60);
        assert!(station.is_light(60));
        station.leave(2, 60);
        assert!(!station.is_light(119) && station.is_light(120));
        station.try_work().expect("nobody panics");
        station.leave(3, 1);
        assert!(station.is_light(1));
    }
}
