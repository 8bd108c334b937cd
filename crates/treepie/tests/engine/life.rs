//! A database on a simulated disk that lives through a script, beside the model of what it must
//! hold: at each LSN, after each kind of end, and after each call that failed.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::Duration,
};

use treepie::{Database, Durability, Error, Options, Receipt, Result, Snapshot, WriteTxn};
use treepie_testkit::{
    Log, PlantedBug, SimDisk,
    model::{Model, State},
    script::{Act, Closure, End, Script, Setup, Step},
};

use crate::{
    batches::{LONG, until_stats},
    harness::{self, DIR, difference, new_model, verify},
};

/// Options of a script's setup.
pub fn options(setup: &Setup, disk: &SimDisk) -> Options {
    harness::options(disk)
        .journal_segment_size(setup.segment_size)
        .checkpoint_distance(setup.checkpoint_distance)
        .journal_max(setup.checkpoint_distance.max(4 << 20))
        .compression(setup.compression)
        .checkpoint_on_close(setup.checkpoint_on_close)
        .gather_max(Duration::ZERO)
        .merge_time_max(LONG)
        .sync_interval(LONG)
}

/// Opens what a cut left, and tells what is wrong with it: damage, a state that never was, or an
/// acknowledged commit that is gone. Returns the LSN that is there.
pub fn look_at(life: &Lived, image: &SimDisk, acknowledged: u64) -> Result<u64, String> {
    let options = options(&life.setup, image).checkpoint_on_close(false);
    let db = options.open(DIR).map_err(|error| format!("opening: {error}"))?;
    let lsn = verify(&db, &life.model)?;
    if lsn < acknowledged {
        return Err(format!("LSN {acknowledged} was acknowledged, {lsn} is there"));
    }
    Ok(lsn)
}

/// What a script has left: the disk's log, and the state at each LSN.
#[derive(Clone, Debug)]
pub struct Lived {
    pub setup: Setup,
    pub log: Log,
    pub model: Model,
    /// Steps that wrote pages although no checkpoint came.
    pub early_writes: u64,
}

/// Why a script ended before its end.
#[derive(Debug)]
pub enum Stop {
    /// The engine refused a step.
    Engine(Error),
    /// It did what it must not do.
    Wrong(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Engine(error)
    }
}

impl From<String> for Stop {
    fn from(what: String) -> Stop {
        Stop::Wrong(what)
    }
}

/// A database while a script runs.
pub struct Life {
    pub setup: Setup,
    pub disk: SimDisk,
    /// There, unless opening or closing failed.
    pub db: Option<Database>,
    pub model: Model,
    /// What a commit whose outcome is open would have made of the newest state.
    pub open: Option<State>,
    /// Up to which LSN a killed process loses nothing.
    pub kept: u64,
    /// Up to which LSN a power cut loses nothing.
    pub synced: u64,
    held: VecDeque<Snapshot>,
    early_writes: u64,
}

impl Life {
    /// Creates a database on an empty disk.
    pub fn begin(setup: &Setup, disk: &SimDisk) -> Life {
        Life {
            setup: *setup,
            disk: disk.clone(),
            db: None,
            model: new_model(),
            open: None,
            kept: 0,
            synced: 0,
            held: VecDeque::new(),
            early_writes: 0,
        }
    }

    /// Goes on with a database that is there, and at rest.
    pub fn resume(setup: &Setup, disk: &SimDisk, model: Model) -> Life {
        let lsn = model.lsn();
        Life { model, kept: lsn, synced: lsn, ..Life::begin(setup, disk) }
    }

    /// Opens it; what was acknowledged must be there.
    pub fn open(&mut self) -> Result<(), Stop> {
        let db = options(&self.setup, &self.disk).open(DIR)?;
        let lsn = verify(&db, &self.model)?;
        self.db = Some(db);
        if lsn < self.kept {
            return Err(format!("LSN {} was kept, {lsn} is there", self.kept).into());
        }
        self.model.truncate(lsn);
        self.acknowledge(lsn);
        Ok(())
    }

    fn acknowledge(&mut self, lsn: u64) {
        self.disk.mark(lsn);
        self.synced = self.synced.max(lsn);
        self.kept = self.kept.max(lsn);
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("it is open between steps")
    }

    /// Does one step, and looks whether the engine says what it must.
    pub fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Write(closure) => self.write(std::slice::from_ref(closure))?,
            Step::Batch(closures) => self.write(closures)?,
            Step::Sync => {
                let lsn = self.db().sync()?.0;
                if lsn < self.model.lsn() {
                    return Err(format!("a sync reaches LSN {lsn} alone").into());
                }
                self.acknowledge(lsn);
            }
            Step::Checkpoint => drop(self.db().checkpoint()?),
            Step::Hold => {
                let snapshot = self.db().read()?;
                self.held.push_back(snapshot);
            }
            Step::Release => self.release()?,
            Step::Reopen => {
                self.release_all()?;
                let db = self.db.take().expect("it is open");
                db.close()?;
                self.kept = self.model.lsn();
                self.open()?;
            }
            Step::Kill => {
                self.release_all()?;
                self.disk = self.disk.restart();
                drop(self.db.take());
                self.open()?;
            }
        }
        Ok(())
    }

    /// Commits closures as one record.
    fn write(&mut self, closures: &[Closure]) -> Result<(), Stop> {
        let before = self.db().stats();
        let mut state = self.model.newest().clone();
        closures.iter().for_each(|closure| closure.apply(&mut state));
        let results = match closures {
            [only] => vec![commit(self.db(), only)],
            _ => together(self.db(), closures)?,
        };
        let mut lsn = None;
        for (closure, result) in closures.iter().zip(results) {
            let receipt = match (closure.end, result) {
                (End::Stays, Ok(receipt)) => receipt,
                (End::Fails, Err(Error::Rejected(_))) => continue,
                (End::Panics, Err(Error::Panicked { .. })) => continue,
                (_, Err(error)) => {
                    if let Some(lsn) = lsn {
                        return Err(format!("LSN {lsn} is there for some: {error}").into());
                    }
                    if matches!(error, Error::OutcomeUnknown { .. }) {
                        self.open = Some(state);
                    }
                    return Err(error.into());
                }
                (end, Ok(receipt)) => {
                    return Err(format!("{end:?} became LSN {}", receipt.lsn).into());
                }
            };
            if *lsn.get_or_insert(receipt.lsn.0) != receipt.lsn.0 {
                return Err(format!("a batch has LSNs {lsn:?} and {}", receipt.lsn).into());
            }
            match closure.durability {
                Durability::Memory => {}
                Durability::Buffered => self.kept = self.kept.max(receipt.lsn.0),
                _ => self.acknowledge(receipt.lsn.0),
            }
        }
        let Some(lsn) = lsn else { return Ok(()) };
        if lsn > self.model.lsn() + 1 || (lsn == self.model.lsn() && state != *self.model.newest())
        {
            return Err(format!("LSN {lsn} comes after {}", self.model.lsn()).into());
        }
        self.model.commit_state(lsn, state);
        let after = self.db().stats();
        let is_early = after.checkpoints == before.checkpoints;
        self.early_writes += u64::from(is_early && after.pages_written > before.pages_written);
        Ok(())
    }

    /// Takes note of a closure that someone else has committed on top of a state.
    pub fn settle(&mut self, closure: &Closure, lsn: u64, mut state: State) {
        closure.apply(&mut state);
        self.model.commit_state(lsn, state);
        match closure.durability {
            Durability::Memory => {}
            Durability::Buffered => self.kept = self.kept.max(lsn),
            _ => self.acknowledge(lsn),
        }
    }

    /// The oldest snapshot has not changed.
    fn release(&mut self) -> Result<(), Stop> {
        let Some(snapshot) = self.held.pop_front() else { return Ok(()) };
        let lsn = snapshot.lsn().0;
        let state = self.model.at(lsn).ok_or_else(|| format!("no LSN {lsn}"))?;
        match difference(&snapshot, state)? {
            None => Ok(()),
            Some(what) => Err(format!("a snapshot at LSN {lsn} changed: {what}").into()),
        }
    }

    /// All snapshots that are held have not changed.
    pub fn release_all(&mut self) -> Result<(), Stop> {
        while !self.held.is_empty() {
            self.release()?;
        }
        Ok(())
    }

    /// Looks once more, and closes.
    fn end(mut self) -> Result<Lived, Stop> {
        self.release_all()?;
        let db = self.db.take().expect("it is open");
        let lsn = verify(&db, &self.model)?;
        if lsn != self.model.lsn() {
            return Err(format!("LSN {lsn} is the last, not {}", self.model.lsn()).into());
        }
        db.close()?;
        Ok(self.lived())
    }

    /// What was so far.
    pub fn lived(&self) -> Lived {
        Lived {
            setup: self.setup,
            log: self.disk.log(),
            model: self.model.clone(),
            early_writes: self.early_writes,
        }
    }
}

/// Lives through a script on a new disk, with the bugs planted that are asked for once the database
/// is made; tells where it went wrong.
pub fn live(script: &Script, bugs: &[PlantedBug]) -> Result<Lived, String> {
    let disk = SimDisk::new(script.setup.seed);
    let told = |number: usize, stop: Stop| match stop {
        Stop::Engine(error) => format!("step {number}: {error}"),
        Stop::Wrong(what) => format!("step {number}: {what}"),
    };
    let mut life = Life::begin(&script.setup, &disk);
    life.open().map_err(|stop| told(0, stop))?;
    bugs.iter().for_each(|bug| disk.plant(bug.clone()));
    for (number, step) in (1..).zip(&script.steps) {
        life.step(step).map_err(|stop| told(number, stop))?;
    }
    life.end().map_err(|stop| told(script.steps.len() + 1, stop))
}

/// Commits one closure by itself.
fn commit(db: &Database, closure: &Closure) -> Result<Receipt<()>> {
    let write = || db.write_as(closure.durability, |tx| play(tx, &closure.acts, closure.end));
    match catch_unwind(AssertUnwindSafe(write)) {
        Ok(result) => result,
        Err(panic) if panic.is::<OnPurpose>() => {
            Err(Error::Panicked { message: "on purpose".to_owned() })
        }
        Err(panic) => resume_unwind(panic),
    }
}

/// Lets closures wait behind a writer until all have come, and become one record.
fn together(db: &Database, closures: &[Closure]) -> Result<Vec<Result<Receipt<()>>>> {
    let held = db.begin_write()?;
    let before = db.stats().waiting;
    Ok(thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, closure) in (1..).zip(closures) {
            let thread = scope.spawn(move || commit(db, closure));
            until_stats(db, "a closure waits, or was refused", |stats| {
                stats.waiting == before + number || thread.is_finished()
            });
            threads.push(thread);
        }
        held.rollback();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Receipt<()>>>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    }))
}

/// What a closure panics with.
struct OnPurpose;

/// Does what a closure or a savepoint does, and ends as it is to end.
pub fn play(tx: &mut WriteTxn<'_>, acts: &[Act], end: End) -> Result<()> {
    acts.iter().try_for_each(|act| play_act(tx, act))?;
    finish(end)
}

/// Ends a closure or a savepoint.
pub fn finish(end: End) -> Result<()> {
    match end {
        End::Stays => Ok(()),
        End::Fails => Err(Error::rejected("on purpose")),
        End::Panics => resume_unwind(Box::new(OnPurpose)),
    }
}

fn play_act(tx: &mut WriteTxn<'_>, act: &Act) -> Result<()> {
    match act {
        Act::Create(tree) => tx.tree(tree).map(drop),
        Act::Drop(tree) => tx.drop_tree(tree).map(drop),
        Act::Clear(tree) => tx.tree(tree)?.clear(),
        Act::Insert(tree, key, value) => tx.tree(tree)?.insert(key, value.bytes()).map(drop),
        Act::Remove(tree, key) => tx.tree(tree)?.remove(key).map(drop),
        Act::RemoveRange(tree, lower, upper) => {
            let bounds = (lower.clone(), upper.clone());
            tx.tree(tree)?.remove_range(bounds).map(drop)
        }
        Act::Annotate(len) => tx.annotate(vec![7; *len]),
        Act::Savepoint(acts, end) => savepoint(tx, *end, |tx| play(tx, acts, *end)),
    }
}

/// Runs a savepoint that is to end so; anything else that happens to it goes through.
pub fn savepoint<'db>(
    tx: &mut WriteTxn<'db>,
    end: End,
    run: impl FnOnce(&mut WriteTxn<'db>) -> Result<()>,
) -> Result<()> {
    match catch_unwind(AssertUnwindSafe(|| tx.savepoint(run))) {
        Ok(Err(Error::Rejected(_))) if end == End::Fails => Ok(()),
        Ok(result) => result,
        Err(panic) if end == End::Panics && panic.is::<OnPurpose>() => Ok(()),
        Err(panic) => resume_unwind(panic),
    }
}
