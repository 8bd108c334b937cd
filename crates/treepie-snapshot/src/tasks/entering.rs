//! Entering streams that were written without the lock of the repository.
//!
//! The archive takes the lock for each of its files, so whoever finds it taken waits a little. At the
//! end of a long stream that wait is long: longer than a lock lives that somebody has died with.

use std::time::{Duration, Instant};

use crate::{
    error::Result,
    progress::CancelToken,
    repository::{Description, Entry, NewStream, Repository, RepositoryWriter},
};

/// Longest wait for the lock before a stream is begun.
const BEGIN_WAIT_MAX: Duration = Duration::from_secs(1);
/// Longest wait for the lock at the end of a stream.
pub(super) const ENTER_WAIT_MAX: Duration = Duration::from_secs(600);
/// Wait before the repository is tried again that another writer has locked.
pub(super) const LOCKED_WAIT: Duration = Duration::from_millis(200);
/// The same before a stream is begun.
const BEGIN_WAIT: Duration = Duration::from_millis(20);

/// Reads the manifest again, under the lock: whoever is at work for long is told of at once, and not
/// only when the stream has been written.
pub(super) fn looked_at(
    repository: &Repository,
    purpose: &str,
    token: &CancelToken,
) -> Result<Repository> {
    let _writer = lock(repository, purpose, token, (BEGIN_WAIT, BEGIN_WAIT_MAX))?;
    let mut repository = repository.clone();
    repository.refresh()?;
    Ok(repository)
}

/// Finishes a stream and enters it, as soon as the repository is not locked.
pub(super) fn enter(
    repository: &Repository,
    purpose: &str,
    token: &CancelToken,
    new: NewStream,
    description: Description,
) -> Result<Entry> {
    let mut writer = lock(repository, purpose, token, (LOCKED_WAIT, ENTER_WAIT_MAX))?;
    Ok(writer.add(new, description)?)
}

fn lock(
    repository: &Repository,
    purpose: &str,
    token: &CancelToken,
    (wait, wait_max): (Duration, Duration),
) -> Result<RepositoryWriter> {
    let begin = Instant::now();
    loop {
        match repository.writer(purpose) {
            Err(error) if error.is_contention() && begin.elapsed() < wait_max => {
                tracing::debug!(%error, purpose, "waiting for the repository");
                token.wait(wait)?;
            }
            writer => return Ok(writer?),
        }
    }
}
