//! What is in a database and what it is doing: report and statistics.

use std::sync::atomic::Ordering::Relaxed;

use rustc_hash::FxHashMap;

use crate::{
    error::Result,
    format::{
        bitmap::{bitmap_page, pages_per_group},
        page::{self, PAGE_HEADER_SIZE, PageKind},
    },
    ids::{DatabaseId, Lsn, PageId},
    journal::{JournalReport, PinInfo},
    pager::access::PageRead,
    tree,
    txn::{
        meters::WriteTimings,
        snapshot::{Snapshot, TreeInfo},
    },
};

use super::{CopyInfo, Database, check::Problem};

/// Most items of damage that a report lists.
const DAMAGE_MAX: usize = 100;

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
    /// Who reads the journal, and keeps segments of it, the furthest behind first.
    pub journal_pins: Vec<PinInfo>,
    /// Open snapshots and transactions, the oldest first.
    pub readers: Vec<ReaderInfo>,
    /// Copies that are being made.
    pub copies: Vec<CopyInfo>,
    /// Counters and watermarks.
    pub stats: Stats,
    /// Damage that was met on the way, the first 100 items of it. What was counted leaves out what
    /// could not be read. A report does not look for damage; [`check`](Database::check) does.
    pub damage: Vec<Problem>,
    /// How many items there were.
    pub damage_count: u64,
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
    /// LSN of the last record that was sealed: it is written, or waits for it.
    pub sealed: Lsn,
    /// Records that were committed, each of one merged transaction or a part of one.
    pub commits: u64,
    /// Closures that were committed, with changes or without.
    pub closures: u64,
    /// Closures that wait to be run.
    pub waiting: u64,
    /// Syncs of the journal for commits.
    pub syncs: u64,
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
    /// Writes that had to wait for the checkpoint: memory or journal were used up.
    pub waits: u64,
    /// Writes that paused for some milliseconds because the checkpoint was behind.
    pub pauses: u64,
    /// Open snapshots and transactions; a running checkpoint is one too.
    pub readers: u64,
    /// Scrubs that came to their end.
    pub scrubs: u64,
    /// Pages that scrubs have verified.
    pub pages_scrubbed: u64,
    /// Items of damage that scrubs have found; [`damage`](Database::damage) lists them.
    pub damage_found: u64,
    /// Pages of the data file that did not verify when they were read, and were not written since.
    pub pages_damaged: u64,
    /// Damaged pages that were taken from another node.
    pub pages_repaired: u64,
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
        let (damage_found, scrubs, pages_scrubbed) = self.shared.scrubber.counts();
        let checkpointed = core.watermarks.checkpointed();
        Stats {
            committed: core.watermarks.committed(),
            synced: core.watermarks.synced(),
            appended: core.watermarks.appended(),
            checkpointed,
            sealed: core.watermarks.sealed(),
            commits: counters.commits.load(Relaxed),
            closures: counters.closures.load(Relaxed),
            waiting: core.merger.waiting() as u64,
            syncs: counters.syncs.load(Relaxed),
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
            pauses: counters.pauses.load(Relaxed),
            readers: core.pager.registry.readers().entries().len() as u64,
            scrubs,
            pages_scrubbed,
            damage_found,
            pages_damaged: core.pager.damaged.len(),
            pages_repaired: core.pager.damaged.repaired(),
            poisoned_by: core.poisoned_by(),
        }
    }

    /// How long the steps of commits took and how large batches were, since the database was opened.
    #[must_use]
    pub fn timings(&self) -> WriteTimings {
        self.shared.core.meters.timings()
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
    /// [`Error::Corrupt`](crate::Error::Corrupt) when the catalog cannot be read; damage below it is
    /// listed in the report.
    #[track_caller]
    pub fn report(&self) -> Result<Report> {
        let readers = self.readers();
        let (snapshot, page_count) = self.read_with_page_count()?;
        let core = &self.shared.core;
        let page_size = core.pager.page_size();
        let mut damage = DamageList { page_size, items: Vec::new(), count: 0 };
        let mut met = PageSet { page_count, ..PageSet::default() };
        let mut trees = Vec::new();
        for info in snapshot.trees()? {
            let tree = snapshot.tree(&info.name)?;
            let (statistics, found) =
                tree::check(snapshot.pages(), tree.state(), &mut |page, len| met.claim(page, len));
            for item in found {
                damage.add(Some(&info.name), item.page, item.what);
            }
            let leaf_fill = statistics.leaf_fill(snapshot.pages().page_size());
            trees.push(TreeReport { info, leaf_fill });
        }
        let file_pages = core.pager.file_pages();
        let space = self.space_use(&snapshot, file_pages, &mut damage);
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
            journal_pins: core.journal.pins(),
            readers,
            copies: self.copies(),
            stats: self.stats(),
            damage: damage.items,
            damage_count: damage.count,
        })
    }

    /// Used and free pages of the first `file_pages` as of a snapshot, by its bitmap pages.
    fn space_use(&self, snapshot: &Snapshot, file_pages: u32, damage: &mut DamageList) -> SpaceUse {
        let core = &self.shared.core;
        let (pager, page_size) = (&core.pager, core.pager.page_size());
        let (page_count, is_exact) = {
            let commits = core.commits.lock();
            let own = commits.iter().find(|commit| commit.position.lsn == snapshot.lsn());
            (own.or(commits.back()).map_or(0, |commit| commit.page_count), own.is_some())
        };
        let mut space = SpaceUse::default();
        for group in 0..page_count.div_ceil(pages_per_group(page_size)) {
            let bitmap = bitmap_page(group, page_size);
            match pager.page(bitmap, snapshot.lsn()) {
                Ok(bytes) if page::kind(bytes) == Some(PageKind::Bitmap) => {
                    space.add(bytes.get(PAGE_HEADER_SIZE..).unwrap_or(&[]), file_pages);
                }
                Ok(_) => damage.add(None, bitmap, "not a free-space bitmap".to_owned()),
                // The group was begun after the snapshot.
                Err(_) if group > 0 && !is_exact => break,
                Err(error) => damage.add(None, bitmap, error.to_string()),
            }
        }
        space.end(file_pages);
        space
    }
}

/// Used pages, and runs of free ones.
#[derive(Debug, Default)]
struct SpaceUse {
    used: u64,
    /// The longest run of free pages that lies in the file.
    free_run_max: u64,
    run: u64,
    page_count: u64,
}

impl SpaceUse {
    /// Counts the pages of one bitmap page.
    fn add(&mut self, bits: &[u8], file_pages: u32) {
        for &byte in bits {
            self.used += u64::from(byte.count_ones());
            for bit in 0..8 {
                let is_free = byte & (1 << bit) == 0 && self.page_count < u64::from(file_pages);
                self.run = if is_free { self.run + 1 } else { 0 };
                self.free_run_max = self.free_run_max.max(self.run);
                self.page_count += 1;
            }
        }
    }

    /// Counts the pages of the file that no group covers yet: they are free.
    fn end(&mut self, file_pages: u32) {
        if let Some(rest) = u64::from(file_pages).checked_sub(self.page_count) {
            self.free_run_max = self.free_run_max.max(self.run + rest);
        }
    }
}

/// Damage, as far as it is listed.
struct DamageList {
    page_size: usize,
    items: Vec<Problem>,
    count: u64,
}

impl DamageList {
    fn add(&mut self, tree: Option<&[u8]>, page: PageId, what: String) {
        self.count += 1;
        if self.items.len() < DAMAGE_MAX {
            self.items.push(Problem::new(tree, Some(page), what, self.page_size));
        }
    }
}

const SET_WORDS: usize = 16;
const SET_PAGES: u32 = SET_WORDS as u32 * 64;

/// Pages that were met. A damaged tree may lead to one page along any number of ways, and a walk
/// that went them all would not end.
#[derive(Default)]
struct PageSet {
    /// One past the highest page that can be met: damage may name any.
    page_count: u32,
    /// By number of the first page, divided by what one item holds.
    words: FxHashMap<u32, [u64; SET_WORDS]>,
}

impl PageSet {
    /// Adds pages; false when one was there before, or there are no such pages.
    fn claim(&mut self, first: PageId, len: u32) -> bool {
        let Some(end) = first.0.checked_add(len).filter(|end| *end <= self.page_count) else {
            return false;
        };
        let mut is_new = true;
        for page in first.0..end {
            let words = self.words.entry(page / SET_PAGES).or_insert([0; SET_WORDS]);
            let word = &mut words[(page % SET_PAGES / 64) as usize];
            is_new &= *word & (1 << (page % 64)) == 0;
            *word |= 1 << (page % 64);
        }
        is_new
    }
}
