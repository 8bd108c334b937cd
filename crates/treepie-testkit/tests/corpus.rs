//! The inputs that the fuzz targets begin with, and those of the corpus that they have left behind,
//! replayed without a fuzzer: all of them end, none of them panics.

use std::{
    fs,
    io::{self, Write},
    panic,
    path::PathBuf,
    process,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use treepie_testkit::{
    hostile::{Target, seeds},
    tally,
};

/// How long one input may take: the slowest takes less than a second where nothing else runs.
const TIME_MAX: Duration = Duration::from_secs(120);

/// Inputs that the corpus has at least; it has a good deal more.
fn least(target: Target) -> usize {
    match target.name() {
        "journal_tail" | "snapshot_stream" | "wire_frame" => 40,
        _ => 150,
    }
}

fn corpus(target: Target) -> Vec<(String, Vec<u8>)> {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name());
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus is a part of the repository")
        .map(|file| file.expect("the corpus is a folder of files").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a file of the corpus")))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= least(target), "{} files in {}", inputs.len(), folder.display());
    inputs
}

/// Listens to names of inputs as they begin; returns the one after which nothing came for `time_max`.
fn hanging(begun: &Receiver<String>, time_max: Duration) -> Option<String> {
    let mut current = "none".to_owned();
    loop {
        match begun.recv_timeout(time_max) {
            Ok(name) => current = name,
            Err(RecvTimeoutError::Timeout) => return Some(current),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Ends the process when an input does not end: nothing else stops a thread. The message does not go
/// through what captures a test's output.
fn watch(target: Target, begun: &Receiver<String>) {
    if let Some(name) = hanging(begun, TIME_MAX) {
        let told = format!("{}: {name} has not ended in {TIME_MAX:?}\n", target.name());
        let _ = io::stderr().write_all(told.as_bytes());
        process::abort();
    }
}

fn replay(target: Target) -> usize {
    let made = seeds(target).into_iter().enumerate();
    let mut inputs: Vec<_> = made.map(|(n, bytes)| (format!("seed {n}"), bytes)).collect();
    inputs.extend(corpus(target));
    let (begin, begun) = mpsc::channel();
    let watching = thread::spawn(move || watch(target, &begun));
    let panics = |(name, bytes): &&(String, Vec<u8>)| {
        begin.send(name.clone()).expect("the watching thread listens until the end");
        panic::catch_unwind(|| target.run(bytes)).is_err()
    };
    let failed: Vec<&String> = inputs.iter().filter(panics).map(|(name, _)| name).collect();
    drop(begin);
    watching.join().expect("it watches");
    assert!(failed.is_empty(), "{} panics with {failed:?}", target.name());
    inputs.len()
}

#[test]
fn every_input_of_the_corpus_ends_without_a_panic() {
    let begin = |target: &Target| {
        (
            *target,
            thread::spawn({
                let target = *target;
                move || replay(target)
            }),
        )
    };
    let threads: Vec<_> = Target::ALL.iter().map(begin).collect();
    let counts = threads.into_iter().map(|(target, thread)| match thread.join() {
        Ok(count) => format!("{} {count}", target.name()),
        Err(panic) => panic::resume_unwind(panic),
    });
    let counts: Vec<String> = counts.collect();
    tally::note(8, "fuzz: corpus replayed", &counts.join(", "));
}

#[test]
fn an_input_that_does_not_end_is_named() {
    let (begin, begun) = mpsc::channel();
    for name in ["first", "second"] {
        begin.send(name.to_owned()).expect("it is listened to");
    }
    assert_eq!(hanging(&begun, Duration::ZERO).as_deref(), Some("second"));
    drop(begin);
    assert_eq!(hanging(&begun, Duration::ZERO), None, "all have ended");
}
