//! What a prune removes, and why: a plan that can be shown before it is carried out.

use std::collections::BTreeSet;

use super::{
    Entry, FilesReport, Kind, Manifest, RepositoryError,
    naming::{self, Named},
    retention::{Keep, Retention},
    usable,
};
use crate::store::{Item, Name};

/// How old a file without an entry must be before it goes: a day. Nothing takes so long between a
/// stream's last byte and its entry; but a repository that is being copied may have its streams before
/// its manifest.
pub const GRACE_US: u64 = 24 * 3600 * 1_000_000;

/// A file without an entry: a crash came between the stream and the manifest, or in the middle of a
/// file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The file.
    pub file: Name,
    /// Its length.
    pub bytes: u64,
    /// When it was begun, or last changed.
    pub since_us: u64,
    /// It was never finished.
    pub is_temporary: bool,
}

impl Orphan {
    /// A file as an orphan, unless it is none of ours by its name.
    pub(super) fn of(item: Item) -> Option<Orphan> {
        let (time_us, is_temporary) = match naming::read(&item.name) {
            Named::Stream { time_us, .. } => (time_us, false),
            Named::Temporary { time_us } => (time_us, true),
            Named::Foreign => return None,
        };
        let since_us = item.modified_us.unwrap_or_default().max(time_us);
        Some(Orphan { file: item.name, bytes: item.bytes, since_us, is_temporary })
    }
}

/// An entry that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The entry.
    pub entry: Entry,
    /// Why, in a few words.
    pub why: &'static str,
}

/// What a prune does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrunePlan {
    /// The manifest that it was made of.
    pub(super) number: u64,
    /// What stays, and why.
    pub keep: Vec<(Entry, BTreeSet<Keep>)>,
    /// What goes.
    pub remove: Vec<Removal>,
    /// Orphans that go.
    pub orphans: Vec<Orphan>,
    /// Orphans that stay, because they are too young.
    pub young: Vec<Orphan>,
    /// Entries whose files are missing or have another length. They stay in the manifest.
    pub damaged: Vec<Entry>,
}

impl PrunePlan {
    /// Bytes that it frees.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let entries = self.remove.iter().map(|removal| removal.entry.bytes);
        let orphans = self.orphans.iter().map(|orphan| orphan.bytes);
        entries.chain(orphans).fold(0, u64::saturating_add)
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.orphans.is_empty()
    }

    /// A plan that takes these entries away; none if one of them is not there.
    pub(super) fn forget(manifest: &Manifest, ids: &[&str]) -> Option<PrunePlan> {
        let ids: BTreeSet<&str> = ids.iter().copied().collect();
        let remove = ids.iter().map(|id| {
            let entry = manifest.entry(id)?.clone();
            Some(Removal { entry, why: "it was named" })
        });
        let remove: Option<Vec<Removal>> = remove.collect();
        Some(PrunePlan { number: manifest.number, remove: remove?, ..PrunePlan::default() })
    }
}

/// What a prune has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Files that were removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that could not be removed, and why. They have no entry any more: the next prune tries
    /// again.
    pub failed: Vec<(Name, String)>,
}

pub(super) fn plan(
    manifest: &Manifest,
    report: &FilesReport,
    policy: &Retention,
    now_us: u64,
    grace_us: u64,
) -> Result<PrunePlan, RepositoryError> {
    let usable = usable(manifest, report);
    let mut kept = policy.apply(&usable, now_us)?;
    let is_usable: BTreeSet<&str> = usable.iter().map(|entry| entry.id.as_str()).collect();
    let mut plan = PrunePlan { number: manifest.number, ..PrunePlan::default() };
    for entry in &manifest.entries {
        if !is_usable.contains(entry.id.as_str()) {
            plan.damaged.push(entry.clone());
            continue;
        }
        match kept.remove(&entry.id) {
            Some(why) => plan.keep.push((entry.clone(), why)),
            None => {
                let why = match entry.stream.kind {
                    Kind::Full | Kind::Increment => "no rule names it, and nothing builds on it",
                    Kind::Records => "no promised point in time needs it",
                };
                plan.remove.push(Removal { entry: entry.clone(), why });
            }
        }
    }
    for orphan in &report.orphans {
        let is_old = now_us.saturating_sub(orphan.since_us) >= grace_us;
        let orphans = if is_old { &mut plan.orphans } else { &mut plan.young };
        orphans.push(orphan.clone());
    }
    Ok(plan)
}
