//! The engine's events on standard error, for `-v`: one line each, times from the start.
//!
//! Written here because spans, filters and colours are of no use to a command that runs for
//! seconds: without them, a subscriber is this file.

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
    time::Instant,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Prints events from now on: information with one `-v`, details with two, everything with three.
/// Without any, nothing: what matters comes back from the calls as an error, which is printed once.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let log = Log { level, started: Instant::now() };
    // Fails only when there is a subscriber already; this is called once.
    let _ = tracing::subscriber::set_global_default(log);
}

struct Log {
    level: Level,
    started: Instant,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let seconds = self.started.elapsed().as_secs_f64();
        let level = event.metadata().level().as_str().to_lowercase();
        // Events are extra: without standard error, there are none.
        let _ = writeln!(io::stderr(), "treepie: {seconds:.3} s {level}:{}", line.0);
    }

    // Spans are not shown; all of them may share one number.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event's message and fields, in the order in which they are given.
struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("a string takes everything");
    }
}
