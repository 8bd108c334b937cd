//! Who has a turn when: for each workload, round by round, the engines one after another, and
//! another one first in each round.

use std::{fs, marker::PhantomData, path::Path, path::PathBuf, time::Duration};

use tempfile::TempDir;

use crate::{
    Result,
    data::Entries,
    engine::{Engine, Setup},
    engines,
    measure::{Figure, Limit},
    options::Options,
    report::Report,
    workloads::{Workload, bare, beside, churn, kill, load, read, write},
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
}

impl Context {
    fn new(options: Options) -> Context {
        let entries = Entries {
            count: options.entries,
            key_len: usize::from(options.key_len),
            value_len: options.value_len,
            shape: options.keys,
            seed: options.seed,
        };
        let setup = Setup { cache_size: options.cache_mib << 20 };
        let limit = Limit {
            time: Duration::from_secs_f64(options.seconds),
            count: options.count.unwrap_or(u64::MAX),
        };
        Context { options, entries, setup, limit }
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
        lanes.retain(|lane| options.has_engine(lane.name()));
        if lanes.is_empty() {
            return Err("no engine of these names takes part in this build".into());
        }
        let report = Report::new(options.json.as_deref())?;
        Ok(Contest { context: Context::new(options), home, lanes, report })
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
        if workload == Workload::Put1 && self.context.options.has_engine(bare::NAME) {
            let figures = bare::overwrites(self.home.path(), self.context.limit)?;
            self.report.add(bare::NAME, round, &figures)?;
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
    lane.write_until_killed(&Context::new(options.clone()), dir)
}

/// All engines of this build.
fn lanes(home: &Path) -> Vec<Box<dyn Lane>> {
    vec![
        #[cfg(feature = "treepie")]
        EngineLane::<engines::Treepie>::boxed(home),
        EngineLane::<engines::Lmdb>::boxed(home),
        EngineLane::<engines::Redb>::boxed(home),
    ]
}

/// An engine with its databases.
trait Lane {
    fn name(&self) -> &'static str;
    fn turn(&mut self, workload: Workload, context: &Context, round: u32) -> Result<Vec<Figure>>;
    fn write_until_killed(&self, context: &Context, dir: &Path) -> Result<()>;
    fn close(&mut self) -> Result<()>;
}

/// The lane of engine `E`: the loaded database, which most workloads share, and a scratch folder
/// for those that build their own.
struct EngineLane<E: Engine> {
    loaded_dir: PathBuf,
    scratch_dir: PathBuf,
    loaded: Option<E>,
    warm: bool,
    engine: PhantomData<E>,
}

impl<E: Engine + 'static> EngineLane<E> {
    fn boxed(home: &Path) -> Box<dyn Lane> {
        let dir = |kind: &str| home.join(format!("{}-{kind}", E::NAME));
        Box::new(EngineLane::<E> {
            loaded_dir: dir("loaded"),
            scratch_dir: dir("scratch"),
            loaded: None,
            warm: false,
            engine: PhantomData,
        })
    }

    /// Loads the database anew and leaves it open.
    fn load(&mut self, context: &Context) -> Result<Vec<Figure>> {
        self.close()?;
        renew(&self.loaded_dir)?;
        let figures = load::random::<E>(&self.loaded_dir, context)?;
        self.loaded = Some(E::open(&self.loaded_dir, context.setup)?);
        self.warm = false;
        Ok(figures)
    }

    /// The loaded database, read once from end to end.
    fn warmed(&mut self, context: &Context) -> Result<&E> {
        if self.loaded.is_none() {
            self.load(context)?;
        }
        let engine = self.loaded.as_ref().ok_or("the database is not open")?;
        if !self.warm {
            read::full_scans(engine, context, Limit { count: 1, ..context.limit })?;
            self.warm = true;
        }
        Ok(engine)
    }

    /// Runs a workload on an empty folder of its own.
    fn in_scratch<R>(&self, body: impl FnOnce(&Path) -> Result<R>) -> Result<R> {
        renew(&self.scratch_dir)?;
        let result = body(&self.scratch_dir)?;
        fs::remove_dir_all(&self.scratch_dir)?;
        Ok(result)
    }
}

impl<E: Engine + 'static> Lane for EngineLane<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn turn(&mut self, workload: Workload, context: &Context, round: u32) -> Result<Vec<Figure>> {
        use Workload as W;
        match workload {
            W::LoadRandom => self.load(context),
            W::LoadSorted => self.in_scratch(|dir| load::sorted::<E>(dir, context)),
            W::Large64K => self.in_scratch(|dir| write::large::<E>(dir, context, write::KIB_64)),
            W::Large1M => self.in_scratch(|dir| write::large::<E>(dir, context, write::MIB_1)),
            W::Large4M => self.in_scratch(|dir| write::large::<E>(dir, context, write::MIB_4)),
            W::Churn => self.in_scratch(|dir| churn::halve_and_fill::<E>(dir, context)),
            W::OpenAfterKill => self.in_scratch(|dir| kill::open_after_kill::<E>(dir, context)),
            _ => loaded_turn(self.warmed(context)?, workload, context, round),
        }
    }

    fn write_until_killed(&self, context: &Context, dir: &Path) -> Result<()> {
        kill::write_until_killed::<E>(dir, context)
    }

    fn close(&mut self) -> Result<()> {
        self.loaded.take().map_or(Ok(()), E::close)
    }
}

/// A turn of a workload that runs on the loaded database.
fn loaded_turn<E: Engine>(
    engine: &E,
    workload: Workload,
    context: &Context,
    round: u32,
) -> Result<Vec<Figure>> {
    use Workload as W;
    match workload {
        W::Get1 => read::gets(engine, context, round, 1),
        W::Get2 => read::gets(engine, context, round, 2),
        W::ScanFull => read::full_scans(engine, context, context.limit),
        W::Scan10 => read::short_scans(engine, context, round),
        W::ScanPrefix => read::prefix_scans(engine, context, round),
        W::Put1 => write::single_puts(engine, context, round),
        W::Batch1000 => write::batches(engine, context, round, write::BATCH_1000),
        W::Batch10000 => write::batches(engine, context, round, write::BATCH_10000),
        W::GetBesidePut1 => beside::gets(engine, context, round, beside::PUT_1),
        W::GetBesidePut1000 => beside::gets(engine, context, round, beside::PUT_1000),
        _ => Err(format!("{workload:?} does not run on the loaded database").into()),
    }
}

/// Makes the folder, empty.
fn renew(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir(dir)?)
}
