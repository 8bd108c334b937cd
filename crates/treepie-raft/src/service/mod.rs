//! The service: a database over the network, for programs that do not embed it.
//!
//! ```text
//! message, refusal   what is asked for, and answered
//! frame              frames out of bytes, and into them
//! requests, apply    requests ↔ trees; a repeated request is done once
//! store              what is served, as a trait
//! standalone         a database by itself
//! replicated         a node of a cluster
//! settle             outcomes that are handed over
//! server/            connections ↔ a store
//! client/            a thread that asks ↔ a connection, to whichever node answers
//! ```
//!
//! ```
//! use std::{net::TcpListener, sync::Arc};
//! use treepie_raft::{
//!     ids::NodeId,
//!     service::{Client, ClientOptions, Server, ServerOptions, Standalone},
//! };
//!
//! # let folder = tempfile::tempdir()?;
//! let db = treepie::Database::open(folder.path().join("birds"))?;
//! let store = Arc::new(Standalone::new(db, NodeId(1), ""));
//! let server = Server::start(TcpListener::bind("127.0.0.1:0")?, store, ServerOptions::new())?;
//!
//! let client = Client::connect([server.address()], ClientOptions::new())?;
//! let receipt = client.put("birds", "pica", "magpie")?;
//! assert_eq!(client.get("birds", "pica")?.value, Some(b"magpie".to_vec()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod client;
mod frame;
pub mod message;
mod refusal;
mod replicated;
mod requests;
mod server;
mod settle;
mod standalone;
mod store;

pub use apply::{change, look};
pub use client::{Client, ClientError, ClientOptions, Pending, ScanOptions, Scanned, Transaction};
pub use refusal::{Leader, Refusal};
pub use replicated::Replicated;
pub use requests::Sweep;
pub use server::{Server, ServerCounters, ServerOptions};
pub use settle::settle;
pub use standalone::Standalone;
pub use store::{Done, Store, Written};
