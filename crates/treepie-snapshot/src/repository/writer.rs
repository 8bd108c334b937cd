//! Changing a repository, under its lock.

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Write},
    sync::Arc,
};

use treepie::ids::Lsn;

use super::{
    Description, Entry, Kind, Manifest, PrunePlan, Pruned, RepositoryError,
    entry::hex,
    manifest::{self, Loaded},
    naming,
};
use crate::store::{Name, Store, StoreError, StoreLock, StoreWriter};

/// A repository that is locked for writing. Dropping it gives the lock back.
#[derive(Debug)]
pub struct RepositoryWriter {
    store: Arc<dyn Store>,
    lock: Box<dyn StoreLock>,
    manifest: Manifest,
    /// A manifest was written, and whether it is there is not known.
    is_uncertain: bool,
}

/// A stream that is being written to a repository. Nothing of it is to be seen before
/// [`RepositoryWriter::add`]; dropping it gives it up.
pub struct NewStream {
    id: String,
    file: Name,
    kind: Kind,
    writer: Box<dyn StoreWriter>,
}

impl NewStream {
    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> &Name {
        &self.file
    }

    /// Begins a stream; the lock is not needed before it is added.
    pub(super) fn begin(
        store: &dyn Store,
        kind: Kind,
        base: Lsn,
        last: Lsn,
    ) -> Result<NewStream, RepositoryError> {
        let random = store.random()?;
        let id = hex(random.first_chunk::<8>().expect("16 bytes begin with 8"));
        let file = naming::name_of(kind, base, last, store.now_us(), &id);
        let writer = store.create(&file)?;
        Ok(NewStream { id, file, kind, writer })
    }

    /// Gives it up.
    pub fn abort(self) {
        self.writer.abort();
    }
}

impl fmt::Debug for NewStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewStream").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Write for NewStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl RepositoryWriter {
    pub(super) fn begin(
        store: Arc<dyn Store>,
        purpose: &str,
    ) -> Result<RepositoryWriter, RepositoryError> {
        let lock = store.lock(purpose)?;
        let manifest = load_whole(&*store)?;
        Ok(RepositoryWriter { store, lock, manifest, is_uncertain: false })
    }

    /// What the repository has.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where its files are.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Says that this writer is still at work. To be called now and then while a long stream is being
    /// written, at least every two minutes.
    ///
    /// # Errors
    /// [`StoreError::LockLost`]: somebody else writes now. Give up what was begun.
    pub fn renew(&mut self) -> Result<(), RepositoryError> {
        Ok(self.lock.renew()?)
    }

    /// Begins a stream. `base` is the LSN that it begins after, `last` the one where it ends, as far as
    /// they are known: they are for its name only.
    ///
    /// # Errors
    /// What the store says.
    pub fn create(
        &mut self,
        kind: Kind,
        base: Lsn,
        last: Lsn,
    ) -> Result<NewStream, RepositoryError> {
        self.lock.renew()?;
        NewStream::begin(&*self.store, kind, base, last)
    }

    /// Finishes a stream and enters it into the manifest. When it has returned `Ok`, both are durable.
    ///
    /// # Errors
    /// A stream that does not belong here: of another database, of another history of the same lineage,
    /// an increment without its base. Nothing of it stays then. What the store says, and
    /// [`RepositoryError::Conflict`] where another writer was at work too: then the stream is in the
    /// repository as a whole, or not at all.
    pub fn add(
        &mut self,
        new: NewStream,
        description: Description,
    ) -> Result<Entry, RepositoryError> {
        self.settle()?;
        let NewStream { id, file, kind, writer } = new;
        let mut entry = Entry { id, file, bytes: 0, stream: description };
        let mut next = self.manifest.clone();
        let fits = if entry.stream.kind == kind {
            self.check_base(&entry.stream).and_then(|()| next.add(entry.clone()))
        } else {
            Err(RepositoryError::Description { what: "it is of another kind than was begun" })
        };
        if let Err(error) = fits {
            writer.abort();
            return Err(error);
        }
        entry.bytes = writer.finish()?;
        let last = next.entries.last_mut().expect("it was added");
        last.bytes = entry.bytes;
        // Whatever came in between, the file stays: whoever was faster may have written on from a manifest
        // that names it already. If none does, it is an orphan.
        self.save(next).map(|()| entry)
    }

    /// An increment must build on something that is here.
    fn check_base(&self, stream: &Description) -> Result<(), RepositoryError> {
        let at = (stream.lineage, stream.base);
        let is_there = self.manifest.entries.iter().any(|entry| entry.end() == at);
        if stream.kind == Kind::Increment && !is_there {
            return Err(RepositoryError::NoBase { base: stream.base.lsn });
        }
        Ok(())
    }

    /// Carries a plan out: first the manifest, then the files. What a crash leaves are orphans.
    ///
    /// # Errors
    /// [`RepositoryError::StalePlan`] if the repository has changed since it was planned; what the store
    /// says. Files that cannot be removed are no error: they are in what is returned.
    pub fn prune(&mut self, plan: &PrunePlan) -> Result<Pruned, RepositoryError> {
        self.settle()?;
        if plan.number != self.manifest.number {
            return Err(RepositoryError::StalePlan);
        }
        let ids: BTreeSet<&str> =
            plan.remove.iter().map(|removal| removal.entry.id.as_str()).collect();
        let mut next = self.manifest.clone();
        next.entries.retain(|entry| !ids.contains(entry.id.as_str()));
        if next.entries.len() + ids.len() != self.manifest.entries.len() {
            return Err(RepositoryError::StalePlan);
        }
        if !ids.is_empty() {
            self.save(next)?;
        }
        let entries = plan.remove.iter().map(|removal| (&removal.entry.file, removal.entry.bytes));
        let orphans = plan.orphans.iter().map(|orphan| (&orphan.file, orphan.bytes));
        let mut pruned = Pruned::default();
        for (file, bytes) in entries.chain(orphans) {
            self.lock.renew()?;
            match self.store.remove(file) {
                Ok(()) => {
                    pruned.files += 1;
                    pruned.bytes = pruned.bytes.saturating_add(bytes);
                }
                Err(error) => pruned.failed.push((file.clone(), error.to_string())),
            }
        }
        Ok(pruned)
    }

    /// Takes entries and their files away, whatever builds on them: for what is damaged beyond use.
    ///
    /// # Errors
    /// As [`RepositoryWriter::prune`]; an id that is not there makes the plan stale.
    pub fn forget(&mut self, ids: &[&str]) -> Result<Pruned, RepositoryError> {
        self.settle()?;
        let plan = PrunePlan::forget(&self.manifest, ids).ok_or(RepositoryError::StalePlan)?;
        self.prune(&plan)
    }

    /// Writes the next manifest.
    fn save(&mut self, mut next: Manifest) -> Result<(), RepositoryError> {
        self.lock.renew()?;
        next.number = self.manifest.number.checked_add(1).ok_or(RepositoryError::Bound {
            what: "the number of the manifest",
            max: u64::MAX,
            hint: "begin a new repository",
        })?;
        next.written_us = self.store.now_us();
        let saved = manifest::save(&*self.store, &next);
        match &saved {
            Ok(()) => self.manifest = next,
            Err(_) => self.is_uncertain = true,
        }
        saved
    }

    /// Finds out what is there after a manifest was not surely written.
    fn settle(&mut self) -> Result<(), RepositoryError> {
        if self.is_uncertain {
            self.manifest = load_whole(&*self.store)?;
            self.is_uncertain = false;
        }
        Ok(())
    }
}

/// The newest manifest, which must not be damaged: whoever writes on from an older one forgets streams.
fn load_whole(store: &dyn Store) -> Result<Manifest, RepositoryError> {
    match manifest::load(store)? {
        Some(Loaded { manifest, damaged: None }) => Ok(manifest),
        Some(Loaded { damaged: Some((file, what)), .. }) => {
            Err(RepositoryError::ManifestDamaged { place: store.place(), file, what })
        }
        None => Err(RepositoryError::NotFound { place: store.place() }),
    }
}

impl RepositoryError {
    /// Whether another writer is, or was, at work: trying again later may help.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        matches!(
            self,
            RepositoryError::Conflict { .. }
                | RepositoryError::StalePlan
                | RepositoryError::Store(StoreError::Locked { .. } | StoreError::LockLost { .. })
        )
    }
}
