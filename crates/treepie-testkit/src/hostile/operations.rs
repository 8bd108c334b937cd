//! Operations, failing calls and power cuts as the fuzzer wants them, against the model.
//!
//! The bytes: steps. Operations gather until a commit, which the database and the model both make.
//! After an error that a planted fault explains, or a power cut, the database is opened again, and
//! must hold what was acknowledged, and the attempted commit wholly or not at all.

use std::sync::{Arc, OnceLock};

use treepie::{Database, Durability, Error, Options, Result, Snapshot, WriteTxn};

use super::{
    input::Input,
    stamp::PAGE_SIZE,
    template::{DIR, options},
};
use crate::{
    Call, Fault, FaultError, SimDisk,
    model::{Entries, Model, State},
    workload::Op,
};

/// Steps of one input at most.
const STEPS_MAX: usize = 300;
/// Snapshots held at the same time at most.
const SNAPSHOTS_MAX: usize = 4;
/// Trees, by number.
const TREES: [&str; 3] = ["birds", "rocks", "a tree with a longer name"];

/// What an input did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Operations of commits.
    pub operations: u64,
    /// Commits that returned.
    pub commits: u64,
    /// Errors that planted faults made.
    pub failures: u64,
    /// Power cuts.
    pub cuts: u64,
}

/// Runs one input.
///
/// # Panics
/// When the database breaks a promise.
pub fn run(bytes: &[u8]) -> Done {
    run_on(new_disk(), bytes)
}

/// Runs one input on a disk that holds a database as `new_disk` makes it.
fn run_on(disk: SimDisk, bytes: &[u8]) -> Done {
    let mut input = Input::new(bytes);
    let mut run = Run::new(disk);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        run.step(&mut input);
    }
    run.finish();
    run.done
}

/// One operation of a transaction.
#[derive(Clone, Debug)]
enum Change {
    Op(Op),
    RemoveRange { tree: &'static str, from: Vec<u8>, to: Vec<u8> },
}

struct Run {
    disk: SimDisk,
    db: Option<Database>,
    model: Model,
    snapshots: Vec<(Snapshot, State)>,
    pending: Vec<Change>,
    /// LSN that the disk holds for certain, whatever happens.
    floor: u64,
    is_faulty: bool,
    done: Done,
}

/// A database that was just created.
fn new_disk() -> SimDisk {
    static DISK: OnceLock<SimDisk> = OnceLock::new();
    let disk = DISK.get_or_init(|| {
        let disk = SimDisk::new(1);
        let db = options(&disk).create(true).page_size(PAGE_SIZE).open(DIR);
        db.and_then(Database::close).expect("a new database");
        disk.settled(2)
    });
    disk.settled(3)
}

fn small(disk: &SimDisk) -> Options {
    options(disk)
        .versions_memory(512 << 10)
        .checkpoint_distance(64 << 10)
        .journal_segment_size(16 << 10)
}

impl Run {
    fn new(disk: SimDisk) -> Run {
        let mut model = Model::new();
        model.commit(1, &[]);
        disk.mark(1);
        let db = small(&disk).open(DIR).expect("a new database opens");
        Run {
            disk,
            db: Some(db),
            model,
            snapshots: Vec::new(),
            pending: Vec::new(),
            floor: 1,
            is_faulty: false,
            done: Done::default(),
        }
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("it is open between steps")
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let byte = input.u8();
        let tree = TREES[usize::from(byte >> 4) % TREES.len()];
        match byte & 15 {
            0..5 => {
                let (key, value) = (key(input), value(input));
                self.push(Op::Insert { tree: tree.to_owned(), key, value });
            }
            5 => self.push(Op::Remove { tree: tree.to_owned(), key: key(input) }),
            6 => {
                let (from, to) = (key(input), key(input));
                let (from, to) = if from <= to { (from, to) } else { (to, from) };
                self.pending.push(Change::RemoveRange { tree, from, to });
            }
            7 => self.push(match byte >> 6 {
                0 => Op::DropTree { tree: tree.to_owned() },
                1 => Op::Clear { tree: tree.to_owned() },
                _ => Op::CreateTree { tree: tree.to_owned() },
            }),
            8 | 9 => self.commit(byte >> 4, input),
            10 => self.abort(input),
            11 => {
                let result = self.db().checkpoint().map(|lsn| self.raise_floor(lsn.0));
                self.expect(result, &[], input);
            }
            12 => self.reopen(input),
            13 => self.snapshot(byte >> 4),
            14 => self.plant(input),
            _ => self.cut(input),
        }
    }

    fn push(&mut self, op: Op) {
        self.pending.push(Change::Op(op));
    }

    fn raise_floor(&mut self, lsn: u64) {
        self.floor = self.floor.max(lsn);
        self.disk.mark(self.floor);
    }

    fn commit(&mut self, kind: u8, input: &mut Input<'_>) {
        let durability = if kind == 0 { Durability::Buffered } else { Durability::default() };
        let changes = std::mem::take(&mut self.pending);
        let ops = self.model_ops(&changes);
        let result = self.db().write_as(durability, |tx| apply(tx, &changes));
        let result = result.map(|receipt| {
            self.done.commits += 1;
            self.done.operations += changes.len() as u64;
            self.model.commit(receipt.lsn.0, &ops);
            if kind != 0 {
                self.raise_floor(receipt.lsn.0);
            }
        });
        self.expect(result, &ops, input);
    }

    /// The same changes as the model knows them.
    fn model_ops(&self, changes: &[Change]) -> Vec<Op> {
        let mut state = self.model.newest().clone();
        let mut ops = Vec::new();
        for change in changes {
            let before = ops.len();
            match change {
                Change::Op(op) => ops.push(op.clone()),
                Change::RemoveRange { tree, from, to } => {
                    ops.push(Op::CreateTree { tree: (*tree).to_owned() });
                    let entries = state.tree(tree.as_bytes());
                    let keys = entries.into_iter().flat_map(|e| e.range(from.clone()..to.clone()));
                    ops.extend(
                        keys.map(|(key, _)| Op::Remove {
                            tree: (*tree).to_owned(),
                            key: key.clone(),
                        }),
                    );
                }
            }
            ops[before..].iter().for_each(|op| state.apply(op));
        }
        ops
    }

    fn abort(&mut self, input: &mut Input<'_>) {
        let changes = std::mem::take(&mut self.pending);
        let result = self.db().begin_write().and_then(|mut tx| {
            apply(&mut tx, &changes)?;
            tx.rollback();
            Ok(())
        });
        self.expect(result, &[], input);
    }

    fn reopen(&mut self, input: &mut Input<'_>) {
        self.release_snapshots();
        let db = self.db.take().expect("it is open between steps");
        let result = db.close().and_then(|()| {
            self.raise_floor(self.model.lsn());
            self.db = Some(small(&self.disk).open(DIR)?);
            Ok(())
        });
        if result.is_ok() {
            assert_eq!(self.compare(), self.model.lsn(), "closing lost a commit");
        }
        self.expect(result, &[], input);
    }

    fn snapshot(&mut self, choice: u8) {
        if choice < 8 && self.snapshots.len() < SNAPSHOTS_MAX {
            let snapshot = self.db().read().expect("a snapshot needs no disk");
            let state = self.model.at(snapshot.lsn().0).expect("the model keeps all").clone();
            return self.snapshots.push((snapshot, state));
        }
        if !self.snapshots.is_empty() {
            let index = usize::from(choice) % self.snapshots.len();
            let (snapshot, state) = self.snapshots.swap_remove(index);
            assert_same(&snapshot, &state);
        }
    }

    fn release_snapshots(&mut self) {
        for (snapshot, state) in self.snapshots.drain(..) {
            assert_same(&snapshot, &state);
        }
    }

    fn plant(&mut self, input: &mut Input<'_>) {
        let choice = input.u8();
        let mut fault = Fault::nth(u64::from(input.u8() % 24) + 1);
        let call = usize::from(input.u8());
        fault = match Call::ALL.get(call % 32) {
            Some(call) => fault.of(*call),
            None => fault.of_changes(),
        };
        if choice & 1 != 0 {
            fault = fault.error(FaultError::ENOSPC);
        }
        if choice & 2 != 0 {
            fault = fault.forever();
        }
        if choice & 4 != 0 {
            fault = fault.after_short_write(usize::from(choice >> 3) * 256);
        }
        self.disk.fail(fault);
        self.is_faulty = true;
    }

    /// An error needs a fault as its reason, and then the process begins anew.
    fn expect(&mut self, result: Result<()>, attempted: &[Op], input: &mut Input<'_>) {
        let Err(error) = result else { return };
        // Snapshots that are held can keep the journal from being trimmed: the commit is undone.
        if matches!(error, Error::Bound { .. }) && !self.snapshots.is_empty() {
            return;
        }
        assert!(self.is_faulty, "an error without a fault: {error:?}");
        self.done.failures += 1;
        let mut possible = self.model.clone();
        if !attempted.is_empty() {
            possible.commit(self.model.lsn() + 1, attempted);
        }
        self.release_snapshots();
        if self.db.is_some() {
            self.compare();
        }
        if input.u8() & 1 == 0 {
            self.disk = self.disk.restart();
            self.model = possible;
            self.begin_anew(self.floor);
        } else {
            self.model = possible;
            self.cut(input);
        }
    }

    /// The power fails: at this moment, or at one before.
    fn cut(&mut self, input: &mut Input<'_>) {
        self.done.cuts += 1;
        self.release_snapshots();
        let (back, seed) = (input.u8(), u64::from(input.u8()));
        let log = self.disk.log();
        let mut player = log.player(seed);
        let back = if back < 128 { 0 } else { usize::from(back - 128) };
        player.advance_to(log.len().saturating_sub(back));
        let floor = player.acknowledged().unwrap_or(0);
        self.disk = player.image(seed);
        self.begin_anew(floor);
    }

    fn begin_anew(&mut self, floor: u64) {
        drop(self.db.take());
        self.disk.heal();
        self.is_faulty = false;
        self.pending.clear();
        let db = small(&self.disk).open(DIR);
        self.db = Some(db.unwrap_or_else(|error| panic!("it does not open again: {error:?}")));
        let lsn = self.compare();
        assert!(lsn >= floor, "LSN {floor} was acknowledged, {lsn} is there");
        let report = self.db().check().expect("a check begins");
        assert!(report.is_clean(), "{:?}", report.problems);
        self.model.truncate(lsn);
        // Opening makes durable what it found.
        self.floor = lsn;
        self.disk.mark(lsn);
    }

    /// Compares all trees with the model at the LSN that they are at; returns it.
    fn compare(&self) -> u64 {
        let snapshot = self.db().read().expect("a snapshot needs no disk");
        let lsn = snapshot.lsn().0;
        let Some(state) = self.model.at(lsn) else { panic!("LSN {lsn} was never committed") };
        assert_same(&snapshot, state);
        lsn
    }

    fn finish(&mut self) {
        self.release_snapshots();
        if self.db.is_some() {
            assert_eq!(self.compare(), self.model.lsn());
            // A call that is to fail would be a journal that the check cannot read.
            self.disk.heal();
            let report = self.db().check().expect("a check begins");
            assert!(report.is_clean(), "{:?}", report.problems);
        }
    }
}

fn assert_same(snapshot: &Snapshot, state: &State) {
    let found = read(snapshot).unwrap_or_else(|error| panic!("it cannot be read: {error:?}"));
    assert_eq!(found.difference(state), None, "at LSN {}", snapshot.lsn());
}

fn read(snapshot: &Snapshot) -> Result<State> {
    let mut state = State::default();
    for info in snapshot.trees()?.iter().filter(|info| !info.name.starts_with(b"$")) {
        let mut entries = Entries::new();
        for entry in snapshot.tree(&info.name)?.iter() {
            let (key, value) = entry?;
            entries.insert(key.to_vec(), Arc::from(value));
        }
        state.set_tree(&info.name, entries);
    }
    Ok(state)
}

fn apply(tx: &mut WriteTxn<'_>, changes: &[Change]) -> Result<()> {
    for change in changes {
        match change {
            Change::RemoveRange { tree, from, to } => {
                tx.tree(tree)?.remove_range(&from[..]..&to[..])?;
            }
            Change::Op(Op::CreateTree { tree }) => {
                tx.tree(tree)?;
            }
            Change::Op(Op::DropTree { tree }) => {
                tx.drop_tree(tree)?;
            }
            Change::Op(Op::Clear { tree }) => tx.tree(tree)?.clear()?,
            Change::Op(Op::Insert { tree, key, value }) => {
                tx.tree(tree)?.insert(key, value)?;
            }
            Change::Op(Op::Remove { tree, key }) => {
                tx.tree(tree)?.remove(key)?;
            }
        }
    }
    Ok(())
}

/// Keys of few numbers, so that the same come again, with beginnings of different lengths in common.
fn key(input: &mut Input<'_>) -> Vec<u8> {
    let byte = input.u8();
    let number = u64::from(byte & 63);
    match byte >> 6 {
        0 => number.to_be_bytes().to_vec(),
        1 => format!("users/{number:08}").into_bytes(),
        2 => vec![byte & 7; usize::from(byte & 63)],
        _ => [vec![b'k'; 300], number.to_le_bytes().to_vec()].concat(),
    }
}

fn value(input: &mut Input<'_>) -> Arc<[u8]> {
    let byte = input.u8();
    let len = match byte >> 4 {
        0..8 => usize::from(byte & 15) * 6,
        8..12 => usize::from(byte & 15) * 60,
        12..15 => PAGE_SIZE / 4 - 48 + usize::from(byte & 15) * 8,
        _ => PAGE_SIZE * (usize::from(byte & 15) / 4 + 1) - 40 + usize::from(byte & 3),
    };
    vec![byte; len].into()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{
        PlantedBug,
        hostile::{Target, seeds},
    };

    /// How many of the seeds find what is wrong with a disk.
    fn found(bug: Option<PlantedBug>) -> usize {
        let finds = |bytes: &Vec<u8>| {
            let disk = new_disk();
            bug.iter().for_each(|bug| disk.plant(bug.clone()));
            catch_unwind(AssertUnwindSafe(|| run_on(disk, bytes))).is_err()
        };
        seeds(Target::Operations).iter().filter(|bytes| finds(bytes)).count()
    }

    #[test]
    fn seeds_find_a_disk_that_skips_the_syncs_of_the_journal_or_of_its_folder() {
        assert_eq!(found(None), 0);
        assert!(found(Some(PlantedBug::SkipSyncData("journal".to_owned()))) > 0);
        assert!(found(Some(PlantedBug::SkipSyncDir("journal".to_owned()))) > 0);
    }
}
