//! Who belongs to the cluster, as every replica has it in its pages.

use crate::{
    error::{Error, Result},
    format::record::RecordKind,
    ids::{Lsn, Term},
    sync::{Planted, is_planted},
    txn::{snapshot::Snapshot, write::WriteTxn},
};

use super::Door;

/// The tree that holds the members of the cluster.
const CLUSTER: &[u8] = b"$cluster";
const MEMBERS: &str = "members";
/// The lineage epoch of the cluster whose members they are: a copy that goes its own way is another one.
const EPOCH: &str = "epoch";

impl Door {
    /// Seals a record that makes `members` those of the cluster, with `change` as its annotation, and
    /// returns its LSN; it goes out by the outlet, and is not waited for. What both mean is the caller's
    /// business. Waits for the writer before, so it must not be called by who commits.
    ///
    /// `term` is the one in which this was decided. Who comes so late that another one has begun is
    /// refused: what it wants may not follow from the members of then.
    ///
    /// # Errors
    /// [`Error::NotLeader`], and those of a transaction.
    pub fn set_members(&self, term: Term, members: &[u8], change: &[u8]) -> Result<Lsn> {
        (self.room)()?;
        let mut txn = WriteTxn::begin(&self.core)?;
        // No other term can begin while this is the writer.
        if self.core.replicated.term() != term && !is_planted(Planted::MembersOfAnotherTerm) {
            return Err(Error::NotLeader { leader: None });
        }
        txn.set_kind(RecordKind::Membership);
        let epoch = self.core.lineage.epoch.to_le_bytes();
        let mut cluster = txn.system_tree(CLUSTER)?;
        cluster.insert(MEMBERS, members)?;
        cluster.insert(EPOCH, epoch)?;
        txn.annotate(change)?;
        txn.seal_only()
    }

    /// The members as of the newest commit, as they were set last in this lineage: a database that was
    /// restored from a backup of a cluster has none.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Bound`].
    #[track_caller]
    pub fn members(&self) -> Result<Option<Vec<u8>>> {
        let snapshot = Snapshot::open(&self.core, std::panic::Location::caller())?;
        let Some(cluster) = snapshot.find_tree(CLUSTER)? else { return Ok(None) };
        if cluster.get(EPOCH)? != Some(&self.core.lineage.epoch.to_le_bytes()[..]) {
            return Ok(None);
        }
        Ok(cluster.get(MEMBERS)?.map(<[u8]>::to_vec))
    }
}
