//! Treepie: an embedded, memory-mapped B+tree storage engine whose journal is the database.

mod checkpoint;
mod database;
pub mod disk;
mod error;
mod format;
pub mod ids;
mod journal;
pub mod limits;
mod options;
mod pager;
mod recovery;
mod tree;
mod txn;

pub use database::{
    CheckReport, Database, JournalRecords, PageDump, Problem, ReaderInfo, RecordSummary, Report,
    Stats, TreeReport,
};
pub use error::{Damage, Error, Result, Structure};
pub use journal::{JournalReport, SegmentInfo};
pub use options::{Compression, Options};
pub use tree::{Cursor, Key, Range};
pub use txn::{
    TxnPages,
    snapshot::{Entries, Snapshot, SnapshotPages, Tree, TreeInfo},
    tree_mut::TreeMut,
    write::{Receipt, TreeHandle, WriteTxn},
};
