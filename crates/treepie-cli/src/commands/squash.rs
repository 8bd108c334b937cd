//! `squash`: increments and what they build on become one full backup, without the database.

use serde::Serialize;
use treepie_snapshot::squash;

use crate::{
    arguments::backup::Squash,
    failure::Result,
    output::{Output, bytes},
    place,
    work::{Work, read_options, stream_options},
};

#[derive(Serialize)]
struct SquashObject {
    written: bool,
    id: Option<String>,
    lsn: Option<u64>,
    stored_bytes: u64,
    parts: Vec<String>,
    part_bytes: u64,
}

/// Squashes.
pub fn run(arguments: &Squash, output: &mut Output) -> Result<()> {
    let repository = place::repository(&arguments.repository)?;
    let read = read_options(&arguments.keys)?;
    let key = arguments.keys.keys.first();
    let write = stream_options(&arguments.writing, key.map(|key| key.as_path()))?;
    let branch = arguments.branch.map(|name| name.0);
    let work = Work::begin()?;
    let control = work.control(&arguments.pace);
    let report = squash(&repository, branch, &read, &write, control)?;
    drop(work);
    let entry = report.as_ref().map(|report| &report.entry);
    let parts = report.as_ref().map_or(&[][..], |report| &report.parts);
    let object = SquashObject {
        written: entry.is_some(),
        id: entry.map(|entry| entry.id.clone()),
        lsn: entry.map(|entry| entry.stream.last.lsn.0),
        stored_bytes: entry.map_or(0, |entry| entry.bytes),
        parts: parts.iter().map(|part| part.id.clone()).collect(),
        part_bytes: parts.iter().map(|part| part.bytes).sum(),
    };
    output.either(&object, |object| match (&object.id, object.lsn) {
        (Some(id), Some(lsn)) => format!(
            "full backup {id} at LSN {lsn}: {} of {} streams with {}; `prune` removes what nobody needs",
            bytes(object.stored_bytes),
            object.parts.len(),
            bytes(object.part_bytes),
        ),
        _ => "nothing to squash: the newest backup is a full one".to_owned(),
    })
}
