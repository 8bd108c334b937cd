//! Bytes and values: every stored structure, one per file, its byte table on top. No I/O, no locks.
//!
//! All integers are little-endian and of fixed width. Reserved bytes are zero, and checked.
//! Nothing here panics on bytes from disk: readers return [`Damage`](crate::error::Damage). The lint
//! below holds them to it; where bytes are written, or a length is that of an array, it is allowed by
//! name.

#![warn(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing, reason = "tests index what they made"))]

pub mod bitmap;
pub mod blocks;
pub mod bytes;
pub mod catalog;
pub mod change;
pub mod changed;
pub mod checksum;
pub mod compression;
pub mod frame;
pub mod hard_state;
pub mod heads;
pub mod installing;
pub mod meta;
pub mod node;
pub mod overflow;
pub mod page;
pub mod record;
mod sealed;
pub mod segment;
pub mod used;
