//! Errors: what happened, where, and what the caller can do next. Context is data, not text.

use std::{fmt, io, path::PathBuf, sync::Arc};

use crate::ids::{Lsn, PageId, TreeId};

/// Result of the engine's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the engine can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call to the operating system failed. `action` names it.
    #[error("cannot {action} {}: {source}{}", file.display(), io_hint(source))]
    Io {
        /// The call, as a verb: "open", "write", "sync", …
        action: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Stored bytes break their checksum or layout. Restore from a backup, or refetch from a
    /// replica; `treepie check` lists all damage.
    #[error("{} is damaged at byte {offset}: {what}; restore it from a backup (`treepie check` lists all damage)", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where the damaged structure begins, in bytes from the start of the file.
        offset: u64,
        /// What is wrong with it.
        what: Damage,
    },
    /// The journal misses records that a meta page or a later record vouches for.
    #[error("the journal in {} has no valid record {missing}, although {evidence}; restore from a backup, or put the missing file back", folder.display())]
    JournalGap {
        /// The journal folder.
        folder: PathBuf,
        /// The first LSN that is not there.
        missing: Lsn,
        /// What proves that it was there.
        evidence: String,
    },
    /// Records that someone wants to read on from were recycled: the data file holds what they did.
    /// Take a new full copy; a larger `journal_retention` or `journal_pins_max` keeps more.
    #[error("the journal in {} begins at record {oldest} and has no record {wanted} any more; take a new full backup, or have more of it kept (`journal_retention`, `journal_pins_max`)", folder.display())]
    Trimmed {
        /// The journal folder.
        folder: PathBuf,
        /// The first LSN that was wanted.
        wanted: Lsn,
        /// The oldest that is there.
        oldest: Lsn,
    },
    /// Pages or records came, to be installed or appended, that do not continue what is there.
    #[error("what came for {} continues LSN {wanted}, and it is at LSN {found}: {reason}", path.display())]
    #[non_exhaustive]
    Misfit {
        /// The database that is being made.
        path: PathBuf,
        /// The LSN that they continue.
        wanted: Lsn,
        /// The LSN at which it is.
        found: Lsn,
        /// What does not fit.
        reason: &'static str,
    },
    /// Bytes that came from elsewhere break their checksum or layout. Fetch them again.
    #[error("what was received is damaged: {what}; fetch it again")]
    #[non_exhaustive]
    Received {
        /// What is wrong with them.
        what: Damage,
    },
    /// The folder holds no database, and creating one was not asked for.
    #[error("there is no database in {}; check the path, or create one", path.display())]
    NotFound {
        /// The folder that was to be opened.
        path: PathBuf,
    },
    /// The folder holds files, but not a Treepie database.
    #[error("{} is not a Treepie data file (its first bytes are {found:02x?}); check the path", file.display())]
    NotADatabase {
        /// The file that was read.
        file: PathBuf,
        /// The bytes where the magic should be.
        found: [u8; 8],
    },
    /// The files were written by a newer Treepie. Upgrade before opening them.
    #[error("{} has format version {found} in its {structure} at byte {offset}, this build reads up to {supported}; upgrade Treepie", file.display())]
    UnsupportedVersion {
        /// The file that was read.
        file: PathBuf,
        /// Where the structure begins, in bytes from the start of the file.
        offset: u64,
        /// The structure that is newer. Its checksum holds, so it is not damaged.
        structure: Structure,
        /// Its format version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// The files need a feature that this build does not have.
    #[error("{} needs features {found:#x}, this build has {supported:#x}; upgrade Treepie", file.display())]
    UnsupportedFeatures {
        /// The file that was read.
        file: PathBuf,
        /// Feature bits that it requires.
        found: u64,
        /// Feature bits that this build has.
        supported: u64,
    },
    /// The database was created with another page size than the options ask for.
    #[error("{} has pages of {found} bytes, the options ask for {wanted}; leave the page size out to open it", file.display())]
    PageSize {
        /// The data file.
        file: PathBuf,
        /// Its page size in bytes.
        found: usize,
        /// The page size that was asked for.
        wanted: usize,
    },
    /// Another process, or another handle of this one, has the database open.
    #[error("{} is already open{}; close it there first", path.display(), owner_text(*owner))]
    Locked {
        /// The database folder.
        path: PathBuf,
        /// Process id of the owner, where it is known.
        owner: Option<u32>,
    },
    /// An earlier write or sync failed. Reads go on; reopen to write again.
    #[error(
        "the database takes no writes since a failed {action}; reads go on; reopen it to write again"
    )]
    Poisoned {
        /// What failed first.
        action: &'static str,
    },
    /// The write or sync that was to make a commit durable failed: it may or may not be there after
    /// reopening, which is where to look. The database takes no more writes until then. Of a replicated
    /// database also: leadership was lost before the commit was final, and whether it becomes final is
    /// up to the new leader; [`Database::write_once`](crate::Database::write_once) makes running it again safe.
    #[error(
        "whether the commit at LSN {lsn} will be there is not known ({source}); {}",
        unknown_hint(source)
    )]
    OutcomeUnknown {
        /// LSN of the commit.
        lsn: Lsn,
        /// What failed.
        source: Arc<Error>,
    },
    /// This node does not lead the cluster, so it takes no writes. Nothing was changed: it is safe to run
    /// the write again, on the leader.
    #[error("this node takes no writes, and nothing was changed; {}", leader_hint(*leader))]
    NotLeader {
        /// The node that leads, where it is known.
        leader: Option<u64>,
    },
    /// A page is not what the record that changed it says, although the records are the same: this
    /// replica has gone astray. It applies no more; readers go on. Make it anew from another node.
    #[error(
        "page {page} differs from that of the leader at LSN {lsn}: this replica has diverged; install it anew from another node"
    )]
    #[non_exhaustive]
    Diverged {
        /// The record that changed the page last.
        lsn: Lsn,
        /// The page.
        page: PageId,
    },
    /// The replication door was used in an order, or in a role, in which it cannot be.
    #[error("the replication door refuses to {action}: {reason}")]
    #[non_exhaustive]
    Door {
        /// What was asked for, as a verb: "lead", "append", …
        action: &'static str,
        /// Why it cannot be.
        reason: &'static str,
    },
    /// The closure of a submitted write panicked; its changes are undone.
    #[error("the closure panicked: {message}; nothing of it is left")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// A write was begun inside a write of the same database on the same thread.
    #[error("a write was begun inside a write of the same database; use the outer transaction")]
    Reentrant,
    /// The application name or version stored in the database is not the one asked for.
    #[error("the database belongs to {found}, not to {wanted}; open it with the right application")]
    Application {
        /// Name and version in the database.
        found: String,
        /// Name and version that were asked for.
        wanted: String,
    },
    /// No tree has this name.
    #[error("there is no tree named {}; list the names with `trees`", Printable(name))]
    UnknownTree {
        /// The name asked for.
        name: Vec<u8>,
    },
    /// A tree name is empty, too long, or begins with `$`, which belongs to the engine.
    #[error("{} cannot name a tree: {reason}", Printable(name))]
    TreeName {
        /// The name asked for.
        name: Vec<u8>,
        /// Why it cannot be used.
        reason: &'static str,
    },
    /// A key is longer than the page size allows.
    #[error("the key has {len} bytes, the limit with this page size is {max}; shorten the key")]
    KeyTooLong {
        /// Length of the key in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A value is longer than the limit.
    #[error("the value has {len} bytes, the limit is {max}; store it in several entries")]
    ValueTooLong {
        /// Length of the value in bytes.
        len: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// A bound set by an option was reached. The transaction is undone.
    #[error("the bound `{option}` of {max} is reached: {hint}")]
    Bound {
        /// The option's name.
        option: &'static str,
        /// Its value.
        max: u64,
        /// What can be done.
        hint: &'static str,
    },
    /// The closure of a write gave up; its changes are undone.
    #[error("the transaction was given up: {0}")]
    Rejected(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An operation of the transaction failed half-way before (with [`Error::Corrupt`],
    /// [`Error::Bound`] or [`Error::Io`]), so that what it holds is no state of its trees. It cannot
    /// be committed; its changes are undone, and the database goes on. Do what the error of that
    /// operation says, then run the transaction again.
    #[error(
        "the transaction cannot be committed, because its {operation} failed half-way; do what that error says, then run the transaction again"
    )]
    #[non_exhaustive]
    TransactionBroken {
        /// The operation that failed: "insert", "remove", …
        operation: &'static str,
    },
    /// An incremental copy was asked for on a base that is no earlier state of this database. Take a
    /// full copy.
    #[error("LSN {lsn} cannot be the base of an incremental copy: {reason}; take a full copy")]
    #[non_exhaustive]
    Base {
        /// LSN of the base.
        lsn: Lsn,
        /// Why it is none.
        reason: &'static str,
    },
    /// Options that contradict each other or leave their range.
    #[error("option `{option}`: {reason}")]
    Options {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// Wraps an error of the caller's own, to leave a write closure with: its changes are undone.
    ///
    /// ```
    /// let error = treepie::Error::rejected("the account is empty");
    /// assert_eq!(error.to_string(), "the transaction was given up: the account is empty");
    /// ```
    pub fn rejected(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Rejected(error.into())
    }

    /// The same error for another caller of the same transaction.
    pub(crate) fn duplicate(&self) -> Error {
        match self {
            Error::Io { action, file, source } => {
                let again = source.raw_os_error().map(io::Error::from_raw_os_error);
                let source =
                    again.unwrap_or_else(|| io::Error::new(source.kind(), source.to_string()));
                Error::Io { action, file: file.clone(), source }
            }
            Error::Corrupt { file, offset, what } => {
                Error::Corrupt { file: file.clone(), offset: *offset, what: what.clone() }
            }
            &Error::Bound { option, max, hint } => Error::Bound { option, max, hint },
            &Error::Poisoned { action } => Error::Poisoned { action },
            &Error::NotLeader { leader } => Error::NotLeader { leader },
            &Error::Diverged { lsn, page } => Error::Diverged { lsn, page },
            &Error::Door { action, reason } => Error::Door { action, reason },
            &Error::Base { lsn, reason } => Error::Base { lsn, reason },
            Error::OutcomeUnknown { lsn, source } => {
                Error::OutcomeUnknown { lsn: *lsn, source: Arc::clone(source) }
            }
            other => Error::Rejected(other.to_string().into()),
        }
    }

    /// The error for stored bytes that this build does not take: they are damaged, or newer than it.
    pub(crate) fn refused(file: impl Into<PathBuf>, offset: u64, what: Damage) -> Error {
        let file = file.into();
        match what {
            Damage::Version { structure, found, supported } => {
                Error::UnsupportedVersion { file, offset, structure, found, supported }
            }
            what => Error::Corrupt { file, offset, what },
        }
    }

    /// Builds the adapter for `map_err` that gives a failed call its context.
    pub(crate) fn io(
        action: &'static str,
        file: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let file = file.into();
        move |source| Error::Io { action, file, source }
    }
}

/// What is wrong with stored bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The checksum does not match the bytes.
    #[error("{structure}: checksum {stored:08x} does not match its bytes ({computed:08x})")]
    Checksum {
        /// Which structure.
        structure: Structure,
        /// The checksum that is stored.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A structure holds a value that it cannot have.
    #[error("{structure}: {what}")]
    Layout {
        /// Which structure.
        structure: Structure,
        /// The broken rule.
        what: &'static str,
    },
    /// Not damaged: its checksum holds, and it is of a newer format.
    #[error("{structure}: format version {found}, this build reads up to {supported}")]
    Version {
        /// Which structure.
        structure: Structure,
        /// Its format version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// The file ends before the structure does.
    #[error("{structure}: the file ends at byte {file_len}")]
    Short {
        /// Which structure.
        structure: Structure,
        /// Length of the file.
        file_len: u64,
    },
}

impl Damage {
    pub(crate) fn layout(structure: Structure, what: &'static str) -> Damage {
        Damage::Layout { structure, what }
    }
}

/// A stored structure, named as precisely as its reader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Structure {
    /// Meta page 0 or 1.
    Meta(u32),
    /// A page, and the tree that its header names.
    Page(PageId, TreeId),
    /// The header of a journal segment.
    Segment,
    /// A record of the journal.
    Record(Lsn),
    /// An entry of the catalog.
    CatalogEntry,
    /// The file that says which pages were changed since the last copies.
    ChangedPages,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Structure::Meta(n) => write!(f, "meta page {n}"),
            Structure::Page(page, TreeId::NONE) => write!(f, "page {page}"),
            Structure::Page(page, tree) => write!(f, "page {page} of tree {tree}"),
            Structure::Segment => f.write_str("segment header"),
            Structure::Record(lsn) => write!(f, "record {lsn}"),
            Structure::CatalogEntry => f.write_str("catalog entry"),
            Structure::ChangedPages => f.write_str("map of changed pages"),
        }
    }
}

/// What can be done about the failures that users meet.
fn io_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on the disk, then try again (reopen the database if it refuses writes)"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; check owner and mode of the folder, and how its file system is mounted"
        }
        _ => "",
    }
}

fn unknown_hint(source: &Error) -> &'static str {
    match source {
        Error::NotLeader { .. } => "look on the leader, or run it again with its request id",
        _ => "reopen the database and look",
    }
}

fn leader_hint(leader: Option<u64>) -> String {
    match leader {
        Some(node) => format!("send the write to node {node}, which leads"),
        None => "send the write again when there is a leader".to_owned(),
    }
}

fn owner_text(owner: Option<u32>) -> String {
    owner.map_or_else(String::new, |pid| format!(" in process {pid}"))
}

/// Shows bytes as text where they are printable, the others as `\xNN`.
pub(crate) struct Printable<'a>(pub &'a [u8]);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
