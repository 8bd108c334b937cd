//! `prune` and `forget`: streams go from a repository.

use serde::Serialize;
use treepie_snapshot::repository::{Entry, GRACE_US, PrunePlan, Pruned, Retention};

use crate::{
    arguments::backup::{Forget, Prune},
    failure::{Failure, Result},
    output::{Output, bytes, grouped},
    place,
};

#[derive(Serialize)]
struct PruneObject {
    dry_run: bool,
    kept: Vec<StreamObject>,
    removed: Vec<StreamObject>,
    orphans: Vec<String>,
    /// Missing, or of another length: they are left alone.
    damaged: Vec<String>,
    removed_files: u64,
    removed_bytes: u64,
    failed: Vec<String>,
}

#[derive(Serialize)]
struct StreamObject {
    id: String,
    what: String,
    bytes: u64,
    why: Vec<&'static str>,
}

impl StreamObject {
    fn new(entry: &Entry, why: Vec<&'static str>) -> StreamObject {
        let (id, what) = (entry.id.clone(), entry.stream.summary());
        StreamObject { id, what, bytes: entry.bytes, why }
    }

    fn line(&self, verb: &str) -> String {
        let StreamObject { id, what, bytes: len, why } = self;
        format!("{verb:<6}  {id}  {what}, {}: {}", bytes(*len), why.join(", "))
    }
}

/// Removes what no rule keeps.
pub fn run(arguments: &Prune, output: &mut Output) -> Result<()> {
    let policy = Retention {
        last: arguments.keep_last,
        hourly: arguments.keep_hourly,
        daily: arguments.keep_daily,
        weekly: arguments.keep_weekly,
        monthly: arguments.keep_monthly,
        within_us: arguments.keep_within,
        records_for_us: arguments.keep_points,
    };
    let mut repository = place::repository(&arguments.repository)?;
    let now_us = repository.store().now_us();
    if arguments.dry_run {
        let plan = repository.prune_plan(&policy, now_us, GRACE_US)?;
        return tell(&plan, &Pruned::default(), true, output);
    }
    // Under the lock: what is planned is what is there.
    let mut writer = repository.writer("prune")?;
    repository.refresh()?;
    let plan = repository.prune_plan(&policy, now_us, GRACE_US)?;
    let pruned = if plan.is_empty() { Pruned::default() } else { writer.prune(&plan)? };
    tell(&plan, &pruned, false, output)
}

fn tell(plan: &PrunePlan, pruned: &Pruned, dry_run: bool, output: &mut Output) -> Result<()> {
    let kept = plan
        .keep
        .iter()
        .map(|(entry, why)| StreamObject::new(entry, why.iter().map(|keep| keep.name()).collect()));
    let removed =
        plan.remove.iter().map(|removal| StreamObject::new(&removal.entry, vec![removal.why]));
    let files = (plan.remove.len() + plan.orphans.len()) as u64;
    let (files, len) = if dry_run { (files, plan.bytes()) } else { (pruned.files, pruned.bytes) };
    let object = PruneObject {
        dry_run,
        kept: kept.collect(),
        removed: removed.collect(),
        orphans: plan.orphans.iter().map(|orphan| orphan.file.to_string()).collect(),
        damaged: plan.damaged.iter().map(|entry| entry.file.to_string()).collect(),
        removed_files: files,
        removed_bytes: len,
        failed: pruned.failed.iter().map(|(file, why)| format!("{file}: {why}")).collect(),
    };
    output.either(&object, text)
}

fn text(object: &PruneObject) -> String {
    let mut lines: Vec<String> = object.kept.iter().map(|kept| kept.line("keep")).collect();
    lines.extend(object.removed.iter().map(|removed| removed.line("remove")));
    lines.extend(object.orphans.iter().map(|file| format!("remove  {file}: of no backup")));
    lines.extend(object.damaged.iter().map(|file| {
        format!("keep    {file}: missing, or of another length; `forget` it if it is lost")
    }));
    lines.extend(object.failed.iter().map(|failed| format!("NOT REMOVED: {failed}")));
    let would = if object.dry_run { "would be removed" } else { "removed" };
    let (files, len) = (grouped(object.removed_files), bytes(object.removed_bytes));
    lines.push(format!("{files} files, {len} {would}; {} streams stay", object.kept.len()));
    lines.join("\n")
}

#[derive(Serialize)]
struct ForgetObject {
    forgotten: usize,
    removed_files: u64,
    removed_bytes: u64,
    failed: Vec<String>,
}

/// Removes streams by their ids.
pub fn forget(arguments: &Forget, output: &mut Output) -> Result<()> {
    let repository = place::repository(&arguments.repository)?;
    let mut writer = repository.writer("forget")?;
    let is_absent = |id: &&String| writer.manifest().entry(id).is_none();
    if let Some(id) = arguments.ids.iter().find(is_absent) {
        let what = format!("it has no stream {id}; `snapshots` and `verify` show the ids");
        return Err(Failure::NoStream { place: arguments.repository.clone(), what });
    }
    let ids: Vec<&str> = arguments.ids.iter().map(String::as_str).collect();
    let pruned = writer.forget(&ids)?;
    let object = ForgetObject {
        forgotten: ids.len(),
        removed_files: pruned.files,
        removed_bytes: pruned.bytes,
        failed: pruned.failed.iter().map(|(file, why)| format!("{file}: {why}")).collect(),
    };
    output.either(&object, |object| {
        let mut lines: Vec<String> =
            object.failed.iter().map(|failed| format!("NOT REMOVED: {failed}")).collect();
        let (files, len) = (grouped(object.removed_files), bytes(object.removed_bytes));
        lines.push(format!("{} streams forgotten; {files} files, {len} removed", object.forgotten));
        lines.join("\n")
    })
}
