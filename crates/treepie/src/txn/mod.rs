//! Transactions: snapshots to read, write transactions to change, and what both stand on.

pub mod catalog;
pub mod core;
pub mod cursor;
mod pages;
pub mod range;
pub mod signals;
pub mod snapshot;
pub mod tree_mut;
pub mod write;
