//! Who has a turn when: for each workload, round by round, the engines one after another, and
//! another one first in each round.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Result,
    data::Entries,
    engine::Setup,
    engines,
    lane::{EngineLane, Lane},
    measure::Limit,
    options::Options,
    report::Report,
    workloads::{Home, Workload, bare},
};

/// What the workloads are told.
#[derive(Clone, Debug)]
pub struct Context {
    /// The command's flags.
    pub options: Options,
    /// The entries of the loaded database.
    pub entries: Entries,
    /// How engines are opened.
    pub setup: Setup,
    /// When a turn without a natural end ends.
    pub limit: Limit,
    /// The same of batches.
    pub batch_limit: Limit,
    /// When a warm-up ends.
    pub warm_limit: Limit,
    /// The folder of the run.
    pub home: PathBuf,
}

impl Context {
    fn new(options: Options, home: &Path) -> Context {
        let entries = Entries {
            count: options.entries,
            key_len: usize::from(options.key_len),
            value_len: options.value_len,
            shape: options.keys,
            values: options.values,
            seed: options.seed,
        };
        let setup = Setup {
            cache_size: options.cache_mib << 20,
            page_size: options.page_size,
            large_values: false,
        };
        let limit = |seconds| Limit {
            time: Duration::from_secs_f64(seconds),
            count: options.count.unwrap_or(u64::MAX),
        };
        Context {
            entries,
            setup,
            limit: limit(options.seconds),
            batch_limit: limit(options.batch_seconds),
            warm_limit: limit(options.warm_seconds),
            home: home.to_owned(),
            options,
        }
    }

    /// What a workload is told: the entries are those of the database that it runs on.
    pub fn of(&self, workload: Workload) -> Context {
        let mut context = self.clone();
        if workload.home() == Home::Written {
            context.entries.count = self.options.write_entries;
        }
        context
    }

    /// The same, with turns that only warm up.
    pub fn while_warming(&self) -> Context {
        Context { limit: self.warm_limit, batch_limit: self.warm_limit, ..self.clone() }
    }

    /// A context whose turns end after `count` operations.
    #[cfg(test)]
    pub fn for_tests(count: u64) -> Context {
        use clap::Parser;
        let mut options = Options::parse_from(["versus", "--entries", "1000"]);
        options.count = Some(count);
        Context::new(options, Path::new("."))
    }
}

/// One run of the benchmark.
pub struct Contest {
    context: Context,
    home: TempDir,
    lanes: Vec<Box<dyn Lane>>,
    report: Report,
}

impl Contest {
    /// Prepares the folder; it is removed when the run is over.
    pub fn new(options: Options) -> Result<Contest> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("versus-");
        let home = match &options.dir {
            Some(dir) => builder.tempdir_in(dir)?,
            None => builder.tempdir()?,
        };
        let mut lanes = lanes(home.path());
        let known = |name: &str| name == bare::NAME || lanes.iter().any(|l| l.name() == name);
        if let Some(name) = options.engines.iter().find(|name| !known(name)) {
            return Err(format!("no engine called {name} takes part in this build").into());
        }
        lanes.retain(|lane| options.has_engine(lane.name()));
        let report = Report::new(options.json.as_deref())?;
        Ok(Contest { context: Context::new(options, home.path()), home, lanes, report })
    }

    /// Runs all workloads.
    pub fn run(mut self) -> Result<Report> {
        for workload in self.context.options.chosen_workloads() {
            for round in 0..workload.rounds(&self.context.options) {
                self.round(workload, round)?;
            }
        }
        for lane in &mut self.lanes {
            lane.close()?;
        }
        self.home.close()?;
        Ok(self.report)
    }

    fn round(&mut self, workload: Workload, round: u32) -> Result<()> {
        if self.context.options.has_engine(bare::NAME) {
            let figures = bare::turn(workload, &self.context)?;
            self.report.add(bare::NAME, round, &figures)?;
        }
        if self.lanes.is_empty() {
            return Ok(());
        }
        self.lanes.rotate_left(1);
        for lane in &mut self.lanes {
            let name = lane.name();
            let figures = lane
                .turn(workload, &self.context, round)
                .map_err(|error| format!("{name}, {workload:?}, round {round}: {error}"))?;
            self.report.add(name, round, &figures)?;
        }
        Ok(())
    }
}

/// Writes with one engine in the folder of `--dir` until this process is killed.
pub fn write_until_killed(options: &Options, engine: &str) -> Result<()> {
    let dir = options.dir.as_deref().ok_or("the folder is missing")?;
    let lanes = lanes(dir);
    let lane = lanes.iter().find(|lane| lane.name() == engine).ok_or("no such engine")?;
    lane.write_until_killed(&Context::new(options.clone(), dir), dir)
}

/// Backs up the database of one engine in the folder of `--dir`, and prints the memory that it took.
pub fn measure_backup(options: &Options, engine: &str) -> Result<()> {
    let dir = options.dir.as_deref().ok_or("the folder is missing")?;
    let lanes = lanes(dir);
    let lane = lanes.iter().find(|lane| lane.name() == engine).ok_or("no such engine")?;
    lane.measure_backup(&Context::new(options.clone(), dir), dir)
}

/// All engines of this build.
fn lanes(home: &Path) -> Vec<Box<dyn Lane>> {
    vec![
        #[cfg(feature = "treepie")]
        EngineLane::<engines::Treepie>::boxed(home),
        EngineLane::<engines::Lmdb>::boxed(home),
        EngineLane::<engines::Redb>::boxed(home),
        #[cfg(feature = "fjall")]
        EngineLane::<engines::Fjall>::boxed(home),
        #[cfg(feature = "canopydb")]
        EngineLane::<engines::Canopydb>::boxed(home),
        #[cfg(feature = "sqlite")]
        EngineLane::<engines::Sqlite>::boxed(home),
        #[cfg(feature = "rocksdb")]
        EngineLane::<engines::Rocksdb>::boxed(home),
    ]
}
