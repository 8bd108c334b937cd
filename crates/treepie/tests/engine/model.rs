//! Random operations against plain maps, one per LSN: on the real disk and on a simulated one, with
//! background threads and without, with pages of 4 and 8 KiB.

use std::{ops::Bound, path::Path, sync::Arc, time::Duration};

use treepie::{Database, Options, Snapshot, Tree};
use treepie_testkit::{
    Rng, SimDisk, mix,
    model::{Entries, Model},
    workload::{Op, Shape, Step, generate},
};

use crate::harness::{self, DIR, apply, difference, for_seeds, new_model, seeds, verify};

/// Operations that the last values of a run may have.
const HUGE_VALUE_LEN: usize = 3 << 20;

struct Run<'a> {
    seed: u64,
    rng: Rng,
    options: Options,
    path: &'a Path,
    db: Option<Database>,
    model: Model,
    /// Snapshots that live long, and are verified when they end.
    held: Vec<Snapshot>,
    operations: u64,
}

impl<'a> Run<'a> {
    fn begin(seed: u64, options: Options, path: &'a Path) -> Run<'a> {
        let db = options.open(path).expect("a new database opens");
        Run {
            seed,
            rng: Rng::new(mix(seed, 21)),
            options,
            path,
            db: Some(db),
            model: new_model(),
            held: Vec::new(),
            operations: 0,
        }
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("it is open between steps")
    }

    fn context(&self, step: usize) -> String {
        format!("seed {}, step {step} (again with TREEPIE_SEED={})", self.seed, self.seed)
    }

    fn step(&mut self, number: usize, step: &Step) {
        match step {
            Step::Write(ops) => {
                self.operations += ops.len() as u64;
                let lsn = harness::write(self.db(), ops)
                    .unwrap_or_else(|error| panic!("{}: {error}", self.context(number)));
                self.model.commit(lsn, ops);
            }
            Step::Abort(ops) => {
                self.operations += ops.len() as u64;
                let mut tx = self.db().begin_write().expect("a transaction");
                apply(&mut tx, ops).expect("operations");
                tx.rollback();
            }
            Step::Checkpoint => drop(self.db().checkpoint().expect("a checkpoint")),
            Step::Reopen => self.reopen(),
        }
        if self.rng.chance(1, 10) && self.held.len() < 6 {
            self.held.push(self.db().read().expect("a snapshot"));
        } else if self.rng.chance(1, 12) && !self.held.is_empty() {
            let index = self.rng.index(self.held.len());
            let snapshot = self.held.swap_remove(index);
            self.verify_snapshot(&snapshot, number);
        }
        if number.is_multiple_of(16) {
            self.look(number);
        }
    }

    fn reopen(&mut self) {
        for snapshot in std::mem::take(&mut self.held) {
            self.verify_snapshot(&snapshot, usize::MAX);
        }
        self.db.take().expect("it is open").close().expect("closing");
        self.db = Some(self.options.open(self.path).expect("it opens again"));
        let lsn = self.db().read().expect("a snapshot").lsn().0;
        assert_eq!(lsn, self.model.lsn(), "{}", self.context(usize::MAX));
    }

    fn verify_snapshot(&self, snapshot: &Snapshot, number: usize) {
        let state = self.model.at(snapshot.lsn().0).expect("the model keeps everything");
        let found = difference(snapshot, state);
        let found = found.unwrap_or_else(|error| panic!("{}: {error}", self.context(number)));
        assert_eq!(found, None, "{}: a snapshot at {}", self.context(number), snapshot.lsn());
    }

    /// Ranges, prefixes and cursors of the newest state, and what report and statistics say.
    fn look(&mut self, number: usize) {
        let context = self.context(number);
        let snapshot = self.db().read().expect("a snapshot");
        self.verify_snapshot(&snapshot, number);
        let state = self.model.newest().clone();
        for (name, entries) in state.trees() {
            let tree = snapshot.tree(name).expect("the model has it");
            let looked = look_at_tree(&tree, entries, &mut self.rng);
            looked.unwrap_or_else(|error| panic!("{context}: {error}"));
        }
        let report = self.db().report().expect("a report");
        let mut reported = report.trees.iter().filter(|tree| !tree.info.name.starts_with(b"$"));
        for (name, entries) in state.trees() {
            let tree = reported.next().expect("as many trees as in the model");
            let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
            assert_eq!(tree.info.name, name, "{context}");
            assert_eq!(tree.info.entries, entries.len() as u64, "{context}");
            assert_eq!(tree.info.payload_len, bytes as u64, "{context}");
            assert!((0.0..=1.0).contains(&tree.leaf_fill), "{context}: {}", tree.leaf_fill);
        }
        assert!(reported.next().is_none(), "{context}");
        assert_eq!(report.stats.committed.0, self.model.lsn(), "{context}");
        assert!(report.stats.checkpointed <= report.stats.synced, "{context}");
        // The checkpoint is a reader too while it writes.
        let ours = report.readers.iter().filter(|reader| reader.opened_at.contains("model.rs"));
        assert_eq!(ours.count(), self.held.len() + 1, "{context}: {:?}", report.readers);
        let check = self.db().check().expect("a check begins");
        assert!(check.is_clean(), "{context}: {:?}", check.problems);
        assert_eq!(check.tree_pages + check.fixed_pages, report.pages_used, "{context}");
    }

    fn end(mut self) -> u64 {
        for snapshot in std::mem::take(&mut self.held) {
            self.verify_snapshot(&snapshot, usize::MAX);
        }
        self.reopen();
        let db = self.db.take().expect("it is open");
        verify(&db, &self.model).unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
        self.operations
    }
}

/// Compares random ranges, from both ends, with those of the map.
fn look_at_tree(tree: &Tree<'_>, entries: &Entries, rng: &mut Rng) -> treepie::Result<()> {
    let keys: Vec<&Vec<u8>> = entries.keys().collect();
    let first = tree.first()?.map(|(key, value)| (key.to_vec(), value.to_vec()));
    assert_eq!(first, entries.first_key_value().map(|(k, v)| (k.clone(), v.to_vec())));
    let last = tree.last()?.map(|(key, value)| (key.to_vec(), value.to_vec()));
    assert_eq!(last, entries.last_key_value().map(|(k, v)| (k.clone(), v.to_vec())));
    assert_eq!(tree.is_empty(), entries.is_empty());
    for _ in 0..6 {
        let bounds = (random_bound(&keys, rng), random_bound(&keys, rng));
        let expected: Vec<&Vec<u8>> = in_bounds(&keys, &bounds);
        let mut range = tree.range(bounds.clone());
        let (mut front, mut back) = (0, expected.len());
        loop {
            let from_front = rng.chance(1, 2);
            let entry = if from_front { range.next() } else { range.next_back() };
            let Some(entry) = entry.transpose()? else { break };
            assert!(front < back, "{bounds:?}: {} is one too many", entry.0);
            let key = if from_front { expected[front] } else { expected[back - 1] };
            if from_front {
                front += 1
            } else {
                back -= 1
            }
            assert_eq!(entry.0.to_vec(), *key, "{bounds:?}");
            assert_eq!(entry.1, &*entries[key], "{bounds:?}");
        }
        assert_eq!(front, back, "{bounds:?} ends early");
        assert!(range.next().is_none() && range.next_back().is_none(), "{bounds:?}");
    }
    for _ in 0..3 {
        let prefix = random_prefix(&keys, rng);
        let found: Vec<Vec<u8>> =
            tree.prefix(&prefix).map(|e| e.map(|(k, _)| k.to_vec())).collect::<Result<_, _>>()?;
        let expected = keys.iter().filter(|key| key.starts_with(&prefix));
        assert!(found.iter().eq(expected.copied()), "prefix {}", prefix.escape_ascii());
        let back = tree.prefix(&prefix).rev().count();
        assert_eq!(back, found.len(), "prefix {} from behind", prefix.escape_ascii());
    }
    let absent = rng.bytes(13);
    assert_eq!(tree.get(&absent)?, entries.get(&absent).map(|value| &**value));
    Ok(())
}

fn in_bounds<'k>(
    keys: &[&'k Vec<u8>],
    bounds: &(Bound<Vec<u8>>, Bound<Vec<u8>>),
) -> Vec<&'k Vec<u8>> {
    use std::ops::RangeBounds;
    keys.iter().copied().filter(|key| bounds.contains(*key)).collect()
}

fn random_bound(keys: &[&Vec<u8>], rng: &mut Rng) -> Bound<Vec<u8>> {
    let mut key = match rng.below(4) {
        0 | 1 if !keys.is_empty() => (*rng.pick(keys)).clone(),
        2 if !keys.is_empty() => random_prefix(keys, rng),
        _ => {
            let len = rng.index(20);
            rng.bytes(len)
        }
    };
    if rng.chance(1, 6) {
        key.push(0);
    }
    match rng.below(5) {
        0 | 1 => Bound::Included(key),
        2 | 3 => Bound::Excluded(key),
        _ => Bound::Unbounded,
    }
}

fn random_prefix(keys: &[&Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    if keys.is_empty() {
        return vec![1];
    }
    let key = *rng.pick(keys);
    key[..rng.index(key.len() + 1)].to_vec()
}

fn shape(seed: u64, page_size: usize, steps: usize) -> Shape {
    let base =
        Shape { steps, page_size, checkpoint_every: 15, reopen_every: 60, ..Shape::default() };
    match seed % 3 {
        0 => Shape { ops_max: 200, keys: 3000, trees: 2, ..base },
        1 => Shape { ops_max: 30, keys: 150, trees: 8, key_len_max: page_size / 4 - 48, ..base },
        _ => Shape { ops_max: 40, keys: 500, trees: 1, value_pages_max: 60, ..base },
    }
}

fn run(seed: u64, options: Options, path: &Path, page_size: usize, steps: usize) -> u64 {
    let mut run = Run::begin(seed, options, path);
    let mut steps = generate(seed, &shape(seed, page_size, steps));
    let mut rng = Rng::new(mix(seed, 22));
    // A few values that are larger than everything around them.
    for number in 0..3_u8 {
        let len = rng.range(1 << 20..HUGE_VALUE_LEN);
        let value: Arc<[u8]> = rng.bytes(len).into();
        let op = Op::Insert { tree: "tree0".into(), key: vec![number], value };
        let index = rng.index(steps.len());
        steps.insert(index, Step::Write(vec![op]));
    }
    for (number, step) in steps.iter().enumerate() {
        run.step(number, step);
    }
    run.end()
}

fn tuned(options: Options, seed: u64) -> Options {
    let small = options
        .create(true)
        .versions_memory(1 << 20)
        .scratch_memory(256 << 20)
        .readers_max(64)
        .checkpoint_distance(1 << 20)
        .journal_max(64 << 20)
        .checkpoint_interval(Duration::from_millis(5))
        .journal_segment_size(256 << 10);
    if seed.is_multiple_of(2) { small } else { small.versions_memory(64 << 20) }
}

#[test]
fn random_operations_on_the_real_disk_give_what_a_map_gives() {
    let seeds = seeds(1, 12);
    let counts = for_seeds(&seeds, |seed| {
        let page_size = if seed % 4 < 2 { 4096 } else { 8192 };
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("db");
        let options = tuned(Options::new(), seed)
            .page_size(page_size)
            .map_size(64 << 20)
            .background_threads(seed.is_multiple_of(3));
        run(seed, options, &path, page_size, 900)
    });
    println!("{} operations of {} seeds", counts.iter().sum::<u64>(), seeds.len());
}

#[test]
fn random_operations_on_a_simulated_disk_give_what_a_map_gives() {
    let seeds = seeds(51, 24);
    let counts = for_seeds(&seeds, |seed| {
        let page_size = if seed % 4 < 2 { 4096 } else { 8192 };
        let disk = SimDisk::new(seed);
        let options = tuned(Options::new().disk(Arc::new(disk)), seed)
            .page_size(page_size)
            .map_size(32 << 20)
            .background_threads(seed % 3 == 1);
        run(seed, options, Path::new(DIR), page_size, 900)
    });
    println!("{} operations of {} seeds", counts.iter().sum::<u64>(), seeds.len());
}
