//! The beginning of a copy: the moment at which the data file, and the copy's side file, hold exactly
//! the state at one LSN.
//!
//! ```text
//! lock the checkpoint                      (nothing else writes the data file)
//! register a reader of the newest commit   (nothing above its LSN is written, as long as it is there)
//! write every version that may be written  (older readers may keep some back)
//! put the others into the side file        (those that this reader sees)
//! tell the pager of the copy, begin a generation of changed pages
//! end the reader, unlock the checkpoint
//! ```
//!
//! So old readers keep no copy back: what they keep in memory costs the side file so many bytes.

use std::{collections::BTreeMap, panic::Location, sync::Arc};

use crate::{
    checkpoint::Checkpointer,
    error::{Error, Result},
    format::{
        bitmap::{GROUPS_PER_REGION, bitmap_page, pages_per_group},
        page::{self, PAGE_HEADER_SIZE, PageKind},
    },
    ids::{Lsn, PageId},
    pager::copies::{CopyConfig, CopyPages},
    sync::{Mutex, Planted, is_planted},
    txn::{
        core::{CommitPoint, Core},
        snapshot::Snapshot,
    },
};

use super::{
    PageCopy,
    damage::Found,
    history,
    options::{Base, CopyOptions},
};

/// Pages in use at an LSN, one bit each.
struct Used {
    words: Vec<u64>,
    /// Bitmap pages that cannot be read, and what is wrong with them.
    damaged: Vec<(PageId, Error)>,
}

/// Begins a copy.
///
/// # Errors
/// Those of [`Database::copy_pages`](crate::Database::copy_pages).
pub fn begin(
    core: &Arc<Core>,
    checkpointer: &Mutex<Checkpointer>,
    options: &CopyOptions,
    location: &'static Location<'static>,
) -> Result<PageCopy> {
    core.check_poison()?;
    if let Some(base) = &options.base {
        history::check(core, base, options.unproved_base)?;
    }
    let mut writing = checkpointer.lock();
    let (snapshot, point) = newest_commit(core, location)?;
    let lsn = snapshot.lsn();
    if core.watermarks.synced() < lsn {
        core.pipeline.sync(core)?;
    }
    writing.write_all(core)?;
    let time_us = core.disk.now_us();
    let used = used_pages(core, lsn, point.page_count, options.skip_damage)?;
    let mut kept = kept_versions(core, lsn)?;
    if is_planted(Planted::KeptLeftOut) {
        kept.clear();
    }
    let (pages, is_from_map) = pages_to_read(core, used.words, options.base.as_ref(), &kept);
    let pages = Arc::new(CopyPages::new(CopyConfig {
        lsn,
        page_count: point.page_count,
        pages,
        side_file_max: options.side_file_max,
        disk: Arc::clone(&core.disk),
        dir: core.path.clone(),
        page_size: core.pager.page_size(),
        opened_us: time_us,
        location,
    }));
    for (&id, bytes) in &kept {
        pages.put(id, bytes)?;
    }
    core.pager.copies.add(Arc::clone(&pages))?;
    if !is_planted(Planted::LateGeneration) {
        core.pager.changed.begin(lsn, point.position.chain);
    }
    drop(kept);
    drop(snapshot);
    drop(writing);
    let mut copy = PageCopy::new(Arc::clone(core), pages, options, point, is_from_map);
    for (page, error) in used.damaged {
        let Error::Corrupt { what, .. } = error else { return Err(error) };
        copy.found(Found::bitmap(page, what))?;
    }
    tracing::debug!(lsn = lsn.0, pages = copy.used_pages(), is_from_map, "a copy begins");
    Ok(copy)
}

/// A snapshot of the newest commit, and what the checkpoint would write of it.
fn newest_commit(
    core: &Arc<Core>,
    location: &'static Location<'static>,
) -> Result<(Snapshot, CommitPoint)> {
    loop {
        let snapshot = Snapshot::open(core, location)?;
        let commits = core.commits.lock();
        let own = commits.iter().find(|commit| commit.position.lsn == snapshot.lsn()).copied();
        drop(commits);
        // One that is forgotten is not the newest any more.
        if let Some(point) = own {
            return Ok((snapshot, point));
        }
    }
}

/// Reads the free-space bitmaps as of a reader's LSN. The meta pages are not part of a copy, and bitmap
/// pages of groups that are not begun hold nothing.
fn used_pages(core: &Core, lsn: Lsn, page_count: u32, skip_damage: bool) -> Result<Used> {
    let page_size = core.pager.page_size();
    let group_pages = pages_per_group(page_size);
    let group_count = page_count.div_ceil(group_pages);
    let words = vec![0; page_count.div_ceil(64) as usize];
    let mut used = Used { words, damaged: Vec::new() };
    for group in 0..group_count {
        let id = bitmap_page(group, page_size);
        let bytes = core.pager.page_verified_again(id, lsn).and_then(|bytes| {
            let is_bitmap = page::kind(bytes) == Some(PageKind::Bitmap);
            is_bitmap.then_some(bytes).ok_or_else(|| core.pager.damaged(id, "not a bitmap"))
        });
        match bytes {
            Ok(bytes) => {
                let first_word = (group * group_pages / 64) as usize;
                let bits = bytes[PAGE_HEADER_SIZE..].chunks_exact(8);
                let bits = bits.map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")));
                used.words.iter_mut().skip(first_word).zip(bits).for_each(|(w, b)| *w |= b);
            }
            Err(error) if skip_damage => used.damaged.push((id, error)),
            Err(error) => return Err(error),
        }
    }
    if !page_count.is_multiple_of(64)
        && let Some(last) = used.words.last_mut()
    {
        *last &= (1 << (page_count % 64)) - 1;
    }
    let mut clear = |id: PageId| {
        if let Some(word) = used.words.get_mut(id.0 as usize / 64) {
            *word &= !(1 << (id.0 % 64));
        }
    };
    (0..2).map(PageId).for_each(&mut clear);
    (group_count..group_count.next_multiple_of(GROUPS_PER_REGION))
        .map(|group| bitmap_page(group, page_size))
        .for_each(&mut clear);
    used.damaged.iter().for_each(|(id, _)| clear(*id));
    Ok(used)
}

/// What a reader of `lsn` sees that the data file does not have.
fn kept_versions(core: &Core, lsn: Lsn) -> Result<BTreeMap<PageId, &[u8]>> {
    let dirty = {
        let mut change = core.pager.directory.change(&core.pager.registry);
        let dirty = change.take_dirty(usize::MAX);
        change.keep_dirty(dirty.iter().copied());
        dirty
    };
    let mut kept = BTreeMap::new();
    for id in dirty {
        if let Some(bytes) = core.pager.version(id, lsn)? {
            kept.insert(id, bytes);
        }
    }
    Ok(kept)
}

/// Of the used pages those that the copy has to look at, and whether that is known from the map of
/// changed pages.
fn pages_to_read(
    core: &Core,
    mut used: Vec<u64>,
    base: Option<&Base>,
    kept: &BTreeMap<PageId, &[u8]>,
) -> (Vec<u64>, bool) {
    let page_count = u32::try_from(used.len() * 64).unwrap_or(u32::MAX);
    let Some(base) = base else { return (used, false) };
    let Some(mut changed) = core.pager.changed.since(base.lsn, page_count) else {
        return (used, false);
    };
    for (id, bytes) in kept {
        let end = id.0 as usize + bytes.len() / core.pager.page_size();
        for page in id.0 as usize..end.min(changed.len() * 64) {
            changed[page / 64] |= 1 << (page % 64);
        }
    }
    used.iter_mut().zip(changed).for_each(|(used, changed)| *used &= changed);
    (used, true)
}
