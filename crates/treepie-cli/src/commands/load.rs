//! `load`: a tree from the lines of a file, in batches that are durable one by one.
//!
//! Rows go straight into the transaction of their batch, so that a file of any length needs the
//! memory of one batch; a damaged line drops that transaction, and with it the batch.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use treepie::Database;

use super::{change, tree_name};
use crate::{
    arguments::{Format, Load},
    failure::{Failure, Result},
    output::{Output, grouped, rate},
    rows::{RowFault, Rows},
};

/// Bytes that are read from the file at a time.
const BUFFER_LEN: usize = 1 << 20;
/// How often the progress bar is drawn, at most.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// What a load did.
#[derive(Serialize)]
struct Loaded {
    rows: u64,
    new: u64,
    replaced: u64,
    batches: u64,
    seconds: f64,
    lsn: u64,
}

/// Fills a tree.
pub fn run(arguments: &Load, output: &mut Output) -> Result<()> {
    let tree = tree_name(&arguments.tree)?;
    let format = arguments.format.unwrap_or_else(|| format_of(&arguments.file));
    let (input, len) = open(&arguments.file)?;
    let rows = Rows::new(input, format, arguments.notation.into());
    let started = Instant::now();
    let mut loaded = change(&arguments.db, |db| {
        let progress = Progress::new(len);
        let loading = Loading { db, tree: &tree, batch: arguments.batch, file: &arguments.file };
        loading.run(rows, &progress)
    })?;
    loaded.seconds = started.elapsed().as_secs_f64();
    output.either(&loaded, |loaded| {
        format!(
            "{} rows ({} new, {} replaced) in {} batches and {:.2} s: {} rows/s; durable at LSN {}",
            grouped(loaded.rows),
            grouped(loaded.new),
            grouped(loaded.replaced),
            grouped(loaded.batches),
            loaded.seconds,
            grouped(rate(loaded.rows, loaded.seconds)),
            loaded.lsn,
        )
    })
}

fn format_of(file: &Path) -> Format {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl" | "ndjson") => Format::Jsonl,
        _ => Format::Tsv,
    }
}

/// The input, and its length where it is known.
fn open(path: &Path) -> Result<(Box<dyn BufRead>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let file = File::open(path).map_err(Failure::io("open", path))?;
    let metadata = file.metadata().map_err(Failure::io("look at", path))?;
    let len = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(BufReader::with_capacity(BUFFER_LEN, file)), len))
}

/// What stays the same while a file is loaded.
struct Loading<'a> {
    db: &'a Database,
    tree: &'a [u8],
    batch: u64,
    file: &'a Path,
}

impl Loading<'_> {
    fn run<R: BufRead>(&self, mut rows: Rows<R>, progress: &Progress) -> Result<Loaded> {
        let mut loaded = Loaded { rows: 0, new: 0, replaced: 0, batches: 0, seconds: 0.0, lsn: 0 };
        loop {
            let stored = loaded.rows;
            let batch = self.store_batch(&mut rows, &mut loaded, progress);
            let is_last = batch.map_err(|fault| Failure::Row {
                file: self.shown_file(),
                line: rows.line(),
                stored,
                fault,
            })?;
            // The end of the file comes to light in a batch of its own when the rows fill the others.
            loaded.batches += u64::from(loaded.rows > stored);
            if is_last {
                return Ok(loaded);
            }
        }
    }

    /// Reads, applies and commits one batch; true when the input has ended.
    fn store_batch<R: BufRead>(
        &self,
        rows: &mut Rows<R>,
        loaded: &mut Loaded,
        progress: &Progress,
    ) -> std::result::Result<bool, RowFault> {
        let mut txn = self.db.begin_write()?;
        let tree = txn.tree_handle(self.tree)?;
        let mut is_last = false;
        for _ in 0..self.batch {
            let Some(row) = rows.next_row()? else {
                is_last = true;
                break;
            };
            let had_value = txn.by_handle(tree)?.insert(&row.key, &row.value)?;
            loaded.rows += 1;
            if had_value {
                loaded.replaced += 1
            } else {
                loaded.new += 1
            }
            progress.show(loaded.rows, rows.offset());
        }
        loaded.lsn = txn.commit()?.0;
        Ok(is_last)
    }

    fn shown_file(&self) -> PathBuf {
        if self.file == Path::new("-") { "standard input".into() } else { self.file.to_owned() }
    }
}

/// Bytes and rows so far, on standard error, when that is a terminal.
struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    drawn: std::cell::Cell<Instant>,
}

impl Progress {
    fn new(len: Option<u64>) -> Progress {
        let bar = io::stderr().is_terminal().then(|| {
            let (bar, template) = match len {
                Some(len) => {
                    (ProgressBar::new(len), "{wide_bar} {bytes}/{total_bytes}, {msg}, {eta} left")
                }
                None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {msg}"),
            };
            let style =
                ProgressStyle::with_template(template).expect("the template is well-formed");
            bar.with_style(style)
        });
        let now = Instant::now();
        Progress { bar, started: now, drawn: std::cell::Cell::new(now) }
    }

    fn show(&self, rows: u64, offset: u64) {
        let Some(bar) = &self.bar else { return };
        if self.drawn.get().elapsed() < PROGRESS_PERIOD {
            return;
        }
        self.drawn.set(Instant::now());
        let rows_per_second = rate(rows, self.started.elapsed().as_secs_f64());
        bar.set_message(format!("{} rows, {}/s", grouped(rows), grouped(rows_per_second)));
        bar.set_position(offset);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
