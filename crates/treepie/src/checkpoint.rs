//! The checkpoint: from the journal's records to the data file, in the background.
//!
//! It *writes early and syncs late*. A committed, synced version that no reader is below may be
//! written to the data file at any time (the map shows the same bytes), and its memory used again:
//! the page cache is the version store ([`write_early`]). Once per journal distance all versions up
//! to an LSN are written, the file is synced, the meta page flipped, and the journal before it
//! recycled ([`checkpoint`]):
//!
//! ```text
//! bound := min(oldest reader, committed, synced)
//! write every page whose newest version <= bound is in memory   (in order of their numbers)
//! start writing them out, 32 pages at a time, paced             (commits' syncs share the disk)
//! sync the data file
//! write the other meta page (checkpoint = bound), sync
//! recycle segments whose records are all <= bound
//! ```
//!
//! Pages in the file may be newer than the meta page says: records are absolute bytes, and replay
//! over any mixture of states converges. A write or sync that fails poisons the database.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    format::meta::Meta,
    ids::{Lsn, PageId},
    pager::directory::Found,
    txn::{
        core::{CommitPoint, Core},
        signals::Ask,
    },
};

/// Pages that are started to be written out together, and the rate at which they are when nobody
/// is pressed: a commit's sync then waits for few of them.
const SLICE_PAGES: u32 = 32;
const PACE_BYTES_PER_SECOND: u64 = 250 << 20;
/// Neighbouring pages are written with one call of at most this many bytes.
const WRITE_LEN_MAX: usize = 1 << 20;
/// Pages whose chains are cut under one hold of the directory's mutex.
const CUT_BATCH: usize = 256;

/// What the checkpoint keeps from pass to pass.
#[derive(Debug, Default)]
pub struct Checkpointer {
    /// Pages written since the data file was synced last: one bit each.
    unsynced: Vec<u64>,
    buffer: Vec<u8>,
}

impl Checkpointer {
    /// Writes what the bound allows and frees its memory; does not sync. Returns how many pages it
    /// wrote.
    ///
    /// # Errors
    /// [`Error::Io`]: the database is poisoned.
    pub fn write_early(&mut self, core: &Core) -> Result<usize> {
        core.check_poison()?;
        let reader = core
            .pager
            .directory
            .change(&core.pager.registry)
            .add_oldest_reader(core.disk.now_us(), std::panic::Location::caller())?;
        let bound = reader.lsn();
        let may_write = bound <= core.watermarks.committed().min(core.watermarks.synced());
        let written = if may_write { self.write_pass(core, bound) } else { Ok(0) };
        core.pager.registry.remove(&reader);
        let written = written.inspect_err(|error| core.poison("write of the data file", error))?;
        core.pager.directory.change(&core.pager.registry).finish(&core.pager.pool, true);
        core.counters.pages_written.fetch_add(written as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(written)
    }

    /// Being a reader at the bound itself, the pass keeps the versions alive that it writes: each is
    /// the answer of a reader there.
    fn write_pass(&mut self, core: &Core, bound: Lsn) -> Result<usize> {
        let mut pages = core.pager.directory.change(&core.pager.registry).take_dirty();
        pages.sort_unstable();
        let mut written = 0;
        let mut rest = pages.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(rest.len().min(CUT_BATCH));
            match self.write_batch(core, batch, bound) {
                Ok(count) => written += count,
                Err(error) => {
                    core.pager
                        .directory
                        .change(&core.pager.registry)
                        .keep_dirty(rest.iter().copied());
                    return Err(error);
                }
            }
            rest = after;
        }
        tracing::debug!(bound = bound.0, written, of = pages.len(), "wrote pages early");
        Ok(written)
    }

    /// Writes one batch of pages, ascending, and then cuts their chains.
    fn write_batch(&mut self, core: &Core, batch: &[PageId], bound: Lsn) -> Result<usize> {
        let mut cuts: Vec<(PageId, Option<Lsn>)> = Vec::with_capacity(batch.len());
        let mut written = 0;
        let mut run_first = PageId(0);
        self.buffer.clear();
        for &id in batch {
            let found = core.pager.directory.find(id, bound);
            let (lsn, bytes) = match found {
                Found::Version(lsn, bytes) => (lsn, bytes),
                Found::Free => {
                    cuts.push((id, Some(bound)));
                    continue;
                }
                Found::Map => {
                    cuts.push((id, None));
                    continue;
                }
            };
            let next = run_first.0 as usize + self.buffer.len() / core.pager.page_size();
            if next != id.0 as usize || self.buffer.len() + bytes.len() > WRITE_LEN_MAX {
                self.flush(core, run_first)?;
                run_first = id;
            }
            if bytes.len() > WRITE_LEN_MAX {
                core.pager.write(id, bytes)?;
                self.note_unsynced(id, bytes.len() / core.pager.page_size());
                run_first = PageId(id.0 + (bytes.len() / core.pager.page_size()) as u32);
            } else {
                self.buffer.extend_from_slice(bytes);
            }
            cuts.push((id, Some(lsn)));
            written += bytes.len() / core.pager.page_size();
        }
        self.flush(core, run_first)?;
        self.cut(core, &cuts);
        Ok(written)
    }

    fn flush(&mut self, core: &Core, first: PageId) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        core.pager.write(first, &self.buffer)?;
        self.note_unsynced(first, self.buffer.len() / core.pager.page_size());
        self.buffer.clear();
        Ok(())
    }

    fn note_unsynced(&mut self, first: PageId, page_count: usize) {
        let end = first.0 as usize + page_count;
        if self.unsynced.len() * 64 < end {
            self.unsynced.resize(end.div_ceil(64), 0);
        }
        for page in first.0 as usize..end {
            self.unsynced[page / 64] |= 1 << (page % 64);
        }
    }

    /// The file shows what the chains showed: they end.
    fn cut(&self, core: &Core, cuts: &[(PageId, Option<Lsn>)]) {
        let mut change = core.pager.directory.change(&core.pager.registry);
        for &(id, lsn) in cuts {
            let remains = match lsn {
                Some(lsn) => {
                    core.pager.set_verified(id);
                    change.cut(id, lsn)
                }
                None => true,
            };
            if remains {
                change.keep_dirty([id]);
            }
        }
        change.finish(&core.pager.pool, false);
    }

    /// Makes the data file hold everything up to the bound, says so in a meta page, and recycles
    /// the journal before it. Returns the LSN up to which it came.
    ///
    /// # Errors
    /// [`Error::Io`]: the database is poisoned.
    pub fn checkpoint(&mut self, core: &Core) -> Result<Lsn> {
        core.check_poison()?;
        let bound = core.checkpoint_bound();
        let done = core.watermarks.checkpointed();
        let Some(point) = commit_point(core, bound) else { return Ok(done) };
        if point.position.lsn <= done {
            return Ok(done);
        }
        let begin = Instant::now();
        let pages = self.write_early(core)?;
        self.checkpoint_at(core, point)
            .inspect_err(|error| core.poison("sync of the data file", error))?;
        core.journal
            .trim(point.position.lsn)
            .inspect_err(|error| core.poison("recycling of the journal", error))?;
        core.counters.checkpoints.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let lsn = point.position.lsn;
        tracing::info!(lsn = lsn.0, pages, ms = begin.elapsed().as_millis() as u64, "checkpoint");
        Ok(lsn)
    }

    fn checkpoint_at(&mut self, core: &Core, point: CommitPoint) -> Result<()> {
        self.start_writeback(core)?;
        core.pager.sync()?;
        self.unsynced.clear();
        let mut meta = core.meta.lock();
        let next = Meta {
            generation: meta.generation + 1,
            page_count: point.page_count,
            checkpoint: point.position.lsn,
            chain: point.position.chain,
            written_us: core.disk.now_us(),
            ..*meta
        };
        core.pager.write(PageId(next.page_number()), &next.encode())?;
        core.pager.sync()?;
        *meta = next;
        core.watermarks.set_checkpointed(point.position.lsn);
        Ok(())
    }

    /// Spreads the writing out of what was written early, so that the sync after it is short.
    fn start_writeback(&self, core: &Core) -> Result<()> {
        if !core.bounds.background {
            return Ok(());
        }
        let (mut first, mut last, mut count) = (None, 0, 0);
        for (index, word) in self.unsynced.iter().enumerate().filter(|(_, word)| **word != 0) {
            for page in
                (0..64).filter(|bit| word & (1 << bit) != 0).map(|bit| index as u32 * 64 + bit)
            {
                let start = *first.get_or_insert(page);
                (last, count) = (page, count + 1);
                if count == SLICE_PAGES {
                    self.write_slice(core, start, last)?;
                    (first, count) = (None, 0);
                }
            }
        }
        match first {
            Some(start) => self.write_slice(core, start, last),
            None => Ok(()),
        }
    }

    fn write_slice(&self, core: &Core, first: u32, last: u32) -> Result<()> {
        core.pager.start_writeback(PageId(first), last - first + 1)?;
        let pressed = core.journal.bytes_after(core.watermarks.checkpointed())
            > core.bounds.checkpoint_distance / 2 * 3;
        if !pressed && !core.signals.is_stopping() {
            let bytes = u64::from(SLICE_PAGES) * core.pager.page_size() as u64;
            let pause = Duration::from_micros(bytes * 1_000_000 / PACE_BYTES_PER_SECOND);
            core.signals.pause(pause);
        }
        Ok(())
    }
}

/// The newest commit at or below `bound`; forgets those before it.
fn commit_point(core: &Core, bound: Lsn) -> Option<CommitPoint> {
    let mut commits = core.commits.lock();
    while commits.get(1).is_some_and(|next| next.position.lsn <= bound) {
        commits.pop_front();
    }
    commits.front().copied().filter(|point| point.position.lsn <= bound)
}

/// Runs checkpoints until the database is closed: when asked, when the journal since the last one
/// is longer than the distance, when memory is short, and at the latest after `interval`.
pub fn run(core: &Arc<Core>, checkpointer: &parking_lot::Mutex<Checkpointer>, interval: Duration) {
    let mut last = Instant::now();
    loop {
        let ask = core.signals.wait_for_work(interval.saturating_sub(last.elapsed()));
        let result = match ask {
            Ask::Stop => return,
            Ask::WriteEarly => checkpointer.lock().write_early(core).map(|_| ()),
            Ask::Checkpoint | Ask::Nothing => {
                last = Instant::now();
                checkpointer.lock().checkpoint(core).map(|_| ())
            }
        };
        core.signals.pass_finished();
        match result {
            Ok(()) => {}
            // The readers' slots are all taken: try again when asked again.
            Err(Error::Bound { .. }) => {}
            Err(error) => {
                tracing::error!(%error, "the checkpoint ends; writes are refused from now on");
                return;
            }
        }
    }
}
