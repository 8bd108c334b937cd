//! A real database on a simulated disk, behind its door: what a node runs, without its threads.
//!
//! Nothing of the engine runs in the background here, and a write never waits, so that one thread does
//! everything and a seed is a run. A power cut loses, tears and reorders what was not synced, also within
//! the last call; then the database is recovered from what is left.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use treepie::{
    Database, Error, Once, Options, RequestId, Result, Submitted,
    disk::Disk,
    ids::{Lsn, Term},
    replication::{self, Door, Outlet, SharedRecord},
};
use treepie_raft::{
    ids::NodeId,
    log::{HardState, Log, LogState},
};
use treepie_snapshot::{
    BackupOptions, Control, ReadOptions, RestoreOptions, StreamOptions, backup, restore,
};
use treepie_testkit::{Rng, SimDisk, mix, replication::fingerprint};

use crate::{
    ops::{self, Book},
    store::{Store, Wrong},
    world::{Bug, voters},
};

/// The folder of the database, and those beside it while it is exchanged for another.
const DIR: &str = "/db";
const RECEIVED: &str = "/db.received";
const INSTALLED: &str = "/db.installed";
const REPLACED: &str = "/db.replaced";
/// Clients, each of which numbers its requests.
const CLIENTS: u64 = 8;

/// What was sealed and not taken yet.
#[derive(Debug, Default)]
struct Sealed(Mutex<Vec<SharedRecord>>);

impl Outlet for Sealed {
    fn sealed(&self, record: SharedRecord) {
        self.0.lock().push(record);
    }
}

/// A client who waits.
#[derive(Debug)]
struct Caller {
    op: u64,
    write: Submitted<Once>,
}

/// What all nodes begin with: a database with the first members, and what clients know.
pub struct Origin {
    disk: SimDisk,
    pub book: Arc<Mutex<Book>>,
}

/// The database of one node.
#[derive(Debug)]
pub struct EngineLog {
    id: NodeId,
    disk: SimDisk,
    /// It goes before the database.
    door: Door,
    pub db: Database,
    sealed: Arc<Sealed>,
    callers: Mutex<Vec<Caller>>,
    acknowledged: Mutex<Vec<Lsn>>,
    /// Calls of the disk after which nobody was told anything: a power cut may be among them.
    told: AtomicU64,
    book: Arc<Mutex<Book>>,
    bug: Option<Bug>,
}

fn text(error: impl std::fmt::Display) -> Wrong {
    error.to_string()
}

/// The usual ones of a site, and a journal that is soon given up.
fn options(disk: &SimDisk) -> Options {
    treepie_testkit::replication::options(disk)
        .checkpoint_distance(96 << 10)
        .journal_segment_size(32 << 10)
        .journal_retention(384 << 10)
        .checkpoint_on_close(false)
}

fn found(seed: u64, count: u64) -> Result<SimDisk> {
    let disk = SimDisk::new(seed);
    let db = options(&disk).open(DIR)?;
    let sealed = Arc::<Sealed>::default();
    let outlet: Arc<dyn Outlet> = Arc::<Sealed>::clone(&sealed);
    let door = db.replicate(outlet)?;
    let first = door.no_op(Term(1))?;
    door.append(None, std::slice::from_ref(&first))?;
    door.commit(first.lsn())?;
    door.lead(Term(1))?;
    let members = voters(count).encode();
    let lsn = door.set_members(Term(1), &members, &members)?;
    door.append(None, &sealed.0.lock())?;
    door.sync()?;
    door.commit(lsn)?;
    // So that it is known to be committed when it is opened.
    db.checkpoint()?;
    drop(door);
    db.close()?;
    Ok(disk)
}

impl EngineLog {
    fn open(
        id: NodeId,
        disk: SimDisk,
        book: &Arc<Mutex<Book>>,
        bug: Option<Bug>,
    ) -> std::result::Result<EngineLog, Wrong> {
        let opened = complete(&disk).and_then(|()| {
            let db = options(&disk).open(DIR)?;
            let sealed = Arc::<Sealed>::default();
            let outlet: Arc<dyn Outlet> = Arc::<Sealed>::clone(&sealed);
            Ok((db.replicate(outlet)?, db, sealed))
        });
        let (door, db, sealed) = opened.map_err(|error| format!("it does not open: {error}"))?;
        let log = EngineLog {
            id,
            told: AtomicU64::new(disk.calls()),
            disk,
            door,
            db,
            sealed,
            callers: Mutex::default(),
            acknowledged: Mutex::default(),
            book: Arc::clone(book),
            bug,
        };
        log.compare().map_err(text)?;
        log.book.lock().check()?;
        Ok(log)
    }

    /// Compares the state that readers see with what clients know, and with the pages of the others.
    pub fn compare(&self) -> Result<()> {
        let print = fingerprint(&self.db)?;
        let mut book = self.book.lock();
        book.prints(self.id, print);
        book.compare(&self.db)
    }

    /// What an operator would see.
    pub fn check(&self) -> std::result::Result<(), Wrong> {
        self.compare().map_err(text)?;
        self.book.lock().check()?;
        let report = self.db.check().map_err(text)?;
        match report.is_clean() {
            true => Ok(()),
            false => Err(format!("its check finds {:?}", report.problems)),
        }
    }

    fn chain_of(&self, lsn: Lsn) -> Option<u64> {
        let state = self.door.state();
        if lsn == state.last {
            return Some(state.last_chain);
        }
        let record = self.door.recent(lsn).map_or_else(|| self.door.record(lsn), Ok);
        record.ok().map(|record| record.chain())
    }

    /// Takes the outcomes of those who wait no more.
    fn settle(&self) {
        let callers = std::mem::take(&mut *self.callers.lock());
        for caller in callers {
            if !caller.write.is_done() {
                self.callers.lock().push(caller);
                continue;
            }
            let (op, outcome) = (caller.op, caller.write.wait());
            let mut book = self.book.lock();
            match outcome {
                Ok(receipt) => {
                    book.is_done(op, receipt.value.lsn, receipt.value.is_repeated);
                    self.acknowledged.lock().push(receipt.lsn);
                }
                Err(Error::OutcomeUnknown { .. }) => book.is_unknown(op),
                Err(Error::NotLeader { .. } | Error::Bound { .. }) => book.is_refused(op),
                Err(error) => book.fail(format!("operation {op} is told: {error}")),
            }
        }
    }

    /// The process ends. Who waits is told nothing.
    fn die(&self) {
        self.settle();
        for caller in self.callers.lock().drain(..) {
            self.book.lock().is_unknown(caller.op);
        }
    }

    /// What a power cut at a random place behind the call `told` leaves.
    fn cut(disk: &SimDisk, told: u64, rng: &mut Rng) -> SimDisk {
        let log = disk.log();
        let (mut low, mut high) = (0, log.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if log.call_of(middle) <= told { low = middle + 1 } else { high = middle }
        }
        let at = low + rng.index(log.len() - low + 1);
        log.image(at, rng.next_u64())
    }

    /// Takes the pages in, and exchanges the folders, as a node does; the old process is gone when the
    /// folders are.
    fn exchange(&self, (term, stream): &(Term, Vec<u8>)) -> Result<SimDisk> {
        let hard_state = self.door.state().hard_state;
        let disk = self.disk.restart();
        remove(&disk, RECEIVED)?;
        let read = ReadOptions::new().threads(1);
        let into = RestoreOptions::new().engine(options(&disk)).read(read);
        restore(&stream[..], RECEIVED, &into.replica(true).check(false), Control::new())
            .map_err(Error::rejected)?;
        let db = options(&disk).open(RECEIVED)?;
        let door = db.replicate(Arc::<Sealed>::default())?;
        door.set_base_term(*term)?;
        let vote = if hard_state.term >= *term { hard_state.vote } else { 0 };
        let term = hard_state.term.max(*term);
        door.append(Some(replication::HardState { term, vote }), &[])?;
        door.sync()?;
        drop(door);
        db.close()?;
        remove(&disk, INSTALLED)?;
        rename(&disk, RECEIVED, INSTALLED)?;
        remove(&disk, REPLACED)?;
        rename(&disk, DIR, REPLACED)?;
        rename(&disk, INSTALLED, DIR)?;
        Ok(disk)
    }
}

/// Completes an exchange that was cut off between its two renames; removes what others have left.
fn complete(disk: &SimDisk) -> Result<()> {
    let has = |path: &str| disk.exists(Path::new(path)).map_err(Error::rejected);
    if !has(DIR)? && has(INSTALLED)? && has(REPLACED)? {
        rename(disk, INSTALLED, DIR)?;
    }
    [INSTALLED, REPLACED, RECEIVED].into_iter().try_for_each(|path| remove(disk, path))
}

fn rename(disk: &SimDisk, from: &str, to: &str) -> Result<()> {
    let renamed = disk.rename(Path::new(from), Path::new(to));
    renamed.and_then(|()| disk.sync_dir(Path::new("/"))).map_err(Error::rejected)
}

/// Removes a folder, and what is left of one that was being made.
fn remove(disk: &SimDisk, folder: &str) -> Result<()> {
    for folder in [folder.to_owned(), format!("{folder}.partial")] {
        let inner = format!("{folder}/");
        let is_inside = |path: &PathBuf| path.to_string_lossy().starts_with(&inner);
        for path in disk.file_paths().into_iter().filter(is_inside) {
            disk.remove(&path).map_err(Error::rejected)?;
        }
        for dir in [format!("{folder}/journal"), folder] {
            if disk.exists(Path::new(&dir)).map_err(Error::rejected)? {
                disk.remove_dir(Path::new(&dir)).map_err(Error::rejected)?;
            }
        }
    }
    Ok(())
}

impl Store for EngineLog {
    type Origin = Origin;
    type Pages = (Lsn, (Term, Vec<u8>));

    const WRITE_US: u64 = 40_000;
    const READ_US: u64 = 30_000;

    fn origin(seed: u64, count: u64) -> Origin {
        let disk = found(seed, count).expect("a database is made");
        Origin { disk, book: Arc::default() }
    }

    fn is_founded(_origin: &Origin) -> bool {
        true
    }

    fn create(origin: &Origin, id: NodeId, rng: &mut Rng, bug: Option<Bug>) -> EngineLog {
        let disk = origin.disk.settled(mix(rng.next_u64(), id.0));
        EngineLog::open(id, disk, &origin.book, bug).expect("it is as it was made")
    }

    fn crash(&self, rng: &mut Rng) -> std::result::Result<EngineLog, Wrong> {
        self.die();
        let before = self.door.state();
        let disk = EngineLog::cut(&self.disk, self.told.load(Relaxed), rng);
        // What the dead process still holds reaches no disk.
        drop(self.disk.restart());
        let log = EngineLog::open(self.id, disk, &self.book, self.bug)?;
        let after = log.door.state();
        match after.committed <= before.last.max(before.committed) {
            true => Ok(log),
            false => Err(format!("{before:?} became {after:?}")),
        }
    }

    fn trim(&self, _rng: &mut Rng) -> std::result::Result<(), Wrong> {
        self.db.checkpoint().map(|_| ()).map_err(text)
    }

    fn write(&self, op: u64) {
        let op = self.book.lock().begin(op);
        let request = RequestId { client: u128::from(op % CLIENTS), number: op };
        let count = self.sealed.0.lock().len();
        match self.db.submit_once(request, move |tx| ops::apply(tx, op)) {
            Ok(write) => self.callers.lock().push(Caller { op, write }),
            Err(Error::NotLeader { .. } | Error::Bound { .. }) => self.book.lock().is_refused(op),
            Err(error) => self.book.lock().fail(format!("operation {op} is told: {error}")),
        }
        if let Some(record) = self.sealed.0.lock().get(count) {
            self.book.lock().seals(record.chain(), op);
        }
        self.settle();
    }

    fn take_sealed(&self) -> Vec<SharedRecord> {
        // What comes of this may be told to others.
        self.told.store(self.disk.calls(), Relaxed);
        std::mem::take(&mut self.sealed.0.lock())
    }

    fn take_acknowledged(&self) -> std::result::Result<Vec<Lsn>, Wrong> {
        self.settle();
        self.book.lock().check()?;
        Ok(std::mem::take(&mut self.acknowledged.lock()))
    }

    fn leads(&self) -> bool {
        self.door.is_leading()
    }

    fn durable(&self) -> (Lsn, HardState) {
        let state = self.state();
        (state.synced, state.hard_state)
    }

    fn chain(&self, lsn: Lsn) -> Option<u64> {
        self.chain_of(lsn)
    }

    fn base(&self) -> Lsn {
        self.door.state().first.next()
    }

    fn coming(&self, lsn: Lsn) -> Vec<(Lsn, u64)> {
        let lsns = self.door.state().committed.0 + 1..=lsn.0;
        lsns.filter_map(|lsn| Some((Lsn(lsn), self.chain_of(Lsn(lsn))?))).collect()
    }

    fn pages(&self) -> Option<Self::Pages> {
        let term = self.door.term(self.door.state().committed)?;
        let stream = StreamOptions::new().threads(1).level(1);
        let options = BackupOptions::new().stream(stream);
        let (stream, report) = backup(&self.db, Vec::new(), &options, Control::new()).ok()?;
        let lsn = report.summary.last.lsn;
        (self.door.term(lsn) == Some(term)).then_some((lsn, (term, stream)))
    }

    fn position((lsn, (term, _)): &Self::Pages) -> (Lsn, Term) {
        (*lsn, *term)
    }

    fn install(
        &self,
        (_, pages): &Self::Pages,
        rng: &mut Rng,
    ) -> std::result::Result<(EngineLog, bool), Wrong> {
        self.die();
        let told = self.disk.calls();
        let exchanged = self.exchange(pages);
        let disk = exchanged.map_err(|error| format!("pages were not taken over: {error}"))?;
        let is_cut = rng.chance(1, 2);
        let disk = if is_cut { EngineLog::cut(&disk, told, rng) } else { disk };
        Ok((EngineLog::open(self.id, disk, &self.book, self.bug)?, !is_cut))
    }
}

impl Log for EngineLog {
    type Record = SharedRecord;

    fn state(&self) -> LogState {
        let state = self.door.state();
        LogState {
            first: state.first,
            last: state.last,
            last_term: state.last_term,
            last_chain: state.last_chain,
            committed: state.committed,
            synced: state.synced,
            hard_state: HardState { term: state.hard_state.term, vote: state.hard_state.vote },
        }
    }

    fn term(&self, lsn: Lsn) -> Option<Term> {
        self.door.term(lsn)
    }

    fn record(&self, lsn: Lsn) -> Result<SharedRecord> {
        self.door.record(lsn)
    }

    fn visit(&self, after: Lsn, visit: &mut dyn FnMut(SharedRecord)) -> Result<()> {
        let mut records = self.door.records(after)?;
        while let Some(record) = records.next_record()? {
            visit(record);
        }
        Ok(())
    }

    fn append(&self, hard_state: Option<HardState>, records: &[SharedRecord]) -> Result<()> {
        // As they come over the network.
        let copies = records.iter().map(|record| match self.door.is_leading() {
            true => Ok(record.clone()),
            false => SharedRecord::receive(record.bytes().to_vec()),
        });
        let copies = copies.collect::<Result<Vec<_>>>()?;
        let hard_state = hard_state.filter(|_| self.bug != Some(Bug::VoteNotSynced));
        let stored =
            |state: HardState| replication::HardState { term: state.term, vote: state.vote };
        self.door.append(hard_state.map(stored), &copies)
    }

    fn sync(&self) -> Result<Lsn> {
        self.door.sync()
    }

    fn truncate(&self, after: Lsn) -> Result<()> {
        self.door.truncate(after)
    }

    /// Stops where pages are compared.
    fn commit(&self, lsn: Lsn) -> Result<()> {
        let stops = self.book.lock().stops(self.door.state().committed, lsn);
        for stop in stops {
            for (lsn, chain) in self.coming(stop) {
                self.book.lock().commits(lsn, chain);
            }
            self.door.commit(stop)?;
            if self.book.lock().wants(stop) {
                let print = fingerprint(&self.db)?;
                self.book.lock().prints(self.id, print);
            }
        }
        Ok(())
    }

    fn lead(&self, term: Term) -> Result<()> {
        self.door.lead(term)
    }

    fn follow(&self, leader: Option<u64>) -> Result<()> {
        self.door.follow(leader)
    }

    fn no_op(&self, term: Term) -> Result<SharedRecord> {
        self.door.no_op(term)
    }

    fn set_members(&self, term: Term, members: &[u8], change: &[u8]) -> Result<Lsn> {
        self.door.set_members(term, members, change)
    }

    fn members(&self) -> Result<Option<Vec<u8>>> {
        self.door.members()
    }
}
