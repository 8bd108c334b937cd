//! Step 6: a process is killed in the middle of writing, and everything that it acknowledged is
//! there afterwards.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use treepie::{Database, Options};

use super::{
    promise,
    story::Story,
    writer::{TREE, row_key, row_value},
};
use crate::{
    failure::{Failure, Result},
    output::{bytes, grouped, rate},
};

/// How long the process may write, and how many rows it must have acknowledged by then.
const WRITING: Duration = Duration::from_secs(2);
const ROWS_MIN: u64 = 100;

/// Step 6.
pub fn show(path: &Path, story: &mut Story<'_>) -> Result<()> {
    story.step("Kill a process in the middle of writing")?;
    let mut writer = Writer::start(path)?;
    story.say(format!(
        "Process {} stores one row per transaction, and tells the number of each",
        writer.child.id()
    ))?;
    story.say("after its commit has returned.")?;
    let started = Instant::now();
    while started.elapsed() < WRITING || writer.acknowledged < ROWS_MIN {
        promise(writer.read_row()?, || "the writing process ended by itself".to_owned())?;
    }
    let status = writer.kill()?;
    let seconds = started.elapsed().as_secs_f64();
    story.say(format!(
        "Killed ({status}) after {} acknowledged rows: {} commits/s.",
        grouped(writer.acknowledged),
        grouped(rate(writer.acknowledged, seconds)),
    ))?;
    reopen(path, writer.acknowledged, story)
}

/// The process, which is killed at the latest when this goes.
struct Writer {
    child: Child,
    rows: BufReader<ChildStdout>,
    line: String,
    acknowledged: u64,
}

impl Writer {
    fn start(path: &Path) -> Result<Writer> {
        let program = env::current_exe().map_err(Failure::io("find", "this program"))?;
        let mut child = Command::new(&program)
            .arg("demo-writer")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Failure::io("start", program))?;
        let rows = child.stdout.take().expect("standard output was asked to be a pipe");
        Ok(Writer { child, rows: BufReader::new(rows), line: String::new(), acknowledged: 0 })
    }

    /// Takes the next acknowledgement; false when there will be none.
    fn read_row(&mut self) -> Result<bool> {
        self.line.clear();
        let read = self.rows.read_line(&mut self.line);
        read.map_err(Failure::io("read", "the pipe from the writing process"))?;
        // What the kill cut off acknowledges nothing.
        let Some(number) = self.line.strip_suffix('\n') else { return Ok(false) };
        let next = self.acknowledged + 1;
        promise(number == next.to_string(), || format!("`{number}` came instead of {next}"))?;
        self.acknowledged = next;
        Ok(true)
    }

    /// Kills the process, and takes the acknowledgements that are still in the pipe.
    fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().map_err(Failure::io("kill", "the writing process"))?;
        let status = self.child.wait().map_err(Failure::io("wait for", "the writing process"))?;
        promise(!status.success(), || "the writing process ended by itself".to_owned())?;
        while self.read_row()? {}
        Ok(status)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reopen(path: &Path, acknowledged: u64, story: &mut Story<'_>) -> Result<()> {
    let started = Instant::now();
    let db = Options::new().open(path)?;
    let opening = started.elapsed();
    let replayed = db.stats().journal_bytes;
    story.say(format!(
        "Opened again in {:.1} ms, with {} of journal to replay.",
        opening.as_secs_f64() * 1e3,
        bytes(replayed),
    ))?;
    let stored = verify(&db, acknowledged)?;
    let check = db.check()?;
    promise(check.is_clean(), || format!("the check found {:?}", check.problems))?;
    story.say(format!(
        "All {} acknowledged rows are there, with their values; so are {} that were durable, but",
        grouped(acknowledged),
        stored - acknowledged,
    ))?;
    story.say("not told any more. The check finds no damage.")?;
    db.close()?;
    Ok(())
}

/// Compares every row; returns how many there are.
fn verify(db: &Database, acknowledged: u64) -> Result<u64> {
    let snapshot = db.read()?;
    let tree = snapshot.tree(TREE)?;
    let mut stored = 0;
    for entry in tree.iter() {
        let (key, value) = entry?;
        stored += 1;
        let holds =
            key.to_vec() == row_key(stored).as_bytes() && value == row_value(stored).as_bytes();
        promise(holds, || format!("row {stored} is not as it was acknowledged"))?;
    }
    promise(stored >= acknowledged, || {
        format!("{acknowledged} rows were acknowledged, {stored} are there")
    })?;
    Ok(stored)
}
