//! Verifying a repository: every stream that was not verified before, from its first byte to its last.

use std::time::{Duration, Instant};

use crate::{
    error::{Error, Result},
    progress::Control,
    repository::{Entry, FilesReport, Repository, Watermark},
    stream::{ReadOptions, StreamReader, StreamSummary},
};

use super::describe;

/// Time between two notes of what was verified: it is one file, written anew each time.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);

/// What a verification has found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RepositoryReport {
    /// Streams that were read and are whole.
    pub verified: Vec<Entry>,
    /// Streams that earlier verifications have read, and that were not read again.
    pub known_count: usize,
    /// Streams that are damaged, and how.
    pub faults: Vec<StreamFault>,
    /// What is missing, and what is left over.
    pub files: FilesReport,
}

impl RepositoryReport {
    /// Whether everything that the manifest names can be relied on.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.files.is_sound()
    }
}

/// A stream that cannot be relied on.
#[derive(Debug)]
pub struct StreamFault {
    /// Its entry.
    pub entry: Entry,
    /// What is wrong with it.
    pub error: Error,
}

/// Verifies the streams of a repository that were not verified before, or with `all` every one: structure,
/// checksums, chain, digest, and that each is what the manifest says. Damage is in the report.
///
/// # Errors
/// [`Error::Repository`] when the store cannot be listed; [`Error::Cancelled`]: what was verified before
/// is noted then.
pub fn verify_repository(
    repository: &Repository,
    all: bool,
    options: &ReadOptions,
    control: Control,
) -> Result<RepositoryReport> {
    let store = &**repository.store();
    let mut watermark = Watermark::load(store)?;
    watermark.retain(repository.manifest());
    let mut report = RepositoryReport { files: repository.files()?, ..RepositoryReport::default() };
    let before = watermark.clone();
    let verified = verify_pending(repository, all, options, control, (&mut watermark, &mut report));
    // What was read counts, also where something ended it.
    let saved = if watermark == before { Ok(()) } else { watermark.save(store) };
    verified?;
    saved?;
    Ok(report)
}

/// Verifies what is pending, and notes it now and then.
fn verify_pending(
    repository: &Repository,
    all: bool,
    options: &ReadOptions,
    control: Control,
    (watermark, report): (&mut Watermark, &mut RepositoryReport),
) -> Result<()> {
    let store = &**repository.store();
    let pending = watermark.pending(repository.manifest(), all);
    report.known_count = repository.manifest().entries.len() - pending.len();
    let bytes = pending.iter().map(|entry| entry.bytes).sum();
    let mut meter = control.total_if_unknown(Some(bytes)).pace(std::io::sink());
    let mut saved = Instant::now();
    for entry in pending {
        match verify_entry(repository, entry, options, &mut |len| meter.note(len)) {
            Ok(()) => {
                watermark.note(entry, store.now_us());
                report.verified.push(entry.clone());
            }
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            // A file that is missing is in the other list.
            Err(_) if report.files.missing.contains(entry) => {}
            Err(error) => {
                watermark.forget(entry);
                report.faults.push(StreamFault { entry: entry.clone(), error });
            }
        }
        if saved.elapsed() >= SAVE_INTERVAL {
            watermark.save(store)?;
            saved = Instant::now();
        }
    }
    meter.finish();
    Ok(())
}

fn verify_entry(
    repository: &Repository,
    entry: &Entry,
    options: &ReadOptions,
    count: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let input = repository.open_stream(entry, 0)?;
    let mut reader = StreamReader::new(input, options)?;
    let mut counted = 0;
    while reader.next()?.is_some() {
        let read = reader.stored_len();
        count(read - counted)?;
        counted = read;
    }
    let summary = *reader.summary().expect("it was read to its end");
    count(summary.stored_len.saturating_sub(counted))?;
    match difference(entry, &summary) {
        Some(what) => Err(Error::Mismatch { file: entry.file.to_string(), what }),
        None => Ok(()),
    }
}

fn difference(entry: &Entry, summary: &StreamSummary) -> Option<&'static str> {
    let found = describe(summary);
    let expected = &entry.stream;
    if summary.stored_len != entry.bytes {
        Some("has bytes behind its end, or another length than the manifest says")
    } else if found.digest != expected.digest {
        Some("is whole, and another stream than the manifest says")
    } else if (found.kind, found.lineage, found.base, found.last)
        != (expected.kind, expected.lineage, expected.base, expected.last)
    {
        Some("is whole, and the manifest says wrong things of it")
    } else {
        None
    }
}
