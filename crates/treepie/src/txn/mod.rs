//! Transactions: snapshots to read, write transactions to change, and what both stand on.

mod batch;
pub mod catalog;
pub mod core;
pub mod cursor;
mod dirty;
pub mod flusher;
pub mod follower;
mod job;
pub mod merger;
pub mod meters;
pub mod once;
mod open_trees;
mod pages;
mod parked;
mod pipeline;
pub mod range;
mod recent;
pub mod reentrance;
pub mod replicated;
mod savepoint;
mod seal;
pub mod signals;
pub mod snapshot;
pub mod submit;
pub mod tree_mut;
pub mod watch;
pub mod write;
