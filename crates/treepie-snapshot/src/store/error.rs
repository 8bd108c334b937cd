//! What a store can fail with.

use std::io;

use super::Name;

/// What a store can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A call to the medium failed. `action` names it.
    #[error("cannot {action} {name} in {place}: {source}")]
    Io {
        /// The call, as a verb: "open", "write", "sync", …
        action: &'static str,
        /// The file or folder.
        name: String,
        /// The store.
        place: String,
        /// What the medium said.
        source: io::Error,
    },
    /// There is no file of this name. It may have been removed meanwhile.
    #[error("there is no {name} in {place}; list the snapshots again, it may have been removed")]
    NotFound {
        /// The file.
        name: String,
        /// The store.
        place: String,
    },
    /// A name that no file of a store can have.
    #[error("\"{name}\" is no name of a file in a repository: {reason}")]
    Name {
        /// The beginning of it.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another writer is at work.
    #[error("{place} is locked by {owner}; wait until it is done")]
    Locked {
        /// The store.
        place: String,
        /// Who has the lock, since when and for what, as far as it is known.
        owner: String,
    },
    /// The lock expired and another writer took it. Nothing was changed since; begin again.
    #[error("the lock of {place} was lost to {owner}; begin again")]
    LockLost {
        /// The store.
        place: String,
        /// Who has the lock now.
        owner: String,
    },
    /// A bound was reached.
    #[error("{place}: {what}")]
    Bound {
        /// The store.
        place: String,
        /// Which, and what can be done.
        what: String,
    },
}

impl StoreError {
    /// Builds the adapter for `map_err` that gives a failed call its context.
    pub(crate) fn io(
        action: &'static str,
        name: &Name,
        place: String,
    ) -> impl FnOnce(io::Error) -> StoreError {
        let name = name.as_str().to_owned();
        move |source| match source.kind() {
            io::ErrorKind::NotFound if action == "open" => StoreError::NotFound { name, place },
            _ => StoreError::Io { action, name, place, source },
        }
    }
}
