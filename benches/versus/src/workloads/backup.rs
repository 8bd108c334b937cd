//! Backups of the loaded database, whose files are in the page cache; what is made of them; and commits
//! beside them.
//!
//! `plain` is a copy of all pages as they are, `packed` what the engine has to make it smaller. Megabytes
//! a second are those of the pages that a backup holds, or of the database that was made. As some
//! engines' files are larger than others', there are times too.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    contest::Context,
    data::{Random, mix},
    engine::{Backup, BackupRequest, Batch, Engine},
    measure::{Figure, Unit},
    workloads::{Workload, load::batches, threads},
};

/// Bytes that are read at a time where files are only read: what `cat` takes.
const READ_LEN: usize = 128 << 10;
/// One entry in so many is changed before an increment.
const CHANGED_SHARE: u64 = 100;

/// A turn of a workload of backups. No figures where the engine cannot do it.
pub fn turn<E: Engine>(
    engine: &E,
    dir: &Path,
    workload: Workload,
    context: &Context,
    round: u32,
) -> Result<Vec<Figure>> {
    match workload {
        Workload::Backup => to_nowhere(engine, dir),
        Workload::BackupFile => to_file(engine, context),
        Workload::Restore => restores(engine, context),
        Workload::Increment => increment(engine, context, round),
        Workload::BackupBesidePut1 => beside(engine, context, round, 1),
        Workload::BackupBesidePut64 => beside(engine, context, round, 64),
        _ => Err(format!("{workload:?} is not about backups").into()),
    }
}

/// Backups whose bytes go nowhere, and the engine's files read as they are.
fn to_nowhere<E: Engine>(engine: &E, dir: &Path) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (row, is_packed) in [("backup-plain", false), ("backup-packed", true)] {
        let request = BackupRequest { is_packed, file: None };
        let Some((backup, time)) = timed(|| engine.back_up(request))? else { continue };
        figures.push(rate(row, backup.page_bytes, time));
        figures.push(milliseconds(format!("{row}-time"), time));
    }
    if !figures.is_empty() {
        let start = Instant::now();
        let bytes = read_files(dir)?;
        figures.push(rate("backup-cat", bytes, start.elapsed()));
    }
    Ok(figures)
}

/// Backups into a file.
fn to_file<E: Engine>(engine: &E, context: &Context) -> Result<Vec<Figure>> {
    let path = context.home.join("backup");
    let mut figures = Vec::new();
    for (row, is_packed) in [("backup-file-plain", false), ("backup-file-packed", true)] {
        let request = BackupRequest { is_packed, file: Some(&path) };
        let Some((backup, time)) = timed(|| engine.back_up(request))? else { continue };
        figures.push(rate(row, backup.page_bytes, time));
        figures.push(milliseconds(format!("{row}-time"), time));
        figures.push(Figure::megabytes(format!("{row}-size"), backup.stored_bytes));
        fs::remove_file(&path)?;
    }
    Ok(figures)
}

/// Databases made of a backup.
fn restores<E: Engine>(engine: &E, context: &Context) -> Result<Vec<Figure>> {
    let (file, dir) = (context.home.join("backup"), context.home.join("restored"));
    let request = BackupRequest { is_packed: true, file: Some(&file) };
    let Some(backup) = engine.back_up(request)? else { return Ok(Vec::new()) };
    let mut figures = Vec::new();
    for (row, is_checked) in [("restore", false), ("restore-checked", true)] {
        let start = Instant::now();
        if !E::restore(&file, &dir, is_checked)? {
            break;
        }
        let time = start.elapsed();
        figures.push(rate(row, backup.page_bytes, time));
        figures.push(milliseconds(format!("{row}-time"), time));
        fs::remove_dir_all(&dir)?;
    }
    fs::remove_file(&file)?;
    Ok(figures)
}

/// A backup of everything, then of what changed since. Neighbouring entries change, so that one leaf in a
/// hundred does: as many entries in random places would touch nearly all of them.
fn increment<E: Engine>(engine: &E, context: &Context, round: u32) -> Result<Vec<Figure>> {
    let request = BackupRequest { is_packed: true, file: None };
    let Some((full, full_time)) = timed(|| engine.back_up(request))? else { return Ok(Vec::new()) };
    change_neighbours(engine, context, round)?;
    let Some((changes, time)) = timed(|| engine.back_up_changes())? else { return Ok(Vec::new()) };
    engine.settle()?;
    let share = |row: &str, part: f64, whole: f64| {
        Figure::new(format!("increment-{row}"), part / whole, Unit::Share)
    };
    let bytes = |backup: &Backup| (backup.page_bytes as f64, backup.stored_bytes as f64);
    let ((full_pages, full_bytes), (pages, stored)) = (bytes(&full), bytes(&changes));
    Ok(vec![
        share("pages", pages, full_pages),
        share("bytes", stored, full_bytes),
        share("time", time.as_secs_f64(), full_time.as_secs_f64()),
    ])
}

/// Replaces the values of one entry in a hundred, all behind one another.
fn change_neighbours<E: Engine>(engine: &E, context: &Context, round: u32) -> Result<()> {
    let entries = context.entries;
    let count = (entries.count / CHANGED_SHARE).max(1);
    let mut random = Random::new(mix(entries.seed ^ u64::from(round) ^ 0xbac));
    let first = random.below(entries.count - count + 1);
    let generation = random.next();
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for range in batches(count, context.options.load_batch) {
        engine.write(|batch| {
            for number in range {
                entries.key(first + number, &mut key);
                entries.value(first + number, generation, &mut value);
                batch.put(&key, &value)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Commits while backups are made, also as a share of those without, and the rate of the backups.
fn beside<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    threads: u64,
) -> Result<Vec<Figure>> {
    if !engine.can_back_up() {
        return Ok(Vec::new());
    }
    let alone = commits(engine, context, round, threads)?;
    let stop = AtomicBool::new(false);
    let (beside, backups) = thread::scope(|scope| {
        let backups = scope.spawn(|| back_up_until(engine, &stop));
        let beside = commits(engine, context, round, threads);
        stop.store(true, Ordering::Relaxed);
        let backups = backups.join().map_err(|_| "a backup panicked".into()).flatten();
        (beside, backups)
    });
    let (beside, (bytes, time)) = (beside?, backups?);
    let row = format!("backup-beside-put-{threads}");
    Ok(vec![
        Figure::new(row.as_str(), beside, Unit::Commits),
        Figure::new(format!("{row}-share"), beside / alone, Unit::Share),
        rate(format!("{row}-backup"), bytes, time),
    ])
}

fn commits<E: Engine>(engine: &E, context: &Context, round: u32, threads: u64) -> Result<f64> {
    let figures = threads::alone(engine, context, round, threads)?;
    Ok(figures.first().ok_or("there is no rate of commits")?.value)
}

/// Makes one backup after the other until told to stop; bytes of pages, and the time that they took.
fn back_up_until<E: Engine>(engine: &E, stop: &AtomicBool) -> Result<(u64, Duration)> {
    let request = |is_packed| BackupRequest { is_packed, file: None };
    let (start, mut bytes) = (Instant::now(), 0);
    while bytes == 0 || !stop.load(Ordering::Relaxed) {
        let backup = match engine.back_up(request(true))? {
            Some(backup) => backup,
            None => engine.back_up(request(false))?.ok_or("the engine cannot be backed up")?,
        };
        bytes += backup.page_bytes.max(1);
    }
    Ok((bytes, start.elapsed()))
}

/// Reads all files of a folder; how many bytes they have.
fn read_files(dir: &Path) -> Result<u64> {
    let (mut buffer, mut sum) = (vec![0; READ_LEN], 0);
    for item in fs::read_dir(dir)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            sum += read_files(&item.path())?;
            continue;
        }
        let mut file = File::open(item.path())?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                len => sum += len as u64,
            }
        }
    }
    Ok(sum)
}

/// What a call returns, and how long it took.
fn timed<T>(call: impl FnOnce() -> Result<Option<T>>) -> Result<Option<(T, Duration)>> {
    let start = Instant::now();
    let value = call()?;
    Ok(value.map(|value| (value, start.elapsed())))
}

fn rate(row: impl Into<String>, bytes: u64, time: Duration) -> Figure {
    Figure::new(row, bytes as f64 / 1e6 / time.as_secs_f64(), Unit::MegabytesPerSecond)
}

fn milliseconds(row: String, time: Duration) -> Figure {
    Figure::new(row, time.as_secs_f64() * 1e3, Unit::Milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn every_workload_of_backups_has_its_rows_and_leaves_no_file() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("database");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("data"), [1; 1000]).unwrap();
        let mut context = Context::for_tests(100);
        context.home = home.path().to_owned();
        let engine = Memory::default();
        let rows = |workload| -> Vec<String> {
            let figures = turn(&engine, &dir, workload, &context, 0).unwrap();
            figures.into_iter().map(|figure| figure.row).collect()
        };
        let nowhere = ["backup-plain", "backup-plain-time", "backup-packed", "backup-packed-time"];
        assert_eq!(rows(Workload::Backup)[..4], nowhere);
        assert_eq!(rows(Workload::BackupFile).len(), 6);
        assert_eq!(rows(Workload::Restore).len(), 4);
        assert_eq!(
            rows(Workload::Increment),
            ["increment-pages", "increment-bytes", "increment-time"]
        );
        assert_eq!(rows(Workload::BackupBesidePut64).len(), 3);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        assert_eq!(read_files(home.path()).unwrap(), 1000);
    }

    #[test]
    fn one_entry_in_a_hundred_changes_and_all_are_neighbours() {
        let context = Context::for_tests(100);
        let engine = Memory::default();
        change_neighbours(&engine, &context, 3).unwrap();
        assert_eq!(engine.len(), 10);
    }
}
