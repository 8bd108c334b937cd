//! A write or sync of the journal fails while records are in flight: each caller is told what is
//! known of its own record, readers go on, and reopening agrees with what was told.

use std::{panic::resume_unwind, sync::Arc, thread, time::Duration};

use parking_lot::Mutex;
use treepie::{Database, Durability, Error, Options, Overlap, Receipt, Result, ids::Lsn};
use treepie_testkit::{Call, Fault, Rng, SimDisk, mix};

use crate::{
    batches::{Caller, LONG, together, until_stats},
    harness::{self, DIR, for_seeds, seeds},
    ruled_disk::{GatedJournal, Ruled},
};

/// Each closure is a record of its own, and syncs wait until they are let go.
fn options(disk: &SimDisk, gate: &Arc<GatedJournal>) -> Options {
    harness::options(disk)
        .disk(Ruled::new(disk, Arc::clone(gate)))
        .overlap(Overlap::Always)
        .merge_closures_max(1)
        .journal_segment_size(1 << 20)
        .sync_interval(LONG)
}

fn put(db: &Database, key: &str, durability: Durability) -> Result<Receipt<bool>> {
    db.write_as(durability, |tx| tx.tree("t")?.insert(key, vec![7; 2000]))
}

/// The keys that are there after reopening on a healed disk.
fn reopened(disk: &SimDisk, db: Database) -> Vec<String> {
    let disk = {
        let restarted = disk.restart();
        drop(db);
        restarted
    };
    disk.heal();
    let db = harness::options(&disk).open(DIR).expect("it opens again");
    let check = db.check().expect("a check begins");
    assert!(check.is_clean(), "{:?}", check.problems);
    keys(&db)
}

fn keys(db: &Database) -> Vec<String> {
    let snapshot = db.read().expect("readers go on");
    let Some(tree) = snapshot.find_tree("t").expect("readers go on") else { return Vec::new() };
    let key = |entry: Result<(treepie::Key<'_>, &[u8])>| {
        String::from_utf8(entry.expect("readers go on").0.to_vec()).expect("text")
    };
    tree.iter().map(key).collect()
}

#[track_caller]
fn assert_unknown<T: std::fmt::Debug>(result: &Result<T>, lsn: Lsn) {
    match result {
        Err(Error::OutcomeUnknown { lsn: told, .. }) => assert_eq!(*told, lsn),
        other => panic!("{other:?} instead of an unknown outcome of {lsn}"),
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: &Result<T>) {
    assert!(matches!(result, Err(Error::Poisoned { .. })), "{result:?}");
}

#[test]
fn a_failed_sync_tells_each_caller_what_is_known_of_its_own_record() {
    let (disk, gate) = (SimDisk::new(1), Arc::new(GatedJournal::default()));
    let db = options(&disk, &gate).open(DIR).expect("a new database opens");
    put(&db, "before", Durability::Sync).expect("a commit");
    gate.shut();
    disk.fail(Fault::nth(2).of(Call::SyncData).on(".seg"));
    thread::scope(|scope| {
        let spawn = |key: &'static str, durability, sealed| {
            let db = &db;
            let thread = scope.spawn(move || put(db, key, durability));
            until_stats(db, "the record is sealed", |stats| stats.sealed.0 == sealed);
            thread
        };
        let first = spawn("a", Durability::Sync, 3);
        gate.until_come(1);
        // All of these are in flight while the first is synced, and share the sync that fails.
        let group = [
            spawn("b", Durability::Buffered, 4),
            spawn("c", Durability::Sync, 5),
            spawn("d", Durability::Memory, 6),
        ];
        gate.allow(1);
        assert_eq!(first.join().expect("no panic").expect("a commit").lsn, Lsn(3));
        gate.until_come(2);
        // These are in flight meanwhile, and are never written.
        let behind = [
            spawn("e", Durability::Sync, 7),
            spawn("f", Durability::Memory, 8),
            spawn("g", Durability::Buffered, 9),
        ];
        gate.allow(u64::MAX);
        for (lsn, end) in (4..).zip(group) {
            assert_unknown(&end.join().expect("no panic"), Lsn(lsn));
        }
        for end in behind {
            assert_refused(&end.join().expect("no panic"));
        }
    });
    assert_eq!(keys(&db), ["a", "before"], "readers see what is final");
    assert_eq!(db.stats().committed, Lsn(3));
    assert!(db.stats().poisoned_by.is_some());
    assert_refused(&put(&db, "h", Durability::Memory));
    assert_refused(&db.submit(|_| Ok(())).map(drop));
    assert_refused(&db.begin_write().map(drop));
    assert_refused(&db.checkpoint());
    assert!(db.sync().is_err());
    let found = reopened(&disk, db);
    let known = found.iter().all(|key| ["a", "b", "before", "c", "d"].contains(&&**key));
    assert!(known && found.contains(&"a".to_owned()), "{found:?}");
}

#[test]
fn a_failed_write_leaves_the_outcome_of_its_records_open() {
    for short in [0, 700, 5000] {
        let (disk, gate) = (SimDisk::new(2), Arc::new(GatedJournal::default()));
        let db = options(&disk, &gate).open(DIR).expect("a new database opens");
        put(&db, "before", Durability::Sync).expect("a commit");
        gate.shut();
        disk.fail(Fault::nth(2).of(Call::Write).on(".seg").after_short_write(short));
        thread::scope(|scope| {
            let spawn = |key: &'static str, sealed| {
                let db = &db;
                let thread = scope.spawn(move || put(db, key, Durability::Sync));
                until_stats(db, "the record is sealed", |stats| stats.sealed.0 == sealed);
                thread
            };
            let first = spawn("a", 3);
            gate.until_come(1);
            let group = [spawn("b", 4), spawn("c", 5)];
            gate.allow(u64::MAX);
            assert_eq!(first.join().expect("no panic").expect("a commit").lsn, Lsn(3));
            for (lsn, end) in (4..).zip(group) {
                assert_unknown(&end.join().expect("no panic"), Lsn(lsn));
            }
        });
        assert_eq!(keys(&db), ["a", "before"]);
        assert_refused(&put(&db, "h", Durability::Memory));
        let found = reopened(&disk, db);
        assert_eq!(found[0], "a");
        assert!(found.iter().all(|key| ["a", "b", "before", "c"].contains(&&**key)), "{found:?}");
    }
}

/// Whoever waits for room in the pipeline has not begun: nothing of it is open.
#[test]
fn a_closure_that_waits_behind_a_full_pipeline_is_refused_and_not_left_open() {
    let (disk, gate) = (SimDisk::new(3), Arc::new(GatedJournal::default()));
    let db = options(&disk, &gate).in_flight_records_max(1).open(DIR).expect("it opens");
    put(&db, "before", Durability::Sync).expect("a commit");
    gate.shut();
    disk.fail(Fault::nth(2).of(Call::SyncData).on(".seg"));
    let db = &db;
    thread::scope(|scope| {
        let first = scope.spawn(move || put(db, "a", Durability::Sync));
        gate.until_come(1);
        let second = scope.spawn(move || put(db, "b", Durability::Sync));
        until_stats(db, "the second is sealed", |stats| stats.sealed == Lsn(4));
        let queued = db.timings().batch_size.count;
        let third = scope.spawn(move || {
            let mut ran = false;
            let written = db.write(|_| {
                ran = true;
                Ok(())
            });
            (written, ran)
        });
        until_stats(db, "the third is taken from the queue", |stats| {
            stats.waiting == 0 && db.timings().batch_size.count > queued
        });
        gate.allow(u64::MAX);
        first.join().expect("no panic").expect("a commit");
        assert_unknown(&second.join().expect("no panic"), Lsn(4));
        let (third, ran) = third.join().expect("no panic");
        assert!(!ran);
        assert_refused(&third);
    });
}

#[test]
fn each_caller_of_a_merged_record_is_told_of_the_failed_sync_and_failures_stay_their_own() {
    let disk = SimDisk::new(4);
    let db = harness::options(&disk).gather_max(Duration::ZERO).open(DIR).expect("it opens");
    put(&db, "before", Durability::Sync).expect("a commit");
    disk.fail(Fault::nth(1).of(Call::SyncData).on(".seg"));
    let caller = |number: u32| -> Caller<'_, Result<Receipt<()>>> {
        let db = &db;
        Box::new(move || {
            db.write(|tx| {
                tx.tree("t")?.insert(format!("key {number}"), "v")?;
                match number {
                    1 => Err(Error::rejected("its own")),
                    2 => resume_unwind(Box::new("its own")),
                    _ => Ok(()),
                }
            })
        })
    };
    let mut ends = together(&db, (0..5).map(caller).collect());
    for number in [4, 3, 0] {
        assert_unknown(&ends.remove(number).expect("no panic"), Lsn(3));
    }
    assert!(ends.pop().expect("the third").is_err(), "its own panic");
    let own = ends.pop().expect("the second").expect("no panic");
    assert!(matches!(own, Err(Error::Rejected(_))), "{own:?}");
    let found = reopened(&disk, db);
    assert!(found == ["before"] || found == ["before", "key 0", "key 3", "key 4"], "{found:?}");
}

/// What callers of one life were told, by key.
#[derive(Default)]
struct Told {
    committed: Vec<String>,
    open: Vec<(Lsn, String)>,
    refused: Vec<String>,
}

/// Threads write until the journal fails at some call; then what they were told is compared with
/// what reopening finds.
fn fail_somewhere(seed: u64) -> (usize, usize) {
    let mut rng = Rng::new(mix(seed, 3));
    let disk = SimDisk::new(seed);
    let db = harness::options(&disk)
        .overlap(Overlap::Always)
        .merge_closures_max(rng.range(1..4))
        .in_flight_records_max(rng.range(1..5))
        .background_threads(rng.chance(1, 2))
        .journal_segment_size(*rng.pick(&[16 << 10, 1 << 20]))
        .open(DIR)
        .expect("a new database opens");
    put(&db, "before", Durability::Sync).expect("a commit");
    let call = if rng.chance(1, 2) { Call::SyncData } else { Call::Write };
    disk.fail(Fault::nth(1 + rng.below(30)).of(call).on(".seg").forever());
    let told = Mutex::new(Told::default());
    thread::scope(|scope| {
        for writer in 0..6 {
            let (db, told) = (&db, &told);
            scope.spawn(move || {
                for number in 0..40 {
                    let key = format!("{writer} {number:03}");
                    let end = put(db, &key, Durability::Sync);
                    let mut told = told.lock();
                    match end {
                        Ok(_) => told.committed.push(key),
                        Err(Error::OutcomeUnknown { lsn, .. }) => told.open.push((lsn, key)),
                        Err(Error::Poisoned { .. } | Error::Io { .. }) => told.refused.push(key),
                        Err(error) => panic!("seed {seed}: {error}"),
                    }
                }
            });
        }
    });
    let mut told = told.into_inner();
    let mut seen = keys(&db);
    told.committed.push("before".to_owned());
    told.committed.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, told.committed, "seed {seed}: readers see what was acknowledged");
    let found = reopened(&disk, db);
    let is_found = |key: &String| found.binary_search(key).is_ok();
    assert!(told.committed.iter().all(is_found), "seed {seed}: an acknowledged write is gone");
    let refused = told.refused.iter().find(|key| is_found(key));
    assert_eq!(refused, None, "seed {seed}: it was refused, and is there");
    told.open.sort_unstable();
    let last = told.open.iter().rev().find(|(_, key)| is_found(key)).map_or(Lsn(0), |open| open.0);
    let hole = told.open.iter().find(|(lsn, key)| *lsn <= last && !is_found(key));
    assert_eq!(hole, None, "seed {seed}: {last} is there, one before it is not");
    (told.open.len(), told.refused.len())
}

#[test]
fn wherever_the_journal_fails_reopening_agrees_with_what_callers_were_told() {
    let results = for_seeds(&seeds(1, 150), fail_somewhere);
    let open: usize = results.iter().map(|(open, _)| open).sum();
    let refused: usize = results.iter().map(|(_, refused)| refused).sum();
    println!("{open} outcomes were open, {refused} writes were refused");
    assert!(results.len() == 1 || (open > 30 && refused > 1000));
}

/// Syncs by themselves fail too; whoever comes later is told, and readers go on.
#[test]
fn a_failed_sync_of_the_flusher_poisons_the_database() {
    let disk = SimDisk::new(8);
    let db = harness::options(&disk).background_threads(true);
    let db = db.sync_interval(Duration::from_millis(1)).open(DIR).expect("it opens");
    disk.fail(Fault::nth(1).of(Call::SyncData).on(".seg"));
    put(&db, "a", Durability::Memory).expect("it does not wait");
    until_stats(&db, "the flusher has failed", |stats| stats.poisoned_by.is_some());
    assert_eq!(keys(&db), ["a"], "readers go on");
    assert_refused(&put(&db, "b", Durability::Memory));
    assert!(db.sync().is_err());
    assert!(db.close().is_err());
}
