//! Readers, a writer and the checkpoint at once: every snapshot holds what one commit left, for as
//! long as it lives.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use treepie::{Database, Error, Options, Snapshot};
use treepie_testkit::{Rng, mix};

use crate::harness::{file_options, open_new, seeds};

const ACCOUNTS: u32 = 3000;
const OPENING_BALANCE: u64 = 1000;

/// Bounds so small that the checkpoint writes all the time.
fn tiny() -> Options {
    file_options()
        .versions_memory(512 << 10)
        .scratch_memory(64 << 20)
        .map_size(1 << 20)
        .readers_max(64)
        .checkpoint_distance(256 << 10)
        .journal_max(8 << 20)
        .checkpoint_interval(Duration::from_millis(2))
}

fn open_accounts(db: &Database) {
    db.write(|tx| {
        let mut accounts = tx.tree("accounts")?;
        for number in 0..ACCOUNTS {
            accounts.insert(number.to_be_bytes(), OPENING_BALANCE.to_le_bytes())?;
        }
        tx.tree("commits")?.insert("count", 0_u64.to_le_bytes())?;
        Ok(())
    })
    .expect("a commit");
}

fn number(bytes: Option<&[u8]>) -> u64 {
    let bytes = bytes.expect("it is there");
    u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
}

/// Moves money between accounts, and counts the commit.
fn transfer(db: &Database, rng: &mut Rng) -> treepie::Result<u64> {
    let receipt = db.write(|tx| {
        let mut accounts = tx.tree("accounts")?;
        for _ in 0..rng.range(1..40) {
            let from = (rng.below(u64::from(ACCOUNTS)) as u32).to_be_bytes();
            let to = (rng.below(u64::from(ACCOUNTS)) as u32).to_be_bytes();
            let balance = number(accounts.get(from)?);
            let amount = rng.below(balance + 1);
            accounts.insert(from, (balance - amount).to_le_bytes())?;
            let balance = number(accounts.get(to)?);
            accounts.insert(to, (balance + amount).to_le_bytes())?;
        }
        // Pages come and go too.
        let mut notes = tx.tree("notes")?;
        let key = rng.below(60).to_be_bytes();
        if rng.chance(1, 2) {
            let len = rng.range(1..20_000);
            notes.insert(key, rng.bytes(len))?;
        } else {
            notes.remove(key)?;
        }
        let mut commits = tx.tree("commits")?;
        let count = number(commits.get("count")?) + 1;
        commits.insert("count", count.to_le_bytes())?;
        Ok(count)
    })?;
    Ok(receipt.lsn.0)
}

/// Verifies that the sum of all accounts is what it always was, and that the snapshot is of the
/// commit that its LSN says. Returns a hash of everything.
fn audit(snapshot: &Snapshot, first_lsn: u64) -> u64 {
    let accounts = snapshot.tree("accounts").expect("a tree");
    let mut hash = snapshot.lsn().0;
    let mut sum = 0;
    for entry in accounts.iter() {
        let (_, value) = entry.expect("an entry");
        let balance = number(Some(value));
        sum += balance;
        hash = mix(hash, balance);
    }
    assert_eq!(sum, u64::from(ACCOUNTS) * OPENING_BALANCE, "at LSN {}", snapshot.lsn());
    assert_eq!(accounts.len(), u64::from(ACCOUNTS));
    let commits = snapshot.tree("commits").expect("a tree");
    let count = number(commits.get("count").expect("a read"));
    assert_eq!(count, snapshot.lsn().0 - first_lsn, "one commit is one LSN");
    if let Some(notes) = snapshot.find_tree("notes").expect("a read") {
        for entry in notes.iter().rev() {
            let (_, value) = entry.expect("an entry");
            hash = mix(hash, treepie_testkit::hash_bytes(value));
        }
    }
    hash
}

#[test]
fn readers_see_whole_commits_while_writer_and_checkpoint_run() {
    for seed in seeds(1, 3) {
        let (_dir, db) = open_new(&tiny());
        open_accounts(&db);
        let first_lsn = db.read().expect("a snapshot").lsn().0;
        let done = AtomicBool::new(false);
        let mut audits = 0_u64;
        thread::scope(|scope| {
            let readers: Vec<_> = (0..3)
                .map(|reader| {
                    let (db, done) = (&db, &done);
                    scope.spawn(move || read_until_done(db, first_lsn, mix(seed, reader), done))
                })
                .collect();
            let mut rng = Rng::new(seed);
            let mut lsn = first_lsn;
            for step in 0..600 {
                let committed = transfer(&db, &mut rng).expect("a commit");
                assert_eq!(committed, lsn + 1, "seed {seed}, step {step}");
                lsn = committed;
                assert!(
                    db.read().expect("a snapshot").lsn().0 >= lsn,
                    "one's own commit is visible"
                );
            }
            done.store(true, SeqCst);
            audits = readers.into_iter().map(|reader| reader.join().expect("a reader")).sum();
        });
        let stats = db.stats();
        println!("seed {seed}: {audits} audits, {} checkpoints", stats.checkpoints);
        assert!(stats.checkpoints > 2 && audits > 10, "{stats:?}");
        assert!(db.check().expect("a check").is_clean());
    }
}

/// Audits the newest state again and again, and keeps some snapshots to audit them later.
fn read_until_done(db: &Database, first_lsn: u64, seed: u64, done: &AtomicBool) -> u64 {
    let mut rng = Rng::new(seed);
    let mut kept: Vec<(Snapshot, u64)> = Vec::new();
    let (mut lsn, mut audits) = (0, 0);
    while !done.load(SeqCst) || audits == 0 {
        let snapshot = db.read().expect("a snapshot");
        assert!(snapshot.lsn().0 >= lsn, "LSNs only rise");
        lsn = snapshot.lsn().0;
        let hash = audit(&snapshot, first_lsn);
        audits += 1;
        if rng.chance(1, 3) && kept.len() < 4 {
            kept.push((snapshot, hash));
        } else if rng.chance(1, 3) && !kept.is_empty() {
            let index = rng.index(kept.len());
            let (old, hash) = kept.swap_remove(index);
            assert_eq!(audit(&old, first_lsn), hash, "a snapshot never changes");
        }
    }
    for (old, hash) in kept {
        assert_eq!(audit(&old, first_lsn), hash, "a snapshot never changes");
    }
    audits
}

#[test]
fn snapshots_go_to_other_threads_and_outlive_the_database() {
    let (dir, db) = open_new(&tiny());
    open_accounts(&db);
    let first_lsn = db.read().expect("a snapshot").lsn().0;
    let (sender, receiver) = mpsc::channel::<(Snapshot, u64)>();
    let auditor = thread::spawn(move || {
        receiver
            .iter()
            .map(|(snapshot, hash)| assert_eq!(audit(&snapshot, first_lsn), hash))
            .count()
    });
    let mut rng = Rng::new(4);
    for step in 0..200 {
        transfer(&db, &mut rng).expect("a commit");
        if step % 10 == 0 {
            let snapshot = db.read().expect("a snapshot");
            let hash = audit(&snapshot, first_lsn);
            sender.send((snapshot.clone(), hash)).expect("the auditor listens");
        }
    }
    let last = db.read().expect("a snapshot");
    let hash = audit(&last, first_lsn);
    db.close().expect("closing with snapshots still open");
    assert_eq!(audit(&last, first_lsn), hash, "it reads on after closing");
    let locked = Options::new().open(dir.path().join("db")).map(|_| ());
    assert!(matches!(locked, Err(Error::Locked { .. })), "{locked:?}");
    sender.send((last, hash)).expect("the auditor listens");
    drop(sender);
    assert_eq!(auditor.join().expect("the auditor"), 21);
    let db = tiny().open(dir.path().join("db")).expect("the last snapshot is gone");
    assert_eq!(audit(&db.read().expect("a snapshot"), first_lsn), hash);
}

#[test]
fn a_long_reader_holds_the_checkpoint_back_and_writes_go_on_into_scratch() {
    for background in [true, false] {
        let (_dir, db) = open_new(&tiny().background_threads(background).journal_max(64 << 20));
        open_accounts(&db);
        let first_lsn = db.read().expect("a snapshot").lsn().0;
        let old = db.read().expect("a snapshot");
        let hash = audit(&old, first_lsn);
        let mut rng = Rng::new(5);
        let mut scratch_max = 0;
        for _ in 0..400 {
            transfer(&db, &mut rng).expect("writes go on");
            scratch_max = scratch_max.max(db.stats().scratch_memory);
        }
        let checkpointed = db.checkpoint().expect("it does what it can");
        assert!(checkpointed <= old.lsn(), "{checkpointed} is above the reader");
        assert!(scratch_max > 0, "memory went to scratch: {:?}", db.stats());
        assert_eq!(audit(&old, first_lsn), hash, "the old snapshot is what it was");
        let held = db.stats().held_bytes;
        let readers = db.readers();
        assert_eq!(readers[0].lsn, old.lsn(), "{readers:?}");
        assert!(readers[0].opened_at.contains("concurrency.rs"), "{readers:?}");
        drop(old);
        db.checkpoint().expect("a checkpoint");
        let stats = db.stats();
        assert_eq!(stats.checkpointed, stats.committed, "{stats:?}");
        assert_eq!(stats.scratch_memory, 0, "held before: {held}; {stats:?}");
        audit(&db.read().expect("a snapshot"), first_lsn);
        assert!(db.check().expect("a check").is_clean());
    }
}

#[test]
fn a_closure_that_panics_leaves_nothing_and_the_database_goes_on() {
    let (_dir, db) = open_new(&tiny());
    open_accounts(&db);
    let before = db.read().expect("a snapshot");
    for round in 0..5_u32 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            db.write(|tx| {
                tx.drop_tree("accounts")?;
                let mut tree = tx.tree("new")?;
                for number in 0..2000_u32 {
                    tree.insert(number.to_be_bytes(), [1; 500])?;
                }
                assert!(round > 9, "on purpose");
                Ok(())
            })
        }));
        assert!(panicked.is_err());
        let after = db.read().expect("a snapshot");
        assert_eq!(after.lsn().0, before.lsn().0 + u64::from(round));
        assert!(after.find_tree("new").expect("a read").is_none());
        assert_eq!(after.tree("accounts").expect("a tree").len(), u64::from(ACCOUNTS));
        assert!(db.check().expect("a check").is_clean(), "round {round}");
        db.write(|tx| tx.tree("rounds")?.insert(round.to_be_bytes(), b"")).expect("it goes on");
    }
}

#[test]
fn writers_of_several_threads_wait_for_one_another_and_none_is_lost() {
    let (_dir, db) = open_new(&tiny());
    let db = Arc::new(db);
    let writers: Vec<_> = (0..4_u8)
        .map(|writer| {
            let db = Arc::clone(&db);
            thread::spawn(move || {
                let mut last = 0;
                for number in 0..100_u32 {
                    let receipt = db
                        .write(|tx| {
                            let mut tree = tx.tree("t")?;
                            tree.insert([&[writer][..], &number.to_be_bytes()].concat(), [writer])?;
                            Ok(tree.len())
                        })
                        .expect("a commit");
                    assert!(receipt.lsn.0 > last, "LSNs only rise");
                    last = receipt.lsn.0;
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
    let snapshot = db.read().expect("a snapshot");
    assert_eq!(snapshot.tree("t").expect("a tree").len(), 400);
    let stats = db.stats();
    assert_eq!(stats.closures, 400);
    assert!(snapshot.lsn().0 <= 401, "each closure is in one record, some share one");
    assert_eq!(snapshot.lsn(), stats.synced);
}

/// A few pages that change all the time have a newer version whenever the checkpoint comes by.
#[test]
fn a_few_hot_pages_do_not_make_the_journal_grow() {
    let options = tiny().checkpoint_distance(128 << 10).journal_max(1 << 20);
    let (_dir, db) = open_new(&options);
    let (mut longest, mut looks) = (0, 0_u32);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u8)
            .map(|writer| {
                let db = &db;
                scope.spawn(move || {
                    for number in 0..600_u32 {
                        let value = [number.to_le_bytes(), [writer; 4]].concat().repeat(120);
                        db.write(|tx| tx.tree("hot")?.insert([writer], value)).expect("a commit");
                    }
                })
            })
            .collect();
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            longest = longest.max(db.stats().journal_bytes);
            looks += 1;
        }
    });
    assert!(looks > 0 && db.stats().checkpoints > 1, "{:?}", db.stats());
    // A batch of both writers, and the blocks around it, may pass the bound.
    assert!(longest <= (1 << 20) + (64 << 10), "{longest} bytes of journal");
    let files = db.report().expect("a report").journal.bytes;
    assert!(files < 16 << 20, "{files} bytes of segments and spares");
    assert!(db.check().expect("a check").is_clean());
}

/// Under writes that are acknowledged before their sync, the newest commit is never durable for long.
#[test]
fn the_checkpoint_comes_to_its_end_beside_writers_that_do_not_wait_for_the_disk() {
    let options = tiny().versions_memory(64 << 20).checkpoint_interval(Duration::from_secs(3600));
    let options = options.checkpoint_distance(256 << 20).journal_max(512 << 20);
    let (_dir, db) = open_new(&options);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..2_u64 {
            let (db, stop) = (&db, &stop);
            scope.spawn(move || {
                let mut number = writer << 32;
                while !stop.load(SeqCst) {
                    number += 1;
                    let key = mix(7, number).to_be_bytes();
                    let change = |tx: &mut treepie::WriteTxn<'_>| {
                        tx.tree("t")?.insert(key, [writer as u8; 900])
                    };
                    db.write_as(treepie::Durability::Buffered, change).expect("a commit");
                }
            });
        }
        // Enough pages for several slices of a pass.
        while db.stats().versions < 5000 {
            thread::yield_now();
        }
        let before = db.stats();
        let reached = db.checkpoint();
        stop.store(true, SeqCst);
        let reached = reached.expect("a checkpoint");
        assert!(reached > before.checkpointed && reached.0 > before.committed.0 / 2, "{before:?}");
    });
    assert!(db.check().expect("a check").is_clean());
}
