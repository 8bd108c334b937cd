//! Restores: streams become a database again, in a folder beside its name until it is complete.
//!
//! 1. The first stream is a full one; increments and records follow, each on the state before it.
//! 2. Pages and records are installed ([`treepie::Installer`]). One that was interrupted goes on where
//!    it was: what is installed already is read again and passed over. It is proved to be of the
//!    same history by the chain hash of its LSN, which some stream must pass.
//! 3. Every page is checked, and the pages of the last stream of pages are hashed and compared with
//!    what its trailer says.
//! 4. The database begins a lineage of its own, and gets its name.

mod options;

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use treepie::{
    Base, CheckReport, CopyOptions, Database, DatabaseState, Installer, JournalPosition, Lineage,
    Reached, Sealed,
    ids::{DatabaseId, Lsn},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    error::{Error, Result},
    format::{
        header::{Position, StreamHeader, StreamKind},
        records::RecordHead,
    },
    hash::{Digest, PageHasher},
    progress::Control,
    repository::{Plan, Repository, Until},
    stream::{Content, RecordBuffer, StreamReader},
};

pub use self::options::RestoreOptions;

/// Bytes of pages that are read at a time to compare them.
const CHUNK_LEN: usize = 1 << 20;

/// What a restore has made.
#[derive(Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The folder.
    pub path: PathBuf,
    /// Its lineage.
    pub lineage: Lineage,
    /// Its state.
    pub position: Position,
    /// Wall clock of its last record, microseconds since 1970.
    pub time_us: u64,
    /// Pages that were written; those that an earlier attempt had written are not counted.
    pub pages: u64,
    /// Records that were applied.
    pub records: u64,
    /// Bytes of streams that were read.
    pub stored_len: u64,
    /// Whether it went on from an attempt that was interrupted.
    pub is_resumed: bool,
    /// What the check found, which is nothing, if there was one.
    pub check: Option<CheckReport>,
}

/// Restores the database of one stream into the folder `target`, which must not be there, or be empty.
/// Until everything is verified, there is only `<target>.partial`; a restore that was interrupted goes on
/// from there. `control` counts and limits the bytes of the stream.
///
/// # Errors
/// Those of [`StreamReader`]; [`Error::Engine`] when the target is there, or cannot be written;
/// [`Error::Chain`] when the stream needs others before it; [`Error::Restored`] when what was made is not
/// what the stream says. Nothing is published then.
pub fn restore<R: Read>(
    input: R,
    target: impl AsRef<Path>,
    options: &RestoreOptions,
    control: Control,
) -> Result<RestoreReport> {
    let mut restorer = Restorer::begin(target, options)?;
    let mut input = control.pace(input);
    let reader = StreamReader::new(&mut input, &options.read)?;
    restorer.apply(reader, options.until)?;
    input.finish();
    restorer.finish()
}

/// As [`restore`], from a full stream and those that follow it.
///
/// # Errors
/// As [`restore`].
pub fn restore_chain<R: Read>(
    inputs: impl IntoIterator<Item = R>,
    target: impl AsRef<Path>,
    options: &RestoreOptions,
    control: Control,
) -> Result<RestoreReport> {
    let mut restorer = Restorer::begin(target, options)?;
    let mut meter = control.pace(io::empty());
    for input in inputs {
        let reader = StreamReader::new(Metered { input, meter: &mut meter }, &options.read)?;
        if !restorer.apply(reader, options.until)? {
            break;
        }
    }
    meter.finish();
    restorer.finish()
}

/// As [`restore`], from a repository, as it was planned.
///
/// # Errors
/// As [`restore`]; [`Error::Repository`].
pub fn restore_plan(
    repository: &Repository,
    plan: &Plan,
    target: impl AsRef<Path>,
    options: &RestoreOptions,
    control: Control,
) -> Result<RestoreReport> {
    let mut restorer = Restorer::begin(target, options)?;
    let mut meter = control.total(plan.bytes).pace(io::empty());
    for step in &plan.steps {
        let input = repository.open_stream(&step.entry, 0)?;
        let reader = StreamReader::new(Metered { input, meter: &mut meter }, &options.read)?;
        let stream = &step.entry.stream;
        if reader.header().lineage != stream.lineage {
            return Err(Error::Chain {
                wanted: stream.last.lsn,
                found: reader.header().position.lsn,
                reason: "the file holds another stream than the manifest says; verify the repository",
            });
        }
        restorer.apply(reader, step.until)?;
        let reached = restorer.position();
        if step.chain.is_some_and(|chain| chain != reached.chain) {
            return Err(Error::Chain {
                wanted: stream.last.lsn,
                found: reached.lsn,
                reason: "it leads to another state than the manifest says; verify the repository",
            });
        }
    }
    meter.finish();
    restorer.finish()
}

/// A reader whose bytes are counted together with those of others.
struct Metered<'a, R> {
    input: R,
    meter: &'a mut crate::progress::Paced<io::Empty>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.meter.admit(buffer.len())?;
        let len = self.input.read(buffer.get_mut(..len).unwrap_or_default())?;
        self.meter.passed(len);
        Ok(len)
    }
}

/// The pages of the last stream of pages, to be compared at the end.
#[derive(Clone, Copy, Debug)]
struct PagesOf {
    position: Position,
    base: Option<Position>,
    page_hash: Digest,
}

/// A restore, stream by stream: a full one first. [`restore`] and its like are made of it.
#[derive(Debug)]
pub struct Restorer {
    installer: Installer,
    options: RestoreOptions,
    target: PathBuf,
    /// Where an attempt that was interrupted had come, until a stream proves that it is of its history.
    unproved: Option<Position>,
    /// Where the streams have led so far.
    position: Position,
    is_begun: bool,
    database_id: DatabaseId,
    last_pages: Option<PagesOf>,
    report: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    pages: u64,
    records: u64,
    stored_len: u64,
    time_us: u64,
    is_resumed: bool,
}

/// What to do with the pages of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PagesAre {
    Needed,
    /// The state that they lead to, or a later one, is installed.
    There,
}

impl Restorer {
    /// Begins a restore, or goes on with one.
    ///
    /// # Errors
    /// [`Error::Engine`].
    pub fn begin(target: impl AsRef<Path>, options: &RestoreOptions) -> Result<Restorer> {
        let installer = options.engine.install(&target)?;
        Ok(Restorer {
            installer,
            options: options.clone(),
            target: target.as_ref().to_owned(),
            unproved: None,
            position: Position::default(),
            is_begun: false,
            database_id: DatabaseId::default(),
            last_pages: None,
            report: Counts::default(),
        })
    }

    /// Where the streams have led.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Installs a stream, up to `until`; returns whether later streams are wanted. The first one is full.
    ///
    /// # Errors
    /// As [`restore`].
    pub fn apply<R: Read>(&mut self, mut reader: StreamReader<R>, until: Until) -> Result<bool> {
        let header = *reader.header();
        let pages_are = self.begin_stream(&header, until)?;
        let mut has_pages = header.kind != StreamKind::Records;
        let mut buffer = RecordBuffer::new();
        let mut goes_on = true;
        while let Some(content) = reader.next()? {
            match content {
                Content::Pages(_) if pages_are == PagesAre::There => {}
                Content::Pages(pages) => self.install_pages(&pages, header.page_size)?,
                Content::Record(piece) => {
                    if has_pages {
                        self.end_pages(&header, pages_are)?;
                        has_pages = false;
                    }
                    let Some((lsn, bytes)) = buffer.push(&piece) else { continue };
                    if is_past(lsn, bytes, until) {
                        goes_on = false;
                        break;
                    }
                    self.install_record(lsn, bytes)?;
                }
            }
        }
        self.report.stored_len += reader.stored_len();
        if has_pages {
            self.end_pages(&header, pages_are)?;
        }
        if header.kind != StreamKind::Records {
            let page_hash = reader.summary().map(|summary| summary.page_hash);
            let base = (header.kind == StreamKind::Increment).then_some(header.base);
            let position = header.position;
            self.last_pages = page_hash.map(|page_hash| PagesOf { position, base, page_hash });
        }
        let is_reached = matches!(until, Until::Lsn(lsn) if self.position.lsn >= lsn);
        Ok(goes_on && !is_reached)
    }

    /// Finds out what of a stream is installed already, and announces the pages that are not.
    fn begin_stream(&mut self, header: &StreamHeader, until: Until) -> Result<PagesAre> {
        self.check_follows(header)?;
        if !std::mem::replace(&mut self.is_begun, true) {
            self.find_attempt(header, until)?;
        }
        if header.kind == StreamKind::Records {
            return Ok(PagesAre::There);
        }
        if matches!(until, Until::Lsn(lsn) if lsn < header.position.lsn) {
            let reason =
                "the pages of this stream are newer than the LSN to restore; use an older one";
            return Err(self.chain_error(header.position.lsn, reason));
        }
        if self.installed().is_some_and(|installed| installed.lsn >= header.position.lsn) {
            self.prove(header.position)?;
            return Ok(PagesAre::There);
        }
        let base = (header.kind == StreamKind::Increment)
            .then_some(JournalPosition { lsn: header.base.lsn, chain: header.base.chain });
        self.installer.begin_pages(&state_of(header), base)?;
        Ok(PagesAre::Needed)
    }

    /// Each stream continues where those before it have led; records may begin earlier.
    fn check_follows(&mut self, header: &StreamHeader) -> Result<()> {
        let id = header.lineage.database_id;
        let reason = match (self.is_begun, header.kind) {
            (false, StreamKind::Full) => {
                self.database_id = id;
                return Ok(());
            }
            (false, _) => "a restore begins with a full backup",
            (true, StreamKind::Full) => "a full backup cannot follow another stream",
            (true, _) if id != self.database_id => "the stream is of another database",
            (true, StreamKind::Increment) if header.base == self.position => return Ok(()),
            (true, StreamKind::Increment) => "it is an increment on another state",
            (true, StreamKind::Records) if header.base.lsn < self.position.lsn => return Ok(()),
            (true, StreamKind::Records) if header.base == self.position => return Ok(()),
            (true, StreamKind::Records) if header.base.lsn > self.position.lsn => {
                "records are missing before it"
            }
            (true, StreamKind::Records) => "its records continue another history",
        };
        Err(self.chain_error(header.base.lsn, reason))
    }

    fn chain_error(&self, wanted: Lsn, reason: &'static str) -> Error {
        Error::Chain { wanted, found: self.position.lsn, reason }
    }

    /// Decides whether what an earlier attempt has left can be gone on with; else it is cleared away.
    fn find_attempt(&mut self, header: &StreamHeader, until: Until) -> Result<()> {
        let limit = match until {
            Until::Lsn(lsn) | Until::Time { lsn_max: lsn, .. } => lsn,
            Until::End => Lsn(u64::MAX),
        };
        let id = header.lineage.database_id;
        let is_same = |state: &DatabaseState| {
            state.lineage.database_id == id && state.page_size == header.page_size
        };
        // By a time nobody knows how far it goes: records are installed from the start.
        let has_time = matches!(until, Until::Time { .. });
        let fits = match *self.installer.reached() {
            Reached::Nothing => false,
            Reached::Pages { coming, base: None, .. } => coming == state_of(header),
            Reached::Pages { coming, .. } => is_same(&coming) && coming.lsn <= limit && !has_time,
            Reached::State(state) => {
                let is_first =
                    state.lsn == header.position.lsn && state.chain == header.position.chain;
                is_same(&state) && state.lsn <= limit && (is_first || !has_time)
            }
            Reached::Records { state, written_to } => {
                is_same(&state) && written_to <= limit && !has_time
            }
        };
        if !fits {
            self.installer.clear()?;
            return Ok(());
        }
        self.report.is_resumed = true;
        self.unproved = self.installed();
        Ok(())
    }

    /// The state that is installed as a whole.
    fn installed(&self) -> Option<Position> {
        match *self.installer.reached() {
            Reached::State(state) | Reached::Records { state, .. } => {
                Some(Position { lsn: state.lsn, chain: state.chain })
            }
            Reached::Pages { base: Some((lsn, chain)), .. } => Some(Position { lsn, chain }),
            _ => None,
        }
    }

    /// The streams pass this position: if it is where the earlier attempt had come, it must be the same.
    fn prove(&mut self, passed: Position) -> Result<()> {
        let Some(unproved) = self.unproved.filter(|unproved| unproved.lsn == passed.lsn) else {
            return Ok(());
        };
        if unproved.chain != passed.chain {
            return Err(Error::Chain {
                wanted: passed.lsn,
                found: unproved.lsn,
                reason: "an earlier attempt has restored another history here; remove `.partial`",
            });
        }
        self.unproved = None;
        Ok(())
    }

    fn install_pages(&mut self, pages: &crate::Pages<'_>, page_size: usize) -> Result<()> {
        for run in pages.runs() {
            self.report.pages += u64::from(run.count);
            match run.bytes {
                Some(bytes) => self.installer.pages(run.first, bytes)?,
                None => {
                    let zeros = vec![0; page_size];
                    for number in run.first.0..run.first.0 + run.count {
                        self.installer.pages(treepie::ids::PageId(number), &zeros)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn end_pages(&mut self, header: &StreamHeader, pages_are: PagesAre) -> Result<()> {
        if pages_are == PagesAre::Needed {
            self.installer.end_pages()?;
        }
        self.position = header.position;
        self.report.time_us = header.time_us;
        Ok(())
    }

    fn install_record(&mut self, lsn: Lsn, bytes: &[u8]) -> Result<()> {
        if lsn < self.position.lsn {
            return Ok(());
        }
        if lsn == self.position.lsn {
            let is_same = xxh3_64(bytes) == self.position.chain;
            let other = || self.chain_error(lsn, "its records are of another history");
            return if is_same { Ok(()) } else { Err(other()) };
        }
        if self.installed().is_some_and(|installed| lsn <= installed.lsn) {
            // The attempt before this one has installed it.
            let passed = Position { lsn, chain: xxh3_64(bytes) };
            self.prove(passed)?;
            self.position = passed;
        } else {
            let at = self.installer.record(bytes)?;
            self.position = Position { lsn: at.lsn, chain: at.chain };
            self.report.records += 1;
        }
        self.report.time_us =
            RecordHead::decode(bytes).map_or(self.report.time_us, |head| head.time_us);
        Ok(())
    }

    /// Verifies what was made, and gives it its name.
    ///
    /// # Errors
    /// As [`restore`].
    pub fn finish(self) -> Result<RestoreReport> {
        if let Some(unproved) = self.unproved {
            return Err(Error::Chain {
                wanted: unproved.lsn,
                found: self.position.lsn,
                reason: "an earlier attempt has gone further than these streams; remove `.partial`",
            });
        }
        let mut sealed = self.installer.seal()?;
        let position = Position { lsn: sealed.state().lsn, chain: sealed.state().chain };
        if position != self.position {
            let what = format!("it is at LSN {}, not at {}", position.lsn, self.position.lsn);
            return Err(Error::Restored { path: sealed.path().to_owned(), what });
        }
        let check = match self.options.is_checked {
            true => Some(check(&sealed, &self.options, self.last_pages)?),
            false => None,
        };
        if !self.options.is_replica {
            sealed.fork()?;
        }
        let lineage = sealed.state().lineage;
        let path = sealed.publish()?;
        debug_assert_eq!(path, self.target);
        let Counts { pages, records, stored_len, time_us, is_resumed } = self.report;
        Ok(RestoreReport {
            path,
            lineage,
            position,
            time_us,
            pages,
            records,
            stored_len,
            is_resumed,
            check,
        })
    }
}

fn state_of(header: &StreamHeader) -> DatabaseState {
    DatabaseState {
        lineage: header.lineage,
        page_size: header.page_size,
        page_count: header.page_count,
        lsn: header.position.lsn,
        chain: header.position.chain,
        created_us: header.database_created_us,
    }
}

fn is_past(lsn: Lsn, bytes: &[u8], until: Until) -> bool {
    match until {
        Until::End => false,
        Until::Lsn(last) => lsn > last,
        Until::Time { time_us, lsn_max } => {
            lsn > lsn_max || RecordHead::decode(bytes).is_ok_and(|head| head.time_us > time_us)
        }
    }
}

/// Opens what was made, checks it, and compares its pages with those that the last stream of pages had.
fn check(sealed: &Sealed, options: &RestoreOptions, pages: Option<PagesOf>) -> Result<CheckReport> {
    let restored = |what: String| Error::Restored { path: sealed.path().to_owned(), what };
    let db = options.engine.clone().create(false).open(sealed.path())?;
    let report = db.check()?;
    if let Some(problem) = report.problems.first() {
        let count = report.problems.len();
        return Err(restored(format!("the check finds {count} problems, the first: {problem}")));
    }
    if let Some(pages) = pages.filter(|pages| pages.position.lsn == sealed.state().lsn) {
        let found = page_hash(&db, pages.base)?;
        if found != pages.page_hash {
            return Err(restored("its pages are not those of the stream".to_owned()));
        }
    }
    db.close()?;
    Ok(report)
}

/// The hash of all used pages, or of those that have changed since `base`.
fn page_hash(db: &Database, base: Option<Position>) -> Result<Digest> {
    let mut options = CopyOptions::new();
    if let Some(base) = base {
        options = options.base(Base { lineage: db.lineage(), lsn: base.lsn, chain: base.chain });
    }
    let mut copy = db.copy_pages(&options)?;
    let mut hasher = PageHasher::new(db.page_size());
    let mut chunk = Vec::new();
    while let Some(first) = copy.next(&mut chunk, CHUNK_LEN)? {
        hasher.push(first, &chunk);
        chunk.clear();
    }
    Ok(hasher.finish())
}
