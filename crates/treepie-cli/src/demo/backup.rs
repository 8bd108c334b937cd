//! Step 7: a backup while a thread writes, and a restore to a moment between two commits.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use treepie::{Database, ids::Lsn};
use treepie_snapshot::{
    ArchiveOptions, Archiver, BackupOptions, Control, Extent, Kept, RestoreOptions, drill, keep,
    repository::{Repository, Target},
    restore_plan,
    store::LocalStore,
};

use super::{folder::Folder, promise, story::Story};
use crate::{
    failure::{Failure, Result},
    output::{bytes, grouped, rate},
    time::utc,
};

/// The tree that is written to during the backup.
const COUNTS: &str = "counts";
/// The entry that a mistake removes.
const TREE: &str = "names";
const KEY: &str = "SNOWMAN";

/// Step 7.
pub fn show(db: &Database, folder: &Folder, story: &mut Story<'_>) -> Result<()> {
    story.step("Back the database up while a thread writes, and undo a mistake")?;
    let store = LocalStore::new(folder.backups());
    let repository = Repository::open_or_create(std::sync::Arc::new(store))?;
    back_up_beside_a_writer(db, &repository, story)?;
    // What is committed from here on stays in the journal until it is archived.
    let options = ArchiveOptions::new();
    let mut archive = Archiver::begin(db, &repository, &options, Control::new())?;
    let before = make_a_mistake(db, story)?;
    while archive.write_file()? {}
    let increment = increment(db, &repository, story)?;
    let report = archive.report();
    story.say(format!(
        "The archive of records, LSN by LSN: {} of {} in {}.",
        grouped(report.records),
        bytes(report.raw_len),
        bytes(report.entries.iter().map(|entry| entry.bytes).sum()),
    ))?;
    let repository = Repository::open(repository.store().clone())?;
    restore_before(db, &repository, before, &folder.restored(), story)?;
    drill_newest(&repository, &increment, folder, story)
}

fn back_up_beside_a_writer(
    db: &Database,
    repository: &Repository,
    story: &mut Story<'_>,
) -> Result<()> {
    let (is_over, commits) = (AtomicBool::new(false), AtomicU64::new(0));
    let (kept, seconds) = thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(db, &is_over, &commits));
        // The backup begins in the middle of the writing.
        while commits.load(Ordering::Relaxed) == 0 && !writer.is_finished() {
            thread::yield_now();
        }
        let started = Instant::now();
        let kept = keep(db, repository, Extent::Full, &BackupOptions::new(), Control::new());
        let seconds = started.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| Failure::Demo("the writing thread panicked".to_owned()))??;
        Ok::<_, Failure>((kept?, seconds))
    })?;
    let kept = kept.ok_or_else(|| Failure::Demo("a full backup was not made".to_owned()))?;
    let summary = &kept.report.summary;
    story.say(format!(
        "Full backup at LSN {}: {} pages, {} in {} and {:.0} ms, {}/s.",
        summary.last.lsn,
        grouped(summary.page_count),
        bytes(summary.raw_len),
        bytes(summary.stored_len),
        seconds * 1e3,
        bytes(rate(summary.raw_len, seconds)),
    ))?;
    let newest = db.durable_lsn();
    promise(newest > summary.last.lsn, || "nobody wrote during the backup".to_owned())?;
    story.say(format!(
        "Meanwhile the thread committed on, {} times from its beginning on, to LSN {newest}.",
        grouped(commits.load(Ordering::Relaxed)),
    ))
}

fn write_until(db: &Database, is_over: &AtomicBool, commits: &AtomicU64) -> treepie::Result<()> {
    let mut count = 0_u64;
    // One more when the backup is over: it is behind it for certain.
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        count += 1;
        db.write(|tx| tx.tree(COUNTS)?.insert(format!("{:03}", count % 100), count.to_string()))?;
        commits.store(count, Ordering::Relaxed);
        if is_last {
            return Ok(());
        }
    }
}

/// Two commits: the second one is a mistake. Returns the LSN of the first.
fn make_a_mistake(db: &Database, story: &mut Story<'_>) -> Result<Lsn> {
    let mut txn = db.begin_write()?;
    txn.tree("diary")?.insert("today", "seen: a snowman")?;
    let good = txn.commit()?;
    let mut txn = db.begin_write()?;
    txn.tree(TREE)?.remove(KEY)?;
    let mistake = txn.commit()?;
    story.say(format!("LSN {good} notes in a diary: seen, a snowman."))?;
    story.say(format!("LSN {mistake}, by mistake, removes {TREE} {KEY}."))?;
    promise(mistake == good.next(), || format!("{good} and {mistake} are not neighbours"))?;
    promise(find(db)?.is_none(), || format!("{KEY} is still there"))?;
    Ok(good)
}

fn increment(db: &Database, repository: &Repository, story: &mut Story<'_>) -> Result<Kept> {
    let started = Instant::now();
    let options = BackupOptions::new();
    let kept = keep(db, repository, Extent::Increment, &options, Control::new())?;
    let kept = kept.ok_or_else(|| Failure::Demo("an increment was not made".to_owned()))?;
    let summary = &kept.report.summary;
    promise(kept.report.is_from_map, || "the increment read all pages".to_owned())?;
    story.say(format!(
        "Increment to LSN {}: {} pages, {} in {} and {:.0} ms.",
        summary.last.lsn,
        grouped(summary.page_count),
        bytes(summary.raw_len),
        bytes(summary.stored_len),
        started.elapsed().as_secs_f64() * 1e3,
    ))?;
    Ok(kept)
}

/// Restores the state between the two commits.
fn restore_before(
    db: &Database,
    repository: &Repository,
    before: Lsn,
    target: &Path,
    story: &mut Story<'_>,
) -> Result<()> {
    let started = Instant::now();
    let plan = repository.plan(Target::Lsn(before), None)?;
    let options = RestoreOptions::new();
    let report = restore_plan(repository, &plan, target, &options, Control::new())?;
    let seconds = started.elapsed().as_secs_f64();
    story.say(format!(
        "Restored to LSN {before}, {} UTC, before the mistake: {} pages,",
        utc(report.time_us),
        grouped(report.pages),
    ))?;
    story.say(format!(
        "{} records, checked, in {:.0} ms.",
        grouped(report.records),
        seconds * 1e3
    ))?;
    let restored = Database::open(target)?;
    let (there, here) = (find(&restored)?, find(db)?);
    story.say(format!("{TREE} {KEY} there -> {}", there.as_deref().unwrap_or("nothing")))?;
    story.say(format!("{TREE} {KEY} here  -> {}", here.as_deref().unwrap_or("nothing")))?;
    let has_diary = restored.read()?.tree("diary")?.get("today")?.is_some();
    let holds = there.as_deref() == Some("002603") && here.is_none() && has_diary;
    promise(holds, || "the restored state is another one".to_owned())?;
    let value = there.unwrap_or_default();
    restored.close()?;
    db.write(|tx| tx.tree(TREE)?.insert(KEY, &value))?;
    story.say("The entry is put back. The restored database has an epoch of its own.")
}

fn find(db: &Database) -> Result<Option<String>> {
    let snapshot = db.read()?;
    let value = snapshot.tree(TREE)?.get(KEY)?;
    Ok(value.map(|value| String::from_utf8_lossy(value).into_owned()))
}

fn drill_newest(
    repository: &Repository,
    increment: &Kept,
    folder: &Folder,
    story: &mut Story<'_>,
) -> Result<()> {
    let options = RestoreOptions::new();
    let report = drill(repository, Target::Latest, None, folder.path(), &options, Control::new())?;
    let lsn = report.restore.position.lsn;
    promise(lsn == increment.report.summary.last.lsn, || format!("the drill came to LSN {lsn}"))?;
    story.say(format!(
        "Drill: {} streams restored to LSN {lsn}, checked, compared, and removed, in {:.0} ms.",
        report.stream_count,
        report.time.as_secs_f64() * 1e3,
    ))
}
