//! What a node says of itself, and how patient it is.

use std::time::Duration;

use super::Security;
use crate::ids::{ClusterId, NodeId};

/// How a transport is started.
#[derive(Clone, Debug)]
pub struct TransportOptions {
    pub(super) node: NodeId,
    pub(super) cluster: ClusterId,
    pub(super) listen: String,
    pub(super) security: Security,
    pub(super) advertised: Option<String>,
    pub(super) label: String,
    pub(super) page_format: u32,
    pub(super) send_credit: u64,
    pub(super) receive_credit: u64,
    pub(super) connect_timeout: Duration,
    pub(super) hello_timeout: Duration,
    pub(super) ping_interval: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) backoff_min: Duration,
    pub(super) backoff_max: Duration,
    pub(super) connections_max: usize,
}

impl TransportOptions {
    /// This node of this cluster, at an address like `127.0.0.1:7000`; port 0 takes any.
    #[must_use]
    pub fn new(
        node: NodeId,
        cluster: ClusterId,
        listen: impl Into<String>,
        security: Security,
    ) -> TransportOptions {
        TransportOptions {
            node,
            cluster,
            listen: listen.into(),
            security,
            advertised: None,
            label: String::new(),
            page_format: 1,
            send_credit: 64 << 20,
            receive_credit: 64 << 20,
            connect_timeout: Duration::from_secs(1),
            hello_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_secs(1),
            connections_max: 256,
        }
    }

    /// Where other nodes find this one, if not where it listens.
    #[must_use]
    pub fn advertised(mut self, address: impl Into<String>) -> TransportOptions {
        self.advertised = Some(address.into());
        self
    }

    /// What other nodes are told of this one beside its address; nothing by default.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> TransportOptions {
        self.label = label.into();
        self
    }

    /// Version of the format of pages and records; nodes with another one are refused. 1 by default.
    #[must_use]
    pub fn page_format(mut self, version: u32) -> TransportOptions {
        self.page_format = version;
        self
    }

    /// Bytes of records that may wait for one peer; 64 MiB by default. A longer record goes alone.
    #[must_use]
    pub fn send_credit(mut self, bytes: u64) -> TransportOptions {
        self.send_credit = bytes;
        self
    }

    /// Bytes of records that may have come from one peer and not yet be dealt with; 64 MiB by default.
    #[must_use]
    pub fn receive_credit(mut self, bytes: u64) -> TransportOptions {
        self.receive_credit = bytes;
        self
    }

    /// How long a peer may take to accept a connection, and to say hello on it; 1 s and 5 s by default.
    #[must_use]
    pub fn connect_timeouts(mut self, connect: Duration, hello: Duration) -> TransportOptions {
        (self.connect_timeout, self.hello_timeout) = (connect, hello);
        self
    }

    /// How often a peer is asked whether it is there, and how long it may be silent; 1 s and 5 s by
    /// default.
    #[must_use]
    pub fn patience(mut self, ping_interval: Duration, idle_timeout: Duration) -> TransportOptions {
        (self.ping_interval, self.idle_timeout) = (ping_interval, idle_timeout);
        self
    }

    /// The shortest and the longest wait before a peer is dialled again; 10 ms and 1 s by default.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> TransportOptions {
        (self.backoff_min, self.backoff_max) = (min, max);
        self
    }

    /// Connections that are accepted at a time; 256 by default.
    #[must_use]
    pub fn connections_max(mut self, count: usize) -> TransportOptions {
        self.connections_max = count;
        self
    }
}
