//! Random batches against plain maps: closures that commit, fail and panic, with savepoints in
//! savepoints, merged into one record as the seed says.
//!
//! Someone else is the writer while the closures of a batch are submitted, so that which of them
//! share a record follows from the seed. Each closure also compares what it reads with what the
//! model has at that moment of the batch.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use treepie::{Database, Durability, Error, Options, Result, Snapshot, Submitted, WriteTxn};
use treepie_testkit::{
    Rng, SimDisk, mix,
    model::{Model, State},
    tally::{note, thousands},
    workload::{Op, Shape, Step, generate},
};

use crate::{
    batches::{Holder, LONG},
    harness::{DIR, apply, difference, for_seeds, new_model, seeds, verify},
};

/// Operations of one seed, and seeds: a million together.
const OPERATIONS: u64 = 25_000;
const SEEDS: u64 = 40;
/// Closures of a batch.
const CLOSURES: std::ops::Range<usize> = 2..21;

/// How a closure, or a savepoint in it, ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stays,
    Fails,
    Panics,
}

/// What a closure does.
#[derive(Clone, Debug)]
enum Act {
    Apply(Vec<Op>),
    /// The key must have the value that the model has at this place.
    Expect {
        tree: String,
        key: Vec<u8>,
        value: Option<Arc<[u8]>>,
    },
    Names(Vec<Vec<u8>>),
    Savepoint(Vec<Act>, End),
}

/// Runs what a closure or a savepoint does, and ends as it is to end.
fn play(tx: &mut WriteTxn<'_>, acts: &[Act], end: End, loses_undo: bool) -> Result<()> {
    for act in acts {
        match act {
            Act::Apply(ops) => apply(tx, ops)?,
            Act::Expect { tree, key, value } => {
                let found = match tx.existing_tree(tree) {
                    Ok(tree) => tree.get(key)?.map(<[u8]>::to_vec),
                    Err(Error::UnknownTree { .. }) => None,
                    Err(error) => return Err(error),
                };
                assert!(found.as_deref() == value.as_deref(), "{tree} {}", key.escape_ascii());
            }
            Act::Names(names) => assert_eq!(tx.tree_names()?, *names),
            Act::Savepoint(acts, end) => {
                let is_lost = loses_undo && *end == End::Fails;
                let inner_end = if is_lost { End::Stays } else { *end };
                let run = || tx.savepoint(|tx| play(tx, acts, inner_end, loses_undo));
                match catch_unwind(AssertUnwindSafe(run)) {
                    Ok(Ok(())) => assert_eq!(inner_end, End::Stays),
                    Ok(Err(Error::Rejected(_))) => assert_eq!(*end, End::Fails),
                    Ok(Err(error)) => return Err(error),
                    Err(panic) if *end == End::Panics && panic.is::<OnPurpose>() => {}
                    Err(panic) => resume_unwind(panic),
                }
            }
        }
    }
    match end {
        End::Stays => Ok(()),
        End::Fails => Err(Error::rejected("on purpose")),
        End::Panics => resume_unwind(Box::new(OnPurpose)),
    }
}

struct OnPurpose;

/// Makes closures of a seed, and what they leave in the model.
struct Author {
    rng: Rng,
    ops: std::vec::IntoIter<Op>,
    operations: u64,
}

impl Author {
    fn new(seed: u64, page_size: usize) -> Author {
        let base = Shape { steps: 12_000, page_size, ..Shape::default() };
        let shape = match seed % 4 {
            0 => Shape { trees: 2, keys: 1500, ..base },
            1 => Shape { trees: 8, keys: 60, value_pages_max: 12, ..base },
            2 => Shape { trees: 3, keys: 600, key_len_max: page_size / 4 - 48, ..base },
            _ => Shape { trees: 5, keys: 300, value_pages_max: 3, ..base },
        };
        let ops = generate(seed, &Shape { checkpoint_every: 0, reopen_every: 0, ..shape });
        let ops: Vec<Op> = ops
            .into_iter()
            .flat_map(|step| match step {
                Step::Write(ops) | Step::Abort(ops) => ops,
                _ => Vec::new(),
            })
            .collect();
        Author { rng: Rng::new(mix(seed, 31)), ops: ops.into_iter(), operations: 0 }
    }

    fn end(&mut self, stays: u64) -> End {
        match self.rng.below(10) {
            n if n < stays => End::Stays,
            n if n.is_multiple_of(2) => End::Fails,
            _ => End::Panics,
        }
    }

    /// Acts of a closure or savepoint, as if it stays: then it changes `state`, by the operations
    /// that it adds to `kept`.
    fn acts(&mut self, state: &mut State, kept: &mut Vec<Op>, depth: u32) -> Vec<Act> {
        let mut acts = Vec::new();
        for _ in 0..self.rng.range(1..4) {
            let count = self.rng.range(1..9);
            let ops: Vec<Op> = self.ops.by_ref().take(count).collect();
            self.operations += ops.len() as u64;
            ops.iter().for_each(|op| state.apply(op));
            kept.extend_from_slice(&ops);
            let touched = ops.clone();
            acts.push(Act::Apply(ops));
            if depth < 4 && self.rng.chance(1, 3) {
                let end = self.end(5);
                let (mut inner, mut inner_kept) = (state.clone(), Vec::new());
                acts.push(Act::Savepoint(self.acts(&mut inner, &mut inner_kept, depth + 1), end));
                if end == End::Stays {
                    *state = inner;
                    kept.extend(inner_kept);
                }
            }
            acts.extend(self.look(state, &touched));
        }
        acts
    }

    /// Looks at what was written, after what came behind it.
    fn look(&mut self, state: &State, ops: &[Op]) -> Option<Act> {
        if self.rng.chance(1, 20) {
            return Some(Act::Names(state.trees().map(|(name, _)| name.to_vec()).collect()));
        }
        match self.rng.pick(if ops.is_empty() { return None } else { ops }) {
            Op::Insert { tree, key, .. } | Op::Remove { tree, key } => {
                let entries = state.tree(tree.as_bytes());
                let value = entries.and_then(|entries| entries.get(key).cloned());
                Some(Act::Expect { tree: tree.clone(), key: key.clone(), value })
            }
            _ => None,
        }
    }
}

/// A seed, from opening to opening.
struct Run<'a> {
    seed: u64,
    options: Options,
    path: &'a Path,
    model: Model,
    author: Author,
    batches: u64,
    closures: u64,
    /// Savepoints that should fail stay: the bug to be found.
    loses_undo: bool,
}

impl Run<'_> {
    fn context(&self) -> String {
        let (seed, batch) = (self.seed, self.batches);
        format!("seed {seed}, batch {batch} (again with TREEPIE_SEED={seed})")
    }

    /// Opens the database, runs some batches, and closes it.
    fn live(&mut self, batches: u64) {
        let db = self.options.open(self.path).expect("it opens");
        let lsn = verify(&db, &self.model).unwrap_or_else(|e| panic!("{}: {e}", self.context()));
        assert_eq!(lsn, self.model.lsn(), "{}", self.context());
        thread::scope(|scope| {
            let holder = Holder::start(scope, &db);
            let mut held = None;
            for _ in 0..batches {
                self.batches += 1;
                self.batch(&db, &holder);
                if self.author.rng.chance(1, 12) {
                    db.checkpoint().expect("a checkpoint");
                }
                if self.author.rng.chance(1, 12) {
                    verify(&db, &self.model).unwrap_or_else(|e| panic!("{}: {e}", self.context()));
                    self.verify_held(
                        held.replace((db.read().expect("a snapshot"), self.model.newest().clone())),
                    );
                }
            }
            self.verify_held(held);
        });
        verify(&db, &self.model).unwrap_or_else(|e| panic!("{}: {e}", self.context()));
        assert_eq!(db.stats().closures, self.closures, "{}", self.context());
        self.closures = 0;
        db.close().expect("it closes");
    }

    fn verify_held(&self, held: Option<(Snapshot, State)>) {
        let Some((snapshot, state)) = held else { return };
        let found = difference(&snapshot, &state).expect("a snapshot reads");
        assert_eq!(found, None, "{}: a snapshot changed", self.context());
    }

    /// One batch: one record, whatever becomes of some of its closures.
    fn batch(&mut self, db: &Database, holder: &Holder) {
        let before = db.stats().commits;
        let (mut state, mut kept) = (self.model.newest().clone(), Vec::new());
        holder.hold();
        let handles: Vec<(End, Submitted<()>)> = (0..self.author.rng.range(CLOSURES))
            .map(|_| {
                let end = self.author.end(6);
                let (mut after, mut ops) = (state.clone(), Vec::new());
                let acts = self.author.acts(&mut after, &mut ops, 0);
                if end == End::Stays {
                    state = after;
                    kept.extend(ops);
                }
                let (durability, loses) = (self.durability(), self.loses_undo);
                let handle = db.submit_as(durability, move |tx| play(tx, &acts, end, loses));
                (end, handle.expect("it is taken"))
            })
            .collect();
        holder.release();
        let (mut lsn, mut committed) = (None, 0);
        for (number, (end, handle)) in handles.into_iter().enumerate() {
            let context = || format!("{}, closure {number}", self.context());
            match (end, handle.wait()) {
                (End::Stays, Ok(receipt)) => {
                    committed += 1;
                    let first = *lsn.get_or_insert(receipt.lsn.0);
                    assert_eq!(receipt.lsn.0, first, "{}: one record", context());
                }
                (End::Fails, Err(Error::Rejected(_))) => {}
                (End::Panics, Err(Error::Panicked { message })) => {
                    assert_eq!(message, "something that is no text", "{}", context());
                }
                (end, ended) => panic!("{}: {ended:?} instead of {end:?}", context()),
            }
        }
        self.closures += committed;
        if let Some(lsn) = lsn {
            let commits = db.stats().commits - before;
            assert_eq!(lsn, self.model.lsn() + commits, "{}", self.context());
            assert!(commits <= 1, "{}: {commits} records", self.context());
            self.model.commit(lsn, &kept);
            self.model.forget_before(lsn);
        }
    }

    fn durability(&mut self) -> Durability {
        match self.author.rng.below(8) {
            0 => Durability::Sync,
            1 => Durability::Buffered,
            _ => Durability::Memory,
        }
    }
}

fn options(seed: u64, disk: SimDisk) -> Options {
    let base = Options::new()
        .create(true)
        .disk(Arc::new(disk))
        .page_size(page_size(seed))
        .map_size(32 << 20)
        .scratch_memory(256 << 20)
        .readers_max(64)
        .checkpoint_distance(1 << 20)
        .journal_max(64 << 20)
        .journal_segment_size(256 << 10)
        .gather_max(Duration::ZERO)
        .merge_time_max(LONG);
    base.versions_memory(if seed.is_multiple_of(3) { 1 << 20 } else { 16 << 20 })
}

fn page_size(seed: u64) -> usize {
    if seed % 8 < 4 { 4096 } else { 8192 }
}

/// Returns how many operations and batches there were.
fn run(seed: u64, operations: u64, loses_undo: bool) -> (u64, u64) {
    let mut run = Run {
        seed,
        options: options(seed, SimDisk::new(seed)),
        path: Path::new(DIR),
        model: new_model(),
        author: Author::new(seed, page_size(seed)),
        batches: 0,
        closures: 0,
        loses_undo,
    };
    while run.author.operations < operations && run.author.ops.len() > 0 {
        run.live(40);
    }
    (run.author.operations, run.batches)
}

#[test]
fn a_million_operations_of_merged_closures_and_savepoints_give_what_a_map_gives() {
    let begin = Instant::now();
    let seeds = seeds(2000, SEEDS);
    let counts = for_seeds(&seeds, |seed| run(seed, OPERATIONS, false));
    let operations: u64 = counts.iter().map(|(operations, _)| operations).sum();
    let batches: u64 = counts.iter().map(|(_, batches)| batches).sum();
    let seconds = begin.elapsed().as_secs_f64();
    let counts = format!(
        "{} operations, {} batches of {} seeds, {seconds:.0} s",
        thousands(operations),
        thousands(batches),
        seeds.len()
    );
    note(6, "model, merged closures", &counts);
    assert!(seeds.len() == 1 || operations >= 1_000_000, "only {operations} operations");
}

#[test]
fn a_savepoint_that_is_not_undone_is_found() {
    let found = (1..9).any(|seed| catch_unwind(|| run(seed, 2000, true)).is_err());
    assert!(found, "no seed found it");
}
