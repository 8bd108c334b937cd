//! A restore, stream by stream.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use treepie::{
    DatabaseState, Installer, JournalPosition, Lineage, Reached,
    ids::{DatabaseId, Lsn, PageId},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    RestoreOptions, RestoreReport,
    check::{PagesOf, check},
};
use crate::{
    error::{Error, Result},
    format::{
        header::{Position, StreamHeader, StreamKind},
        pages::Pages,
        records::RecordHead,
    },
    repository::Until,
    stream::{Content, RecordBuffer, StreamReader},
};

/// A restore, stream by stream: a full one first. `restore` and its like are made of it.
#[derive(Debug)]
pub struct Restorer {
    installer: Installer,
    options: RestoreOptions,
    target: PathBuf,
    /// Where an attempt that was interrupted had come, and up to where pages may have changes, until the
    /// streams prove that both are of their history.
    unproved: Vec<Position>,
    /// Whether that attempt can be gone on with was decided by who knows all streams.
    is_decided: bool,
    /// Lineage of the stream that is being applied.
    lineage: Lineage,
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
            unproved: Vec::new(),
            is_decided: false,
            lineage: Lineage::default(),
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
    /// As `restore`.
    pub fn apply<R: Read>(&mut self, mut reader: StreamReader<R>, until: Until) -> Result<bool> {
        let header = *reader.header();
        self.lineage = header.lineage;
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
        let is_newer = match until {
            Until::End => false,
            Until::Lsn(lsn) => lsn < header.position.lsn,
            Until::Time { time_us, lsn_max } => {
                header.time_us > time_us || header.position.lsn > lsn_max
            }
        };
        if is_newer {
            let reason = "the pages of this stream are newer than what is to be restored; use an \
                          older one";
            return Err(self.chain_error(header.position.lsn, reason));
        }
        if self.installed().is_some_and(|installed| installed.lsn >= header.position.lsn) {
            self.prove(header.position)?;
            return Ok(PagesAre::There);
        }
        let base = (header.kind == StreamKind::Increment)
            .then_some(JournalPosition { lsn: header.base.lsn, chain: header.base.chain });
        let coming = state_of(header);
        if base.is_none() {
            // Nothing is left of an earlier attempt, but for pages of this very stream.
            self.unproved.clear();
            let begun = |reached: &Reached| match reached {
                Reached::Pages { coming, base: None, .. } => Some(*coming),
                _ => None,
            };
            self.report.is_resumed &= begun(self.installer.reached()) == Some(coming);
        }
        self.installer.begin_pages(&coming, base)?;
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
        if self.is_decided {
            return Ok(());
        }
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
            Reached::Records { state, written_to, .. } => {
                is_same(&state) && written_to <= limit && !has_time
            }
        };
        self.decide(fits)
    }

    /// Goes on with what an earlier attempt has left, or clears it away. `fits` says whether the streams
    /// that will come lead through where it is.
    pub(super) fn decide(&mut self, fits: bool) -> Result<()> {
        self.is_decided = true;
        if !fits {
            self.installer.clear()?;
            return Ok(());
        }
        self.report.is_resumed = true;
        self.unproved.extend(self.installed());
        if let Reached::Records { written_to, written_chain, .. } = *self.installer.reached() {
            self.unproved.push(Position { lsn: written_to, chain: written_chain });
        }
        Ok(())
    }

    pub(super) fn reached(&self) -> &Reached {
        self.installer.reached()
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
        let is_other = |unproved: &Position| unproved.lsn == passed.lsn && *unproved != passed;
        if self.unproved.iter().any(is_other) {
            let reason = "an earlier attempt has restored another history here; remove `.partial`";
            return Err(self.chain_error(passed.lsn, reason));
        }
        self.unproved.retain(|unproved| unproved.lsn != passed.lsn);
        Ok(())
    }

    fn install_pages(&mut self, pages: &Pages<'_>, page_size: usize) -> Result<()> {
        for run in pages.runs() {
            self.report.pages += u64::from(run.count);
            match run.bytes {
                Some(bytes) => self.installer.pages(run.first, bytes)?,
                None => {
                    let zeros = vec![0; page_size];
                    for number in run.first.0..run.first.0 + run.count {
                        self.installer.pages(PageId(number), &zeros)?;
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
            let at = self.installer.record(bytes, &self.lineage)?;
            self.position = Position { lsn: at.lsn, chain: at.chain };
            self.prove(self.position)?;
            self.report.records += 1;
        }
        self.report.time_us =
            RecordHead::decode(bytes).map_or(self.report.time_us, |head| head.time_us);
        Ok(())
    }

    /// Verifies what was made, and gives it its name.
    ///
    /// # Errors
    /// As `restore`.
    pub fn finish(self) -> Result<RestoreReport> {
        if let Some(unproved) = self.unproved.first() {
            let reason = "an earlier attempt has gone further than these streams, or another way; \
                          remove `.partial`";
            return Err(self.chain_error(unproved.lsn, reason));
        }
        let mut sealed = self.installer.seal()?;
        let position = Position { lsn: sealed.state().lsn, chain: sealed.state().chain };
        if position != self.position {
            let what = format!("it is at LSN {}, not at {}", position.lsn, self.position.lsn);
            return Err(Error::Restored { path: sealed.path().to_owned(), what });
        }
        let check = match self.options.is_checked {
            true => Some(check(&mut sealed, &self.options, self.last_pages)?),
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

pub(super) fn state_of(header: &StreamHeader) -> DatabaseState {
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
