//! How a node is started.

use std::time::Duration;

use super::probe::Probe;
use crate::{ids::NodeId, transport::Security};

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    pub(super) id: NodeId,
    pub(super) listen: String,
    pub(super) advertised: Option<String>,
    pub(super) label: String,
    pub(super) security: Security,
    pub(super) found: bool,
    pub(super) tick: Duration,
    pub(super) election_ticks: u32,
    pub(super) heartbeat_ticks: u32,
    pub(super) lease: bool,
    pub(super) send_credit: u64,
    pub(super) receive_credit: u64,
    pub(super) engine: treepie::Options,
    pub(super) probe: Probe,
}

impl NodeOptions {
    /// This node, which listens for others at an address like `127.0.0.1:7000`; port 0 takes any.
    #[must_use]
    pub fn new(id: NodeId, listen: impl Into<String>, security: Security) -> NodeOptions {
        NodeOptions {
            id,
            listen: listen.into(),
            advertised: None,
            label: String::new(),
            security,
            found: false,
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            lease: true,
            send_credit: 64 << 20,
            receive_credit: 64 << 20,
            engine: treepie::Options::new(),
            probe: Probe::default(),
        }
    }

    /// How its connections are protected.
    #[must_use]
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Founds a cluster of this node alone, unless the database is in one already. Default: no.
    #[must_use]
    pub fn found(mut self, found: bool) -> NodeOptions {
        self.found = found;
        self
    }

    /// Where other nodes find this one, if not where it listens. The members say it, and are changed where
    /// a node is elsewhere than before.
    #[must_use]
    pub fn advertised(mut self, address: impl Into<String>) -> NodeOptions {
        self.advertised = Some(address.into());
        self
    }

    /// What the members say of this node beside its address: where its clients find it, say. Where it is
    /// empty, as by default, what they say already stays.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> NodeOptions {
        self.label = label.into();
        self
    }

    /// Time between two ticks, and how many of them a follower waits for its leader at least (at most
    /// twice as many), and a leader between two heartbeats. Default: 50 ms, 10 and 2: a follower misses its
    /// leader after half a second to a second.
    #[must_use]
    pub fn timing(mut self, tick: Duration, election: u32, heartbeat: u32) -> NodeOptions {
        (self.tick, self.election_ticks, self.heartbeat_ticks) = (tick, election, heartbeat);
        self
    }

    /// Whether a leader may answer reads without asking, for a part of an election timeout after a quorum
    /// has confirmed it. It needs clocks that run equally fast, within 10 %. Default: yes.
    #[must_use]
    pub fn lease(mut self, lease: bool) -> NodeOptions {
        self.lease = lease;
        self
    }

    /// Bytes of records that may wait for one node to take them, and that may have come from one and not
    /// be dealt with. Default: 64 MiB each. A longer record goes alone.
    #[must_use]
    pub fn credits(mut self, send: u64, receive: u64) -> NodeOptions {
        (self.send_credit, self.receive_credit) = (send, receive);
        self
    }

    /// How the database is opened where a node opens it: when it joins, and after it was given all pages
    /// anew.
    #[must_use]
    pub fn engine(mut self, options: treepie::Options) -> NodeOptions {
        self.engine = options;
        self
    }

    /// What a test puts in. Default: nothing.
    #[cfg(feature = "planted")]
    #[doc(hidden)]
    #[must_use]
    pub fn probe(mut self, probe: Probe) -> NodeOptions {
        self.probe = probe;
        self
    }
}
