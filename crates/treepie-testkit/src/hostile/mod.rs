//! Bytes that nobody can trust: the bodies of the fuzz targets, so that the same bodies run under
//! cargo-fuzz (`fuzz/`), on its corpus in ordinary tests, and under a counting allocator.
//!
//! `stamp` makes checksums right again, `template` the databases that are damaged, `visit` what is
//! done with them, `input` the bytes of a fuzzer as choices, `seeds` where a fuzzer begins. The other
//! files are the targets.

pub mod allocations;
pub mod input;
pub mod journal_tail;
pub mod open_and_check;
pub mod operations;
pub mod page;
mod seeds;
pub mod snapshot_stream;
pub mod stamp;
pub mod stream;
pub mod template;
mod visit;
#[cfg(feature = "raft")]
pub mod wire_frame;

pub use seeds::seeds;
pub use visit::{Visit, visit};

/// A fuzz target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Edits of any file.
    OpenAndCheck,
    /// Records behind the end of the journal.
    JournalTail,
    /// Pages with right checksums.
    Page,
    /// Operations, failing calls and power cuts against the model.
    Operations,
    /// Streams of snapshots.
    SnapshotStream,
    /// Frames between nodes.
    #[cfg(feature = "raft")]
    WireFrame,
}

impl Target {
    /// All of them.
    pub const ALL: &[Target] = &[
        Target::OpenAndCheck,
        Target::JournalTail,
        Target::Page,
        Target::Operations,
        Target::SnapshotStream,
        #[cfg(feature = "raft")]
        Target::WireFrame,
    ];

    /// The name of its binary and of its corpus.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Target::OpenAndCheck => "open_and_check",
            Target::JournalTail => "journal_tail",
            Target::Page => "page",
            Target::Operations => "operations",
            Target::SnapshotStream => "snapshot_stream",
            #[cfg(feature = "raft")]
            Target::WireFrame => "wire_frame",
        }
    }

    /// Runs one input.
    ///
    /// # Panics
    /// When the engine breaks a promise.
    pub fn run(self, bytes: &[u8]) {
        match self {
            Target::OpenAndCheck => drop(open_and_check::run(bytes)),
            Target::JournalTail => drop(journal_tail::run(bytes)),
            Target::Page => drop(page::run(bytes)),
            Target::Operations => drop(operations::run(bytes)),
            Target::SnapshotStream => {
                snapshot_stream::run(bytes);
            }
            #[cfg(feature = "raft")]
            Target::WireFrame => {
                wire_frame::run(bytes);
            }
        }
    }
}
