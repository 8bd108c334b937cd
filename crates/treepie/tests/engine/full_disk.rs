//! Real full disks: a file system of a few hundred KiB, and files that may not grow. Writes are
//! refused with an error that says so, and nothing else happens: no panic, no poison. Reads go on, and
//! deletes for as long as the journal's reserve suffices; once the disk has room, all writes do, with
//! everything that was acknowledged.
//!
//! The file system is mounted in a namespace of its own and goes with the process that filled it. Where
//! that is not allowed, the test says so and does nothing.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use treepie::{Database, Error, Options, Result};
use treepie_testkit::{Rng, mix, model::State, tally, workload::Op};

use crate::harness::{self, difference, file_options, folder, insert};

/// Folder of the file system; makes this binary the process that fills it.
const MOUNTED: &str = "TREEPIE_TEST_MOUNTED";
/// Folder of a database; makes this binary a process whose files may not grow.
const SHORT: &str = "TREEPIE_TEST_SHORT";
/// Sizes of full disks.
const SIZES: u64 = 50;
/// Lengths of files that may not grow.
const LENGTHS: u64 = 12;
/// There is room, in bytes.
const ROOM: u64 = 64 << 20;
/// Bytes that are kept for deletes: a segment.
const RESERVE: u64 = 64 << 10;
const ENOSPC: i32 = 28;
const EFBIG: i32 = 27;
/// How the child says that it cannot be what it should.
const UNABLE: i32 = 99;

fn options(seed: u64) -> Options {
    file_options()
        .checkpoint_distance(if seed.is_multiple_of(3) { 16 << 20 } else { 192 << 10 })
        .background_threads(seed.is_multiple_of(2))
}

/// What commit `number` does: new entries, small and large, and a few removals.
fn ops(seed: u64, number: u64) -> Vec<Op> {
    let mut rng = Rng::new(mix(seed, number));
    let mut ops = vec![insert("counts", "last", &number.to_be_bytes())];
    for index in 0..rng.range(1..4) {
        let len = *rng.pick(&[20, 500, 3_000, 12_000]);
        ops.push(insert("rows", &format!("{number:05}/{index}"), &rng.bytes(len)));
    }
    if rng.chance(1, 6) {
        ops.push(removal(rng.below(number) + 1));
    }
    ops
}

fn removal(number: u64) -> Op {
    harness::remove("rows", &format!("{number:05}/0"))
}

/// A database that is being filled, and what it has acknowledged.
struct Filled {
    seed: u64,
    state: State,
    count: u64,
}

impl Filled {
    fn new(seed: u64) -> Filled {
        Filled { seed, state: State::default(), count: 0 }
    }

    fn commit(&mut self, db: &Database, ops: &[Op]) -> Result<()> {
        harness::write(db, ops)?;
        ops.iter().for_each(|op| self.state.apply(op));
        Ok(())
    }

    /// Commits until an error ends it.
    fn fill(&mut self, db: &Database) -> Error {
        loop {
            if let Err(error) = self.commit(db, &ops(self.seed, self.count + 1)) {
                return error;
            }
            self.count += 1;
            assert!(self.count < 100_000, "the disk is never full");
        }
    }

    fn assert_same(&self, db: &Database) {
        let snapshot = db.read().expect("reads go on");
        let found = difference(&snapshot, &self.state).expect("reads go on");
        assert_eq!(found, None, "seed {}, after {} commits", self.seed, self.count);
        let report = db.check().expect("a check");
        assert!(report.is_clean(), "seed {}: {:?}", self.seed, report.problems);
    }

    /// Removes entries; returns how many removals were committed before the disk had no room for
    /// their records either. Each takes three blocks at most, the reserve has sixteen.
    fn delete(&mut self, db: &Database, number: i32) -> u64 {
        let reserve = db.report().expect("a report").journal.reserve_len;
        let (wanted, least) = (20.min(self.count), 5.min(self.count));
        for deleted in 0..wanted {
            if let Err(error) = self.commit(db, &[removal(deleted + 1)]) {
                assert_full(&error, number);
                let seed = self.seed;
                assert!(reserve < RESERVE || deleted >= least, "seed {seed}: {deleted} deletes");
                return deleted;
            }
        }
        wanted
    }
}

/// The error is that of the disk, and nothing is in doubt.
#[track_caller]
fn assert_full(error: &Error, number: i32) {
    let Error::Io { action, file, source } = error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(number), "{error}");
    assert!(!action.is_empty() && file.is_absolute(), "{error}");
}

/// What a child has counted. On a machine with one processor it stands behind the test's name.
fn told(said: &str) -> Option<&str> {
    said.lines().find_map(|line| line.split_once("full: ")).map(|(_, counts)| counts)
}

#[test]
fn a_full_file_system_refuses_writes_keeps_reads_and_goes_on_once_there_is_room() {
    let begin = Instant::now();
    let dir = folder();
    // As root, and as anyone who may have a namespace in which they are root.
    for namespace in ["-m", "-Urm"] {
        let child = Command::new("unshare")
            .args([namespace, "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs -o size=64k tmpfs \"$1\" || exit {UNABLE}\n\
                 exec \"$0\" --exact full_disk::process_that_fills_a_file_system --nocapture"
            ))
            .arg(env::current_exe().expect("this binary"))
            .arg(dir.path())
            .env(MOUNTED, dir.path())
            .output();
        let Ok(child) = child else { continue };
        let said = String::from_utf8_lossy(&child.stdout);
        if let Some(line) = told(&said) {
            assert!(child.status.success(), "{said}");
            let seconds = begin.elapsed().as_secs_f64();
            let counts = format!("{line} {seconds:.1} s");
            tally::note(10, "full disk, tmpfs", &counts);
            return;
        }
        let errors = String::from_utf8_lossy(&child.stderr);
        let is_unable = child.status.code() == Some(UNABLE) || errors.contains("unshare");
        assert!(is_unable, "the child failed: {said}{errors}");
    }
    tally::note(10, "full disk, tmpfs", "SKIPPED: no right to mount a file system here");
}

/// Does nothing unless it is the child of the test above.
#[test]
fn process_that_fills_a_file_system() {
    let Some(dir) = env::var_os(MOUNTED).map(PathBuf::from) else { return };
    let (mut commits, mut deletes, mut deleting, mut unopened) = (0, 0, 0, 0);
    for seed in 0..SIZES {
        // From too small for a database to more than its first checkpoints take.
        let filled = at_size(&dir, seed, (120 << 10) + seed * seed * 1200 / 4096 * 4096);
        commits += filled.0.count;
        deletes += filled.1;
        deleting += u64::from(filled.1 > 0);
        unopened += u64::from(filled.0.count == 0);
    }
    println!(
        "full: {SIZES} sizes, {unopened} of them too small to begin, {commits} commits, {deletes} \
         deletes on {deleting} full disks;"
    );
    assert!(commits > 500 && unopened < SIZES / 3, "{commits} commits, {unopened}");
}

fn resize(dir: &Path, bytes: u64) {
    let option = format!("remount,size={bytes}");
    let status = Command::new("mount").args(["-o", &option]).arg(dir).status();
    assert!(status.expect("mount is there").success(), "{bytes} bytes");
}

/// Fills a file system of so many bytes; returns what was acknowledged, and deletes on the full disk.
fn at_size(dir: &Path, seed: u64, bytes: u64) -> (Filled, u64) {
    resize(dir, bytes);
    let path = dir.join("db");
    let (mut filled, mut deletes) = (Filled::new(seed), 0);
    match options(seed).open(&path) {
        Err(error) => assert_full(&error, ENOSPC),
        Ok(db) => {
            let error = filled.fill(&db);
            assert_full(&error, ENOSPC);
            assert_eq!(db.stats().poisoned_by, None, "seed {seed}: {error}");
            filled.assert_same(&db);
            deletes = filled.delete(&db, ENOSPC);
            filled.assert_same(&db);
            if seed.is_multiple_of(5) {
                // Closing has no room for a checkpoint.
                drop(db);
                resize(dir, ROOM);
            } else {
                resize(dir, ROOM);
                let ops = [insert("rows", "with room", b"without reopening")];
                filled.commit(&db, &ops).expect("writes go on once there is room");
                db.close().expect("closing");
            }
        }
    }
    resize(dir, ROOM);
    let db = options(seed).open(&path).expect("it opens once there is room");
    filled.assert_same(&db);
    let ops = [insert("rows", "after", &[1; 30_000])];
    filled.commit(&db, &ops).expect("writes go on");
    filled.assert_same(&db);
    db.close().expect("closing");
    fs::remove_dir_all(&path).expect("the folder goes");
    (filled, deletes)
}

#[test]
fn files_that_may_not_grow_refuse_writes_and_keep_what_was_acknowledged() {
    let begin = Instant::now();
    let dir = folder();
    let mut commits = 0;
    for seed in 0..LENGTHS {
        let path = dir.path().join(format!("db {seed}"));
        // In units of 512 bytes. A signal that is ignored stays ignored across `exec`; by default
        // it would kill.
        let length = 320 + seed * 60;
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "trap '' XFSZ; ulimit -f {length} || exit {UNABLE}\n\
                 exec \"$0\" --exact full_disk::process_whose_files_may_not_grow --nocapture"
            ))
            .arg(env::current_exe().expect("this binary"))
            .env(SHORT, &path)
            .env("TREEPIE_TEST_SHORT_SEED", seed.to_string())
            .output();
        let child = match child {
            Ok(child) if child.status.code() != Some(UNABLE) => child,
            _ => {
                tally::note(10, "full disk, file lengths", "SKIPPED: no shell with ulimit -f here");
                return;
            }
        };
        let said = String::from_utf8_lossy(&child.stdout);
        let errors = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "seed {seed}: {said}{errors}");
        let line = told(&said);
        let (count, deletes) = line.and_then(|line| line.split_once(' ')).expect("it was filled");
        let (count, deletes): (u64, u64) =
            (count.parse().expect("a number"), deletes.parse().expect("a number"));
        let mut filled = Filled { count, ..Filled::new(seed) };
        let done = (1..=count).flat_map(|number| ops(seed, number));
        let deleted = (1..=deletes).map(removal);
        done.chain(deleted).for_each(|op| filled.state.apply(&op));
        let db = options(seed).open(&path).expect("it opens where files may grow");
        filled.assert_same(&db);
        filled.commit(&db, &[insert("rows", "after", &[1; 30_000])]).expect("writes go on");
        filled.assert_same(&db);
        commits += count;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let counts = format!("{LENGTHS} lengths, {commits} commits; {seconds:.1} s");
    tally::note(10, "full disk, file lengths", &counts);
    assert!(commits > 100, "{commits} commits");
}

/// Does nothing unless it is the child of the test above.
#[test]
fn process_whose_files_may_not_grow() {
    let Some(path) = env::var_os(SHORT) else { return };
    let seed = env::var("TREEPIE_TEST_SHORT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.expect("a seed");
    // A segment shorter than the limit, and a data file that comes to it.
    let options = options(seed).checkpoint_distance(128 << 10);
    let db = options.checkpoint_on_close(false).open(path).expect("a new database opens");
    let mut filled = Filled::new(seed);
    let error = filled.fill(&db);
    assert_full(&error, EFBIG);
    assert_eq!(db.stats().poisoned_by, None, "seed {seed}: {error}");
    filled.assert_same(&db);
    let deletes = filled.delete(&db, EFBIG);
    filled.assert_same(&db);
    println!("full: {} {deletes}", filled.count);
}
