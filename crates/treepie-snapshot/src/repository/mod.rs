//! STREAMS <-> FILES: where streams are kept, found again, and given up.
//!
//! A repository is a [`Store`] with these folders:
//!
//! | Folder | Content |
//! |---|---|
//! | `streams` | The streams, one a file, never changed (`naming.rs`) |
//! | `manifest` | Which streams there are, and where each begins and ends (`manifest.rs`); what was verified (`watermark.rs`) |
//! | `lease` | Who may write, on stores without locks (`store/lease.rs`) |
//!
//! The order of writing is what makes crashes harmless. A stream is complete and durable before the
//! manifest names it, and no manifest names it any more before it is removed. So a file without an
//! entry is an *orphan*: what a crash left, cleared away by a later prune. An entry without a
//! file is damage, and is told.
//!
//! One writer at a time: [`Repository::writer`] takes the lock. Readers take none. A stream that is
//! pruned under a reader gives it [`RepositoryError::FileMissing`].
//!
//! What is in a stream is no concern of this module: it keeps bytes, and what a [`Description`] says
//! of them.

pub mod archive;
mod base;
mod chains;
mod entry;
mod error;
mod listing;
mod manifest;
mod naming;
mod plan;
#[cfg(test)]
mod properties;
mod prune;
mod rebuild;
mod retention;
mod squash;
#[cfg(test)]
pub(crate) mod testing;
mod watermark;
mod writer;

use std::{collections::BTreeMap, io::Read, sync::Arc};

use manifest::Loaded;

use crate::store::{Name, Store, StoreError};

pub use archive::{ArchivePolicy, ArchiveStart, Cutter, archive_start};
pub use entry::{Description, Entry, Kind, Position};
pub use error::RepositoryError;
pub use listing::{Listing, RecordsRun, SnapshotInfo};
pub use manifest::{ENTRIES_MAX, LINEAGES_MAX, Manifest};
pub use naming::FOLDER as STREAMS_FOLDER;
pub use plan::{Branch, Hole, Plan, Step, Target, Until};
pub use prune::{GRACE_US, Orphan, PrunePlan, Pruned, Removal};
pub use rebuild::{Rebuilt, StreamFile};
pub use retention::{Keep, Kept, Retention};
pub use squash::SquashPlan;
pub use watermark::Watermark;
pub use writer::{NewStream, RepositoryWriter};

/// A repository, as it was when it was opened or refreshed.
#[derive(Clone, Debug)]
pub struct Repository {
    store: Arc<dyn Store>,
    loaded: Loaded,
}

/// How the files in a repository compare with its manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesReport {
    /// Entries whose file is not there.
    pub missing: Vec<Entry>,
    /// Entries whose file has another length, and which.
    pub wrong_len: Vec<(Entry, u64)>,
    /// Files of streams without an entry, and what was never finished.
    pub orphans: Vec<Orphan>,
}

impl FilesReport {
    /// Whether every entry has its file. Orphans are no damage.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.missing.is_empty() && self.wrong_len.is_empty()
    }

    /// The files that an entry has and that cannot be read as they should.
    fn absent(&self) -> Vec<Name> {
        let wrong = self.wrong_len.iter().map(|(entry, _)| entry);
        self.missing.iter().chain(wrong).map(|entry| entry.file.clone()).collect()
    }
}

impl Repository {
    /// Opens a repository that is there.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`]; a manifest that is newer, or none of which can be read; what
    /// the store says.
    pub fn open(store: Arc<dyn Store>) -> Result<Repository, RepositoryError> {
        match manifest::load(&*store)? {
            Some(loaded) => Ok(Repository { store, loaded }),
            None => Err(RepositoryError::NotFound { place: store.place() }),
        }
    }

    /// Opens a repository, and creates it if there is none.
    ///
    /// # Errors
    /// As [`Repository::open`], and [`StoreError::Locked`] if somebody else is creating it.
    pub fn open_or_create(store: Arc<dyn Store>) -> Result<Repository, RepositoryError> {
        if let Some(loaded) = manifest::load(&*store)? {
            return Ok(Repository { store, loaded });
        }
        let _lock = store.lock("create")?;
        if manifest::load(&*store)?.is_none() {
            let written_us = store.now_us();
            let first = Manifest { number: 1, written_us, ..Manifest::default() };
            manifest::save(&*store, &first)?;
        }
        Repository::open(Arc::clone(&store))
    }

    /// Reads the manifest again.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn refresh(&mut self) -> Result<(), RepositoryError> {
        *self = Repository::open(Arc::clone(&self.store))?;
        Ok(())
    }

    /// Where its files are.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What it has.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.loaded.manifest
    }

    /// The newest manifest, and what is wrong with it, if it cannot be read. What is here is then the
    /// one before it, and nothing is written until [`Repository::rebuild`].
    #[must_use]
    pub fn damage(&self) -> Option<(&str, &str)> {
        self.loaded.damaged.as_ref().map(|(file, what)| (file.as_str(), what.as_str()))
    }

    /// Takes the lock to write, and reads the manifest again.
    ///
    /// # Errors
    /// [`StoreError::Locked`]; [`RepositoryError::ManifestDamaged`]; what the store says.
    pub fn writer(&self, purpose: &str) -> Result<RepositoryWriter, RepositoryError> {
        RepositoryWriter::begin(Arc::clone(&self.store), purpose)
    }

    /// Compares the manifest with the files that are there.
    ///
    /// # Errors
    /// What the store says.
    pub fn files(&self) -> Result<FilesReport, RepositoryError> {
        files_report(&*self.store, self.manifest())
    }

    /// Plans a restore. Without a branch, the one is meant whose newest stream was made last.
    ///
    /// # Errors
    /// [`RepositoryError::Hole`] with what is missing and what can be restored instead;
    /// [`RepositoryError::Empty`]; a branch that is not there; what the store says.
    pub fn plan(&self, target: Target, branch: Option<Branch>) -> Result<Plan, RepositoryError> {
        let report = self.files()?;
        let usable = usable(self.manifest(), &report);
        plan::plan(&usable, target, branch, &self.store.place(), report.absent())
    }

    /// Reads the file of an entry from `offset` on.
    ///
    /// # Errors
    /// [`RepositoryError::FileMissing`] if it is not there, or not any more; what the store says.
    pub fn open_stream(
        &self,
        entry: &Entry,
        offset: u64,
    ) -> Result<Box<dyn Read + Send>, RepositoryError> {
        match self.store.open(&entry.file, offset) {
            Ok(reader) => Ok(reader),
            Err(StoreError::NotFound { name, place }) => {
                Err(RepositoryError::FileMissing { place, file: name })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What a policy would remove at a time, and why; nothing is changed.
    ///
    /// `grace_us` is how old a file without an entry must be; [`GRACE_US`] is a day.
    ///
    /// # Errors
    /// [`RepositoryError::EmptyPolicy`]; what the store says.
    pub fn prune_plan(
        &self,
        policy: &Retention,
        now_us: u64,
        grace_us: u64,
    ) -> Result<PrunePlan, RepositoryError> {
        let report = self.files()?;
        prune::plan(self.manifest(), &report, policy, now_us, grace_us)
    }

    /// Which streams could become one full stream; none if nothing would be gained.
    ///
    /// # Errors
    /// A branch that is not there; what the store says.
    pub fn squash_plan(
        &self,
        branch: Option<Branch>,
    ) -> Result<Option<SquashPlan>, RepositoryError> {
        let report = self.files()?;
        squash::squash_plan(&usable(self.manifest(), &report), branch)
    }

    /// What people want to see: snapshots, and runs of records between them.
    ///
    /// # Errors
    /// What the store says.
    pub fn listing(&self) -> Result<Listing, RepositoryError> {
        Ok(listing::listing(self.manifest(), &self.files()?))
    }

    /// Makes a new manifest of the streams themselves. `describe` reads one of them; what it
    /// cannot describe is left out, and told.
    ///
    /// # Errors
    /// [`StoreError::Locked`]; what the store says.
    pub fn rebuild(
        store: Arc<dyn Store>,
        describe: impl FnMut(&StreamFile<'_>) -> Result<Description, String>,
    ) -> Result<Rebuilt, RepositoryError> {
        rebuild::rebuild(store, describe)
    }
}

/// The entries whose files are as they should be.
fn usable<'m>(manifest: &'m Manifest, report: &FilesReport) -> Vec<&'m Entry> {
    let absent: std::collections::BTreeSet<Name> = report.absent().into_iter().collect();
    manifest.entries.iter().filter(|entry| !absent.contains(&entry.file)).collect()
}

fn files_report(store: &dyn Store, manifest: &Manifest) -> Result<FilesReport, RepositoryError> {
    let mut found = BTreeMap::new();
    for item in store.list(naming::FOLDER)? {
        found.insert(item.name.clone(), item);
    }
    let mut report = FilesReport::default();
    for entry in &manifest.entries {
        match found.remove(&entry.file) {
            None => report.missing.push(entry.clone()),
            Some(item) if item.bytes != entry.bytes => {
                report.wrong_len.push((entry.clone(), item.bytes));
            }
            Some(_) => {}
        }
    }
    report.orphans = found.into_values().filter_map(Orphan::of).collect();
    for folder in [manifest::FOLDER, crate::store::lease::FOLDER] {
        let items = store.list(folder)?.into_iter().filter_map(Orphan::of);
        report.orphans.extend(items.filter(|orphan| orphan.is_temporary));
    }
    Ok(report)
}
