//! The engines that take part, one file each.

#[cfg(feature = "canopydb")]
mod canopydb;
#[cfg(feature = "fjall")]
mod fjall;
mod lmdb;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "treepie")]
mod treepie;

#[cfg(feature = "canopydb")]
pub use canopydb::Canopydb;
#[cfg(feature = "fjall")]
pub use fjall::Fjall;
pub use lmdb::Lmdb;
pub use redb::Redb;
#[cfg(feature = "rocksdb")]
pub use rocksdb::Rocksdb;
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
#[cfg(feature = "treepie")]
pub use treepie::Treepie;
