//! The pager: the data file, its map, and the versions of pages that are not in it yet.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64 as Counter},
};

use crate::{
    disk::{Disk, DiskFile},
    error::{Damage, Error, Result, Structure},
    format::{
        bitmap, node, overflow,
        page::{self, PageKind},
    },
    ids::{Lsn, PageId, TreeId},
    limits::PAGE_COUNT_MAX,
    sync::{
        Mutex, Planted,
        atomic::{AtomicU32, Ordering::*},
        is_planted,
    },
};

use super::{
    access::FRONT_LEN,
    changed::ChangedPages,
    copies::Copies,
    damaged::DamagedPages,
    directory::{Directory, Found},
    map::{MapCell, prefetch_lines},
    pool::{Pool, PoolLimits},
    readers::Registry,
    taken::Taken,
};

/// What the pager needs to know at open.
#[derive(Debug)]
pub struct PagerConfig {
    /// The open data file and its name.
    pub file: Arc<dyn DiskFile>,
    /// Name of the data file, for errors.
    pub path: PathBuf,
    /// Folder for scratch files.
    pub scratch_dir: PathBuf,
    /// Size of a page in bytes.
    pub page_size: usize,
    /// Address space to reserve for the map, in bytes.
    pub map_size: usize,
    /// Bounds of versions in memory and in scratch files.
    pub pool: PoolLimits,
    /// Most readers at a time.
    pub readers_max: usize,
    /// LSN of the state that the file holds.
    pub visible: Lsn,
}

/// Pages of one database.
pub struct Pager {
    page_size: usize,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    map: MapCell,
    /// Pages that the file holds; the map must not be read beyond.
    file_pages: AtomicU32,
    /// Serialises growth.
    growth: Mutex<()>,
    growth_count: Counter,
    /// Versions of pages.
    pub directory: Directory,
    /// Memory of versions.
    pub pool: Pool,
    /// Who reads what.
    pub registry: Registry,
    /// Who copies the file.
    pub copies: Copies,
    /// What was written since they began.
    pub changed: ChangedPages,
    /// What did not verify.
    pub damaged: DamagedPages,
}

/// What an error says when the data file cannot grow.
pub const GROW: &str = "grow";

/// Smallest and largest step by which the data file grows, in bytes.
const GROWTH_MIN: u64 = 1 << 20;
const GROWTH_MAX: u64 = 64 << 20;
/// Larger steps are multiples of it, so that the page cache can hold the file in huge pages.
const HUGE_PAGE_SIZE: u64 = 2 << 20;
/// Writes of this many bytes make large pages in the page cache by themselves.
const BULK_LEN_MIN: usize = 1 << 20;

impl Pager {
    /// Maps the file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be measured or mapped.
    pub fn open(config: PagerConfig, disk: Arc<dyn Disk>) -> Result<Pager> {
        let PagerConfig { file, path, page_size, .. } = config;
        let len = file.len().map_err(Error::io("measure", &path))?;
        let file_pages = pages_in(len, page_size);
        let reserve = config.map_size.max(2 * len as usize);
        let map = MapCell::new(&*file, reserve, page_size).map_err(Error::io("map", &path))?;
        Ok(Pager {
            page_size,
            map,
            file_pages: AtomicU32::new(file_pages),
            growth: Mutex::new(()),
            growth_count: Counter::new(0),
            directory: Directory::new(),
            pool: Pool::new(page_size, config.pool, disk, config.scratch_dir),
            registry: Registry::new(config.readers_max, config.visible),
            copies: Copies::default(),
            changed: ChangedPages::default(),
            damaged: DamagedPages::default(),
            file,
            path,
        })
    }

    /// Size of a page in bytes.
    #[inline(always)]
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Pages that the data file holds, free ones included.
    pub fn file_pages(&self) -> u32 {
        self.file_pages.load(Acquire)
    }

    /// How often the data file grew since it was opened.
    pub fn growth_count(&self) -> u64 {
        self.growth_count.load(Relaxed)
    }

    /// The bytes of page `id` at `lsn`, verified if they come from the file: one page, or (a
    /// version of) a whole run.
    ///
    /// The caller is registered as a reader of `lsn` for as long as it uses them.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    #[inline(always)]
    pub fn page(&self, id: PageId, lsn: Lsn) -> Result<&[u8]> {
        match self.directory.find(id, lsn) {
            Found::Map => self.mapped(id),
            Found::Version(_, bytes) => Ok(bytes),
            Found::Free => Err(self.damaged(id, "the tree refers to a free page")),
            Found::Hidden => self.restored(id, lsn),
        }
    }

    /// As `page`, for one whose version was changed in place by a newer transaction.
    #[cold]
    fn restored(&self, id: PageId, lsn: Lsn) -> Result<&[u8]> {
        match self.directory.restore(id, lsn, &self.pool)? {
            Found::Map => self.mapped(id),
            Found::Version(_, bytes) => Ok(bytes),
            Found::Free => Err(self.damaged(id, "the tree refers to a free page")),
            Found::Hidden => unreachable!("it was made anew"),
        }
    }

    /// As `page`, for a page whose front is read from end to end: all of its lines are asked for at
    /// once, instead of one after the other.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    #[inline(always)]
    pub fn leaf(&self, id: PageId, lsn: Lsn) -> Result<&[u8]> {
        let bytes = self.page(id, lsn)?;
        prefetch_lines(&bytes[..FRONT_LEN]);
        Ok(bytes)
    }

    #[inline(always)]
    fn mapped(&self, id: PageId) -> Result<&[u8]> {
        if id.0 >= self.file_pages.load(Acquire) {
            return Err(self.short(id));
        }
        let view = self.map.view();
        if !view.is_verified(id) {
            self.verify(id)?;
        }
        Ok(view.bytes(id, 1, self.page_size))
    }

    /// The bytes of the `page_count` pages from `id` on, as the file has them, not verified.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file ends before them.
    pub fn raw(&self, id: PageId, page_count: u32) -> Result<&[u8]> {
        match id.0.checked_add(page_count) {
            Some(end) if end <= self.file_pages() => {
                Ok(self.map.view().bytes(id, page_count as usize, self.page_size))
            }
            _ => Err(self.short(id)),
        }
    }

    /// Reads whole pages from the medium, not through the map; nothing is verified.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read_medium(&self, first: PageId, buf: &mut [u8]) -> std::io::Result<()> {
        self.file.read_medium(u64::from(first.0) * self.page_size as u64, buf)
    }

    /// Reads whole pages, not through the map; nothing is verified.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn read_file(&self, first: PageId, buf: &mut [u8]) -> Result<()> {
        let offset = u64::from(first.0) * self.page_size as u64;
        self.file.read_at(offset, buf).map_err(Error::io("read", &self.path))
    }

    /// The version of a page, or of a run, that is in memory at `lsn`.
    ///
    /// # Errors
    /// [`Error::Bound`] when it must be made anew, and there is no memory for it.
    pub fn version(&self, id: PageId, lsn: Lsn) -> Result<Option<&[u8]>> {
        match self.directory.find(id, lsn) {
            Found::Map | Found::Free => Ok(None),
            Found::Version(_, bytes) => Ok(Some(bytes)),
            Found::Hidden => self.restored(id, lsn).map(Some),
        }
    }

    /// Verifies a page of the file at its first touch: checksum, number, layout.
    #[cold]
    fn verify(&self, id: PageId) -> Result<()> {
        let bytes = self.raw(id, 1)?;
        let bytes = match page::kind(bytes) {
            Some(PageKind::Overflow) => {
                overflow::validate_header(bytes).map_err(|what| self.rotten(id, what))?;
                self.raw(id, overflow::page_count(overflow::value_len(bytes), self.page_size))?
            }
            _ => bytes,
        };
        if bytes.len() > self.page_size && is_planted(Planted::RunTailNotVerified) {
            self.map.view().set_verified(id);
            return Ok(());
        }
        verify_bytes(bytes, id, self.page_size).map_err(|what| self.rotten(id, what))?;
        // Only what is visible is ever written into the file. Where records were dropped that it
        // holds the changes of, its pages are not those of one LSN.
        if page::lsn(bytes) > self.registry.visible() {
            return Err(self.damaged(id, "the page is newer than the last record"));
        }
        self.map.view().set_verified(id);
        Ok(())
    }

    /// As `page`, but verifies the bytes whether that was done before or not, versions in memory
    /// included.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn page_verified_again(&self, id: PageId, lsn: Lsn) -> Result<&[u8]> {
        match self.directory.find(id, lsn) {
            Found::Map => {
                self.verify(id)?;
                self.raw(id, 1)
            }
            Found::Version(_, bytes) => {
                verify_bytes(bytes, id, self.page_size).map_err(|what| self.corrupt(id, what))?;
                Ok(bytes)
            }
            Found::Free => Err(self.damaged(id, "something refers to a free page")),
            Found::Hidden => {
                let bytes = self.restored(id, lsn)?;
                verify_bytes(bytes, id, self.page_size).map_err(|what| self.corrupt(id, what))?;
                Ok(bytes)
            }
        }
    }

    /// As `page`, but verifies nothing; a free page gives what the file has.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file ends before it.
    pub fn page_unverified(&self, id: PageId, lsn: Lsn) -> Result<&[u8]> {
        match self.directory.find(id, lsn) {
            Found::Version(_, bytes) => Ok(bytes),
            Found::Map | Found::Free => self.raw(id, 1),
            Found::Hidden => self.restored(id, lsn),
        }
    }

    /// The bytes of the value in the run at `id`.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn run(&self, id: PageId, value_len: u64, lsn: Lsn) -> Result<&[u8]> {
        let bytes = match self.directory.find(id, lsn) {
            Found::Version(_, bytes) => bytes,
            Found::Free => return Err(self.damaged(id, "the tree refers to a free run")),
            Found::Hidden => self.restored(id, lsn)?,
            Found::Map => {
                let first = self.mapped(id)?;
                overflow::validate_header(first).map_err(|what| self.corrupt(id, what))?;
                self.raw(id, overflow::page_count(overflow::value_len(first), self.page_size))?
            }
        };
        match overflow::value(bytes) {
            Some(value) if value.len() as u64 == value_len => Ok(value),
            _ => Err(self.damaged(id, "the run holds a value of another length")),
        }
    }

    /// Undoes changes in place.
    pub fn give_back(&self, pages: impl IntoIterator<Item = Taken>) {
        let mut change = self.directory.change(&self.registry);
        pages.into_iter().for_each(|taken| change.give_back(taken, &self.pool));
        change.finish(&self.pool, false);
    }

    /// Hints that a page will be read soon.
    #[inline(always)]
    pub fn prefetch(&self, id: PageId, lsn: Lsn) {
        let bytes = match self.directory.find(id, lsn) {
            Found::Map if id.0 < self.file_pages.load(Acquire) => {
                self.map.view().bytes(id, 1, self.page_size)
            }
            Found::Version(_, bytes) => bytes,
            _ => return,
        };
        prefetch_lines(&bytes[..FRONT_LEN]);
    }

    /// The error for damage of a page.
    #[cold]
    pub fn corrupt(&self, id: PageId, what: Damage) -> Error {
        let offset = u64::from(id.0) * self.page_size as u64;
        tracing::error!(page = id.0, %what, "damaged page");
        Error::Corrupt { file: self.path.clone(), offset, what }
    }

    /// As `corrupt`, of a page of the file, which may be had from elsewhere.
    #[cold]
    fn rotten(&self, id: PageId, what: Damage) -> Error {
        self.damaged.note(id, self.registry.visible());
        self.corrupt(id, what)
    }

    /// The error for a page that contradicts what leads to it.
    #[cold]
    pub fn damaged(&self, id: PageId, what: &'static str) -> Error {
        self.corrupt(id, Damage::layout(Structure::Page(id, TreeId::NONE), what))
    }

    #[cold]
    fn short(&self, id: PageId) -> Error {
        let file_len = u64::from(self.file_pages()) * self.page_size as u64;
        let structure = Structure::Page(id, TreeId::NONE);
        self.corrupt(id, Damage::Short { structure, file_len })
    }

    /// Writes pages to the file, growing it where it must. They are durable after [`Pager::sync`].
    ///
    /// # Errors
    /// [`Error::Io`]; the caller poisons the database.
    pub fn write(&self, first: PageId, bytes: &[u8]) -> Result<()> {
        let end = first.0 as usize + bytes.len() / self.page_size;
        let end = u32::try_from(end).expect("page numbers were handed out by the space map");
        self.grow(end, bytes.len() >= BULK_LEN_MIN)?;
        if !is_planted(Planted::HandOverAfterWrite) {
            self.copies.before_write(self, first, end - first.0);
        }
        self.changed.mark(first, end - first.0);
        let offset = u64::from(first.0) * self.page_size as u64;
        self.file.write_at(offset, bytes).map_err(Error::io("write", &self.path))?;
        if is_planted(Planted::HandOverAfterWrite) {
            self.copies.before_write(self, first, end - first.0);
        }
        // A page inside a run may have been verified when it was another one.
        let view = self.map.view();
        self.damaged.written(first, end - first.0);
        (first.0..)
            .map(PageId)
            .take(bytes.len() / self.page_size)
            .for_each(|id| view.clear_verified(id));
        Ok(())
    }

    /// Marks pages that were just written as verified: their bytes are ours.
    pub fn set_verified(&self, id: PageId) {
        self.map.view().set_verified(id);
    }

    /// Makes the file at least `page_count` pages long, in steps of megabytes. What is written in bulk
    /// needs no page cache made ahead for it.
    fn grow(&self, page_count: u32, is_bulk: bool) -> Result<()> {
        if page_count <= self.file_pages() {
            return Ok(());
        }
        let _growth = self.growth.lock();
        let page_size = self.page_size as u64;
        let (old, needed) = (u64::from(self.file_pages()), u64::from(page_count));
        if needed <= old {
            return Ok(());
        }
        let step = match old * page_size / 16 {
            ..=GROWTH_MIN => GROWTH_MIN,
            part => part.next_multiple_of(HUGE_PAGE_SIZE).min(GROWTH_MAX),
        };
        let target = (needed * page_size).next_multiple_of(step) / page_size;
        let target = target.min(u64::from(PAGE_COUNT_MAX));
        // A full disk may still have room for what is needed now.
        if let Err(error) = self.file.allocate(target * page_size) {
            tracing::warn!(%error, "the data file cannot grow by a whole step");
            self.file.allocate(needed * page_size).map_err(Error::io(GROW, &self.path))?;
        }
        let len = self.file.len().map_err(Error::io("measure", &self.path))?;
        let target = pages_in(len, self.page_size);
        if !is_bulk {
            self.file.prepare_cache(old * page_size, len.saturating_sub(old * page_size));
        }
        assert!(target >= page_count, "the file is shorter than what was allocated");
        self.map
            .cover(&*self.file, target as usize * self.page_size, self.page_size)
            .map_err(Error::io("map", &self.path))?;
        self.file_pages.store(target, Release);
        self.growth_count.fetch_add(1, Relaxed);
        tracing::debug!(pages = target, "the data file grew");
        Ok(())
    }

    /// Gives the space behind the last used page back to the file system.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// If a reader or a version is left: nobody may look at the map beyond.
    pub fn shrink(&self, page_count: u32) -> Result<()> {
        assert!(self.registry.readers().entries().is_empty(), "readers are left");
        if page_count >= self.file_pages() {
            return Ok(());
        }
        self.file_pages.store(page_count, Release);
        let len = u64::from(page_count) * self.page_size as u64;
        self.file.set_len(len).map_err(Error::io("shorten", &self.path))
    }

    /// Starts writing a part of the file out, as a hint.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn start_writeback(&self, first: PageId, page_count: u32) -> Result<()> {
        let page_size = self.page_size as u64;
        self.file
            .start_writeback(u64::from(first.0) * page_size, u64::from(page_count) * page_size)
            .map_err(Error::io("start writing", &self.path))
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// [`Error::Io`]; the caller poisons the database and never calls again.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("sync", &self.path))
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.directory.release_runs(&self.pool);
    }
}

/// Verifies the bytes of a page, or of a whole run: checksum, number, and the layout of its kind.
///
/// # Errors
/// What is wrong with it.
pub fn verify_bytes(bytes: &[u8], id: PageId, page_size: usize) -> Result<(), Damage> {
    match page::verify(bytes, id)? {
        kind if kind != PageKind::Overflow && bytes.len() != page_size => {
            let structure = Structure::Page(id, page::tree(bytes));
            Err(Damage::layout(structure, "the page is stored as a run"))
        }
        PageKind::Leaf | PageKind::Branch => node::validate(bytes),
        PageKind::Overflow => overflow::validate(bytes, page_size),
        PageKind::Bitmap => bitmap::validate(bytes),
    }
}

fn pages_in(len: u64, page_size: usize) -> u32 {
    u32::try_from(len / page_size as u64).unwrap_or(PAGE_COUNT_MAX)
}

impl fmt::Debug for Pager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager").field("path", &self.path).finish_non_exhaustive()
    }
}
