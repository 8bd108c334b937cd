//! Bugs that other engines have shipped, and the tests that would find each of them here.
//!
//! | bug | where | test |
//! |-----|-------|------|
//! | metadata grew before the file did | redb | `a_file_that_grows_is_whole_wherever_the_power_is_cut` |
//! | growth was not synced | bolt #284 | the same |
//! | damage beyond 4 GiB | redb #515 | `pages_on_both_sides_of_2_and_4_gib_…` (`database/tests.rs`); whole databases: `recovery` (`a_data_file_grows_across_4_gib_…`, on demand) |
//! | a full disk, and then opening panics | redb #620, dqlite #283 | `full_disk` |
//! | a panic in a commit marks the file as clean | redb #885 | `a_panic_inside_a_commit_leaves_what_was_acknowledged` |
//! | one flipped byte opens, checks clean, and panics when dropped | redb #1303 | `a_damaged_database_closes_without_a_panic`, `bit_flips` |
//! | cycles and double references under valid checksums | bbolt #701, #778 | `pages_that_lead_to_one_another_are_found_under_valid_checksums` |
//! | a partial tail of a failed write hides what is behind it | fjall #308 | `commits_behind_a_failed_journal_write_are_read_again` |
//! | a journal that is needed is deleted | RavenDB-12725, litestream #224 | `segments_that_an_old_reader_keeps_from_the_checkpoint_stay` |
//! | stale bytes of a recycled journal are taken for records | RavenDB-17194, RocksDB PR 12918 | `journal/tests.rs` (`stale_…`), `planted_bugs` (`journal_of_an_earlier_life`) |
//! | the newest journal is empty, or has a header alone | several | `a_newest_segment_without_records_is_no_damage` |
//! | a run of pages is later covered by single ones | RavenDB-2806 | `replay_lets_single_pages_take_the_place_of_a_run_and_back` |
//! | a reader that opens beside a checkpoint sees newer pages | RavenDB | `concurrency`, `tests/schedules`, `tests/registry` |
//! | a few hot pages make the journal grow without end | RavenDB | `concurrency` (`a_few_hot_pages_…`), `recovery` (`a_small_set_…`) |
//! | acknowledged before the sync | etcd #14370 | `power_cuts`, `planted_bugs` (`AcknowledgedBeforeSync`) |
//! | acknowledged before the bytes have left the process | lix #1394 | `kills`, `planted_bugs` (`AcknowledgedBeforeWrite`) |
//! | a read that returns less than was asked goes on | go-raft | `disk/file.rs` (`a_read_past_the_end_…`), `journal/tests.rs` (`cut_at_every_byte_…`) |
//! | a checker with a slip that could not fail | RocksDB PR 7701 | `planted_bugs` |
//!
//! Those of consensus and of snapshots have no place in this crate.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use treepie::{Database, Error, Options, disk::DiskFile, ids::PageId};
use treepie_testkit::{Call, Fault, FaultError, SimDisk, model::Model, workload::Op};

use crate::{
    harness::{self, DIR, difference, insert, new_model, options, remove, verify},
    power_cuts::{Recorded, cut_everywhere},
    ruled_disk::{Rule, Ruled},
};

const PAGE_SIZE: usize = 4096;

/// Options with which nothing happens by itself.
pub fn quiet(disk: &SimDisk) -> Options {
    options(disk).checkpoint_distance(4 << 20).checkpoint_on_close(false)
}

fn commit(db: &Database, model: &mut Model, ops: &[Op]) {
    model.commit(harness::write(db, ops).expect("a commit"), ops);
}

/// The process dies, and another one opens what it left.
#[track_caller]
fn reopen(disk: &SimDisk, db: Database, model: &Model) -> (SimDisk, Database) {
    let disk = {
        let restarted = disk.restart();
        drop(db);
        restarted
    };
    disk.heal();
    let db = quiet(&disk).open(DIR).expect("it opens");
    assert_eq!(verify(&db, model), Ok(model.lsn()));
    (disk, db)
}

#[test]
fn a_file_that_grows_is_whole_wherever_the_power_is_cut() {
    let disk = SimDisk::new(7);
    let db = options(&disk).map_size(32 << 20).open(DIR).expect("a new database opens");
    let mut model = new_model();
    disk.mark(model.lsn());
    for number in 0..6_u8 {
        // Each is more than the file grows by in one step.
        let ops = [insert("t", &format!("large {number}"), &vec![number; 500_000])];
        commit(&db, &mut model, &ops);
        disk.mark(model.lsn());
        db.checkpoint().expect("a checkpoint");
    }
    let grown = db.stats().growths;
    assert!(grown >= 3, "it grew {grown} times");
    drop(db);
    let recorded = Recorded { seed: 7, log: disk.log(), model, early_writes: 0 };
    let images = cut_everywhere(&recorded, 6).unwrap_or_else(|what| panic!("{what}"));
    assert!(images > 300, "{images} images");
}

/// Writes of the journal panic while it is armed.
#[derive(Debug, Default)]
struct Panicking(Arc<AtomicBool>);

impl Rule for Panicking {
    fn writes(&self, path: &Path, _offset: u64) {
        assert!(path.ends_with("data") || !self.0.load(SeqCst), "a panic on purpose");
    }

    fn sync(&self, _path: &Path, file: &dyn DiskFile) -> io::Result<()> {
        file.sync_data()
    }
}

#[test]
fn a_panic_inside_a_commit_leaves_what_was_acknowledged() {
    for checkpoint_on_close in [false, true] {
        let (disk, armed) = (SimDisk::new(1), Arc::new(AtomicBool::new(false)));
        let ruled = Ruled::new(&disk, Panicking(Arc::clone(&armed)));
        let options = quiet(&disk).disk(ruled).checkpoint_on_close(checkpoint_on_close);
        let db = options.open(DIR).expect("a new database opens");
        let mut model = new_model();
        commit(&db, &mut model, &[insert("t", "before", b"1")]);
        armed.store(true, SeqCst);
        let panic =
            catch_unwind(AssertUnwindSafe(|| harness::write(&db, &[insert("t", "k", &[2; 900])])));
        assert!(panic.is_err(), "{panic:?}");
        armed.store(false, SeqCst);
        let refused = harness::write(&db, &[insert("t", "after", b"3")]);
        assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
        let snapshot = db.read().expect("reads go on");
        assert_eq!(difference(&snapshot, model.newest()).expect("reads go on"), None);
        drop(snapshot);
        reopen(&disk, db, &model);
    }
}

/// Flips bits over the whole of a small database, and does what its users do: open, write, close.
#[test]
fn a_damaged_database_closes_without_a_panic() {
    let disk = SimDisk::new(1);
    let db = quiet(&disk).checkpoint_on_close(true).open(DIR).expect("a new database opens");
    let mut model = new_model();
    let rows = |byte: u8| -> Vec<Op> {
        (0..40).map(|n| insert("t", &format!("row {n:02}"), &[byte; 150])).collect()
    };
    commit(&db, &mut model, &rows(1));
    commit(&db, &mut model, &[insert("t", "large", &[2; 9000])]);
    db.close().expect("closing");
    let rest = disk.settled(2);
    let data = Path::new(DIR).join("data");
    let len = rest.file_bytes(&data).expect("it is there").len();
    let (mut opened, mut written, mut flips) = (0, 0, 0);
    for byte in (0..len).step_by(29) {
        let disk = rest.settled(3);
        disk.flip_bit(&data, (byte * 8 + byte % 8) as u64);
        let run = catch_unwind(AssertUnwindSafe(|| {
            let Ok(db) = quiet(&disk).checkpoint_on_close(true).open(DIR) else { return (0, 0) };
            let ok = harness::write(&db, &rows(3)).is_ok();
            let _ = db.write(|tx| tx.drop_tree("t"));
            drop(db);
            (1, i32::from(ok))
        }));
        let (o, w) = run.unwrap_or_else(|_| panic!("a panic after a flip in byte {byte}"));
        (opened, written, flips) = (opened + o, written + w, flips + 1);
    }
    println!("{flips} flips: {opened} opened, {written} took writes");
    assert!(opened > flips / 2 && written > 0 && written < opened, "{opened}, {written}");
}

/// Replaces bytes of one page of a database at rest, and makes its checksum right again.
pub fn forge(rest: &SimDisk, page: PageId, change: impl FnOnce(&mut [u8])) -> SimDisk {
    let disk = rest.settled(4);
    let data = Path::new(DIR).join("data");
    let mut bytes = disk.file_bytes(&data).expect("it is there");
    let page = &mut bytes[page.0 as usize * PAGE_SIZE..][..PAGE_SIZE];
    change(page);
    let sum = crc32fast::hash(&page[4..]).to_le_bytes();
    page[..4].copy_from_slice(&sum);
    disk.rot(&data, &bytes);
    disk
}

/// Where the page stores the number of a child.
pub fn place_of(page: &[u8], child: PageId) -> usize {
    let bytes = child.0.to_le_bytes();
    let found = page[32..].windows(4).rposition(|window| window == bytes);
    found.expect("the branch leads to its child") + 32
}

#[test]
fn pages_that_lead_to_one_another_are_found_under_valid_checksums() {
    let disk = SimDisk::new(1);
    let db = quiet(&disk).checkpoint_on_close(true).open(DIR).expect("a new database opens");
    let mut model = new_model();
    let row = |n| insert("t", &format!("row {n:05}"), &[7; 900]);
    commit(&db, &mut model, &(0..2000).map(row).collect::<Vec<_>>());
    let dumps: Vec<_> = (2..1000).filter_map(|id| db.page(PageId(id)).ok()).collect();
    db.close().expect("closing");
    let rest = disk.settled(2);
    let level =
        |level: u8| dumps.iter().filter(move |dump| dump.kind == "branch" && dump.level == level);
    let root = level(2).next().expect("the tree has three levels");
    let leads_to = |id: PageId| root.bytes[32..].windows(4).any(|w| w == id.0.to_le_bytes());
    let below: Vec<_> = level(1).filter(|dump| leads_to(dump.page)).collect();
    let (branch, sibling) = (below[0], below[1]);
    // To itself, to the page above it, twice to the same page, to a fixed page, and past the end.
    let targets = [root.page, branch.page, sibling.page, PageId(2), PageId(0), PageId(u32::MAX)];
    let leaf = dumps
        .iter()
        .find(|dump| {
            let number = dump.page.0.to_le_bytes();
            dump.kind == "leaf" && branch.bytes[32..].windows(4).any(|window| window == number)
        })
        .expect("the branch has leaves");
    for (parent, child) in [(root, branch.page), (branch, leaf.page)] {
        for target in targets.into_iter().filter(|target| *target != child) {
            let disk = forge(&rest, parent.page, |page| {
                let at = place_of(page, child);
                page[at..at + 4].copy_from_slice(&target.0.to_le_bytes());
            });
            let context = format!("page {} leads to {target} in place of {child}", parent.page);
            let Ok(db) = quiet(&disk).open(DIR) else { continue };
            let report = db.check().expect("a check begins");
            assert!(!report.is_clean(), "{context}: the check is clean");
            let snapshot = db.read().expect("a snapshot");
            // It ends, with an error; where the page is one of the same tree and level, perhaps not.
            let read = snapshot.tree("t").map(|tree| tree.iter().filter(Result::is_err).count());
            let is_alike = target == sibling.page && parent.page == root.page;
            assert!(is_alike || read.as_ref().map_or(true, |errors| *errors > 0), "{context}");
            drop(snapshot);
            // Freeing pages that are not its own must not take those of others along.
            let dropped = db.write(|tx| tx.drop_tree("t"));
            assert!(dropped.is_err(), "{context}: {dropped:?}");
        }
    }
}

#[test]
fn commits_behind_a_failed_journal_write_are_read_again() {
    for short in [0, 100, 512, 4096, 6000] {
        let disk = SimDisk::new(3);
        let db = quiet(&disk).open(DIR).expect("a new database opens");
        let mut model = new_model();
        commit(&db, &mut model, &[insert("t", "first", &[1; 3000])]);
        let fault = Fault::nth(1).of(Call::Write).on(".seg").error(FaultError::ENOSPC);
        disk.fail(fault.after_short_write(short));
        let failed = harness::write(&db, &[insert("t", "failed", &[2; 7000])]);
        assert!(matches!(failed, Err(Error::OutcomeUnknown { .. })), "{failed:?}");
        // Whatever there is of the failed record is followed by others, through several lives.
        let mut life = reopen(&disk, db, &model);
        for number in 0..4_u8 {
            for half in ["a", "b"] {
                let ops = [insert("t", &format!("later {number}{half}"), &[number; 2500])];
                commit(&life.1, &mut model, &ops);
            }
            life = reopen(&life.0, life.1, &model);
        }
    }
}

#[test]
fn segments_that_an_old_reader_keeps_from_the_checkpoint_stay() {
    let disk = SimDisk::new(5);
    let db = quiet(&disk).open(DIR).expect("a new database opens");
    let mut model = new_model();
    for round in 0..6_u8 {
        for number in 0..10_u8 {
            commit(&db, &mut model, &[insert("t", &format!("{round}/{number}"), &[number; 2000])]);
        }
        let old = db.read().expect("a snapshot");
        for number in 10..20_u8 {
            commit(&db, &mut model, &[insert("t", &format!("{round}/{number}"), &[number; 2000])]);
            // Up to the reader, and not up to the newest commit: the segments behind it are needed.
            let checkpointed = db.checkpoint().expect("a checkpoint");
            assert!(checkpointed <= old.lsn(), "{checkpointed} is past the reader");
            let killed = disk.settled(9);
            let copy = quiet(&killed).open(DIR).expect("what a kill leaves opens");
            assert_eq!(verify(&copy, &model), Ok(model.lsn()));
        }
    }
    let segments = db.report().expect("a report").journal.segments.len();
    assert!(segments > 1, "{segments} segments");
}

#[test]
fn a_newest_segment_without_records_is_no_damage() {
    let disk = SimDisk::new(1);
    let db = quiet(&disk).open(DIR).expect("a new database opens");
    let mut model = new_model();
    commit(&db, &mut model, &[insert("t", "k", &[1; 900])]);
    let (disk, db) = reopen(&disk, db, &model);
    // One record more, in a segment that it begins.
    harness::write(&db, &[insert("t", "k", &[2; 900])]).expect("a commit");
    let path = Path::new(DIR).join(format!("journal/{:020}.seg", model.lsn() + 1));
    drop(db);
    let rest = disk.settled(2);
    let bytes = rest.file_bytes(&path).expect("the segment is named after its record");
    let header_only = || [&bytes[..PAGE_SIZE], &vec![0; bytes.len() - PAGE_SIZE]].concat();
    let kinds = [
        ("empty", Vec::new()),
        ("cut in its header", bytes[..700].to_vec()),
        ("cut behind its header", bytes[..PAGE_SIZE].to_vec()),
        ("zeros", vec![0; bytes.len()]),
        ("its header alone", header_only()),
    ];
    for (kind, bytes) in kinds {
        let disk = rest.settled(3);
        disk.rot(&path, &bytes);
        let db = quiet(&disk).open(DIR).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(verify(&db, &model), Ok(model.lsn()), "{kind}");
        let mut after = model.clone();
        commit(&db, &mut after, &[insert("t", "next", &[3; 900])]);
        reopen(&disk, db, &after);
    }
}

/// The first pages of all runs.
pub fn runs(db: &Database) -> Vec<PageId> {
    let pages = (2..400).filter_map(|id| db.page(PageId(id)).ok());
    pages.filter(|dump| dump.kind == "overflow" && dump.damage.is_none()).map(|d| d.page).collect()
}

#[test]
fn replay_lets_single_pages_take_the_place_of_a_run_and_back() {
    for checkpointed in [false, true] {
        let disk = SimDisk::new(1);
        let db = quiet(&disk).open(DIR).expect("a new database opens");
        let mut model = new_model();
        let mut life = (disk, db);
        for round in 0..4_u8 {
            let run = [insert("runs", "large", &[round; 60_000])];
            commit(&life.1, &mut model, &run);
            let places = runs(&life.1);
            if checkpointed {
                life.1.checkpoint().expect("a checkpoint");
            }
            // Leaves where the run was …
            commit(&life.1, &mut model, &[remove("runs", "large")]);
            let small: Vec<Op> =
                (0..60).map(|n| insert("leaves", &format!("{n:03}"), &[round; 600])).collect();
            commit(&life.1, &mut model, &small);
            let kind = life.1.page(places[0]).expect("a page").kind;
            assert!(places.len() == 1 && kind != "overflow", "{places:?} {kind}");
            life = reopen(&life.0, life.1, &model);
            // … and a run where the leaves were.
            commit(&life.1, &mut model, &[Op::Clear { tree: "leaves".to_owned() }]);
            commit(&life.1, &mut model, &run);
            assert!(!runs(&life.1).is_empty());
            life = reopen(&life.0, life.1, &model);
            commit(&life.1, &mut model, &[remove("runs", "large")]);
        }
        life.1.close().expect("closing");
    }
}
