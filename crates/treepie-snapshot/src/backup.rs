//! Backups: the pages of a running database become a stream.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use treepie::{Base, CopyOptions, CopyStep, Database, FoundDamage, PageCopy, ids::Lsn};

use crate::{
    error::Result,
    format::header::{Position, StreamHeader, StreamKind},
    progress::{Control, Paced},
    stream::{StreamOptions, StreamSummary, StreamWriter},
};

/// Bytes of pages that are taken from the database at a time.
const CHUNK_LEN: usize = 1 << 20;
/// How long a backup rests beside writers, in times of what it took to read a chunk, and at most. Meanwhile
/// other threads compress what was read.
const REST: u32 = 3;
const REST_MAX: Duration = Duration::from_millis(50);

/// How a backup is made.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    stream: StreamOptions,
    copy: CopyOptions,
    base: Option<Base>,
    yields: bool,
}

impl Default for BackupOptions {
    fn default() -> BackupOptions {
        BackupOptions::new()
    }
}

impl BackupOptions {
    /// A full backup, compressed at level 1, which ends at the first damaged page and gives way to writers.
    #[must_use]
    pub fn new() -> BackupOptions {
        let (stream, copy) = (StreamOptions::new(), CopyOptions::new());
        BackupOptions { stream, copy, base: None, yields: true }
    }

    /// Whether the backup gives way to writers: while others commit, it reads a quarter of the time, and
    /// takes about twice as long. Default: yes. What limits it otherwise is the rate of `Control`.
    #[must_use]
    pub fn yields(mut self, yields: bool) -> BackupOptions {
        self.yields = yields;
        self
    }

    /// How the stream is written: level, threads, encryption.
    #[must_use]
    pub fn stream(mut self, options: StreamOptions) -> BackupOptions {
        self.stream = options;
        self
    }

    /// Only what has changed since an earlier backup: an increment.
    #[must_use]
    pub fn base(mut self, base: Base) -> BackupOptions {
        self.copy = self.copy.base(base);
        self.base = Some(base);
        self
    }

    /// Bytes that may be taken on the disk for what the database writes over before the backup has read
    /// it; see [`CopyOptions::side_file_max`].
    #[must_use]
    pub fn side_file_max(mut self, bytes: u64) -> BackupOptions {
        self.copy = self.copy.side_file_max(bytes);
        self
    }

    /// Whether damaged pages are left out and listed, instead of being an error. What is restored of
    /// such a backup is as damaged. Default: no.
    #[must_use]
    pub fn skip_damage(mut self, skip: bool) -> BackupOptions {
        self.copy = self.copy.skip_damage(skip);
        self
    }
}

/// What a backup has written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// The stream.
    pub summary: StreamSummary,
    /// An increment: whether the database knew what has changed. Otherwise all of it was read.
    pub is_from_map: bool,
    /// Damaged pages that were left out, the first 1,000 of them.
    pub damage: Vec<FoundDamage>,
    /// How many there were.
    pub damage_count: u64,
}

/// Writes a backup of `db`, as of its newest commit, to `out`, which is flushed and returned; who needs
/// it durable syncs it. Writers and readers go on meanwhile, however slow `out` is. `control` counts and
/// limits the bytes of pages that are read.
///
/// ```
/// use treepie_snapshot::{BackupOptions, Control, RestoreOptions, backup, restore};
///
/// # fn main() -> treepie_snapshot::Result<()> {
/// # let dir = tempfile::tempdir().expect("a folder");
/// let db = treepie::Database::open(dir.path().join("birds"))?;
/// db.write(|tx| tx.tree("birds")?.insert("pica pica", "magpie"))?;
/// let (stream, report) = backup(&db, Vec::new(), &BackupOptions::new(), Control::new())?;
///
/// let copy = dir.path().join("copy");
/// let restored = restore(&stream[..], &copy, &RestoreOptions::new(), Control::new())?;
/// assert_eq!(restored.position, report.summary.last);
/// let copy = treepie::Database::open(copy)?;
/// assert_eq!(copy.read()?.tree("birds")?.get("pica pica")?, Some(&b"magpie"[..]));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Engine`](crate::Error::Engine): a damaged page, with its number, tree and offset; a base that the database does not
/// continue; a side file that is full. [`Error::Io`](crate::Error::Io) and [`Error::Cancelled`](crate::Error::Cancelled).
pub fn backup<W: Write>(
    db: &Database,
    out: W,
    options: &BackupOptions,
    control: Control,
) -> Result<(W, BackupReport)> {
    Running::begin(db, out, options, control)?.run()
}

/// A backup that has begun: its LSN is known.
pub(crate) struct Running<W: Write> {
    copy: PageCopy,
    meter: Paced<io::Sink>,
    writer: StreamWriter<W>,
    position: Position,
    pauses: Pauses,
}

/// Rests beside writers.
struct Pauses {
    yields: bool,
    since: Instant,
    newest: Lsn,
}

impl Pauses {
    fn new(yields: bool, newest: Lsn) -> Pauses {
        Pauses { yields, since: Instant::now(), newest }
    }

    /// Rests if somebody has committed since the last time.
    fn pause(&mut self, newest: Lsn) {
        if self.yields && newest > self.newest {
            thread::sleep((self.since.elapsed() * REST).min(REST_MAX));
        }
        (self.since, self.newest) = (Instant::now(), newest);
    }
}

impl<W: Write> Running<W> {
    fn begin(
        db: &Database,
        out: W,
        options: &BackupOptions,
        control: Control,
    ) -> Result<Running<W>> {
        let copy = db.copy_pages(&options.copy)?;
        Running::of_copy(copy, out, options, control)
    }

    pub(crate) fn of_copy(
        copy: PageCopy,
        out: W,
        options: &BackupOptions,
        control: Control,
    ) -> Result<Running<W>> {
        let position = Position { lsn: copy.lsn(), chain: copy.chain() };
        let base = options.base.map(|base| Position { lsn: base.lsn, chain: base.chain });
        let header = StreamHeader {
            kind: if base.is_some() { StreamKind::Increment } else { StreamKind::Full },
            lineage: copy.lineage(),
            page_size: copy.page_size(),
            page_count: copy.page_count(),
            position,
            base: base.unwrap_or_default(),
            time_us: copy.time_us(),
            database_created_us: copy.created_us(),
            created_us: copy.began_us(),
        };
        let total = copy.used_pages().saturating_mul(copy.page_size() as u64);
        let control = control.total_if_unknown(Some(total));
        let meter = control.pace(io::sink());
        let writer = StreamWriter::new(out, header, &options.stream)?;
        let pauses = Pauses::new(options.yields, copy.newest_lsn());
        Ok(Running { copy, meter, writer, position, pauses })
    }

    /// Copies everything.
    pub(crate) fn run(mut self) -> Result<(W, BackupReport)> {
        let page_size = self.copy.page_size() as u64;
        let mut chunk = Vec::new();
        let mut noted = 0;
        loop {
            chunk.clear();
            let step = self.copy.step(&mut chunk, CHUNK_LEN)?;
            // What was read counts, also where an increment leaves it out.
            let read = self.copy.pages_read();
            self.meter.note((read - noted) * page_size)?;
            noted = read;
            self.pauses.pause(self.copy.newest_lsn());
            match step {
                CopyStep::Pages(first) => self.writer.pages(first, &chunk)?,
                CopyStep::Nothing => {}
                CopyStep::End => break,
            }
        }
        let (out, summary) = self.writer.finish(self.position)?;
        self.meter.finish();
        let report = BackupReport {
            summary,
            is_from_map: self.copy.is_from_map(),
            damage: self.copy.damage().to_vec(),
            damage_count: self.copy.damage_count(),
        };
        Ok((out, report))
    }
}

impl BackupOptions {
    pub(crate) fn is_increment(&self) -> bool {
        self.base.is_some()
    }

    pub(crate) fn copy_options(&self) -> &CopyOptions {
        &self.copy
    }
}
