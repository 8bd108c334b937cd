//! Opening a database whose process was killed (SIGKILL) while it committed.
//!
//! The process is this program itself, started once more. It loads the entries, commits some
//! single puts, says so, and goes on committing until it is killed.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::ValueEnum;

use crate::{
    Result,
    contest::Context,
    engine::{Engine, Tally, View},
    measure::{Figure, Limit, Unit},
    workloads::{load, write::Writer},
};

const READY: &str = "ready";
/// Commits before the process says that it may be killed.
const COMMITS_BEFORE_READY: u64 = 200;
/// Should its parent be gone, the process ends by itself after this time.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Kills a writer, then times opening and a first get.
pub fn open_after_kill<E: Engine>(dir: &Path, context: &Context) -> Result<Vec<Figure>> {
    let mut writer = spawn::<E>(dir, context)?;
    let ready = wait_until_ready(&mut writer);
    writer.kill()?;
    writer.wait()?;
    ready?;

    let start = Instant::now();
    let engine = E::open(dir, context.setup)?;
    let mut key = Vec::new();
    killed_context(context).entries.key(0, &mut key);
    let found = engine.read(|view| view.get(&key, &mut Tally::default()))?;
    let elapsed = start.elapsed();
    engine.close()?;
    if !found {
        return Err("an entry did not survive".into());
    }
    let milliseconds = elapsed.as_secs_f64() * 1e3;
    Ok(vec![Figure::new("open-after-kill", milliseconds, Unit::Milliseconds)])
}

fn spawn<E: Engine>(dir: &Path, context: &Context) -> Result<Child> {
    let options = &context.options;
    let keys = options.keys.to_possible_value().ok_or("the key shape has no name")?;
    let mut command = Command::new(env::current_exe()?);
    command.args(["--write-until-killed", E::NAME, "--keys", keys.get_name()]);
    command.arg("--dir").arg(dir);
    for (flag, value) in [
        ("--kill-entries", options.kill_entries),
        ("--load-batch", options.load_batch),
        ("--key-len", u64::from(options.key_len)),
        ("--value-len", options.value_len as u64),
        ("--cache-mib", options.cache_mib as u64),
        ("--page-size", options.page_size as u64),
        ("--seed", options.seed),
    ] {
        command.arg(flag).arg(value.to_string());
    }
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}

fn wait_until_ready(writer: &mut Child) -> Result<()> {
    let output = writer.stdout.take().ok_or("the writer has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    if line.trim_end() == READY { Ok(()) } else { Err("the writer ended too early".into()) }
}

/// What the process does that is to be killed.
pub fn write_until_killed<E: Engine>(dir: &Path, context: &Context) -> Result<()> {
    let context = killed_context(context);
    let engine = E::open(dir, context.setup)?;
    load::fill_randomly(&engine, context.entries, context.options.load_batch)?;
    let mut writer = Writer::new(&context, 0, 0);
    let turn = Limit { time: WAIT_MAX, count: u64::MAX }.start();
    let mut commits = 0;
    while turn.goes_on(commits) {
        writer.put(&engine, 1)?;
        commits += 1;
        if commits == COMMITS_BEFORE_READY {
            let mut output = std::io::stdout().lock();
            writeln!(output, "{READY}")?;
            output.flush()?;
        }
    }
    Err("nobody killed this process".into())
}

fn killed_context(context: &Context) -> Context {
    let mut context = context.clone();
    context.entries.count = context.options.kill_entries;
    context
}
