//! Reading on from an LSN: what is final and durable, in order, without holding the database back.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use treepie::{Database, Durability, Error, Options, Records, ids::Lsn};
use treepie_testkit::{Call, Fault, SimDisk};

use crate::harness::{self, DIR, assert_says, file_options, insert, open_new};

/// Longer than any machine needs to wake a thread.
const LONG: Duration = Duration::from_secs(60);

fn put(db: &Database, key: &str, len: usize) -> Lsn {
    let receipt = db.write(|tx| tx.tree("t")?.insert(key, vec![7; len]));
    receipt.expect("a commit").lsn
}

fn take_all(records: &mut Records) -> Vec<Lsn> {
    std::iter::from_fn(|| records.next_record().expect("it is there")).map(|r| r.lsn).collect()
}

/// Segments are small, and checkpoints happen when they are asked for.
fn quiet() -> Options {
    file_options().background_threads(false).journal_segment_size(16 << 10)
}

#[test]
fn records_come_in_order_and_each_continues_the_one_before() {
    let (_dir, db) = open_new(&file_options());
    let mut records = db.records(Lsn(0)).expect("from the first on");
    for n in 0..300 {
        put(&db, &format!("{n}"), n * 10);
    }
    let mut chain = None;
    let mut count = 0;
    while let Some(record) = records.next_record().expect("it is there") {
        count += 1;
        assert_eq!(record.lsn, Lsn(count));
        assert!(chain.is_none_or(|chain| chain == record.chain_before), "{}", record.lsn);
        chain = Some(record.chain);
    }
    assert_eq!(Lsn(count), db.read().expect("a snapshot").lsn());
    assert_eq!(records.last(), Lsn(count));
}

#[test]
fn records_that_are_not_durable_yet_are_not_shown() {
    let disk = SimDisk::new(1);
    let db = harness::options(&disk).open(DIR).expect("a new database");
    let mut records = db.records(db.read().expect("a snapshot").lsn()).expect("they are kept");
    for durability in [Durability::Memory, Durability::Buffered] {
        db.write_as(durability, |tx| tx.tree("t")?.insert("k", "v")).expect("a commit");
        assert!(records.next_record().expect("nothing fails").is_none(), "{durability:?}");
        let lsn = db.sync().expect("a sync");
        assert_eq!(take_all(&mut records).last(), Some(&lsn));
    }
}

#[test]
fn reader_that_stands_still_keeps_what_it_needs_through_checkpoints_and_is_told_when_it_is_too_much()
 {
    let (_dir, db) = open_new(&quiet().journal_pins_max(200 << 10));
    let from = put(&db, "first", 10);
    let mut slow = db.records(from).expect("it is kept");
    for n in 0..10 {
        put(&db, &format!("{n}"), 4000);
        db.checkpoint().expect("a checkpoint");
    }
    let pins = db.report().expect("a report").journal_pins;
    assert_eq!((pins.len(), pins[0].after, pins[0].is_broken), (1, from, false));
    assert_eq!(take_all(&mut slow).len(), 10, "all are kept");
    for n in 0..100 {
        put(&db, &format!("{n}"), 4000);
        db.checkpoint().expect("a checkpoint");
        let bytes = db.report().expect("a report").journal.bytes;
        assert!(bytes < 600 << 10, "the journal grows to {bytes} bytes for one reader");
    }
    let error = slow.next_record().expect_err("they were given up");
    assert!(matches!(error, Error::Trimmed { wanted, .. } if wanted == slow.last().next()));
    assert_says(&error, &["begins at record", "full backup", "journal_pins_max"]);
    assert!(db.report().expect("a report").journal_pins[0].is_broken);
    drop(slow);
    assert!(db.report().expect("a report").journal_pins.is_empty());
    let error = db.records(from).expect_err("they are gone");
    assert!(matches!(error, Error::Trimmed { .. }), "{error}");
}

#[test]
fn retention_keeps_records_over_checkpoints_and_closing() {
    let (dir, db) = open_new(&quiet().journal_retention(1 << 20));
    for n in 0..50 {
        put(&db, &format!("{n}"), 4000);
        db.checkpoint().expect("a checkpoint");
    }
    let last = db.read().expect("a snapshot").lsn();
    db.close().expect("it closes");
    let path = dir.path().join("db");
    let db = quiet().journal_retention(1 << 20).open(&path).expect("it opens");
    let mut records = db.records(Lsn(0)).expect("all are kept");
    assert_eq!(take_all(&mut records).len() as u64, last.0);
    put(&db, "one more", 10);
    assert_eq!(take_all(&mut records), [last.next()], "it goes on behind the old segment");
    drop((records, db));
    let db = quiet().open(&path).expect("it opens");
    put(&db, "another", 10);
    db.checkpoint().expect("a checkpoint");
    let gone = db.records(Lsn(0)).expect_err("nothing is kept without the option");
    assert!(matches!(gone, Error::Trimmed { .. }), "{gone}");
}

#[test]
fn who_waits_for_a_commit_is_woken_by_it() {
    let (_dir, db) = open_new(&file_options());
    let before = db.read().expect("a snapshot").lsn();
    assert_eq!(db.wait_for_commit(before, Duration::ZERO), before);
    let mut records = db.records(before).expect("they are kept");
    let is_waiting = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            is_waiting.store(true, Relaxed);
            assert!(records.wait(LONG), "it comes within a minute");
            records.next_record().expect("it is there").expect("it was waited for").lsn
        });
        while !is_waiting.load(Relaxed) {
            thread::yield_now();
        }
        let lsn = put(&db, "k", 10);
        assert_eq!(waiter.join().expect("it was woken"), lsn);
    });
}

#[test]
fn who_waits_for_a_commit_is_woken_when_the_database_is_poisoned() {
    let disk = SimDisk::new(2);
    let db = harness::options(&disk).open(DIR).expect("a new database");
    let before = db.read().expect("a snapshot").lsn();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| db.wait_for_commit(before, LONG));
        disk.fail(Fault::nth(1).on("journal").of_changes().forever());
        harness::write(&db, &[insert("t", "k", b"v")]).expect_err("the disk fails");
        assert_eq!(waiter.join().expect("it was woken"), before);
    });
}

#[test]
fn who_follows_a_poisoned_database_is_told_after_its_last_durable_record() {
    let disk = SimDisk::new(3);
    let db = harness::options(&disk).open(DIR).expect("a new database");
    let mut records = db.records(db.durable_lsn()).expect("they are kept");
    let lsn = put(&db, "k", 10);
    disk.fail(Fault::nth(0).of(Call::SyncData).on("journal").forever());
    harness::write(&db, &[insert("t", "k", b"v")]).expect_err("the disk fails");
    assert!(records.wait(LONG), "the record before is still to be read");
    let last = records.next_record().expect("it is durable").expect("it is there");
    assert_eq!((last.lsn, records.last()), (lsn, lsn));
    for _ in 0..2 {
        assert!(!records.wait(LONG), "no record comes any more");
        let error = records.next_record().expect_err("nothing comes after it");
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
    }
}

#[test]
fn who_waits_for_a_record_is_woken_when_the_database_is_closed() {
    let (dir, db) = open_new(&file_options());
    let mut records = db.records(db.durable_lsn()).expect("they are kept");
    let lsn = db.write_as(Durability::Memory, |tx| tx.tree("t")?.insert("k", "v"));
    let lsn = lsn.expect("a commit").lsn;
    let follower = thread::spawn(move || {
        let mut found = Vec::new();
        while !records.is_closed() {
            // Which of both woke it does not matter.
            let _ = records.wait(LONG);
            found.append(&mut take_all(&mut records));
        }
        found.append(&mut take_all(&mut records));
        assert!(!records.wait(LONG), "it does not sleep again");
        found
    });
    let begun = Instant::now();
    db.close().expect("it closes");
    let found = follower.join().expect("it was woken");
    assert!(begun.elapsed() < LONG, "it was woken by closing, and not by time");
    assert_eq!(found.last(), Some(&lsn), "what closing made durable is seen");
    drop(file_options().open(dir.path().join("db")).expect("the folder is unlocked"));
}

#[test]
fn readers_of_records_follow_beside_writers_and_checkpoints() {
    const COMMITS: u64 = 2000;
    let (_dir, db) = open_new(&file_options().journal_segment_size(16 << 10));
    let from = db.read().expect("a snapshot").lsn();
    let mut followers: Vec<Records> =
        (0..2).map(|_| db.records(from).expect("they are kept")).collect();
    thread::scope(|scope| {
        for records in &mut followers {
            scope.spawn(move || {
                let mut next = from.next();
                while next.0 <= from.0 + COMMITS {
                    assert!(records.wait(LONG), "record {next} comes within a minute");
                    while let Some(record) = records.next_record().expect("it is there") {
                        assert_eq!(record.lsn, next);
                        next = next.next();
                    }
                }
            });
        }
        for n in 0..COMMITS {
            put(&db, &format!("{}", n % 50), 500);
            if n % 100 == 0 {
                db.checkpoint().expect("a checkpoint");
            }
        }
    });
}
