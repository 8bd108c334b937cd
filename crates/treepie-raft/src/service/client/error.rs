//! What a client fails with: whether anything was done, and what can be done next.

use std::time::Duration;

use super::super::refusal::Refusal;
use crate::wire::WireError;

/// What a client fails with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No node could be reached, or none leads, for as long as was waited. Nothing was done.
    #[error("no node has answered within {} s: {last}", waited.as_secs_f64())]
    Unreachable {
        /// How long was waited.
        waited: Duration,
        /// Why the last attempt failed.
        last: String,
    },
    /// The request was refused, and nothing of it was done.
    #[error("{0}")]
    Refused(Refusal),
    /// Whether it was done is not known: the connection was lost or the time was up while it was on its
    /// way, or the leader has changed. Look, and do it again if it was not.
    #[error("whether it was done is not known: {why}")]
    OutcomeUnknown {
        /// What came between.
        why: String,
    },
    /// It has more bytes than can be sent. Nothing was done.
    #[error("the request cannot be sent: {0}")]
    TooLarge(#[source] WireError),
    /// An address has no such host, or is none.
    #[error("{address}: {what}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// What was answered is no answer to the request: another version, or a fault of the server.
    #[error("what was answered does not fit what was asked")]
    Answer,
}

impl ClientError {
    /// Whether nothing was done for certain, so that it can be done again as a new request.
    #[must_use]
    pub fn is_safe_to_repeat(&self) -> bool {
        !matches!(self, ClientError::OutcomeUnknown { .. } | ClientError::Answer)
    }
}
