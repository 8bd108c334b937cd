//! Treepie: an embedded, memory-mapped B+tree storage engine whose journal is the database.

pub mod disk;
mod error;
mod format;
pub mod ids;
mod journal;
pub mod limits;
mod pager;

pub use error::{Damage, Error, Result, Structure};
pub use format::record::Compression;
