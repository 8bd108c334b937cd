//! What nodes say to each other: our own types, which carry no payload. Records travel beside them.

use treepie::ids::{Lsn, Term};

use crate::ids::NodeId;

/// Entries in one message, at most.
pub const ENTRIES_MAX: usize = 64;
/// Bytes of a message's context, at most.
pub const CONTEXT_LEN_MAX: usize = 64;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// Entries behind `index`, of the term `log_term`.
    Append = 1,
    /// Whether they fit, and up to where they are durable.
    AppendReply = 2,
    /// A candidate's wish.
    Vote = 3,
    /// Granted, or not.
    VoteReply = 4,
    /// As `Vote`, without a new term: would it be granted?
    PreVote = 5,
    /// The answer to that.
    PreVoteReply = 6,
    /// The leader is there; and how far commits are.
    Heartbeat = 7,
    /// So is a follower.
    HeartbeatReply = 8,
    /// A follower asks the leader up to where a linearizable read must wait.
    ReadIndex = 9,
    /// The answer to that.
    ReadIndexReply = 10,
    /// The leader hands its place over: campaign now.
    TimeoutNow = 11,
    /// A follower is asked to hand over to another.
    TransferLeader = 12,
    /// A state to begin with: it was installed from a page stream when this arrives.
    Snapshot = 13,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// Changes of pages.
    Transaction = 1,
    /// A new leader's first entry.
    NoOp = 2,
    /// A change of the members.
    Membership = 3,
}

/// A handle to a record: it says what the record is, and its bytes are elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef {
    /// Number of the record, the Raft index.
    pub lsn: Lsn,
    /// Its term.
    pub term: Term,
    /// What it is for.
    pub kind: EntryKind,
    /// Bytes of the record, header included.
    pub len: u32,
    /// The checksum in its header.
    pub checksum: u32,
}

/// A state that a follower was installed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRef {
    /// The last record that it holds.
    pub lsn: Lsn,
    /// Its term.
    pub term: Term,
    /// The members as of it, encoded.
    pub members: Vec<u8>,
}

/// One message. What a kind does not use is zero or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is for.
    pub kind: MessageKind,
    /// Who says it.
    pub from: NodeId,
    /// To whom.
    pub to: NodeId,
    /// The term of who says it.
    pub term: Term,
    /// Term of the entry `index`.
    pub log_term: Term,
    /// The entry before `entries`; the last one of a candidate; the last durable one of a reply.
    pub index: Lsn,
    /// Up to where entries are committed.
    pub committed: Lsn,
    /// Term of that entry, where it is sent.
    pub committed_term: Term,
    /// The answer is no.
    pub reject: bool,
    /// Where to try next, after a no.
    pub reject_hint: Lsn,
    /// A follower asks for a state of at least this LSN; 0 when it does not.
    pub request_snapshot: Lsn,
    /// Priority of a candidate.
    pub priority: i64,
    /// What a read is told apart by.
    pub context: Vec<u8>,
    /// Handles of entries; their records follow in the same order.
    pub entries: Vec<EntryRef>,
    /// With [`MessageKind::Snapshot`].
    pub snapshot: Option<SnapshotRef>,
}

impl Message {
    /// A message without content.
    #[must_use]
    pub fn new(kind: MessageKind, from: NodeId, to: NodeId, term: Term) -> Message {
        Message {
            kind,
            from,
            to,
            term,
            log_term: Term(0),
            index: Lsn(0),
            committed: Lsn(0),
            committed_term: Term(0),
            reject: false,
            reject_hint: Lsn(0),
            request_snapshot: Lsn(0),
            priority: 0,
            context: Vec::new(),
            entries: Vec::new(),
            snapshot: None,
        }
    }

    /// Whether it goes in front of records: what keeps leadership must never wait behind megabytes.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        !matches!(self.kind, MessageKind::Append | MessageKind::Snapshot)
    }
}
