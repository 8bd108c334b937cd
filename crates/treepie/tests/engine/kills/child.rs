//! The process that is killed. It opens, writes with several threads beside a checkpoint and a
//! reader, closes, and begins again, until it is killed. What it does, and what is acknowledged, it
//! says on its standard output, one line with one write each.

use std::{
    env,
    ffi::OsStr,
    io::{self, Write},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use treepie::{Database, Error, Options, Result};
use treepie_testkit::{Rng, mix};

use super::work::{WRITERS, commit, counts, is_whole};
use crate::harness::file_options;

/// Folder of the database: makes this binary the child.
pub const PATH: &str = "TREEPIE_KILLED_PATH";
/// Seed of its writers' pace.
pub const SEED: &str = "TREEPIE_KILLED_SEED";
/// Whether commits are acknowledged before they are written, as a planted bug.
pub const EARLY: &str = "TREEPIE_KILLED_EARLY";
/// Openings after which it ends by itself, should nobody kill it.
const LIVES_MAX: u64 = 10_000;

/// Options with which everything happens often.
pub fn options() -> Options {
    file_options()
        .journal_segment_size(64 << 10)
        .checkpoint_distance(256 << 10)
        .checkpoint_interval(Duration::from_millis(10))
}

/// Does nothing unless it is the child.
#[test]
fn process_that_is_killed() {
    let Some(path) = env::var_os(PATH) else { return };
    #[cfg(feature = "planted")]
    if env::var_os(EARLY).is_some() {
        use treepie::planted::{Planted, plant_for_good};
        plant_for_good(Planted::AcknowledgedBeforeWrite);
    }
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok()).expect("a seed");
    run(&path, seed).expect("the engine goes on until it is killed");
}

fn run(path: &OsStr, seed: u64) -> Result<()> {
    for life in 0..LIVES_MAX {
        say("opening");
        let db = options().open(Path::new(path))?;
        say("open");
        live(&db, mix(seed, life))?;
        say("closing");
        db.close()?;
        say("closed");
    }
    Ok(())
}

/// Everything at once, until each writer has made its commits.
fn live(db: &Database, seed: u64) -> Result<()> {
    let before = counts(&db.read()?)?;
    let writing = AtomicUsize::new(WRITERS);
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (writer, last) in before.into_iter().enumerate() {
            let writing = &writing;
            threads.push(scope.spawn(move || {
                let written = write(db, writer, last, mix(seed, writer as u64));
                writing.fetch_sub(1, SeqCst);
                written
            }));
        }
        threads.push(scope.spawn(|| read(db, &writing)));
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })
}

/// Commits in every way that there is, and says so.
fn write(db: &Database, writer: usize, last: u64, seed: u64) -> Result<()> {
    let mut rng = Rng::new(seed);
    for number in last + 1..last + 1 + rng.range(10..120) as u64 {
        match rng.below(8) {
            0 => drop(db.submit(move |tx| commit(tx, writer, number))?.wait()?),
            1 => {
                let mut tx = db.begin_write()?;
                commit(&mut tx, writer, number)?;
                tx.commit()?;
            }
            2 => {
                let failed = db.write(|tx| {
                    commit(tx, writer, number)?;
                    Err::<(), _>(Error::rejected("on purpose"))
                });
                assert!(matches!(failed, Err(Error::Rejected(_))), "{failed:?}");
                db.write(|tx| commit(tx, writer, number))?;
            }
            _ => drop(db.write(|tx| commit(tx, writer, number))?),
        }
        say(&format!("done {writer} {number}"));
        if rng.chance(1, 60) {
            say("checkpoint");
            db.checkpoint()?;
            say("checkpointed");
        }
    }
    Ok(())
}

fn read(db: &Database, writing: &AtomicUsize) -> Result<()> {
    while writing.load(SeqCst) > 0 {
        let snapshot = db.read()?;
        assert!(is_whole(&snapshot)?, "a reader sees a commit in part");
        for info in snapshot.trees()? {
            for entry in snapshot.tree(&info.name)?.iter() {
                entry?;
            }
        }
    }
    Ok(())
}

fn say(what: &str) {
    let line = format!("{what}\n");
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("the parent listens");
}
