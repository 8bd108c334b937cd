//! Step 5: many threads write at once, and share records and disk writes.

use std::{
    thread,
    time::{Duration, Instant},
};

use treepie::{Database, Error, Stats};

use super::{promise, story::Story};
use crate::{
    failure::{Failure, Result},
    output::{grouped, rate},
};

const TREE: &str = "visits";
const THREADS: u8 = 64;
/// Transactions of one thread.
const VISITS: u32 = 250;
/// Each so many of a thread's transactions gives up half-way.
const REJECTED_EVERY: u32 = 50;

/// Step 5.
pub fn show(db: &Database, story: &mut Story<'_>) -> Result<()> {
    story
        .step(&format!("Write from {THREADS} threads at once, each waiting for its own commit"))?;
    let before = db.stats();
    let begin = Instant::now();
    let kept = visit_from_all(db)?;
    let time = begin.elapsed();
    let expected = u64::from(THREADS) * u64::from(VISITS - VISITS / REJECTED_EVERY);
    let snapshot = db.read()?;
    let (found, counted) = (snapshot.tree(TREE)?.len(), counter(&snapshot)?);
    promise(kept == expected && found == kept + 1 && counted == kept, || {
        format!("{kept} transactions were acknowledged, {found} entries and {counted} are there")
    })?;
    tell(&before, &db.stats(), kept, time, story)?;
    story.say(format!(
        "{} of the closures gave up half-way: nothing of them is left, and those that shared their",
        grouped(u64::from(THREADS) * u64::from(VISITS / REJECTED_EVERY)),
    ))?;
    story.say(format!("record are there. A counter that all of them raised is at {counted}."))
}

fn tell(
    before: &Stats,
    after: &Stats,
    kept: u64,
    time: Duration,
    story: &mut Story<'_>,
) -> Result<()> {
    let seconds = time.as_secs_f64();
    let (records, syncs) = (after.commits - before.commits, after.syncs - before.syncs);
    story.say(format!(
        "{} durable transactions in {:.2} s: {} a second, with {} syncs of the disk a second.",
        grouped(kept),
        seconds,
        grouped(rate(kept, seconds)),
        grouped(rate(syncs, seconds)),
    ))?;
    story.say(format!(
        "They were merged into {} records of {:.1} transactions on average.",
        grouped(records),
        kept as f64 / records.max(1) as f64,
    ))
}

fn visit_from_all(db: &Database) -> Result<u64> {
    thread::scope(|scope| {
        let visitors: Vec<_> =
            (0..THREADS).map(|number| scope.spawn(move || visit(db, number))).collect();
        let mut kept = 0;
        for visitor in visitors {
            let panicked = |_| Failure::Demo("a writing thread panicked".to_owned());
            kept += visitor.join().map_err(panicked)??;
        }
        Ok(kept)
    })
}

/// Each transaction notes a visit and raises a counter that all share; returns how many were kept.
fn visit(db: &Database, visitor: u8) -> treepie::Result<u64> {
    let mut kept = 0;
    for number in 0..VISITS {
        let gives_up = number % REJECTED_EVERY == REJECTED_EVERY - 1;
        let written = db.write(|tx| {
            let mut visits = tx.tree(TREE)?;
            let before = visits.get("count")?.and_then(|bytes| bytes.try_into().ok());
            let count = before.map_or(0, u64::from_be_bytes) + 1;
            visits.insert("count", count.to_be_bytes())?;
            visits.insert([&[visitor][..], &number.to_be_bytes()].concat(), "was here")?;
            if gives_up { Err(Error::rejected("changed its mind")) } else { Ok(()) }
        });
        match written {
            Ok(_) => kept += 1,
            Err(Error::Rejected(_)) if gives_up => {}
            Err(error) => return Err(error),
        }
    }
    Ok(kept)
}

fn counter(snapshot: &treepie::Snapshot) -> Result<u64> {
    let count = snapshot.tree(TREE)?.get("count")?.and_then(|bytes| bytes.try_into().ok());
    Ok(count.map_or(0, u64::from_be_bytes))
}
