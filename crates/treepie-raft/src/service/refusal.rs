//! Why a request was not done: typed, so that a client knows what it may do next.

use bincode::{Decode, Encode};
use treepie::Error;

use crate::ids::NodeId;

/// Why a request was not done. But for [`Refusal::Unknown`], nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// Only the leader does this. Ask there.
    #[error("node is not the leader{}", leader_text(leader.as_ref()))]
    NotLeader {
        /// Who leads, where it is known.
        leader: Option<Leader>,
    },
    /// Leadership was lost, or the disk failed, after it was proposed: it may or may not be done. Ask
    /// again with the same request id.
    #[error("whether LSN {lsn} was committed is not known")]
    Unknown {
        /// LSN that it was given.
        lsn: u64,
    },
    /// Too much is going on. Try again in a moment.
    #[error("the node is busy: {0}")]
    Busy(String),
    /// The node is stopping. Ask another one.
    #[error("the node is stopping")]
    Stopping,
    /// The node has not got to the LSN that was asked for in time.
    #[error("the node is at LSN {at} only")]
    Behind {
        /// Where it is.
        at: u64,
    },
    /// The node has not heard of a leader for too long.
    #[error("the node was last in touch with a leader {age_ms} ms ago")]
    Stale {
        /// How long.
        age_ms: u64,
    },
    /// There is no tree of this name.
    #[error("there is no tree named \"{}\"", name.escape_ascii())]
    NoTree {
        /// The name.
        name: Vec<u8>,
    },
    /// The request breaks a rule: a key that is too long, a name that cannot be given.
    #[error("{0}")]
    Invalid(String),
    /// The answer has more bytes than a frame may have. Ask for less.
    #[error("the answer has {len} bytes, at most {max} can be sent")]
    TooLarge {
        /// Bytes of the answer.
        len: u64,
        /// What a frame may have.
        max: u64,
    },
    /// The client has said before that it is done with this request.
    #[error("the client has given this request up")]
    GivenUp,
    /// The node cannot do this at all.
    #[error("{0}")]
    Unsupported(String),
    /// Another cluster is served here.
    #[error("another cluster is served there: {0}")]
    OtherCluster(crate::ids::ClusterId),
    /// The node's disk or data is at fault. Another node may be able to.
    #[error("{0}")]
    Fault(String),
    /// A bound of the database is reached: a full disk, an old snapshot.
    #[error("{0}")]
    Full(String),
}

/// Who leads, and where it listens for clients.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leader {
    /// Its number.
    pub node: NodeId,
    /// Its address; empty when it is not known.
    pub address: String,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        match error {
            Error::UnknownTree { name } => Refusal::NoTree { name },
            Error::OutcomeUnknown { lsn, .. } => Refusal::Unknown { lsn: lsn.0 },
            Error::Rejected(source) => match source.downcast::<Refusal>() {
                Ok(refusal) => *refusal,
                Err(source) => Refusal::Fault(source.to_string()),
            },
            error @ (Error::KeyTooLong { .. }
            | Error::ValueTooLong { .. }
            | Error::TreeName { .. }) => Refusal::Invalid(error.to_string()),
            error @ Error::Bound { .. } => Refusal::Full(error.to_string()),
            error => Refusal::Fault(error.to_string()),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::rejected(refusal)
    }
}

fn leader_text(leader: Option<&Leader>) -> String {
    leader.map_or_else(String::new, |leader| format!("; node {} is", leader.node))
}
