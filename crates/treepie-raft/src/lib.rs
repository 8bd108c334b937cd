//! Replicated Treepie databases: Raft whose log is the journal.
//!
//! A merged transaction's record is the Raft entry: it is written once on each node, in the journal. LSN
//! and Raft index are one number.

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
