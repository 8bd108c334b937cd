//! What is in a database and what it is doing: report and statistics.

use std::sync::atomic::Ordering::Relaxed;

use crate::{
    error::Result,
    ids::{DatabaseId, Lsn},
    journal::JournalReport,
    pager::access::PageRead,
    tree,
    txn::snapshot::TreeInfo,
};

use super::Database;

/// Everything worth knowing about a database at one moment. Making one walks all trees.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Identity.
    pub database_id: DatabaseId,
    /// Size of a page in bytes.
    pub page_size: usize,
    /// LSN that the trees were read at.
    pub lsn: Lsn,
    /// The trees, those of the engine (`$…`) included, the catalog not.
    pub trees: Vec<TreeReport>,
    /// Length of the data file in bytes.
    pub data_file_len: u64,
    /// Pages in use, fixed ones included.
    pub pages_used: u64,
    /// Pages of the file that are free, those included that it grew by ahead of need.
    pub pages_free: u64,
    /// Longest run of free pages in the file: a larger value makes it grow, however many are free.
    pub pages_free_run_max: u64,
    /// The journal's segments.
    pub journal: JournalReport,
    /// Open snapshots and transactions, the oldest first.
    pub readers: Vec<ReaderInfo>,
    /// Counters and watermarks.
    pub stats: Stats,
}

/// One tree in a report.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TreeReport {
    /// What the catalog says.
    pub info: TreeInfo,
    /// How full its leaves are, from 0 to 1; without their headers, 1 is a leaf without free bytes.
    pub leaf_fill: f64,
}

/// One open snapshot or transaction.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReaderInfo {
    /// LSN that it reads.
    pub lsn: Lsn,
    /// How long it has been open, in microseconds.
    pub age_us: u64,
    /// Where it was opened: file, line and column of the caller.
    pub opened_at: String,
    /// Bytes of versions in memory that end with it: those that only readers at its LSN see.
    pub pinned_bytes: u64,
}

/// Counters since the database was opened, and the watermarks of this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// LSN of the newest commit.
    pub committed: Lsn,
    /// LSN up to which the journal is durable.
    pub synced: Lsn,
    /// LSN of the last record in the journal.
    pub appended: Lsn,
    /// LSN up to which the data file holds everything.
    pub checkpointed: Lsn,
    /// Transactions that changed something.
    pub commits: u64,
    /// Transactions with changes that were rolled back.
    pub rollbacks: u64,
    /// Bytes of records written.
    pub record_bytes: u64,
    /// Bytes of journal since the last checkpoint: what opening after a kill replays.
    pub journal_bytes: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Pages written to the data file.
    pub pages_written: u64,
    /// Versions of pages that are not (only) in the data file.
    pub versions: u64,
    /// Bytes of versions in memory.
    pub versions_memory: u64,
    /// Bytes of versions in scratch files.
    pub scratch_memory: u64,
    /// Bytes of versions that only old snapshots keep.
    pub held_bytes: u64,
    /// How often the data file grew.
    pub growths: u64,
    /// Writes that had to wait for the checkpoint.
    pub waits: u64,
    /// Open snapshots and transactions; a running checkpoint is one too.
    pub readers: u64,
    /// What poisoned the database.
    pub poisoned_by: Option<&'static str>,
}

impl Database {
    /// Counters and watermarks; cheap.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let core = &*self.shared.core;
        let (versions, held_bytes) = {
            let change = core.pager.directory.change(&core.pager.registry);
            (change.version_count() as u64, change.held_bytes())
        };
        let counters = &core.counters;
        let checkpointed = core.watermarks.checkpointed();
        Stats {
            committed: core.watermarks.committed(),
            synced: core.watermarks.synced(),
            appended: core.watermarks.appended(),
            checkpointed,
            commits: counters.commits.load(Relaxed),
            rollbacks: counters.rollbacks.load(Relaxed),
            record_bytes: counters.record_bytes.load(Relaxed),
            journal_bytes: core.journal.bytes_after(checkpointed),
            checkpoints: counters.checkpoints.load(Relaxed),
            pages_written: counters.pages_written.load(Relaxed),
            versions,
            versions_memory: core.pager.pool.memory_used() as u64,
            scratch_memory: core.pager.pool.scratch_used() as u64,
            held_bytes,
            growths: core.pager.growth_count(),
            waits: counters.waits.load(Relaxed),
            readers: core.pager.registry.readers().entries().len() as u64,
            poisoned_by: core.poisoned_by(),
        }
    }

    /// Open snapshots and transactions, the oldest LSN first; a running checkpoint is among them.
    /// Who keeps memory or the journal from being freed is at the top.
    #[must_use]
    pub fn readers(&self) -> Vec<ReaderInfo> {
        let core = &*self.shared.core;
        let now = core.disk.now_us();
        let readers = core.pager.registry.readers();
        let pinned = {
            let change = core.pager.directory.change(&core.pager.registry);
            change.pinned_bytes(readers.entries())
        };
        let entries = readers.entries().iter().zip(pinned);
        entries
            .map(|(reader, pinned_bytes)| ReaderInfo {
                lsn: reader.lsn,
                age_us: now.saturating_sub(reader.opened_us),
                opened_at: reader.location.map_or_else(String::new, ToString::to_string),
                pinned_bytes,
            })
            .collect()
    }

    /// Walks all trees and reports what is where. Takes time in proportion to the database; for
    /// counters alone, see [`stats`](Database::stats).
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) when the catalog cannot be read; damage below it
    /// is left to [`check`](Database::check).
    #[track_caller]
    pub fn report(&self) -> Result<Report> {
        let readers = self.readers();
        let snapshot = self.read()?;
        let mut trees = Vec::new();
        for info in snapshot.trees()? {
            let tree = snapshot.tree(&info.name)?;
            let (statistics, _) = tree::check(snapshot.pages(), tree.state(), &mut |_, _| true);
            let leaf_fill = statistics.leaf_fill(snapshot.pages().page_size());
            trees.push(TreeReport { info, leaf_fill });
        }
        let core = &*self.shared.core;
        let page_size = core.pager.page_size();
        let file_pages = core.pager.file_pages();
        let space = self.space_use(&snapshot, file_pages)?;
        let file_pages = u64::from(file_pages);
        Ok(Report {
            database_id: self.id(),
            page_size,
            lsn: snapshot.lsn(),
            trees,
            data_file_len: file_pages * page_size as u64,
            pages_used: space.used,
            pages_free: file_pages.saturating_sub(space.used),
            pages_free_run_max: space.free_run_max,
            journal: core.journal.report(),
            readers,
            stats: self.stats(),
        })
    }
}
