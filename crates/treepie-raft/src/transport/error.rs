//! What keeps nodes from talking.

use std::io;

use crate::{
    ids::NodeId,
    wire::{Refusal, WireError},
};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Without TLS anybody could read and write along. Give certificates, or stay on this machine.
    #[error("{address} is reachable from other machines, and without TLS only this one is served")]
    PlaintextBeyondLoopback {
        /// Where it would have listened, or connected to.
        address: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot connect to {address}")]
    Connect {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The other side does not want to talk with this node.
    #[error("node {node} refuses: {refusal}")]
    Refused {
        /// Who was dialled.
        node: NodeId,
        /// Why not.
        refusal: Refusal,
    },
    /// Another node, or another cluster, has answered.
    #[error("this is not node {node}: {refusal}")]
    Impostor {
        /// Who was dialled.
        node: NodeId,
        /// What is wrong.
        refusal: Refusal,
    },
    /// The certificate that was given is not that of this node.
    #[error("the certificate is that of {identity}")]
    OwnCertificate {
        /// Whose it is.
        identity: String,
    },
    /// No address is known of this node.
    #[error("where node {0} is was not said")]
    UnknownPeer(NodeId),
    /// The transport was stopped.
    #[error("the transport was stopped")]
    Stopped,
    /// The connection failed, or what came on it is damaged.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Certificates or keys cannot be used.
    #[cfg(feature = "tls")]
    #[error("{what}")]
    Certificate {
        /// Which, and what is wrong.
        what: String,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl From<io::Error> for TransportError {
    fn from(error: io::Error) -> TransportError {
        TransportError::Wire(WireError::Io(error))
    }
}

impl TransportError {
    /// Whether the other side answered and does not want to: dialling again soon is of no use.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            TransportError::Refused { refusal, .. } | TransportError::Impostor { refusal, .. } => {
                Some(*refusal)
            }
            // Its answer cannot be read, but says which version it is of.
            TransportError::Wire(WireError::Version { found, .. }) => {
                Some(Refusal::Protocol { ours: *found })
            }
            _ => None,
        }
    }
}
