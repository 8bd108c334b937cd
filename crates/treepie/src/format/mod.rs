//! Bytes and values: every stored structure, one per file, its byte table on top. No I/O, no locks.
//!
//! All integers are little-endian and of fixed width. Reserved bytes are zero, and checked.
//! Nothing here panics on bytes from disk: readers return [`Damage`](crate::error::Damage).

pub mod bitmap;
pub mod blocks;
pub mod bytes;
pub mod catalog;
pub mod change;
pub mod checksum;
pub mod compression;
pub mod frame;
pub mod heads;
pub mod meta;
pub mod node;
pub mod overflow;
pub mod page;
pub mod record;
mod sealed;
pub mod segment;
