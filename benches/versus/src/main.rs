//! The same work on Treepie and other engines, in one run.
//!
//! Figures of different runs do not compare: disks and neighbours change by the minute. So the
//! engines take turns, round by round, in one process, and what counts is the ratio of medians.
//!
//! ```sh
//! cargo run --release -- --entries 500000 --rounds 3 --json figures.jsonl
//! ```

mod combiner;
mod contest;
mod data;
mod device;
mod engine;
mod engines;
mod lane;
mod measure;
#[cfg(test)]
mod memory;
mod options;
mod plot;
mod report;
mod workloads;

use std::{error::Error, fs, process::ExitCode};

use clap::Parser;

use crate::{contest::Contest, options::Options, workloads::group};

/// Result of everything here: a benchmark only reports its errors.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    if let Some(engine) = &options.write_until_killed {
        return contest::write_until_killed(&options, engine);
    }
    if let Some(engine) = &options.measure_backup {
        return contest::measure_backup(&options, engine);
    }
    if options.list {
        print!("{}", group::list());
        return Ok(());
    }
    let plot_path = options.plot.clone();
    let report = Contest::new(options)?.run()?;
    print!("{}", report.table());
    if let Some(path) = plot_path {
        let svg = plot::svg(&report.series()).ok_or("no workload of the plot was run")?;
        fs::write(path, svg)?;
    }
    Ok(())
}
