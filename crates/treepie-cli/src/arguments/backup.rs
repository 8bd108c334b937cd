//! What can be asked of backups and repositories.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::{amounts, place::BranchName, time};

/// What a place of backups is.
const PLACES: &str = "\
Where backups are:
  -             standard output, standard input
  a file        one stream: a full backup, an increment, or records
  a repository  a folder of streams with a list of them. `backup` takes TO for one if it is a
                folder, or ends with `/`: the folder is made when it is missing, and used when it
                is empty or a repository already. Anything else is a new file, which must not exist.
  a URL         a repository in an object store, in builds with the feature `object-store`:
                s3://bucket/folder, gs://…, az://…, with keys and regions from the environment";

const MOMENTS: &str = "\
A moment is RFC 3339 (2026-11-24T21:54:37Z, 2026-11-24T22:54:37.5+01:00; without a zone it is UTC, as
all times that are printed), or seconds since 1970. What is restored is the state after the last
commit at or before it.";

/// Keys that streams are encrypted with.
#[derive(Debug, Args)]
pub struct ReadKeys {
    /// File with a key, 32 bytes or 64 hexadecimal digits; may be given several times
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
}

/// How streams are written.
#[derive(Debug, Args)]
pub struct Writing {
    /// Level of compression, 0 to 12; 0 does not compress
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(0..=12))]
    pub level: i32,
    /// Threads that compress; by default one for each processor, up to 8
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub threads: Option<u8>,
}

/// How fast.
#[derive(Debug, Args)]
pub struct Pace {
    /// At most so many bytes a second, such as 20M
    #[arg(long, value_name = "BYTES", value_parser = amounts::bytes)]
    pub rate: Option<u64>,
}

/// A state of a repository.
#[derive(Debug, Args)]
pub struct Moment {
    /// The state after this LSN
    #[arg(long, value_name = "N", conflicts_with = "time")]
    pub lsn: Option<u64>,
    /// The state at this moment
    #[arg(long, value_name = "T", value_parser = time::parse, allow_hyphen_values = true)]
    pub time: Option<u64>,
    /// The history to follow, where a database was restored and went on: an epoch, or EPOCH@LSN, as
    /// `snapshots` shows them
    #[arg(long, value_name = "EPOCH")]
    pub branch: Option<BranchName>,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("extent"), after_help = PLACES)]
pub struct Backup {
    /// Folder of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// A new file, a repository, or `-` for standard output: what is told, as text or JSON, then goes
    /// to standard error
    #[arg(value_name = "TO")]
    pub to: PathBuf,
    /// All pages. This is what a file gets; a repository gets an increment if it can be one
    #[arg(long, group = "extent")]
    pub full: bool,
    /// In a repository: what has changed since the newest backup there, or an error
    #[arg(long, group = "extent", visible_alias = "increment")]
    pub incremental: bool,
    /// In a file: what has changed since the end of this stream, or since this LSN, which the journal
    /// must still have
    #[arg(long, group = "extent", value_name = "STREAM or LSN")]
    pub since: Option<String>,
    /// File with the key to encrypt with, 32 bytes or 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Leave damaged pages out, list them, and end with 3, instead of ending at the first one
    #[arg(long)]
    pub skip_damage: bool,
    /// Disk space for pages that are written over before they are copied, such as 4G
    #[arg(long, value_name = "BYTES", value_parser = amounts::bytes)]
    pub side_file: Option<u64>,
    /// How the stream is written.
    #[command(flatten)]
    pub writing: Writing,
    /// How fast: bytes of pages.
    #[command(flatten)]
    pub pace: Pace,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = MOMENTS)]
pub struct Restore {
    /// A repository; or a full backup, then the increments and records that follow it; or `-`
    #[arg(value_name = "FROM", required = true)]
    pub from: Vec<PathBuf>,
    /// Folder of the new database, which must not exist, or be empty. An interrupted restore is gone
    /// on with from TO.partial
    #[arg(value_name = "TO", required = true)]
    pub to: PathBuf,
    /// Which state; by default the newest.
    #[command(flatten)]
    pub moment: Moment,
    /// Do not check the new database
    #[arg(long)]
    pub no_check: bool,
    /// Keys.
    #[command(flatten)]
    pub keys: ReadKeys,
    /// How fast: bytes of streams.
    #[command(flatten)]
    pub pace: Pace,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// A repository; or files, each by itself; or `-`
    #[arg(value_name = "FROM", required = true)]
    pub from: Vec<PathBuf>,
    /// In a repository: also what was verified before
    #[arg(long)]
    pub all: bool,
    /// Keys.
    #[command(flatten)]
    pub keys: ReadKeys,
    /// How fast: bytes of streams.
    #[command(flatten)]
    pub pace: Pace,
}

/// Arguments of `drill`.
#[derive(Debug, Args)]
#[command(after_help = MOMENTS)]
pub struct Drill {
    /// The repository
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
    /// Folder to restore in, with room for the database; by default that of temporary files
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Which state; by default the newest.
    #[command(flatten)]
    pub moment: Moment,
    /// Keys.
    #[command(flatten)]
    pub keys: ReadKeys,
    /// How fast: bytes of streams.
    #[command(flatten)]
    pub pace: Pace,
}

/// A repository, and nothing else.
#[derive(Debug, Args)]
pub struct OfRepository {
    /// The repository
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
}

/// Arguments of `archive`.
#[derive(Debug, Args)]
#[command(after_help = "\
Only one process has a database open: as long as this one follows, no other one writes. A program that
writes all day archives inside itself, with `Archiver` of the crate treepie-snapshot; docs/backup.md
shows how. SIGINT and SIGTERM end it in order: what is there is archived first.")]
pub struct Archive {
    /// Folder of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// The repository, which is made when it is missing
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
    /// Go on until a signal comes
    #[arg(long)]
    pub follow: bool,
    /// Bytes of records in a file
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = amounts::bytes)]
    pub max_bytes: u64,
    /// How long a record waits for others before their file is written
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = amounts::duration)]
    pub max_age: u64,
    /// Go on where the journal begins, if records between that and the archive are gone. No state
    /// between can be restored then, and none behind before the next backup
    #[arg(long)]
    pub over_holes: bool,
    /// File with the key to encrypt with, 32 bytes or 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// How the streams are written.
    #[command(flatten)]
    pub writing: Writing,
    /// How fast: bytes of records.
    #[command(flatten)]
    pub pace: Pace,
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
Rules add up: a backup that one of them names is kept, with everything that it builds on; the newest
state always is. Without --keep-points, all records that lead on from a kept backup stay. Hours to
months are those of UTC. Files that no backup owns, left by a crash, go when they are a day old.")]
pub struct Prune {
    /// The repository
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
    /// The last N backups, full ones and increments
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_last: usize,
    /// The newest backup of each of the last N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_hourly: usize,
    /// The same by days
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_daily: usize,
    /// The same by weeks, from Monday
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_weekly: usize,
    /// The same by months
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_monthly: usize,
    /// All backups of so much time up to now, such as 36h or 14d
    #[arg(long, value_name = "TIME", value_parser = amounts::duration)]
    pub keep_within: Option<u64>,
    /// Every point in time of so much time up to now
    #[arg(long, value_name = "TIME", value_parser = amounts::duration)]
    pub keep_points: Option<u64>,
    /// Say what would go, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `squash`.
#[derive(Debug, Args)]
#[command(after_help = "\
What it was made of stays until `prune` removes what nobody needs. With several keys, the first one
encrypts the new backup.")]
pub struct Squash {
    /// The repository
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
    /// The history to follow, where a database was restored and went on: an epoch, or EPOCH@LSN
    #[arg(long, value_name = "EPOCH")]
    pub branch: Option<BranchName>,
    /// Keys.
    #[command(flatten)]
    pub keys: ReadKeys,
    /// How the stream is written.
    #[command(flatten)]
    pub writing: Writing,
    /// How fast: bytes of pages.
    #[command(flatten)]
    pub pace: Pace,
}

/// Arguments of `rebuild`.
#[derive(Debug, Args)]
pub struct Rebuild {
    /// The repository
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
    /// Keys.
    #[command(flatten)]
    pub keys: ReadKeys,
}

/// Arguments of `forget`.
#[derive(Debug, Args)]
pub struct Forget {
    /// The repository
    #[arg(value_name = "REPO")]
    pub repository: PathBuf,
    /// Ids of streams, as `snapshots` and `verify` show them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}
