//! The workloads: what is done, and how long.

pub mod bare;
pub mod beside;
pub mod churn;
pub mod kill;
pub mod load;
pub mod read;
pub mod write;

use clap::ValueEnum;

use crate::options::Options;

/// A workload. They run in this order; those between the loads and the large values share the
/// database of the random load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// All entries, keys ascending, into an empty database.
    LoadSorted,
    /// All entries in random order; also file size and bytes written to the device.
    LoadRandom,
    /// Random gets by one thread.
    #[value(name = "get-1")]
    Get1,
    /// Random gets by two threads.
    #[value(name = "get-2")]
    Get2,
    /// All entries in key order.
    ScanFull,
    /// Ten entries from a random key on.
    #[value(name = "scan-10")]
    Scan10,
    /// All entries of a random prefix.
    ScanPrefix,
    /// One put per commit; also, as engine `bare`, a 4 KiB overwrite with a sync.
    #[value(name = "put-1")]
    Put1,
    /// 1,000 random puts per commit.
    #[value(name = "batch-1000")]
    Batch1000,
    /// 10,000 random puts per commit.
    #[value(name = "batch-10000")]
    Batch10000,
    /// Random gets beside a thread that commits single puts.
    #[value(name = "get-beside-put-1")]
    GetBesidePut1,
    /// Random gets beside a thread that commits 1,000 puts at a time.
    #[value(name = "get-beside-put-1000")]
    GetBesidePut1000,
    /// One value of 64 KiB per commit.
    #[value(name = "large-64k")]
    Large64K,
    /// One value of 1 MiB per commit.
    #[value(name = "large-1m")]
    Large1M,
    /// One value of 4 MiB per commit.
    #[value(name = "large-4m")]
    Large4M,
    /// A random half of the entries removed, then inserted again.
    Churn,
    /// Opening after the writing process was killed.
    OpenAfterKill,
}

impl Workload {
    /// How many rounds it has.
    pub fn rounds(self, options: &Options) -> u32 {
        match self {
            Workload::LoadSorted | Workload::LoadRandom | Workload::Churn => options.load_rounds,
            _ => options.rounds,
        }
    }
}
