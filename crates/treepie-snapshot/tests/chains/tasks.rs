//! What backups, archives, squashes and verifications of a repository promise to each other.

use std::{
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use treepie::{Base, Database, Durability, ids::Lsn};
use treepie_snapshot::{
    ArchiveOptions, Archiver, BackupOptions, CancelToken, Control, Error, Extent, ReadOptions,
    RestoreOptions, StreamOptions, backup, keep,
    repository::{ArchivePolicy, Kind, Repository, Target, Watermark},
    restore_plan, squash,
    store::{Item, LocalStore, Name, Store, StoreError, StoreLock, StoreWriter},
    verify_repository,
};
use treepie_testkit::{Rng, SimDisk};

use crate::source::options;

const DIR: &str = "/db";

fn open(disk: &SimDisk) -> Database {
    options(disk).create(true).journal_retention(64 << 20).open(DIR).expect("it opens")
}

/// Keeps no more of the journal than it needs itself.
fn open_forgetful(disk: &SimDisk) -> Database {
    options(disk).create(true).open(DIR).expect("it opens")
}

fn new_repository(disk: &SimDisk) -> Repository {
    let store = LocalStore::on(Arc::new(disk.clone()), "/backups");
    Repository::open_or_create(Arc::new(store)).expect("a new repository")
}

fn refreshed(repository: &Repository) -> Repository {
    let mut repository = repository.clone();
    repository.refresh().expect("it is there");
    repository
}

fn put(db: &Database, key: &str, value: &[u8]) {
    db.write(|tx| tx.tree("t")?.insert(key, value)).expect("a commit");
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

fn kept(db: &Database, repository: &Repository, extent: Extent) -> Option<Kind> {
    let backup = BackupOptions::new().stream(StreamOptions::new().threads(1));
    let kept = keep(db, repository, extent, &backup, Control::new()).expect("a backup");
    kept.map(|kept| kept.entry.stream.kind)
}

fn remove_file(place: &SimDisk, repository: &Repository, index: usize) {
    let file = refreshed(repository).manifest().entries[index].file.to_string();
    let disk: &dyn treepie::disk::Disk = place;
    disk.remove(&Path::new("/backups").join(file)).expect("it is there");
}

fn files_of(bytes_max: u64, age: Duration) -> ArchiveOptions {
    let age_max_us = u64::try_from(age.as_micros()).expect("it fits");
    let policy = ArchivePolicy { bytes_max, age_max_us };
    ArchiveOptions::new().policy(policy).stream(StreamOptions::new().threads(1))
}

/// The LSN where the archive ends.
fn archived(repository: &Repository) -> Lsn {
    let repository = refreshed(repository);
    let entries = repository.manifest().entries.iter();
    entries.map(|entry| entry.stream.last.lsn).max().unwrap_or_default()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let token = CancelToken::new();
    for _ in 0..60_000 {
        if done() {
            return;
        }
        token.wait(Duration::from_millis(1)).expect("nobody cancels it");
    }
    panic!("{what}: not in a minute");
}

#[test]
fn backup_builds_on_no_backup_that_cannot_be_restored() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let (db, repository) = (open(&disk), new_repository(&place));
    put(&db, "k", b"1");
    assert_eq!(kept(&db, &repository, Extent::Auto), Some(Kind::Full));
    put(&db, "k", b"2");
    assert_eq!(kept(&db, &repository, Extent::Auto), Some(Kind::Increment));
    assert_eq!(kept(&db, &repository, Extent::Auto), None);
    // Without the full one the increment is worth nothing, and so is one on it.
    remove_file(&place, &repository, 0);
    assert_eq!(kept(&db, &repository, Extent::Auto), Some(Kind::Full));
    put(&db, "k", b"3");
    assert_eq!(kept(&db, &repository, Extent::Auto), Some(Kind::Increment));
    assert!(refreshed(&repository).plan(Target::Latest, None).is_ok());
}

#[test]
fn backup_holds_commits_that_were_not_synced_before_it() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let db = options(&disk).create(true).durability(Durability::Memory);
    let db = db.open(DIR).expect("it opens");
    let repository = new_repository(&place);
    put(&db, "k", b"1");
    assert_eq!(kept(&db, &repository, Extent::Auto), Some(Kind::Full));
    put(&db, "k", b"2");
    assert_eq!(kept(&db, &repository, Extent::Auto), Some(Kind::Increment));
    assert_eq!(archived(&repository), db.read().expect("a snapshot").lsn());
}

#[test]
fn rolled_back_database_is_told_and_its_backups_never_mix_two_histories() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let db = open_forgetful(&disk);
    let repository = new_repository(&place);
    (0..20_u8).for_each(|n| put(&db, &format!("{n}"), &[0; 100]));
    db.close().expect("it closes");
    let rolled_back = disk.settled(3);
    let db = open_forgetful(&disk);
    (0..20_u8).for_each(|n| put(&db, &format!("{n}"), &[1; 100]));
    assert_eq!(kept(&db, &repository, Extent::Auto), Some(Kind::Full));
    drop(db);

    let db = open_forgetful(&rolled_back);
    put(&db, "0", &[2; 100]);
    for extent in [Extent::Auto, Extent::Increment] {
        let error = keep(&db, &repository, extent, &BackupOptions::new(), Control::new());
        let error = error.expect_err("the repository is ahead");
        assert!(matches!(error, Error::Behind { .. }), "{error}");
    }
    // Beyond the newest backup, and nothing knows the chain hash of its LSN any more.
    for n in 0..200_u64 {
        put(&db, &format!("later {n}"), &noise(n, 3000));
        db.checkpoint().expect("a checkpoint");
    }
    let increment =
        keep(&db, &repository, Extent::Increment, &BackupOptions::new(), Control::new());
    let error = increment.expect_err("it is another history's");
    assert!(matches!(error, Error::Engine(treepie::Error::Base { .. })), "{error}");
    assert_eq!(kept(&db, &repository, Extent::Auto), Some(Kind::Full));
    let target = SimDisk::new(4);
    let plan = refreshed(&repository).plan(Target::Latest, None).expect("it is there");
    let restore = RestoreOptions::new().engine(options(&target));
    restore_plan(&repository, &plan, "/restored", &restore, Control::new()).expect("restored");
    let restored = options(&target).open("/restored").expect("it opens");
    let snapshot = restored.read().expect("a snapshot");
    let tree = snapshot.tree("t").expect("it is there");
    assert_eq!(tree.get("0").expect("it reads"), Some(&[2; 100][..]));
    assert_eq!(tree.get("7").expect("it reads"), Some(&[0; 100][..]));
}

#[test]
fn archive_catches_up_with_more_than_a_file_whatever_its_age() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let (db, repository) = (open(&disk), new_repository(&place));
    put(&db, "k", b"1");
    kept(&db, &repository, Extent::Full);
    let fill = |from: u64| {
        (from..from + 100).for_each(|n| put(&db, &format!("{n}"), &noise(n, 1000)));
    };
    fill(0);
    let day = Duration::from_secs(86_400);
    let archiver = Archiver::begin(&db, &repository, &files_of(10_000, day), Control::new());
    let archiver = archiver.expect("it goes on behind the backup");
    let cancel = CancelToken::new();
    std::thread::scope(|scope| {
        let following = scope.spawn(|| archiver.follow(&cancel));
        // Less than a file may be left, which waits for its day.
        let is_near = || archived(&repository).0 + 12 >= db.durable_lsn().0;
        wait_until("what was there is archived", is_near);
        fill(1000);
        wait_until("what came at once is archived", is_near);
        cancel.cancel();
        following.join().expect("no panic").expect("an archive");
    });
    assert_eq!(archived(&repository), db.durable_lsn());
}

#[test]
fn archive_ends_with_what_was_committed_also_where_one_token_stops_all() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let (db, repository) = (open(&disk), new_repository(&place));
    put(&db, "k", b"1");
    kept(&db, &repository, Extent::Full);
    let cancel = CancelToken::new();
    let control = Control::new().cancel(&cancel);
    let archiver = Archiver::begin(&db, &repository, &ArchiveOptions::new(), control);
    let archiver = archiver.expect("it goes on behind the backup");
    put(&db, "k", b"2");
    cancel.cancel();
    // The repository is locked for a while, too.
    let lock = repository.writer("test").expect("nobody writes");
    let report = std::thread::scope(|scope| {
        let following = scope.spawn(|| archiver.follow(&cancel));
        drop(lock);
        following.join().expect("no panic").expect("an archive")
    });
    assert_eq!(report.records, 1);
    assert_eq!(archived(&repository), db.durable_lsn());
}

#[test]
fn archive_goes_on_while_a_backup_is_written() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let (db, repository) = (open(&disk), new_repository(&place));
    put(&db, "k", &noise(1, 300_000));
    kept(&db, &repository, Extent::Full);
    let stop = CancelToken::new();
    std::thread::scope(|scope| {
        // At this rate it would take years.
        let control = Control::new().rate(1).cancel(&stop);
        let slow = scope.spawn(|| {
            keep(&db, &repository, Extent::Full, &BackupOptions::new(), control).map(|_| ())
        });
        wait_until("the backup is being written", || !db.copies().is_empty());
        put(&db, "k", b"2");
        let options = files_of(10_000, Duration::ZERO);
        let report = treepie_snapshot::archive(&db, &repository, &options, Control::new());
        assert_eq!(report.expect("nobody has the lock").records, 1);
        assert!(!slow.is_finished());
        stop.cancel();
        let ended = slow.join().expect("no panic").expect_err("it was stopped");
        assert!(matches!(ended, Error::Cancelled), "{ended}");
    });
}

#[test]
fn increment_that_reads_everything_can_be_stopped_before_it_finds_a_change() {
    let disk = SimDisk::new(1);
    let db = open(&disk);
    put(&db, "k", &noise(1, 3_000_000));
    let (_, report) =
        backup(&db, io::sink(), &BackupOptions::new(), Control::new()).expect("a backup");
    let last = report.summary.last;
    db.close().expect("it closes");
    let without_map = || {
        let image = disk.settled(2);
        image.flip_bit(format!("{DIR}/changed").as_ref(), 100);
        open(&image)
    };
    let db = without_map();
    let base = Base { lineage: db.lineage(), lsn: last.lsn, chain: last.chain };
    let increment = BackupOptions::new().base(base);
    let cancel = CancelToken::new();
    cancel.cancel();
    let control = Control::new().rate(1).cancel(&cancel);
    let stopped = backup(&db, io::sink(), &increment, control);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    let db = without_map();
    let (read, seen) = std::sync::mpsc::channel();
    let control = Control::new().progress(move |progress| {
        read.send((progress.bytes_done, progress.bytes_total)).expect("somebody listens");
    });
    let (_, report) = backup(&db, io::sink(), &increment, control).expect("a backup");
    assert_eq!((report.is_from_map, report.summary.page_count), (false, 0));
    let (done, total) = seen.iter().last().expect("the end is told");
    assert!(done >= 3_000_000 && total == Some(done), "{done} of {total:?}");
}

#[cfg(feature = "encryption")]
#[test]
fn squash_of_encrypted_backups_is_never_plaintext() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let (db, repository) = (open(&disk), new_repository(&place));
    let key = treepie_snapshot::Key::new([7; 32]);
    let write = StreamOptions::new().threads(1).key(key.clone());
    for value in [b"1", b"2"] {
        put(&db, "k", value);
        let options = BackupOptions::new().stream(write.clone());
        keep(&db, &repository, Extent::Auto, &options, Control::new()).expect("a backup");
    }
    let read = ReadOptions::new().keys(key);
    let refused = squash(&repository, None, &read, &StreamOptions::new(), Control::new());
    let error = refused.expect_err("it has no key to write with");
    assert!(matches!(error, Error::Options { option: "key", .. }), "{error}");
    let squashed = squash(&repository, None, &read, &write, Control::new());
    let squashed = squashed.expect("it has a key").expect("there are two parts");
    assert!(squashed.entry.stream.key_id.is_some());
}

#[test]
fn backup_without_damaged_pages_says_so_and_nothing_builds_on_it() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let (db, repository) = (open(&disk), new_repository(&place));
    (0..100_u64).for_each(|n| put(&db, &format!("{n}"), &noise(n, 1000)));
    assert_eq!(kept(&db, &repository, Extent::Full), Some(Kind::Full));
    put(&db, "0", b"changed");
    db.close().expect("it closes");
    let damaged = disk.settled(3);
    let len = damaged.file_bytes(format!("{DIR}/data").as_ref()).expect("it is there").len() as u64;
    let page_size = 8192;
    for page in 8..(len / page_size).min(20) {
        damaged.flip_bit(format!("{DIR}/data").as_ref(), (page * page_size + 100) * 8);
    }
    let db = open(&damaged);
    let options = BackupOptions::new().skip_damage(true);
    let kept_one = keep(&db, &repository, Extent::Full, &options, Control::new());
    let kept_one = kept_one.expect("a backup").expect("there is something");
    assert!(kept_one.report.damage_count > 0);
    assert_eq!(kept_one.entry.stream.damage_count, kept_one.report.damage_count);
    let listing = refreshed(&repository).listing().expect("a list");
    let counts: Vec<u64> = listing.snapshots.iter().map(|info| info.damage_count).collect();
    assert_eq!(counts, [0, kept_one.report.damage_count]);
    let newest = refreshed(&repository).newest_base(&db.lineage()).expect("the store lists it");
    let first = refreshed(&repository).manifest().entries[0].stream.last;
    assert_eq!(newest, Some(first), "the whole one");
}

#[test]
fn verification_notes_what_it_has_read_when_it_is_stopped() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let (db, repository) = (open(&disk), new_repository(&place));
    for n in 0..3_u64 {
        put(&db, "k", &noise(n, 100_000));
        kept(&db, &repository, Extent::Full);
    }
    let repository = refreshed(&repository);
    let first = repository.manifest().entries[0].bytes;
    let cancel = CancelToken::new();
    let token = cancel.clone();
    // As slow as that it tells of every piece, and is stopped in the second stream.
    let control = Control::new().rate(1 << 20).cancel(&cancel).progress(move |progress| {
        if progress.bytes_done > first {
            token.cancel();
        }
    });
    let stopped = verify_repository(&repository, false, &ReadOptions::new(), control);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    let noted = Watermark::load(&**repository.store()).expect("it reads");
    let pending = noted.pending(repository.manifest(), false).len();
    assert!(pending == 1 || pending == 2, "{pending} of 3 are still to be read");
    let report = verify_repository(&repository, false, &ReadOptions::new(), Control::new());
    assert_eq!(report.expect("it goes on").known_count, 3 - pending);
}

/// A store that counts the streams that are being read at a time.
#[derive(Debug)]
struct Counting {
    store: LocalStore,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

struct Counted(Box<dyn Read + Send>, Arc<AtomicUsize>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, SeqCst);
    }
}

impl Store for Counting {
    fn place(&self) -> String {
        self.store.place()
    }

    fn create(&self, name: &Name) -> Result<Box<dyn StoreWriter>, StoreError> {
        self.store.create(name)
    }

    fn put_if_absent(&self, name: &Name, bytes: &[u8]) -> Result<bool, StoreError> {
        self.store.put_if_absent(name, bytes)
    }

    fn open(&self, name: &Name, offset: u64) -> Result<Box<dyn Read + Send>, StoreError> {
        let reader = self.store.open(name, offset)?;
        self.most.fetch_max(self.open.fetch_add(1, SeqCst) + 1, SeqCst);
        Ok(Box::new(Counted(reader, Arc::clone(&self.open))))
    }

    fn len(&self, name: &Name) -> Result<Option<u64>, StoreError> {
        self.store.len(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<Item>, StoreError> {
        self.store.list(folder)
    }

    fn remove(&self, name: &Name) -> Result<(), StoreError> {
        self.store.remove(name)
    }

    fn lock(&self, purpose: &str) -> Result<Box<dyn StoreLock>, StoreError> {
        self.store.lock(purpose)
    }

    fn now_us(&self) -> u64 {
        self.store.now_us()
    }

    fn random(&self) -> Result<[u8; 16], StoreError> {
        self.store.random()
    }
}

#[test]
fn squash_of_a_long_chain_reads_few_streams_at_a_time_and_restores_the_same_state() {
    let (disk, place) = (SimDisk::new(1), SimDisk::new(2));
    let most = Arc::new(AtomicUsize::new(0));
    let store = Counting {
        store: LocalStore::on(Arc::new(place), "/backups"),
        open: Arc::default(),
        most: Arc::clone(&most),
    };
    let repository = Repository::open_or_create(Arc::new(store)).expect("a new repository");
    let db = open(&disk);
    for n in 0..70_u64 {
        put(&db, &format!("{}", n % 20), &noise(n, 10_000));
        if n % 3 == 0 {
            db.write(|tx| tx.tree("t")?.remove(format!("{}", (n + 7) % 20))).expect("a commit");
        }
        kept(&db, &repository, Extent::Auto);
    }
    let (read, write) = (ReadOptions::new(), StreamOptions::new().threads(1));
    let squashed = squash(&repository, None, &read, &write, Control::new());
    let squashed = squashed.expect("it squashes").expect("there are parts");
    assert_eq!(squashed.parts.len(), 70);
    assert!(most.load(SeqCst) <= 8, "{} streams at a time", most.load(SeqCst));
    let ids: Vec<&str> = squashed.parts.iter().map(|part| part.id.as_str()).collect();
    repository.writer("test").expect("nobody writes").forget(&ids).expect("they are there");
    // The restore compares all used pages with those of the stream.
    let target = SimDisk::new(4);
    let plan = refreshed(&repository).plan(Target::Latest, None).expect("it is there");
    let restore = RestoreOptions::new().engine(options(&target));
    restore_plan(&repository, &plan, "/restored", &restore, Control::new()).expect("restored");
    let restored = options(&target).open("/restored").expect("it opens");
    let (restored, source) = (restored.read().expect("a snapshot"), db.read().expect("a snapshot"));
    let (restored, source) =
        (restored.tree("t").expect("it is there"), source.tree("t").expect("it is there"));
    assert_eq!(restored.len(), source.len());
    for entry in source.iter() {
        let (key, value) = entry.expect("it reads");
        assert_eq!(restored.get(key.to_vec()).expect("it reads"), Some(value));
    }
}

#[test]
fn file_that_is_written_for_days_is_as_old_as_its_last_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = LocalStore::new(dir.path().join("backups"));
    let begun = store.now_us();
    let repository = Repository::open_or_create(Arc::new(store)).expect("a new repository");
    let streams = dir.path().join("backups/streams");
    std::fs::create_dir_all(&streams).expect("a folder");
    let name = "tmp-20200101T000000Z-0000000000000001";
    std::fs::write(streams.join(name), b"still going on").expect("it is written");
    let orphans = repository.files().expect("the store lists it").orphans;
    // File systems count in milliseconds, some of them in seconds.
    assert!(orphans.len() == 1 && orphans[0].since_us + 2_000_000 > begun, "{orphans:?}");
}
