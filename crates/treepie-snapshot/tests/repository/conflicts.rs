//! Two writers at once: the lock of one has run out, and it goes on all the same.

use std::{
    fmt,
    io::Read,
    sync::{Arc, Mutex},
};

use treepie_snapshot::{
    repository::{Description, Kind, Repository, RepositoryError},
    store::{Item, Name, Store, StoreError, StoreLock, StoreWriter},
};
use treepie_testkit::SimDisk;

use crate::harness::{self, Expected, add, content, description, sweep, verify};

type Result<T> = std::result::Result<T, StoreError>;

/// When the other writer gets in.
#[derive(Clone, Copy, Debug)]
enum Moment {
    BeforeTheManifest,
    BehindTheManifest,
}

/// A store whose lock keeps nobody out; another writer adds a stream once, around the first manifest.
struct Overtaken {
    inner: Arc<dyn Store>,
    moment: Moment,
    stream: Mutex<Option<Description>>,
}

impl fmt::Debug for Overtaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Overtaken").field(&self.moment).finish()
    }
}

#[derive(Debug)]
struct NoLock;

impl StoreLock for NoLock {
    fn renew(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Overtaken {
    fn overtake(&self) {
        let Some(stream) = self.stream.lock().expect("nobody panics").take() else { return };
        let other = Repository::open(Arc::clone(&self.inner)).expect("it opens");
        let mut writer = other.writer("the other").expect("the lock is free");
        add(&mut writer, &stream, &content(&stream)).expect("the other one is faster");
    }
}

impl Store for Overtaken {
    fn place(&self) -> String {
        self.inner.place()
    }

    fn create(&self, name: &Name) -> Result<Box<dyn StoreWriter>> {
        self.inner.create(name)
    }

    fn put_if_absent(&self, name: &Name, bytes: &[u8]) -> Result<bool> {
        if matches!(self.moment, Moment::BeforeTheManifest) {
            self.overtake();
        }
        let is_written = self.inner.put_if_absent(name, bytes);
        if matches!(self.moment, Moment::BehindTheManifest) {
            self.overtake();
        }
        is_written
    }

    fn open(&self, name: &Name, offset: u64) -> Result<Box<dyn Read + Send>> {
        self.inner.open(name, offset)
    }

    fn len(&self, name: &Name) -> Result<Option<u64>> {
        self.inner.len(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<Item>> {
        self.inner.list(folder)
    }

    fn remove(&self, name: &Name) -> Result<()> {
        self.inner.remove(name)
    }

    fn lock(&self, _purpose: &str) -> Result<Box<dyn StoreLock>> {
        Ok(Box::new(NoLock))
    }

    fn now_us(&self) -> u64 {
        self.inner.now_us()
    }

    fn random(&self) -> Result<[u8; 16]> {
        self.inner.random()
    }
}

/// A repository with one stream after two writers met; what is in it, and the writer that lost.
fn meet(
    store: &Arc<dyn Store>,
    moment: Moment,
) -> (Repository, treepie_snapshot::repository::RepositoryWriter) {
    Repository::open_or_create(Arc::clone(store)).expect("a repository begins");
    let (mine, other) = (description(Kind::Full, 0, 10), description(Kind::Full, 0, 20));
    let overtaken = Overtaken { inner: Arc::clone(store), moment, stream: Mutex::new(Some(other)) };
    let slow = Repository::open(Arc::new(overtaken)).expect("it opens");
    let mut writer = slow.writer("a slow one").expect("nothing keeps it out");
    let error = add(&mut writer, &mine, &content(&mine)).expect_err("it was overtaken");
    assert!(matches!(error, RepositoryError::Conflict { .. }), "{moment:?}: {error}");
    (Repository::open(Arc::clone(store)).expect("it opens"), writer)
}

/// By last LSN.
fn last_lsns(repository: &Repository) -> Vec<u64> {
    let entries = &repository.manifest().entries;
    entries.iter().map(|entry| entry.stream.last.lsn.0).collect()
}

fn is_whole(repository: &Repository) -> std::result::Result<(), String> {
    let entries = &repository.manifest().entries;
    let may: Expected = entries.iter().map(|e| (e.file.to_string(), content(&e.stream))).collect();
    verify(repository, &may, &may)
}

#[test]
fn stream_that_another_writer_has_built_on_survives_the_conflict() {
    let store = harness::store(&SimDisk::new(61));
    let (repository, mut writer) = meet(&store, Moment::BehindTheManifest);
    assert_eq!(last_lsns(&repository), [10, 20], "the faster one went on from what names it");
    is_whole(&repository).expect("every entry has its file");
    let next = description(Kind::Increment, 20, 30);
    add(&mut writer, &next, &content(&next)).expect("the slow one sees what is there, and goes on");
    let repository = Repository::open(Arc::clone(&store)).expect("it opens");
    assert_eq!(last_lsns(&repository), [10, 20, 30]);
    is_whole(&repository).expect("every entry has its file");
}

#[test]
fn stream_that_lost_a_conflict_is_an_orphan_that_a_prune_removes() {
    let store = harness::store(&SimDisk::new(62));
    let (repository, mut writer) = meet(&store, Moment::BeforeTheManifest);
    assert_eq!(last_lsns(&repository), [20]);
    is_whole(&repository).expect("every entry has its file");
    assert_eq!(repository.files().expect("a list").orphans.len(), 1);
    let again = description(Kind::Full, 0, 10);
    add(&mut writer, &again, &content(&again)).expect("the second time it is in");
    drop(writer);
    assert_eq!(sweep(&store).expect("the orphan goes"), 1);
    let repository = Repository::open(store).expect("it opens");
    assert_eq!(last_lsns(&repository).len(), 2);
    is_whole(&repository).expect("every entry has its file");
}
