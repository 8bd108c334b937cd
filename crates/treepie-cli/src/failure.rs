//! Failures: what the command ends with when it does not do what was asked, and the exit codes.
//!
//! | Code | Meaning                                                                   |
//! |-----:|---------------------------------------------------------------------------|
//! |    0 | Done                                                                      |
//! |    1 | Error of use, of input, or of the system; ended by a signal               |
//! |    2 | Bad arguments                                                             |
//! |    3 | Damage found in a database, a backup, a repository; with --repair: losses |
//! |    4 | Not found: database, tree, key, page; backups, or a state to be restored  |
//! |    5 | The database is open in another process; the repository is being written  |
//! |    6 | A condition did not hold: the entry is not as `cas` expects it            |
//! |    7 | Whether a write was done is not known: the node was lost meanwhile        |

use std::{
    io::{self, Write},
    path::PathBuf,
};

use serde::Serialize;
use treepie::Error;
use treepie_raft::{
    NodeError,
    service::{ClientError, Refusal},
};
use treepie_snapshot::{
    Error as SnapshotError, ids::Lsn, repository::RepositoryError, store::StoreError,
};

use crate::{
    notation::{Notation, NotationError},
    rows::RowFault,
};

/// Result of a command.
pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] Error),
    /// A node cannot take part in its cluster.
    #[error(transparent)]
    Node(NodeError),
    /// A file of the user's own, or a process, could not be used.
    #[error("cannot {action} {file}: {source}", file = file.display())]
    Io {
        /// The call, as a verb.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// An argument is not in the notation that was asked for.
    #[error("{what}: {source}")]
    Argument {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        source: NotationError,
    },
    /// A line of the input could not be stored.
    #[error("line {line} of {file}: {fault}; the {stored} rows before its batch are stored", file = file.display())]
    Row {
        /// The input.
        file: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// Rows of the batches before, which are durable.
        stored: u64,
        /// What is wrong with it.
        fault: RowFault,
    },
    /// The key has no value.
    #[error("the tree \"{}\" has no key \"{}\"; `scan` lists its keys", Notation::Text.show(tree), Notation::Text.show(key))]
    NoKey {
        /// The tree.
        tree: Vec<u8>,
        /// The key.
        key: Vec<u8>,
    },
    /// The data file ends before the page.
    #[error("there is no page {page}; the data file has {page_count} pages, counted from 0")]
    NoPage {
        /// The page that was asked for.
        page: u32,
        /// Pages of the data file.
        page_count: u64,
    },
    /// A check, or a report, found damage, and has listed it.
    #[error(
        "{count} problems found; restore the database from a backup, or save what can be read with `check --repair`"
    )]
    Damaged {
        /// How many.
        count: usize,
    },
    /// A salvage has lost something, and has listed it.
    #[error("{count} losses; what could be read is in {new}", new = new.display())]
    Lost {
        /// How many.
        count: u64,
        /// The new database.
        new: PathBuf,
    },
    /// A backup was asked for while the database is in use.
    #[error(
        "{0}; who has a database open backs it up itself, while it goes on, with the crate treepie-snapshot"
    )]
    InUse(#[source] Error),
    /// A backup, a restore, or what is done with a repository has failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The stream in a file cannot be used.
    #[error("{file}: {source}", file = file.display())]
    Stream {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// There is no file of this name.
    #[error("there is no backup in {0}; check the path")]
    NoBackup(PathBuf),
    /// The streams that were given do not lead to the state that was asked for.
    #[error("the streams end at LSN {found}, before LSN {wanted}; name those that follow them too")]
    NotReached {
        /// The LSN that was asked for.
        wanted: Lsn,
        /// Where they end.
        found: Lsn,
    },
    /// Something is in the way, or missing, where backups are or go.
    #[error("{place}: {what}", place = place.display())]
    Place {
        /// Where.
        place: PathBuf,
        /// What, and what to do.
        what: String,
    },
    /// A repository has no stream with an id.
    #[error("{place}: {what}", place = place.display())]
    NoStream {
        /// The repository.
        place: PathBuf,
        /// Which, and what to do.
        what: String,
    },
    /// Arguments that contradict each other in a way that their parser does not know.
    #[error("{0}")]
    Use(String),
    /// Streams are damaged or missing, and were listed.
    #[error(
        "{count} streams of {place} cannot be relied on; make a full backup now, and see what `snapshots` can still restore", place = place.display()
    )]
    Unreliable {
        /// How many.
        count: usize,
        /// Where they are.
        place: PathBuf,
        /// 3 if one of them is damaged or missing, 1 if none is, and some could not be read.
        code: u8,
    },
    /// A node has refused, or cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The entry is not as a conditional put expects it.
    #[error("the key \"{}\" of the tree \"{}\" has {}; nothing was changed", Notation::Text.show(key), Notation::Text.show(tree), if *exists { "another value" } else { "no value" })]
    Unmet {
        /// The tree.
        tree: Vec<u8>,
        /// The key.
        key: Vec<u8>,
        /// Whether it has a value.
        exists: bool,
    },
    /// A demonstration did not show what it promises.
    #[error("the demonstration failed: {0}")]
    Demo(String),
}

/// A failure as a line of JSON.
#[derive(Serialize)]
struct JsonFailure {
    error: String,
    code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
}

impl Failure {
    /// Builds the adapter for `map_err` that gives a failed call its context.
    pub fn io(action: &'static str, file: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Failure {
        let file = file.into();
        move |source| Failure::Io { action, file, source }
    }

    /// The exit code, as in the table of this file.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Engine(error) => engine_code(error),
            Failure::Row { fault: RowFault::Engine(error), .. } => engine_code(error),
            Failure::InUse(error) => engine_code(error),
            Failure::Snapshot(error) | Failure::Stream { source: error, .. } => {
                snapshot_code(error)
            }
            Failure::Client(error) => client_code(error),
            Failure::Unmet { .. } => 6,
            Failure::Unreliable { code, .. } => *code,
            Failure::Argument { .. } | Failure::Use(_) => 2,
            Failure::Damaged { .. } | Failure::Lost { .. } => 3,
            Failure::NoKey { .. }
            | Failure::NoPage { .. }
            | Failure::NoBackup(_)
            | Failure::NoStream { .. }
            | Failure::NotReached { .. } => 4,
            Failure::Io { .. }
            | Failure::Output(_)
            | Failure::Row { .. }
            | Failure::Place { .. }
            | Failure::Node(_)
            | Failure::Demo(_) => 1,
        }
    }

    /// Whether the reader of standard output has gone: nobody is left to tell anything.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Tells the failure on standard error, in one line.
    pub fn print(&self, json: bool) {
        let (line, stored) = match self {
            Failure::Row { line, stored, .. } => (Some(*line), Some(*stored)),
            _ => (None, None),
        };
        print_error(
            json,
            &JsonFailure { error: self.to_string(), code: self.code(), line, stored },
        );
    }
}

/// Tells on standard error that the arguments make no sense, with `text` from their parser.
pub fn print_usage_error(text: &str) {
    let error = text.trim().trim_start_matches("error: ").replace('\n', " ");
    print_error(true, &JsonFailure { error, code: 2, line: None, stored: None });
}

fn print_error(json: bool, failure: &JsonFailure) {
    let text = match serde_json::to_string(failure) {
        Ok(text) if json => text,
        _ => format!("treepie: {}", failure.error),
    };
    // Nobody is left to tell that standard error is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Failure {
        Failure::Snapshot(error.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        RepositoryError::from(error).into()
    }
}

/// The exit code for what the library for backups says.
pub fn snapshot_code(error: &SnapshotError) -> u8 {
    match error {
        SnapshotError::Engine(error) => engine_code(error),
        SnapshotError::Cut { .. }
        | SnapshotError::Damaged { .. }
        | SnapshotError::TrailingBytes { .. }
        | SnapshotError::OutOfOrder { .. }
        | SnapshotError::Mismatch { .. }
        | SnapshotError::Restored { .. } => 3,
        SnapshotError::Archive { .. } | SnapshotError::Behind { .. } => 4,
        SnapshotError::Repository(error) if error.is_contention() => 5,
        SnapshotError::Repository(error) => match error {
            RepositoryError::ManifestDamaged { .. } | RepositoryError::FileMissing { .. } => 3,
            RepositoryError::NotFound { .. }
            | RepositoryError::Hole(_)
            | RepositoryError::Empty { .. }
            | RepositoryError::NoBranch { .. } => 4,
            _ => 1,
        },
        _ => 1,
    }
}

fn client_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Refused(Refusal::NoTree { .. }) => 4,
        ClientError::Address { .. } => 2,
        ClientError::OutcomeUnknown { .. } => 7,
        _ => 1,
    }
}

fn engine_code(error: &Error) -> u8 {
    match error {
        Error::Corrupt { .. } | Error::JournalGap { .. } => 3,
        Error::NotFound { .. } | Error::UnknownTree { .. } => 4,
        Error::Locked { .. } => 5,
        _ => 1,
    }
}
