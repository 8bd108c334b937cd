//! Copies of all pages as of one LSN, for backups: they do not hold the database back.
//!
//! - `begin`: the moment at which the data file holds exactly one state; from then on the pager hands
//!   over what is written over too early (`pager::copies`).
//! - `walk`: verifying pages on their way out. `damage`: what is said where they are not what they were.
//! - `options`, `history`: what is asked for, and which base an increment may have.
//! - `saved`: the map of changed pages, kept from one opening to the next.

mod begin;
mod damage;
mod history;
mod options;
pub mod saved;
mod walk;

use std::{collections::VecDeque, fmt, ops::Range, sync::Arc};

use self::walk::OpenRun;
pub use self::{
    begin::begin,
    options::{Base, CopyOptions},
};
use crate::{
    error::{Error, Result},
    format::meta::Lineage,
    ids::{Lsn, PageId},
    pager::copies::CopyPages,
    scrub::FoundDamage,
    sync::{Planted, is_planted},
    txn::core::{CommitPoint, Core},
};

/// What one step of a copy has given; see [`PageCopy::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyStep {
    /// Pages, from this one on.
    Pages(PageId),
    /// Pages were read, and none of them has changed since the base.
    Nothing,
    /// There are no more.
    End,
}

/// All used pages of a database as of one LSN, or those that have changed since an earlier one, from
/// [`Database::copy_pages`](crate::Database::copy_pages).
///
/// It is no snapshot: writers, checkpoints and memory go on as if it were not there, whoever reads it
/// and however slowly. What the checkpoint writes over before it was read goes to a side file of at
/// most [`CopyOptions::side_file_max`] bytes. The database may be closed meanwhile; its folder stays
/// locked until the copy is gone.
pub struct PageCopy {
    core: Arc<Core>,
    pages: Arc<CopyPages>,
    point: CommitPoint,
    created_us: u64,
    /// LSN of the base.
    base: Option<Lsn>,
    skip_damage: bool,
    is_from_map: bool,
    /// Pages that were read, and the number of the first.
    chunk: Vec<u8>,
    chunk_first: u32,
    /// Those of them that are to be given out.
    ready: VecDeque<Range<u32>>,
    run: Option<OpenRun>,
    damage: Vec<FoundDamage>,
    damage_count: u64,
    /// What ended it before its time.
    failed: Option<Error>,
}

impl PageCopy {
    fn new(
        core: Arc<Core>,
        pages: Arc<CopyPages>,
        options: &CopyOptions,
        point: CommitPoint,
        is_from_map: bool,
    ) -> PageCopy {
        let created_us = core.meta.lock().created_us;
        PageCopy {
            core,
            pages,
            point,
            created_us,
            base: options.base.map(|base| base.lsn),
            skip_damage: options.skip_damage,
            is_from_map,
            chunk: Vec::new(),
            chunk_first: 0,
            ready: VecDeque::new(),
            run: None,
            damage: Vec::new(),
            damage_count: 0,
            failed: None,
        }
    }

    /// Identity and history of the database.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.core.lineage
    }

    /// LSN of the state: the newest commit when the copy began.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.point.position.lsn
    }

    /// LSN of the newest commit by now: it moves while others write.
    #[must_use]
    pub fn newest_lsn(&self) -> Lsn {
        self.core.watermarks.committed()
    }

    /// Chain hash of the record with that LSN.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.point.position.chain
    }

    /// What a later incremental copy needs to continue this one.
    #[must_use]
    pub fn as_base(&self) -> Base {
        Base { lineage: self.lineage(), lsn: self.lsn(), chain: self.chain() }
    }

    /// Size of a page in bytes.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.core.pager.page_size()
    }

    /// One past the highest used page, as the meta page of that state has it.
    #[must_use]
    pub fn page_count(&self) -> u32 {
        self.point.page_count
    }

    /// When the database was created, in microseconds since 1970.
    #[must_use]
    pub fn created_us(&self) -> u64 {
        self.created_us
    }

    /// When its newest commit was sealed, in microseconds since 1970. Where the journal has not got the
    /// record any more, when the copy began: then the commit is older.
    #[must_use]
    pub fn time_us(&self) -> u64 {
        if self.point.time_us > 0 { self.point.time_us } else { self.pages.opened_us() }
    }

    /// When the copy began, in microseconds since 1970.
    #[must_use]
    pub fn began_us(&self) -> u64 {
        self.pages.opened_us()
    }

    /// How many pages a full copy has, the two meta pages not counted; those of an incremental one are at
    /// most so many.
    #[must_use]
    pub fn used_pages(&self) -> u64 {
        self.pages.total()
    }

    /// How many pages were read, of [`used_pages`](PageCopy::used_pages).
    #[must_use]
    pub fn pages_read(&self) -> u64 {
        self.pages.state().done
    }

    /// Whether an incremental copy knows from the map of changed pages what to read. Otherwise it reads
    /// all used pages and takes those with an LSN above the base's.
    #[must_use]
    pub fn is_from_map(&self) -> bool {
        self.is_from_map
    }

    /// Damage that was met, with [`CopyOptions::skip_damage`]: the first 1,000 items of it. The pages are
    /// left out. With a bitmap page, those that it covers are left out too.
    #[must_use]
    pub fn damage(&self) -> &[FoundDamage] {
        &self.damage
    }

    /// How many items of damage there were.
    #[must_use]
    pub fn damage_count(&self) -> u64 {
        self.damage_count
    }

    /// Appends the next pages that follow on one another to `into` and returns the number of the first:
    /// at least one page, at most `len_max` bytes, and at most 1 MiB. Page numbers rise; meta pages and
    /// free pages are left out. `None` at the end.
    ///
    /// Pages are verified. The pages of one large value share a checksum, so some of them may have been
    /// given out before the value turns out to be damaged: then a later call says so, and the copy as a
    /// whole is worth nothing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with page, tree and offset; [`Error::Bound`] when the side file is full, and
    /// [`Error::Io`]. The copy has ended then, and every further call returns the same.
    pub fn next(&mut self, into: &mut Vec<u8>, len_max: usize) -> Result<Option<PageId>> {
        loop {
            match self.step(into, len_max)? {
                CopyStep::Pages(first) => return Ok(Some(first)),
                CopyStep::Nothing => {}
                CopyStep::End => return Ok(None),
            }
        }
    }

    /// As [`next`](PageCopy::next), but returns after at most `len_max` bytes were read, also where none
    /// of these pages is given out: an incremental copy may read many before one has changed.
    /// [`pages_read`](PageCopy::pages_read) counts them.
    ///
    /// # Errors
    /// Those of [`next`](PageCopy::next).
    pub fn step(&mut self, into: &mut Vec<u8>, len_max: usize) -> Result<CopyStep> {
        if let Some(first) = self.take_ready(into, len_max) {
            return Ok(CopyStep::Pages(first));
        }
        if let Some(error) = &self.failed {
            return Err(error.duplicate());
        }
        match self.read_chunk(len_max) {
            Ok(true) => {}
            Ok(false) => {
                self.end();
                return Ok(CopyStep::End);
            }
            Err(error) => {
                self.end();
                self.ready.clear();
                return Err(self.failed.insert(error).duplicate());
            }
        }
        let taken = self.take_ready(into, len_max);
        Ok(taken.map_or(CopyStep::Nothing, CopyStep::Pages))
    }

    /// Reads and verifies more pages; false at the end.
    fn read_chunk(&mut self, len_max: usize) -> Result<bool> {
        let mut unread = Vec::new();
        let list = self.skip_damage.then_some(&mut unread);
        let read = self.pages.read_next(&self.core.pager, &mut self.chunk, len_max, list)?;
        let Some(pages) = read else { return Ok(false) };
        self.chunk_first = pages.start;
        self.look_at(pages, &unread)?;
        Ok(true)
    }

    /// Gives out what is ready.
    fn take_ready(&mut self, into: &mut Vec<u8>, len_max: usize) -> Option<PageId> {
        let page_size = self.page_size();
        let pages = self.ready.front_mut()?;
        let first = pages.start;
        let count = (len_max / page_size).clamp(1, pages.len());
        pages.start += count as u32;
        if pages.start == pages.end {
            self.ready.pop_front();
        }
        let offset = (first - self.chunk_first) as usize * page_size;
        let len = count * page_size;
        if into.is_empty() && len == self.chunk.len() {
            // All of it, and nobody else needs it.
            std::mem::swap(into, &mut self.chunk);
        } else {
            into.extend_from_slice(&self.chunk[offset..offset + len]);
        }
        Some(PageId(first))
    }

    /// Nothing is to be handed over any more.
    fn end(&mut self) {
        self.core.pager.copies.remove(&self.pages);
        if is_planted(Planted::LateGeneration) {
            self.core.pager.changed.begin(self.lsn(), self.chain());
        }
    }
}

impl Drop for PageCopy {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for PageCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageCopy").field("lsn", &self.lsn()).finish_non_exhaustive()
    }
}
