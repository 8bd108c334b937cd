//! Bytes and values of streams: one stored structure per file, its byte table on top. No I/O.
//!
//! Little-endian, fixed width, reserved bytes zero and checked. Nothing here panics on bytes that were
//! read: readers return what is wrong.

#![warn(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing, reason = "tests index what they made"))]

pub mod bytes;
pub mod frame;
pub mod header;
pub mod pages;
pub mod records;
pub mod trailer;
