//! How far a long work has come, how fast it may go, and how it is stopped.
//!
//! A [`Control`] is made by whoever asks for a backup, a restore or a verification. It becomes a
//! [`Paced`] reader or writer around the bytes that are stored.

use std::{
    fmt,
    io::{self, Read, Write},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::error::{CancelledMark, Error, Result};

/// Time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Time over which the rate is a mean: a newer second counts for more than those before it.
const RATE_INTERVAL: Duration = Duration::from_secs(2);
/// With a rate limit, the bytes of this time are handed on at once.
const PIECES_A_SECOND: u64 = 20;

/// Stops works from another thread. Clones are the same token.
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_cancelled: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl CancelToken {
    /// A token that nobody has cancelled.
    #[must_use]
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// Stops whoever watches it, also those who wait for their rate.
    pub fn cancel(&self) {
        self.shared.is_cancelled.store(true, Ordering::Release);
        // Whoever found it not cancelled waits by now, or still has the lock.
        drop(self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.notify_all();
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled.load(Ordering::Acquire)
    }

    /// Whether it is a clone of the other one.
    pub(crate) fn is_same(&self, other: &CancelToken) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Goes on unless it was cancelled.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Waits for a time, or until it is cancelled.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn wait(&self, time: Duration) -> Result<()> {
        let lock = self.shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self.shared.changed.wait_timeout_while(lock, time, |()| !self.is_cancelled());
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
        self.check()
    }
}

/// How far a work has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are done.
    pub bytes_done: u64,
    /// Bytes that there are, where it is known.
    pub bytes_total: Option<u64>,
    /// Bytes a second, lately.
    pub rate: u64,
    /// Time that is left at this rate, where it is known.
    pub remaining: Option<Duration>,
}

type Callback = Box<dyn FnMut(&Progress) + Send>;

/// How a long work is watched, slowed and stopped. By default it is not.
#[derive(Default)]
pub struct Control {
    cancel: CancelToken,
    rate: Option<u64>,
    total: Option<u64>,
    progress: Option<Callback>,
}

impl Control {
    /// Nobody watches, at full speed.
    #[must_use]
    pub fn new() -> Control {
        Control::default()
    }

    /// Stops with [`Error::Cancelled`] when this token is cancelled.
    #[must_use]
    pub fn cancel(mut self, token: &CancelToken) -> Control {
        self.cancel = token.clone();
        self
    }

    /// At most so many bytes a second, at least 1.
    #[must_use]
    pub fn rate(mut self, bytes_a_second: u64) -> Control {
        self.rate = Some(bytes_a_second.max(1));
        self
    }

    /// How many bytes there will be.
    #[must_use]
    pub fn total(mut self, bytes: u64) -> Control {
        self.total = Some(bytes);
        self
    }

    /// Reports about ten times a second, in the working thread, and once at the end.
    #[must_use]
    pub fn progress(mut self, callback: impl FnMut(&Progress) + Send + 'static) -> Control {
        self.progress = Some(Box::new(callback));
        self
    }

    /// The same, told how many bytes there will be, if nobody has said so.
    pub(crate) fn total_if_unknown(mut self, bytes: Option<u64>) -> Control {
        self.total = self.total.or(bytes);
        self
    }

    /// The token that stops it.
    pub(crate) fn token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// A reader or writer whose bytes are what is counted, slowed and stopped.
    pub fn pace<T>(self, inner: T) -> Paced<T> {
        let now = Instant::now();
        Paced {
            inner,
            meter: Meter::new(self.total, now),
            bucket: self.rate.map(|rate| Bucket::new(rate, now)),
            cancel: self.cancel,
            progress: self.progress,
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Control");
        text.field("rate", &self.rate).field("total", &self.total).finish_non_exhaustive()
    }
}

/// A reader or writer under a [`Control`].
pub struct Paced<T> {
    inner: T,
    meter: Meter,
    bucket: Option<Bucket>,
    cancel: CancelToken,
    progress: Option<Callback>,
}

impl<T> Paced<T> {
    /// Reports the end, and gives back what it was made of.
    pub fn finish(mut self) -> T {
        let progress = self.meter.progress(Instant::now());
        self.report(&progress);
        self.inner
    }

    /// What it was made of.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What it was made of.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Bytes that went through.
    pub fn bytes_done(&self) -> u64 {
        self.meter.done
    }

    /// Is not stopped by this token any more, because somebody else looks at it.
    pub(crate) fn leave(&mut self, token: &CancelToken) {
        if self.cancel.is_same(token) {
            self.cancel = CancelToken::new();
        }
    }

    fn report(&mut self, progress: &Progress) {
        if let Some(callback) = &mut self.progress {
            callback(progress);
        }
    }

    /// How many of `len` bytes may go now, once it is their turn.
    pub(crate) fn admit(&mut self, len: usize) -> io::Result<usize> {
        let cancelled = |_: Error| io::Error::other(CancelledMark);
        self.cancel.check().map_err(cancelled)?;
        let Some(bucket) = &mut self.bucket else { return Ok(len) };
        let wait = bucket.wait(Instant::now());
        if !wait.is_zero() {
            self.cancel.wait(wait).map_err(cancelled)?;
        }
        Ok(len.min(bucket.piece()))
    }

    pub(crate) fn passed(&mut self, len: usize) {
        let now = Instant::now();
        if let Some(bucket) = &mut self.bucket {
            bucket.take(len as u64, now);
        }
        if let Some(progress) = self.meter.add(len as u64, now) {
            self.report(&progress);
        }
    }
}

impl<T> fmt::Debug for Paced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("bytes_done", &self.meter.done).finish_non_exhaustive()
    }
}

impl Paced<io::Sink> {
    /// Counts bytes that went elsewhere, once it is their turn.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) fn note(&mut self, mut bytes: u64) -> Result<()> {
        while bytes > 0 {
            let piece = usize::try_from(bytes).unwrap_or(usize::MAX);
            let len =
                self.admit(piece).map_err(|error| Error::io("pace", self.meter.done, error))?;
            self.passed(len);
            bytes -= len as u64;
        }
        Ok(())
    }
}

impl<T: Write> Write for Paced<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.admit(bytes.len())?;
        let len = self.inner.write(bytes.get(..len).unwrap_or(bytes))?;
        self.passed(len);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Paced<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.admit(buffer.len())?;
        let len = self.inner.read(buffer.get_mut(..len).unwrap_or_default())?;
        self.passed(len);
        Ok(len)
    }
}

/// When the next bytes may go. Time that was not used is not saved up.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    next: Instant,
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Bucket {
        Bucket { rate, next: now }
    }

    fn piece(&self) -> usize {
        usize::try_from(self.rate / PIECES_A_SECOND).unwrap_or(usize::MAX).max(1)
    }

    fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    fn take(&mut self, bytes: u64, now: Instant) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // What was late by less than a piece is made up for, so that the mean is the rate.
        let slack = Duration::from_millis(1000 / PIECES_A_SECOND);
        let from = now.checked_sub(slack).map_or(self.next, |least| self.next.max(least));
        self.next = from.checked_add(cost).unwrap_or(from);
    }
}

/// Counts bytes, and says when it is time for a report.
#[derive(Debug)]
struct Meter {
    done: u64,
    total: Option<u64>,
    rate: f64,
    started: Instant,
    reported: Instant,
    reported_done: u64,
}

impl Meter {
    fn new(total: Option<u64>, now: Instant) -> Meter {
        Meter { done: 0, total, rate: 0.0, started: now, reported: now, reported_done: 0 }
    }

    fn add(&mut self, bytes: u64, now: Instant) -> Option<Progress> {
        self.done += bytes;
        let is_due = now.saturating_duration_since(self.reported) >= REPORT_INTERVAL;
        is_due.then(|| self.progress(now))
    }

    fn progress(&mut self, now: Instant) -> Progress {
        let time = now.saturating_duration_since(self.reported).as_secs_f64();
        if time > 0.0 {
            let lately = (self.done - self.reported_done) as f64 / time;
            let all = now.saturating_duration_since(self.started).as_secs_f64();
            // In the beginning there is no rate that could weigh anything.
            let weight = (time / RATE_INTERVAL.as_secs_f64()).max(time / all).min(1.0);
            self.rate += (lately - self.rate) * weight;
            (self.reported, self.reported_done) = (now, self.done);
        }
        let left = self.total.map(|total| total.saturating_sub(self.done));
        let seconds = left.filter(|_| self.rate >= 1.0).map(|left| left as f64 / self.rate);
        let remaining = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let (bytes_done, bytes_total) = (self.done, self.total);
        Progress { bytes_done, bytes_total, rate: self.rate as u64, remaining }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn limited_rate_is_kept_over_time_and_idle_time_is_not_saved_up() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1_000_000, start);
        let (mut now, mut sent) = (start, 0_u64);
        while sent < 10_000_000 {
            now += bucket.wait(now) + Duration::from_micros(700);
            bucket.take(bucket.piece() as u64, now);
            sent += bucket.piece() as u64;
        }
        let seconds = (now - start).as_secs_f64();
        assert!((9.8..10.2).contains(&seconds), "{seconds}");

        now += SECOND * 1000;
        bucket.take(1_000_000, now);
        assert!(bucket.wait(now) > SECOND * 9 / 10);
    }

    #[test]
    fn report_tells_bytes_rate_and_what_remains() {
        let start = Instant::now();
        let mut meter = Meter::new(Some(10_000_000), start);
        let mut last = Progress::default();
        let mut reports = 0;
        for step in 1..=50_u32 {
            if let Some(progress) = meter.add(100_000, start + SECOND * step / 50) {
                (last, reports) = (progress, reports + 1);
            }
        }
        assert_eq!((reports, last.bytes_done, last.bytes_total), (10, 5_000_000, Some(10_000_000)));
        assert!((4_900_000..5_100_000).contains(&last.rate), "{last:?}");
        let remaining = last.remaining.expect("the total is known").as_secs_f64();
        assert!((0.97..1.03).contains(&remaining), "{last:?}");
    }

    #[test]
    fn cancelled_work_stops_while_it_waits_for_its_rate() {
        let token = CancelToken::new();
        let control = Control::new().cancel(&token).rate(1);
        let (begin, begun) = mpsc::channel();
        let working = thread::spawn(move || {
            let mut paced = control.pace(Vec::new());
            paced.write_all(b"a").expect("the first byte is free");
            begin.send(()).expect("it is listened to");
            let error = paced.write_all(&[0; 1000]).expect_err("1000 s are long");
            matches!(Error::io("write", 0, error), Error::Cancelled)
        });
        begun.recv().expect("it has begun");
        token.cancel();
        assert!(working.join().expect("no panic"));
        assert!(matches!(token.wait(SECOND * 1000), Err(Error::Cancelled)));
    }

    #[test]
    fn paced_reader_counts_what_goes_through_and_reports_the_end() {
        let (tell, told) = mpsc::channel();
        let control = Control::new().total(5).progress(move |progress| {
            tell.send(*progress).expect("it is listened to");
        });
        let mut paced = control.pace(&b"12345"[..]);
        let mut text = String::new();
        paced.read_to_string(&mut text).expect("text");
        assert_eq!((text.as_str(), paced.bytes_done()), ("12345", 5));
        paced.finish();
        let last = told.iter().last().expect("a report");
        assert_eq!((last.bytes_done, last.bytes_total), (5, Some(5)));
    }
}
