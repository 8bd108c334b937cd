//! Messages between nodes. [`Transport`] is the seam under which tests put a simulated network;
//! [`TcpTransport`] is the real one.
//!
//! **Who sends never waits.** [`Transport::send`] puts a message in a bounded queue, or drops it and says
//! so: Raft sends again. Each peer has two lanes, each a connection of its own with a thread at either
//! end: what keeps leadership never waits behind records. Page streams have connections of their own.
//!
//! A node dials its peers, and sends on the connections that it has dialled. It receives on those that it
//! has accepted. So nobody has to agree on who owns a connection, and either direction may fail alone.
//!
//! ```text
//!  send ─► outbox ─► sender ══ hello, messages, pings ══► receiver ─► Handler::deliver
//!          (bytes,    (dials,  ◄═ welcome or refusal, ═══  (waits for credit
//!           count)     writev)     pongs                    before it reads records)
//! ```

mod backoff;
mod connections;
mod credit;
mod direct;
mod error;
mod handshake;
pub mod identity;
mod listener;
mod options;
mod outbox;
mod pages;
mod peer;
mod receiver;
mod records;
mod sender;
mod socket;
mod status;
mod tcp;
#[cfg(feature = "tls")]
pub mod tls;

pub use credit::{Budget, Credit};
pub use error::TransportError;
pub use identity::Identity;
pub use options::TransportOptions;
pub use pages::PageStream;
pub use records::{RecordBytes, RecordSource, RecordToSend};
pub use socket::{Security, Socket};
pub use status::{LaneStatus, PeerStatus};
pub use tcp::TcpTransport;

use crate::{
    ids::NodeId,
    message::Message,
    wire::{Hello, Lane, Refusal},
};

/// What became of a message that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It will be sent, unless the connection fails first.
    Queued,
    /// It will not, and why. Where it had records, the peer has to be reported as unreachable to the core.
    Dropped(DropReason),
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Nobody said where this node is.
    UnknownPeer,
    /// There is no connection.
    Unreachable,
    /// The peer does not take as much as is sent: its bytes, or messages, in flight are used up.
    OverBudget,
    /// The transport was stopped.
    Stopped,
}

/// Sends messages to other nodes.
pub trait Transport: Send + Sync {
    /// Hands a message over with a record for each of its entries. Never blocks.
    ///
    /// # Panics
    /// If there is not exactly one record for each entry.
    fn send(&self, message: Message, records: Vec<RecordToSend>) -> Sent;
}

/// A message that came.
#[derive(Debug)]
pub struct Delivery {
    /// The message. Who sent it, and to whom, was compared with the connection.
    pub message: Message,
    /// The records of its entries, as long as those say. **They are not verified**: whoever takes them
    /// does that once, and answers [`Refusal::Damaged`] when one is not what its entry says.
    pub records: Vec<Vec<u8>>,
    /// The bytes that the records take. As long as it is held they count as received and not yet dealt
    /// with, and when too many are, nothing more is read from that peer.
    pub credit: Credit,
    /// On which lane it came.
    pub lane: Lane,
    /// Nothing else has come there by now.
    pub is_last: bool,
}

/// What happens on connections. It is called from their threads: what it does in a message of the urgent
/// lane must be short; in one of the bulk lane it may wait, which slows down that peer's records alone.
pub trait Handler: Send + Sync {
    /// Whether a node of the right cluster may connect. It may tell the transport where that node is.
    ///
    /// # Errors
    /// Why not; the node gets to see it.
    fn admit(&self, hello: &Hello) -> Result<(), Refusal>;

    /// Takes a message.
    ///
    /// # Errors
    /// Why the connection has to end; the node gets to see it, and connects again.
    fn deliver(&self, delivery: Delivery) -> Result<(), Refusal>;

    /// Serves a page stream that another node has opened; the connection ends when this returns.
    fn pages(&self, stream: PageStream);

    /// Messages with records to this node are lost, or could not be read: the core has to probe.
    fn unreachable(&self, node: NodeId);

    /// A lane to this node is open.
    fn connected(&self, node: NodeId, lane: Lane) {
        let _ = (node, lane);
    }

    /// This node does not want to talk with us. It is asked again, after a while.
    fn refused(&self, node: NodeId, refusal: Refusal) {
        let _ = (node, refusal);
    }
}
