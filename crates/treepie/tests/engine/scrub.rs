//! Scrubs of whole databases, with threads and a disk that tears what is being written. What they find of
//! single bytes is in `src/scrub/tests.rs`.

use std::{
    io,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use treepie::{
    Database, ScrubReport,
    disk::{Disk, DiskFile, DiskLock, DiskMap, LockError, OpenMode, RealDisk, ScratchMap},
};
use treepie_testkit::{Call, Fault, Rng, SimDisk, tally};

use crate::harness::{DIR, file_options, folder, insert, options, write};

const SECTOR: usize = 512;

/// The machine's disk, but a write takes effect sector by sector, and others run in between.
#[derive(Debug)]
struct TearingDisk;

#[derive(Debug)]
struct TearingFile(Arc<dyn DiskFile>);

impl Disk for TearingDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(TearingFile(RealDisk.open(path, mode)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        RealDisk.lock(path)
    }
    fn scratch(&self, dir: &Path, len: usize) -> io::Result<Box<dyn ScratchMap>> {
        RealDisk.scratch(dir, len)
    }
    fn now_us(&self) -> u64 {
        RealDisk.now_us()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        RealDisk.random()
    }
}

impl DiskFile for TearingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        for (number, sector) in buf.chunks(SECTOR).enumerate() {
            self.0.write_at(offset + (number * SECTOR) as u64, sector)?;
            if number % 3 == 0 {
                thread::yield_now();
            }
        }
        Ok(())
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    /// Nothing here depends on what a power cut leaves.
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.start_writeback(offset, len)
    }
    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        self.0.map(reserve)
    }
}

fn scrub(db: &Database) -> ScrubReport {
    let report = db.scrub(None, |_| ControlFlow::Continue(())).expect("a scrub");
    assert!(report.is_complete);
    report
}

/// Short and long runs, leaves and whole trees come and go.
fn churn(db: &Database, rng: &mut Rng) {
    let changed = db.write(|tx| {
        for _ in 0..1 + rng.below(4) {
            let key = format!("key {}", rng.below(40));
            let (kind, len) = (rng.below(12), rng.below(100) as usize);
            let tree = if kind < 6 { "a" } else { "b" };
            match kind {
                0 | 6 => drop(tx.tree(tree)?.remove(&key)?),
                1 | 7 => drop(tx.tree(tree)?.insert(&key, vec![kind as u8; len])?),
                2 | 8 => drop(tx.tree(tree)?.insert(&key, vec![kind as u8; 6_000 * len])?),
                3 if rng.chance(1, 20) => drop(tx.drop_tree(tree)?),
                _ => drop(tx.tree(tree)?.insert(&key, vec![kind as u8; 300 * len])?),
            }
        }
        Ok(())
    });
    changed.expect("a commit");
}

#[test]
fn scrub_beside_writers_and_checkpoints_takes_nothing_for_damage() {
    const COMMITS: u64 = 150;
    let dir = folder();
    let options = file_options().versions_memory(1 << 20).disk(Arc::new(TearingDisk));
    let db = options.checkpoint_distance(1 << 20).open(dir.path().join("db")).expect("it opens");
    let is_done = AtomicBool::new(false);
    let (mut pages, mut records) = (0, 0);
    thread::scope(|scope| {
        for seed in [1, 2] {
            let (db, is_done) = (&db, &is_done);
            scope.spawn(move || {
                let mut rng = Rng::new(seed);
                while !is_done.load(SeqCst) {
                    churn(db, &mut rng);
                    if rng.chance(1, 10) {
                        db.checkpoint().expect("a checkpoint");
                    }
                }
            });
        }
        while db.stats().commits < COMMITS || db.stats().checkpoints < 8 {
            let report = scrub(&db);
            (pages, records) = (pages + report.pages_verified, records + report.records_verified);
            if !report.damage.is_empty() {
                is_done.store(true, SeqCst);
            }
            assert_eq!(report.damage, []);
        }
        is_done.store(true, SeqCst);
    });
    let stats = db.stats();
    assert!(stats.scrubs > 10 && pages > 1_000, "{stats:?}");
    assert_eq!(stats.damage_found, 0);
    assert!(db.check().expect("a check").is_clean());
    let (pages, records) = (tally::thousands(pages), tally::thousands(records));
    let scrubs = stats.scrubs;
    let counts = format!("{scrubs} beside writers, {pages} pages, {records} records, no alarm");
    tally::note(5, "bit rot: scrub", &counts);
}

#[test]
fn scrub_in_the_background_finds_damage_that_nobody_reads() {
    let dir = folder();
    let path = dir.path().join("db");
    let db = file_options().open(&path).expect("it opens");
    write(&db, &[insert("t", "k", &[7; 3000])]).expect("a commit");
    let root = db.read().expect("a snapshot").trees().expect("trees")[1].root;
    db.close().expect("it closes");
    let options = file_options().scrub_interval(Some(Duration::from_millis(1)));
    let db = options.scrub_rate(1 << 30).open(&path).expect("it opens");
    let data = std::fs::File::options().write(true).open(path.join("data")).expect("it is there");
    let offset = u64::from(root.0) * 4096;
    std::os::unix::fs::FileExt::write_all_at(&data, b"rot", offset + 2000).expect("a write");
    let mut looks = 0_u64;
    while db.damage().is_empty() {
        thread::yield_now();
        looks += 1;
        assert!(looks < 1 << 30, "no scrub found it");
    }
    let damage = db.damage();
    assert_eq!((damage[0].offset, damage[0].tree_name.as_deref()), (offset, Some(&b"t"[..])));
    assert!(damage[0].found_us > 0);
    let scrubs = db.stats().scrubs;
    while db.stats().scrubs < scrubs + 3 {
        thread::yield_now();
    }
    assert_eq!((db.damage().len(), db.stats().damage_found), (1, 1), "each place once");
    db.close().expect("it closes");
}

#[test]
fn slow_scrub_does_not_keep_a_database_from_closing() {
    let dir = folder();
    let path = dir.path().join("db");
    let db = file_options().open(&path).expect("it opens");
    for number in 0..20 {
        write(&db, &[insert("t", &format!("k {number}"), &[7; 90_000])]).expect("a commit");
    }
    db.close().expect("it closes");
    // At 64 KiB a second the first slice alone takes four seconds.
    let options = file_options().scrub_interval(Some(Duration::from_millis(1)));
    let db = options.scrub_rate(64 << 10).open(&path).expect("it opens");
    while db.stats().readers > 0 || db.read().is_err() {
        thread::yield_now();
    }
    assert_eq!(db.stats().scrubs, 0);
    let begin = std::time::Instant::now();
    db.close().expect("it closes");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn scrub_ends_when_it_is_told_to_and_says_so() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    for number in 0..20 {
        write(&db, &[insert("t", &format!("k {number}"), &[7; 60_000])]).expect("a commit");
    }
    db.checkpoint().expect("a checkpoint");
    let mut asked = 0;
    let report = db.scrub(None, |progress| {
        assert!(progress.bytes_done <= progress.bytes_total);
        asked += 1;
        if asked == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = report.expect("no error");
    assert_eq!((report.is_complete, asked, db.stats().scrubs), (false, 3, 0));
    let whole = scrub(&db);
    assert!(whole.pages_verified > report.pages_verified && whole.bytes_read > report.bytes_read);
}

/// Writes go on meanwhile: not a reader is left, and nothing is poisoned.
#[test]
fn what_the_disk_does_not_read_is_damage_and_no_error() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    for number in 0..20 {
        write(&db, &[insert("t", &format!("k {number}"), &[7; 9_000])]).expect("a commit");
    }
    db.checkpoint().expect("a checkpoint");
    assert_eq!(scrub(&db).damage, []);
    for file in ["data", "journal"] {
        disk.fail(Fault::nth(1).of(Call::Read).on(file).forever());
        let report = scrub(&db);
        disk.heal();
        let told = |words: &str| report.damage.iter().any(|item| item.what.contains(words));
        assert!(told("cannot be read") || told("cannot read"), "{file}: {:?}", report.damage);
        assert!(report.damage.iter().all(|item| item.file.starts_with(Path::new(DIR).join(file))));
        assert_eq!(scrub(&db).damage, []);
    }
    write(&db, &[insert("t", "more", b"")]).expect("writes go on");
    assert_eq!((db.stats().readers, db.stats().poisoned_by), (0, None));
}
