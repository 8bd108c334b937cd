//! The engines that take part, one file each.

mod lmdb;
mod redb;
#[cfg(feature = "treepie")]
mod treepie;

pub use lmdb::Lmdb;
pub use redb::Redb;
#[cfg(feature = "treepie")]
pub use treepie::Treepie;
