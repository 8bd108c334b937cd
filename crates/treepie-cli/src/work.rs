//! Long works: how far they are stands on standard error, signals end them in order.

use std::{
    io::{self, IsTerminal},
    path::Path,
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};
use treepie_snapshot::{CancelToken, Control, Key, Keys, Progress, ReadOptions, StreamOptions};

use crate::{
    arguments::backup::{Pace, ReadKeys, Writing},
    failure::{Failure, Result},
    output,
};

/// A long work.
pub struct Work {
    cancel: CancelToken,
    bar: Option<ProgressBar>,
}

impl Work {
    /// Begins one. From now on the first signal cancels it, and a second one ends the process.
    pub fn begin() -> Result<Work> {
        let cancel = CancelToken::new();
        let token = cancel.clone();
        let mut signals =
            Signals::new([SIGINT, SIGTERM]).map_err(Failure::io("wait for", "signals"))?;
        let waiting = move || {
            for signal in signals.forever() {
                if token.is_cancelled() {
                    // Returns only for signals that nobody can handle.
                    let _ = low_level::emulate_default_handler(signal);
                }
                token.cancel();
            }
        };
        let thread = thread::Builder::new().name("signals".to_owned()).spawn(waiting);
        thread.map_err(Failure::io("start", "a thread"))?;
        let bar = io::stderr().is_terminal().then(|| ProgressBar::new(0).with_style(style(false)));
        Ok(Work { cancel, bar })
    }

    /// What is cancelled by a signal.
    pub fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    /// A control that shows progress, and that signals cancel.
    pub fn control(&self, pace: &Pace) -> Control {
        self.unstoppable(pace).cancel(&self.cancel)
    }

    /// A control that shows progress, for what goes on after a signal until it is complete.
    pub fn unstoppable(&self, pace: &Pace) -> Control {
        let mut control = Control::new();
        if let Some(rate) = pace.rate {
            control = control.rate(rate);
        }
        match self.bar.clone() {
            Some(bar) => control.progress(move |progress| show(&bar, progress)),
            None => control,
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(has_total: bool) -> ProgressStyle {
    let template = match has_total {
        true => "{wide_bar} {bytes}/{total_bytes}, {msg}",
        false => "{spinner} {bytes}, {msg}",
    };
    ProgressStyle::with_template(template).expect("the template is well-formed")
}

fn show(bar: &ProgressBar, progress: &Progress) {
    if let Some(total) = progress.bytes_total
        && bar.length() != Some(total)
    {
        bar.set_style(style(true));
        bar.set_length(total);
    }
    let left =
        progress.remaining.map_or_else(String::new, |left| format!(", {} s left", left.as_secs()));
    bar.set_message(format!("{}/s{left}", output::bytes(progress.rate)));
    bar.set_position(progress.bytes_done);
}

/// How streams are written that arguments ask for.
pub fn stream_options(writing: &Writing, key: Option<&Path>) -> Result<StreamOptions> {
    let mut options = StreamOptions::new().level(writing.level);
    if let Some(threads) = writing.threads {
        options = options.threads(usize::from(threads));
    }
    match key {
        Some(key) => Ok(options.key(Key::from_file(key)?)),
        None => Ok(options),
    }
}

/// How streams are read that arguments ask for.
pub fn read_options(keys: &ReadKeys) -> Result<ReadOptions> {
    let mut found = Vec::with_capacity(keys.keys.len());
    for file in &keys.keys {
        found.push(Key::from_file(file)?);
    }
    let options = ReadOptions::new();
    Ok(match found.len() {
        0 => options,
        // A single one is tried whatever its id is, and then found to be the wrong one.
        1 => options.keys(found.remove(0)),
        _ => options.keys(Keys::by_id(move |id| found.iter().find(|key| key.id() == *id).cloned())),
    })
}
