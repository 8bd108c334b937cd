//! Backups into a repository.

use treepie::{Base, Database, ids::Lsn};

use super::{
    describe,
    entering::{enter, looked_at},
};
use crate::{
    backup::{BackupOptions, BackupReport, Running},
    error::{Error, Result},
    progress::Control,
    repository::{Description, Entry, Kind, Repository, RepositoryError},
};

/// How much a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// An increment on the newest backup of this lineage that can be restored, a full backup where there
    /// is none, or where the database cannot tell any more that it goes on from there.
    #[default]
    Auto,
    /// Everything.
    Full,
    /// An increment, or an error.
    Increment,
}

/// A backup that is in a repository.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its entry.
    pub entry: Entry,
    /// What was written.
    pub report: BackupReport,
}

/// Writes a backup of `db` into a repository; none if nothing was committed since the newest one there.
/// When it returns, the backup is durable and entered. The repository is not locked while it is written:
/// archives go on.
///
/// # Errors
/// Those of [`backup`](crate::backup()); [`Error::Behind`] where the repository is ahead of the database,
/// unless all is asked for; [`Error::Repository`]: it stays locked; it is another database's; there is
/// nothing to put an increment on.
pub fn keep(
    db: &Database,
    repository: &Repository,
    extent: Extent,
    options: &BackupOptions,
    control: Control,
) -> Result<Option<Kept>> {
    let token = control.token();
    let repository = looked_at(repository, "backup", &token)?;
    let base = match extent {
        Extent::Full => None,
        Extent::Auto | Extent::Increment => base(db, &repository)?,
    };
    if base.is_none() && extent == Extent::Increment {
        return Err(RepositoryError::NoBase { base: Lsn(0) }.into());
    }
    let (options, copy) = match base {
        None => (options.clone(), db.copy_pages(options.copy_options())?),
        Some(base) => {
            let increment = options.clone().base(base);
            match db.copy_pages(increment.copy_options()) {
                Ok(copy) => (increment, copy),
                // Of another history than its lineage says, or nobody knows: a copy that was not forked.
                Err(error) if extent == Extent::Auto && is_base(&error) => {
                    tracing::warn!(%error, "a full backup is made instead of an increment");
                    (options.clone(), db.copy_pages(options.copy_options())?)
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    let (kind, base_lsn) = match base {
        Some(base) if options.is_increment() => (Kind::Increment, base.lsn),
        _ => (Kind::Full, Lsn(0)),
    };
    if kind == Kind::Increment && copy.lsn() == base_lsn {
        return Ok(None);
    }
    let new = repository.create(kind, base_lsn, copy.lsn())?;
    let (new, report) = Running::of_copy(copy, new, &options, control)?.run()?;
    let damage_count = report.damage_count;
    let description = Description { damage_count, ..describe(&report.summary) };
    let entry = enter(&repository, "backup", &token, new, description)?;
    Ok(Some(Kept { entry, report }))
}

/// The newest backup that an increment of this database can be put on and restored with.
fn base(db: &Database, repository: &Repository) -> Result<Option<Base>> {
    let lineage = db.lineage();
    let entries = repository.manifest().entries.iter();
    let own = entries.filter(|entry| entry.is_snapshot() && entry.stream.lineage == lineage);
    let kept = own.map(|entry| entry.stream.last.lsn).max().unwrap_or_default();
    let newest = db.read()?.lsn();
    if kept > newest {
        return Err(Error::Behind { kept, newest });
    }
    let base = repository.newest_base(&lineage)?;
    Ok(base.map(|base| Base { lineage, lsn: base.lsn, chain: base.chain }))
}

fn is_base(error: &treepie::Error) -> bool {
    matches!(error, treepie::Error::Base { .. })
}
