//! Transactions: snapshots to read, write transactions to change, and what both stand on.

pub mod catalog;
pub mod core;
mod pages;
pub mod signals;
pub mod snapshot;
pub mod tree_mut;
pub mod write;

pub use pages::TxnPages;
