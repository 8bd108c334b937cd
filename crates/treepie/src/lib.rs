//! Treepie: an embedded, memory-mapped B+tree storage engine whose journal is the database.

pub mod disk;
mod error;
#[allow(dead_code, reason = "the layers above it are not there yet")]
mod format;
pub mod ids;
#[allow(dead_code, unused_imports, reason = "the database above it is not there yet")]
mod journal;
pub mod limits;
mod pager;

pub use error::{Damage, Error, Result, Structure};
pub use format::record::Compression;
