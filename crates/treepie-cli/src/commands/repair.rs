//! `check --repair`: what can be read of a damaged database, into a new one.

use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
    path::Path,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use treepie::{Loss, Options, SalvageProgress, SalvageReport};

use crate::{
    failure::{Failure, Result},
    notation::{JsonBytes, Notation},
    output::{Output, grouped},
};

#[derive(Serialize)]
struct RepairObject {
    whole: bool,
    lsn: Option<u64>,
    records: u64,
    page_size: usize,
    entries: u64,
    entries_lost: u64,
    loss_count: u64,
    trees: Vec<TreeObject>,
    losses: Vec<LossObject>,
}

#[derive(Serialize)]
struct TreeObject {
    name: JsonBytes,
    id: u32,
    entries: u64,
    expected: Option<u64>,
}

#[derive(Serialize)]
struct LossObject {
    tree: Option<JsonBytes>,
    page: Option<u32>,
    from: Option<JsonBytes>,
    until: Option<JsonBytes>,
    is_value: bool,
    what: String,
    found: u64,
}

impl From<&SalvageReport> for RepairObject {
    fn from(report: &SalvageReport) -> RepairObject {
        let trees = report.trees.iter().map(|tree| TreeObject {
            name: Notation::Text.json(&tree.name),
            id: tree.id.0,
            entries: tree.entries,
            expected: tree.expected,
        });
        RepairObject {
            whole: report.is_whole(),
            lsn: report.lsn.map(|lsn| lsn.0),
            records: report.records,
            page_size: report.page_size,
            entries: report.entries,
            entries_lost: report.entries_lost(),
            loss_count: report.loss_count,
            trees: trees.collect(),
            losses: report.losses.iter().map(LossObject::from).collect(),
        }
    }
}

impl From<&Loss> for LossObject {
    fn from(loss: &Loss) -> LossObject {
        let json = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|b| Notation::Text.json(b));
        LossObject {
            tree: json(&loss.tree),
            page: loss.page.map(|page| page.0),
            from: json(&loss.from),
            until: json(&loss.until),
            is_value: loss.is_value,
            what: loss.what.clone(),
            found: loss.found,
        }
    }
}

/// Saves what can be read into `target`, and prints what is lost.
pub fn run(db: &Path, target: &Path, output: &mut Output) -> Result<()> {
    let bar = bar();
    let report = Options::new().salvage(db, target, |progress| {
        show(&bar, progress);
        ControlFlow::Continue(())
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let report = report?;
    if output.is_json() {
        output.object(&RepairObject::from(&report))?;
    } else {
        report.losses.iter().try_for_each(|loss| output.line(loss.to_string()))?;
        for tree in &report.trees {
            let of = tree.expected.map_or_else(String::new, |e| format!(" of {}", grouped(e)));
            let name = tree.name.escape_ascii();
            output.line(format!("tree \"{name}\": {}{of} entries saved", grouped(tree.entries)))?;
        }
        output.line(summary(&report))?;
    }
    match report.loss_count {
        0 => Ok(()),
        count => Err(Failure::Lost { count, new: target.to_owned() }),
    }
}

fn summary(report: &SalvageReport) -> String {
    let verdict = if report.is_whole() { "nothing is lost" } else { "LOSSES" };
    let state = report.lsn.map_or_else(String::new, |lsn| format!(", the state at LSN {lsn}"));
    format!(
        "{verdict}: {} entries of {} trees saved{state}",
        grouped(report.entries),
        report.trees.len(),
    )
}

/// Shown on standard error, when that is a terminal.
fn bar() -> Option<ProgressBar> {
    io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} pages, {msg}, {eta} left");
        ProgressBar::new(0).with_style(style.expect("the template is well-formed"))
    })
}

fn show(bar: &Option<ProgressBar>, progress: &SalvageProgress) {
    let Some(bar) = bar else { return };
    bar.set_length(progress.pages_total);
    bar.set_position(progress.pages_done);
    let (entries, losses) = (grouped(progress.entries), grouped(progress.losses));
    bar.set_message(format!("{entries} entries, {losses} losses"));
}
