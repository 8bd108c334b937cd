//! Treepie: an embedded, memory-mapped B+tree storage engine whose journal is the database.

pub mod disk;
mod error;
mod format;
pub mod ids;
pub mod limits;
mod pager;
mod tree;

pub use error::{Damage, Error, Result, Structure};
