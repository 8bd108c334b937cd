//! `journal`: the records that the journal keeps.

use std::path::Path;

use serde::Serialize;
use treepie::{RecordSummary, ids::Lsn};

use super::look;
use crate::{arguments::Journal, failure::Result, output::Output, time::utc};

#[derive(Serialize)]
struct RecordObject<'a> {
    lsn: u64,
    term: u64,
    time: String,
    time_us: u64,
    pages_changed: u64,
    pages_freed: u64,
    stored_bytes: u64,
    raw_bytes: u64,
    annotation_bytes: u64,
    file: &'a Path,
    offset: u64,
}

impl<'a> From<&'a RecordSummary> for RecordObject<'a> {
    fn from(record: &'a RecordSummary) -> RecordObject<'a> {
        RecordObject {
            lsn: record.lsn.0,
            term: record.term.0,
            time: utc(record.time_us),
            time_us: record.time_us,
            pages_changed: record.pages_changed,
            pages_freed: record.pages_freed,
            stored_bytes: record.stored_len,
            raw_bytes: record.raw_len,
            annotation_bytes: record.annotation_bytes,
            file: &record.file,
            offset: record.offset,
        }
    }
}

/// Lists records.
pub fn run(arguments: &Journal, output: &mut Output) -> Result<()> {
    let limit =
        arguments.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    look(&arguments.db, |db| {
        if !output.is_json() {
            output.line(format!(
                "{:>10}  {:<26}  {:>7}  {:>10}  {:>12}  file",
                "LSN", "time (UTC)", "pages", "bytes", "offset"
            ))?;
        }
        for record in db.journal_records(Lsn(arguments.from))?.take(limit) {
            let record = record?;
            output.either(&RecordObject::from(&record), text)?;
        }
        Ok(())
    })
}

fn text(record: &RecordObject<'_>) -> String {
    format!(
        "{:>10}  {:<26}  {:>7}  {:>10}  {:>12}  {}",
        record.lsn,
        record.time,
        record.pages_changed,
        record.stored_bytes,
        record.offset,
        record.file.display(),
    )
}
