//! The replication door with threads on all sides of it: writers, a journal, and who commits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc::{self, Sender},
    },
    thread,
    time::Instant,
};

use treepie::{
    Database, Durability, Error, Options, Overlap,
    ids::{Lsn, Term},
    replication::{Door, HardState, Outlet, SharedRecord},
};

use crate::harness::{file_options, open_new};

/// What the thread of the journal is sent; nothing at the end.
type Message = Option<SharedRecord>;

/// Sends what is sealed to the thread of the journal.
#[derive(Clone)]
struct Channel(Arc<parking_lot::Mutex<Sender<Message>>>);

impl Channel {
    fn new() -> (Channel, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel();
        (Channel(Arc::new(parking_lot::Mutex::new(sender))), receiver)
    }

    fn end(&self) {
        let _ = self.0.lock().send(None);
    }
}

impl Outlet for Channel {
    fn sealed(&self, record: SharedRecord) {
        // Nobody listens any more when the test is at its end.
        let _ = self.0.lock().send(Some(record));
    }
}

/// A new database that leads alone, and the records that come out of it.
struct Leading {
    dir: tempfile::TempDir,
    db: Database,
    door: Door,
    channel: Channel,
    sealed: mpsc::Receiver<Message>,
}

fn leading(options: &Options) -> Leading {
    let (dir, db) = open_new(options);
    let (channel, sealed) = Channel::new();
    let door = db.replicate(Arc::new(channel.clone())).expect("nobody has the door");
    let record = door.no_op(Term(2)).expect("it follows");
    let hard_state = HardState { term: Term(2), vote: 1 };
    door.append(Some(hard_state), std::slice::from_ref(&record)).expect("an append");
    door.sync().expect("a sync");
    door.commit(record.lsn()).expect("a commit");
    door.lead(Term(2)).expect("everything is committed");
    Leading { dir, db, door, channel, sealed }
}

/// Appends, syncs and commits what is sealed, in groups, until there is nothing more to come.
fn replicate_alone(door: &Door, sealed: &mpsc::Receiver<Message>) {
    while let Ok(Some(first)) = sealed.recv() {
        let mut group = vec![first];
        // The end comes when nothing is sealed any more.
        group.extend(sealed.try_iter().take(3).flatten());
        door.append(None, &group).expect("an append");
        door.sync().expect("a sync");
        door.commit(group.last().expect("one at least").lsn()).expect("a commit");
    }
}

#[test]
fn writers_of_all_kinds_are_told_when_their_record_is_committed() {
    const WRITERS: u32 = 12;
    const WRITES: u32 = 60;
    for overlap in [Overlap::WhenLarge, Overlap::Always] {
        let options = file_options().in_flight_records_max(2).overlap(overlap);
        let Leading { dir: _dir, db, door, channel, sealed } = leading(&options);
        let last = AtomicU64::new(0);
        thread::scope(|scope| {
            let journal = scope.spawn(|| replicate_alone(&door, &{ sealed }));
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (db, last) = (&db, &last);
                    scope.spawn(move || {
                        for number in 0..WRITES {
                            let lsn = write(db, writer, number);
                            let seen = db.read().expect("a snapshot");
                            assert!(seen.lsn() >= lsn, "told of {lsn} and sees {}", seen.lsn());
                            last.fetch_max(lsn.0, SeqCst);
                        }
                    })
                })
                .collect();
            writers.into_iter().for_each(|writer| writer.join().expect("it writes"));
            channel.end();
            journal.join().expect("the journal ends");
        });
        let snapshot = db.read().expect("a snapshot");
        assert_eq!(snapshot.tree("t").expect("a tree").len(), u64::from(WRITERS * WRITES));
        assert_eq!(snapshot.lsn(), Lsn(last.load(SeqCst)));
        drop(snapshot);
        assert!(db.check().expect("a check").is_clean());
    }
}

/// Writes an entry, in one of the ways that there are.
fn write(db: &Database, writer: u32, number: u32) -> Lsn {
    let key = (u64::from(writer) << 32 | u64::from(number)).to_be_bytes();
    let value = vec![1; 100 + (number as usize % 7) * 900];
    match (writer + number) % 4 {
        0 => {
            let mut txn = db.begin_write().expect("a transaction");
            txn.tree("t").expect("a tree").insert(key, &value).expect("an entry");
            txn.commit().expect("a commit")
        }
        1 => {
            let put = move |tx: &mut treepie::WriteTxn<'_>| tx.tree("t")?.insert(key, &value);
            db.submit(put).expect("handed over").wait().expect("a commit").lsn
        }
        2 => {
            let put = |tx: &mut treepie::WriteTxn<'_>| tx.tree("t")?.insert(key, &value);
            db.write_as(Durability::Memory, put).expect("a commit").lsn
        }
        _ => {
            let fails = |tx: &mut treepie::WriteTxn<'_>| {
                tx.tree("t")?.insert(key, b"")?;
                Err::<(), _>(Error::rejected("on purpose"))
            };
            assert!(matches!(db.write(fails), Err(Error::Rejected(_))));
            db.write(|tx| tx.tree("t")?.insert(key, &value)).expect("a commit").lsn
        }
    }
}

#[test]
fn loss_of_leadership_wakes_all_who_wait() {
    const WRITERS: u32 = 16;
    let options = file_options().in_flight_records_max(2).overlap(Overlap::Always);
    let Leading { dir: _dir, db, door, sealed, .. } = leading(&options);
    let before = door.state().committed;
    let (told, blocked) = mpsc::channel();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, told) = (&db, told.clone());
            scope.spawn(move || {
                let key = writer.to_be_bytes();
                let outcome = if writer % 3 == 0 {
                    let txn = db.begin_write().and_then(|mut txn| {
                        txn.tree("t")?.insert(key, b"x")?;
                        txn.commit()
                    });
                    txn.map(|_| ())
                } else {
                    db.write(|tx| tx.tree("t")?.insert(key, b"x")).map(|_| ())
                };
                told.send(outcome).expect("the test waits");
            });
        }
        // Nothing is ever committed; some records have been sealed, and others wait for way.
        let first = sealed.recv().expect("a record is sealed").expect("this is not the end");
        assert!(first.lsn() > before);
        door.follow(Some(7)).expect("it follows");
        let (mut unknown, mut refused) = (0, 0);
        for _ in 0..WRITERS {
            match blocked.recv().expect("everyone is told") {
                Err(Error::OutcomeUnknown { lsn, .. }) => {
                    assert!(lsn > before);
                    unknown += 1;
                }
                Err(Error::NotLeader { .. }) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(unknown >= 1, "{unknown} and {refused}");
    });
    assert_eq!(db.read().expect("a snapshot").lsn(), before);
    assert!(db.check().expect("a check").is_clean());
    // What was sealed counts for nothing: it can lead again.
    drop(sealed);
    door.lead(Term(3)).expect("everything in the log is committed");
}

#[test]
fn close_keeps_committed_pages_that_a_lost_transaction_would_have_freed() {
    let Leading { dir, db, door, sealed, .. } = leading(&file_options());
    let value = vec![7; 1 << 20];
    let large = db.submit({
        let value = value.clone();
        move |tx| tx.tree("large")?.insert("key", value)
    });
    let record = sealed.recv().expect("a record is sealed").expect("this is not the end");
    door.append(None, std::slice::from_ref(&record)).expect("an append");
    door.sync().expect("a sync");
    door.commit(record.lsn()).expect("a commit");
    large.expect("it leads").wait().expect("it is committed");
    // Sealed, never committed; it frees the pages at the end of the file.
    let lost = db.submit(|tx| tx.drop_tree("large")).expect("it leads");
    sealed.recv().expect("a record is sealed").expect("this is not the end");
    let path = db.path().to_owned();
    drop(door);
    assert!(matches!(lost.wait(), Err(Error::OutcomeUnknown { .. })));
    db.close().expect("in order");
    let db = Options::new().open(&path).expect("it is whole");
    let snapshot = db.read().expect("a snapshot");
    let tree = snapshot.tree("large").expect("it was not dropped");
    assert_eq!(tree.get("key").expect("whole"), Some(&value[..]));
    assert!(db.check().expect("a check").is_clean());
    drop(dir);
}

#[test]
fn follower_applies_with_little_memory_while_readers_read() {
    const BATCHES: u32 = 300;
    let options = file_options().versions_memory(2 << 20).checkpoint_distance(1 << 20);
    let Leading { dir, db, door, channel, sealed } = leading(&options);
    let copy = dir.path().join("copy");
    let lineage = install(&db, &options, &copy);
    assert_eq!(lineage, db.lineage());
    let follower = options.open(&copy).expect("the copy opens");
    let other = follower.replicate(Arc::new(Channel::new().0)).expect("nobody has the door");
    assert_eq!(other.state().last, door.state().last);
    let begin = Instant::now();
    let mut bytes = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            (0..BATCHES).for_each(|batch| write_batch(&db, batch));
            channel.end();
        });
        let mut snapshot = follower.read().expect("a snapshot");
        while let Some(record) = sealed.recv().expect("it is open") {
            bytes += record.len();
            door.append(None, std::slice::from_ref(&record)).expect("an append");
            door.sync().expect("a sync");
            door.commit(record.lsn()).expect("a commit");
            let record = SharedRecord::receive(record.bytes().to_vec()).expect("whole");
            other.append(None, std::slice::from_ref(&record)).expect("an append");
            other.commit(record.lsn()).expect("a commit");
            if record.lsn().0.is_multiple_of(50) {
                snapshot = follower.read().expect("a snapshot");
            }
        }
        drop(snapshot);
    });
    println!("{bytes} bytes of records in {:?}", begin.elapsed());
    assert!(follower.check().expect("a check").is_clean());
    let len = |db: &Database| db.read().expect("a snapshot").tree("t").expect("a tree").len();
    assert_eq!(len(&follower), len(&db));
}

fn write_batch(db: &Database, batch: u32) {
    let put = |tx: &mut treepie::WriteTxn<'_>| {
        let mut tree = tx.tree("t")?;
        for entry in 0..40_u32 {
            let key = batch.wrapping_mul(2_654_435_761).wrapping_add(entry * 7_919);
            tree.insert(key.to_be_bytes(), [batch as u8; 200])?;
        }
        if batch.is_multiple_of(16) {
            tree.insert(b"large", vec![batch as u8; 300_000])?;
        }
        Ok(())
    };
    db.write(put).expect("a commit");
}

/// Makes a database of the pages of another.
fn install(db: &Database, options: &Options, target: &std::path::Path) -> treepie::Lineage {
    let mut copy = db.copy_pages(&treepie::CopyOptions::new()).expect("a copy begins");
    let mut installer = options.install(target).expect("a folder");
    let state = treepie::DatabaseState {
        lineage: copy.lineage(),
        page_size: copy.page_size(),
        page_count: copy.page_count(),
        lsn: copy.lsn(),
        chain: copy.chain(),
        created_us: copy.created_us(),
    };
    installer.begin_pages(&state, None).expect("pages can come");
    let mut bytes = Vec::new();
    while let Some(first) = copy.next(&mut bytes, 1 << 20).expect("pages") {
        installer.pages(first, &bytes).expect("pages fit");
        bytes.clear();
    }
    installer.end_pages().expect("all pages are there");
    installer.seal().expect("it is whole").publish().expect("it gets its name");
    state.lineage
}
