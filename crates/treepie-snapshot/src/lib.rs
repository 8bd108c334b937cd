//! Streaming backup and restore of Treepie databases.

pub mod calendar;
pub mod repository;
pub mod store;

#[doc(no_inline)]
pub use treepie::{Lineage, ids};
