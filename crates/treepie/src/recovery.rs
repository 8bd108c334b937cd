//! Recovery: from files to a running state.
//!
//! 1. The newest valid meta page says up to which LSN the data file holds everything.
//! 2. The records behind it are replayed onto copies of the pages. The file may hold any mixture of
//!    old and new sectors of pages that were being written: every byte that differs between any two
//!    of those states is in one of the records, so after the last of them the page is what it was.
//!    Only then is it verified: its checksum is in the records too.
//! 3. The copies become versions in memory; the data file is left to the checkpoint.
//!
//! Nothing is written: recovery may be killed at any point and begun again. What does not fit into
//! memory goes to scratch files, as in a large transaction.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustc_hash::FxHashMap;

use crate::{
    disk::{Disk, DiskFile, OpenMode},
    error::{Damage, Error, Result, Structure},
    format::{
        bitmap::{is_run_place, page_count_max},
        change::PageChange,
        meta::{FEATURES, FORMAT_VERSION, META_PAGE_SIZE_MAX, Meta, MetaError},
        overflow,
        page::{self, PAGE_HEADER_SIZE},
        record::Record,
    },
    ids::{Lsn, PageId},
    limits::{PAGE_SIZE_MAX, PAGE_SIZE_MIN},
    pager::{
        bitmaps::load_space, directory::NewVersion, pool::Frame, space::Space, store::Pager,
        store::verify_bytes,
    },
    sync::{Planted, is_planted},
};

/// Name of the data file in the folder of a database.
pub const DATA_FILE: &str = "data";
/// Name of the journal's folder in it.
pub const JOURNAL_DIR: &str = "journal";

/// Name of the lock file in it.
pub const LOCK_FILE: &str = "lock";

/// A meta page that cannot be used: its number, where it was read, and why.
type BadMeta = (u32, u64, MetaError);

/// Reads both meta pages and returns the newest valid one. What a newer build wrote counts, even if
/// the other page can be read.
///
/// # Errors
/// [`Error::NotADatabase`], [`Error::UnsupportedVersion`], [`Error::UnsupportedFeatures`], or
/// [`Error::Corrupt`] when neither is valid.
pub fn read_meta(file: &dyn DiskFile, path: &Path) -> Result<Meta> {
    let first = read_meta_page(file, path, 0, 0)?;
    let sizes = match &first {
        Ok(meta) => vec![meta.page_size],
        Err(_) => vec![PAGE_SIZE_MIN, PAGE_SIZE_MAX],
    };
    let (mut best, mut bad) = (first.as_ref().ok().copied(), first.err());
    for page_size in sizes {
        match read_meta_page(file, path, 1, page_size as u64)? {
            Ok(meta) if best.is_none_or(|best| meta.generation > best.generation) => {
                best = Some(meta);
            }
            Ok(_) => {}
            Err(second) if is_newer(&second) => bad = Some(second),
            Err(second) => bad = bad.or(Some(second)),
        }
    }
    match (best, bad) {
        (Some(meta), None) => Ok(meta),
        (Some(meta), Some(bad)) if !is_newer(&bad) => {
            tracing::warn!(?bad, file = %path.display(), "one meta page is not valid");
            Ok(meta)
        }
        (_, Some(bad)) => Err(bad_meta_error(path, bad)),
        (None, None) => unreachable!("a meta page is valid or says why not"),
    }
}

fn is_newer((_, _, error): &BadMeta) -> bool {
    matches!(error, MetaError::Version(_) | MetaError::Features(_))
}

fn bad_meta_error(path: &Path, (number, offset, error): BadMeta) -> Error {
    let (file, structure) = (path.to_owned(), Structure::Meta(number));
    match error {
        MetaError::Version(found) => {
            Error::UnsupportedVersion { file, offset, structure, found, supported: FORMAT_VERSION }
        }
        MetaError::Features(found) => {
            Error::UnsupportedFeatures { file, found, supported: FEATURES }
        }
        MetaError::Magic(found) => Error::NotADatabase { file, found },
        MetaError::Damage(what) => Error::Corrupt { file, offset, what },
    }
}

fn read_meta_page(
    file: &dyn DiskFile,
    path: &Path,
    number: u32,
    offset: u64,
) -> Result<Result<Meta, BadMeta>> {
    let len = file.len().map_err(Error::io("measure", path))?;
    let structure = Structure::Meta(number);
    let short = MetaError::Damage(Damage::Short { structure, file_len: len });
    let available = usize::try_from(len.saturating_sub(offset)).unwrap_or(usize::MAX);
    if available < PAGE_SIZE_MIN {
        return Ok(Err((number, offset, short)));
    }
    let mut page = vec![0; available.min(META_PAGE_SIZE_MAX)];
    file.read_at(offset, &mut page).map_err(Error::io("read", path))?;
    let page_size = Meta::claimed_page_size(&page).unwrap_or(PAGE_SIZE_MAX.min(page.len()));
    let Some(page) = page.get(..page_size) else { return Ok(Err((number, offset, short))) };
    Ok(Meta::decode(page, number).map_err(|error| (number, offset, error)))
}

/// Makes the name of the folder durable. As long as nothing was checkpointed each opening does it:
/// a creation may have been cut off, or failed, before it was done.
///
/// # Errors
/// [`Error::Io`].
pub fn sync_parent(disk: &Arc<dyn Disk>, path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    disk.sync_dir(&parent).map_err(Error::io("sync", parent))
}

/// Opens the data file.
///
/// # Errors
/// [`Error::Io`].
pub fn open_data(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(Arc<dyn DiskFile>, PathBuf)> {
    let path = dir.join(DATA_FILE);
    let file = disk.open(&path, OpenMode::ReadWrite).map_err(Error::io("open", &path))?;
    Ok((file, path))
}

/// Pages as the records leave them.
pub struct Replay {
    pager: Arc<Pager>,
    /// The journal's folder, for errors.
    journal: PathBuf,
    pages: FxHashMap<PageId, Frame>,
    /// One past the highest page that a record changed.
    page_count: u32,
    /// Whether the records are durable, so that the data file may take pages over.
    may_write: bool,
}

impl Replay {
    /// Nothing replayed yet. `may_write` says that the records to come are known to be durable:
    /// pages that do not fit into memory may then go to the data file, as the checkpoint would
    /// write them.
    pub fn new(pager: Arc<Pager>, journal: PathBuf, may_write: bool) -> Replay {
        Replay { pager, journal, pages: FxHashMap::default(), page_count: 0, may_write }
    }

    /// One past the highest page that a record changed.
    pub fn page_count(&self) -> u32 {
        self.page_count
    }

    /// Whether the copies take most of the memory for them, so that they should be written out.
    pub fn is_memory_short(&self) -> bool {
        let pool = &self.pager.pool;
        pool.memory_used() > pool.limits().memory_max / 4 * 3
    }

    /// Applies one record.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a change does not fit; [`Error::Io`] and [`Error::Bound`] when
    /// neither memory nor scratch files have room.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<()> {
        if record.page_size() != self.pager.page_size() {
            let structure = Structure::Record(record.lsn());
            return Err(self.damaged(Damage::layout(structure, "it is of another page size")));
        }
        let lost = usize::from(is_planted(Planted::ChangeLostAtReplay));
        for change in record.changes().skip(lost) {
            let change = change.map_err(|what| self.damaged(what))?;
            self.apply_change(&change)?;
        }
        if self.may_write && self.is_memory_short() {
            tracing::info!(pages = self.pages.len(), "recovery writes pages out: memory is short");
            self.write_out()?;
        }
        Ok(())
    }

    fn damaged(&self, what: Damage) -> Error {
        Error::Corrupt { file: self.journal.clone(), offset: 0, what }
    }

    fn apply_change(&mut self, change: &PageChange<'_>) -> Result<()> {
        let page_size = self.pager.page_size();
        let is_possible = match change {
            PageChange::Free { first, page_count } | PageChange::Run { first, page_count, .. } => {
                is_run_place(*first, *page_count, page_size)
            }
            PageChange::Page { id, .. } => (2..page_count_max(page_size)).contains(&id.0),
        };
        match change {
            PageChange::Free { first: id, .. }
            | PageChange::Run { first: id, .. }
            | PageChange::Page { id, .. }
                if !is_possible =>
            {
                Err(self.pager.damaged(*id, "a record changes a page that it cannot change"))
            }
            PageChange::Free { first, .. } => {
                if !is_planted(Planted::FreedRunKept) {
                    self.forget(*first);
                }
                Ok(())
            }
            PageChange::Run { first, page_count, bytes } => {
                let value_len = bytes.len().saturating_sub(PAGE_HEADER_SIZE) as u64;
                if *page_count != overflow::page_count(value_len, self.pager.page_size()) {
                    return Err(self.pager.damaged(*first, "a record has a run of another length"));
                }
                self.forget(*first);
                let len = *page_count as usize * self.pager.page_size();
                let mut frame = self.pager.pool.run(len)?;
                let (value, padding) = frame.bytes_mut().split_at_mut(bytes.len());
                value.copy_from_slice(bytes);
                padding.fill(0);
                self.note_end(*first, *page_count);
                self.pages.insert(*first, frame);
                Ok(())
            }
            PageChange::Page { id, from_zeros, blocks } => {
                let page = self.page(*id, *from_zeros)?;
                for (offset, bytes) in blocks.runs() {
                    page[offset..offset + bytes.len()].copy_from_slice(bytes);
                }
                Ok(())
            }
        }
    }

    fn note_end(&mut self, first: PageId, page_count: u32) {
        self.page_count = self.page_count.max(first.0.saturating_add(page_count));
    }

    fn forget(&mut self, id: PageId) {
        if let Some(frame) = self.pages.remove(&id) {
            self.pager.pool.release(frame);
        }
    }

    fn page(&mut self, id: PageId, from_zeros: bool) -> Result<&mut [u8]> {
        let page_size = self.pager.page_size();
        self.note_end(id, 1);
        if self.pages.get(&id).is_some_and(|frame| frame.bytes().len() != page_size) {
            return Err(self.pager.damaged(id, "a record changes one page of a run"));
        }
        if from_zeros {
            self.forget(id);
        }
        if !self.pages.contains_key(&id) {
            let old = if from_zeros { None } else { Some(self.pager.raw(id, 1)?) };
            let mut frame = self.pager.pool.page()?;
            match old {
                Some(old) => frame.bytes_mut().copy_from_slice(old),
                None => frame.bytes_mut().fill(0),
            }
            self.pages.insert(id, frame);
        }
        let frame = self.pages.get_mut(&id).expect("it was just put there");
        Ok(frame.bytes_mut())
    }

    /// Writes all copies into the data file and forgets them. Later records begin from there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_out(&mut self) -> Result<()> {
        let mut pages: Vec<_> = self.pages.drain().collect();
        pages.sort_unstable_by_key(|(id, _)| *id);
        let mut result = Ok(());
        for (id, frame) in pages {
            if result.is_ok() {
                result = self.pager.write(id, frame.bytes());
            }
            self.pager.pool.release(frame);
        }
        result
    }

    /// Verifies all copies, makes them versions, and reads the space map. `meta_page_count` is what
    /// the meta page knows of the file's extent.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for the first page that is not what its records say.
    pub fn finish(mut self, last: Lsn, meta_page_count: u32) -> Result<Space> {
        let pager = Arc::clone(&self.pager);
        for (id, frame) in &self.pages {
            verify_bytes(frame.bytes(), *id, pager.page_size())
                .map_err(|what| pager.corrupt(*id, what))?;
            if page::lsn(frame.bytes()) > last {
                return Err(pager.damaged(*id, "the page is newer than the last record"));
            }
        }
        let mut pages: Vec<_> = std::mem::take(&mut self.pages).into_iter().collect();
        pages.sort_unstable_by_key(|(id, _)| *id);
        let mut change = pager.directory.change(&pager.registry);
        for (id, frame) in pages {
            change.push(id, page::lsn(frame.bytes()), NewVersion::Frame(frame));
        }
        change.finish(&pager.pool, false);
        load_space(&pager, last, meta_page_count.max(self.page_count))
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        for (_, frame) in self.pages.drain() {
            self.pager.pool.release(frame);
        }
    }
}
