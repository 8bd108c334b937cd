//! A manifest made anew of the streams themselves.

use std::sync::Arc;

use super::describe;
use crate::{
    error::Result,
    progress::Control,
    repository::{Rebuilt, Repository},
    store::Store,
    stream::{ReadOptions, verify},
};

/// Reads every stream of a store, and makes a new manifest of those that are whole. What is not is left
/// out, and told.
///
/// # Errors
/// [`Error::Repository`](crate::Error::Repository).
pub fn rebuild_manifest(store: Arc<dyn Store>, options: &ReadOptions) -> Result<Rebuilt> {
    let rebuilt = Repository::rebuild(store, |file| {
        let input = file.open(0).map_err(|error| error.to_string())?;
        let summary = verify(input, options, Control::new()).map_err(|error| error.to_string())?;
        Ok(describe(&summary))
    })?;
    Ok(rebuilt)
}
