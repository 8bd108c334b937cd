//! `archive`: the records of the journal, in a repository.

use std::time::Instant;

use serde::Serialize;
use treepie_snapshot::{
    ArchiveOptions, ArchiveReport, Archiver, archive, repository::ArchivePolicy,
};

use super::look_to_copy;
use crate::{
    arguments::backup::Archive,
    failure::Result,
    output::{Output, bytes, grouped},
    place,
    work::{Work, stream_options},
};

#[derive(Serialize)]
struct ArchiveObject {
    records: u64,
    first_lsn: Option<u64>,
    lsn: Option<u64>,
    raw_bytes: u64,
    stored_bytes: u64,
    files: Vec<String>,
    /// First and last record that are missing before them.
    hole: Option<(u64, u64)>,
    seconds: f64,
}

/// Archives.
pub fn run(arguments: &Archive, output: &mut Output) -> Result<()> {
    let policy = ArchivePolicy { bytes_max: arguments.max_bytes, age_max_us: arguments.max_age };
    let options = ArchiveOptions::new()
        .stream(stream_options(&arguments.writing, arguments.key.as_deref())?)
        .policy(policy)
        .over_holes(arguments.over_holes);
    let started = Instant::now();
    let report = look_to_copy(&arguments.db, |db| {
        let repository = place::repository_to_write(&arguments.repository)?;
        let work = Work::begin()?;
        if !arguments.follow {
            return Ok(archive(db, &repository, &options, work.control(&arguments.pace))?);
        }
        let control = work.unstoppable(&arguments.pace);
        let archiver = Archiver::begin(db, &repository, &options, control)?;
        Ok(archiver.follow(work.cancel())?)
    })?;
    let object = ArchiveObject::new(&report, started);
    output.either(&object, text)
}

impl ArchiveObject {
    fn new(report: &ArchiveReport, started: Instant) -> ArchiveObject {
        let entries = &report.entries;
        ArchiveObject {
            records: report.records,
            first_lsn: entries.first().map(|entry| entry.stream.base.lsn.next().0),
            lsn: entries.last().map(|entry| entry.stream.last.lsn.0),
            raw_bytes: report.raw_len,
            stored_bytes: entries.iter().map(|entry| entry.bytes).sum(),
            files: entries.iter().map(|entry| entry.file.to_string()).collect(),
            hole: report.hole.map(|(first, last)| (first.0, last.0)),
            seconds: started.elapsed().as_secs_f64(),
        }
    }
}

fn text(archive: &ArchiveObject) -> String {
    let hole = archive.hole.map_or_else(String::new, |(first, last)| {
        format!("HOLE: records {first} to {last} are gone; make a backup now\n")
    });
    let (Some(first), Some(last)) = (archive.first_lsn, archive.lsn) else {
        return format!("{hole}nothing was committed that is not archived");
    };
    format!(
        "{hole}{} records, LSN {first} to {last}, {} in {} files of {} and {:.2} s",
        grouped(archive.records),
        bytes(archive.raw_bytes),
        grouped(archive.files.len() as u64),
        bytes(archive.stored_bytes),
        archive.seconds,
    )
}
