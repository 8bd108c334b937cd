//! What the scenarios share: a small database, closures whose effect can be told from outside, and
//! the account of who did what.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex as PlainMutex, OnceLock},
    time::Duration,
};

use shuttle::{Runner, rand::Rng, scheduler::RandomScheduler, thread};
use treepie::{
    Database, Durability, Error, Options, Overlap, Receipt, Result, Snapshot, WriteTxn,
    schedules::{synced, turn},
};
use treepie_testkit::{Log, SimDisk};

use crate::{disk::Turning, explore::config};

/// Folder of the database.
const DIR: &str = "/db";
const TREE: &str = "t";
const COUNT: &str = "count";
/// A time that never passes.
const NEVER: Duration = Duration::from_secs(3600);
/// Bytes behind each value: a few closures fill a page.
const PADDING: [u8; 600] = [7; 600];

/// A database on a disk of its own, and what was done with it.
#[derive(Clone)]
pub struct World {
    pub db: Database,
    pub disk: SimDisk,
    account: Arc<Account>,
}

/// What the closures of a scenario came to, and what readers saw of them.
#[derive(Debug, Default)]
struct Account {
    /// Acknowledged closures: their number in the order in which they ran, and their LSN.
    acknowledged: PlainMutex<BTreeMap<u64, u64>>,
    /// Up to where writes were acknowledged as synced.
    durable: PlainMutex<u64>,
    /// Pairs of an LSN and how many closures were in its state.
    seen: PlainMutex<Vec<(u64, u64)>>,
}

/// How a closure ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Well,
    Error,
    Panic,
}

/// Options: small everything, and nothing that depends on how fast this machine is.
fn options(disk: &SimDisk) -> Options {
    Options::new()
        .create(true)
        .page_size(4096)
        .versions_memory(512 << 10)
        .scratch_memory(0)
        .map_size(2 << 20)
        .readers_max(16)
        .journal_segment_size(16 << 10)
        .checkpoint_interval(NEVER)
        .checkpoint_on_close(false)
        .merge_time_max(NEVER)
        .slow_closure(NEVER)
        .background_threads(false)
        .disk(Arc::new(Turning(disk.clone())))
}

/// An overlap that does not depend on time.
pub fn any_overlap() -> Overlap {
    if draw(0..2) == 0 { Overlap::Always } else { Overlap::Never }
}

/// A number that the schedule's seed decides.
pub fn draw(range: std::ops::Range<usize>) -> usize {
    shuttle::rand::thread_rng().gen_range(range)
}

/// A disk with an empty tree on it, made once.
fn template() -> &'static Log {
    static TEMPLATE: OnceLock<Log> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let disk = SimDisk::new(1);
        let made = disk.clone();
        Runner::new(RandomScheduler::new_from_seed(1, 1), config()).run(move || {
            let db = options(&made).open(DIR).expect("a new database opens");
            db.write(|tx| tx.tree(TREE)?.insert(COUNT, 0_u64.to_be_bytes())).expect("a commit");
            db.checkpoint().expect("a checkpoint");
            db.close().expect("it closes");
        });
        disk.log().image(disk.log().len(), 1).log()
    })
}

/// Makes what schedules share, outside of any.
pub fn prepare() {
    template();
}

impl World {
    /// A database that differs from the usual as `change` says.
    pub fn new(change: impl FnOnce(Options) -> Options) -> World {
        let disk = template().image(0, 1);
        let db = change(options(&disk)).open(DIR).expect("the template opens");
        World { db, disk, account: Arc::default() }
    }

    /// Runs `body` as a simulated thread.
    pub fn spawn(&self, body: impl FnOnce(&World) + Send + 'static) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || body(&world))
    }

    /// Writes as one caller, and notes what came of it. Returns whether it was acknowledged.
    pub fn write(&self, key: &str, end: End) -> Result<bool> {
        let write = || self.db.write(|tx| step(tx, key, end));
        self.note(catch_unwind(AssertUnwindSafe(write)), end)
    }

    /// The same without a look at the result: nobody but writers reads.
    pub fn write_blindly(&self, key: &str) -> Result<()> {
        let receipt = self.db.write(|tx| step(tx, key, End::Well))?;
        self.acknowledge(receipt, End::Well);
        Ok(())
    }

    /// The same with a durability of its own.
    pub fn write_as(&self, durability: Durability, key: &str, end: End) -> Result<bool> {
        let write = || self.db.write_as(durability, |tx| step(tx, key, end));
        let written = catch_unwind(AssertUnwindSafe(write));
        if let Ok(Ok(receipt)) = &written {
            self.note_durable(durability, receipt.lsn.0);
        }
        self.note(written, end)
    }

    /// Writes in a transaction of its own, which is committed or dropped.
    pub fn transact(&self, durability: Durability, key: &str, commits: bool) -> Result<()> {
        let mut txn = self.db.begin_write()?;
        let value = step(&mut txn, key, End::Well)?;
        if commits {
            let lsn = txn.commit_as(durability)?;
            self.note_durable(durability, lsn.0);
            self.acknowledge(Receipt { value, lsn }, End::Well);
        }
        Ok(())
    }

    /// Notes that a power cut must not take what is at an LSN.
    fn note_durable(&self, durability: Durability, lsn: u64) {
        if durability == Durability::Sync {
            let mut durable = self.account.durable.lock().expect("no panic inside");
            *durable = lsn.max(*durable);
        }
    }

    fn note(&self, written: std::thread::Result<Result<Receipt<u64>>>, end: End) -> Result<bool> {
        match written {
            Ok(Ok(receipt)) => {
                self.acknowledge(receipt, end);
                let now = self.db.read()?.lsn();
                assert!(now >= receipt.lsn, "one's own commit {} is not visible", receipt.lsn);
                Ok(true)
            }
            Ok(Err(Error::Rejected { .. })) if end == End::Error => Ok(false),
            Ok(Err(error)) => Err(error),
            Err(panic) if end == End::Panic => {
                assert_eq!(panic.downcast_ref::<&str>(), Some(&"as asked"));
                Ok(false)
            }
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Notes an acknowledged closure.
    pub fn acknowledge(&self, receipt: Receipt<u64>, end: End) {
        assert_eq!(end, End::Well, "a closure that fails is acknowledged");
        let mut acknowledged = self.account.acknowledged.lock().expect("no panic inside");
        let before = acknowledged.insert(receipt.value, receipt.lsn.0);
        assert_eq!(before, None, "closure {} ran twice, or was lost", receipt.value);
    }

    /// Takes a snapshot, reads it, lets others go on, and reads it again. Returns its LSN.
    pub fn read(&self, is_synced: bool) -> u64 {
        let snapshot = self.db.read().expect("a snapshot");
        let lsn = snapshot.lsn();
        if is_synced {
            let synced = synced(&self.db);
            assert!(lsn <= synced, "a reader sees {lsn}, synced is {synced}");
        }
        let first = count(&snapshot);
        self.account.seen.lock().expect("no panic inside").push((lsn.0, first));
        turn();
        assert_eq!(count(&snapshot), first, "the snapshot at {lsn} changes");
        lsn.0
    }

    /// Compares what was seen with what was acknowledged. All threads have ended.
    pub fn settle(&self) {
        let acknowledged = self.account.acknowledged.lock().expect("no panic inside");
        let lsns: Vec<u64> = acknowledged.values().copied().collect();
        assert!(lsns.is_sorted(), "LSNs in the order of the closures: {acknowledged:?}");
        let numbers = acknowledged.keys().copied();
        assert!(numbers.eq(1..=lsns.len() as u64), "acknowledged are {acknowledged:?}");
        let last = self.db.read().expect("a snapshot");
        assert_eq!(count(&last), lsns.len() as u64, "at the end, of {acknowledged:?}");
        for &(lsn, found) in &*self.account.seen.lock().expect("no panic inside") {
            let expected = lsns.partition_point(|other| *other <= lsn);
            assert_eq!(found, expected as u64, "at LSN {lsn}, of {acknowledged:?}");
        }
    }

    /// Cuts the power, opens the database again, and compares: what was acknowledged as synced is
    /// there, and whole closures.
    pub fn cut_power(self) {
        let World { db, disk, account } = self;
        let log = disk.log();
        drop(db);
        let disk = log.image(log.len(), draw(0..1 << 30) as u64);
        let db = options(&disk).open(DIR).expect("it opens after the cut");
        let snapshot = db.read().expect("a snapshot");
        let acknowledged = account.acknowledged.lock().expect("no panic inside");
        let durable = *account.durable.lock().expect("no panic inside");
        assert!(snapshot.lsn().0 >= durable, "{} is left of {durable}", snapshot.lsn());
        let expected = acknowledged.values().filter(|lsn| **lsn <= snapshot.lsn().0).count();
        assert_eq!(count(&snapshot), expected as u64, "at {}, {acknowledged:?}", snapshot.lsn());
    }

    /// Ends the process without closing the database, opens it again, and compares what is there
    /// with what was acknowledged: all of that, and whole closures.
    pub fn reopen(self) {
        let World { db, disk, account } = self;
        let disk = disk.restart();
        drop(db);
        disk.heal();
        let db = options(&disk).open(DIR).expect("it opens again");
        let found = count(&db.read().expect("a snapshot"));
        let acknowledged = account.acknowledged.lock().expect("no panic inside");
        let highest = acknowledged.keys().next_back().copied().unwrap_or_default();
        assert!(found >= highest, "{found} closures after reopening, of {acknowledged:?}");
    }
}

/// What a closure does: it gets the next number, and stores it under its key.
pub fn step(tx: &mut WriteTxn<'_>, key: &str, end: End) -> Result<u64> {
    let mut tree = tx.tree(TREE)?;
    let number = number_of(tree.get(COUNT)?) + 1;
    tree.insert(key, [&number.to_be_bytes()[..], &PADDING].concat())?;
    tree.insert(COUNT, number.to_be_bytes())?;
    match end {
        End::Well => Ok(number),
        End::Error => Err(Error::rejected("as asked")),
        // Without the panic hook, which would take it for a failure.
        End::Panic => resume_unwind(Box::new("as asked")),
    }
}

fn number_of(bytes: Option<&[u8]>) -> u64 {
    let bytes = bytes.and_then(|bytes| bytes.first_chunk()).expect("8 bytes or more");
    u64::from_be_bytes(*bytes)
}

/// How many closures are in a state, which is verified to hold all of them and nothing else.
fn count(snapshot: &Snapshot) -> u64 {
    let tree = snapshot.tree(TREE).expect("the tree");
    let count = number_of(tree.get(COUNT).expect("a read"));
    let mut numbers: Vec<u64> = Vec::new();
    for entry in tree.iter() {
        let (key, value) = entry.expect("an entry");
        if key.to_vec() != COUNT.as_bytes() {
            numbers.push(number_of(Some(value)));
        }
    }
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=count), "at {}: {numbers:?}", snapshot.lsn());
    assert_eq!(tree.len(), count + 1, "at {}", snapshot.lsn());
    count
}

/// A durability whose writes are acknowledged when they are synced.
pub fn any_synced() -> Durability {
    match draw(0..3) {
        0 => Durability::Group { delay_max: Duration::from_secs(1) },
        _ => Durability::Sync,
    }
}
