//! The archive of records: what every commit did, in files cut by size and time.
//!
//! Between two files the repository is not locked. What is not archived yet stays in the journal, which
//! the archive pins: a file is begun when there is enough for one, or when its oldest record is old
//! enough, and then takes what is there. Where that was more than a file, the next one is begun at once.

use std::time::{Duration, Instant};

use treepie::{Database, RawRecord, Records, ids::Lsn};

use super::{
    describe,
    entering::{ENTER_WAIT_MAX, LOCKED_WAIT},
    renewal::Renewal,
};
use crate::{
    error::{Error, Result},
    format::header::{Position, StreamHeader, StreamKind},
    progress::{CancelToken, Control, Paced},
    repository::{ArchivePolicy, ArchiveStart, Cutter, Entry, Kind, Repository, archive_start},
    stream::{StreamOptions, StreamWriter},
};

/// Longest wait for records before the token is looked at, where nothing else ends it.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// How an archive is written.
#[derive(Clone, Debug, Default)]
pub struct ArchiveOptions {
    stream: StreamOptions,
    policy: ArchivePolicy,
    over_holes: bool,
}

impl ArchiveOptions {
    /// Files of 64 MiB, or of a minute; a hole is an error.
    #[must_use]
    pub fn new() -> ArchiveOptions {
        ArchiveOptions::default()
    }

    /// How the streams are written: level, threads, encryption.
    #[must_use]
    pub fn stream(mut self, options: StreamOptions) -> ArchiveOptions {
        self.stream = options;
        self
    }

    /// When a file is cut.
    #[must_use]
    pub fn policy(mut self, policy: ArchivePolicy) -> ArchiveOptions {
        self.policy = policy;
        self
    }

    /// Whether to go on where the journal begins, if records between that and the archive are gone. No
    /// state between can be restored then, and none behind before the next full backup. Default: no.
    #[must_use]
    pub fn over_holes(mut self, over: bool) -> ArchiveOptions {
        self.over_holes = over;
        self
    }
}

/// What was archived.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ArchiveReport {
    /// The files, in their order.
    pub entries: Vec<Entry>,
    /// Records in them.
    pub records: u64,
    /// Bytes of records, before compression.
    pub raw_len: u64,
    /// First and last record of a hole that was passed over.
    pub hole: Option<(Lsn, Lsn)>,
}

/// Archives what the journal has and the repository has not, and returns.
///
/// # Errors
/// Those of [`Archiver::begin`] and [`Archiver::write_file`].
pub fn archive(
    db: &Database,
    repository: &Repository,
    options: &ArchiveOptions,
    control: Control,
) -> Result<ArchiveReport> {
    let mut archiver = Archiver::begin(db, repository, options, control)?;
    while archiver.write_file()? {}
    Ok(archiver.report)
}

/// An archive that goes on and on.
#[derive(Debug)]
pub struct Archiver {
    db: Database,
    repository: Repository,
    options: ArchiveOptions,
    records: Records,
    /// Keeps what is not archived, also where it was read already.
    floor: Records,
    /// A record that was read, and did not fit into the file before.
    next: Option<RawRecord>,
    /// Where the archive ends.
    last: Position,
    /// More was there than went into the last file, or before the first one.
    is_behind: bool,
    /// Bytes of records that were committed when all of them had been read.
    read_bytes: u64,
    meter: Paced<std::io::Sink>,
    report: ArchiveReport,
}

impl Archiver {
    /// Finds where the archive goes on, and pins the journal from there.
    ///
    /// # Errors
    /// [`Error::Archive`] when there is a hole, or the repository is ahead of the database;
    /// [`Error::Repository`], [`Error::Engine`].
    pub fn begin(
        db: &Database,
        repository: &Repository,
        options: &ArchiveOptions,
        control: Control,
    ) -> Result<Archiver> {
        let mut repository = repository.clone();
        repository.refresh()?;
        let last = db.durable_lsn();
        // Pinned before it is looked at: what is there then stays there.
        let oldest = db.records_kept()?;
        let first = oldest.last().next();
        let mut report = ArchiveReport::default();
        let start = archive_start(repository.manifest(), &db.lineage(), (first, last));
        let after = match start {
            ArchiveStart::After(position) => Some(position),
            ArchiveStart::Fresh => None,
            ArchiveStart::Hole { first, last } if options.over_holes => {
                report.hole = Some((first, last));
                None
            }
            ArchiveStart::Hole { first, last } => {
                return Err(Error::Archive {
                    first,
                    last,
                    reason: "the journal has recycled them; make a backup (an increment will do) and go on over the hole",
                });
            }
            ArchiveStart::Behind { archived } => {
                return Err(Error::Archive {
                    first: last.next(),
                    last: archived,
                    reason: "the repository has them and the database does not: it is an older copy; restore it, which begins a lineage of its own",
                });
            }
        };
        let records = match after {
            Some(position) => db.records(position.lsn)?,
            None => oldest,
        };
        let floor = db.records(records.last())?;
        let mut archiver = Archiver {
            db: db.clone(),
            repository,
            options: options.clone(),
            records,
            floor,
            next: None,
            last: after.unwrap_or_default(),
            is_behind: false,
            read_bytes: db.stats().record_bytes,
            meter: control.pace(std::io::sink()),
            report,
        };
        if archiver.fill()? {
            let record = archiver.next.as_ref().expect("it was just read");
            if after.is_some_and(|after| after.chain != record.chain_before) {
                return Err(Error::Archive {
                    first: record.lsn,
                    last: record.lsn,
                    reason: "it continues another history than the archive has; give this copy a repository of its own",
                });
            }
            let before = Lsn(record.lsn.0 - 1);
            archiver.last = Position { lsn: before, chain: record.chain_before };
            archiver.is_behind = true;
        }
        Ok(archiver)
    }

    /// What was archived so far.
    #[must_use]
    pub fn report(&self) -> &ArchiveReport {
        &self.report
    }

    /// Archives until `cancel` says so, then what was committed by then, and returns. Where this is the
    /// token of its [`Control`] too, it stops no file in the middle.
    ///
    /// # Errors
    /// As [`write_file`](Archiver::write_file); a repository that is locked is waited for, in the end for
    /// ten minutes at most.
    pub fn follow(mut self, cancel: &CancelToken) -> Result<ArchiveReport> {
        self.meter.leave(cancel);
        while !cancel.is_cancelled() {
            if self.is_due(cancel)? {
                self.write_when_unlocked(cancel, None)?;
            }
        }
        let end = self.db.durable_lsn();
        let (begin, nobody) = (Instant::now(), CancelToken::new());
        while self.last.lsn < end {
            let left = ENTER_WAIT_MAX.saturating_sub(begin.elapsed());
            if !self.write_when_unlocked(&nobody, Some((end, left)))? {
                break;
            }
        }
        Ok(self.report)
    }

    /// Waits until there is a file to be written, or the token is cancelled.
    fn is_due(&mut self, cancel: &CancelToken) -> Result<bool> {
        let mut since: Option<Instant> = None;
        while !cancel.is_cancelled() {
            let Some(since) = since else {
                if self.fill()? {
                    since = Some(Instant::now());
                } else if self.db.stats().poisoned_by.is_some() {
                    // Says so, unless one more became durable before it.
                    self.next = self.records.next_record()?;
                } else {
                    let _there = self.records.wait(WAIT_MAX);
                }
                continue;
            };
            if self.db.stats().poisoned_by.is_some() {
                return Ok(true);
            }
            let age = Duration::from_micros(self.options.policy.age_max_us);
            let left = age.saturating_sub(since.elapsed());
            let bytes = self.db.stats().record_bytes.saturating_sub(self.read_bytes);
            if self.is_behind || left.is_zero() || bytes >= self.options.policy.bytes_max {
                return Ok(true);
            }
            // Whoever commits a lot is seen in time: by then it is bytes, not the age, that count.
            self.db.wait_for_commit(self.db.durable_lsn(), left.min(WAIT_MAX));
        }
        Ok(false)
    }

    /// Writes one file as soon as the repository is not locked, with records up to an LSN, in a time;
    /// returns whether there was anything.
    fn write_when_unlocked(
        &mut self,
        cancel: &CancelToken,
        bound: Option<(Lsn, Duration)>,
    ) -> Result<bool> {
        let begin = Instant::now();
        let is_late = || bound.is_some_and(|(_, time)| begin.elapsed() >= time);
        loop {
            match self.write_up_to(bound.map(|(last, _)| last)) {
                Err(Error::Repository(error)) if error.is_contention() && !is_late() => {
                    tracing::info!(%error, "the archive waits for the repository");
                    if cancel.wait(LOCKED_WAIT).is_err() {
                        return Ok(false);
                    }
                }
                written => return written,
            }
        }
    }

    /// Writes one file of what is there; returns whether there was anything.
    ///
    /// # Errors
    /// [`Error::Engine`], among them [`Trimmed`](treepie::Error::Trimmed) when the archive was too slow;
    /// [`Error::Repository`], [`Error::Io`], [`Error::Cancelled`]. Nothing of the file stays then, and the
    /// next call writes it anew.
    pub fn write_file(&mut self) -> Result<bool> {
        self.write_up_to(None)
    }

    fn write_up_to(&mut self, last: Option<Lsn>) -> Result<bool> {
        if !self.fill()? {
            return Ok(false);
        }
        let written = self.write(last.unwrap_or(Lsn(u64::MAX)));
        if written.is_err() {
            // Read again what did not come to be.
            self.next = None;
            self.records = self.db.records(self.floor.last())?;
        }
        written.map(|()| true)
    }

    fn write(&mut self, last: Lsn) -> Result<()> {
        let mut writer = self.repository.writer("archive")?;
        let new = writer.create(Kind::Records, self.last.lsn, self.db.durable_lsn())?;
        let now = self.repository.store().now_us();
        let first = self.next.as_ref().expect("there is one");
        let header = StreamHeader {
            kind: StreamKind::Records,
            lineage: self.db.lineage(),
            page_size: self.db.page_size(),
            page_count: 0,
            position: self.last,
            base: self.last,
            time_us: first.time_us,
            database_created_us: 0,
            created_us: now,
        };
        let mut stream = StreamWriter::new(new, header, &self.options.stream)?;
        let mut cutter = Cutter::new(ArchivePolicy { age_max_us: u64::MAX, ..self.options.policy });
        let mut renewal = Renewal::new();
        while self.fill_or_count()? {
            let record = self.next.as_ref().expect("there is one");
            let len = record.bytes.len() as u64;
            if cutter.cuts_before(len, now) || record.lsn > last {
                break;
            }
            cutter.added(len, now);
            self.meter.note(len)?;
            stream.record(record.lsn, &record.bytes)?;
            renewal.tick(&mut writer)?;
            self.next = None;
        }
        let position = stream.position();
        let (new, summary) = stream.finish(position)?;
        let entry = writer.add(new, describe(&summary))?;
        self.last = summary.last;
        self.is_behind = self.next.is_some();
        self.report.records += summary.record_count;
        self.report.raw_len += summary.raw_len;
        self.report.entries.push(entry);
        self.floor = self.db.records(self.last.lsn)?;
        Ok(())
    }

    /// Reads the next record; where there is none, notes what was committed up to then.
    fn fill_or_count(&mut self) -> Result<bool> {
        if self.fill()? {
            return Ok(true);
        }
        let bytes = self.db.stats().record_bytes;
        let is_there = self.fill()?;
        if !is_there {
            self.read_bytes = bytes;
        }
        Ok(is_there)
    }

    /// Reads the next record, if there is one.
    fn fill(&mut self) -> Result<bool> {
        if self.next.is_none() {
            self.next = match self.records.next_record() {
                // What was durable before is archived all the same.
                Err(treepie::Error::Poisoned { .. }) => None,
                next => next?,
            };
        }
        Ok(self.next.is_some())
    }
}
