//! `restore` and `drill`: databases made of backups.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Instant,
};

use serde::Serialize;
use treepie::ids::Lsn;
use treepie_snapshot::{
    Error as SnapshotError, ReadOptions, RestoreOptions, RestoreReport, Restorer, StreamReader,
    drill as run_drill,
    repository::{Repository, Target, Until},
    restore_plan,
};

use super::open_stream;
use crate::{
    arguments::backup::{Drill, Moment, Restore},
    failure::{Failure, Result},
    output::{Output, bytes, grouped},
    place::{self, Source},
    time::utc,
    work::{Work, read_options},
};

/// A database that was made.
#[derive(Serialize)]
struct RestoreObject {
    db: String,
    lsn: u64,
    time: String,
    time_us: u64,
    epoch: u64,
    resumed: bool,
    checked: bool,
    /// The backups end before the moment that was asked for.
    ends_before_time: bool,
    pages: u64,
    records: u64,
    entries: Option<u64>,
    stored_bytes: u64,
    seconds: f64,
    /// In a drill: the streams that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<usize>,
}

impl RestoreObject {
    fn new(report: &RestoreReport, seconds: f64, ends_before_time: bool) -> RestoreObject {
        RestoreObject {
            db: report.path.display().to_string(),
            lsn: report.position.lsn.0,
            time: utc(report.time_us),
            time_us: report.time_us,
            epoch: report.lineage.epoch,
            resumed: report.is_resumed,
            checked: report.check.is_some(),
            ends_before_time,
            pages: report.pages,
            records: report.records,
            entries: report.check.as_ref().map(|check| check.entries),
            stored_bytes: report.stored_len,
            seconds,
            streams: None,
        }
    }

    fn what(&self) -> String {
        let check = match self.entries {
            Some(entries) => format!("checked, no damage, {} entries", grouped(entries)),
            None => "not checked".to_owned(),
        };
        format!(
            "LSN {} of {}: {} pages and {} records from {} in {:.2} s; {check}",
            self.lsn,
            self.time,
            grouped(self.pages),
            grouped(self.records),
            bytes(self.stored_bytes),
            self.seconds,
        )
    }

    fn early_end(&self) -> &'static str {
        match self.ends_before_time {
            true => "; the backups end there, before the moment that was asked for",
            false => "",
        }
    }
}

/// Restores.
pub fn run(arguments: &Restore, output: &mut Output) -> Result<()> {
    let read = read_options(&arguments.keys)?;
    let options = RestoreOptions::new().read(read.clone()).check(!arguments.no_check);
    let started = Instant::now();
    let work = Work::begin()?;
    let restoring = Restoring { arguments, read, options, work: &work };
    let (report, ends_before) = match Source::of(&arguments.from)? {
        Source::Repository(repository) => restoring.of_repository(&repository)?,
        Source::Files(files) => {
            let open = |path: &PathBuf| Ok((path.clone(), open_stream(path)?));
            restoring.of_streams(files.iter().map(open))?
        }
        Source::Stdin => {
            let stdin = (PathBuf::from("standard input"), io::stdin().lock());
            restoring.of_streams([Ok(stdin)])?
        }
    };
    drop(work);
    let object = RestoreObject::new(&report, started.elapsed().as_secs_f64(), ends_before);
    output.either(&object, |restored| {
        let resumed = if restored.resumed { "went on with an interrupted restore; " } else { "" };
        format!(
            "{resumed}{} is restored to {}; epoch {}{}",
            restored.db,
            restored.what(),
            restored.epoch,
            restored.early_end(),
        )
    })
}

struct Restoring<'a> {
    arguments: &'a Restore,
    read: ReadOptions,
    options: RestoreOptions,
    work: &'a Work,
}

impl Restoring<'_> {
    fn of_repository(&self, repository: &Repository) -> Result<(RestoreReport, bool)> {
        let moment = &self.arguments.moment;
        let branch = moment.branch.map(|name| name.0);
        let plan = repository.plan(target(moment), branch)?;
        let control = self.work.control(&self.arguments.pace);
        let report = restore_plan(repository, &plan, &self.arguments.to, &self.options, control)?;
        Ok((report, plan.ends_before_target))
    }

    /// From streams in their order; returns too whether they end before the moment that was asked for.
    fn of_streams<R: Read + Len>(
        &self,
        streams: impl IntoIterator<Item = Result<(PathBuf, R)>>,
    ) -> Result<(RestoreReport, bool)> {
        let moment = &self.arguments.moment;
        if moment.branch.is_some() {
            let what = "--branch is for repositories; streams are one history";
            return Err(Failure::Use(what.to_owned()));
        }
        let until = match (moment.lsn, moment.time) {
            (Some(lsn), _) => Until::Lsn(Lsn(lsn)),
            (_, Some(time_us)) => Until::Time { time_us, lsn_max: Lsn(u64::MAX) },
            _ => Until::End,
        };
        let mut restorer = None;
        let mut goes_on = true;
        for stream in streams {
            let (file, input) = stream?;
            goes_on = self.apply(&mut restorer, &file, input, until)?;
            if !goes_on {
                break;
            }
        }
        let restorer = restorer.expect("the command line has at least one stream");
        let found = restorer.position().lsn;
        match until {
            Until::Lsn(wanted) if found < wanted => Err(Failure::NotReached { wanted, found }),
            _ => {
                let ends_before = goes_on && matches!(until, Until::Time { .. });
                Ok((restorer.finish()?, ends_before))
            }
        }
    }

    fn apply<R: Read + Len>(
        &self,
        restorer: &mut Option<Restorer>,
        file: &Path,
        input: R,
        until: Until,
    ) -> Result<bool> {
        let control = self.work.control(&self.arguments.pace);
        let control = match input.len() {
            Some(len) => control.total(len),
            None => control,
        };
        let mut input = control.pace(input);
        let mut apply = || {
            // What is no stream leaves nothing behind.
            let reader = StreamReader::new(&mut input, &self.read)?;
            let restorer = match restorer {
                Some(restorer) => restorer,
                None => restorer.insert(Restorer::begin(&self.arguments.to, &self.options)?),
            };
            restorer.apply(reader, until)
        };
        let goes_on = apply().map_err(|source| match source {
            // The database's own trouble, not the stream's.
            SnapshotError::Engine(_) | SnapshotError::Cancelled => Failure::Snapshot(source),
            source => Failure::Stream { file: file.to_owned(), source },
        })?;
        input.finish();
        Ok(goes_on)
    }
}

/// What is read may know its length.
trait Len {
    fn len(&self) -> Option<u64>;
}

impl Len for File {
    fn len(&self) -> Option<u64> {
        self.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
    }
}

impl Len for io::StdinLock<'_> {
    fn len(&self) -> Option<u64> {
        None
    }
}

fn target(moment: &Moment) -> Target {
    match (moment.lsn, moment.time) {
        (Some(lsn), _) => Target::Lsn(Lsn(lsn)),
        (_, Some(time_us)) => Target::Time(time_us),
        _ => Target::Latest,
    }
}

/// Restores to see that it can be done.
pub fn drill(arguments: &Drill, output: &mut Output) -> Result<()> {
    let repository = place::repository(&arguments.repository)?;
    let options = RestoreOptions::new().read(read_options(&arguments.keys)?);
    let scratch = arguments.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let target = target(&arguments.moment);
    let branch = arguments.moment.branch.map(|name| name.0);
    let ends_before = repository.plan(target, branch)?.ends_before_target;
    let work = Work::begin()?;
    let control = work.control(&arguments.pace);
    let report = run_drill(&repository, target, branch, scratch, &options, control)?;
    drop(work);
    let seconds = report.time.as_secs_f64();
    let mut object = RestoreObject::new(&report.restore, seconds, ends_before);
    object.streams = Some(report.stream_count);
    output.either(&object, |drill| {
        let streams = drill.streams.unwrap_or_default();
        let (what, early_end) = (drill.what(), drill.early_end());
        format!("{streams} streams were restored to {what}, and removed again{early_end}")
    })
}
