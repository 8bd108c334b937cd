//! An engine's lane: its databases, and its turns on them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Result,
    contest::Context,
    engine::Engine,
    measure::{Figure, Limit},
    workloads::{
        Home, Workload, backup, backup_memory, beside, checkpoint, churn, kill, load, read,
        threads, values, write,
    },
};

/// An engine with its databases.
pub trait Lane {
    /// The engine's name.
    fn name(&self) -> &'static str;
    /// Runs a workload once.
    fn turn(&mut self, workload: Workload, context: &Context, round: u32) -> Result<Vec<Figure>>;
    /// Backs up the database in a folder, and prints how much memory that has taken.
    fn measure_backup(&self, context: &Context, dir: &Path) -> Result<()>;
    /// Writes into a folder until this process is killed.
    fn write_until_killed(&self, context: &Context, dir: &Path) -> Result<()>;
    /// Closes all databases.
    fn close(&mut self) -> Result<()>;
}

/// The lane of engine `E`: two databases that several workloads share, of which one is open at a
/// time, and a scratch folder for those that build their own.
pub struct EngineLane<E: Engine> {
    loaded: Filled<E>,
    written: Filled<E>,
    scratch_dir: PathBuf,
    /// The workload that has warmed up.
    warm: Option<Workload>,
}

/// A database with all its entries.
struct Filled<E> {
    dir: PathBuf,
    engine: Option<E>,
}

impl<E: Engine> Filled<E> {
    fn new(dir: PathBuf) -> Filled<E> {
        Filled { dir, engine: None }
    }

    /// Loads the database anew and leaves it closed.
    fn load(&mut self, context: &Context) -> Result<Vec<Figure>> {
        self.close()?;
        renew(&self.dir)?;
        load::random::<E>(&self.dir, context)
    }

    /// The database, which is loaded if it is not there, and read once from end to end if it was
    /// not open.
    fn open(&mut self, context: &Context) -> Result<&E> {
        if !self.dir.exists() {
            self.load(context)?;
        }
        if self.engine.is_none() {
            let engine = E::open(&self.dir, context.setup)?;
            read::full_scans(&engine, context, Limit { count: 1, ..context.limit })?;
            self.engine = Some(engine);
        }
        self.engine.as_ref().ok_or_else(|| "the database is not open".into())
    }

    fn close(&mut self) -> Result<()> {
        self.engine.take().map_or(Ok(()), E::close)
    }
}

impl<E: Engine + 'static> EngineLane<E> {
    /// A lane whose databases are in a folder.
    pub fn boxed(home: &Path) -> Box<dyn Lane> {
        let dir = |kind: &str| home.join(format!("{}-{kind}", E::NAME));
        Box::new(EngineLane::<E> {
            loaded: Filled::new(dir("loaded")),
            written: Filled::new(dir("written")),
            scratch_dir: dir("scratch"),
            warm: None,
        })
    }

    /// Runs a workload on an empty folder of its own.
    fn in_scratch(&mut self, workload: Workload, context: &Context) -> Result<Vec<Figure>> {
        self.close()?;
        renew(&self.scratch_dir)?;
        let figures = scratch_turn::<E>(&self.scratch_dir, workload, context)?;
        fs::remove_dir_all(&self.scratch_dir)?;
        Ok(figures)
    }
}

impl<E: Engine + 'static> Lane for EngineLane<E> {
    fn name(&self) -> &'static str {
        E::NAME
    }

    fn turn(&mut self, workload: Workload, context: &Context, round: u32) -> Result<Vec<Figure>> {
        let context = &context.of(workload);
        let (filled, other) = match workload.home() {
            Home::Scratch => return self.in_scratch(workload, context),
            Home::Loaded => (&mut self.loaded, &mut self.written),
            Home::Written => (&mut self.written, &mut self.loaded),
        };
        other.close()?;
        if workload == Workload::LoadRandom {
            return filled.load(context);
        }
        let dir = filled.dir.clone();
        let engine = filled.open(context)?;
        if workload == Workload::BackupMemory {
            let can_back_up = engine.can_back_up();
            filled.close()?;
            return if can_back_up {
                backup_memory::turn(E::NAME, &dir, context)
            } else {
                Ok(Vec::new())
            };
        }
        if !workload.writes_on() {
            return filled_turn(engine, &dir, workload, context, round);
        }
        if self.warm != Some(workload) {
            filled_turn(engine, &dir, workload, &context.while_warming(), round)?;
            engine.settle()?;
            self.warm = Some(workload);
        }
        let figures = filled_turn(engine, &dir, workload, context, round)?;
        engine.settle()?;
        Ok(figures)
    }

    fn measure_backup(&self, context: &Context, dir: &Path) -> Result<()> {
        backup_memory::measure::<E>(dir, context)
    }

    fn write_until_killed(&self, context: &Context, dir: &Path) -> Result<()> {
        kill::write_until_killed::<E>(dir, context)
    }

    fn close(&mut self) -> Result<()> {
        self.loaded.close()?;
        self.written.close()
    }
}

/// A turn of a workload that builds its own database.
fn scratch_turn<E: Engine>(
    dir: &Path,
    workload: Workload,
    context: &Context,
) -> Result<Vec<Figure>> {
    use Workload as W;
    match workload {
        W::LoadSorted => load::sorted::<E>(dir, context),
        W::Large64K => values::puts::<E>(dir, context, values::KIB_64),
        W::Large1M => values::puts::<E>(dir, context, values::MIB_1),
        W::Large4M => values::puts::<E>(dir, context, values::MIB_4),
        W::Churn => churn::halve_and_fill::<E>(dir, context),
        W::OpenAfterKill => kill::open_after_kill::<E>(dir, context),
        _ => Err(format!("{workload:?} does not build its own database").into()),
    }
}

/// A turn of a workload that runs on a database with all its entries.
fn filled_turn<E: Engine>(
    engine: &E,
    dir: &Path,
    workload: Workload,
    context: &Context,
    round: u32,
) -> Result<Vec<Figure>> {
    use Workload as W;
    if workload.is_of_backups() {
        return backup::turn(engine, dir, workload, context, round);
    }
    match workload {
        W::Get1 => read::gets(engine, context, round, 1),
        W::Get2 => read::gets(engine, context, round, 2),
        W::ScanFull => read::full_scans(engine, context, context.limit),
        W::Scan10 => read::short_scans(engine, context, round),
        W::ScanPrefix => read::prefix_scans(engine, context, round),
        W::GetBesidePut1 => beside::gets(engine, context, round, beside::PUT_1),
        W::GetBesidePut1000 => beside::gets(engine, context, round, beside::PUT_1000),
        W::Puts1 => threads::alone(engine, context, round, 1),
        W::Puts8 => threads::alone(engine, context, round, 8),
        W::Puts64 => threads::alone(engine, context, round, 64),
        W::Puts256 => threads::alone(engine, context, round, 256),
        W::Combined1 => threads::combined(engine, context, round, 1),
        W::Combined8 => threads::combined(engine, context, round, 8),
        W::Combined64 => threads::combined(engine, context, round, 64),
        W::Combined256 => threads::combined(engine, context, round, 256),
        W::Submit2 => threads::submitted(engine, context, round),
        W::Batch1000 => write::batches(engine, context, round, write::BATCH_1000),
        W::Batch10000 => write::batches(engine, context, round, write::BATCH_10000),
        W::CheckpointPut1 => checkpoint::commits(engine, context, round, checkpoint::PUT_1),
        W::CheckpointBatch1000 => {
            checkpoint::commits(engine, context, round, checkpoint::BATCH_1000)
        }
        _ => Err(format!("{workload:?} does not run on a filled database").into()),
    }
}

/// Makes the folder, empty.
fn renew(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir(dir)?)
}
