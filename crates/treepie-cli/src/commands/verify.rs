//! `verify`: backups are read from end to end, and nothing is made of them.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::Serialize;
use treepie_snapshot::{
    Error as SnapshotError, ReadOptions, RepositoryReport, StreamSummary, describe,
    repository::Repository, verify, verify_repository,
};

use super::open_stream;
use crate::{
    arguments::backup::Verify,
    failure::{Failure, Result, snapshot_code},
    output::{Output, bytes, grouped},
    place::Source,
    time::utc,
    work::{Work, read_options},
};

/// One stream of several.
#[derive(Serialize)]
struct StreamObject {
    file: String,
    whole: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    content: Option<ContentObject>,
}

/// What is in a stream.
#[derive(Serialize)]
struct ContentObject {
    kind: String,
    database: String,
    epoch: u64,
    base_lsn: Option<u64>,
    lsn: u64,
    time_us: u64,
    pages: u64,
    records: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    key_id: Option<String>,
    digest: String,
}

/// What a repository is like.
#[derive(Serialize)]
struct RepositoryObject {
    sound: bool,
    verified: usize,
    known: usize,
    faults: Vec<FaultObject>,
    missing: Vec<String>,
    wrong_length: Vec<String>,
    orphans: Vec<String>,
}

#[derive(Serialize)]
struct FaultObject {
    file: String,
    id: String,
    error: String,
    /// Not so where it could not be read, for want of a key.
    damaged: bool,
}

/// Verifies.
pub fn run(arguments: &Verify, output: &mut Output) -> Result<()> {
    let options = read_options(&arguments.keys)?;
    match Source::of(&arguments.from)? {
        Source::Repository(repository) => of_repository(&repository, arguments, &options, output),
        Source::Files(files) => of_files(&files, arguments, &options, output),
        Source::Stdin => {
            let work = Work::begin()?;
            let control = work.control(&arguments.pace);
            let summary = verify(io::stdin().lock(), &options, control);
            drop(work);
            let file = PathBuf::from("standard input");
            match summary {
                Ok(summary) => tell(&file, &Ok(summary), output),
                Err(source) => Err(Failure::Stream { file, source }),
            }
        }
    }
}

/// Several files are all looked at, whatever is found in one of them.
fn of_files(
    files: &[PathBuf],
    arguments: &Verify,
    options: &ReadOptions,
    output: &mut Output,
) -> Result<()> {
    let work = Work::begin()?;
    let mut failures = Vec::new();
    for path in files {
        let found = of_file(path, arguments, options, &work);
        if work.cancel().is_cancelled() {
            return Err(SnapshotError::Cancelled.into());
        }
        match (found, files.len()) {
            (Err(failure), 1) => return Err(failure),
            (found, _) => {
                tell(path, &found, output)?;
                failures.extend(found.err());
            }
        }
    }
    let worst = failures.iter().map(Failure::code);
    match worst.clone().find(|code| *code == 3).or(worst.clone().next()) {
        None => Ok(()),
        Some(code) => Err(Failure::Unreliable {
            count: failures.len(),
            place: format!("these {}", files.len()).into(),
            code,
        }),
    }
}

fn of_file(
    path: &Path,
    arguments: &Verify,
    options: &ReadOptions,
    work: &Work,
) -> Result<StreamSummary> {
    let file = open_stream(path)?;
    let len = file.metadata().map_err(Failure::io("look at", path))?.len();
    verify_one(file, path, options, work.control(&arguments.pace).total(len))
}

fn verify_one(
    input: impl Read,
    file: &Path,
    options: &ReadOptions,
    control: treepie_snapshot::Control,
) -> Result<StreamSummary> {
    verify(input, options, control)
        .map_err(|source| Failure::Stream { file: file.to_owned(), source })
}

fn tell(file: &Path, found: &Result<StreamSummary>, output: &mut Output) -> Result<()> {
    let object = StreamObject {
        file: file.display().to_string(),
        whole: found.is_ok(),
        error: found.as_ref().err().map(ToString::to_string),
        content: found.as_ref().ok().map(ContentObject::from),
    };
    output.either(&object, |object| match (&object.content, found) {
        (Some(content), Ok(summary)) => format!(
            "{}: whole, {} of {}, epoch {}: {} pages and {} records in {}{}",
            object.file,
            describe(summary).summary(),
            utc(content.time_us),
            content.epoch,
            grouped(content.pages),
            grouped(content.records),
            bytes(content.stored_bytes),
            content.key_id.as_deref().map_or_else(String::new, |id| format!(", encrypted ({id})")),
        ),
        _ => format!("NOT WHOLE: {}", object.error.as_deref().unwrap_or_default()),
    })
}

impl From<&StreamSummary> for ContentObject {
    fn from(summary: &StreamSummary) -> ContentObject {
        let description = describe(summary);
        ContentObject {
            kind: description.kind.to_string(),
            database: description.lineage.database_id.to_string(),
            epoch: description.lineage.epoch,
            base_lsn: (summary.header.base.lsn.0 > 0).then_some(summary.header.base.lsn.0),
            lsn: description.last.lsn.0,
            time_us: description.last_time_us,
            pages: summary.page_count,
            records: summary.record_count,
            raw_bytes: summary.raw_len,
            stored_bytes: summary.stored_len,
            key_id: description.key_id,
            digest: summary.digest.to_string(),
        }
    }
}

fn of_repository(
    repository: &Repository,
    arguments: &Verify,
    options: &ReadOptions,
    output: &mut Output,
) -> Result<()> {
    let work = Work::begin()?;
    let control = work.control(&arguments.pace);
    let report = verify_repository(repository, arguments.all, options, control)?;
    drop(work);
    let object = RepositoryObject::from(&report);
    output.either(&object, text)?;
    let damaged = object.faults.iter().filter(|fault| fault.damaged).count();
    let absent = object.missing.len() + object.wrong_length.len();
    // A file of another length is read too, and found to be cut.
    let count = report.faults.len().max(report.files.wrong_len.len()) + object.missing.len();
    if count == 0 {
        return Ok(());
    }
    let code = if damaged + absent > 0 { 3 } else { 1 };
    Err(Failure::Unreliable { count, place: repository.store().place().into(), code })
}

impl From<&RepositoryReport> for RepositoryObject {
    fn from(report: &RepositoryReport) -> RepositoryObject {
        let faults = report.faults.iter().map(|fault| FaultObject {
            file: fault.entry.file.to_string(),
            id: fault.entry.id.clone(),
            error: fault.error.to_string(),
            damaged: snapshot_code(&fault.error) == 3,
        });
        let files = &report.files;
        RepositoryObject {
            sound: report.is_sound(),
            verified: report.verified.len(),
            known: report.known_count,
            faults: faults.collect(),
            missing: files.missing.iter().map(|entry| entry.file.to_string()).collect(),
            wrong_length: files.wrong_len.iter().map(|(entry, _)| entry.file.to_string()).collect(),
            orphans: files.orphans.iter().map(|orphan| orphan.file.to_string()).collect(),
        }
    }
}

fn text(report: &RepositoryObject) -> String {
    let mut lines = Vec::new();
    for fault in &report.faults {
        let what = if fault.damaged { "DAMAGED" } else { "NOT READ" };
        lines.push(format!("{what}: {} ({}): {}", fault.file, fault.id, fault.error));
    }
    lines.extend(report.missing.iter().map(|file| format!("MISSING: {file}")));
    lines.extend(report.wrong_length.iter().map(|file| format!("WRONG LENGTH: {file}")));
    if !report.orphans.is_empty() {
        let count = report.orphans.len();
        lines.push(format!("{count} files belong to no backup; `prune` removes them after a day"));
    }
    let verdict = if report.sound { "no damage" } else { "DAMAGED" };
    lines.push(format!(
        "{verdict}: {} streams verified, {} known from before",
        grouped(report.verified as u64),
        grouped(report.known as u64),
    ));
    lines.join("\n")
}
