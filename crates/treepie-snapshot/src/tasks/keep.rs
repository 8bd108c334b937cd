//! Backups into a repository.

use treepie::{Base, Database, Lineage, ids::Lsn};

use super::{describe, renewal::Renewal};
use crate::{
    backup::{BackupOptions, BackupReport, Running},
    error::Result,
    progress::Control,
    repository::{Entry, Kind, Manifest, Repository, RepositoryError},
};

/// How much a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// An increment on the newest backup of this lineage, a full backup where there is none.
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
/// When it returns, the backup is durable and entered.
///
/// # Errors
/// Those of [`backup`](crate::backup()), and [`Error::Repository`](crate::Error::Repository): the lock is
/// taken; the repository is another database's; there is nothing to put an increment on.
pub fn keep(
    db: &Database,
    repository: &Repository,
    extent: Extent,
    options: &BackupOptions,
    control: Control,
) -> Result<Option<Kept>> {
    let mut writer = repository.writer("backup")?;
    let base = match extent {
        Extent::Full => None,
        Extent::Auto | Extent::Increment => newest(writer.manifest(), &db.lineage()),
    };
    if base.is_some_and(|base| base.lsn == db.durable_lsn()) {
        return Ok(None);
    }
    if base.is_none() && extent == Extent::Increment {
        return Err(RepositoryError::NoBase { base: Lsn(0) }.into());
    }
    let (options, copy) = match base {
        None => (options.clone(), db.copy_pages(options.copy_options())?),
        Some(base) => {
            let increment = options.clone().base(base);
            match db.copy_pages(increment.copy_options()) {
                Ok(copy) => (increment, copy),
                // It is of another history than its lineage says: a copy that was not forked.
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
    let new = writer.create(kind, base_lsn, copy.lsn())?;
    let running = Running::of_copy(copy, new, &options, control)?;
    let mut renewal = Renewal::new();
    let (new, report) = running.run(&mut || renewal.tick(&mut writer))?;
    let entry = writer.add(new, describe(&report.summary))?;
    Ok(Some(Kept { entry, report }))
}

/// The newest backup of a lineage.
fn newest(manifest: &Manifest, lineage: &Lineage) -> Option<Base> {
    let own = manifest
        .entries
        .iter()
        .filter(|entry| entry.is_snapshot() && entry.stream.lineage == *lineage);
    let last = own.map(|entry| entry.stream.last).max()?;
    Some(Base { lineage: *lineage, lsn: last.lsn, chain: last.chain })
}

fn is_base(error: &treepie::Error) -> bool {
    matches!(error, treepie::Error::Base { .. })
}
