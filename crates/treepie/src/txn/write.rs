//! A write transaction: closures change trees, and all of it becomes one record, or nothing.
//!
//! The steps of a commit are kept apart, so that several callers can be merged into one and records
//! can be in flight while the next transaction runs:
//!
//! ```text
//! run      the caller's closure changes pages            (`WriteTxn`, `TreeMut`)
//! seal     pages become versions and a record            (`WriteTxn::seal`)
//! append   the record goes to the journal                (`append`)
//! sync     the journal is made durable                   (`append`)
//! commit   readers see the LSN, the checkpoint is told   (`publish`)
//! ```

use std::{
    cell::Cell,
    panic::Location,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::MutexGuard;
use rustc_hash::FxHashMap;

use crate::{
    error::{Error, Result},
    format::record::{RecordKind, RecordMeta, SealedRecord},
    ids::{Lsn, Term},
    journal::JournalPosition,
    limits::{ANNOTATIONS_LEN_MAX, RECORD_LEN_MAX},
    pager::{readers::ReaderSlot, space::Space},
    tree::{self, Hint, TreeState},
};

use super::{
    catalog::{Catalog, check_name},
    core::{CommitPoint, Core, Writer},
    pages::TxnPages,
    signals::Ask,
    tree_mut::TreeMut,
};

thread_local! {
    /// Addresses of the cores that this thread writes to; nearly always none or one.
    static WRITING: Cell<[usize; 4]> = const { Cell::new([0; 4]) };
}

/// One write transaction. Dropping it undoes everything.
#[derive(Debug)]
pub struct WriteTxn<'db> {
    core: &'db Core,
    writer: MutexGuard<'db, Writer>,
    /// There until the transaction ends.
    pages: Option<TxnPages>,
    reader: ReaderSlot,
    catalog: Catalog,
    open: Vec<OpenTree>,
    by_name: FxHashMap<Vec<u8>, usize>,
    annotations: Vec<Vec<u8>>,
    /// The operation that failed half-way: what the pages hold is no state of the trees.
    broken: Option<&'static str>,
    committed: bool,
    /// Tells its handles from those of other transactions.
    number: u64,
}

/// A tree that the transaction has looked up or made.
#[derive(Debug)]
pub(super) struct OpenTree {
    pub(super) name: Vec<u8>,
    pub(super) state: TreeState,
    /// The state that the catalog has; `None` for a tree made in this transaction.
    pub(super) stored: Option<TreeState>,
    pub(super) hint: Hint,
    pub(super) dropped: bool,
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
        let begun = WriteTxn::begin_entered(core, location);
        if begun.is_err() {
            leave(core);
        }
        begun
    }

    fn begin_entered(core: &'db Core, location: &'static Location<'static>) -> Result<Self> {
        let mut writer = core.writer.lock();
        core.check_poison()?;
        let reader = core.pager.registry.add(core.disk.now_us(), location)?;
        assert_eq!(reader.lsn(), writer.tail.lsn, "a sealed record is not committed");
        let page_size = core.pager.page_size();
        let space = std::mem::replace(&mut writer.space, Space::new(page_size));
        let mut pages = TxnPages::new(Arc::clone(&core.pager), space, reader.lsn());
        let catalog =
            if reader.lsn() == Lsn(0) { create_catalog(&mut pages) } else { Catalog::open(&pages) };
        let catalog = match catalog {
            Ok(catalog) => catalog,
            Err(error) => {
                writer.space = pages.finish();
                core.pager.registry.remove(&reader);
                return Err(error);
            }
        };
        Ok(WriteTxn {
            core,
            writer,
            pages: Some(pages),
            reader,
            catalog,
            open: Vec::new(),
            by_name: FxHashMap::default(),
            annotations: Vec::new(),
            broken: None,
            committed: false,
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
        let open = &mut self.open[handle.index];
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
        let open = &mut self.open[handle.index];
        open.dropped = true;
        let mut result = tree::drop_pages(pages, &open.state);
        if result.is_ok() && open.stored.is_some() {
            result = self.catalog.remove(pages, name).map(|_| ());
        }
        if result.is_err() {
            self.broken.get_or_insert("drop_tree");
        }
        self.by_name.remove(name);
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
        let framed: usize = self.annotations.iter().map(|bytes| bytes.len() + 4).sum();
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
        if let Some(index) = self.by_name.get(name) {
            return Ok(Some(TreeHandle { index: *index, txn: self.number }));
        }
        let dropped = self.open.iter().any(|open| open.dropped && open.name == name);
        if dropped || name.is_empty() {
            return Ok(None);
        }
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        let state = self.catalog.find(pages, name)?;
        Ok(state.map(|state| self.add_open(name, state, Some(state))))
    }

    fn add_open(&mut self, name: &[u8], state: TreeState, stored: Option<TreeState>) -> TreeHandle {
        let index = self.open.len();
        let hint = Hint::default();
        self.open.push(OpenTree { name: name.to_owned(), state, stored, hint, dropped: false });
        self.by_name.insert(name.to_owned(), index);
        TreeHandle { index, txn: self.number }
    }

    /// Undoes everything, as dropping the transaction does.
    pub fn rollback(self) {
        drop(self);
    }

    /// Makes all changes durable, then visible, at once. Returns the LSN of the record, or of the
    /// state that was read when nothing was changed.
    ///
    /// # Errors
    /// [`Error::Io`] when the journal cannot be written or synced: the database is poisoned, and
    /// whether the changes survive shows when it is reopened. [`Error::TransactionBroken`] when an
    /// operation failed half-way before. In any other case everything is undone.
    pub fn commit(mut self) -> Result<Lsn> {
        if let Some(operation) = self.broken {
            return Err(Error::TransactionBroken { operation });
        }
        self.write_catalog()?;
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        if pages.is_clean() && self.annotations.is_empty() {
            return Ok(self.reader.lsn());
        }
        let payload_len_max = pages.payload_len_max() + ANNOTATIONS_LEN_MAX as u64 * 2;
        if payload_len_max > RECORD_LEN_MAX {
            return Err(Error::Bound {
                option: "bytes of a transaction",
                max: RECORD_LEN_MAX,
                hint: "split the transaction",
            });
        }
        let (record, point) = self.seal()?;
        append(self.core, &record)?;
        publish(self.core, point);
        self.committed = true;
        let lsn = record.lsn;
        self.writer.builder.recycle(record);
        Ok(lsn)
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

    /// Turns the changes into a record and into versions that only readers of its LSN will see.
    fn seal(&mut self) -> Result<(SealedRecord, CommitPoint)> {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        let writer = &mut *self.writer;
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
            page_size: self.core.pager.page_size(),
            time_us: self.core.disk.now_us(),
            known_committed: self.core.watermarks.committed(),
            chain_before: writer.tail.chain,
        };
        let record = writer.builder.finish(&meta, self.core.bounds.compression);
        // Room in the journal is made before anything is handed over: on a full disk the
        // transaction fails, and the database goes on.
        if let Err(error) = self.core.journal.reserve(&[&record]) {
            if matches!(error, Error::Poisoned { .. }) || self.core.journal.is_poisoned() {
                self.core.poison("roll of the journal", &error);
            }
            pages.unseal(versions);
            return Err(error);
        }
        pages.sealed();
        let mut change = self.core.pager.directory.change(&self.core.pager.registry);
        for (id, version) in versions {
            change.push(id, lsn, version);
        }
        change.finish(&self.core.pager.pool, false);
        writer.tail = JournalPosition { lsn, chain: record.chain };
        let point = CommitPoint { position: writer.tail, page_count: pages.page_count() };
        Ok((record, point))
    }
}

/// Appends a record to the journal and waits until it is durable.
fn append(core: &Core, record: &SealedRecord) -> Result<()> {
    core.journal
        .append(&[record])
        .inspect_err(|error| core.poison("write of the journal", error))?;
    core.watermarks.set_appended(record.lsn);
    let synced =
        core.journal.sync().inspect_err(|error| core.poison("sync of the journal", error))?;
    core.watermarks.set_synced(synced);
    core.counters.record_bytes.fetch_add(record.bytes().len() as u64, Relaxed);
    Ok(())
}

/// Lets readers see a commit, and tells the checkpoint when there is work for it.
fn publish(core: &Core, point: CommitPoint) {
    core.commits.lock().push_back(point);
    core.watermarks.set_committed(point.position.lsn);
    core.pager.registry.publish(point.position.lsn);
    core.counters.commits.fetch_add(1, Relaxed);
    let pool = &core.pager.pool;
    let journal_bytes = core.journal.bytes_after(core.watermarks.checkpointed());
    if journal_bytes >= core.bounds.checkpoint_distance {
        core.signals.ask(Ask::Checkpoint);
    } else if pool.memory_used() > pool.limits().memory_max / 8 * 7 {
        core.signals.ask(Ask::WriteEarly);
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
        if let Some(pages) = self.pages.take() {
            if !self.committed && !pages.is_clean() {
                self.core.counters.rollbacks.fetch_add(1, Relaxed);
            }
            self.writer.space = pages.finish();
        }
        self.core.pager.registry.remove(&self.reader);
        leave(self.core);
    }
}

/// Notes that this thread writes to `core`.
fn enter(core: &Core) -> Result<()> {
    let address = std::ptr::from_ref(core).addr();
    let mut writing = WRITING.get();
    if writing.contains(&address) {
        return Err(Error::Reentrant);
    }
    let place = writing.iter_mut().find(|place| **place == 0).ok_or(Error::Bound {
        option: "write transactions of one thread",
        max: 4,
        hint: "end one of them first",
    })?;
    *place = address;
    WRITING.set(writing);
    Ok(())
}

fn leave(core: &Core) {
    let address = std::ptr::from_ref(core).addr();
    WRITING.set(WRITING.get().map(|place| if place == address { 0 } else { place }));
}

/// Whether this thread is inside a write transaction of `core`.
pub fn is_writing(core: &Core) -> bool {
    WRITING.get().contains(&std::ptr::from_ref(core).addr())
}
