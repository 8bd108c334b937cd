//! A write transaction: closures change trees, and all of it becomes one record, or nothing.
//!
//! The steps of a commit are apart, so that callers are merged into one transaction and records are
//! in flight while the next one runs:
//!
//! ```text
//! run      closures change pages, each with a savepoint   (`WriteTxn`, `TreeMut`, `batch`)
//! seal     pages become versions and a record             (`WriteTxn::seal`)
//! append   the record goes to the journal                 (`pipeline`)
//! sync     the journal is made durable                    (`pipeline`)
//! commit   readers see the LSN, the checkpoint is told    (`pipeline`)
//! ```
//!
//! A transaction stands on the newest *sealed* state, whether that is committed yet or not: records
//! become final in the order of their LSNs, so it cannot be final before what it saw.

use std::{
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    error::{Error, Result},
    format::record::{RecordKind, RecordMeta, SealedRecord},
    ids::{Lsn, Term},
    journal::JournalPosition,
    limits::{ANNOTATIONS_LEN_MAX, RECORD_LEN_MAX},
    options::Durability,
    pager::{readers::ReaderSlot, space::Space},
    sync::MutexGuard,
    tree::{self, TreeState},
};

use super::{
    catalog::{Catalog, check_name},
    core::{CommitPoint, Core, Writer},
    open_trees::{OpenTrees, TreesMark},
    pages::{PagesMark, PagesState, TxnPages},
    pipeline::InFlight,
    reentrance::{enter, leave},
    tree_mut::TreeMut,
};

/// One write transaction, or the part of a merged one that a closure sees. Dropping it undoes
/// everything.
#[derive(Debug)]
pub struct WriteTxn<'db> {
    core: &'db Core,
    /// There until the transaction ends.
    writer: Option<MutexGuard<'db, Writer>>,
    /// There until the transaction ends.
    pages: Option<TxnPages>,
    reader: ReaderSlot,
    catalog: Catalog,
    open: OpenTrees,
    annotations: Vec<Vec<u8>>,
    /// Of these, those of closures before this one.
    annotations_before: usize,
    /// An operation failed half-way: what the pages hold is no state of the trees.
    broken: bool,
    /// Something is to be sealed from closures before this one.
    kept: bool,
    /// Tells its handles from those of other transactions and closures.
    number: u64,
}

/// Where a savepoint began.
#[derive(Debug)]
struct Savepoint {
    pages: PagesMark,
    trees: TreesMark,
    catalog: Catalog,
    annotations: usize,
}

/// A tree that is open in a write transaction, as a number: cheap to keep beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHandle {
    index: usize,
    txn: u64,
}

/// What a commit leaves behind: the value of the closure, and the LSN at which its changes are
/// visible and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt<T> {
    /// What the closure returned.
    pub value: T,
    /// LSN of the record; of the state that was read, when nothing was changed.
    pub lsn: Lsn,
}

impl<'db> WriteTxn<'db> {
    /// Waits for the writer before, and begins on top of its state.
    ///
    /// # Errors
    /// [`Error::Reentrant`], [`Error::Poisoned`], [`Error::Bound`], [`Error::Corrupt`].
    #[track_caller]
    pub(crate) fn begin(core: &'db Core) -> Result<WriteTxn<'db>> {
        let location = Location::caller();
        enter(core)?;
        let writer = core.writer.lock();
        WriteTxn::begin_entered(core, writer, location).map_err(|(_, error)| {
            leave(core);
            error
        })
    }

    /// The same for whoever is the writer already.
    pub(super) fn begin_merged(
        core: &'db Core,
        writer: MutexGuard<'db, Writer>,
        location: &'static Location<'static>,
    ) -> Result<WriteTxn<'db>, (MutexGuard<'db, Writer>, Error)> {
        if let Err(error) = enter(core) {
            return Err((writer, error));
        }
        WriteTxn::begin_entered(core, writer, location).inspect_err(|_| leave(core))
    }

    fn begin_entered(
        core: &'db Core,
        mut writer: MutexGuard<'db, Writer>,
        location: &'static Location<'static>,
    ) -> Result<WriteTxn<'db>, (MutexGuard<'db, Writer>, Error)> {
        if let Err(error) = core.check_poison() {
            return Err((writer, error));
        }
        let base = writer.tail.lsn;
        let reader = match core.pager.registry.add_at(base, core.disk.now_us(), location) {
            Ok(reader) => reader,
            Err(error) => return Err((writer, error)),
        };
        if let Some(record) = core.pipeline.spare() {
            writer.builder.recycle(record);
        }
        let blank = PagesState::new(Space::new(core.pager.page_size()));
        let state = std::mem::replace(&mut writer.pages, blank);
        let mut pages = TxnPages::new(Arc::clone(&core.pager), state, base);
        let catalog =
            if base == Lsn(0) { create_catalog(&mut pages) } else { Catalog::open(&pages) };
        let catalog = match catalog {
            Ok(catalog) => catalog,
            Err(error) => {
                writer.pages = pages.finish();
                core.pager.registry.remove(&reader);
                return Err((writer, error));
            }
        };
        Ok(WriteTxn {
            core,
            writer: Some(writer),
            pages: Some(pages),
            reader,
            catalog,
            open: OpenTrees::default(),
            annotations: Vec::new(),
            annotations_before: 0,
            broken: false,
            kept: false,
            number: core.counters.transactions.fetch_add(1, Relaxed),
        })
    }

    /// LSN of the state that the transaction began on.
    #[must_use]
    pub fn base(&self) -> Lsn {
        self.reader.lsn()
    }

    /// The tree of this name; made empty when there is none. It borrows the transaction: for two
    /// trees by turns, ask again, or see [`tree_handle`](WriteTxn::tree_handle).
    ///
    /// # Errors
    /// [`Error::TreeName`] for a name that cannot be given, [`Error::Corrupt`], [`Error::Bound`].
    pub fn tree(&mut self, name: impl AsRef<[u8]>) -> Result<TreeMut<'_>> {
        let handle = self.tree_handle(name)?;
        self.by_handle(handle)
    }

    /// As [`tree`](WriteTxn::tree), but returns a handle for [`by_handle`](WriteTxn::by_handle):
    /// for loops that go to and fro between trees.
    ///
    /// # Errors
    /// As [`tree`](WriteTxn::tree).
    pub fn tree_handle(&mut self, name: impl AsRef<[u8]>) -> Result<TreeHandle> {
        check_name(name.as_ref())?;
        self.open_or_create(name.as_ref())
    }

    /// The tree of a handle.
    ///
    /// # Errors
    /// [`Error::UnknownTree`] when it was dropped since.
    pub fn by_handle(&mut self, handle: TreeHandle) -> Result<TreeMut<'_>> {
        assert_eq!(handle.txn, self.number, "the handle is of another transaction");
        let open = self.open.get_mut(handle.index);
        if open.dropped {
            return Err(Error::UnknownTree { name: open.name.clone() });
        }
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        Ok(TreeMut::new(pages, open, &mut self.broken))
    }

    /// The tree of this name, which must exist.
    ///
    /// # Errors
    /// [`Error::UnknownTree`], [`Error::Corrupt`].
    pub fn existing_tree(&mut self, name: impl AsRef<[u8]>) -> Result<TreeMut<'_>> {
        let name = name.as_ref();
        match self.find_open(name)? {
            Some(handle) => self.by_handle(handle),
            None => Err(Error::UnknownTree { name: name.to_owned() }),
        }
    }

    /// Removes a tree with all its entries. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error::TreeName`], [`Error::Corrupt`], [`Error::Bound`].
    pub fn drop_tree(&mut self, name: impl AsRef<[u8]>) -> Result<bool> {
        let name = name.as_ref();
        check_name(name)?;
        let Some(handle) = self.find_open(name)? else { return Ok(false) };
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        let open = self.open.get_mut(handle.index);
        let (state, is_stored) = (open.state, open.stored.is_some());
        self.open.drop_tree(handle.index);
        let mut result = tree::drop_pages(pages, &state);
        if result.is_ok() && is_stored {
            result = self.catalog.remove(pages, name).map(|_| ());
        }
        self.broken |= result.is_err();
        result.map(|()| true)
    }

    /// Names of all trees as of this moment of the transaction, in order, those of the engine
    /// (`$…`) excepted.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn tree_names(&self) -> Result<Vec<Vec<u8>>> {
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        let mut names: Vec<Vec<u8>> =
            self.catalog.list(pages)?.into_iter().map(|(name, _)| name).collect();
        names.extend(
            self.open
                .iter()
                .filter(|open| open.stored.is_none() && !open.dropped)
                .map(|open| open.name.clone()),
        );
        names.retain(|name| !name.starts_with(b"$"));
        names.sort_unstable();
        Ok(names)
    }

    /// Adds bytes of the application's own to the record: they are seen by whoever reads the
    /// journal, not by readers of trees. They are kept as long as the journal keeps the record. A
    /// transaction with annotations alone gets a record too.
    ///
    /// # Errors
    /// [`Error::Bound`] when the annotations of the transaction would exceed 16 MiB.
    pub fn annotate(&mut self, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let bytes = bytes.into();
        let own = &self.annotations[self.annotations_before..];
        let framed: usize = own.iter().map(|bytes| bytes.len() + 4).sum();
        if framed + bytes.len() + 4 > ANNOTATIONS_LEN_MAX {
            return Err(Error::Bound {
                option: "annotations of a transaction",
                max: ANNOTATIONS_LEN_MAX as u64,
                hint: "store the bytes in a tree, and annotate with their key",
            });
        }
        self.annotations.push(bytes);
        Ok(())
    }

    /// Runs a part of the transaction that can fail by itself: when `change` returns an error, its
    /// changes are undone, and what was before them stays. Savepoints nest. A panic goes through, after
    /// the same.
    ///
    /// It costs what `change` changes, not what the transaction has changed before.
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let db = treepie::Database::open(dir.path())?;
    /// db.write(|tx| {
    ///     tx.tree("log")?.insert("1", "tried")?;
    ///     let booked = tx.savepoint(|tx| {
    ///         tx.tree("seats")?.insert("12A", "anna")?;
    ///         Err::<(), _>(treepie::Error::rejected("she cannot pay"))
    ///     });
    ///     assert!(booked.is_err());
    ///     assert!(tx.tree("seats")?.is_empty());
    ///     Ok(())
    /// })?;
    /// assert_eq!(db.read()?.tree("log")?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `change` returns; [`Error::Rejected`] when it hides that an operation failed half-way.
    pub fn savepoint<T>(
        &mut self,
        change: impl FnOnce(&mut WriteTxn<'db>) -> Result<T>,
    ) -> Result<T> {
        if self.broken {
            return Err(half_way());
        }
        let savepoint = self.begin_savepoint();
        let result = match catch_unwind(AssertUnwindSafe(|| change(self))) {
            Ok(result) => result,
            Err(panic) => {
                self.undo_savepoint(savepoint);
                resume_unwind(panic);
            }
        };
        let result = if self.broken && result.is_ok() { Err(half_way()) } else { result };
        match &result {
            Ok(_) => self.keep_savepoint(savepoint),
            Err(_) => self.undo_savepoint(savepoint),
        }
        result
    }

    fn begin_savepoint(&mut self) -> Savepoint {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        Savepoint {
            pages: pages.begin_savepoint(),
            trees: self.open.begin_savepoint(),
            catalog: self.catalog.clone(),
            annotations: self.annotations.len(),
        }
    }

    fn keep_savepoint(&mut self, savepoint: Savepoint) {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        pages.keep_savepoint(savepoint.pages);
        self.open.keep_savepoint(savepoint.trees);
    }

    fn undo_savepoint(&mut self, savepoint: Savepoint) {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        pages.undo_savepoint(savepoint.pages);
        self.open.undo_savepoint(savepoint.trees);
        self.catalog = savepoint.catalog;
        self.annotations.truncate(savepoint.annotations);
        self.broken = false;
    }

    /// Runs the closure of one of the merged callers. `run` returns whether its changes stay; they
    /// are undone otherwise, and nothing else is.
    ///
    /// # Errors
    /// Why they could not stay although they should have.
    pub(super) fn run_merged(
        &mut self,
        run: impl FnOnce(&mut WriteTxn<'db>) -> bool,
    ) -> Result<()> {
        self.number = self.core.counters.transactions.fetch_add(1, Relaxed);
        self.annotations_before = self.annotations.len();
        // Undoing the first closure is undoing everything.
        let savepoint = self.kept.then(|| self.begin_savepoint());
        let stays = run(self);
        let verdict = if stays { self.check() } else { Ok(()) };
        if stays && verdict.is_ok() {
            savepoint.into_iter().for_each(|savepoint| self.keep_savepoint(savepoint));
            self.core.counters.closures.fetch_add(1, Relaxed);
            self.kept = true;
            return Ok(());
        }
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        if !pages.is_clean() {
            self.core.counters.rollbacks.fetch_add(1, Relaxed);
        }
        match savepoint {
            Some(savepoint) => self.undo_savepoint(savepoint),
            None => self.reset(),
        }
        verdict
    }

    /// Undoes everything so far.
    fn reset(&mut self) {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        pages.rollback();
        self.open = OpenTrees::default();
        self.annotations.clear();
        self.broken = false;
        if let Ok(catalog) = Catalog::open(pages) {
            self.catalog = catalog;
        } else {
            // It could be read when the transaction began.
            self.broken = true;
        }
    }

    /// Whether what was changed so far can become a record.
    fn check(&self) -> Result<()> {
        if self.broken {
            return Err(half_way());
        }
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        let payload_len_max = pages.payload_len_max() + ANNOTATIONS_LEN_MAX as u64 * 4;
        if payload_len_max > RECORD_LEN_MAX {
            return Err(Error::Bound {
                option: "bytes of a transaction",
                max: RECORD_LEN_MAX,
                hint: "split the transaction",
            });
        }
        Ok(())
    }

    /// Bytes of memory that the transaction holds.
    pub(super) fn memory_len(&self) -> usize {
        let annotations: usize = self.annotations.iter().map(Vec::len).sum();
        self.pages.as_ref().map_or(0, TxnPages::memory_len) + annotations * 8
    }

    /// As `tree`, for the engine's own names too.
    pub(crate) fn system_tree(&mut self, name: &[u8]) -> Result<TreeMut<'_>> {
        let handle = self.open_or_create(name)?;
        self.by_handle(handle)
    }

    fn open_or_create(&mut self, name: &[u8]) -> Result<TreeHandle> {
        if let Some(handle) = self.find_open(name)? {
            return Ok(handle);
        }
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        let state = self.catalog.create_tree(pages).inspect_err(|_| self.broken = true)?;
        Ok(self.add_open(name, state, None))
    }

    fn find_open(&mut self, name: &[u8]) -> Result<Option<TreeHandle>> {
        if let Some(index) = self.open.find(name) {
            return Ok(Some(TreeHandle { index, txn: self.number }));
        }
        if self.open.was_dropped(name) || name.is_empty() {
            return Ok(None);
        }
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        let state = self.catalog.find(pages, name)?;
        Ok(state.map(|state| self.add_open(name, state, Some(state))))
    }

    fn add_open(&mut self, name: &[u8], state: TreeState, stored: Option<TreeState>) -> TreeHandle {
        TreeHandle { index: self.open.add(name, state, stored), txn: self.number }
    }

    /// Undoes everything, as dropping the transaction does.
    pub fn rollback(self) {
        drop(self);
    }

    /// Makes all changes durable, then visible, at once. Returns the LSN of the record, or of the
    /// state that was read when nothing was changed.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] when the journal cannot be written or synced: the database is
    /// poisoned, and whether the changes survive shows when it is reopened. [`Error::Rejected`] when
    /// an operation failed half-way before. In any other case everything is undone.
    pub fn commit(self) -> Result<Lsn> {
        let durability = self.core.bounds.durability;
        self.commit_as(durability)
    }

    /// As [`commit`](WriteTxn::commit), acknowledged as `durability` says.
    ///
    /// # Errors
    /// As [`commit`](WriteTxn::commit).
    pub fn commit_as(mut self, durability: Durability) -> Result<Lsn> {
        let core = self.core;
        let lsn = self.seal(durability)?;
        let writer = self.into_writer();
        let committed = core.pipeline.commit(core, lsn, durability);
        drop(writer);
        committed.map(|()| lsn)
    }

    /// Writes the states of all changed trees into the catalog.
    fn write_catalog(&mut self) -> Result<()> {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        let mut changed = !pages.is_clean();
        for open in self.open.iter().filter(|open| !open.dropped) {
            if open.stored != Some(open.state) {
                self.catalog.put(pages, &open.name, &open.state)?;
                changed = true;
            }
        }
        if changed { self.catalog.put_own(pages) } else { Ok(()) }
    }

    /// Makes a record of the changes and puts it behind those in flight. Returns its LSN; that of the
    /// state below when nothing was changed.
    ///
    /// # Errors
    /// Those of [`commit`](WriteTxn::commit) that leave nothing behind.
    pub(super) fn seal(&mut self, durability: Durability) -> Result<Lsn> {
        self.check()?;
        self.write_catalog()?;
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        if pages.is_clean() && self.annotations.is_empty() {
            return Ok(self.reader.lsn());
        }
        let (record, point) = self.make_record()?;
        let lsn = record.lsn;
        self.core.pipeline.push(self.core, InFlight { record, point, durability });
        Ok(lsn)
    }

    /// Turns the changes into a record and into versions that only readers of its LSN will see.
    fn make_record(&mut self) -> Result<(SealedRecord, CommitPoint)> {
        let core = self.core;
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        let writer = &mut **self.writer.as_mut().expect("the transaction has not ended");
        let lsn = writer.tail.lsn.next();
        let versions = match pages.seal(lsn, &mut writer.builder) {
            Ok(versions) => versions,
            Err(error) => {
                writer.builder.clear();
                return Err(error);
            }
        };
        for annotation in &self.annotations {
            writer.builder.annotate(annotation);
        }
        let meta = RecordMeta {
            kind: RecordKind::Transaction,
            lsn,
            term: Term(0),
            page_size: core.pager.page_size(),
            time_us: core.disk.now_us(),
            known_committed: core.watermarks.committed(),
            chain_before: writer.tail.chain,
        };
        let record = writer.builder.finish(&meta, core.bounds.compression);
        // Room in the journal is made before anything is handed over: on a full disk the
        // transaction fails, and the database goes on.
        if let Err(error) = core.pipeline.reserve(core, &record) {
            if matches!(error, Error::Poisoned { .. }) || core.journal.is_poisoned() {
                core.poison("roll of the journal", &error);
            }
            pages.unseal(versions);
            return Err(error);
        }
        pages.sealed();
        let mut change = core.pager.directory.change(&core.pager.registry);
        for (id, version) in versions {
            change.push(id, lsn, version);
        }
        change.finish(&core.pager.pool, false);
        writer.tail = JournalPosition { lsn, chain: record.chain };
        let point = CommitPoint { position: writer.tail, page_count: pages.page_count() };
        Ok((record, point))
    }

    /// Ends the transaction, and hands the writer's place on. What was not sealed is undone.
    pub(super) fn into_writer(mut self) -> MutexGuard<'db, Writer> {
        self.end().expect("the transaction ends once")
    }

    fn end(&mut self) -> Option<MutexGuard<'db, Writer>> {
        let mut writer = self.writer.take()?;
        if let Some(pages) = self.pages.take() {
            writer.pages = pages.finish();
        }
        self.core.pager.registry.remove(&self.reader);
        leave(self.core);
        Some(writer)
    }
}

fn half_way() -> Error {
    Error::rejected("an operation of the transaction failed half-way")
}

fn create_catalog(pages: &mut TxnPages) -> Result<Catalog> {
    use crate::{format::bitmap::CATALOG_ROOT, ids::TreeId};

    pages.create_first_group()?;
    pages.create_leaf(CATALOG_ROOT, TreeId::CATALOG)?;
    Catalog::create(pages)
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        let has_changes = self.pages.as_ref().is_some_and(|pages| !pages.is_clean());
        if has_changes {
            self.core.counters.rollbacks.fetch_add(1, Relaxed);
        }
        drop(self.end());
    }
}
