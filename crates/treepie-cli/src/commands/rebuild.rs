//! `rebuild`: a repository gets a new list, of the streams themselves.

use serde::Serialize;
use treepie_snapshot::{
    rebuild_manifest,
    repository::{RepositoryError, STREAMS_FOLDER},
};

use crate::{
    arguments::backup::Rebuild,
    failure::{Failure, Result},
    output::Output,
    place,
    work::read_options,
};

#[derive(Serialize)]
struct RebuildObject {
    streams: usize,
    left_out: Vec<LeftOut>,
}

#[derive(Serialize)]
struct LeftOut {
    file: String,
    why: String,
}

/// Rebuilds.
pub fn run(arguments: &Rebuild, output: &mut Output) -> Result<()> {
    let options = read_options(&arguments.keys)?;
    let store = place::store(&arguments.repository)?;
    if store.list(STREAMS_FOLDER)?.is_empty() {
        return Err(RepositoryError::NotFound { place: store.place() }.into());
    }
    let place = store.place();
    let rebuilt = rebuild_manifest(store, &options)?;
    let left_out = rebuilt.left_out.into_iter();
    let object = RebuildObject {
        streams: rebuilt.manifest.entries.len(),
        left_out: left_out.map(|(file, why)| LeftOut { file: file.to_string(), why }).collect(),
    };
    output.either(&object, |object| {
        let left_out = object.left_out.iter();
        let mut lines: Vec<String> =
            left_out.map(|left| format!("LEFT OUT: {}: {}", left.file, left.why)).collect();
        lines.push(format!("{} streams are in the new list", object.streams));
        lines.join("\n")
    })?;
    match object.left_out.len() {
        0 => Ok(()),
        count => Err(Failure::Unreliable { count, place: place.into(), code: 3 }),
    }
}
