//! Submitted writes: callers that go on, and handles that are futures.

use std::{
    future::Future,
    panic::resume_unwind,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use treepie::{Durability, Error, Options, Result, Submitted, WriteTxn, ids::Lsn};
use treepie_testkit::SimDisk;

use crate::{
    batches::{Holder, LONG, until, until_stats},
    harness::{self, DIR},
    merging::open,
};

/// Wakes a thread, and counts how often.
struct Parked {
    thread: thread::Thread,
    wakes: AtomicU64,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        self.thread.unpark();
    }
}

/// The smallest executor: polls one future until it is ready.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let parked = Arc::new(Parked { thread: thread::current(), wakes: AtomicU64::new(0) });
    let waker = Waker::from(parked);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn put(number: u32) -> impl FnOnce(&mut WriteTxn<'_>) -> Result<u64> + Send + 'static {
    move |tx| {
        let mut tree = tx.tree("t")?;
        tree.insert(number.to_be_bytes(), number.to_be_bytes())?;
        Ok(tree.len())
    }
}

#[test]
fn a_handle_is_a_future_that_needs_no_runtime() {
    let db = open(|options| options);
    let receipt = block_on(db.submit(put(1)).expect("it is taken")).expect("a commit");
    assert_eq!((receipt.value, receipt.lsn), (1, Lsn(2)));
    assert!(db.stats().synced >= receipt.lsn);
    let sum = block_on(async {
        let first = db.submit(put(2))?.await?.value;
        let (second, third) = (db.submit(put(3))?, db.submit(put(4))?);
        Ok::<_, Error>(first + second.await?.value + third.await?.value)
    });
    assert_eq!(sum.expect("three commits"), 2 + 3 + 4);
    let failed = block_on(db.submit(|_| Err::<(), _>(Error::rejected("no"))).expect("taken"));
    assert!(matches!(failed, Err(Error::Rejected(_))), "{failed:?}");
}

#[test]
fn a_handle_wakes_whoever_polled_it_last_once_and_knows_when_it_is_done() {
    let db = open(|options| options);
    thread::scope(|scope| {
        let holder = Holder::start(scope, &db);
        holder.hold();
        let mut handle = db.submit(put(1)).expect("it is taken");
        let parked = || Arc::new(Parked { thread: thread::current(), wakes: AtomicU64::new(0) });
        let (first, last) = (parked(), parked());
        for parked in [&first, &last, &last] {
            let waker = Waker::from(Arc::clone(parked));
            let polled = Pin::new(&mut handle).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        assert!(!handle.is_done());
        holder.release();
        until("it is done", || handle.is_done());
        until("someone is woken", || last.wakes.load(SeqCst) == 1);
        assert_eq!(first.wakes.load(SeqCst), 0);
        assert!(block_on(handle).is_ok());
    });
}

/// The waker is someone else's code.
#[test]
fn a_waker_that_panics_harms_nobody() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            resume_unwind(Box::new("a bad waker"));
        }
    }
    let db = open(|options| options);
    thread::scope(|scope| {
        let holder = Holder::start(scope, &db);
        holder.hold();
        let mut handle = db.submit(put(1)).expect("it is taken");
        let other = db.submit(put(2)).expect("it is taken");
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
        holder.release();
        assert_eq!(other.wait().expect("a commit").value, 2);
        assert_eq!(handle.wait().expect("a commit").value, 1);
    });
    assert_eq!(db.stats().poisoned_by, None);
}

#[test]
fn a_dropped_handle_changes_nothing() {
    let db = open(|options| options);
    let ran = Arc::new(AtomicBool::new(false));
    for number in 0..10 {
        drop(db.submit(put(number)).expect("it is taken"));
    }
    let running = Arc::clone(&ran);
    drop(db.submit(move |_| {
        running.store(true, SeqCst);
        Err::<(), _>(Error::rejected("nobody hears this"))
    }));
    drop(db.submit(|_| -> Result<()> { resume_unwind(Box::new("nor this")) }));
    assert_eq!(db.submit(put(10)).expect("taken").wait().expect("a commit").value, 11);
    assert!(ran.load(SeqCst));
    assert_eq!(db.stats().poisoned_by, None);
}

#[test]
fn a_panic_becomes_an_error_with_its_message_and_leaves_nothing() {
    let db = open(|options| options);
    thread::scope(|scope| {
        let holder = Holder::start(scope, &db);
        holder.hold();
        let before = db.submit(put(1)).expect("it is taken");
        let panics = db.submit(|tx| -> Result<()> {
            tx.tree("gone")?.insert("k", "v")?;
            resume_unwind(Box::new(format!("number {}", 7)))
        });
        let strange = db.submit(|_| -> Result<()> { resume_unwind(Box::new(7_u64)) });
        let after = db.submit(put(2)).expect("it is taken");
        holder.release();
        let lsns = [before, after].map(|handle| handle.wait().expect("a commit").lsn);
        assert_eq!(lsns, [Lsn(2), Lsn(2)], "one record");
        match panics.expect("it is taken").wait() {
            Err(Error::Panicked { message }) => assert_eq!(message, "number 7"),
            other => panic!("{other:?}"),
        }
        let strange = strange.expect("it is taken").wait();
        assert!(matches!(strange, Err(Error::Panicked { .. })), "{strange:?}");
    });
    assert!(db.read().expect("a snapshot").find_tree("gone").expect("a read").is_none());
}

#[test]
fn what_one_thread_submits_runs_in_its_order() {
    for background in [true, false] {
        let db = open(|options| {
            options.background_threads(background).overlap(treepie::Overlap::Always)
        });
        thread::scope(|scope| {
            for writer in 0..4_u32 {
                let db = &db;
                scope.spawn(move || {
                    let submit = |number: u32| {
                        db.submit(move |tx| {
                            let mut tree = tx.tree("t")?;
                            let before = tree.get(writer.to_be_bytes())?.map(<[u8]>::to_vec);
                            tree.insert(writer.to_be_bytes(), number.to_be_bytes())?;
                            Ok(before)
                        })
                    };
                    let handles: Result<Vec<Submitted<Option<Vec<u8>>>>> =
                        (0..200).map(submit).collect();
                    let mut last = Lsn(0);
                    for (number, handle) in (0_u32..).zip(handles.expect("all are taken")) {
                        let receipt = handle.wait().expect("a commit");
                        let expected = number.checked_sub(1).map(|n| n.to_be_bytes().to_vec());
                        assert_eq!(receipt.value, expected, "writer {writer}");
                        assert!(receipt.lsn >= last);
                        last = receipt.lsn;
                    }
                });
            }
        });
        assert_eq!(db.stats().closures, 800);
    }
}

#[test]
fn whoever_submits_into_a_full_queue_waits_for_room() {
    let db = open(|options| options.queue_max(3));
    let submitted = AtomicU64::new(0);
    thread::scope(|scope| {
        let holder = Holder::start(scope, &db);
        holder.hold();
        let (submitted, db) = (&submitted, &db);
        let submitter = scope.spawn(move || {
            let handles = (0..5).map(|number| {
                let handle = db.submit(put(number)).expect("it is taken");
                submitted.fetch_add(1, SeqCst);
                handle
            });
            handles.collect::<Vec<_>>()
        });
        until("the queue is full", || submitted.load(SeqCst) == 3);
        // One who writes waits for room as well.
        let writer = scope.spawn(move || db.write(|tx| tx.tree("u").map(drop)).expect("a commit"));
        for _ in 0..200 {
            assert_eq!((submitted.load(SeqCst), db.stats().waiting), (3, 3), "no room, no entry");
            thread::yield_now();
        }
        holder.release();
        for handle in submitter.join().expect("no panic") {
            handle.wait().expect("a commit");
        }
        writer.join().expect("no panic");
    });
    assert_eq!(db.stats().closures, 6);
}

#[test]
fn closing_the_database_finishes_what_was_submitted() {
    for durability in [
        Durability::Sync,
        Durability::Buffered,
        Durability::Memory,
        Durability::Group { delay_max: LONG },
    ] {
        let disk = SimDisk::new(1);
        let options = || {
            let options = harness::options(&disk).background_threads(true).journal_max(64 << 20);
            options.sync_interval(LONG).checkpoint_on_close(false)
        };
        let db = options().open(DIR).expect("a new database opens");
        let begin = Instant::now();
        let submit = |number| db.submit_as(durability, put(number)).expect("it is taken");
        let handles: Vec<_> = (0..300).map(submit).collect();
        db.close().expect("it closes");
        assert!(begin.elapsed() < LONG / 2, "{durability:?}: closing hurries who waits for others");
        assert!(handles.iter().all(Submitted::is_done), "{durability:?}");
        let lsns: Vec<Lsn> =
            handles.into_iter().map(|handle| handle.wait().expect("a commit").lsn).collect();
        // A power cut now takes nothing.
        let log = disk.log();
        let image = log.image(log.len(), 3);
        let db = harness::options(&image).open(DIR).expect("it opens again");
        let snapshot = db.read().expect("a snapshot");
        assert_eq!(snapshot.lsn(), *lsns.last().expect("there are some"), "{durability:?}");
        assert_eq!(snapshot.tree("t").expect("a tree").len(), 300, "{durability:?}");
    }
}

/// The closure, its value or its waker may hold the last handle of the database, which then goes on
/// a thread of the merger.
#[test]
fn the_last_handle_of_the_database_may_go_inside_a_submitted_closure() {
    for how in 0..3 {
        let disk = SimDisk::new(1);
        let options = || harness::options(&disk).background_threads(true);
        let db = options().open(DIR).expect("a new database opens");
        let go = Arc::new(AtomicBool::new(false));
        let (gone, inner) = (Arc::clone(&go), db.clone());
        let handle = db.submit(move |tx| {
            until("the other handle is gone", || gone.load(SeqCst));
            tx.tree("t")?.insert("k", "v")?;
            // In the closure, or with its value.
            Ok(if how == 0 { None } else { Some(inner) })
        });
        let handle = handle.expect("it is taken");
        drop(db);
        if how == 1 {
            drop(handle);
            go.store(true, SeqCst);
        } else {
            go.store(true, SeqCst);
            drop(handle.wait().expect("a commit"));
        }
        let begin = Instant::now();
        let db = loop {
            match options().open(DIR) {
                Err(Error::Locked { .. }) if begin.elapsed() < LONG / 2 => thread::yield_now(),
                opened => break opened.unwrap_or_else(|error| panic!("way {how}: {error}")),
            }
        };
        let snapshot = db.read().expect("a snapshot");
        assert_eq!(snapshot.tree("t").expect("a tree").len(), 1, "way {how}");
    }
}

/// A value that nobody takes is dropped by the thread that settled it.
#[test]
fn a_value_whose_drop_panics_harms_nobody() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            if !thread::panicking() {
                resume_unwind(Box::new("a bad value"));
            }
        }
    }
    let db = open(|options| options);
    thread::scope(|scope| {
        let holder = Holder::start(scope, &db);
        holder.hold();
        drop(db.submit(|tx| tx.tree("t").map(|_| Bad)));
        let other = db.submit(put(2)).expect("it is taken");
        holder.release();
        assert_eq!(other.wait().expect("a commit").value, 1);
    });
    assert_eq!(db.stats().poisoned_by, None);
    db.write(put(3)).expect("it goes on");
}

#[test]
fn without_threads_a_submitted_write_is_done_at_once() {
    let db = open(|options| options.background_threads(false));
    for number in 0..5 {
        let handle = db.submit(put(number)).expect("it is taken");
        assert!(handle.is_done());
        assert_eq!(handle.wait().expect("a commit").value, u64::from(number) + 1);
    }
    assert_eq!(db.stats().committed, Lsn(6));
}

#[test]
fn many_submitted_writes_share_few_records_and_none_is_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    let db = Options::new().create(true).open(dir.path().join("db")).expect("a new database opens");
    let handles: Vec<_> = (0..20_000).map(|n| db.submit(put(n)).expect("it is taken")).collect();
    for handle in handles {
        handle.wait().expect("a commit");
    }
    let stats = db.stats();
    assert_eq!(stats.closures, 20_000);
    assert!(stats.commits < 10_000, "{stats:?}");
    assert_eq!(db.read().expect("a snapshot").tree("t").expect("a tree").len(), 20_000);
    until_stats(&db, "nothing waits", |stats| stats.waiting == 0);
    assert!(db.timings().queue_wait_ns.count >= 20_000);
    assert!(
        db.timings().batch_size.max > 1 && Duration::from_nanos(db.timings().sync_ns.max) < LONG
    );
}
