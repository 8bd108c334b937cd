//! What people want to see of a repository.

use std::collections::BTreeSet;

use serde::Serialize;
use treepie::ids::Lsn;

use super::{
    Entry, FilesReport, Kind, Manifest,
    chains::{Chains, Reach},
    usable,
};

/// A repository at a glance. The oldest comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Full streams and increments.
    pub snapshots: Vec<SnapshotInfo>,
    /// Records, in runs without a hole.
    pub records: Vec<RecordsRun>,
    /// Bytes of all streams.
    pub bytes: u64,
    /// Files that are missing or have another length.
    pub damaged_files: Vec<String>,
    /// Files without an entry.
    pub orphan_files: Vec<String>,
}

/// A full stream or an increment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// Its id.
    pub id: String,
    /// Full or increment.
    pub kind: Kind,
    /// The epoch of its lineage.
    pub epoch: u64,
    /// Where this lineage forked from another one.
    pub forked_at: u64,
    /// The LSN that it is a state of.
    pub lsn: u64,
    /// The time of that record.
    pub time_us: u64,
    /// When the stream was made.
    pub created_us: u64,
    /// The LSN that it builds on, if it is an increment.
    pub base_lsn: Option<u64>,
    /// Length of the file.
    pub bytes: u64,
    /// Bytes that a restore to this state reads; none if it is not possible.
    pub restore_bytes: Option<u64>,
    /// The key that it is encrypted with.
    pub key_id: Option<String>,
    /// How many damaged places of the database were left out of it.
    pub damage_count: u64,
    /// The file.
    pub file: String,
}

/// Files of records without a hole between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordsRun {
    /// The epoch of their lineage.
    pub epoch: u64,
    /// Where this lineage forked from another one.
    pub forked_at: u64,
    /// The first record.
    pub first_lsn: u64,
    /// The last one.
    pub last_lsn: u64,
    /// The first record's time.
    pub first_time_us: u64,
    /// The last one's.
    pub last_time_us: u64,
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The lowest LSN from which on these records lead to states; none if nothing leads to them.
    pub restorable_from: Option<u64>,
}

pub(super) fn listing(manifest: &Manifest, report: &FilesReport) -> Listing {
    let usable = usable(manifest, report);
    let chains = Chains::new(usable.iter().copied());
    let mut listing = Listing {
        bytes: manifest.entries.iter().fold(0, |sum, entry| entry.bytes.saturating_add(sum)),
        damaged_files: report.absent().iter().map(ToString::to_string).collect(),
        orphan_files: report.orphans.iter().map(|orphan| orphan.file.to_string()).collect(),
        ..Listing::default()
    };
    let mut seen = BTreeSet::new();
    for (lineage, _) in chains.lineages() {
        let branch = chains.branch(&lineage).expect("it was listed");
        let reach = chains.search(branch, &[]);
        let own = usable.iter().copied().filter(|entry| entry.stream.lineage == lineage);
        let (snapshots, mut records): (Vec<_>, Vec<_>) = own.partition(|entry| entry.is_snapshot());
        for entry in snapshots {
            seen.insert(entry.id.as_str());
            listing.snapshots.push(info(entry, restore_bytes(&reach, branch, entry)));
        }
        records.sort_by_key(|entry| (entry.stream.base.lsn, entry.stream.last.lsn));
        listing.records.extend(runs(&records, &reach, branch));
    }
    let damaged = manifest
        .entries
        .iter()
        .filter(|entry| entry.is_snapshot() && !seen.contains(entry.id.as_str()));
    listing.snapshots.extend(damaged.map(|entry| info(entry, None)));
    listing.snapshots.sort_by(|a, b| {
        (a.time_us, a.lsn, a.created_us, &a.id).cmp(&(b.time_us, b.lsn, b.created_us, &b.id))
    });
    listing.records.sort_by_key(|run| (run.epoch, run.forked_at, run.first_lsn));
    listing
}

/// What the stream itself is read for, and what it builds on.
fn restore_bytes(reach: &Reach<'_>, branch: usize, entry: &Entry) -> Option<u64> {
    if entry.stream.kind == Kind::Full {
        return Some(entry.bytes);
    }
    let legs =
        reach.way_to(branch, entry.stream.base.lsn).filter(|_| reach.has_base_of(branch, entry))?;
    Some(legs.iter().fold(entry.bytes, |sum, leg| sum.saturating_add(leg.entry.bytes)))
}

fn info(entry: &Entry, restore_bytes: Option<u64>) -> SnapshotInfo {
    let stream = &entry.stream;
    SnapshotInfo {
        id: entry.id.clone(),
        kind: stream.kind,
        epoch: stream.lineage.epoch,
        forked_at: stream.lineage.forked_at.0,
        lsn: stream.last.lsn.0,
        time_us: stream.last_time_us,
        created_us: stream.created_us,
        base_lsn: (stream.kind == Kind::Increment).then_some(stream.base.lsn.0),
        bytes: entry.bytes,
        restore_bytes,
        key_id: stream.key_id.clone(),
        damage_count: stream.damage_count,
        file: entry.file.to_string(),
    }
}

fn runs(records: &[&Entry], reach: &Reach<'_>, branch: usize) -> Vec<RecordsRun> {
    let mut runs: Vec<RecordsRun> = Vec::new();
    for entry in records {
        let stream = &entry.stream;
        let (base, last) = (stream.base.lsn.0, stream.last.lsn.0);
        match runs.last_mut() {
            Some(run) if run.last_lsn >= base => {
                run.last_lsn = run.last_lsn.max(last);
                run.last_time_us = run.last_time_us.max(stream.last_time_us);
                run.files += 1;
                run.bytes = run.bytes.saturating_add(entry.bytes);
            }
            _ => runs.push(RecordsRun {
                epoch: stream.lineage.epoch,
                forked_at: stream.lineage.forked_at.0,
                first_lsn: base.saturating_add(1),
                last_lsn: last,
                first_time_us: stream.first_time_us,
                last_time_us: stream.last_time_us,
                files: 1,
                bytes: entry.bytes,
                restorable_from: None,
            }),
        }
    }
    for run in &mut runs {
        let from = reach.first_state(branch, Lsn(run.first_lsn - 1), Lsn(run.last_lsn));
        run.restorable_from = from.map(|lsn| lsn.0);
    }
    runs
}
