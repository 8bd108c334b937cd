//! `snapshots`: what a repository holds, and what can be restored of it.

use treepie_snapshot::repository::{Listing, RecordsRun, SnapshotInfo};

use crate::{
    arguments::backup::OfRepository,
    failure::{Failure, Result},
    output::{Output, bytes, grouped},
    place,
    time::utc,
};

/// Lists.
pub fn run(arguments: &OfRepository, output: &mut Output) -> Result<()> {
    let repository = place::repository(&arguments.repository)?;
    let listing = repository.listing()?;
    output.either(&listing, text)?;
    match listing.damaged_files.len() {
        0 => Ok(()),
        count => {
            Err(Failure::Unreliable { count, place: repository.store().place().into(), code: 3 })
        }
    }
}

fn text(listing: &Listing) -> String {
    let mut lines = vec![format!(
        "{:<16}  {:<9}  {:>12}  {:>10}  {:>10}  {:<19}  {:>11}  {:>11}  key",
        "id", "kind", "branch", "LSN", "builds on", "time (UTC)", "size", "restore"
    )];
    lines.extend(listing.snapshots.iter().map(snapshot));
    for (index, run) in listing.records.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &listing.records[before]);
        lines.extend(before.and_then(|before| hole(before, run)));
        lines.push(records(run));
    }
    for file in &listing.damaged_files {
        lines.push(format!("MISSING, or of another length: {file}"));
    }
    if !listing.orphan_files.is_empty() {
        let count = listing.orphan_files.len();
        lines.push(format!("{count} files belong to no backup; `prune` removes them after a day"));
    }
    lines.push(format!("{} in all", bytes(listing.bytes)));
    lines.join("\n")
}

fn snapshot(info: &SnapshotInfo) -> String {
    let base = info.base_lsn.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string());
    let restore = info.restore_bytes.map_or_else(|| "NOT POSSIBLE".to_owned(), bytes);
    let time = utc(info.time_us);
    let damage = match info.damage_count {
        0 => String::new(),
        count => format!("  DAMAGED: {count} places were left out"),
    };
    format!(
        "{:<16}  {:<9}  {:>12}  {:>10}  {:>10}  {:<19}  {:>11}  {:>11}  {}{damage}",
        info.id,
        info.kind.to_string(),
        branch(info.epoch, info.forked_at),
        info.lsn,
        base,
        time.split('.').next().unwrap_or_default(),
        bytes(info.bytes),
        restore,
        info.key_id.as_deref().unwrap_or("-"),
    )
}

/// As `--branch` takes it.
fn branch(epoch: u64, forked_at: u64) -> String {
    if forked_at == 0 { epoch.to_string() } else { format!("{epoch}@{forked_at}") }
}

fn records(run: &RecordsRun) -> String {
    let reach = match run.restorable_from {
        Some(lsn) => format!("every LSN from {lsn} to {} can be restored", run.last_lsn),
        None => "NO BACKUP leads to them".to_owned(),
    };
    format!(
        "records {} to {} of branch {}, {} to {}, {} in files: {}; {reach}",
        run.first_lsn,
        run.last_lsn,
        branch(run.epoch, run.forked_at),
        utc(run.first_time_us),
        utc(run.last_time_us),
        bytes(run.bytes),
        grouped(run.files),
    )
}

fn hole(before: &RecordsRun, run: &RecordsRun) -> Option<String> {
    let is_one = (before.epoch, before.forked_at) == (run.epoch, run.forked_at);
    let (first, last) = (before.last_lsn + 1, run.first_lsn.checked_sub(1)?);
    (is_one && first <= last).then(|| format!("HOLE: records {first} to {last} are not there"))
}
