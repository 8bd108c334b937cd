//! The scrub: everything that is at rest is read from the medium and verified, while the database goes
//! on.
//!
//! Reads of the database see a page when they need it, and then the page cache's copy of it. A scrub
//! sees what nobody has asked for, on the medium (`DiskFile::read_medium`), before the good copy is
//! gone. It repairs nothing: damage is listed, with what can be done.
//!
//! - `pages`: the data file, in slices. Each registers as a reader of its own, for the time of one
//!   read, and verifies what that reader would see in the file. Therefore it never takes a page for
//!   damaged that is being written, or that newer versions have replaced.
//!   `view`: what a slice knows of its state.
//! - `segments`: meta pages, and the journal's records up to the last one that was synced when it began.
//! - `pace`: how fast it goes. `damage`: what was found. `owner`: whose page it is.
//!
//! No lock of the database is held while it reads.

#[cfg(test)]
mod counted;
pub mod damage;
pub mod owner;
mod pace;
mod pages;
mod segments;
#[cfg(test)]
mod tests;
mod view;

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicU64 as Counter, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    checkpoint::Checkpointer,
    error::{Error, Result},
    ids::Lsn,
    sync::{Condvar, Mutex},
    txn::core::Core,
};

pub use self::damage::FoundDamage;
use self::{damage::DamageList, pace::Pace, pages::PagePass};

/// When a scrub that found all readers' slots taken tries again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// How far a scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubProgress {
    /// Bytes that were gone over: read, or known to need no reading.
    pub bytes_done: u64,
    /// Bytes that there are to go over, as of the beginning.
    pub bytes_total: u64,
    /// Items of damage so far.
    pub damage_count: u64,
}

/// What a scrub has done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScrubReport {
    /// Whether it came to its end.
    pub is_complete: bool,
    /// Pages of the data file that were read and are as they should be.
    pub pages_verified: u64,
    /// Pages in use that are not in the data file yet, or changed too often while they were looked at.
    pub pages_skipped: u64,
    /// Records of the journal that were read and are as they should be.
    pub records_verified: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Damage that was found, the first 1,000 items of it.
    pub damage: Vec<FoundDamage>,
    /// How many items there were.
    pub damage_count: u64,
}

impl ScrubReport {
    fn add(&mut self, item: FoundDamage) {
        self.damage_count += 1;
        if self.damage.len() < damage::DAMAGE_MAX {
            self.damage.push(item);
        }
    }
}

/// What a callback says of going on.
pub type Going = ControlFlow<()>;

/// What is known of all scrubs of an open database, and when to stop them.
#[derive(Debug, Default)]
pub struct Scrubber {
    found: DamageList,
    passes: Counter,
    pages: Counter,
    stopping: Mutex<bool>,
    stopped: Condvar,
}

impl Scrubber {
    /// All damage that was found since the database was opened, bounded.
    pub fn damage(&self) -> Vec<FoundDamage> {
        self.found.items()
    }

    /// How many items of damage were found, how many scrubs came to their end, and how many pages they
    /// verified.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.found.count(), self.passes.load(Relaxed), self.pages.load(Relaxed))
    }

    /// Ends the thread, and what it is doing.
    pub fn stop(&self) {
        *self.stopping.lock() = true;
        self.stopped.notify_all();
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.lock()
    }

    /// Lets time pass, or less when the thread is to end.
    fn wait(&self, time: Duration) {
        let mut stopping = self.stopping.lock();
        if !*stopping {
            self.stopped.wait_while_for(&mut stopping, |stopping| !*stopping, time);
        }
    }

    /// Goes over everything once, at `rate` bytes a second, or as fast as the disk reads. `going` is
    /// asked after each piece.
    ///
    /// # Errors
    /// [`Error::Bound`] when all readers' slots are taken. What cannot be read is damage.
    pub fn pass(
        &self,
        core: &Arc<Core>,
        checkpointer: &Mutex<Checkpointer>,
        rate: Option<u64>,
        going: &mut dyn FnMut(&ScrubProgress) -> Going,
    ) -> Result<ScrubReport> {
        let begin = Instant::now();
        let journal_bytes = core.journal.report().bytes;
        let file_bytes = u64::from(core.pager.file_pages()) * core.pager.page_size() as u64;
        let mut pass = Pass {
            core,
            checkpointer,
            scrubber: self,
            pace: Pace::new(rate),
            progress: ScrubProgress {
                bytes_done: 0,
                bytes_total: file_bytes + journal_bytes,
                damage_count: 0,
            },
            report: ScrubReport::default(),
            going,
        };
        let is_complete = segments::metas(&mut pass).is_continue()
            && PagePass::new(core).run(&mut pass)?.is_continue()
            && segments::journal(&mut pass)?.is_continue();
        let mut report = pass.report;
        report.is_complete = is_complete;
        report.elapsed = begin.elapsed();
        self.passes.fetch_add(u64::from(report.is_complete), Relaxed);
        self.pages.fetch_add(report.pages_verified, Relaxed);
        tracing::debug!(
            pages = report.pages_verified,
            records = report.records_verified,
            damage = report.damage_count,
            ms = report.elapsed.as_millis() as u64,
            "scrubbed"
        );
        Ok(report)
    }

    /// The life of the thread: a scrub every `interval`, counted from the end of the one before.
    pub fn serve(
        &self,
        core: &Arc<Core>,
        checkpointer: &Mutex<Checkpointer>,
        interval: Duration,
        rate: u64,
    ) {
        let mut pause = interval;
        while !self.is_stopping() {
            self.wait(pause);
            pause = interval;
            let stop_when_told = &mut |_: &ScrubProgress| match self.is_stopping() {
                true => Going::Break(()),
                false => Going::Continue(()),
            };
            if let Err(error) = self.pass(core, checkpointer, Some(rate), stop_when_told) {
                pause = pause_after(&error, interval);
                tracing::warn!(%error, again_ms = pause.as_millis() as u64, "a scrub could not go on");
            }
        }
    }
}

/// How long a scrub waits that could not go on: a reader's slot is free soon.
fn pause_after(error: &Error, interval: Duration) -> Duration {
    match error {
        Error::Bound { .. } => RETRY_AFTER.min(interval),
        _ => interval,
    }
}

/// One scrub, on its way.
struct Pass<'a> {
    core: &'a Arc<Core>,
    checkpointer: &'a Mutex<Checkpointer>,
    scrubber: &'a Scrubber,
    pace: Pace,
    progress: ScrubProgress,
    report: ScrubReport,
    going: &'a mut dyn FnMut(&ScrubProgress) -> Going,
}

impl Pass<'_> {
    fn found(&mut self, mut item: FoundDamage) {
        item.found_us = self.core.disk.now_us();
        self.scrubber.found.add(&item);
        self.report.add(item);
        self.progress.damage_count = self.report.damage_count;
    }

    /// Whether to go on, in the middle of a slice.
    fn ask(&mut self) -> Going {
        (self.going)(&self.progress)
    }

    /// Notes that `done` bytes were gone over, of which `read` were read, and lets the time pass that
    /// they may take.
    fn spend(&mut self, done: u64, read: u64) -> Going {
        self.progress.bytes_done = (self.progress.bytes_done + done).min(self.progress.bytes_total);
        self.report.bytes_read += read;
        self.pace.add(read);
        loop {
            (self.going)(&self.progress)?;
            match self.pace.wait() {
                Some(time) => self.scrubber.wait(time),
                None => return Going::Continue(()),
            }
        }
    }
}

/// What can be done about a damaged page of a tree.
const RESTORE: &str =
    "restore the database from a backup, or salvage it with `treepie check DB --repair NEW`";
/// What can be done about a damaged meta page.
const CHECKPOINT_TWICE: &str = "two checkpoints write both meta pages anew; then scrub again";
/// What can be done about a damaged record.
const CHECKPOINT: &str =
    "make a checkpoint now, while the pages that it changed are in memory: then it is not needed";
/// What is to be done about a damaged record that a checkpoint has.
const NOTHING: &str = "the data file holds what it changed: it goes when its segment is recycled";

/// Which advice a record needs.
fn record_advice(core: &Core, lsn: Lsn) -> &'static str {
    if lsn <= core.watermarks.checkpointed() { NOTHING } else { CHECKPOINT }
}

/// Blind spots that tests plant, to see that they would be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blind {
    /// Runs that are longer than a slice pass without a look at their checksum.
    LongRuns,
    /// Whether a page is in memory is not looked up.
    Versions,
    /// A page that does not verify is not looked at as the inside of a run that is new.
    NewRuns,
    /// Such a run is looked for in the file alone.
    RunsInMemory,
    /// A run is called damaged without a look whether it is still the same one, and none covers it.
    ChangedRuns,
    /// Of each segment the last record is left out.
    LastRecords,
}

#[cfg(not(test))]
const fn is_blind(_spot: Blind) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static BLIND: std::cell::Cell<Option<Blind>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
fn is_blind(spot: Blind) -> bool {
    BLIND.get() == Some(spot)
}
