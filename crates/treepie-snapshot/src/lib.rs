//! Streaming backup and restore of Treepie databases.
//!
//! This is the stream: one format for full copies, increments and records, written to any
//! [`Write`](std::io::Write) and read from any [`Read`](std::io::Read).
//!
//! ```
//! use treepie_snapshot::{
//!     Content, Position, ReadOptions, StreamHeader, StreamKind, StreamOptions, StreamReader,
//!     StreamWriter, ids::PageId,
//! };
//!
//! # fn main() -> treepie_snapshot::Result<()> {
//! let header = StreamHeader {
//!     kind: StreamKind::Full,
//!     lineage: Default::default(),
//!     page_size: 4096,
//!     page_count: 10,
//!     position: Position::default(),
//!     base: Position::default(),
//!     time_us: 0,
//!     database_created_us: 0,
//!     created_us: 0,
//! };
//! let mut writer = StreamWriter::new(Vec::new(), header, &StreamOptions::new())?;
//! writer.pages(PageId(7), &[1; 8192])?;
//! let (stream, written) = writer.finish(header.position)?;
//!
//! let mut reader = StreamReader::new(&stream[..], &ReadOptions::new())?;
//! let mut numbers = Vec::new();
//! while let Some(content) = reader.next()? {
//!     if let Content::Pages(pages) = content {
//!         numbers.extend(pages.map(|(id, _bytes)| id.0));
//!     }
//! }
//! assert_eq!(numbers, [7, 8]);
//! assert_eq!(reader.summary(), Some(&written));
//! # Ok(())
//! # }
//! ```

mod backup;
pub mod calendar;
mod error;
mod format;
mod hash;
pub mod limits;
mod progress;
pub mod repository;
mod restore;
mod seal;
pub mod store;
mod stream;
mod tasks;

pub use backup::{BackupOptions, BackupReport, backup};
pub use error::{Error, Place, Result, StreamDamage};
pub use format::{
    header::{
        Coding, Encryption, Position, STREAM_HEADER_SIZE, STREAM_VERSION, StreamCompression,
        StreamHeader, StreamKind,
    },
    pages::{PageRun, Pages, Runs},
};
pub use hash::{Digest, GroupHash, GroupHasher, PageHasher};
pub use progress::{CancelToken, Control, Paced, Progress};
pub use restore::{RestoreOptions, RestoreReport, Restorer, restore, restore_chain, restore_plan};
pub use seal::{Key, KeyId, Keys};
pub use stream::{
    Content, ReadOptions, RecordBuffer, RecordPiece, StreamOptions, StreamReader, StreamSummary,
    StreamWriter, verify,
};
pub use tasks::{
    ArchiveOptions, ArchiveReport, Archiver, DrillReport, Extent, Kept, RepositoryReport,
    SquashReport, StreamFault, archive, describe, drill, keep, rebuild_manifest, squash,
    verify_repository,
};
#[doc(no_inline)]
pub use treepie::{Lineage, ids};
