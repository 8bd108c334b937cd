//! Who belongs to the cluster, as every replica has it in its pages.

use crate::{
    error::Result,
    format::record::RecordKind,
    ids::Lsn,
    txn::{snapshot::Snapshot, write::WriteTxn},
};

use super::Door;

/// The tree that holds the members of the cluster.
const CLUSTER: &[u8] = b"$cluster";
const MEMBERS: &str = "members";

impl Door {
    /// Seals a record that makes `members` those of the cluster, with `change` as its annotation, and
    /// returns its LSN; it goes out by the outlet, and is not waited for. What both mean is the caller's
    /// business. Waits for the writer before, so it must not be called by who commits.
    ///
    /// # Errors
    /// [`Error::NotLeader`](crate::Error::NotLeader), and those of a transaction.
    pub fn set_members(&self, members: &[u8], change: &[u8]) -> Result<Lsn> {
        (self.room)()?;
        let mut txn = WriteTxn::begin(&self.core)?;
        txn.set_kind(RecordKind::Membership);
        txn.system_tree(CLUSTER)?.insert(MEMBERS, members)?;
        txn.annotate(change)?;
        txn.seal_only()
    }

    /// The members as of the newest commit, as they were set last.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt), [`Error::Bound`](crate::Error::Bound).
    #[track_caller]
    pub fn members(&self) -> Result<Option<Vec<u8>>> {
        let snapshot = Snapshot::open(&self.core, std::panic::Location::caller())?;
        let Some(cluster) = snapshot.find_tree(CLUSTER)? else { return Ok(None) };
        Ok(cluster.get(MEMBERS)?.map(<[u8]>::to_vec))
    }
}
