//! A node that is talked with.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;

use super::{
    Budget, LaneStatus, PeerStatus, TransportError, TransportOptions, direct::Direct,
    outbox::Outbox,
};
use crate::{
    ids::NodeId,
    wire::{Lane, Refusal},
};

/// What is known of it, and what waits for it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    address: Mutex<String>,
    pub(super) urgent: PeerLane,
    pub(super) bulk: PeerLane,
    /// Bytes of records that came from it.
    pub(super) receiving: Arc<Budget>,
}

/// One of its two lanes.
#[derive(Debug)]
pub(super) struct PeerLane {
    pub(super) lane: Lane,
    pub(super) outbox: Outbox,
    sent: Count,
    received: Count,
    connects: AtomicU64,
    trouble: Mutex<(Option<String>, Option<Refusal>)>,
    /// The connection on which it sends to this node, and the one on which this node sends.
    inbound: Mutex<Option<u64>>,
    outbound: Mutex<Option<u64>>,
}

#[derive(Debug, Default)]
struct Count {
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Count {
    fn add(&self, messages: u64, bytes: u64) {
        self.messages.fetch_add(messages, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

impl Peer {
    pub(super) fn new(node: NodeId, address: String, options: &TransportOptions) -> Peer {
        Peer {
            node,
            address: Mutex::new(address),
            urgent: PeerLane::new(Lane::Urgent, u64::MAX),
            bulk: PeerLane::new(Lane::Bulk, options.send_credit),
            receiving: Budget::new(options.receive_credit),
        }
    }

    pub(super) fn address(&self) -> String {
        self.address.lock().clone()
    }

    /// It is elsewhere now; it is dialled at once where there is no connection.
    pub(super) fn set_address(&self, address: &str) {
        let mut current = self.address.lock();
        if *current != address {
            address.clone_into(&mut current);
            drop(current);
            self.poke();
        }
    }

    /// It is worth a try to dial it.
    pub(super) fn poke(&self) {
        self.lanes().iter().for_each(|lane| lane.outbox.poke());
    }

    pub(super) fn stop(&self) {
        self.lanes().iter().for_each(|lane| lane.outbox.stop());
    }

    pub(super) fn lanes(&self) -> [&PeerLane; 2] {
        [&self.urgent, &self.bulk]
    }

    /// The lane for messages; that of page streams has no queue.
    pub(super) fn lane(&self, lane: Lane) -> &PeerLane {
        if lane == Lane::Urgent { &self.urgent } else { &self.bulk }
    }

    pub(super) fn status(&self) -> PeerStatus {
        PeerStatus {
            node: self.node,
            address: self.address(),
            urgent: self.urgent.status(),
            bulk: self.bulk.status(),
            receiving: self.receiving.used(),
        }
    }
}

impl PeerLane {
    fn new(lane: Lane, bytes_max: u64) -> PeerLane {
        PeerLane {
            lane,
            outbox: Outbox::new(lane, bytes_max),
            sent: Count::default(),
            received: Count::default(),
            connects: AtomicU64::new(0),
            trouble: Mutex::default(),
            inbound: Mutex::default(),
            outbound: Mutex::default(),
        }
    }

    pub(super) fn sent(&self, messages: usize, bytes: u64) {
        self.sent.add(messages as u64, bytes);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.add(1, bytes);
    }

    pub(super) fn connected(&self, direct: Option<Direct>) {
        self.connects.fetch_add(1, Relaxed);
        self.trouble.lock().1 = None;
        self.outbox.connected(direct);
    }

    /// Notes why there is no connection; true when the peer refuses, and did not before.
    pub(super) fn note(&self, error: &TransportError) -> bool {
        let refusal = error.refusal();
        let mut trouble = self.trouble.lock();
        let is_new = refusal.is_some() && trouble.1 != refusal;
        *trouble = (Some(error.to_string()), refusal);
        is_new
    }

    /// This is the connection on which it sends now; returns the one before.
    pub(super) fn set_inbound(&self, number: u64) -> Option<u64> {
        self.inbound.lock().replace(number)
    }

    /// That connection has ended.
    pub(super) fn end_inbound(&self, number: u64) {
        let mut inbound = self.inbound.lock();
        if *inbound == Some(number) {
            *inbound = None;
        }
    }

    pub(super) fn inbound(&self) -> Option<u64> {
        *self.inbound.lock()
    }

    /// The connection on which this node sends.
    pub(super) fn set_outbound(&self, number: Option<u64>) {
        *self.outbound.lock() = number;
    }

    pub(super) fn outbound(&self) -> Option<u64> {
        *self.outbound.lock()
    }

    fn status(&self) -> LaneStatus {
        let (is_connected, queued, queued_bytes, dropped) = self.outbox.counts();
        let (last_error, refusal) = self.trouble.lock().clone();
        LaneStatus {
            is_connected,
            sent_messages: self.sent.messages.load(Relaxed),
            sent_bytes: self.sent.bytes.load(Relaxed),
            received_messages: self.received.messages.load(Relaxed),
            received_bytes: self.received.bytes.load(Relaxed),
            dropped,
            connects: self.connects.load(Relaxed),
            queued,
            queued_bytes,
            last_error,
            refusal,
        }
    }
}
