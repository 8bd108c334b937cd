//! The `treepie` command: looks into, fills, checks and backs up databases, and demonstrates the
//! engine.
//!
//! `arguments` says what can be asked; one file of `commands` answers it; `failure` has the exit
//! codes, `notation` how bytes are written.

mod amounts;
mod arguments;
mod commands;
mod demo;
mod failure;
mod log;
mod new_file;
mod notation;
mod output;
mod place;
mod rows;
mod time;
mod unicode;
mod work;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use failure::Result;
use output::Output;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    log::start(arguments.verbose);
    let mut output = Output::new(arguments.json);
    match run(&arguments.command, &mut output).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // What was printed before, such as the list of problems, comes before the error. The
            // error says more than a failure to print that list would.
            let _ = output.flush();
            failure.print(arguments.json);
            ExitCode::from(failure.code())
        }
    }
}

fn run(command: &Command, output: &mut Output) -> Result<()> {
    match command {
        Command::Demo(arguments) => demo::run(arguments, output),
        Command::DemoWriter(arguments) => demo::writer::run(&arguments.db),
        Command::Load(arguments) => commands::load::run(arguments, output),
        Command::Get(arguments) => commands::entry::get(arguments, output),
        Command::Put(arguments) => commands::entry::put(arguments, output),
        Command::Delete(arguments) => commands::entry::delete(arguments, output),
        Command::Scan(arguments) => commands::scan::run(arguments, output),
        Command::Trees(arguments) => commands::trees::run(&arguments.db, output),
        Command::Report(arguments) => commands::report::run(&arguments.db, output),
        Command::Check(arguments) => match &arguments.repair {
            Some(target) => commands::repair::run(&arguments.db, target, output),
            None => commands::check::run(&arguments.db, output),
        },
        Command::Journal(arguments) => commands::journal::run(arguments, output),
        Command::Page(arguments) => commands::page::run(arguments, output),
        Command::Backup(arguments) => commands::backup::run(arguments, output),
        Command::Restore(arguments) => commands::restore::run(arguments, output),
        Command::Verify(arguments) => commands::verify::run(arguments, output),
        Command::Drill(arguments) => commands::restore::drill(arguments, output),
        Command::Snapshots(arguments) => commands::snapshots::run(arguments, output),
        Command::Archive(arguments) => commands::archive::run(arguments, output),
        Command::Prune(arguments) => commands::prune::run(arguments, output),
        Command::Squash(arguments) => commands::squash::run(arguments, output),
        Command::Rebuild(arguments) => commands::rebuild::run(arguments, output),
        Command::Forget(arguments) => commands::prune::forget(arguments, output),
        Command::Node(arguments) => commands::node::run(arguments, output),
        Command::Client(command) => commands::client::run(command, output),
        Command::Status(arguments) => commands::cluster::status(arguments, output),
        Command::Member(arguments) => commands::cluster::member(arguments, output),
        Command::Transfer(arguments) => commands::cluster::transfer(arguments, output),
    }
}

/// Help and version are printed as they are; errors as JSON when --json is among the arguments.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        failure::print_usage_error(&error.to_string());
    } else {
        // Nobody is left to tell that nobody is left to be told.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
