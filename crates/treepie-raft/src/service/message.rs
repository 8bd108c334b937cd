//! What clients ask for, and what they get.
//!
//! A request is a frame of kind 16, its answer one of kind 17; their control parts are [`Request`] and
//! [`Response`], there are no attachments. Integers are little-endian, lists and byte strings stand
//! behind their length (u64), which alternative it is stands before it (u32, from 0 in the order of
//! this file), whether there is one (u8) before what may be missing. `docs/client-protocol.md` has the
//! bytes.

use std::ops::Bound;

use bincode::{Decode, Encode};

use super::refusal::Refusal;
use crate::ids::{ClusterId, NodeId};

/// Bytes of a request or a response, at most.
pub const FRAME_LEN_MAX: usize = 16 << 20;
/// Operations and conditions of a transaction, at most: so much work is done without a pause.
pub const OPERATIONS_MAX: usize = 1 << 16;
/// Entries of a page, at most.
pub const ENTRIES_MAX: u32 = 1 << 16;
/// Bytes of keys and values in a page, at most; a single entry may have more.
pub const PAGE_LEN_MAX: u32 = 4 << 20;
/// Longest value, in bytes, that is told of an entry that is not as a condition wants it.
pub const FOUND_LEN_MAX: usize = 4096;
/// Bytes of the outcome of a transaction, at most: it is remembered beside the data.
pub const OUTCOME_LEN_MAX: usize = 64 << 10;

/// One request. Any number of them may be on their way; answers come in any order.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// Chosen by the client; the answer has it.
    pub id: u64,
    /// What is asked for.
    pub call: Call,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Call {
    /// The first request of a connection: the cluster that is expected there, if any is.
    Hello(Option<ClusterId>),
    /// A look into a tree.
    Read(Read),
    /// A transaction.
    Write(Write),
    /// What the node is doing.
    Status,
    /// Who belongs to the cluster.
    Members,
    /// A change of the cluster.
    Admin(Admin),
}

/// A look into a tree.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Read {
    /// How new the state must be.
    pub consistency: Consistency,
    /// What to look for.
    pub query: Query,
}

/// How new the state must be that is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Consistency {
    /// With everything that was acknowledged to anybody when the read began.
    #[default]
    Linearizable,
    /// With everything up to this LSN, for instance that of a receipt.
    AtLeast(u64),
    /// What the node has, if it has heard of a leader within so many milliseconds.
    Stale(u64),
}

/// What to look for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Query {
    /// The value of a key.
    Get {
        /// Name of the tree.
        tree: Vec<u8>,
        /// The key.
        key: Vec<u8>,
    },
    /// Entries in order.
    Scan(Scan),
}

/// Entries in order, a page of them. Where there are more, the next page begins behind the last key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Scan {
    /// Name of the tree.
    pub tree: Vec<u8>,
    /// Where it begins, in the order of keys.
    pub from: Bound<Vec<u8>>,
    /// Where it ends.
    pub to: Bound<Vec<u8>>,
    /// From the highest key down.
    pub reverse: bool,
    /// Entries, at most.
    pub entries_max: u32,
    /// Bytes of keys and values, at most; the first entry comes whatever its length is.
    pub bytes_max: u32,
}

/// A transaction: all of it is done, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Write {
    /// What makes a repetition known; without it, one is done again.
    pub request: Option<RequestId>,
    /// What must be so; otherwise nothing is changed.
    pub conditions: Vec<Condition>,
    /// What is done, in this order.
    pub operations: Vec<Operation>,
}

/// Tells one transaction of a client from its others: however often it arrives, it is done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RequestId {
    /// The client: 16 random bytes, drawn when it begins.
    pub client: [u8; 16],
    /// Rises with each of its transactions.
    pub number: u64,
    /// All below were answered, or given up: what is remembered of them may go.
    pub settled: u64,
}

/// What the value of a key must be.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Condition {
    /// Name of the tree.
    pub tree: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
    /// Its value; `None` when there must be none.
    pub value: Option<Vec<u8>>,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    /// Sets a value; makes the tree when it is missing.
    Put {
        /// Name of the tree.
        tree: Vec<u8>,
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Removes a key.
    Delete {
        /// Name of the tree.
        tree: Vec<u8>,
        /// The key.
        key: Vec<u8>,
    },
    /// Reads a value, as the steps before have left it.
    Get {
        /// Name of the tree.
        tree: Vec<u8>,
        /// The key.
        key: Vec<u8>,
    },
    /// Removes the keys of a range.
    DeleteRange {
        /// Name of the tree.
        tree: Vec<u8>,
        /// Where it begins.
        from: Bound<Vec<u8>>,
        /// Where it ends.
        to: Bound<Vec<u8>>,
    },
}

/// A change of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Admin {
    /// A node that gets all data, and does not vote.
    AddLearner {
        /// Its number.
        node: NodeId,
        /// Where it listens for nodes.
        address: String,
        /// Where it listens for clients.
        client_address: String,
    },
    /// A learner becomes a voter.
    Promote {
        /// Its number.
        node: NodeId,
    },
    /// A node leaves for good.
    Remove {
        /// Its number.
        node: NodeId,
    },
    /// Another node becomes the leader.
    Transfer {
        /// Its number.
        to: NodeId,
    },
    /// A learner takes the vote of a voter, which leaves for good.
    Replace {
        /// Number of the voter.
        old: NodeId,
        /// Number of the learner.
        new: NodeId,
    },
    /// A node is reached elsewhere.
    Move {
        /// Its number.
        node: NodeId,
        /// Where it listens for nodes; where it did, if this is empty.
        address: String,
        /// Where it listens for clients; where it did, if this is empty.
        client_address: String,
    },
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Response {
    /// That of the request.
    pub id: u64,
    /// What came of it.
    pub result: Result<Answer, Refusal>,
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// To a hello.
    Welcome(Welcome),
    /// To a read: LSN of the state, and what is in it.
    Found {
        /// LSN of the state.
        lsn: u64,
        /// What is in it.
        found: Found,
    },
    /// To a write.
    Written {
        /// LSN from which on it is seen; of the state that was read, where nothing was changed.
        lsn: u64,
        /// What it has done.
        outcome: Outcome,
        /// It was done before, when it first came: this is what it did then.
        repeated: bool,
    },
    /// What the node is doing.
    Status(Box<Status>),
    /// Who belongs to the cluster.
    Members(Vec<Member>),
    /// A change of the cluster was committed, or a transfer has begun.
    Changed {
        /// LSN of the change.
        lsn: u64,
    },
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// Its number.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Requests that may be on their way at the same time.
    pub in_flight_max: u32,
}

/// What a query has found.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Found {
    /// The value, where there is one.
    Value(Option<Vec<u8>>),
    /// Entries.
    Page(Page),
}

/// Some entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    /// Keys and values, in the order that was asked for.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// There are more behind the last one.
    pub has_more: bool,
}

/// What a transaction has done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// All of it: an effect for each operation.
    Done(Vec<Effect>),
    /// Nothing: a condition did not hold.
    Unmet(Unmet),
}

/// What one operation has done.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Effect {
    /// A value was set; whether there was one before.
    Put(bool),
    /// A key was removed, if it was there.
    Deleted(bool),
    /// The value.
    Value(Option<Vec<u8>>),
    /// So many keys were removed.
    DeletedRange(u64),
}

/// The condition that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unmet {
    /// Which one, from 0.
    pub index: u32,
    /// Whether the key has a value.
    pub exists: bool,
    /// The value, unless it is longer than [`FOUND_LEN_MAX`].
    pub found: Option<Vec<u8>>,
}

/// What a node is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// Its number.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its part in it.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// LSN of the newest commit that it knows of.
    pub committed: u64,
    /// LSN of the state that it reads.
    pub applied: u64,
    /// LSN of the last record in its journal.
    pub appended: u64,
    /// LSN up to which its journal is durable.
    pub synced: u64,
    /// LSN up to which its data file holds everything.
    pub checkpointed: u64,
    /// Bytes of journal since then.
    pub journal_len: u64,
    /// What keeps it from taking writes, if anything does.
    pub fault: Option<String>,
    /// Milliseconds since it was started.
    pub uptime_ms: u64,
    /// The others, as the leader sees them; nobody on other nodes.
    pub peers: Vec<PeerStatus>,
}

/// A node's part in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Role {
    /// Alone, without consensus.
    #[default]
    Standalone,
    /// Takes writes.
    Leader,
    /// Follows a leader, or looks for one.
    Follower,
    /// Stands for election.
    Candidate,
    /// Gets all data, and does not vote.
    Learner,
    /// Has stopped, because its data differs from the others' or is damaged.
    Stopped,
}

/// Another node, as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PeerStatus {
    /// Its number.
    pub node: NodeId,
    /// How it is kept up to date.
    pub state: PeerState,
    /// LSN up to which its journal is durable, as far as it has told.
    pub matched: u64,
    /// Records that it has yet to get.
    pub lag_records: u64,
    /// Bytes of them; where many are lacking, those of old ones by the mean of the others.
    pub lag_len: u64,
    /// Milliseconds since it was last heard of; `u64::MAX` when it never was.
    pub silent_ms: u64,
}

/// How a node is kept up to date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum PeerState {
    /// It is found out up to where its journal is ours.
    #[default]
    Probing,
    /// It gets records as they are made.
    Replicating,
    /// It gets all pages: of so many bytes, so many were sent.
    Installing {
        /// Bytes that were sent.
        sent: u64,
        /// Bytes in all, as far as it is known.
        total: u64,
        /// Bytes a second, lately.
        rate: u64,
    },
    /// Nothing is heard of it.
    Unreachable,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// Its number.
    pub node: NodeId,
    /// Whether it votes.
    pub is_voter: bool,
    /// Where it listens for nodes.
    pub address: String,
    /// Where it listens for clients.
    pub client_address: String,
}

// What the derived code of the types above asks for.
bincode::impl_borrow_decode!(NodeId);
bincode::impl_borrow_decode!(ClusterId);

impl Role {
    /// A word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Standalone => "standalone",
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Stopped => "stopped",
        }
    }
}

impl Call {
    /// Whether doing it twice is not the same as doing it once.
    #[must_use]
    pub fn changes(&self) -> bool {
        matches!(self, Call::Write(_) | Call::Admin(_))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::refusal::Leader, *};
    use crate::wire::codec;

    #[track_caller]
    fn has_bytes<T>(value: &T, expected: &[&[u8]])
    where
        T: Encode + Decode<()> + PartialEq + std::fmt::Debug,
    {
        let mut bytes = Vec::new();
        codec::encode(value, &mut bytes).expect("it is short");
        assert_eq!(bytes, expected.concat());
        assert_eq!(codec::decode::<T>(&bytes).expect("it is whole"), *value);
    }

    const LEN_1: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn hello_and_welcome_have_these_bytes() {
        let database = treepie::ids::DatabaseId([0xdb; 16]);
        let cluster = ClusterId { database, epoch: 2 };
        let hello = Request { id: 0x0102, call: Call::Hello(Some(cluster)) };
        let number = |number: u8| [number, 0, 0, 0, 0, 0, 0, 0];
        has_bytes(&hello, &[&[2, 1, 0, 0, 0, 0, 0, 0], &[0; 4], &[1], &[0xdb; 16], &number(2)]);
        let welcome = Welcome { node: NodeId(3), cluster, in_flight_max: 4 };
        has_bytes(
            &Response { id: 5, result: Ok(Answer::Welcome(welcome)) },
            &[&number(5), &[0; 4], &[0; 4], &number(3), &[0xdb; 16], &number(2), &[4, 0, 0, 0]],
        );
    }

    #[test]
    fn reads_have_these_bytes() {
        let query = Query::Get { tree: b"t".to_vec(), key: b"k".to_vec() };
        let read = Read { consistency: Consistency::AtLeast(9), query };
        let at_least = [1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
        has_bytes(
            &Call::Read(read),
            &[&[1, 0, 0, 0], &at_least, &[0; 4], &LEN_1, b"t", &LEN_1, b"k"],
        );
        let scan = Scan {
            tree: b"t".to_vec(),
            from: Bound::Unbounded,
            to: Bound::Excluded(b"z".to_vec()),
            reverse: true,
            entries_max: 7,
            bytes_max: 8,
        };
        let to: &[&[u8]] = &[&[2, 0, 0, 0], &LEN_1, b"z"];
        has_bytes(
            &Query::Scan(scan),
            &[
                &[1, 0, 0, 0],
                &LEN_1,
                b"t",
                &[0; 4],
                &to.concat(),
                &[1],
                &[7, 0, 0, 0],
                &[8, 0, 0, 0],
            ],
        );
        let page = Page { entries: vec![(b"k".to_vec(), b"v".to_vec())], has_more: true };
        has_bytes(
            &Answer::Found { lsn: 6, found: Found::Page(page) },
            &[
                &[1, 0, 0, 0],
                &[6, 0, 0, 0, 0, 0, 0, 0],
                &[1, 0, 0, 0],
                &LEN_1,
                &LEN_1,
                b"k",
                &LEN_1,
                b"v",
                &[1],
            ],
        );
    }

    #[test]
    fn writes_have_these_bytes() {
        let (tree, key) = (b"t".to_vec(), b"k".to_vec());
        let write = Write {
            request: Some(RequestId { client: [0xc1; 16], number: 3, settled: 2 }),
            conditions: vec![Condition { tree: tree.clone(), key: key.clone(), value: None }],
            operations: vec![Operation::Put { tree, key, value: b"v".to_vec() }],
        };
        has_bytes(
            &Call::Write(write),
            &[
                &[2, 0, 0, 0],
                &[1],
                &[0xc1; 16],
                &[3, 0, 0, 0, 0, 0, 0, 0],
                &[2, 0, 0, 0, 0, 0, 0, 0],
                &LEN_1,
                &LEN_1,
                b"t",
                &LEN_1,
                b"k",
                &[0],
                &LEN_1,
                &[0; 4],
                &LEN_1,
                b"t",
                &LEN_1,
                b"k",
                &LEN_1,
                b"v",
            ],
        );
        let outcome = Outcome::Done(vec![Effect::Put(true)]);
        has_bytes(
            &Answer::Written { lsn: 6, outcome, repeated: true },
            &[&[2, 0, 0, 0], &[6, 0, 0, 0, 0, 0, 0, 0], &[0; 4], &LEN_1, &[0; 4], &[1], &[1]],
        );
    }

    #[test]
    fn refusals_have_these_bytes() {
        let leader = Leader { node: NodeId(2), address: "a".to_owned() };
        let refusal = Refusal::NotLeader { leader: Some(leader) };
        has_bytes(
            &Response { id: 1, result: Err(refusal) },
            &[&LEN_1, &[1, 0, 0, 0], &[0; 4], &[1], &[2, 0, 0, 0, 0, 0, 0, 0], &LEN_1, b"a"],
        );
        has_bytes(&Refusal::Unknown { lsn: 1 }, &[&[1, 0, 0, 0], &LEN_1]);
        has_bytes(&Refusal::GivenUp, &[&[9, 0, 0, 0]]);
    }
}
