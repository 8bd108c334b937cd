//! Transactions: snapshots to read, write transactions to change, and what both stand on.

mod batch;
pub mod catalog;
pub mod core;
pub mod cursor;
mod dirty;
pub mod flusher;
mod job;
pub mod merger;
pub mod meters;
mod open_trees;
mod pages;
mod pipeline;
pub mod range;
pub mod reentrance;
mod savepoint;
mod seal;
pub mod signals;
pub mod snapshot;
pub mod submit;
pub mod tree_mut;
pub mod watch;
pub mod write;
