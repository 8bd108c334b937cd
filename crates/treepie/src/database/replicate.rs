//! Replication as users of a database meet it: taking the door, and writes that run once.

use std::{panic::Location, sync::Arc};

use crate::{
    error::Result,
    replication::{Door, Outlet},
    txn::{
        merger::Merger,
        once::{Once, RequestId},
        submit::Submitted,
        write::{Receipt, WriteTxn},
    },
};

use super::Database;

impl Database {
    /// Takes the replication door, for one owner at a time: from then on the database is a follower, which
    /// takes no writes until the door says that it leads. A database that was never replicated becomes one
    /// that is, for good. What is sealed goes to `outlet`.
    ///
    /// While the door is there the database stays open.
    ///
    /// # Errors
    /// [`Error::Door`](crate::Error::Door) when somebody has it;
    /// [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown), [`Error::Poisoned`](crate::Error::Poisoned)
    /// and [`Error::Io`](crate::Error::Io) when the journal cannot be written.
    pub fn replicate(&self, outlet: Arc<dyn Outlet>) -> Result<Door> {
        let database = self.clone();
        let core = Arc::clone(&self.shared.core);
        Door::open(core, outlet, Box::new(move || database.make_room()))
    }

    /// Whether the database belongs to a cluster: then it takes writes only where a door leads.
    #[must_use]
    pub fn is_replicated(&self) -> bool {
        self.shared.core.replicated.is_on()
    }

    /// Bytes of recent records that are kept in memory for other nodes.
    #[must_use]
    pub fn recent_records_len(&self) -> usize {
        self.shared.core.replicated.recent_bytes()
    }

    /// Runs `change` once, however often the request comes: if it has run before, what it returned then is
    /// returned again, and nothing is done. So a write whose reply was lost, or whose outcome is not known
    /// ([`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown)), is sent again, on whichever node leads by
    /// then. What `change` returns is remembered with its changes: at most 1,024 bytes of it, and of the
    /// newest [`requests_max`](crate::Options::requests_max) requests.
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// use treepie::RequestId;
    ///
    /// let request = RequestId { client: 0x6f1e_a0c3, number: 1 };
    /// let deposit = |tx: &mut treepie::WriteTxn<'_>| {
    ///     let mut accounts = tx.tree("accounts")?;
    ///     let before = accounts.get("anna")?.and_then(|bytes| bytes.try_into().ok());
    ///     let after = before.map_or(0, u64::from_be_bytes) + 70;
    ///     accounts.insert("anna", after.to_be_bytes())?;
    ///     Ok(after.to_be_bytes())
    /// };
    /// let first = db.write_once(request, deposit)?.value;
    /// let again = db.write_once(request, deposit)?.value;
    /// assert_eq!(again.bytes, 70_u64.to_be_bytes());
    /// assert_eq!((again.lsn, again.is_repeated), (first.lsn, true));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`write`](Database::write); [`Error::ValueTooLong`](crate::Error::ValueTooLong) when
    /// `change` returns too much.
    ///
    /// # Panics
    /// If `change` does.
    #[track_caller]
    pub fn write_once<B: Into<Vec<u8>>>(
        &self,
        request: RequestId,
        change: impl FnOnce(&mut WriteTxn<'_>) -> Result<B> + Send,
    ) -> Result<Receipt<Once>> {
        let core = &self.shared.core;
        let once = |txn: &mut WriteTxn<'_>| txn.run_once(request, change);
        Merger::write(core, once, core.bounds.durability, Location::caller(), &|| self.make_room())
    }

    /// As [`write_once`](Database::write_once), handed over as by [`submit`](Database::submit).
    ///
    /// # Errors
    /// As [`submit`](Database::submit).
    #[track_caller]
    pub fn submit_once<B: Into<Vec<u8>>>(
        &self,
        request: RequestId,
        change: impl FnOnce(&mut WriteTxn<'_>) -> Result<B> + Send + 'static,
    ) -> Result<Submitted<Once>> {
        self.submit(move |txn| txn.run_once(request, change))
    }
}
