//! A write transaction: closures change trees, and all of it becomes one record, or nothing.
//!
//! The steps of a commit are apart, so that callers are merged into one transaction and records are
//! in flight while the next one runs:
//!
//! ```text
//! run      closures change pages                          (here, `tree_mut`; each: `savepoint`)
//! seal     pages become versions and a record             (`seal`)
//! append   the record goes to the journal                 (`pipeline`)
//! sync     the journal is made durable                    (`pipeline`)
//! commit   readers see the LSN, the checkpoint is told    (`pipeline`)
//! ```
//!
//! A transaction stands on the newest *sealed* state, whether that is committed yet or not: records
//! become final in the order of their LSNs, so it cannot be final before what it saw.

use std::{
    panic::Location,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use crate::{
    error::{Error, Result},
    format::record::RecordKind,
    ids::Lsn,
    limits::ANNOTATIONS_LEN_MAX,
    options::Durability,
    pager::{readers::ReaderSlot, space::Space},
    sync::MutexGuard,
    tree::{self, TreeState},
};

use super::{
    catalog::{Catalog, check_name},
    core::{Core, Writer},
    open_trees::OpenTrees,
    pages::{PagesState, TxnPages},
    reentrance::{enter, leave},
    tree_mut::TreeMut,
};

/// One write transaction, or the part of a merged one that a closure sees. Dropping it undoes
/// everything.
#[derive(Debug)]
pub struct WriteTxn<'db> {
    pub(super) core: &'db Core,
    /// There until the transaction ends.
    pub(super) writer: Option<MutexGuard<'db, Writer>>,
    /// There until the transaction ends.
    pub(super) pages: Option<TxnPages>,
    pub(super) reader: ReaderSlot,
    pub(super) catalog: Catalog,
    pub(super) open: OpenTrees,
    pub(super) annotations: Vec<Vec<u8>>,
    /// Of these, those of closures before this one.
    pub(super) annotations_before: usize,
    /// The operation that failed half-way: what the pages hold is no state of the trees.
    pub(super) broken: Option<&'static str>,
    /// Something is to be sealed from closures before this one.
    pub(super) kept: bool,
    /// What its record is for.
    pub(super) kind: RecordKind,
    /// Tells its handles from those of other transactions and closures.
    pub(super) number: u64,
}

/// A tree that is open in a write transaction, as a number: cheap to keep beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHandle {
    index: usize,
    serial: u64,
    txn: u64,
}

/// What a commit leaves behind: the value of the closure, and the LSN from which on its
/// changes are visible.
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
    /// [`Error::Reentrant`], [`Error::Poisoned`], [`Error::NotLeader`], [`Error::Bound`],
    /// [`Error::Corrupt`].
    #[track_caller]
    pub(crate) fn begin(core: &'db Core) -> Result<WriteTxn<'db>> {
        let location = Location::caller();
        enter(core)?;
        let writer = core.merger.writer(core);
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
        if let Err(error) = core.check_poison().and_then(|()| core.replicated.check_writes()) {
            return Err((writer, error));
        }
        let base = writer.tail.lsn;
        let reader = match core.pager.registry.add_at(base, core.disk.now_us(), location) {
            Ok(reader) => reader,
            Err(error) => return Err((writer, error)),
        };
        if core.bounds.background && core.pager.pool.is_low() {
            core.flusher.ask_memory();
        }
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
            broken: None,
            kept: false,
            kind: RecordKind::Transaction,
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
    /// [`Error::UnknownTree`] when it was dropped since, or when the handle is from inside a
    /// savepoint that was undone.
    pub fn by_handle(&mut self, handle: TreeHandle) -> Result<TreeMut<'_>> {
        assert_eq!(handle.txn, self.number, "the handle is of another transaction");
        if self.open.serial(handle.index) != Some(handle.serial) {
            return Err(Error::UnknownTree { name: b"(of an undone savepoint)".to_vec() });
        }
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
        if result.is_err() {
            self.broken.get_or_insert("drop_tree");
        }
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
        let state = self.catalog.create_tree(pages).inspect_err(|_| {
            self.broken.get_or_insert("tree");
        })?;
        Ok(self.add_open(name, state, None))
    }

    fn find_open(&mut self, name: &[u8]) -> Result<Option<TreeHandle>> {
        if let Some(index) = self.open.find(name) {
            return Ok(Some(self.handle(index)));
        }
        if self.open.was_dropped(name) || name.is_empty() {
            return Ok(None);
        }
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        let state = self.catalog.find(pages, name)?;
        Ok(state.map(|state| self.add_open(name, state, Some(state))))
    }

    fn add_open(&mut self, name: &[u8], state: TreeState, stored: Option<TreeState>) -> TreeHandle {
        let index = self.open.add(name, state, stored);
        self.handle(index)
    }

    fn handle(&self, index: usize) -> TreeHandle {
        let serial = self.open.serial(index).expect("the tree is open");
        TreeHandle { index, serial, txn: self.number }
    }

    /// Undoes everything, as dropping the transaction does.
    pub fn rollback(self) {
        drop(self);
    }

    /// Makes all changes visible at once, and durable as [`Options::durability`](crate::Options::durability)
    /// says. Returns the LSN of the record, or of the
    /// state that was read when nothing was changed.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] when the journal cannot be written or synced: the database is
    /// poisoned, and whether the changes survive shows when it is reopened; or when leadership of a
    /// replicated one is lost meanwhile. [`Error::NotLeader`] when it was lost before.
    /// [`Error::TransactionBroken`] when an operation failed half-way before. In any other case everything is undone.
    pub fn commit(self) -> Result<Lsn> {
        let durability = self.core.bounds.durability;
        self.commit_as(durability)
    }

    /// As [`commit`](WriteTxn::commit), acknowledged as `durability` says.
    ///
    /// # Errors
    /// As [`commit`](WriteTxn::commit).
    pub fn commit_as(mut self, durability: Durability) -> Result<Lsn> {
        let (core, base) = (self.core, self.base());
        let lsn = self.seal(durability)?;
        if core.replicated.is_on() {
            // The next transaction does not wait for this one to be final, and begins behind it.
            let waiter = core.replicated.park_one(lsn, lsn > base);
            drop(self.into_writer());
            core.replicated.released();
            core.replicated.settle(core);
            return waiter.wait();
        }
        let writer = self.into_writer();
        let committed = core.pipeline.commit(core, lsn, durability);
        drop(writer);
        committed.map(|()| lsn)
    }

    /// What its record is for, other than a transaction.
    pub(crate) fn set_kind(&mut self, kind: RecordKind) {
        self.kind = kind;
    }

    /// Seals it and goes on, whenever it will be final. Returns the LSN of the record.
    ///
    /// # Errors
    /// Those of [`commit`](WriteTxn::commit) that leave nothing behind.
    pub(crate) fn seal_only(mut self) -> Result<Lsn> {
        let (core, lsn) = (self.core, self.seal(Durability::Sync)?);
        drop(self.into_writer());
        core.replicated.released();
        Ok(lsn)
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
