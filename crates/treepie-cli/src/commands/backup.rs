//! `backup`: the pages of a database, or those that have changed, as a stream.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    time::Instant,
};

use serde::Serialize;
use treepie::{Base, Database, ids::Lsn};
use treepie_snapshot::{
    BackupOptions, BackupReport, Extent, ReadOptions, StreamKind, StreamReader, backup, keep,
    repository::{Entry, Repository},
};

use super::look_to_copy;
use crate::{
    arguments::backup::{Backup, ReadKeys},
    failure::{Failure, Result},
    new_file::NewFile,
    output::{Output, bytes, grouped},
    place::To,
    time::utc,
    work::{Work, read_options, stream_options},
};

/// A backup that was written.
#[derive(Serialize)]
struct BackupObject<'a> {
    written: bool,
    kind: &'static str,
    lsn: u64,
    base_lsn: Option<u64>,
    time: String,
    time_us: u64,
    pages: u64,
    raw_bytes: u64,
    stored_bytes: u64,
    seconds: f64,
    /// An increment: whether the database knew what has changed.
    from_map: bool,
    digest: String,
    key_id: Option<String>,
    id: Option<&'a str>,
    file: Option<String>,
    damage_count: u64,
    damage: Vec<String>,
}

/// Nothing was written.
#[derive(Serialize)]
struct NothingObject {
    written: bool,
    lsn: u64,
}

/// Writes a backup.
pub fn run(arguments: &Backup, output: &mut Output) -> Result<()> {
    let options = BackupOptions::new()
        .stream(stream_options(&arguments.writing, arguments.key.as_deref())?)
        .skip_damage(arguments.skip_damage);
    let options = match arguments.side_file {
        Some(bytes) => options.side_file_max(bytes),
        None => options,
    };
    look_to_copy(&arguments.db, |db| {
        // Only now: a database that is not there makes no repository.
        match To::of(&arguments.to)? {
            To::Repository(repository) => {
                into_repository(db, &repository, arguments, &options, output)
            }
            To::File(path) => into_file(db, &path, arguments, options, output),
            To::Stdout => to_stdout(db, arguments, options, output),
        }
    })
}

fn into_repository(
    db: &Database,
    repository: &Repository,
    arguments: &Backup,
    options: &BackupOptions,
    output: &mut Output,
) -> Result<()> {
    if arguments.since.is_some() {
        let what = "--since is for files; a repository knows its newest backup: say --incremental";
        return Err(Failure::Use(what.to_owned()));
    }
    let extent = match (arguments.full, arguments.incremental) {
        (true, _) => Extent::Full,
        (_, true) => Extent::Increment,
        _ => Extent::Auto,
    };
    let started = Instant::now();
    let work = Work::begin()?;
    let kept = keep(db, repository, extent, options, work.control(&arguments.pace))?;
    drop(work);
    let Some(kept) = kept else {
        let nothing = NothingObject { written: false, lsn: db.durable_lsn().0 };
        return output.either(&nothing, |nothing| {
            format!("nothing was committed since the newest backup, at LSN {}", nothing.lsn)
        });
    };
    let object = BackupObject::new(&kept.report, started, Some(&kept.entry), None);
    tell(&object, output)?;
    refuse_damage(&kept.report)
}

fn into_file(
    db: &Database,
    path: &Path,
    arguments: &Backup,
    options: BackupOptions,
    output: &mut Output,
) -> Result<()> {
    let options = with_base(db, arguments, options)?;
    let started = Instant::now();
    let work = Work::begin()?;
    let file = NewFile::create(path)?;
    let (file, report) = backup(db, file, &options, work.control(&arguments.pace))?;
    file.publish()?;
    drop(work);
    tell(&BackupObject::new(&report, started, None, Some(path)), output)?;
    refuse_damage(&report)
}

/// Writes a backup to standard output; what is told of it goes to standard error.
fn to_stdout(
    db: &Database,
    arguments: &Backup,
    options: BackupOptions,
    output: &mut Output,
) -> Result<()> {
    let options = with_base(db, arguments, options)?;
    let started = Instant::now();
    let work = Work::begin()?;
    let (_, report) = backup(db, output.raw(), &options, work.control(&arguments.pace))?;
    drop(work);
    let object = BackupObject::new(&report, started, None, None);
    let mut told = io::stderr();
    // The stream is complete, whether somebody hears of it or not.
    let _ = if output.is_json() {
        serde_json::to_writer(&told, &object).map_err(io::Error::from).and_then(|()| writeln!(told))
    } else if told.is_terminal() || !object.damage.is_empty() {
        writeln!(told, "{}", text(&object))
    } else {
        Ok(())
    };
    refuse_damage(&report)
}

/// What an increment to a file or a pipe is based on.
fn with_base(db: &Database, arguments: &Backup, options: BackupOptions) -> Result<BackupOptions> {
    if arguments.incremental {
        let what = "--incremental is for repositories; for a file, say --since and what it follows";
        return Err(Failure::Use(what.to_owned()));
    }
    let Some(since) = &arguments.since else { return Ok(options) };
    let base = match since.parse() {
        Ok(lsn) => base_of_lsn(db, Lsn(lsn))?,
        Err(_) => base_of_stream(Path::new(since), arguments)?,
    };
    Ok(options.base(base))
}

/// The state after a record that the journal still has.
fn base_of_lsn(db: &Database, lsn: Lsn) -> Result<Base> {
    let record = match lsn.0.checked_sub(1) {
        Some(before) => db.records(Lsn(before))?.next_record()?,
        None => None,
    };
    match record {
        Some(record) => Ok(Base { lineage: db.lineage(), lsn, chain: record.chain }),
        None => Err(Failure::Use(format!("the database has no LSN {lsn}"))),
    }
}

/// The state that a stream leads to.
fn base_of_stream(path: &Path, arguments: &Backup) -> Result<Base> {
    let keys = ReadKeys { keys: arguments.key.iter().cloned().collect() };
    let header = stream_header(path, &read_options(&keys)?)?;
    let lsn = header.position.lsn;
    Ok(Base { lineage: header.lineage, lsn, chain: header.position.chain })
}

fn stream_header(path: &Path, options: &ReadOptions) -> Result<treepie_snapshot::StreamHeader> {
    let file = super::open_stream(path)?;
    let in_file = |source| Failure::Stream { file: path.to_owned(), source };
    let reader = StreamReader::new(file, &options.clone().threads(1)).map_err(in_file)?;
    let header = *reader.header();
    if header.kind == StreamKind::Records {
        let what = "holds records; an increment follows a full backup or another increment";
        return Err(Failure::Place { place: path.to_owned(), what: what.to_owned() });
    }
    Ok(header)
}

impl<'a> BackupObject<'a> {
    fn new(
        report: &BackupReport,
        started: Instant,
        entry: Option<&'a Entry>,
        path: Option<&Path>,
    ) -> BackupObject<'a> {
        let summary = &report.summary;
        let is_increment = summary.header.kind == StreamKind::Increment;
        let in_repository = entry.map(|entry| entry.file.to_string());
        BackupObject {
            written: true,
            kind: if is_increment { "increment" } else { "full" },
            lsn: summary.last.lsn.0,
            base_lsn: is_increment.then_some(summary.header.base.lsn.0),
            time: utc(summary.header.time_us),
            time_us: summary.header.time_us,
            pages: summary.page_count,
            raw_bytes: summary.raw_len,
            stored_bytes: summary.stored_len,
            seconds: started.elapsed().as_secs_f64(),
            from_map: report.is_from_map,
            digest: summary.digest.to_string(),
            key_id: summary.coding.encryption.map(|encryption| encryption.key_id.to_string()),
            id: entry.map(|entry| entry.id.as_str()),
            file: in_repository.or_else(|| path.map(|path| path.display().to_string())),
            damage_count: report.damage_count,
            damage: report.damage.iter().map(ToString::to_string).collect(),
        }
    }
}

fn tell(object: &BackupObject<'_>, output: &mut Output) -> Result<()> {
    output.either(object, text)
}

fn text(backup: &BackupObject<'_>) -> String {
    let mut text = String::new();
    for damage in &backup.damage {
        text.push_str(&format!("LEFT OUT: {damage}\n"));
    }
    let since = backup.base_lsn.map_or_else(String::new, |lsn| format!(" since LSN {lsn}"));
    let file = backup.file.as_deref().map_or_else(String::new, |file| format!(": {file}"));
    let key = backup.key_id.as_deref().map_or_else(String::new, |id| format!(", encrypted ({id})"));
    text.push_str(&format!(
        "{}{since} at LSN {} of {}: {} pages, {} in {}{key} and {:.2} s{file}",
        backup.kind,
        backup.lsn,
        backup.time,
        grouped(backup.pages),
        bytes(backup.raw_bytes),
        bytes(backup.stored_bytes),
        backup.seconds,
    ));
    text
}

/// A backup without some pages is there, and its maker has to know.
fn refuse_damage(report: &BackupReport) -> Result<()> {
    match usize::try_from(report.damage_count).unwrap_or(usize::MAX) {
        0 => Ok(()),
        count => Err(Failure::Damaged { count }),
    }
}
