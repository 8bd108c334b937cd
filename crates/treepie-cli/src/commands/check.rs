//! `check`: whether all pages are in order.

use std::path::Path;

use serde::Serialize;
use treepie::{CheckReport, Problem};

use super::look;
use crate::{
    failure::{Failure, Result},
    notation::{JsonBytes, Notation},
    output::{Output, grouped},
};

#[derive(Serialize)]
struct CheckObject {
    clean: bool,
    lsn: u64,
    trees: usize,
    entries: u64,
    tree_pages: u64,
    fixed_pages: u64,
    free_pages: u64,
    problems: Vec<ProblemObject>,
}

#[derive(Serialize)]
pub struct ProblemObject {
    tree: Option<JsonBytes>,
    page: Option<u32>,
    offset: Option<u64>,
    what: String,
}

impl From<&CheckReport> for CheckObject {
    fn from(report: &CheckReport) -> CheckObject {
        CheckObject {
            clean: report.is_clean(),
            lsn: report.lsn.0,
            trees: report.trees.len(),
            entries: report.entries,
            tree_pages: report.tree_pages,
            fixed_pages: report.fixed_pages,
            free_pages: report.free_pages,
            problems: report.problems.iter().map(ProblemObject::from).collect(),
        }
    }
}

impl From<&Problem> for ProblemObject {
    fn from(problem: &Problem) -> ProblemObject {
        ProblemObject {
            tree: problem.tree.as_deref().map(|tree| Notation::Text.json(tree)),
            page: problem.page.map(|page| page.0),
            offset: problem.offset,
            what: problem.what.clone(),
        }
    }
}

/// Checks a database, and prints all damage.
pub fn run(db: &Path, output: &mut Output) -> Result<()> {
    look(db, |db| {
        let report = db.check()?;
        if output.is_json() {
            output.object(&CheckObject::from(&report))?;
        } else {
            report.problems.iter().try_for_each(|problem| output.line(problem.to_string()))?;
            output.line(summary(&report))?;
        }
        match report.problems.len() {
            0 => Ok(()),
            count => Err(Failure::Damaged { count }),
        }
    })
}

fn summary(report: &CheckReport) -> String {
    let verdict = if report.is_clean() { "no damage" } else { "DAMAGED" };
    format!(
        "{verdict}: {} entries in {} trees, {} pages of trees, {} fixed, {} free, at LSN {}",
        grouped(report.entries),
        report.trees.len(),
        grouped(report.tree_pages),
        report.fixed_pages,
        grouped(report.free_pages),
        report.lsn,
    )
}
