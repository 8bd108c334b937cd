//! Reading on from an LSN: records as they are stored, for archives, replicas and change feeds.

use std::{sync::Arc, time::Duration};

use crate::{
    error::{Error, Result},
    ids::{Lsn, Term},
    journal::{JournalReader, StoredRecord},
    recovery::JOURNAL_DIR,
    txn::core::Core,
};

use super::Database;

/// A record with its bytes, the same on every replica. Verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawRecord {
    /// Its number.
    pub lsn: Lsn,
    /// Raft term; 0 when never replicated.
    pub term: Term,
    /// When it was sealed, microseconds since 1970.
    pub time_us: u64,
    /// Chain hash of the record before it.
    pub chain_before: u64,
    /// Its own chain hash.
    pub chain: u64,
    /// Header and payload; `docs/format.md` has their layout.
    pub bytes: Vec<u8>,
}

impl From<StoredRecord> for RawRecord {
    fn from(stored: StoredRecord) -> RawRecord {
        RawRecord {
            lsn: stored.header.lsn(),
            term: stored.header.term(),
            time_us: stored.header.time_us(),
            chain_before: stored.header.chain_before(),
            chain: stored.header.chain(),
            bytes: stored.bytes,
        }
    }
}

/// The records of an open database above an LSN, as they become final and durable. One is in memory
/// at a time.
///
/// What it has not read yet stays in the journal, up to
/// [`Options::journal_pins_max`](crate::Options::journal_pins_max) behind the checkpoint; writers and
/// checkpoints never wait for it. While it lives the folder stays locked.
#[derive(Debug)]
pub struct Records {
    core: Arc<Core>,
    pin: u64,
    /// With the count of truncations when it was opened: it may know nothing of a later one.
    reader: Option<(u64, JournalReader)>,
    last: Lsn,
}

impl Database {
    /// The records above `after`, the oldest first, read from the journal.
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// let mut records = db.records(db.read()?.lsn())?;
    /// let receipt = db.write(|tx| tx.tree("birds")?.insert("pica", "magpie"))?;
    /// let record = records.next_record()?.expect("it is durable");
    /// assert_eq!(record.lsn, receipt.lsn);
    /// assert!(records.next_record()?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Trimmed`] when the first of them was recycled.
    pub fn records(&self, after: Lsn) -> Result<Records> {
        let core = Arc::clone(&self.shared.core);
        let pin = core.journal.pin(after)?;
        Ok(Records { core, pin, reader: None, last: after })
    }

    /// The records of all segments that the journal has, the oldest first.
    ///
    /// # Errors
    /// None now; see [`records`](Database::records).
    pub fn records_kept(&self) -> Result<Records> {
        loop {
            let first = self.shared.core.journal.report().first_lsn;
            match self.records(Lsn(first.0.saturating_sub(1))) {
                // A checkpoint came between.
                Err(Error::Trimmed { .. }) => {}
                records => return records,
            }
        }
    }

    /// LSN up to which commits are final and durable.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        final_lsn(&self.shared.core)
    }

    /// Waits until a commit above `lsn` is final and durable, at most for `timeout`; returns the newest
    /// such LSN, which is not above `lsn` where there was none in time. None comes to a poisoned database
    /// ([`Stats::poisoned_by`](crate::Stats::poisoned_by)): there it returns at once.
    pub fn wait_for_commit(&self, lsn: Lsn, timeout: Duration) -> Lsn {
        wait_for_commit(&self.shared.core, lsn, timeout)
    }
}

impl Records {
    /// The next record, or none if there is no further one yet. Of a closed database it gives what is left:
    /// see [`is_closed`](Records::is_closed).
    ///
    /// # Errors
    /// [`Error::Poisoned`] after the last durable record of a poisoned database: no further one comes.
    /// [`Error::Trimmed`] when it is too far behind, so that the records were
    /// given up: begin anew with a copy of all pages. [`Error::Corrupt`],
    /// [`Error::JournalGap`], [`Error::Io`].
    pub fn next_record(&mut self) -> Result<Option<RawRecord>> {
        let pinned = self.core.journal.advance_pin(self.pin, self.last);
        // Looked at before the watermark, which may have been raised once more until it was poisoned.
        let poison = self.core.check_poison();
        if self.last >= final_lsn(&self.core) {
            return pinned.and(poison).map(|()| None);
        }
        pinned?;
        loop {
            let truncations = self.core.journal.truncation_count();
            let stored = self.read(truncations);
            // Segments that were given up in the middle may be another's by now: what was read of
            // them is not to be believed, nor what it failed with.
            self.core.journal.advance_pin(self.pin, self.last)?;
            if self.core.journal.truncation_count() != truncations {
                continue;
            }
            let Some(stored) = stored? else { return Ok(None) };
            self.last = stored.header.lsn();
            return Ok(Some(stored.into()));
        }
    }

    fn read(&mut self, truncations: u64) -> Result<Option<StoredRecord>> {
        if self.reader.as_ref().is_none_or(|reader| reader.0 != truncations) {
            let disk = Arc::clone(&self.core.disk);
            let reader = JournalReader::open(disk, &self.core.path.join(JOURNAL_DIR))?;
            self.reader = Some((truncations, reader.from(self.last.next())?));
        }
        self.reader.as_mut().expect("it was just opened").1.read_next()
    }

    /// LSN of the record that was read last, or the one to begin after.
    #[must_use]
    pub fn last(&self) -> Lsn {
        self.last
    }

    /// Waits for a next record, at most for `timeout`; returns whether there is one. Returns at once
    /// where none can come: [`next_record`](Records::next_record) fails then if the database is poisoned,
    /// and [`is_closed`](Records::is_closed) says if it is closed.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        wait_for_commit(&self.core, self.last, timeout) > self.last
    }

    /// Whether the database was closed. What [`next_record`](Records::next_record) still gives after that
    /// is all there will be, and dropping this unlocks the folder.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core.watch.is_closed()
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.core.journal.unpin(self.pin);
    }
}

/// Up to where commits are final and durable here.
fn final_lsn(core: &Core) -> Lsn {
    core.watermarks.committed().min(core.watermarks.synced())
}

fn wait_for_commit(core: &Core, lsn: Lsn, timeout: Duration) -> Lsn {
    core.watch.wait(timeout, &|| final_lsn(core) > lsn || core.poisoned_by().is_some());
    final_lsn(core)
}
