//! Replicated Treepie databases: Raft whose log is the journal.
//!
//! A merged transaction's record is the Raft entry: it is written once on each node, in the journal. LSN
//! and Raft index are one number. `docs/replication.md` says what is promised and how it is run.
//!
//! ```text
//! node/         a database with its threads and connections: what embedders use
//! service/      the protocol of clients: server, client, what is served
//! transport/    messages and page streams over TCP, with or without TLS
//! wire/         frames, and what is in them
//! replica/      one node's part, without threads, sockets, files or clocks
//! consensus/    the core behind it, the crate `raft`: handles instead of payloads
//! log, members, message, ids   what these speak of
//! ```

mod consensus;
pub mod ids;
pub mod log;
pub mod members;
pub mod message;
pub mod node;
pub mod replica;
pub mod service;
pub mod transport;
pub mod wire;

pub use node::{Node, NodeError, NodeOptions, NodeStatus};

/// The example of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/replication.md")]
struct ReplicationDocument;
