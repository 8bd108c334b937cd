//! The inputs that the fuzz targets begin with, and those of the corpus that they have left behind,
//! replayed without a fuzzer: all of them end, none of them panics.

use std::{fs, panic, path::PathBuf, thread};

use treepie_testkit::{
    hostile::{Target, seeds},
    tally,
};

fn corpus(target: Target) -> Vec<(String, Vec<u8>)> {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name());
    let Ok(files) = fs::read_dir(&folder) else { return Vec::new() };
    let mut inputs: Vec<_> = files
        .map(|file| file.expect("the corpus is a folder of files").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("a file of the corpus")))
        .collect();
    inputs.sort();
    inputs
}

fn replay(target: Target) -> usize {
    let made = seeds(target).into_iter().enumerate();
    let mut inputs: Vec<_> = made.map(|(n, bytes)| (format!("seed {n}"), bytes)).collect();
    inputs.extend(corpus(target));
    let panics =
        |(_, bytes): &&(String, Vec<u8>)| panic::catch_unwind(|| target.run(bytes)).is_err();
    let failed: Vec<&String> = inputs.iter().filter(panics).map(|(name, _)| name).collect();
    assert!(failed.is_empty(), "{} panics with {failed:?}", target.name());
    inputs.len()
}

#[test]
fn every_input_of_the_corpus_ends_without_a_panic() {
    let threads = Target::ALL.map(|target| (target, thread::spawn(move || replay(target))));
    let counts = threads.map(|(target, thread)| match thread.join() {
        Ok(count) => format!("{} {count}", target.name()),
        Err(panic) => panic::resume_unwind(panic),
    });
    tally::note(8, "fuzz: corpus replayed", &counts.join(", "));
}
