//! Scripts against plain maps, with a look at everything on the way: inside transactions and
//! savepoints as well as in snapshots, single keys, ranges and cursors that go to and fro.

use std::{
    ops::{Bound, RangeBounds},
    time::Instant,
};

use treepie::{Cursor, Database, Error, Result, Snapshot, WriteTxn};
use treepie_testkit::{
    Rng, SimDisk, mix,
    model::{Entries, State},
    script::{Act, Closure, End, Manner, Script, Step},
    tally::{note, thousands},
};

use crate::{
    harness::{for_seeds, seeds, verify},
    life::{Life, Stop, finish, play, savepoint},
};

const SEEDS: u64 = 48;
/// Moves of a cursor, once it is somewhere.
const MOVES: usize = 12;

/// Follows a closure on a map of its own, and compares.
struct Watch<'a> {
    state: State,
    rng: &'a mut Rng,
    looks: &'a mut u64,
    loses_undo: bool,
}

impl Watch<'_> {
    fn acts(&mut self, tx: &mut WriteTxn<'_>, acts: &[Act], end: End) -> Result<()> {
        for act in acts {
            self.act(tx, act)?;
            if self.rng.chance(1, 3) {
                self.look(tx, act)?;
            }
        }
        finish(end)
    }

    fn act(&mut self, tx: &mut WriteTxn<'_>, act: &Act) -> Result<()> {
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
    fn look(&mut self, tx: &mut WriteTxn<'_>, act: &Act) -> Result<()> {
        *self.looks += 1;
        let (Act::Insert(name, key, _) | Act::Remove(name, key)) = act else {
            let names: Vec<&[u8]> = self.state.trees().map(|(name, _)| name).collect();
            assert_eq!(tx.tree_names()?, names);
            return Ok(());
        };
        let tree = match tx.existing_tree(name) {
            Ok(tree) => tree,
            Err(Error::UnknownTree { .. }) => {
                assert!(self.state.tree(name.as_bytes()).is_none(), "{name} is not there");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let entries = self.state.tree(name.as_bytes()).expect("the model has it too");
        assert_eq!(tree.len(), entries.len() as u64, "{name}");
        assert!(tree.get(key)? == entries.get(key).map(|value| &**value), "{name}");
        wander(tree.cursor(), entries, key, self.rng)
    }
}

/// Moves a cursor to a key and to and fro from there, as a place in the map moves.
fn wander(mut cursor: Cursor<'_>, entries: &Entries, key: &[u8], rng: &mut Rng) -> Result<()> {
    let from = |bound: Bound<&[u8]>| entries.range::<[u8], _>((bound, Bound::Unbounded)).next();
    let to = |bound: Bound<&[u8]>| entries.range::<[u8], _>((Bound::Unbounded, bound)).next_back();
    let (is_somewhere, mut place) = match rng.below(4) {
        0 => (cursor.first()?, entries.iter().next()),
        1 => (cursor.last()?, entries.iter().next_back()),
        2 => (cursor.seek(key)?, from(Bound::Included(key))),
        _ => (cursor.seek_for_prev(key)?, to(Bound::Included(key))),
    };
    assert_eq!(is_somewhere, place.is_some(), "at {}", key.escape_ascii());
    for _ in 0..MOVES {
        let Some((at, value)) = place else { return Ok(()) };
        let (found, bytes) = cursor.entry()?.expect("it is at an entry");
        assert!(found == at[..] && *bytes == **value, "at {}", at.escape_ascii());
        let is_forward = rng.chance(1, 2);
        let moved = if is_forward { cursor.next()? } else { cursor.prev()? };
        place = if is_forward { from(Bound::Excluded(at)) } else { to(Bound::Excluded(at)) };
        assert_eq!(moved, place.is_some(), "from {}", at.escape_ascii());
    }
    Ok(())
}

/// Looks at some places of each tree of a snapshot.
fn look_around(snapshot: &Snapshot, state: &State, rng: &mut Rng) -> Result<()> {
    for (name, entries) in state.trees() {
        let tree = snapshot.tree(name)?;
        for _ in 0..4 {
            let keys: Vec<&Vec<u8>> = entries.keys().collect();
            let len = rng.index(9);
            let key = if keys.is_empty() { rng.bytes(len) } else { (*rng.pick(&keys)).clone() };
            wander(tree.cursor(), entries, &key, rng)?;
            let upper = if keys.is_empty() { Vec::new() } else { (*rng.pick(&keys)).clone() };
            let bounds = (Bound::Excluded(key.clone()), Bound::Included(upper));
            let expected: Vec<&Vec<u8>> =
                keys.iter().copied().filter(|other| bounds.contains(*other)).collect();
            let found: Result<Vec<Vec<u8>>> =
                tree.range(bounds.clone()).map(|entry| Ok(entry?.0.to_vec())).collect();
            assert!(found?.iter().eq(expected.iter().copied()), "{bounds:?}");
            let backwards: Result<Vec<Vec<u8>>> =
                tree.range(bounds.clone()).rev().map(|entry| Ok(entry?.0.to_vec())).collect();
            assert!(backwards?.iter().rev().eq(expected), "{bounds:?} backwards");
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Counts {
    acts: u64,
    looks: u64,
    snapshots: u64,
}

/// Commits a closure while it is watched.
fn write_watched(
    db: &Database,
    closure: &Closure,
    state: State,
    watched: (&mut Rng, &mut u64),
    loses_undo: bool,
) -> Result<Option<u64>> {
    let mut watch = Watch { state, rng: watched.0, looks: watched.1, loses_undo };
    let written = db.write_as(closure.durability, |tx| watch.acts(tx, &closure.acts, closure.end));
    match written {
        Ok(receipt) => Ok(Some(receipt.lsn.0)),
        Err(Error::Rejected(_)) if closure.end == End::Fails => Ok(None),
        Err(error) => Err(error),
    }
}

/// A script from its beginning to its end; closures that come alone are watched.
fn run(seed: u64, loses_undo: bool) -> std::result::Result<Counts, String> {
    let manner = Manner {
        steps: 700,
        acts_max: 60,
        lazy_every: 2,
        reopen_every: 60,
        checkpoint_every: 25,
        ..Manner::of_seed(seed)
    };
    let script = Script::of_seed(seed, &manner);
    let mut life = Life::begin(&script.setup, &SimDisk::new(seed));
    let mut rng = Rng::new(mix(seed, 41));
    let told = |number: usize, stop: Stop| format!("seed {seed}, step {number}: {stop:?}");
    life.open().map_err(|stop| told(0, stop))?;
    let mut counts = Counts { acts: script.acts() as u64, ..Counts::default() };
    for (number, step) in (1..).zip(&script.steps) {
        match step {
            Step::Write(closure) if closure.end != End::Panics => {
                let state = life.model.newest().clone();
                let db = life.db.as_ref().expect("it is open between steps");
                let watched = (&mut rng, &mut counts.looks);
                let lsn = write_watched(db, closure, state.clone(), watched, loses_undo);
                let lsn = lsn.map_err(|error| told(number, error.into()))?;
                life.settle(closure, lsn, state);
            }
            step => life.step(step).map_err(|stop| told(number, stop))?,
        }
        if number % 12 == 0 {
            counts.snapshots += 1;
            let db = life.db.as_ref().expect("it is open between steps");
            let snapshot = db.read().map_err(|error| told(number, error.into()))?;
            look_around(&snapshot, life.model.newest(), &mut rng)
                .map_err(|error| told(number, error.into()))?;
            verify(db, &life.model).map_err(|what| told(number, what.into()))?;
        }
    }
    life.release_all().map_err(|stop| told(script.steps.len(), stop))?;
    Ok(counts)
}

#[test]
fn scripts_give_what_a_map_gives_inside_and_outside_of_transactions() {
    let begin = Instant::now();
    let seeds = seeds(3000, SEEDS);
    let results = for_seeds(&seeds, |seed| {
        run(seed, false).unwrap_or_else(|what| {
            panic!(
                "{what}\nagain: TREEPIE_SEED={seed} cargo test -p treepie --test engine \
                 script_model"
            )
        })
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
    assert!(seeds.len() == 1 || sum(|counts| counts.acts) >= 300_000, "{counts}");
}

#[test]
fn a_savepoint_of_a_script_that_is_not_undone_is_found() {
    let found = (1..9).any(|seed| {
        let ran = std::panic::catch_unwind(|| run(seed, true));
        !matches!(ran, Ok(Ok(_)))
    });
    assert!(found, "no seed found it");
}
