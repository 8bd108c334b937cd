//! The workloads: what is done, and how long.

pub mod backup;
pub mod backup_memory;
pub mod bare;
pub mod beside;
pub mod checkpoint;
pub mod churn;
pub mod group;
pub mod kill;
pub mod load;
pub mod read;
pub mod threads;
pub mod values;
pub mod write;

use clap::ValueEnum;

use crate::options::Options;

/// A workload. They run in this order.
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
    /// Random gets beside a thread that commits single puts.
    #[value(name = "get-beside-put-1")]
    GetBesidePut1,
    /// Random gets beside a thread that commits 1,000 puts at a time.
    #[value(name = "get-beside-put-1000")]
    GetBesidePut1000,
    /// Transactions of one put by one thread; also, as engine `bare`, 4 KiB overwritten and synced.
    #[value(name = "puts-1", alias = "put-1")]
    Puts1,
    /// The same by 8 threads, each of which commits by itself.
    #[value(name = "puts-8")]
    Puts8,
    /// The same by 64 threads.
    #[value(name = "puts-64")]
    Puts64,
    /// The same by 256 threads.
    #[value(name = "puts-256")]
    Puts256,
    /// One thread behind another one that combines what waits into one transaction.
    #[value(name = "combined-1")]
    Combined1,
    /// The same with 8 threads.
    #[value(name = "combined-8")]
    Combined8,
    /// The same with 64 threads.
    #[value(name = "combined-64")]
    Combined64,
    /// The same with 256 threads.
    #[value(name = "combined-256")]
    Combined256,
    /// Two threads that submit transactions of one put, with many in flight.
    #[value(name = "submit-2")]
    Submit2,
    /// 1,000 random puts per commit; also bytes written to the device.
    #[value(name = "batch-1000")]
    Batch1000,
    /// 10,000 random puts per commit; also bytes written to the device.
    #[value(name = "batch-10000")]
    Batch10000,
    /// Single puts while a checkpoint runs, where the engine has checkpoints to measure.
    #[value(name = "checkpoint-put-1")]
    CheckpointPut1,
    /// Batches of 1,000 puts while a checkpoint runs.
    #[value(name = "checkpoint-batch-1000")]
    CheckpointBatch1000,
    /// One value of 64 KiB per commit; also as engine `bare`.
    #[value(name = "large-64k")]
    Large64K,
    /// One value of 1 MiB per commit; also as engine `bare`.
    #[value(name = "large-1m")]
    Large1M,
    /// One value of 4 MiB per commit; also as engine `bare`.
    #[value(name = "large-4m")]
    Large4M,
    /// Backups to nowhere, plain and packed; also reading the engine's files as they are.
    #[value(name = "backup")]
    Backup,
    /// Backups into a file in the page cache, plain and packed; also their sizes.
    #[value(name = "backup-file")]
    BackupFile,
    /// Databases made of a packed backup, without and with a check; also as engine `bare`, a file copied
    /// and synced.
    #[value(name = "restore")]
    Restore,
    /// Backups of what has changed when one page in a hundred has.
    #[value(name = "increment")]
    Increment,
    /// Transactions of one put by one thread while backups are made, one after the other.
    #[value(name = "backup-beside-put-1")]
    BackupBesidePut1,
    /// The same by 64 threads.
    #[value(name = "backup-beside-put-64")]
    BackupBesidePut64,
    /// Most memory of a backup and of a restore, in a process of their own.
    #[value(name = "backup-memory")]
    BackupMemory,
    /// A random half of the entries removed, then inserted again, several times.
    Churn,
    /// Opening after the writing process was killed.
    OpenAfterKill,
}

/// The database that a workload runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// That of the random load.
    Loaded,
    /// A smaller one, which is written to.
    Written,
    /// One of its own, anew for each turn.
    Scratch,
}

impl Workload {
    /// How many rounds it has.
    pub fn rounds(self, options: &Options) -> u32 {
        match self {
            Workload::LoadSorted | Workload::LoadRandom | Workload::Churn => options.load_rounds,
            _ => options.rounds,
        }
    }

    /// The database that it runs on.
    pub fn home(self) -> Home {
        use Workload as W;
        match self {
            W::LoadRandom | W::Get1 | W::Get2 | W::ScanFull | W::Scan10 | W::ScanPrefix => {
                Home::Loaded
            }
            W::GetBesidePut1 | W::GetBesidePut1000 => Home::Loaded,
            W::Backup | W::BackupFile | W::Restore | W::Increment => Home::Loaded,
            W::BackupBesidePut1 | W::BackupBesidePut64 | W::BackupMemory => Home::Loaded,
            W::LoadSorted | W::Large64K | W::Large1M | W::Large4M => Home::Scratch,
            W::Churn | W::OpenAfterKill => Home::Scratch,
            W::Puts1 | W::Puts8 | W::Puts64 | W::Puts256 | W::Submit2 => Home::Written,
            W::Combined1 | W::Combined8 | W::Combined64 | W::Combined256 => Home::Written,
            W::Batch1000 | W::Batch10000 => Home::Written,
            W::CheckpointPut1 | W::CheckpointBatch1000 => Home::Written,
        }
    }

    /// Whether it is one of those of backups.
    pub fn is_of_backups(self) -> bool {
        use Workload as W;
        let at_once = matches!(self, W::Backup | W::BackupFile | W::Restore | W::Increment);
        at_once || matches!(self, W::BackupBesidePut1 | W::BackupBesidePut64 | W::BackupMemory)
    }

    /// Whether it writes to a database that outlives its turn: then it warms up before its first
    /// turn, and the database is settled after each.
    pub fn writes_on(self) -> bool {
        use Workload as W;
        let beside = matches!(self, W::GetBesidePut1 | W::GetBesidePut1000);
        let beside_backup = matches!(self, W::BackupBesidePut1 | W::BackupBesidePut64);
        beside || beside_backup || self.home() == Home::Written
    }
}
