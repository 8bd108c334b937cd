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
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    format::meta::Meta,
    ids::{Lsn, PageId},
    pager::{in_place::Pinned, readers::ReaderSlot, store::GROW},
    sync::{Mutex, Planted, is_planted, thread},
    txn::{
        core::{CommitPoint, Core},
        signals::Ask,
    },
};

/// Pages that are started to be written out together, and the rate at which they are when nobody
/// is pressed: a commit's sync then waits for few of them.
const SLICE_PAGES: u32 = 32;
const PACE_BYTES_PER_SECOND: u64 = 250 << 20;
/// Neighbouring pages are written with one call of at most this many bytes, which ends where a
/// multiple of it does: the page cache then holds the file in huge pages without zeroing them first.
const WRITE_LEN_MAX: usize = 2 << 20;
/// Pages whose chains are cut under one hold of the directory's mutex, for which writers wait.
const CUT_BATCH: usize = 64;
/// Pages that are written with one bound: what writers supersede meanwhile stays in memory.
const SLICE_OF_PASS: usize = 2048;

/// Looks for the oldest reader while one is being registered: that takes it an instant, unless its
/// thread is stopped in the middle.
const LOOKS_MAX: u32 = 10_000;

/// What the checkpoint keeps from pass to pass.
#[derive(Debug, Default)]
pub struct Checkpointer {
    /// Pages written since the data file was synced last: one bit each.
    unsynced: Vec<u64>,
    buffer: Vec<u8>,
}

impl Checkpointer {
    /// Writes versions that the bound allows and frees their memory; does not sync. `target` is how
    /// many bytes of memory may stay in use: the pages that have been waiting longest go first.
    /// Returns how many pages it wrote.
    ///
    /// # Errors
    /// [`Error::Io`]: the database is poisoned, except where the file could not grow.
    pub fn write_early(&mut self, core: &Core, target: usize) -> Result<usize> {
        let excess = core.pager.pool.memory_used().saturating_sub(target);
        let count = excess / core.pager.page_size() + 1;
        self.write_up_to(core, count).map(|(_, written)| written)
    }

    /// Writes all versions that the bound allows; does not sync. Returns how many pages it wrote.
    ///
    /// # Errors
    /// As [`write_early`](Checkpointer::write_early).
    pub fn write_all(&mut self, core: &Core) -> Result<usize> {
        self.write_up_to(core, usize::MAX).map(|(_, written)| written)
    }

    /// Writes `count_max` pages; returns also the LSN up to which it looked, if it could look at
    /// all: where that was all pages, all versions up to there are in the file.
    ///
    /// It goes in slices, each with a bound of its own: what a writer supersedes meanwhile is kept
    /// for the rest of a slice, and not for the rest of the pass.
    fn write_up_to(&mut self, core: &Core, count_max: usize) -> Result<(Option<Lsn>, usize)> {
        core.check_poison()?;
        if core.watermarks.synced() < core.watermarks.committed() && !is_planted(Planted::PastSync)
        {
            core.pipeline.sync(core)?;
        }
        let mut reader = add_oldest_reader(core)?;
        if reader.is_none() {
            return Ok((None, 0));
        }
        let mut pages = core.pager.directory.change(&core.pager.registry).take_dirty(count_max);
        pages.sort_unstable();
        let (mut looked_to, mut written) = (Some(Lsn(u64::MAX)), 0);
        let mut rest = pages.as_slice();
        // A slice without pages, too, says up to where there was nothing to write.
        loop {
            let (slice, after) = rest.split_at(rest.len().min(SLICE_OF_PASS));
            let slice_reader = match reader.take() {
                Some(reader) => Ok(Some(reader)),
                None => add_oldest_reader(core),
            };
            let result = slice_reader.and_then(|reader| {
                let Some(reader) = reader else { return Ok(None) };
                let result = self.write_slice_of_pass(core, &reader, slice);
                core.pager.registry.remove(&reader);
                result
            });
            // What the slice superseded has no reader now.
            let change = core.pager.directory.change(&core.pager.registry);
            change.finish(&core.pager.pool, true);
            match result {
                Ok(Some((bound, count))) => {
                    looked_to = looked_to.map(|lsn| lsn.min(bound));
                    written += count;
                }
                Ok(None) => {
                    looked_to = None;
                    keep_dirty(core, rest);
                    break;
                }
                Err(error) => {
                    keep_dirty(core, rest);
                    if !is_growth(&error) && !matches!(error, Error::Bound { .. }) {
                        core.poison("write of the data file", &error);
                    }
                    return Err(error);
                }
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        core.counters.pages_written.fetch_add(written as u64, Relaxed);
        tracing::debug!(looked_to = ?looked_to, written, of = pages.len(), "wrote pages early");
        Ok((looked_to, written))
    }

    /// Writes the newest versions that `reader` sees of some pages, ascending; returns its LSN and how
    /// many pages it wrote, or nothing if they may not be written. Being a reader itself, it keeps
    /// the versions alive that it writes.
    fn write_slice_of_pass(
        &mut self,
        core: &Core,
        reader: &ReaderSlot,
        pages: &[PageId],
    ) -> Result<Option<(Lsn, usize)>> {
        let bound = reader.lsn();
        if bound > core.watermarks.synced() && !is_planted(Planted::PastSync) {
            // Commits that are acknowledged before their sync.
            core.pipeline.sync(core)?;
        }
        let final_to = core.watermarks.committed().min(core.watermarks.synced());
        if bound > final_to && !is_planted(Planted::PastSync) {
            return Ok(None);
        }
        if !core.replicated.vouch(core, bound)? {
            return Ok(None);
        }
        let mut written = 0;
        let mut rest = pages;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest, core.pager.page_size()));
            written += self.write_batch(core, batch, bound)?;
            rest = after;
        }
        Ok(Some((bound, written)))
    }

    /// Writes one batch of pages, ascending, and then cuts their chains. Neighbours go out together;
    /// a page without any is written from where it is.
    fn write_batch(&mut self, core: &Core, batch: &[PageId], bound: Lsn) -> Result<usize> {
        let mut cuts: Vec<(PageId, Option<Lsn>)> = Vec::with_capacity(batch.len());
        let mut run = Run::default();
        let mut written = 0;
        let pinned = pin(core, batch, bound);
        for (&id, pinned) in batch.iter().zip(&pinned) {
            let (lsn, bytes) = match pinned {
                Pinned::Version(lsn, bytes) => (*lsn, *bytes),
                Pinned::Copy(lsn, bytes) => (*lsn, bytes.as_slice()),
                Pinned::Free => {
                    cuts.push((id, Some(bound)));
                    continue;
                }
                Pinned::Map => {
                    cuts.push((id, None));
                    continue;
                }
            };
            if !run.continues(id, bytes.len(), core.pager.page_size()) {
                self.flush(core, &mut run)?;
                run.first = id;
            }
            run.len += bytes.len();
            run.parts.push(bytes);
            run.ids.push(id);
            cuts.push((id, Some(lsn)));
            written += bytes.len() / core.pager.page_size();
        }
        self.flush(core, &mut run)?;
        self.cut(core, &cuts);
        Ok(written)
    }

    fn flush(&mut self, core: &Core, run: &mut Run<'_>) -> Result<()> {
        let bytes = match run.parts.as_slice() {
            [] => return Ok(()),
            [one] => one,
            parts => {
                self.buffer.clear();
                parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
                self.buffer.as_slice()
            }
        };
        core.pager.write(run.first, bytes)?;
        run.ids.drain(..).for_each(|id| core.pager.set_verified(id));
        self.note_unsynced(run.first, run.len / core.pager.page_size());
        *run = Run::default();
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
            let goes_on = match lsn {
                Some(lsn) => change.cut(id, lsn),
                None => change.is_chain(id),
            };
            if goes_on {
                change.keep_dirty([id]);
            }
        }
        change.finish(&core.pager.pool, false);
    }

    /// Makes the data file hold everything up to the bound, says so in a meta page, and recycles
    /// the journal before it. Returns the LSN up to which it came.
    ///
    /// # Errors
    /// [`Error::Io`]: the database is poisoned, except where the file could not grow, or a segment
    /// of the journal could not be recycled.
    pub fn checkpoint(&mut self, core: &Core) -> Result<Lsn> {
        core.check_poison()?;
        if core.watermarks.synced() < core.watermarks.committed() {
            core.pipeline.sync(core)?;
        }
        let bound = core.checkpoint_bound();
        let done = core.watermarks.checkpointed();
        if bound <= done {
            // A trim that failed, was cut off, or was held back by who read on: on a full disk nothing
            // else makes room.
            if core.journal.would_free(done) {
                core.journal.trim(done)?;
            }
            return Ok(done);
        }
        let begin = Instant::now();
        // Vouched for is what was written: a reader that registers may show an older LSN for a
        // moment, so the pass may have stopped below `bound`.
        let (written_to, pages) = self.write_up_to(core, usize::MAX)?;
        let mut point = written_to.and_then(|lsn| commit_point(core, lsn.min(bound)));
        if is_planted(Planted::PastWritten) {
            point = core.commits.lock().back().copied();
        }
        let Some(point) = point.filter(|point| point.position.lsn > done) else {
            return Ok(done);
        };
        self.checkpoint_at(core, point)
            .inspect_err(|error| core.poison("sync of the data file", error))?;
        core.counters.checkpoints.fetch_add(1, Relaxed);
        let lsn = point.position.lsn;
        tracing::info!(lsn = lsn.0, pages, ms = begin.elapsed().as_millis() as u64, "checkpoint");
        // What a failed trim leaves is left to the next one: nothing depends on it.
        core.journal.trim(lsn)?;
        Ok(lsn)
    }

    fn checkpoint_at(&mut self, core: &Core, point: CommitPoint) -> Result<()> {
        self.start_writeback(core)?;
        if !is_planted(Planted::MetaBeforeData) {
            core.pager.sync()?;
        }
        self.unsynced.clear();
        let meta = *core.meta.lock();
        let next = Meta {
            generation: meta.generation + 1,
            page_count: point.page_count,
            checkpoint: point.position.lsn,
            chain: point.position.chain,
            written_us: core.disk.now_us(),
            ..meta
        };
        let next = but_for_bugs(next);
        if is_planted(Planted::BothMetas) {
            core.pager.write(PageId(1 - next.page_number()), &next.encode())?;
        }
        core.pager.write(PageId(next.page_number()), &next.encode())?;
        if !is_planted(Planted::MetaNotSynced) {
            core.pager.sync()?;
        }
        *core.meta.lock() = next;
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
        // Memory is short: writers wait for pages to be written early, which this thread does next.
        let pool = &core.pager.pool;
        let is_memory_short = pool.memory_used() > pool.limits().memory_max / 8 * 7;
        let pressed = is_memory_short
            || core.journal.bytes_after(core.watermarks.checkpointed())
                > core.bounds.checkpoint_distance / 2 * 3;
        if !pressed && !core.signals.is_stopping() {
            let bytes = u64::from(SLICE_PAGES) * core.pager.page_size() as u64;
            let pause = Duration::from_micros(bytes * 1_000_000 / PACE_BYTES_PER_SECOND);
            core.signals.pause(pause);
        }
        Ok(())
    }
}

/// The meta page as it should be, but for planted bugs.
fn but_for_bugs(mut meta: Meta) -> Meta {
    if is_planted(Planted::WrongPageCountInMeta) {
        meta.page_count = 0;
    }
    if is_planted(Planted::WrongChainInMeta) {
        meta.chain ^= 1;
    }
    meta
}

/// How many of some pages, ascending, are written and cut together: as many as follow one another up
/// to where a write ends, if those are more than a batch.
fn batch_len(pages: &[PageId], page_size: usize) -> usize {
    let pages_per_write = WRITE_LEN_MAX / page_size;
    let to_end = pages_per_write - pages[0].0 as usize % pages_per_write;
    let neighbours =
        pages.windows(2).take(to_end - 1).take_while(|pair| pair[0].0 + 1 == pair[1].0);
    (neighbours.count() + 1).max(CUT_BATCH).min(pages.len())
}

/// Pages next to one another, to be written with one call.
#[derive(Debug, Default)]
struct Run<'a> {
    first: PageId,
    len: usize,
    parts: Vec<&'a [u8]>,
    ids: Vec<PageId>,
}

impl Run<'_> {
    /// Whether a page may follow: the next one, and not too many together.
    fn continues(&self, id: PageId, len: usize, page_size: usize) -> bool {
        self.first.0 as usize + self.len / page_size == id.0 as usize
            && !(id.0 as usize * page_size).is_multiple_of(WRITE_LEN_MAX)
            && self.len + len <= WRITE_LEN_MAX
            && !self.parts.is_empty()
    }
}

/// Nothing if a reader that is being registered does not come to its end.
fn add_oldest_reader(core: &Core) -> Result<Option<ReaderSlot>> {
    let now = core.disk.now_us();
    for _ in 0..LOOKS_MAX {
        let change = core.pager.directory.change(&core.pager.registry);
        let reader = change.add_oldest_reader(now, std::panic::Location::caller())?;
        if reader.is_some() {
            return Ok(reader);
        }
        drop(change);
        thread::yield_now();
    }
    Ok(None)
}

/// What is to be written of some pages: until it is, no transaction changes it.
fn pin<'a>(core: &'a Core, batch: &[PageId], bound: Lsn) -> Vec<Pinned<'a>> {
    let change = core.pager.directory.change(&core.pager.registry);
    batch.iter().map(|id| change.pin(*id, bound)).collect()
}

fn keep_dirty(core: &Core, pages: &[PageId]) {
    let mut change = core.pager.directory.change(&core.pager.registry);
    change.keep_dirty(pages.iter().copied());
}

/// The newest commit at or below `bound`; forgets those before it.
fn commit_point(core: &Core, bound: Lsn) -> Option<CommitPoint> {
    let mut commits = core.commits.lock();
    while commits.get(1).is_some_and(|next| next.position.lsn <= bound) {
        commits.pop_front();
    }
    commits.front().copied().filter(|point| point.position.lsn <= bound)
}

/// Runs checkpoints until the database is closed: when the journal since the last one is longer than
/// the distance, when memory is short, and at the latest after `interval`.
pub fn run(core: &Arc<Core>, checkpointer: &Mutex<Checkpointer>, interval: Duration) {
    let mut last = Instant::now();
    // The oldest reader that kept the last pass from writing anything: another pass would neither.
    let mut kept_by = None;
    loop {
        let ask = core.signals.wait_for_work(interval.saturating_sub(last.elapsed()));
        let is_due = last.elapsed() >= interval;
        let result = if ask == Ask::Stop {
            return;
        } else if is_due || (ask == Ask::Checkpoint && is_journal_long(core)) {
            last = Instant::now();
            checkpointer.lock().checkpoint(core).map(|_| ())
        } else if ask == Ask::WriteEarly && kept_by != Some(core.pager.registry.oldest()) {
            let written =
                checkpointer.lock().write_early(core, core.pager.pool.limits().memory_max / 4 * 3);
            let oldest = core.pager.registry.oldest();
            kept_by = matches!(written, Ok(0)).then_some(oldest);
            written.map(|_| ())
        } else {
            Ok(())
        };
        core.signals.pass_finished();
        match result {
            Ok(()) => {}
            // The readers' slots are all taken, or the disk is full: again when asked again.
            Err(Error::Bound { .. }) => {}
            Err(error) if is_growth(&error) => {
                tracing::warn!(%error, "the checkpoint waits for room on the disk");
            }
            Err(error) if core.poisoned_by().is_none() => {
                tracing::warn!(%error, "the journal keeps segments that nobody needs");
            }
            Err(error) => {
                tracing::error!(%error, "the checkpoint ends; writes are refused from now on");
                return;
            }
        }
    }
}

/// Whether the file could not grow: nothing was written, and nothing is lost.
pub fn is_growth(error: &Error) -> bool {
    matches!(error, Error::Io { action: GROW, .. })
}

/// Whether the journal is long enough for a checkpoint. Who asked may have done so while the last
/// one was running.
fn is_journal_long(core: &Core) -> bool {
    let journal_bytes = core.journal.bytes_after(core.watermarks.checkpointed());
    journal_bytes >= core.bounds.checkpoint_distance
}
