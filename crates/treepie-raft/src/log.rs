//! What a replica needs of the log: the journal of a database behind its door, or a model of it.
//!
//! Calls that do I/O (`append`, `sync`, `truncate`, `record`, `visit`) come from one thread, those that decide
//! what readers see (`commit`, `lead`, `follow`) from one thread; the replica itself calls none of
//! them after it was opened. It calls what costs no I/O: `state`, `term`, `no_op`.

use treepie::{
    Result,
    ids::{Lsn, Term},
};

use crate::message::{EntryKind, EntryRef};

/// Term and vote: what a node must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The term that it is in.
    pub term: Term,
    /// Whom it gave its vote of this term; 0 when nobody.
    pub vote: u64,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The oldest LSN whose term is known; the records behind it are there.
    pub first: Lsn,
    /// The last record.
    pub last: Lsn,
    /// Its term.
    pub last_term: Term,
    /// Its chain hash.
    pub last_chain: u64,
    /// Up to where records are known to be committed, and are applied.
    pub committed: Lsn,
    /// Up to where they are durable.
    pub synced: Lsn,
    /// Term and vote as they are durable.
    pub hard_state: HardState,
}

/// A sealed record: shared bytes, cheap to clone.
pub trait LogRecord: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// Its number, which is its Raft index.
    fn lsn(&self) -> Lsn;
    /// The term in its header: 0 when it was never replicated.
    fn term(&self) -> Term;
    /// What it is for.
    fn kind(&self) -> EntryKind;
    /// Its chain hash.
    fn chain(&self) -> u64;
    /// The chain hash of the record before it.
    fn chain_before(&self) -> u64;
    /// The checksum in its header.
    fn checksum(&self) -> u32;
    /// Its bytes, header included.
    fn record_len(&self) -> u32;
    /// The annotation of a membership record: the members after it, encoded.
    fn members(&self) -> Option<Vec<u8>>;

    /// Its handle.
    fn entry(&self) -> EntryRef {
        EntryRef {
            lsn: self.lsn(),
            term: raft_term(self.term()),
            kind: self.kind(),
            len: self.record_len(),
            checksum: self.checksum(),
        }
    }
}

/// The term that consensus sees: what was written before there was any counts as the first one.
#[must_use]
pub fn raft_term(term: Term) -> Term {
    Term(term.0.max(1))
}

/// The log of one node, and the door to its database.
pub trait Log: Send + Sync + 'static {
    /// Its records.
    type Record: LogRecord;

    /// Where it stands. No I/O.
    fn state(&self) -> LogState;

    /// The term of a record that it has; none when it was trimmed or never written. No I/O.
    fn term(&self, lsn: Lsn) -> Option<Term>;

    /// One record.
    ///
    /// # Errors
    /// When it was trimmed, or cannot be read.
    fn record(&self, lsn: Lsn) -> Result<Self::Record>;

    /// Gives the records above `after` to `visit`, in their order. Called once, when a replica is opened.
    ///
    /// # Errors
    /// When one was trimmed, or cannot be read.
    fn visit(&self, after: Lsn, visit: &mut dyn FnMut(Self::Record)) -> Result<()>;

    /// Appends term and vote, and records that continue the log: one write, not synced.
    ///
    /// # Errors
    /// When they do not continue it, or the write fails.
    fn append(&self, hard_state: Option<HardState>, records: &[Self::Record]) -> Result<()>;

    /// Makes durable what was appended.
    ///
    /// # Errors
    /// When the sync fails.
    fn sync(&self) -> Result<Lsn>;

    /// Drops the records above `after`, which are not committed. Durable when it returns.
    ///
    /// # Errors
    /// When some of them are committed, or the write fails.
    fn truncate(&self, after: Lsn) -> Result<()>;

    /// Lets readers see the state after `lsn`.
    ///
    /// # Errors
    /// When a record cannot be read or applied.
    fn commit(&self, lsn: Lsn) -> Result<()>;

    /// Opens for writes in a term. All records are committed.
    ///
    /// # Errors
    /// When the database takes no writes.
    fn lead(&self, term: Term) -> Result<()>;

    /// Seals nothing more. What was sealed and not committed is undone for readers.
    ///
    /// # Errors
    /// When the database fails.
    fn follow(&self, leader: Option<u64>) -> Result<()>;

    /// The record with which a leader begins its term, behind the last one. It is not appended.
    ///
    /// # Errors
    /// When the database fails.
    fn no_op(&self, term: Term) -> Result<Self::Record>;

    /// Seals a change of members that was decided in `term`; the record goes out like others.
    ///
    /// # Errors
    /// When this node does not lead in that term.
    fn set_members(&self, term: Term, members: &[u8], change: &[u8]) -> Result<Lsn>;

    /// The members as of the committed state.
    ///
    /// # Errors
    /// When they cannot be read.
    fn members(&self) -> Result<Option<Vec<u8>>>;
}
