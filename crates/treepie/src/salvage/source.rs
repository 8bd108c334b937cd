//! The damaged database: its pages, as far as each can be believed.
//!
//! Nothing is written, nothing is mapped (a disk that does not read a page would end the process), and
//! nothing is trusted that does not verify. A page is what the journal makes of it, or else what the
//! data file has, each only if its checksum holds.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustc_hash::FxHashSet;

use crate::{
    disk::{Disk, DiskFile, DiskLock, LockError, OpenMode},
    error::{Damage, Error, Result, Structure},
    format::{
        bitmap::{bit_position, bitmap_page, is_run_place, pages_per_group},
        meta::Meta,
        overflow,
        page::{self, PageKind},
        record::Record,
    },
    ids::{Lsn, PageId, TreeId},
    journal::JournalReader,
    limits::{PAGE_COUNT_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, PAGE_SIZE_MIN},
    pager::store::verify_bytes,
    recovery::{DATA_FILE, JOURNAL_DIR, read_meta},
};

use super::overlay::Overlay;

/// Bytes of the data file that are looked at to guess the size of its pages.
const GUESS_LEN: u64 = 64 << 20;
const LOCK_FILE: &str = "lock";
/// Pages of a run that is read at once; a longer one is summed up first.
const SHORT_RUN: u32 = 256;
/// How often the database's pages may be read, all in all, for runs that do not verify.
const VAIN_READS_MAX: u64 = 8;
const UNREAD: &str = "it cannot be read from the disk";

/// The damaged database.
pub(super) struct Source {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    _lock: Box<dyn DiskLock>,
    /// The newest valid meta page, if there is one.
    pub(super) meta: Option<Meta>,
    /// Why there is none.
    pub(super) meta_damage: Option<Error>,
    /// Whether the meta page that is left is not the newest one.
    pub(super) meta_is_old: bool,
    pub(super) page_size: usize,
    /// Whole pages of the data file.
    pub(super) file_pages: u32,
    overlay: Option<Overlay>,
    /// The bitmap page that was looked at last.
    bitmap: RefCell<Option<(u32, Option<Vec<u8>>)>>,
    vain: RefCell<Vain>,
}

/// Runs that were read and did not verify.
#[derive(Default)]
struct Vain {
    /// Their first pages, and whether copies were asked.
    runs: FxHashSet<(PageId, bool)>,
    pages: u64,
}

/// What a leaf says of a run.
pub(super) struct Wanted {
    pub(super) tree: TreeId,
    pub(super) value_len: u64,
    pub(super) leaf_lsn: Lsn,
    /// Whether the leaf is younger than the state that was replayed.
    pub(super) is_leaf_young: bool,
}

impl Wanted {
    /// Whether this can be the first page. A run is written before or with the leaf: a younger one is of
    /// another value.
    fn check(&self, first: PageId, page: &[u8]) -> Result<(), String> {
        overflow::validate_header(page).map_err(|damage| damage.to_string())?;
        let what = if page::page_id(page) != first {
            "another page's bytes are in its place"
        } else if page::tree(page) != self.tree {
            "its pages belong to another tree"
        } else if overflow::value_len(page) != self.value_len {
            "the run holds a value of another length"
        } else if page::lsn(page) > self.leaf_lsn {
            "the run is younger than the leaf that leads to it"
        } else if self.is_leaf_young && page::lsn(page) != self.leaf_lsn {
            // The pages that a young leaf means may have been given to its value when the data file had
            // taken the leaf over already, and not yet them.
            "its leaf is younger than what the journal came to, and whether these pages are its value \
             is not known"
        } else {
            return Ok(());
        };
        Err(what.to_owned())
    }
}

/// A page that verifies.
pub(super) struct Believed {
    pub(super) bytes: Vec<u8>,
    /// What is wrong with the newest state of it, when this is an older one.
    pub(super) newest_is: Option<String>,
}

/// What replaying the journal came to.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// LSN of the state: that of the last record, or of the checkpoint.
    pub(super) lsn: Option<Lsn>,
    pub(super) records: u64,
    /// Why it ended before its end.
    pub(super) stopped: Option<String>,
}

impl Source {
    /// Locks the folder, and finds out what can be known without trusting a page.
    pub(super) fn open(disk: &Arc<dyn Disk>, folder: &Path) -> Result<Source> {
        let path = folder.join(DATA_FILE);
        let exists = |path: &Path| disk.exists(path).map_err(Error::io("look for", path));
        if !exists(folder)? || !(exists(&path)? || exists(&folder.join(JOURNAL_DIR))?) {
            return Err(Error::NotFound { path: folder.to_owned() });
        }
        let lock_path = folder.join(LOCK_FILE);
        let lock = disk.lock(&lock_path).map_err(|error| match error {
            LockError::Held(owner) => Error::Locked { path: folder.to_owned(), owner },
            LockError::Io(source) => Error::Io { action: "lock", file: lock_path, source },
        })?;
        let file = match exists(&path)? {
            true => Some(disk.open(&path, OpenMode::ReadOnly).map_err(Error::io("open", &path))?),
            false => None,
        };
        let len = match &file {
            Some(file) => file.len().map_err(Error::io("measure", &path))?,
            None => 0,
        };
        let missing = Err(Error::NotFound { path: path.clone() });
        let (meta, meta_damage) =
            match file.as_ref().map_or(missing, |file| read_meta(&**file, &path)) {
                Ok(meta) => (Some(meta), None),
                Err(
                    error @ (Error::UnsupportedVersion { .. } | Error::UnsupportedFeatures { .. }),
                ) => return Err(error),
                Err(error) => (None, Some(error)),
            };
        let mut source = Source {
            disk: Arc::clone(disk),
            folder: folder.to_owned(),
            file,
            _lock: lock,
            meta,
            meta_damage,
            meta_is_old: false,
            page_size: PAGE_SIZE_DEFAULT,
            file_pages: 0,
            overlay: None,
            bitmap: RefCell::new(None),
            vain: RefCell::default(),
        };
        source.page_size = match source.meta {
            Some(meta) => meta.page_size,
            None => source.guess_page_size(len)?,
        };
        source.file_pages = u32::try_from(len / source.page_size as u64).unwrap_or(PAGE_COUNT_MAX);
        Ok(source)
    }

    /// The size with which more pages verify; that of the first record of the journal, where none does.
    fn guess_page_size(&mut self, len: u64) -> Result<usize> {
        let mut best = (0, None);
        for page_size in [PAGE_SIZE_MIN, PAGE_SIZE_MAX] {
            let mut page = vec![0; page_size];
            let pages = len.min(GUESS_LEN) / page_size as u64;
            let is_valid = |number: &u64| {
                let id = PageId(u32::try_from(*number).unwrap_or(PAGE_COUNT_MAX));
                self.read_file(id, &mut page) && verify_bytes(&page, id, page_size).is_ok()
            };
            let count = (0..pages).filter(is_valid).count();
            if count > best.0 {
                best = (count, Some(page_size));
            }
        }
        if let (_, Some(page_size)) = best {
            return Ok(page_size);
        }
        let first = self.records(Lsn(0)).ok().and_then(|mut records| records.next());
        let bytes = first.and_then(Result::ok).map(|stored| stored.bytes).unwrap_or_default();
        let page_size = Record::parse(&bytes).ok().map(|record| record.page_size());
        match (page_size, self.meta_damage.take()) {
            (Some(page_size @ (PAGE_SIZE_MIN | PAGE_SIZE_MAX)), damage) => {
                self.meta_damage = damage;
                Ok(page_size)
            }
            (_, Some(damage)) => Err(damage),
            (_, None) => Err(Error::NotFound { path: self.folder.clone() }),
        }
    }

    fn records(&self, from: Lsn) -> Result<JournalReader> {
        let reader = JournalReader::open(Arc::clone(&self.disk), &self.folder.join(JOURNAL_DIR))?;
        reader.from(from)
    }

    /// Whether the newest meta page is lost: the other one is damaged, and the journal begins behind this
    /// one. It does so only when a checkpoint has been completed there, so the data file holds everything
    /// before.
    fn is_meta_old(&self) -> bool {
        let Some(meta) = self.meta else { return false };
        let other = 1 - meta.page_number();
        let mut page = vec![0; self.page_size];
        if self.read_file(PageId(other), &mut page) && Meta::decode(&page, other).is_ok() {
            return false;
        }
        let first = self.records(Lsn(0)).ok().and_then(|mut records| records.next());
        let bytes = first.and_then(Result::ok).map(|stored| stored.bytes).unwrap_or_default();
        Record::parse(&bytes).is_ok_and(|record| record.lsn() > meta.checkpoint.next())
    }

    /// Applies the journal to copies in `overlay`: what follows the checkpoint, or all of it where
    /// nothing says where that is. Every page that it makes still has to verify.
    ///
    /// # Errors
    /// [`Error::Io`] of the copies.
    pub(super) fn replay(&mut self, mut overlay: Overlay) -> Result<Replayed> {
        if self.is_meta_old() {
            (self.meta, self.meta_is_old) = (None, true);
        }
        let mut replayed =
            Replayed { lsn: self.meta.map(|meta| meta.checkpoint), ..Replayed::default() };
        let from = replayed.lsn.map_or(Lsn(0), Lsn::next);
        let records = match self.records(from) {
            Ok(records) => records,
            Err(error) => {
                replayed.stopped = Some(error.to_string());
                self.overlay = Some(overlay);
                return Ok(replayed);
            }
        };
        let mut expected = self.meta.map(|meta| (from, meta.chain));
        for stored in records {
            let applied = match &stored {
                Err(error) => Err(error.to_string()),
                Ok(stored) => match Record::parse(&stored.bytes) {
                    Err(what) => Err(what.to_string()),
                    Ok(record) if expected.is_some_and(|e| e != position_before(&record)) => {
                        Err("it does not continue the record before it".to_owned())
                    }
                    Ok(record) => {
                        expected = Some((record.lsn().next(), record.chain()));
                        let mut base = |id, page: &mut [u8]| {
                            if !self.read_file(id, page) {
                                page.fill(0);
                            }
                        };
                        overlay.apply(&record, &mut base)?
                    }
                },
            };
            let lsn = replayed.lsn.map_or(from, Lsn::next);
            if let Err(what) = applied {
                replayed.stopped = Some(format!("record {lsn}: {what}"));
                break;
            }
            replayed.records += 1;
            replayed.lsn = expected.map(|(next, _)| Lsn(next.0 - 1));
        }
        if replayed.records == 0 && replayed.stopped.is_none() && !self.has_segments() {
            replayed.stopped = Some("the journal has no segments".to_owned());
        }
        self.overlay = Some(overlay);
        Ok(replayed)
    }

    fn has_segments(&self) -> bool {
        let names = self.disk.list(&self.folder.join(JOURNAL_DIR)).unwrap_or_default();
        names.iter().any(|name| name.ends_with(".seg") && !name.starts_with("spare-"))
    }

    /// Removes the copies.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn end(mut self) -> Result<()> {
        self.overlay.take().map_or(Ok(()), Overlay::remove)
    }

    /// All pages that there can be: those of the file, and those that records made behind its end.
    pub(super) fn pages(&self) -> impl Iterator<Item = PageId> + use<> {
        let behind = self.overlay.as_ref().map(|overlay| overlay.pages_from(self.file_pages));
        (2..self.file_pages).chain(behind.unwrap_or_default()).map(PageId)
    }

    /// Reads a page of the data file; false where the disk does not, or there is none.
    fn read_file(&self, id: PageId, page: &mut [u8]) -> bool {
        let offset = u64::from(id.0) * page.len() as u64;
        self.file.as_ref().is_some_and(|file| file.read_at(offset, page).is_ok())
    }

    fn has_copy(&self, first: PageId, count: u32) -> bool {
        let overlay = self.overlay.as_ref();
        overlay.is_some_and(|overlay| (first.0..first.0 + count).any(|page| overlay.has(page)))
    }

    fn read_copy(&self, id: PageId, page: &mut [u8]) -> bool {
        self.overlay.as_ref().is_some_and(|overlay| overlay.read(id, page).unwrap_or(false))
    }

    /// A page of its own (none of a run), as the records leave it, or else as the file has it. Without a
    /// meta page the file may be ahead of what the journal came to: then the younger one.
    ///
    /// # Errors
    /// Why there is none that verifies.
    pub(super) fn page(&self, id: PageId) -> Result<Believed, String> {
        let mut bytes = vec![0; self.page_size];
        let mut newest_is = None;
        if self.read_copy(id, &mut bytes) {
            match verify_bytes(&bytes, id, self.page_size) {
                Ok(()) if self.meta.is_some() => return Ok(Believed { bytes, newest_is: None }),
                Ok(()) => return Ok(Believed { bytes: self.younger(id, bytes), newest_is: None }),
                Err(what) => newest_is = Some(what.to_string()),
            }
        }
        if !self.read_file(id, &mut bytes) {
            let what = match id.0 < self.file_pages {
                true => UNREAD,
                false => "the file ends before it",
            };
            return Err(newest_is.unwrap_or_else(|| what.to_owned()));
        }
        match verify_bytes(&bytes, id, self.page_size) {
            Ok(()) => Ok(Believed { bytes, newest_is }),
            Err(what) => Err(newest_is.unwrap_or_else(|| what.to_string())),
        }
    }

    /// What the file has of a page, if that is younger.
    fn younger(&self, id: PageId, copy: Vec<u8>) -> Vec<u8> {
        let mut bytes = vec![0; self.page_size];
        let is_valid =
            self.read_file(id, &mut bytes) && verify_bytes(&bytes, id, self.page_size).is_ok();
        if is_valid && page::lsn(&bytes) > page::lsn(&copy) { bytes } else { copy }
    }

    /// The pages of the run at `first`, for a value that a leaf leads to.
    ///
    /// A hostile file may have any number of entries for one long run, or for runs that overlap. So the
    /// first page must be that of this value before the others are read, nothing is read twice in vain,
    /// and memory is taken only for a run whose checksum holds.
    ///
    /// # Errors
    /// Why it does not verify.
    pub(super) fn run(&self, first: PageId, wanted: &Wanted) -> Result<Vec<u8>, String> {
        let count = overflow::page_count(wanted.value_len, self.page_size);
        if !is_run_place(first, count, self.page_size) {
            return Err("a run cannot be there".to_owned());
        }
        if !self.is_there(PageId(first.0 + (count - 1))) {
            return Err("the file ends before it".to_owned());
        }
        let mut what = None;
        let mut best: Option<Vec<u8>> = None;
        let mut page = vec![0; self.page_size];
        for from_copies in [true, false] {
            // Where no record changed it, the file is the same.
            if !from_copies && !self.has_copy(first, count) {
                break;
            }
            let is_read = self.read_either(first, &mut page, from_copies);
            let found = match is_read.then(|| wanted.check(first, &page)) {
                None => Err(UNREAD.to_owned()),
                Some(Ok(()))
                    if best.as_deref().is_some_and(|b| page::lsn(b) >= page::lsn(&page)) =>
                {
                    break;
                }
                Some(Ok(())) => self.read_run(first, count, from_copies),
                Some(Err(what)) => Err(what),
            };
            match found {
                Ok(run) => best = Some(run),
                Err(found) => what = Some(found),
            }
        }
        best.ok_or(what.unwrap_or_default())
    }

    /// Reads a run and verifies it.
    fn read_run(&self, first: PageId, count: u32, from_copies: bool) -> Result<Vec<u8>, String> {
        let mut vain = self.vain.borrow_mut();
        if vain.runs.contains(&(first, from_copies)) {
            return Err("its pages do not verify, as was seen before".to_owned());
        }
        if vain.pages / VAIN_READS_MAX > self.page_count() {
            return Err("too many pages were read for runs that did not verify".to_owned());
        }
        let read = self.try_run(first, count, from_copies);
        if read.is_err() {
            vain.runs.insert((first, from_copies));
            vain.pages += u64::from(count);
        }
        read
    }

    fn try_run(&self, first: PageId, count: u32, from_copies: bool) -> Result<Vec<u8>, String> {
        let mut page = vec![0; self.page_size];
        let pages = (first.0..first.0 + count).map(PageId);
        if count > SHORT_RUN {
            let mut checksum = crc32fast::Hasher::new();
            let (mut structure, mut stored) = (Structure::Page(first, TreeId::NONE), 0);
            for id in pages.clone() {
                if !self.read_either(id, &mut page, from_copies) {
                    return Err(UNREAD.to_owned());
                }
                if id == first {
                    structure = Structure::Page(first, page::tree(&page));
                    stored = page::stored_checksum(&page);
                    checksum.update(&page[4..]);
                } else {
                    checksum.update(&page);
                }
            }
            let computed = checksum.finalize();
            if stored != computed {
                return Err(Damage::Checksum { structure, stored, computed }.to_string());
            }
        }
        let mut run = vec![0; count as usize * self.page_size];
        let mut pieces = pages.zip(run.chunks_mut(self.page_size));
        if !pieces.all(|(id, page)| self.read_either(id, page, from_copies)) {
            return Err(UNREAD.to_owned());
        }
        verify_bytes(&run, first, self.page_size).map_err(|damage| damage.to_string())?;
        Ok(run)
    }

    /// Notes that a run was read which is not taken after all.
    pub(super) fn note_vain(&self, run: &[u8]) {
        self.vain.borrow_mut().pages += (run.len() / self.page_size) as u64;
    }

    fn read_either(&self, id: PageId, page: &mut [u8], from_copies: bool) -> bool {
        (from_copies && self.read_copy(id, page))
            || (id.0 < self.file_pages && self.read_file(id, page))
    }

    fn is_there(&self, id: PageId) -> bool {
        id.0 < self.file_pages || self.overlay.as_ref().is_some_and(|overlay| overlay.has(id.0))
    }

    /// Pages that can be read, of the file and of the copies.
    fn page_count(&self) -> u64 {
        u64::from(self.file_pages) + self.overlay.as_ref().map_or(0, Overlay::page_count)
    }

    /// Whether a page is in use; nothing where its bitmap page does not verify.
    pub(super) fn is_used(&self, id: PageId) -> Option<bool> {
        let group_pages = pages_per_group(self.page_size);
        let (group, index) = (id.0 / group_pages, id.0 % group_pages);
        let mut known = self.bitmap.borrow_mut();
        if known.as_ref().is_none_or(|(number, _)| *number != group) {
            let bits = self.page(bitmap_page(group, self.page_size)).ok().map(|page| page.bytes);
            let bits = bits.filter(|bits| page::kind(bits) == Some(PageKind::Bitmap));
            *known = Some((group, bits));
        }
        let (byte, mask) = bit_position(index);
        let bits = known.as_ref().and_then(|(_, bits)| bits.as_ref())?;
        bits.get(byte).map(|byte| byte & mask != 0)
    }
}

fn position_before(record: &Record<'_>) -> (Lsn, u64) {
    (record.lsn(), record.chain_before())
}
