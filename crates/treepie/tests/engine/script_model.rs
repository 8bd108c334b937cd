//! Scripts against plain maps, with a look at everything on the way: inside transactions and
//! savepoints as well as in snapshots, single keys, ranges and cursors that go to and fro.

use std::{
    ops::{Bound, RangeBounds},
    time::Instant,
};

use treepie::{Cursor, Database, Error, Snapshot, WriteTxn};
use treepie_testkit::{
    Rng, SimDisk, mix,
    model::{Entries, State},
    script::{Act, Closure, End, Manner, Script, Step},
    tally::{note, thousands},
};

use crate::{
    harness::{for_seeds, seeds, verify},
    life::{Life, Stop, finish, play, savepoint},
    shorten::{script_from_file, script_of, told},
};

const SEEDS: u64 = 48;
/// Scripts that are tried, to make one that failed short.
const TRIES: usize = 600;
/// Moves of a cursor, once it is somewhere.
const MOVES: usize = 12;

/// Follows a closure on a map of its own, and compares.
struct Watch<'a> {
    state: State,
    rng: &'a mut Rng,
    looks: &'a mut u64,
    loses_undo: bool,
    /// The first difference. The closure goes on, and ends as it is to end.
    wrong: Option<String>,
}

fn ensure(is_so: bool, what: impl FnOnce() -> String) -> Result<(), Stop> {
    if is_so { Ok(()) } else { Err(Stop::Wrong(what())) }
}

impl Watch<'_> {
    fn acts(&mut self, tx: &mut WriteTxn<'_>, acts: &[Act], end: End) -> treepie::Result<()> {
        for act in acts {
            self.act(tx, act)?;
            if self.rng.chance(1, 3) {
                *self.looks += 1;
                match self.look(tx, act) {
                    Err(Stop::Engine(error)) => return Err(error),
                    Err(Stop::Wrong(what)) => drop(self.wrong.get_or_insert(what)),
                    Ok(()) => {}
                }
            }
        }
        finish(end)
    }

    fn act(&mut self, tx: &mut WriteTxn<'_>, act: &Act) -> treepie::Result<()> {
        let Act::Savepoint(inner, end) = act else {
            play(tx, std::slice::from_ref(act), End::Stays)?;
            act.apply(&mut self.state);
            return Ok(());
        };
        let before = self.state.clone();
        let is_lost = self.loses_undo && *end == End::Fails;
        let real_end = if is_lost { End::Stays } else { *end };
        savepoint(tx, real_end, |tx| self.acts(tx, inner, real_end))?;
        if *end != End::Stays {
            self.state = before;
        }
        Ok(())
    }

    /// Looks at the tree that an operation was about, or at the names of all.
    fn look(&mut self, tx: &mut WriteTxn<'_>, act: &Act) -> Result<(), Stop> {
        let (Act::Insert(name, key, _) | Act::Remove(name, key)) = act else {
            let names: Vec<&[u8]> = self.state.trees().map(|(name, _)| name).collect();
            let found = tx.tree_names()?;
            return ensure(found == names, || format!("the trees are {found:?}"));
        };
        let entries = self.state.tree(name.as_bytes());
        let tree = match tx.existing_tree(name) {
            Ok(tree) => tree,
            Err(Error::UnknownTree { .. }) => {
                return ensure(entries.is_none(), || format!("{name} is not there"));
            }
            Err(error) => return Err(error.into()),
        };
        let entries = entries.ok_or_else(|| format!("{name} is there"))?;
        let shown = key.escape_ascii();
        ensure(tree.len() == entries.len() as u64, || {
            format!("{name} has {} entries", tree.len())
        })?;
        ensure(tree.get(key)? == entries.get(key).map(|value| &**value), || {
            format!("{name} has another value of \"{shown}\"")
        })?;
        wander(tree.cursor(), entries, key, self.rng)
    }
}

/// Moves a cursor to a key and to and fro from there, as a place in the map moves.
fn wander(
    mut cursor: Cursor<'_>,
    entries: &Entries,
    key: &[u8],
    rng: &mut Rng,
) -> Result<(), Stop> {
    let from = |bound: Bound<&[u8]>| entries.range::<[u8], _>((bound, Bound::Unbounded)).next();
    let to = |bound: Bound<&[u8]>| entries.range::<[u8], _>((Bound::Unbounded, bound)).next_back();
    let (is_somewhere, mut place) = match rng.below(4) {
        0 => (cursor.first()?, entries.iter().next()),
        1 => (cursor.last()?, entries.iter().next_back()),
        2 => (cursor.seek(key)?, from(Bound::Included(key))),
        _ => (cursor.seek_for_prev(key)?, to(Bound::Included(key))),
    };
    let told = |what: &str, key: &[u8]| format!("a cursor {what} \"{}\"", key.escape_ascii());
    ensure(is_somewhere == place.is_some(), || told("that seeks", key))?;
    for _ in 0..MOVES {
        let Some((at, value)) = place else { return Ok(()) };
        let entry = cursor.entry()?;
        let is_there = entry.is_some_and(|(found, bytes)| found == at[..] && *bytes == **value);
        ensure(is_there, || told("that should be at", at))?;
        let is_forward = rng.chance(1, 2);
        let moved = if is_forward { cursor.next()? } else { cursor.prev()? };
        let bound = Bound::Excluded(&at[..]);
        place = if is_forward { from(bound) } else { to(bound) };
        ensure(moved == place.is_some(), || told("that moves from", at))?;
    }
    Ok(())
}

/// Looks at some places of each tree of a snapshot.
fn look_around(snapshot: &Snapshot, state: &State, rng: &mut Rng) -> Result<(), Stop> {
    for (name, entries) in state.trees() {
        let tree = snapshot.tree(name)?;
        let keys: Vec<&Vec<u8>> = entries.keys().collect();
        for _ in 0..4 {
            let len = rng.index(9);
            let key = if keys.is_empty() { rng.bytes(len) } else { (*rng.pick(&keys)).clone() };
            wander(tree.cursor(), entries, &key, rng)?;
            let upper = if keys.is_empty() { Vec::new() } else { (*rng.pick(&keys)).clone() };
            let bounds = (Bound::Excluded(key), Bound::Included(upper));
            let expected: Vec<&Vec<u8>> =
                keys.iter().copied().filter(|other| bounds.contains(*other)).collect();
            let found: Vec<Vec<u8>> = tree
                .range(bounds.clone())
                .map(|entry| Ok(entry?.0.to_vec()))
                .collect::<treepie::Result<_>>()?;
            ensure(found.iter().eq(expected.iter().copied()), || format!("range {bounds:?}"))?;
            let backwards: Vec<Vec<u8>> = tree
                .range(bounds.clone())
                .rev()
                .map(|entry| Ok(entry?.0.to_vec()))
                .collect::<treepie::Result<_>>()?;
            ensure(backwards.iter().rev().eq(expected), || format!("{bounds:?} backwards"))?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Counts {
    acts: u64,
    /// Looks inside of transactions.
    looks: u64,
}

/// A script while it is watched.
struct Run {
    life: Life,
    rng: Rng,
    counts: Counts,
    loses_undo: bool,
}

impl Run {
    fn db(&self) -> &Database {
        self.life.db.as_ref().expect("it is open between steps")
    }

    /// Closures that come alone are watched.
    fn step(&mut self, number: usize, step: &Step) -> Result<(), Stop> {
        match step {
            Step::Write(closure) if closure.end != End::Panics => self.write(closure)?,
            step => self.life.step(step)?,
        }
        if number.is_multiple_of(12) {
            let snapshot = self.db().read()?;
            look_around(&snapshot, self.life.model.newest(), &mut self.rng)?;
            verify(self.db(), &self.life.model)?;
        }
        Ok(())
    }

    fn write(&mut self, closure: &Closure) -> Result<(), Stop> {
        let state = self.life.model.newest().clone();
        let mut watch = Watch {
            state: state.clone(),
            rng: &mut self.rng,
            looks: &mut self.counts.looks,
            loses_undo: self.loses_undo,
            wrong: None,
        };
        let db = self.life.db.as_ref().expect("it is open between steps");
        let written =
            db.write_as(closure.durability, |tx| watch.acts(tx, &closure.acts, closure.end));
        if let Some(what) = watch.wrong {
            return Err(Stop::Wrong(what));
        }
        match written {
            Ok(receipt) => self.life.settle(closure, receipt.lsn.0, state),
            Err(Error::Rejected(_)) if closure.end == End::Fails => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// A script from its beginning to its end.
fn run(script: &Script, loses_undo: bool) -> Result<Counts, String> {
    let seed = script.setup.seed;
    let life = Life::begin(&script.setup, &SimDisk::new(seed));
    let counts = Counts { acts: script.acts() as u64, looks: 0 };
    let mut run = Run { life, rng: Rng::new(mix(seed, 41)), counts, loses_undo };
    let told = |number: usize, stop: Stop| format!("step {number}: {stop:?}");
    run.life.open().map_err(|stop| told(0, stop))?;
    for (number, step) in (1..).zip(&script.steps) {
        run.step(number, step).map_err(|stop| told(number, stop))?;
    }
    let end = script.steps.len();
    run.life.release_all().map_err(|stop| told(end, stop))?;
    verify(run.db(), &run.life.model).map_err(|what| told(end, what.into()))?;
    Ok(run.counts)
}

fn script(seed: u64, steps: usize) -> Script {
    let manner = Manner {
        steps,
        acts_max: 60,
        lazy_every: 2,
        reopen_every: 60,
        checkpoint_every: 25,
        ..Manner::of_seed(seed)
    };
    Script::of_seed(seed, &manner)
}

fn failure(script: &Script, loses_undo: bool, what: &str) -> String {
    told(script, what, "script_model", TRIES, |candidate| run(candidate, loses_undo).err())
}

#[test]
fn scripts_give_what_a_map_gives_inside_and_outside_of_transactions() {
    let begin = Instant::now();
    let seeds = seeds(3000, SEEDS);
    let results = for_seeds(&seeds, |seed| {
        let script = script(seed, 700);
        run(&script, false).unwrap_or_else(|what| panic!("{}", failure(&script, false, &what)))
    });
    let sum = |count: fn(&Counts) -> u64| results.iter().map(count).sum::<u64>();
    let counts = format!(
        "{} operations of {} scripts, {} looks inside of transactions, {:.0} s",
        thousands(sum(|counts| counts.acts)),
        seeds.len(),
        thousands(sum(|counts| counts.looks)),
        begin.elapsed().as_secs_f64()
    );
    note(6, "model, scripts", &counts);
    assert!(seeds.len() == 1 || sum(|counts| counts.acts) >= 200_000, "{counts}");
}

/// Runs the script that `TREEPIE_SCRIPT` names, as a failure printed it. Does nothing without.
#[test]
fn a_script_from_a_file_gives_what_a_map_gives() {
    let Some(script) = script_from_file() else { return };
    run(&script, false).unwrap_or_else(|what| panic!("{what}"));
}

/// What shows it is a savepoint with one change, in one closure.
#[test]
fn a_savepoint_that_is_not_undone_is_found_and_its_script_becomes_a_handful_of_lines() {
    let found = (1..9).find_map(|seed| {
        let script = script(seed, 80);
        run(&script, true).err().map(|what| (script, what))
    });
    let (script, what) = found.expect("some seed finds it");
    let told = failure(&script, true, &what);
    println!("{told}");
    let short = script_of(&told);
    assert!(
        short.steps.len() <= 2 && short.acts() <= 4,
        "from {} steps:\n{told}",
        script.steps.len()
    );
    assert!(run(&short, true).is_err() && run(&short, false).is_ok(), "{told}");
}
