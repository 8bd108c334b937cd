//! What is served: a database as the service sees it, alone or replicated.

use treepie::Snapshot;

use super::{
    message::{Admin, Consistency, Member, Outcome, Status, Welcome, Write},
    refusal::Refusal,
};

/// What is done with an outcome, once, on any thread, also before the call that was given it returns.
/// It hands over, and does not wait for anything. Dropped, it says that the outcome is not known.
pub type Done<T> = Box<dyn FnOnce(Result<T, Refusal>) + Send>;

/// What came of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// LSN from which on it is seen; of the state that was read, where nothing was changed.
    pub lsn: u64,
    /// What it has done.
    pub outcome: Outcome,
    /// It was done before, when it first came.
    pub repeated: bool,
}

/// What a [`Server`](super::Server) serves. Calls come from its threads, one after the other from each,
/// and must not wait for disks or peers: answers that take time go to `done`.
pub trait Store: Send + Sync + 'static {
    /// Who this is. `in_flight_max` is the server's to say.
    fn welcome(&self) -> Welcome;

    /// Runs a transaction; `done` is called when it is committed, or is known not to be. Those of one
    /// thread are run in the order of the calls.
    fn write(&self, write: Write, done: Done<Written>);

    /// Gives `done` a snapshot that is as new as is asked for.
    fn read(&self, consistency: Consistency, done: Done<Snapshot>);

    /// What the node is doing.
    ///
    /// # Errors
    /// A [`Refusal`].
    fn status(&self) -> Result<Status, Refusal>;

    /// Who belongs to the cluster.
    ///
    /// # Errors
    /// A [`Refusal`].
    fn members(&self) -> Result<Vec<Member>, Refusal>;

    /// Changes the cluster; `done` gets the LSN of the change when it is committed.
    fn admin(&self, admin: Admin, done: Done<u64>);
}
