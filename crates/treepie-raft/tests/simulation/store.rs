//! A log of the simulation, with what is around it in a node: clients, crashes, and all pages as they are
//! given to another node. There are two: a model in memory, and a real database on a simulated disk.

use std::fmt;

use treepie::ids::{Lsn, Term};
use treepie_raft::{
    ids::NodeId,
    log::{HardState, Log},
};
use treepie_testkit::Rng;

use crate::world::Bug;

/// What is wrong, in words.
pub type Wrong = String;

/// The log of one node, and its database.
pub trait Store: Log + Sized {
    /// What all nodes begin with.
    type Origin;
    /// All pages of one moment.
    type Pages: fmt::Debug;

    /// Clients write that often at least, in microseconds.
    const WRITE_US: u64;
    /// And read.
    const READ_US: u64;

    /// The beginning of a cluster of so many voters, all of its disks from one seed.
    fn origin(seed: u64, voters: u64) -> Self::Origin;

    /// Whether the cluster is there from the beginning, or is founded by the first node.
    fn is_founded(origin: &Self::Origin) -> bool;

    /// The log of a new node.
    fn create(origin: &Self::Origin, id: NodeId, rng: &mut Rng, bug: Option<Bug>) -> Self;

    /// What is there after a power cut of this moment. This one is dead from then on.
    fn crash(&self, rng: &mut Rng) -> Result<Self, Wrong>;

    /// Gives up records that are in the data file.
    fn trim(&self, rng: &mut Rng) -> Result<(), Wrong>;

    /// A client's write, if the node takes any.
    fn write(&self, op: u64);

    /// The records that were sealed since this was asked last.
    fn take_sealed(&self) -> Vec<Self::Record>;

    /// The LSNs of writes that are acknowledged since this was asked last.
    fn take_acknowledged(&self) -> Result<Vec<Lsn>, Wrong>;

    /// Whether it takes writes.
    fn leads(&self) -> bool;

    /// What is durable: the last record, term and vote.
    fn durable(&self) -> (Lsn, HardState);

    /// Chain hash of a record that was appended.
    fn chain(&self, lsn: Lsn) -> Option<u64>;

    /// The first LSN of which it knows a chain hash.
    fn base(&self) -> Lsn;

    /// The LSNs and chain hashes that `commit(lsn)` would make visible.
    fn coming(&self, lsn: Lsn) -> Vec<(Lsn, u64)>;

    /// All pages of this moment, if they can be given away.
    fn pages(&self) -> Option<Self::Pages>;

    /// The last record that pages hold, and its term.
    fn position(pages: &Self::Pages) -> (Lsn, Term);

    /// The log after these pages were put in the place of its own, term and vote as they are; and whether
    /// they were. The power may be cut in between. This one is dead from then on.
    fn install(&self, pages: &Self::Pages, rng: &mut Rng) -> Result<(Self, bool), Wrong>;
}
