//! What reaches the replica, and the clock that it reads.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use treepie::{
    ids::{Lsn, Term},
    replication::{Outlet, SharedRecord},
};

use super::works::{Hand, Works};
use crate::{
    ids::NodeId,
    members::{Change, ChangeError},
    message::Message,
    replica::{ReadError, Status, Stopped},
    transport::Credit,
};

/// Gets the answer to a read; it must not wait for anything.
pub type ReadDone = Box<dyn FnOnce(Result<Lsn, ReadError>) + Send>;
/// Gets the outcome of a change; it must not wait for anything.
pub type ChangeDone = Box<dyn FnOnce(Result<Lsn, ChangeError>) + Send>;

/// Gets an age; it must not wait for anything.
pub type AgeDone = Box<dyn FnOnce(Option<Duration>) + Send>;

/// A read that waits for its answer.
pub(super) struct Waiting {
    /// The least LSN that it needs; a linearizable one where there is none.
    pub(super) at_least: Option<Lsn>,
    /// Until when it waits, on the node's clock.
    pub(super) deadline: Duration,
    pub(super) done: ReadDone,
}

/// How a replica is, and since when others were not heard.
pub(super) struct Answered {
    pub(super) replica: Status,
    pub(super) stopped: Option<Stopped>,
    pub(super) silent: BTreeMap<NodeId, Duration>,
}

/// What happens to a node.
pub(super) enum Input {
    /// A message came; the credit goes when it was taken.
    Message(Message, Vec<SharedRecord>, Credit),
    /// The database has sealed a record.
    Sealed(SharedRecord),
    /// Jobs of the journal are durable, up to this one.
    Persisted(u64),
    /// Readers see this LSN.
    Applied(Lsn),
    /// The database takes writes.
    Led,
    /// A call to follow is done, and the log ends there.
    Followed(u64, Lsn),
    /// A change of members of this term could not be sealed.
    MembersRefused(Term),
    /// A linearizable read, or one of a state at or after an LSN.
    Read(Waiting),
    /// How old the state here may be.
    Staleness(AgeDone),
    /// A change of the members.
    Change(Change, ChangeDone),
    /// Hand leadership over.
    Transfer(NodeId, Sender<Result<(), ChangeError>>),
    /// Messages to a node are lost.
    Unreachable(NodeId),
    /// A page stream to a node has ended, and whether it is whole.
    InstallEnded(NodeId, bool),
    /// The journal or the database has failed.
    Failed(treepie::Error),
    /// A thread of the node has panicked.
    Panicked(&'static str),
    /// How it is.
    Status(Sender<Answered>),
    /// The end, if the node has not got this record, whose state it was given; the answer says whether.
    YieldTo(Lsn, Term, Sender<bool>),
    /// The end.
    Stop,
}

/// Brings sealed records to the replica.
pub(super) struct SealedOutlet(pub Arc<Works>);

impl Outlet for SealedOutlet {
    fn sealed(&self, record: SharedRecord) {
        // Nobody is there any more when the node is being stopped.
        self.0.replica.leave(Input::Sealed(record), 0);
    }

    fn released(&self) {
        self.0.work(Hand::Light);
    }
}

/// A clock that nobody sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new() -> Clock {
        Clock(Instant::now())
    }

    pub(super) fn now(self) -> Duration {
        self.0.elapsed()
    }
}
