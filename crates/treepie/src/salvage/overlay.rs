//! Pages as the journal leaves them, in a file beside the new database.
//!
//! As recovery does it, the records are applied to copies of the pages; unlike recovery, this does not
//! need the data file to be whole, keeps no page in memory, and goes as far as the journal is valid.

use std::{path::PathBuf, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{
    disk::{Disk, DiskFile, OpenMode},
    error::{Error, Result},
    format::{
        bitmap::{is_run_place, page_count_max},
        change::PageChange,
        overflow,
        page::PAGE_HEADER_SIZE,
        record::Record,
    },
    ids::PageId,
};

/// Name of the file, in the folder of the new database.
const FILE: &str = "salvage.tmp";

/// Copies of pages.
pub(super) struct Overlay {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    page_size: usize,
    /// Where in the file each page is, in pages.
    slots: FxHashMap<u32, u32>,
    slot_count: u32,
}

impl Overlay {
    /// An empty one.
    pub(super) fn create(
        disk: &Arc<dyn Disk>,
        folder: &std::path::Path,
        page_size: usize,
    ) -> Result<Overlay> {
        let path = folder.join(FILE);
        let file = disk.open(&path, OpenMode::CreateNew).map_err(Error::io("create", &path))?;
        Ok(Overlay {
            disk: Arc::clone(disk),
            file,
            path,
            page_size,
            slots: FxHashMap::default(),
            slot_count: 0,
        })
    }

    /// Reads a page, if a record changed it; nothing is verified.
    pub(super) fn read(&self, id: PageId, page: &mut [u8]) -> Result<bool> {
        let Some(slot) = self.slots.get(&id.0) else { return Ok(false) };
        self.file.read_at(self.offset(*slot), page).map_err(Error::io("read", &self.path))?;
        Ok(true)
    }

    /// Whether a record changed the page.
    pub(super) fn has(&self, page: u32) -> bool {
        self.slots.contains_key(&page)
    }

    /// How many pages records changed.
    pub(super) fn page_count(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The pages that records changed, from `first` on, ascending.
    pub(super) fn pages_from(&self, first: u32) -> Vec<u32> {
        let mut pages: Vec<u32> =
            self.slots.keys().copied().filter(|page| *page >= first).collect();
        pages.sort_unstable();
        pages
    }

    /// Applies a record; `base` reads a page as it was before all records, or leaves it zero.
    ///
    /// # Errors
    /// [`Error::Io`] of the file. What is wrong with the record is the inner error.
    pub(super) fn apply(
        &mut self,
        record: &Record<'_>,
        base: &mut dyn FnMut(PageId, &mut [u8]),
    ) -> Result<Result<(), String>> {
        if record.page_size() != self.page_size {
            return Ok(Err("it is of another page size".to_owned()));
        }
        for change in record.changes() {
            let change = match change {
                Ok(change) if self.is_possible(&change) => change,
                Ok(_) => return Ok(Err("it changes a page that it cannot change".to_owned())),
                Err(what) => return Ok(Err(what.to_string())),
            };
            self.apply_change(&change, base)?;
        }
        Ok(Ok(()))
    }

    fn is_possible(&self, change: &PageChange<'_>) -> bool {
        match change {
            PageChange::Page { id, .. } => (2..page_count_max(self.page_size)).contains(&id.0),
            PageChange::Free { first, page_count } => {
                is_run_place(*first, *page_count, self.page_size)
            }
            PageChange::Run { first, page_count, bytes } => {
                let value_len = bytes.len().saturating_sub(PAGE_HEADER_SIZE) as u64;
                is_run_place(*first, *page_count, self.page_size)
                    && *page_count == overflow::page_count(value_len, self.page_size)
            }
        }
    }

    fn apply_change(
        &mut self,
        change: &PageChange<'_>,
        base: &mut dyn FnMut(PageId, &mut [u8]),
    ) -> Result<()> {
        match change {
            PageChange::Page { id, from_zeros, blocks } => {
                let mut page = vec![0; self.page_size];
                if !from_zeros && !self.read(*id, &mut page)? {
                    base(*id, &mut page);
                }
                for (offset, bytes) in blocks.runs() {
                    if let Some(part) = page.get_mut(offset..offset + bytes.len()) {
                        part.copy_from_slice(bytes);
                    }
                }
                self.write(*id, &page)
            }
            PageChange::Run { first, bytes, .. } => {
                for (number, piece) in (first.0..).zip(bytes.chunks(self.page_size)) {
                    let mut page = piece.to_vec();
                    page.resize(self.page_size, 0);
                    self.write(PageId(number), &page)?;
                }
                Ok(())
            }
            PageChange::Free { first, page_count } => {
                let range = first.0..first.0 + page_count;
                if range.len() > self.slots.len() {
                    self.slots.retain(|page, _| !range.contains(page));
                } else {
                    for page in range {
                        self.slots.remove(&page);
                    }
                }
                Ok(())
            }
        }
    }

    fn write(&mut self, id: PageId, page: &[u8]) -> Result<()> {
        let next = self.slot_count;
        let slot = *self.slots.entry(id.0).or_insert(next);
        self.slot_count += u32::from(slot == next);
        self.file.write_at(self.offset(slot), page).map_err(Error::io("write", &self.path))
    }

    fn offset(&self, slot: u32) -> u64 {
        u64::from(slot) * self.page_size as u64
    }

    /// Removes the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn remove(self) -> Result<()> {
        drop(self.file);
        self.disk.remove(&self.path).map_err(Error::io("remove", &self.path))
    }
}
