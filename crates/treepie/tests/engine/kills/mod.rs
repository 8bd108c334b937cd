//! Real kills: a child process under mixed load is killed at moments that nobody has chosen, again
//! and again, on one database that goes on growing old. After each kill it opens, is whole, and holds
//! what was acknowledged to this process, which nobody kills.
//!
//! A seed gives the moments only roughly. `TREEPIE_KILLS=<n>` kills so often, `TREEPIE_SEED=<n>` takes
//! another seed; a failure leaves the database where it is, and says where.

mod child;
mod work;

use std::{
    env,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use treepie::Database;
use treepie_testkit::{
    Rng,
    tally::{self, thousands},
};

use self::work::{Expected, WRITERS, counts, is_whole};
use crate::harness::{difference, folder};

/// How long a child may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Kills {
    /// How many kills.
    pub count: u64,
    /// Their seed.
    pub seed: u64,
    /// The child acknowledges commits before it writes them.
    pub is_early: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    kills: u64,
    commits: u64,
    /// Commits that were there and not acknowledged.
    unacknowledged: u64,
    opening: u64,
    checkpointing: u64,
    closing: u64,
}

/// Where a child is, by what it said last.
#[derive(Debug, Default)]
struct Progress {
    counts: [u64; WRITERS],
    acknowledged: u64,
    is_opening: bool,
    is_closing: bool,
    checkpoints: u64,
}

impl Progress {
    fn hear(&mut self, line: &str) {
        match line {
            "opening" => self.is_opening = true,
            "open" => self.is_opening = false,
            "closing" => self.is_closing = true,
            "closed" => self.is_closing = false,
            "checkpoint" => self.checkpoints += 1,
            "checkpointed" => self.checkpoints -= 1,
            line => self.hear_commit(line),
        }
    }

    fn hear_commit(&mut self, line: &str) {
        // Other lines are those of the test's harness.
        let Some(numbers) = line.strip_prefix("done ") else { return };
        let (writer, number) = numbers.split_once(' ').expect("a writer and a number");
        let writer: usize = writer.parse().expect("a writer");
        self.counts[writer] = number.parse().expect("a number");
        self.acknowledged += 1;
    }

    fn is_in(&self, phase: Phase) -> bool {
        match phase {
            Phase::Any => true,
            Phase::Opening => self.is_opening,
            Phase::Checkpoint => self.checkpoints > 0,
            Phase::Closing => self.is_closing,
        }
    }
}

/// What a child is doing.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Any,
    Opening,
    Checkpoint,
    Closing,
}

/// When a child is killed: when it has said so much, and some time after.
#[derive(Debug)]
struct Moment {
    acknowledged: u64,
    phase: Phase,
    after: Duration,
}

impl Moment {
    fn draw(rng: &mut Rng) -> Moment {
        let phases = [Phase::Any, Phase::Any, Phase::Opening, Phase::Checkpoint, Phase::Closing];
        let phase = *rng.pick(&phases);
        // The first opening replays what the kill before has left.
        let acknowledged = if matches!(phase, Phase::Opening) { 0 } else { rng.range(1..150) };
        let after = Duration::from_micros(rng.below(2_500));
        Moment { acknowledged: acknowledged as u64, phase, after }
    }

    fn has_come(&self, progress: &Progress) -> bool {
        progress.acknowledged >= self.acknowledged && progress.is_in(self.phase)
    }
}

/// A child, which is killed at the latest when this goes.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what they are for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills so often; returns what was done, or the first thing that is wrong.
pub fn run(kills: &Kills) -> Result<Done, String> {
    let dir = folder();
    let mut rng = Rng::new(kills.seed);
    let mut expected = Expected::default();
    let mut done = Done::default();
    for kill in 0..kills.count {
        let result = kill_once(kills, dir.path(), &mut rng, &mut done)
            .and_then(|progress| look(dir.path(), &progress, &mut expected, &mut done));
        if let Err(what) = result {
            let seed = kills.seed;
            let kept = if kills.is_early { String::new() } else { keep(dir) };
            return Err(format!(
                "kill {kill}: {what}{kept}\n\
                 again: TREEPIE_SEED={seed} cargo test -p treepie --test engine kills"
            ));
        }
    }
    done.commits = expected.counts.iter().sum();
    Ok(done)
}

fn keep(dir: tempfile::TempDir) -> String {
    format!("\nthe database is kept in {}", dir.keep().display())
}

/// Starts a child and kills it; returns what it has said.
fn kill_once(
    kills: &Kills,
    dir: &Path,
    rng: &mut Rng,
    done: &mut Done,
) -> Result<Progress, String> {
    let moment = Moment::draw(rng);
    let errors = dir.join("stderr");
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command
        .args(["--exact", "kills::child::process_that_is_killed", "--nocapture"])
        .env(child::PATH, dir.join("db"))
        .env(child::SEED, rng.next_u64().to_string())
        .stdout(Stdio::piped())
        .stderr(File::create(&errors).expect("a file"));
    if kills.is_early {
        command.env(child::EARLY, "1");
    }
    let mut child = Killed(command.spawn().expect("a child process"));
    let lines = listen(&mut child.0);
    let mut progress = Progress::default();
    if !wait_for(&moment, &lines, &mut progress) {
        let said = fs::read_to_string(&errors).unwrap_or_default();
        return Err(format!("the process ended by itself, or hangs: {said}"));
    }
    child.0.kill().expect("a kill");
    child.0.wait().expect("an end");
    // What is still in the pipe was acknowledged too.
    lines.iter().for_each(|line| progress.hear(&line));
    done.kills += 1;
    done.opening += u64::from(progress.is_opening);
    done.closing += u64::from(progress.is_closing);
    done.checkpointing += u64::from(progress.checkpoints > 0);
    Ok(progress)
}

/// The lines of a child, as they come.
fn listen(child: &mut Child) -> Receiver<String> {
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut line = String::new();
        while out.read_line(&mut line).is_ok() {
            // What the kill cut off acknowledges nothing.
            let Some(whole) = line.strip_suffix('\n') else { return };
            if sender.send(whole.to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}

/// Waits for the moment; false when the child ends before, or says nothing for long.
fn wait_for(moment: &Moment, lines: &Receiver<String>, progress: &mut Progress) -> bool {
    while !moment.has_come(progress) {
        let Ok(line) = lines.recv_timeout(SILENCE_MAX) else { return false };
        progress.hear(&line);
    }
    let until = Instant::now() + moment.after;
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => progress.hear(&line),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Opens what a kill has left, and compares it with what was acknowledged.
fn look(
    dir: &Path,
    progress: &Progress,
    expected: &mut Expected,
    done: &mut Done,
) -> Result<(), String> {
    let text = |error: treepie::Error| error.to_string();
    let options = child::options().background_threads(false).checkpoint_on_close(false);
    let db: Database = options.open(dir.join("db")).map_err(|error| format!("opening: {error}"))?;
    let report = db.check().map_err(text)?;
    if let Some(problem) = report.problems.first() {
        return Err(format!("check finds {problem}"));
    }
    let snapshot = db.read().map_err(text)?;
    let found = counts(&snapshot).map_err(text)?;
    for (writer, found) in found.iter().enumerate() {
        let floor = progress.counts[writer].max(expected.counts[writer]);
        if *found < floor {
            return Err(format!(
                "writer {writer}: commit {floor} was acknowledged, {found} is the last"
            ));
        }
        done.unacknowledged += found - floor;
    }
    expected.advance_to(&found);
    match difference(&snapshot, &expected.state).map_err(text)? {
        Some(difference) => Err(difference),
        None if !is_whole(&snapshot).map_err(text)? => Err("a commit is there in part".to_owned()),
        None => Ok(()),
    }
}

#[test]
fn acknowledged_commits_survive_200_kills_under_mixed_load() {
    const KILLS: u64 = 200;
    let number = |name| env::var(name).ok().and_then(|text| text.parse().ok());
    let begin = Instant::now();
    let seed = number("TREEPIE_SEED").unwrap_or(1);
    let kills = Kills { count: number("TREEPIE_KILLS").unwrap_or(KILLS), seed, is_early: false };
    let done = run(&kills).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    let counts = format!(
        "{} kills of {} commits ({} of them unacknowledged): {} while opening, {} in checkpoints, \
         {} while closing; {:.0} s",
        done.kills,
        thousands(done.commits),
        done.unacknowledged,
        done.opening,
        done.checkpointing,
        done.closing,
        begin.elapsed().as_secs_f64()
    );
    tally::note(9, "real kills", &counts);
    if done.kills >= KILLS {
        assert!(done.opening >= 10, "{done:?}");
        assert!(done.checkpointing >= 20, "{done:?}");
    }
}
