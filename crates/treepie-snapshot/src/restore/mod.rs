//! Restores: streams become a database again, in a folder beside its name until it is complete.
//!
//! 1. The first stream is a full one; increments and records follow, each on the state before it.
//! 2. Pages and records are installed ([`treepie::Installer`]). One that was interrupted goes on where
//!    it was: what is installed already is read again and passed over. It is proved to be of the
//!    same history by the chain hash of its LSN, which some stream must pass.
//! 3. Every page is checked, and the pages of the last stream of pages are hashed and compared with
//!    what its trailer says.
//! 4. The database begins a lineage of its own, and gets its name.

mod check;
mod options;
mod restorer;

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use treepie::{CheckReport, DatabaseState, Lineage, Reached};

use crate::{
    error::{Error, Result},
    format::header::Position,
    progress::Control,
    repository::{Plan, Repository, Step, Until},
    stream::StreamReader,
};

pub use self::{options::RestoreOptions, restorer::Restorer};

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
    let mut input = control.pace(input);
    let reader = StreamReader::new(&mut input, &options.read)?;
    // Nothing is made of what is no stream.
    let mut restorer = Restorer::begin(target, options)?;
    restorer.apply(reader, options.until)?;
    input.finish();
    finish_at(restorer, options.until)
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
    finish_at(restorer, options.until)
}

/// Streams that end before the LSN that was asked for are no restore to it.
fn finish_at(restorer: Restorer, until: Until) -> Result<RestoreReport> {
    let found = restorer.position().lsn;
    match until {
        Until::Lsn(wanted) if found < wanted => {
            Err(Error::Chain { wanted, found, reason: "the streams end before the LSN to restore" })
        }
        _ => restorer.finish(),
    }
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
    let fits = leads_through(plan, restorer.reached());
    restorer.decide(fits)?;
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

/// Whether a plan leads through where an earlier attempt has come, so that this can be gone on with.
fn leads_through(plan: &Plan, reached: &Reached) -> bool {
    let passes = |position: Position| plan.steps.iter().any(|step| is_on(step, plan, position));
    let of = |state: &DatabaseState| Position { lsn: state.lsn, chain: state.chain };
    match reached {
        Reached::Nothing => false,
        Reached::State(state) => passes(of(state)),
        // Only records lead on from there.
        Reached::Records { state, written_to, written_chain } => {
            let written = Position { lsn: *written_to, chain: *written_chain };
            let has_pages_between = plan.steps.iter().any(|step| {
                let last = step.entry.stream.last.lsn;
                step.entry.is_snapshot() && last > state.lsn
            });
            passes(of(state)) && passes(written) && !has_pages_between
        }
        Reached::Pages { coming, base, .. } => {
            let is_coming = |step: &Step| {
                let (stream, base) = (&step.entry.stream, base.unwrap_or_default());
                step.entry.is_snapshot()
                    && (stream.lineage, stream.last) == (coming.lineage, of(coming))
                    && (stream.base.lsn, stream.base.chain) == base
            };
            plan.steps.iter().any(is_coming)
        }
    }
}

/// Whether a step leads through a position: as its end, or among its records.
fn is_on(step: &Step, plan: &Plan, position: Position) -> bool {
    let stream = &step.entry.stream;
    if step.until == Until::End && stream.last.lsn == position.lsn {
        return stream.last == position;
    }
    let end = match step.until {
        Until::End => stream.last.lsn,
        Until::Lsn(lsn) => lsn,
        Until::Time { .. } => plan.lsn,
    };
    let is_records = !step.entry.is_snapshot();
    // Its chain hash is compared when the record comes.
    is_records && stream.base.lsn < position.lsn && position.lsn <= end
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
