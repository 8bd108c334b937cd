//! What a replica wants done, and what it says about itself.

use std::time::Duration;

use treepie::ids::{Lsn, Term};

use crate::{
    consensus::{Broken, Progress, Role},
    ids::NodeId,
    log::HardState,
    members::{ChangeError, Members, Place},
    message::Message,
};

/// How a replica is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its number.
    pub id: NodeId,
    /// Found a cluster of this node alone, if the log has no members: where it is reached.
    pub found: Option<Place>,
    /// Time between two ticks, at least.
    pub tick: Duration,
    /// Ticks without a leader after which a node asks for votes; it waits up to twice as many.
    pub election_ticks: u32,
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: u32,
    /// A random number, another one at each start: reads are told apart by it, elections spread.
    pub seed: u64,
    /// Leaders may answer reads without asking, for a part of an election timeout after a quorum has
    /// confirmed them. It needs clocks of equal speed, within 10 %.
    pub lease: bool,
}

impl Options {
    /// The usual ones: a follower misses its leader after half a second to a second.
    #[must_use]
    pub fn new(id: NodeId, seed: u64) -> Options {
        Options {
            id,
            found: None,
            tick: Duration::from_millis(50),
            election_ticks: 10,
            heartbeat_ticks: 2,
            seed,
            lease: true,
        }
    }
}

/// What the replica wants done. Effects are begun in their order.
///
/// `Persist` is one queue, of the thread that writes the journal; `Commit`, `Lead` and `Follow` are
/// another, of the thread that decides what readers see. Neither waits for the other.
#[derive(Clone, Debug)]
pub enum Effect<R> {
    /// Send a message, and beside it the records of its entries. One that is `None` is read from the
    /// log; its entry has a length of 0 then and is filled in with `LogRecord::entry`. If it cannot be
    /// read, the message is dropped and its receiver reported unreachable.
    Send {
        /// The message.
        message: Message,
        /// Its records, one an entry.
        records: Vec<Option<R>>,
    },
    /// Write to the journal and sync, then call `persisted`. Several jobs may share one sync.
    Persist(Job<R>),
    /// Let readers see this LSN (`Log::commit`), then call `applied`.
    Commit(Lsn),
    /// Open for writes in this term (`Log::lead`). Sealed records go to `sealed` from then on.
    Lead(Term),
    /// Close for writes (`Log::follow`), then call `followed`.
    Follow {
        /// Who leads, if known.
        leader: Option<NodeId>,
        /// What `followed` is called with.
        number: u64,
    },
    /// A read has its answer: a snapshot that is opened now is fresh enough, or why there is none.
    Answer {
        /// The read.
        id: u64,
        /// The LSN that it had to wait for.
        outcome: Result<Lsn, ReadError>,
    },
    /// Seal a change of members (`Log::set_members`). It may wait for writers, and so for the queues
    /// above: it is called by none of their threads, and must seal nothing in another term. Where it
    /// fails, call `members_refused`.
    SetMembers {
        /// The term in which it was decided.
        term: Term,
        /// The members after it, encoded.
        members: Vec<u8>,
        /// The annotation of its record.
        change: Vec<u8>,
    },
    /// A change of members that was asked for is complete, or was given up.
    Changed {
        /// What was asked.
        id: u64,
        /// The LSN of its last record.
        outcome: Result<Lsn, ChangeError>,
    },
    /// These are the members now.
    Members(Members),
    /// A member's next record was trimmed: give it a page stream of at least this LSN, then call
    /// `install_ended`.
    Install {
        /// Which one.
        peer: NodeId,
        /// The least that it needs.
        at_least: Lsn,
    },
}

/// What is written to the journal at once: first cut, then append, then sync.
#[derive(Clone, Debug)]
pub struct Job<R> {
    /// What `persisted` is called with. Numbers rise.
    pub number: u64,
    /// Records above this LSN are dropped first.
    pub truncate_after: Option<Lsn>,
    /// New term and vote.
    pub hard_state: Option<HardState>,
    /// Records to append.
    pub records: Vec<R>,
}

/// Why a read has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No quorum has confirmed it in time.
    #[error("no quorum has confirmed the read in time; it may be tried again")]
    TimedOut,
    /// Too many wait.
    #[error("too many reads wait; try again later")]
    Busy,
}

/// Why a message was not taken. Its sender loses nothing by it: consensus repeats what is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It breaks a rule that every node keeps: its sender is broken or hostile.
    #[error("a message breaks the protocol: {0}")]
    Malformed(&'static str),
    /// A record is not the one that its entry names.
    #[error("the record of LSN {0} is not the one that its message names")]
    Record(Lsn),
    /// Too much waits for the journal.
    #[error("too many records wait for the journal")]
    Busy,
    /// This replica has stopped.
    #[error("the replica has stopped")]
    Stopped,
}

/// Why a replica takes no more part in its cluster. Reads of what it has go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// Its records are not those of the cluster. Build it anew from a page stream.
    #[error("this node's record of LSN {lsn} is not the cluster's; build the node anew")]
    Divergence {
        /// Where they differ.
        lsn: Lsn,
    },
    /// It has lost records that it had acknowledged. It must not vote any more: replace it by a new node.
    #[error(
        "this node has records up to LSN {last} and had acknowledged {acknowledged}; replace it"
    )]
    Lost {
        /// The last record that it has.
        last: Lsn,
        /// What it had acknowledged.
        acknowledged: Lsn,
    },
    /// The journal cannot be written or read.
    #[error("the journal has failed: {0}")]
    Journal(String),
    /// An invariant was broken.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// How a replica is.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is.
    pub role: Role,
    /// It takes writes.
    pub is_open: bool,
    /// Its term.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The last entry.
    pub last: Lsn,
    /// Up to where entries are durable here.
    pub persisted: Lsn,
    /// Up to where entries are committed, as it knows.
    pub committed: Lsn,
    /// Up to where readers see them.
    pub applied: Lsn,
    /// Whom it hands leadership over to.
    pub transfers_to: Option<NodeId>,
    /// The members.
    pub members: Members,
    /// How far the other members are, if it leads.
    pub progress: Vec<(NodeId, Progress)>,
}
