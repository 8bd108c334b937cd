//! The command line: what can be asked, and the help that explains it.

pub mod backup;
pub mod client;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  error of use, of input, or of the system
  2  bad arguments
  3  damage found in a database, a backup or a repository
  4  not found: the database, the tree, the key, or the page; the repository, or what is to be
     restored of it
  5  the database is open elsewhere: one process at a time may have it open; or somebody else
     writes to the repository
  6  a condition did not hold: the key has another value than `cas` expects
  7  whether a write was done is not known: the connection to the node was lost

Keys, values and names of trees are bytes. As text, they are printed as they are where they are
printable UTF-8; other bytes, and the backslash, are escaped: \\t \\n \\r \\\\ \\xNN. The same escapes are
understood in arguments and in TSV files. --hex replaces the text form of keys and values by
hexadecimal digits.

With --json, bytes are a string where they are printable UTF-8, otherwise {\"hex\":\"00ff\"}; with
--hex they always are the latter. Lists are printed as one object per line, anything else as one
object. Errors go to standard error, as {\"error\":\"…\",\"code\":N}.";

/// Looks into, fills, checks and backs up databases of the Treepie storage engine.
#[derive(Debug, Parser)]
#[command(name = "treepie", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Say on standard error what the engine does; twice for details
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the engine does, on the table of Unicode characters (a few seconds)
    Demo(Demo),
    /// Fill a tree from a file; makes the database and the tree when they are missing
    Load(Load),
    /// Print the value of a key
    Get(Get),
    /// Set the value of a key; makes the database and the tree when they are missing
    Put(Put),
    /// Remove a key
    Delete(Delete),
    /// Print the entries of a tree in the order of their keys, as lines that `load` reads
    Scan(Scan),
    /// List the trees (those that begin with `$` belong to the engine)
    Trees(Database),
    /// Print what is in a database, how much room it takes, and what it is doing
    Report(Database),
    /// Verify every page of a database, and list all damage; or save what can be read
    Check(Check),
    /// List the records that the journal keeps
    Journal(Journal),
    /// Print one page: its header and a hex dump
    Page(Page),
    /// Write all pages of a database, or what has changed, to a file, a repository or a pipe
    Backup(backup::Backup),
    /// Make a database of backups, as of any LSN or moment that they hold
    Restore(backup::Restore),
    /// Read backups from end to end, without restoring them, and list all damage
    Verify(backup::Verify),
    /// Restore into a scratch folder, check what comes out, and remove it
    Drill(backup::Drill),
    /// List what a repository holds, and what can be restored of it
    Snapshots(backup::OfRepository),
    /// Copy the records of the journal to a repository, so that every moment can be restored
    Archive(backup::Archive),
    /// Remove backups that no rule keeps
    Prune(backup::Prune),
    /// Make one full backup of the newest increment and what it builds on
    Squash(backup::Squash),
    /// Make the list of a repository anew, of the streams themselves
    Rebuild(backup::Rebuild),
    /// Remove streams from a repository that cannot be relied on any more
    Forget(backup::Forget),
    /// Serve a database to clients, until a signal comes
    Node(client::Node),
    /// Ask a node for entries, or to change them
    #[command(subcommand)]
    Client(client::Client),
    /// Print what nodes are doing
    Status(client::Status),
    /// List and change the members of a cluster
    #[command(subcommand)]
    Member(client::Member),
    /// Let another node lead
    Transfer(client::Transfer),
    /// Write until killed: the child process of the demonstration
    #[command(hide = true)]
    DemoWriter(Database),
}

/// A database, and nothing else.
#[derive(Debug, Args)]
pub struct Database {
    /// Folder of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
}

/// How keys and values are written in arguments and in output.
#[derive(Clone, Copy, Debug, Args)]
pub struct Notation {
    /// Keys and values are hexadecimal digits, in arguments and in output
    #[arg(long)]
    pub hex: bool,
}

/// One key of one tree.
#[derive(Debug, Args)]
pub struct Place {
    /// Folder of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// Name of the tree
    pub tree: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// How the key is written.
    #[command(flatten)]
    pub notation: Notation,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Folder to work in; one that an earlier demonstration left there is removed first
    #[arg(long, value_name = "FOLDER", default_value = "demo-data")]
    pub dir: PathBuf,
}

/// Form of the lines that are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// `key<TAB>value`, with the escapes \t \n \r \\ \xNN
    Tsv,
    /// {"key": …, "value": …}: each a string, or {"hex": "00ff"}
    Jsonl,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "\
With --repair the database is not opened and not changed: what can be read of it goes into a new
one, also when nothing else opens it. What is lost is listed tree by tree, with the keys that are
concerned; trees whose names are lost become `tree-N`. It ends with 0 when everything was there, and
with 3 when something is lost. After any other code remove the new folder: it is not complete.")]
pub struct Check {
    /// Folder of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// Save what can be read into a new database in this folder, which must not exist
    #[arg(long, value_name = "NEW")]
    pub repair: Option<PathBuf>,
}

/// Arguments of `load`.
#[derive(Debug, Args)]
#[command(after_help = "\
Empty lines are skipped, and a carriage return at the end of a line is not part of it. Where a key
comes twice, the last one stays. Each batch is one transaction: it is durable before the next
begins. A damaged line ends the command; it is told with its number, nothing of its batch is
stored, and everything before that batch is.")]
pub struct Load {
    /// Folder of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// Name of the tree
    pub tree: String,
    /// File to read; `-` for standard input
    pub file: PathBuf,
    /// Form of the lines; by default jsonl for files named *.jsonl and *.ndjson, tsv for others
    #[arg(long)]
    pub format: Option<Format>,
    /// Rows in a transaction
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: u64,
    /// How keys and values are written in a TSV file.
    #[command(flatten)]
    pub notation: Notation,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// Which entry.
    #[command(flatten)]
    pub place: Place,
    /// Write the bytes of the value as they are, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
}

/// Arguments of `put`.
#[derive(Debug, Args)]
pub struct Put {
    /// Which entry.
    #[command(flatten)]
    pub place: Place,
    /// The value; `-` takes the bytes of standard input as they are
    #[arg(allow_hyphen_values = true)]
    pub value: String,
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// Which entry.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `scan`.
#[derive(Debug, Args)]
pub struct Scan {
    /// Folder of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// Name of the tree
    pub tree: String,
    /// Only keys that begin with this
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"], allow_hyphen_values = true)]
    pub prefix: Option<String>,
    /// Only this key and those above
    #[arg(long, value_name = "K", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Only keys below this one
    #[arg(long, value_name = "K", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// From the highest key down
    #[arg(long)]
    pub reverse: bool,
    /// Print at most this many entries
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// How keys and values are written.
    #[command(flatten)]
    pub notation: Notation,
}

/// Arguments of `journal`.
#[derive(Debug, Args)]
pub struct Journal {
    /// Folder of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// Begin with this LSN; by default with the oldest that is kept
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    pub from: u64,
    /// Print at most this many records
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// Arguments of `page`.
#[derive(Debug, Args)]
pub struct Page {
    /// Folder of the database
    #[arg(value_name = "DB")]
    pub db: PathBuf,
    /// Number of the page
    #[arg(value_name = "N")]
    pub page: u32,
}
