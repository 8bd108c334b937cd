//! Merged transactions: many callers, one record; each with its own outcome.

use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use treepie::{Database, Durability, Error, Options, Overlap, Receipt, Result, WriteTxn, ids::Lsn};
use treepie_testkit::SimDisk;

use crate::{
    batches::{Caller, LONG, together, until, until_stats},
    harness::{self, DIR},
};

/// A database in memory, whose batches are exactly those that a test makes.
pub fn open(options: impl FnOnce(Options) -> Options) -> Database {
    let base = harness::options(&SimDisk::new(1)).gather_max(Duration::ZERO);
    let base = base.background_threads(true).merge_time_max(LONG).checkpoint_distance(4 << 20);
    options(base.versions_memory(16 << 20)).open(DIR).expect("a new database opens")
}

/// A caller who writes.
fn caller<'env, T: Send + 'env>(
    db: &'env Database,
    change: impl FnOnce(&mut WriteTxn<'_>) -> Result<T> + Send + 'env,
) -> Caller<'env, Result<Receipt<T>>> {
    Box::new(move || db.write(change))
}

/// Changes a bit of everything: pages, trees, runs, free space, annotations.
fn havoc(tx: &mut WriteTxn<'_>) -> Result<()> {
    tx.drop_tree("old")?;
    tx.tree("old")?.insert("other", [1; 50])?;
    tx.tree("cleared")?.clear()?;
    let mut new = tx.tree("new")?;
    for number in 0..200_u32 {
        new.insert(number.to_be_bytes(), [2; 300])?;
    }
    new.insert("large", vec![3; 50_000])?;
    let mut kept = tx.tree("kept")?;
    kept.insert("a", "changed")?;
    kept.remove("run")?;
    tx.annotate(*b"nobody sees this")
}

fn furnish(db: &Database) -> Lsn {
    let receipt = db.write(|tx| {
        for name in ["old", "cleared", "kept"] {
            let mut tree = tx.tree(name)?;
            for number in 0..100_u32 {
                tree.insert(number.to_be_bytes(), [9; 100])?;
            }
            tree.insert("run", vec![8; 20_000])?;
        }
        tx.tree("kept").map(|_| ())
    });
    receipt.expect("a commit").lsn
}

fn put(key: &'static str) -> impl FnOnce(&mut WriteTxn<'_>) -> Result<u64> + Send {
    move |tx| {
        tx.annotate(key)?;
        let mut kept = tx.tree("kept")?;
        kept.insert(key, key)?;
        Ok(kept.len())
    }
}

/// Tree, key, value.
type Entry = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Every entry of every tree, how many pages they take, and how many are free.
fn contents(db: &Database) -> (Vec<Entry>, u64, u64) {
    let check = db.check().expect("a check begins");
    assert!(check.is_clean(), "{:?}", check.problems);
    let snapshot = db.read().expect("a snapshot");
    let mut entries = Vec::new();
    for info in snapshot.trees().expect("the trees") {
        if info.name.starts_with(b"$") {
            continue;
        }
        entries.push((info.name.clone(), Vec::new(), Vec::new()));
        for entry in snapshot.tree(&info.name).expect("a tree").iter() {
            let (key, value) = entry.expect("an entry");
            entries.push((info.name.clone(), key.to_vec(), value.to_vec()));
        }
    }
    (entries, check.tree_pages, check.free_pages)
}

#[test]
fn a_failure_and_a_panic_inside_a_batch_leave_the_others_in_one_record_and_nothing_of_themselves() {
    let (db, twin) = (open(|options| options), open(|options| options));
    let before = furnish(&db);
    furnish(&twin);
    let stats = db.stats();
    let fails = |tx: &mut WriteTxn<'_>| {
        havoc(tx)?;
        Err::<u64, _>(Error::rejected("on purpose"))
    };
    let panics = |tx: &mut WriteTxn<'_>| -> Result<u64> {
        havoc(tx)?;
        resume_unwind(Box::new("a panic of the caller's own"))
    };
    let callers = vec![
        caller(&db, fails),
        caller(&db, put("b")),
        caller(&db, fails),
        caller(&db, put("d")),
        caller(&db, panics),
        caller(&db, put("f")),
        caller(&db, panics),
    ];
    let ends = together(&db, callers);
    let after = db.stats();
    for (index, count) in [(1, 102), (3, 103), (5, 104)] {
        let receipt = ends[index].as_ref().expect("no panic").as_ref().expect("a commit");
        assert_eq!((receipt.value, receipt.lsn), (count, before.next()), "caller {index}");
    }
    for index in [0, 2] {
        let error = ends[index].as_ref().expect("no panic").as_ref().expect_err("an error");
        assert!(error.to_string().contains("on purpose"), "caller {index}: {error}");
    }
    for index in [4, 6] {
        let panic = ends[index].as_ref().expect_err("a panic");
        assert_eq!(panic.downcast_ref(), Some(&"a panic of the caller's own"), "caller {index}");
    }
    assert_eq!(after.commits, stats.commits + 1);
    assert_eq!(after.closures, stats.closures + 3);
    assert_eq!(after.rollbacks, stats.rollbacks + 4);
    assert_eq!(after.syncs, stats.syncs + 1);
    assert_eq!(after.committed, before.next());
    // The same without those that failed: not a page, not an annotation is left of them.
    let ends = together(&twin, ["b", "d", "f"].map(|key| caller(&twin, put(key))).into());
    assert!(ends.iter().flatten().all(Result::is_ok), "{ends:?}");
    assert_eq!(contents(&db), contents(&twin));
    let annotations = |db: &Database| {
        let records = db.journal_records(before.next()).expect("the journal");
        records.map(|record| record.expect("a record").annotation_bytes).collect::<Vec<_>>()
    };
    assert_eq!(annotations(&db), annotations(&twin));
    assert_eq!(annotations(&db), [3]);
    // What a commit supersedes goes with the next one.
    for db in [&db, &twin] {
        db.write(put("z")).expect("a commit");
    }
    assert_eq!(db.stats().versions_memory, twin.stats().versions_memory, "memory is given back");
}

#[test]
fn a_batch_of_failures_alone_makes_no_record() {
    let db = open(|options| options);
    let before = furnish(&db);
    let (content, stats) = (contents(&db), db.stats());
    let fails =
        |tx: &mut WriteTxn<'_>| havoc(tx).and_then(|()| Err::<(), _>(Error::rejected("no")));
    let ends = together(&db, (0..4).map(|_| caller(&db, fails)).collect());
    assert!(ends.iter().flatten().all(Result::is_err), "{ends:?}");
    assert_eq!(db.stats().commits, stats.commits);
    assert_eq!(db.stats().sealed, before);
    assert_eq!(contents(&db), content);
    let receipt = db.write(put("z")).expect("it goes on");
    assert_eq!(receipt.lsn, before.next());
}

#[test]
fn every_closure_runs_once_in_the_order_of_their_coming_on_top_of_those_before() {
    let db = open(|options| options);
    let runs = AtomicU64::new(0);
    let count = |tx: &mut WriteTxn<'_>| {
        let run = runs.fetch_add(1, SeqCst);
        let mut tree = tx.tree("t")?;
        let seen =
            tree.get("count")?.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
        tree.insert("count", (seen + 1).to_be_bytes())?;
        if run % 3 == 1 { Err(Error::rejected("every third")) } else { Ok((run, seen)) }
    };
    let ends = together(&db, (0..20).map(|_| caller(&db, count)).collect());
    assert_eq!(runs.load(SeqCst), 20);
    let mut kept = 0;
    for (number, end) in (0_u64..).zip(ends) {
        match end.expect("no panic") {
            Ok(Receipt { value, lsn }) => {
                assert_eq!((value, lsn), ((number, kept), Lsn(2)));
                kept += 1;
            }
            Err(_) => assert_eq!(number % 3, 1),
        }
    }
}

#[test]
fn a_closure_borrows_from_the_stack_of_its_caller() {
    let db = open(|options| options);
    let callers = (0..8_u8).map(|number| -> Caller<'_, usize> {
        let db = &db;
        Box::new(move || {
            let text = format!("value of {number}");
            let mut lens = Vec::new();
            db.write(|tx| {
                tx.tree("t")?.insert([number], &text)?;
                lens.push(text.len());
                Ok(())
            })
            .expect("a commit");
            lens[0]
        })
    });
    let lens = together(&db, callers.collect());
    assert!(lens.into_iter().all(|len| len.expect("no panic") == 10));
    assert_eq!(db.stats().committed, Lsn(2), "one record");
}

#[test]
fn a_write_inside_a_merged_closure_is_refused_on_whatever_thread_it_runs() {
    let db = open(|options| options);
    let inner = |tx: &mut WriteTxn<'_>| {
        assert!(matches!(db.write(|_| Ok(())), Err(Error::Reentrant)));
        assert!(matches!(db.write_as(Durability::Memory, |_| Ok(())), Err(Error::Reentrant)));
        assert!(matches!(db.submit(|_| Ok(())), Err(Error::Reentrant)));
        assert!(matches!(db.begin_write(), Err(Error::Reentrant)));
        tx.tree("t").map(|_| ())
    };
    let ends = together(&db, (0..3).map(|_| caller(&db, inner)).collect());
    assert!(ends.into_iter().all(|end| end.expect("no panic").is_ok()));
    let held = db.begin_write().expect("a transaction");
    assert!(matches!(db.write(|_| Ok(())), Err(Error::Reentrant)));
    assert!(matches!(db.submit(|_| Ok(())), Err(Error::Reentrant)));
    drop(held);
    assert_eq!(db.stats().waiting, 0);
    db.write(|_| Ok(())).expect("it goes on");
}

#[test]
fn a_handle_of_another_closure_of_the_batch_is_refused() {
    let db = open(|options| options);
    let handle = parking_lot::Mutex::new(None);
    let callers = vec![
        caller(&db, |tx| {
            *handle.lock() = Some(tx.tree_handle("t")?);
            Ok(())
        }),
        caller(&db, |tx| tx.by_handle(handle.lock().expect("the first ran")).map(|_| ())),
    ];
    let ends = together(&db, callers);
    assert!(ends[0].as_ref().expect("no panic").is_ok());
    assert!(ends[1].is_err(), "the handle was of another closure");
}

/// What each bound makes of 12 closures of one batch: so many records.
#[test]
fn the_bounds_of_a_merged_transaction_split_a_batch_and_everyone_is_acknowledged() {
    let records = |options: fn(Options) -> Options| {
        let db = open(options);
        furnish(&db);
        let before = db.stats();
        let change = |tx: &mut WriteTxn<'_>| {
            let mut tree = tx.tree("t")?;
            let len = tree.len();
            tree.insert(len.to_be_bytes(), vec![1; 16_000])
        };
        let ends = together(&db, (0..12).map(|_| caller(&db, change)).collect());
        let mut lsns: Vec<Lsn> =
            ends.into_iter().map(|end| end.expect("no panic").expect("a commit").lsn).collect();
        let mut sorted = lsns.clone();
        sorted.sort_unstable();
        assert_eq!(lsns, sorted, "in the order of their coming");
        lsns.dedup();
        let after = db.stats();
        assert_eq!(after.closures - before.closures, 12);
        assert_eq!(after.commits - before.commits, lsns.len() as u64);
        assert_eq!(after.synced, *lsns.last().expect("there are some"));
        assert_eq!(db.read().expect("a snapshot").tree("t").expect("a tree").len(), 12);
        assert!(db.check().expect("a check").is_clean());
        (lsns.len(), after.syncs - before.syncs)
    };
    assert_eq!(records(|options| options), (1, 1), "without a bound");
    assert_eq!(records(|options| options.merge_closures_max(4)), (3, 3));
    assert_eq!(records(|options| options.merge_time_max(Duration::ZERO)), (12, 12));
    let (count, syncs) = records(|options| options.merge_bytes_max(50_000));
    assert!((3..=6).contains(&count) && syncs == count as u64, "{count} records, {syncs} syncs");
    let one_at_a_time =
        |options: Options| options.merge_time_max(Duration::ZERO).in_flight_records_max(1);
    assert_eq!(records(one_at_a_time), (12, 12));
    let few_bytes =
        |options: Options| options.merge_time_max(Duration::ZERO).in_flight_bytes_max(1);
    assert_eq!(records(few_bytes), (12, 12));
}

/// A transaction whose own bound is passed fails alone.
#[test]
fn a_closure_beyond_the_memory_fails_alone() {
    let db = open(|options| options.versions_memory(1 << 20).scratch_memory(1 << 20));
    let large = |tx: &mut WriteTxn<'_>| {
        let mut tree = tx.tree("large")?;
        for number in 0..2000_u32 {
            tree.insert(number.to_be_bytes(), [1; 3000])?;
        }
        Ok(0)
    };
    let callers = vec![caller(&db, put("a")), caller(&db, large), caller(&db, put("b"))];
    let ends = together(&db, callers);
    let ends: Vec<_> = ends.into_iter().map(|end| end.expect("no panic")).collect();
    assert!(ends[0].is_ok() && ends[2].is_ok(), "{ends:?}");
    assert!(matches!(ends[1], Err(Error::Bound { .. })), "{ends:?}");
    let snapshot = db.read().expect("a snapshot");
    assert!(snapshot.find_tree("large").expect("a read").is_none());
    assert_eq!(snapshot.tree("kept").expect("a tree").len(), 2);
    assert!(db.check().expect("a check").is_clean());
}

#[test]
fn writers_of_many_threads_overlap_with_the_disk_and_none_is_lost() {
    for overlap in [Overlap::Always, Overlap::Never, Overlap::WhenLarge] {
        let db = open(|options| {
            let options = options.overlap(overlap).merge_closures_max(3).in_flight_records_max(3);
            options.gather_max(Duration::from_micros(50)).journal_max(64 << 20)
        });
        thread::scope(|scope| {
            for writer in 0..8_u8 {
                let db = &db;
                scope.spawn(move || {
                    let mut last = Lsn(0);
                    for number in 0..150_u8 {
                        let receipt = db.write(|tx| {
                            let mut tree = tx.tree("t")?;
                            tree.insert([writer, number], vec![number; usize::from(number) * 30])?;
                            if number % 10 == 9 { Err(Error::rejected("a tenth")) } else { Ok(()) }
                        });
                        let Ok(receipt) = receipt else { continue };
                        assert!(receipt.lsn > last, "LSNs of a caller rise");
                        assert!(
                            db.read().expect("a snapshot").lsn() >= receipt.lsn,
                            "it is visible"
                        );
                        assert!(db.stats().synced >= receipt.lsn, "it is durable");
                        last = receipt.lsn;
                    }
                });
            }
        });
        let stats = db.stats();
        assert_eq!(stats.closures, 8 * 135, "{overlap:?}");
        assert_eq!(stats.committed, stats.sealed, "{overlap:?}");
        let snapshot = db.read().expect("a snapshot");
        assert_eq!(snapshot.tree("t").expect("a tree").len(), 8 * 135, "{overlap:?}");
        assert!(db.check().expect("a check").is_clean(), "{overlap:?}");
    }
}

#[test]
fn what_is_seen_and_what_is_durable_is_as_each_durability_says() {
    let db = open(|options| options.sync_interval(LONG));
    let write = |durability| {
        let receipt = db.write_as(durability, |tx| tx.tree("t")?.insert("k", "v"));
        let lsn = receipt.expect("a commit").lsn;
        assert!(db.read().expect("a snapshot").lsn() >= lsn, "{durability:?} is visible");
        let stats = db.stats();
        (stats.appended >= lsn, stats.synced >= lsn)
    };
    assert_eq!(write(Durability::Sync), (true, true));
    assert_eq!(write(Durability::Buffered), (true, false));
    assert_eq!(write(Durability::Memory), (false, false));
    assert_eq!(write(Durability::Memory), (false, false));
    assert_eq!(write(Durability::Buffered), (true, false), "those before it too");
    assert_eq!(write(Durability::Memory), (false, false));
    assert_eq!(write(Durability::Group { delay_max: Duration::from_millis(1) }), (true, true));
    assert_eq!(write(Durability::Memory), (false, false));
    let synced = db.sync().expect("a sync");
    let stats = db.stats();
    assert_eq!((synced, stats.synced, stats.appended), (stats.sealed, stats.sealed, stats.sealed));
    let syncs = stats.syncs;
    assert_eq!(db.sync().expect("there is nothing to do"), synced);
    assert_eq!(db.stats().syncs, syncs);
}

#[test]
fn writes_that_did_not_wait_are_synced_by_themselves_soon() {
    for durability in [Durability::Buffered, Durability::Memory] {
        let db = open(|options| options.sync_interval(Duration::from_millis(1)));
        for round in 0..3_u8 {
            let written = db.write_as(durability, |tx| tx.tree("t")?.insert([round], "v"));
            let lsn = written.expect("a commit").lsn;
            until_stats(&db, "it is synced", |stats| stats.synced >= lsn);
        }
    }
}

/// Whoever asks for less than the others of a batch gets what they get; nobody gets less.
#[test]
fn a_batch_is_as_durable_as_its_strictest_closure() {
    let db = open(|options| options.sync_interval(LONG));
    let as_durable = |durability| -> Caller<'_, (Lsn, Lsn)> {
        let db = &db;
        Box::new(move || {
            let written = db.write_as(durability, |tx| tx.tree("t")?.insert("k", "v"));
            (written.expect("a commit").lsn, db.stats().synced)
        })
    };
    let callers = vec![as_durable(Durability::Memory), as_durable(Durability::Sync)];
    for end in together(&db, callers) {
        let (lsn, synced) = end.expect("no panic");
        assert!(synced >= lsn);
    }
}

/// The most impatient of a batch decides how long it waits for others.
#[test]
fn a_patient_write_waits_for_others_and_not_longer_than_the_most_impatient_of_them() {
    let patient = Durability::Group { delay_max: LONG };
    let less_patient = Durability::Group { delay_max: Duration::from_millis(1) };
    for other in [Durability::Sync, Durability::Buffered, Durability::Memory, less_patient] {
        let db = open(|options| options);
        let begin = Instant::now();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| db.write_as(patient, put("a")).expect("a commit"));
            until_stats(&db, "the patient one waits", |stats| stats.waiting == 1);
            let receipt = db.write_as(other, put("b")).expect("a commit");
            assert_eq!(waiting.join().expect("no panic").lsn, receipt.lsn, "{other:?}");
        });
        assert!(begin.elapsed() < LONG / 2, "{other:?} waited {:?}", begin.elapsed());
    }
    let begin = Instant::now();
    let db = open(|options| options);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| db.write_as(patient, put("a")).expect("a commit"));
        until_stats(&db, "the patient one waits", |stats| stats.waiting == 1);
        let outside = db.begin_write().expect("a transaction");
        assert!(begin.elapsed() < LONG / 2, "a transaction of its own waits for nobody's company");
        drop(outside);
        // In case that one came first.
        db.write(put("b")).expect("a commit");
        waiting.join().expect("no panic");
    });
    let begin = Instant::now();
    let db = open(|options| options.merge_closures_max(2));
    thread::scope(|scope| {
        scope.spawn(|| db.write_as(patient, put("a")).expect("a commit"));
        until_stats(&db, "the patient one waits", |stats| stats.waiting == 1);
        db.write_as(patient, put("b")).expect("a commit");
    });
    assert!(begin.elapsed() < LONG / 2, "a full batch waits for nobody");
    let delay = Duration::from_millis(20);
    let begin = Instant::now();
    db.write_as(Durability::Group { delay_max: delay }, put("c")).expect("a commit");
    assert!(begin.elapsed() >= delay, "alone it waits to the end");
}

#[test]
fn timings_tell_batches_waits_and_slow_closures_by_their_call_site() {
    let db = open(|options| options.slow_closure(Duration::from_millis(5)));
    let before = db.timings();
    let held = Duration::from_millis(10);
    let change = |tx: &mut WriteTxn<'_>| {
        let begin = Instant::now();
        until("it has taken long", || begin.elapsed() >= held);
        tx.tree("t").map(|_| ())
    };
    let ends = together(&db, (0..3).map(|_| caller(&db, change)).collect());
    assert!(ends.into_iter().all(|end| end.expect("no panic").is_ok()));
    let timings = db.timings();
    assert_eq!(timings.batch_size.count, before.batch_size.count + 1);
    assert_eq!(timings.batch_size.max, 3);
    assert_eq!(timings.queue_wait_ns.count, before.queue_wait_ns.count + 3);
    assert!(timings.queue_wait_ns.max > 0);
    assert_eq!(timings.run_ns.count, before.run_ns.count + 3);
    assert!(u128::from(timings.run_ns.max) >= held.as_nanos(), "{timings:?}");
    assert_eq!(timings.seal_ns.count, before.seal_ns.count + 1);
    for step in [timings.write_ns, timings.sync_ns, timings.commit_ns] {
        assert!(step.count >= 1 && step.max > 0, "{timings:?}");
    }
    assert_eq!(timings.slow.len(), 1, "{timings:?}");
    assert!(timings.slow[0].at.contains("merging.rs:"), "{timings:?}");
    assert_eq!(timings.slow[0].count, 3);
    assert!(u128::from(timings.slow[0].max_ns) >= held.as_nanos(), "{timings:?}");
}

#[test]
fn a_snapshot_opened_inside_a_closure_does_not_see_the_batch() {
    let db = Arc::new(open(|options| options));
    let callers = (0..3_u8).map(|number| {
        let db = &db;
        caller(db, move |tx| {
            tx.tree("t")?.insert([number], "v")?;
            let seen = db.read()?.find_tree("t")?.map_or(0, |tree| tree.len());
            Ok((seen, tx.tree("t")?.len()))
        })
    });
    for (number, end) in (1..).zip(together(&db, callers.collect())) {
        assert_eq!(end.expect("no panic").expect("a commit").value, (0, number));
    }
    assert_eq!(db.read().expect("a snapshot").tree("t").expect("a tree").len(), 3);
}
