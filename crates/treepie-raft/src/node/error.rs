//! What a node's calls can fail with.

use std::{io, path::PathBuf};

use treepie::ids::Lsn;

use crate::{
    ids::NodeId,
    members::ChangeError,
    replica::{ReadError, Stopped},
    transport::TransportError,
};

/// What a node's calls can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The database.
    #[error(transparent)]
    Engine(#[from] treepie::Error),
    /// Connections.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A page stream.
    #[error("a page stream has failed: {0}")]
    Pages(#[from] treepie_snapshot::Error),
    /// A page stream ended in the middle, or says what cannot be.
    #[error("a page stream between nodes has failed: {0}")]
    Stream(#[source] io::Error),
    /// A folder cannot be renamed or removed.
    #[error("cannot {action} {}: {source}", path.display())]
    Folder {
        /// What was tried.
        action: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A record that another node needs is not there any more, or is another one now.
    #[error("the log has no such record of LSN {0} any more")]
    NoRecord(Lsn),
    /// The node takes no more part in its cluster.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A change of members was refused.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A read has no answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is here is older than was asked for.
    #[error(
        "node {node} has not heard of a leader for {age_ms} ms; ask another node, or allow more"
    )]
    Stale {
        /// This node.
        node: NodeId,
        /// How old its state may be; `u64::MAX` when it has heard of no leader.
        age_ms: u64,
    },
    /// The node was stopped, or exchanges its database at this moment.
    #[error("the node is not running at this moment")]
    NotRunning,
}
