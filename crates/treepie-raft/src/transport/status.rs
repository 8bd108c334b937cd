//! What a transport has counted, to be shown by status and metrics.

use crate::{ids::NodeId, wire::Refusal};

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its number.
    pub node: NodeId,
    /// Where it is.
    pub address: String,
    /// Messages that keep leadership, and answers.
    pub urgent: LaneStatus,
    /// Messages with records.
    pub bulk: LaneStatus,
    /// Bytes of records that came from it and are not yet dealt with.
    pub receiving: u64,
}

/// One lane of a peer. Counts are since the peer became known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// Whether there is a connection to send on.
    pub is_connected: bool,
    /// Messages that were written to it.
    pub sent_messages: u64,
    /// Bytes that were.
    pub sent_bytes: u64,
    /// Messages that came.
    pub received_messages: u64,
    /// Bytes of records that came.
    pub received_bytes: u64,
    /// Messages that were dropped or lost.
    pub dropped: u64,
    /// Connections that were made; all but the first one are reconnects.
    pub connects: u64,
    /// Messages that wait.
    pub queued: usize,
    /// Bytes that wait or are being written.
    pub queued_bytes: u64,
    /// Why there was no connection the last time that there was none.
    pub last_error: Option<String>,
    /// The peer refuses, and why.
    pub refusal: Option<Refusal>,
}
