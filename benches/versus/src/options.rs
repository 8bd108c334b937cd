//! The command's flags.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::{
    data::{KeyShape, ValueShape},
    workloads::{Workload, group::Selection},
};

/// The same work on Treepie and other engines, which take turns in one run.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Entries of the loaded database.
    #[arg(long, default_value_t = 5_000_000)]
    pub entries: u64,
    /// Entries of the database that the write workloads run on.
    #[arg(long, default_value_t = 1_000_000)]
    pub write_entries: u64,
    /// Key length in bytes.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(24..=500))]
    pub key_len: u16,
    /// How keys look.
    #[arg(long, value_enum, default_value_t = KeyShape::Spread)]
    pub keys: KeyShape,
    /// How values look. Those of the workloads of large values are noise.
    #[arg(long, value_enum, default_value_t = ValueShape::Noise)]
    pub values: ValueShape,
    /// Value length in bytes.
    #[arg(long, default_value_t = 150)]
    pub value_len: usize,
    /// Rounds: each engine has one turn in each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Rounds of the two loads and of what else builds a database anew.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub load_rounds: u32,
    /// Seconds of one turn, for workloads that have no natural end.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// The same of turns of batches, which should last for several checkpoints.
    #[arg(long, default_value_t = 10.0)]
    pub batch_seconds: f64,
    /// Seconds that a write workload runs before its first turn, unmeasured: memory that is touched
    /// for the first time, and files that still grow, are no steady state. A workload that builds
    /// its own database in each turn has it in each turn.
    #[arg(long, default_value_t = 3.0)]
    pub warm_seconds: f64,
    /// Ends such a turn after this many operations, if that is sooner.
    #[arg(long)]
    pub count: Option<u64>,
    /// Entries per transaction of the loads.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub load_batch: u64,
    /// Entries of the database that is halved and filled again.
    #[arg(long, default_value_t = 1_000_000)]
    pub churn_entries: u64,
    /// How often it is halved and filled again.
    #[arg(long, default_value_t = 10)]
    pub churn_rounds: u32,
    /// Entries per transaction while it is halved and filled again.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub churn_batch: u64,
    /// Entries that the killed process has written.
    #[arg(long, default_value_t = 1_000_000)]
    pub kill_entries: u64,
    /// Random puts before each checkpoint beside which commits are measured.
    #[arg(long, default_value_t = 200_000)]
    pub checkpoint_puts: u64,
    /// Transactions that each submitting thread has in flight.
    #[arg(long, default_value_t = 1000)]
    pub in_flight: usize,
    /// Bytes of large values per turn, in MiB.
    #[arg(long, default_value_t = 256)]
    pub large_mib: u64,
    /// Cache of engines that have their own, in MiB. The loaded database should fit: the others
    /// read through the page cache of the operating system, which is not bounded either.
    #[arg(long, default_value_t = 4096)]
    pub cache_mib: usize,
    /// Bytes of a page of Treepie.
    #[arg(long, default_value_t = 8192)]
    pub page_size: usize,
    /// Seed of all keys, values and orders.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Workloads to run, or groups of them, separated by commas. All unless given.
    #[arg(long, value_delimiter = ',', value_parser = Selection::parse)]
    pub workloads: Vec<Selection>,
    /// Prints the names of workloads and groups, and how long they take.
    #[arg(long)]
    pub list: bool,
    /// Engines to run, separated by commas. All unless given.
    #[arg(long, value_delimiter = ',')]
    pub engines: Vec<String>,
    /// Folder in which the temporary databases are made. The default is that of the system.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Also writes each figure as a line of JSON to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Also draws transactions per second against threads, as an SVG, into this file.
    #[arg(long)]
    pub plot: Option<PathBuf>,
    /// For the process that is to be killed: the engine to write with, in the folder of `--dir`.
    #[arg(long, hide = true, requires = "dir")]
    pub write_until_killed: Option<String>,
    /// For the process whose memory is measured: the engine whose database in the folder of `--dir` it
    /// backs up.
    #[arg(long, hide = true, requires = "dir")]
    pub measure_backup: Option<String>,
}

impl Options {
    /// The workloads that were asked for, in the order in which they run.
    pub fn chosen_workloads(&self) -> Vec<Workload> {
        let all = Workload::value_variants().iter().copied();
        let chosen = |w: &Workload| self.workloads.iter().any(|selection| selection.contains(*w));
        all.filter(|w| self.workloads.is_empty() || chosen(w)).collect()
    }

    /// Whether an engine takes part.
    pub fn has_engine(&self, name: &str) -> bool {
        self.engines.is_empty() || self.engines.iter().any(|engine| engine == name)
    }
}
