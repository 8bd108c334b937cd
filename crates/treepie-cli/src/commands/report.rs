//! `report`: what is in a database, and what it is doing.

use std::path::Path;

use serde::Serialize;
use treepie::{CopyInfo, JournalReport, ReaderInfo, Report, Stats, TreeReport};

use super::{
    check::ProblemObject,
    look,
    trees::{TreeObject, text as tree_text},
};
use crate::{
    failure::{Failure, Result},
    output::{Output, bytes, grouped},
};

/// Prints the report; damage that was met on the way is in it, and a failure.
pub fn run(db: &Path, output: &mut Output) -> Result<()> {
    look(db, |db| {
        let report = db.report()?;
        print(&report, output)?;
        match usize::try_from(report.damage_count).unwrap_or(usize::MAX) {
            0 => Ok(()),
            count => Err(Failure::Damaged { count }),
        }
    })
}

/// Prints a report that was made.
pub fn print(report: &Report, output: &mut Output) -> Result<()> {
    if output.is_json() {
        return output.object(&ReportObject::from(report));
    }
    text(report).iter().try_for_each(|line| output.line(line))
}

#[derive(Serialize)]
struct ReportObject {
    database_id: String,
    page_size: usize,
    lsn: u64,
    data_file_bytes: u64,
    pages_used: u64,
    pages_free: u64,
    pages_free_run_max: u64,
    trees: Vec<FilledTree>,
    journal: JournalObject,
    readers: Vec<ReaderObject>,
    copies: Vec<CopyObject>,
    stats: StatsObject,
    damage: Vec<ProblemObject>,
    damage_count: u64,
}

#[derive(Serialize)]
struct FilledTree {
    #[serde(flatten)]
    tree: TreeObject,
    leaf_fill: f64,
}

#[derive(Serialize)]
struct JournalObject {
    first_lsn: u64,
    last_lsn: u64,
    disk_bytes: u64,
    spare_count: usize,
    reserve_len: u64,
    segments: Vec<SegmentObject>,
}

#[derive(Serialize)]
struct SegmentObject {
    file: String,
    first_lsn: u64,
    len: u64,
    used: u64,
}

#[derive(Serialize)]
struct ReaderObject {
    lsn: u64,
    age_us: u64,
    opened_at: String,
    pinned_bytes: u64,
}

#[derive(Serialize)]
struct CopyObject {
    lsn: u64,
    age_us: u64,
    opened_at: String,
    pages_read: u64,
    pages: u64,
    side_file_bytes: u64,
}

#[derive(Serialize)]
struct StatsObject {
    committed: u64,
    synced: u64,
    appended: u64,
    checkpointed: u64,
    commits: u64,
    rollbacks: u64,
    record_bytes: u64,
    journal_bytes: u64,
    checkpoints: u64,
    pages_written: u64,
    versions: u64,
    versions_memory: u64,
    scratch_memory: u64,
    held_bytes: u64,
    growths: u64,
    waits: u64,
    readers: u64,
    poisoned_by: Option<&'static str>,
}

impl From<&Report> for ReportObject {
    fn from(report: &Report) -> ReportObject {
        ReportObject {
            database_id: report.database_id.to_string(),
            page_size: report.page_size,
            lsn: report.lsn.0,
            data_file_bytes: report.data_file_len,
            pages_used: report.pages_used,
            pages_free: report.pages_free,
            pages_free_run_max: report.pages_free_run_max,
            trees: report.trees.iter().map(FilledTree::from).collect(),
            journal: JournalObject::from(&report.journal),
            readers: report.readers.iter().map(ReaderObject::from).collect(),
            copies: report.copies.iter().map(CopyObject::from).collect(),
            stats: StatsObject::from(&report.stats),
            damage: report.damage.iter().map(ProblemObject::from).collect(),
            damage_count: report.damage_count,
        }
    }
}

impl From<&TreeReport> for FilledTree {
    fn from(report: &TreeReport) -> FilledTree {
        FilledTree { tree: TreeObject::from(&report.info), leaf_fill: report.leaf_fill }
    }
}

impl From<&JournalReport> for JournalObject {
    fn from(journal: &JournalReport) -> JournalObject {
        let segments = journal.segments.iter().map(|segment| SegmentObject {
            file: segment.file.clone(),
            first_lsn: segment.first_lsn.0,
            len: segment.len,
            used: segment.used,
        });
        JournalObject {
            first_lsn: journal.first_lsn.0,
            last_lsn: journal.last_lsn.0,
            disk_bytes: journal.bytes,
            spare_count: journal.spare_count,
            reserve_len: journal.reserve_len,
            segments: segments.collect(),
        }
    }
}

impl From<&ReaderInfo> for ReaderObject {
    fn from(reader: &ReaderInfo) -> ReaderObject {
        ReaderObject {
            lsn: reader.lsn.0,
            age_us: reader.age_us,
            opened_at: reader.opened_at.clone(),
            pinned_bytes: reader.pinned_bytes,
        }
    }
}

impl From<&CopyInfo> for CopyObject {
    fn from(copy: &CopyInfo) -> CopyObject {
        CopyObject {
            lsn: copy.lsn.0,
            age_us: copy.age_us,
            opened_at: copy.opened_at.clone(),
            pages_read: copy.pages_read,
            pages: copy.pages,
            side_file_bytes: copy.side_file_len,
        }
    }
}

impl From<&Stats> for StatsObject {
    fn from(stats: &Stats) -> StatsObject {
        StatsObject {
            committed: stats.committed.0,
            synced: stats.synced.0,
            appended: stats.appended.0,
            checkpointed: stats.checkpointed.0,
            commits: stats.commits,
            rollbacks: stats.rollbacks,
            record_bytes: stats.record_bytes,
            journal_bytes: stats.journal_bytes,
            checkpoints: stats.checkpoints,
            pages_written: stats.pages_written,
            versions: stats.versions,
            versions_memory: stats.versions_memory,
            scratch_memory: stats.scratch_memory,
            held_bytes: stats.held_bytes,
            growths: stats.growths,
            waits: stats.waits,
            readers: stats.readers,
            poisoned_by: stats.poisoned_by,
        }
    }
}

fn text(report: &Report) -> Vec<String> {
    let stats = &report.stats;
    let mut lines = vec![
        format!("database {} at LSN {}", report.database_id, report.lsn),
        format!(
            "data file: {}, pages of {} bytes, {} used, {} free ({} of them in one run)",
            bytes(report.data_file_len),
            grouped(report.page_size as u64),
            grouped(report.pages_used),
            grouped(report.pages_free),
            grouped(report.pages_free_run_max),
        ),
        "trees:".to_owned(),
    ];
    lines.extend(report.trees.iter().map(|tree| {
        format!("  {}  leaves {:.0} % full", tree_text(&tree.info), tree.leaf_fill * 100.0)
    }));
    lines.extend(journal_text(&report.journal));
    lines.push(format!(
        "watermarks: committed {}, synced {}, appended {}, checkpointed {}",
        stats.committed, stats.synced, stats.appended, stats.checkpointed,
    ));
    lines.push(format!(
        "since it was opened: {} commits, {} rollbacks, {} of records, {} checkpoints, {} pages \
         written by them, {} waits for them",
        grouped(stats.commits),
        grouped(stats.rollbacks),
        bytes(stats.record_bytes),
        stats.checkpoints,
        grouped(stats.pages_written),
        stats.waits,
    ));
    lines.push(format!(
        "versions of pages in memory: {}, {} ({} in scratch files, {} held by old snapshots)",
        grouped(stats.versions),
        bytes(stats.versions_memory),
        bytes(stats.scratch_memory),
        bytes(stats.held_bytes),
    ));
    lines.extend(report.readers.iter().map(|reader| {
        format!(
            "reader at LSN {}, opened {:.1} s ago at {}, keeps {}",
            reader.lsn,
            reader.age_us as f64 / 1e6,
            reader.opened_at,
            bytes(reader.pinned_bytes),
        )
    }));
    lines.extend(report.copies.iter().map(|copy| {
        format!(
            "copy at LSN {}, begun {:.1} s ago at {}, {} of {} pages read, side file {}",
            copy.lsn,
            copy.age_us as f64 / 1e6,
            copy.opened_at,
            grouped(copy.pages_read),
            grouped(copy.pages),
            bytes(copy.side_file_len),
        )
    }));
    lines.extend(stats.poisoned_by.map(|what| format!("POISONED by a failed {what}")));
    lines.extend(report.damage.iter().map(|problem| format!("DAMAGED: {problem}")));
    if report.damage_count > report.damage.len() as u64 {
        let more = report.damage_count - report.damage.len() as u64;
        lines.push(format!("DAMAGED: {} more; `check` lists them", grouped(more)));
    }
    lines
}

fn journal_text(journal: &JournalReport) -> Vec<String> {
    let mut lines = vec![format!(
        "journal: {} on the disk, LSN {} to {}, {} spare files, {} kept for a full disk",
        bytes(journal.bytes),
        journal.first_lsn,
        journal.last_lsn,
        journal.spare_count,
        bytes(journal.reserve_len),
    )];
    lines.extend(journal.segments.iter().map(|segment| {
        let (used, len) = (bytes(segment.used), bytes(segment.len));
        format!("  {}  from LSN {}, {used} of {len} used", segment.file, segment.first_lsn)
    }));
    lines
}
