//! Numbers of nodes and names of clusters.

use std::fmt;

use treepie::ids::DatabaseId;

/// Number of a node in its cluster, from 1, never used again once its node was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// Tells clusters apart: the identity and the lineage epoch of the database that its nodes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterId {
    /// The database.
    pub database: DatabaseId,
    /// Lineage epoch: a cluster that was made of a backup is another one.
    pub epoch: u64,
}

impl NodeId {
    /// No node.
    pub const NONE: NodeId = NodeId(0);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.database, self.epoch)
    }
}
