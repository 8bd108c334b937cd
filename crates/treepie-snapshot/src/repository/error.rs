//! What a repository can fail with, and what the caller can do next.

use treepie::{
    Lineage,
    ids::{DatabaseId, Lsn},
};

use super::plan::Hole;
use crate::{calendar::readable, store::StoreError};

/// What a repository can fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no repository here.
    #[error("there is no repository in {place}; check the path, or write a first backup to it")]
    NotFound {
        /// The store.
        place: String,
    },
    /// The newest manifest cannot be read. Restores go on with the one before it.
    #[error(
        "{file} in {place} is damaged ({what}); nothing is written until `rebuild` has made a new manifest of the streams themselves"
    )]
    ManifestDamaged {
        /// The store.
        place: String,
        /// The manifest.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// The manifest was written by a newer Treepie.
    #[error(
        "{file} in {place} has version {found}, this build reads up to {supported}; upgrade Treepie"
    )]
    ManifestVersion {
        /// The store.
        place: String,
        /// The manifest.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// Somebody else changed the manifest. Nothing of this change is in it; begin again.
    #[error("the manifest in {place} was changed by another writer meanwhile; begin again")]
    Conflict {
        /// The store.
        place: String,
    },
    /// A stream that does not belong here.
    #[error(
        "this repository holds backups of database {expected}, not of {found}; use another one"
    )]
    Stranger {
        /// Whose backups are here.
        expected: DatabaseId,
        /// Whose was offered.
        found: DatabaseId,
    },
    /// Two histories of one lineage: the same LSN with two chain hashes. A copy of the database's folder
    /// was opened and written to.
    #[error("the repository knows LSN {lsn} of epoch {} with another chain hash: another copy of this database wrote to it; give each copy a repository of its own", lineage.epoch)]
    Diverged {
        /// The lineage.
        lineage: Lineage,
        /// Where both are known.
        lsn: Lsn,
    },
    /// A stream whose description contradicts itself.
    #[error("the stream cannot be kept: {what}")]
    Description {
        /// What is wrong.
        what: &'static str,
    },
    /// An increment without what it builds on.
    #[error(
        "the repository has no stream that ends at LSN {base} with the chain hash that the increment builds on; write a full backup"
    )]
    NoBase {
        /// Where the base would end.
        base: Lsn,
    },
    /// What was asked for is not in the repository, or not all that leads there.
    #[error("{0}")]
    Hole(Box<Hole>),
    /// There is nothing that a restore could begin with.
    #[error("{place} has no full backup that could be restored{}", newest_text(*newest))]
    Empty {
        /// The store.
        place: String,
        /// The newest LSN that is there in some stream.
        newest: Option<Lsn>,
    },
    /// The repository has no such branch.
    #[error("the repository has no streams of epoch {epoch}; list the snapshots")]
    NoBranch {
        /// The epoch that was asked for.
        epoch: u64,
    },
    /// More than one branch has this epoch: the same backup was restored more than once.
    #[error(
        "the repository has {count} branches of epoch {epoch}; name one by the LSN that it forked at too"
    )]
    AmbiguousBranch {
        /// The epoch that was asked for.
        epoch: u64,
        /// How many there are.
        count: usize,
    },
    /// The manifest names a file that is not there.
    #[error(
        "{file} is in the manifest of {place} and not in the store; if it was not pruned just now, copy it back, or plan without it"
    )]
    FileMissing {
        /// The store.
        place: String,
        /// The file.
        file: String,
    },
    /// A policy that would keep nothing.
    #[error("a retention policy without any rule keeps nothing; say what to keep")]
    EmptyPolicy,
    /// A plan that was made of another state of the repository.
    #[error("the repository has changed since the plan was made; make it again")]
    StalePlan,
    /// A bound was reached.
    #[error("{what} reached its maximum of {max}; {hint}")]
    Bound {
        /// What.
        what: &'static str,
        /// How much there may be.
        max: u64,
        /// What can be done.
        hint: &'static str,
    },
}

fn newest_text(newest: Option<Lsn>) -> String {
    newest.map_or_else(String::new, |lsn| {
        format!("; the newest stream ends at LSN {lsn}, but what it builds on is missing")
    })
}

impl std::fmt::Display for Hole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.target_lsn, self.target_time_us) {
            (Some(lsn), _) => write!(f, "LSN {lsn} cannot be restored: ")?,
            (None, Some(time)) => write!(f, "{} cannot be restored: ", readable(time))?,
            (None, None) => write!(f, "the newest state cannot be restored: ")?,
        }
        match self.missing {
            Some((first, last)) if first == last => {
                write!(f, "record {first} is not in the repository")?;
            }
            Some((first, last)) => {
                write!(f, "records {first}..{last} are not in the repository")?;
            }
            None => write!(f, "the repository ends before it")?,
        }
        let names: Vec<&str> = self.absent.iter().take(3).map(|name| name.as_str()).collect();
        if !names.is_empty() {
            let more = self.absent.len() - names.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            write!(f, " ({}{more} should be there and are not)", names.join(", "))?;
        }
        match (self.below, self.above) {
            (Some(below), Some(above)) => {
                write!(f, "; the nearest restorable LSNs are {below} and {above}")
            }
            (Some(lsn), None) | (None, Some(lsn)) => {
                write!(f, "; the nearest restorable LSN is {lsn}")
            }
            (None, None) => write!(f, "; nothing of this branch can be restored"),
        }
    }
}
