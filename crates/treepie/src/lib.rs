//! Treepie: an embedded, memory-mapped B+tree storage engine whose journal is the database.
//!
//! A database is a folder. In it are named trees: ordered maps from keys to values, both bytes. One
//! write transaction at a time changes any number of trees, and is durable when it has returned. Any
//! number of snapshots read meanwhile, and none of them waits.
//!
//! ```
//! # fn main() -> treepie::Result<()> {
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let path = folder.path().join("ledger");
//! let db = treepie::Database::open(&path)?;
//!
//! // Several changes, at once or not at all.
//! let receipt = db.write(|tx| {
//!     tx.tree("accounts")?.insert("anna", 70_u64.to_be_bytes())?;
//!     tx.tree("accounts")?.insert("bert", 30_u64.to_be_bytes())?;
//!     tx.tree("log")?.insert(1_u64.to_be_bytes(), "anna 70, bert 30")
//! })?;
//!
//! // A state that stays as it is.
//! let snapshot = db.read()?;
//! assert_eq!(snapshot.lsn(), receipt.lsn);
//! let accounts = snapshot.tree("accounts")?;
//! assert_eq!(accounts.get("anna")?, Some(&70_u64.to_be_bytes()[..]));
//!
//! // In the order of the keys, from both ends; keys are borrowed from the page, in two parts.
//! let (key, _value) = accounts.iter().next_back().expect("two entries")?;
//! assert_eq!(key.to_vec(), b"bert");
//!
//! // An error leaves nothing of the transaction.
//! let refused = db.write(|tx| {
//!     tx.tree("accounts")?.remove("anna")?;
//!     Err::<(), _>(treepie::Error::rejected("she still has money"))
//! });
//! assert!(refused.is_err());
//! assert_eq!(db.read()?.tree("accounts")?.len(), 2);
//! # drop(snapshot);
//! # db.close()
//! # }
//! ```
//!
//! # The types that matter
//!
//! - [`Database`]: an open folder; cheap to clone, for all threads. [`Options`] opens one in other
//!   ways than [`Database::open`] does.
//! - [`Snapshot`]: all trees at one moment, from [`Database::read`]. Values borrow from it.
//! - [`Tree`]: one of its trees: `get`, `range`, `prefix`, `first`, `last`, [`Cursor`].
//! - [`WriteTxn`]: one transaction, the argument of the closure in [`Database::write`], or from
//!   [`Database::begin_write`].
//! - [`TreeMut`]: one of its trees: `insert`, `remove`, `remove_range`, `clear`, and all reads.
//!
//! Keys come as [`Key`], because a page stores what its keys have in common only once. They compare
//! with each other and with slices; [`Key::to_vec`] makes one piece of them. Keys are ordered as
//! byte strings: write integers big-endian. [`limits`] says how long keys and values may be.
//!
//! # Durability
//!
//! When [`Database::write`] or [`WriteTxn::commit`] returns `Ok`, the record of the transaction is
//! written to the journal and synced, and snapshots from then on see it. After a crash or a power
//! cut, opening finds every commit that returned, none of them in part. Records reach the data file
//! later, in the background; how much journal may be left to replay is a matter of
//! [`Options::checkpoint_distance`].
//!
//! The data file is mapped read-only. Who shortens or changes it while it is open ends the process
//! with `SIGBUS`, or worse. A lock on the folder keeps other processes that use this engine out.
//!
//! # Errors
//!
//! All calls that can fail return [`Error`], which says what happened, where, and what to do next.
//! These are worth a branch of their own:
//!
//! - [`Error::Corrupt`] and [`Error::JournalGap`]: stored bytes are damaged or gone.
//!   [`Database::check`] lists all damage of a database that opens; [`Options::salvage`] saves what can
//!   be read of one that does not.
//! - [`Error::Poisoned`]: a write or sync failed before. Reads go on; reopen to write.
//! - [`Error::Bound`]: a bound was reached; it names the option and what can be done.
//! - [`Error::Rejected`]: the closure's own error, wrapped with [`Error::rejected`].
//! - [`Error::TransactionBroken`]: an operation failed half-way and the closure went on; its own
//!   error says what to do before the transaction is run again.
//! - [`Error::Locked`]: the database is open elsewhere.
//! - [`Error::NotLeader`] and [`Error::OutcomeUnknown`], of a replicated database: run the write again on
//!   the leader; [`Database::write_once`] makes that safe where the outcome is not known.
//!
//! The engine tells what it does through [`tracing`](https://docs.rs/tracing): opening, checkpoints
//! and torn tails as `info` and `warn`, damage and failed writes as `error`.

#[cfg(not(all(unix, target_pointer_width = "64")))]
compile_error!("Treepie needs a 64-bit Unix: it maps its file with address space to spare");

mod checkpoint;
mod copy;
mod database;
pub mod disk;
mod error;
mod format;
pub mod ids;
mod install;
mod journal;
pub mod limits;
mod options;
mod pager;
mod recovery;
pub mod replication;
mod salvage;
mod scrub;
mod sync;
mod tree;
mod txn;

pub use copy::{Base, CopyOptions, CopyStep, PageCopy};
pub use database::{
    CheckReport, CopyInfo, DamagedPage, Database, JournalRecords, PageDump, Problem, RawRecord,
    ReaderInfo, RecordSummary, Records, RepairOutcome, Report, Stats, TreeReport, WholePage,
};
pub use error::{Damage, Error, Result, Structure};
pub use format::{meta::Lineage, used::UsedPages};
pub use install::{DatabaseState, Installer, Reached, Sealed};
pub use journal::{JournalPosition, JournalReport, PinInfo, SegmentInfo};
pub use options::{Compression, Durability, Options, Overlap};
pub use salvage::{Loss, SalvageProgress, SalvageReport, SalvagedTree};
pub use scrub::{FoundDamage, ScrubProgress, ScrubReport};
pub use tree::Key;
pub use txn::{
    cursor::Cursor,
    meters::{SlowSite, Spread, WriteTimings},
    once::{Once, RequestId},
    range::Range,
    snapshot::{Snapshot, Tree, TreeInfo},
    submit::Submitted,
    tree_mut::TreeMut,
    write::{Receipt, TreeHandle, WriteTxn},
};

/// What the engine's own tests of schedules see of its inside.
#[cfg(feature = "shuttle")]
#[doc(hidden)]
pub mod schedules {
    pub use crate::{
        database::schedules::{synced, write_early},
        pager::model::World,
        sync::{Planted, plant, turn},
    };
}

/// What the engine's own tests plant, to show that they find it.
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted {
    pub use crate::sync::{Planted, is_planted, plant, plant_for_good};

    /// The journal by itself, for the tests of it as a log of consensus.
    pub mod journal {
        pub use crate::{
            format::{
                hard_state::HardState,
                record::{
                    Compression, Record, RecordBuilder, RecordKind, RecordMeta, SealedRecord,
                    genesis_chain,
                },
            },
            journal::{
                Journal, JournalConfig, JournalPosition, JournalReader, Keep, Recovered, Room,
            },
        };
    }
}

/// The README, whose example is a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}
