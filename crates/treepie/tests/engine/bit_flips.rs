//! Every single bit of a small database, data and journal, is flipped, one at a time: opening and
//! reading everything gives an error or the same answers; never a panic, never a wrong answer.
//!
//! One thing may differ without an error: a flip inside the very last record of the journal cannot
//! be told from a write that a power cut tore, so that record may be dropped, and the state is that
//! of one LSN earlier. (The record with what was written together with it, that is: from the beginning
//! of its first block; from that of the segment, where it is the first one there, because the header
//! goes out in the same write.) Nothing else may be dropped.
//!
//! That is done to the smallest databases that are real ones: checkpointed, and with records to
//! replay. Of larger ones, with more kinds of pages, all bits are flipped but those of 16-byte pieces
//! that are zero (free space, unwritten journal), where it is one in each, never the same one twice in
//! a row; `TREEPIE_ALL_BITS=1` flips the others too, which takes some minutes.

use std::{
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use treepie::{Compression, Database, Error, Options, Snapshot, ids::Lsn};
use treepie_testkit::{
    SimDisk,
    model::{Entries, Model, State},
    tally,
    workload::Op,
};

use crate::harness::{self, DIR, insert, new_model, options, remove};

/// Bytes of a block of the journal: the first one of a segment is its header.
const BLOCK: u64 = 4096;

/// A database at rest, and what is known of it.
struct Rest {
    disk: SimDisk,
    /// What it is opened with, but for the disk.
    options: Options,
    model: Model,
    /// Where the last write to the journal lies, if it was not checkpointed: file and bytes.
    last_write: Option<(PathBuf, Range<u64>)>,
}

/// Ends of the flips, counted.
#[derive(Default)]
struct Counts {
    flips: AtomicUsize,
    refused: AtomicUsize,
    read_errors: AtomicUsize,
    unclean: AtomicUsize,
    torn: AtomicUsize,
    harmless: AtomicUsize,
}

/// Which bits of zeros are flipped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zeros {
    EveryBit,
    OneInSixteenBytes,
}

fn small(disk: &SimDisk) -> Options {
    // The bytes of a reserve mean nothing.
    let options = options(disk).map_size(1 << 20).journal_reserve(0);
    options.compression(Compression::Off).checkpoint_on_close(false)
}

/// A tree of one leaf, changed by a few commits.
fn smallest_scripts() -> Vec<Vec<Op>> {
    vec![
        vec![insert("birds", "pica pica", b"magpie"), insert("birds", "garrulus", b"jay")],
        vec![remove("birds", "garrulus"), insert("birds", "corvus corax", b"raven")],
        vec![insert("birds", "pica pica", b"Eurasian magpie")],
    ]
}

fn scripts() -> Vec<Vec<Op>> {
    vec![
        vec![
            insert("birds", "pica pica", b"magpie"),
            insert("birds", "garrulus", b"jay"),
            insert("large", "photo", &[0xa5; 5000]),
        ],
        vec![insert("birds", "corvus corax", b"raven"), insert("rocks", "granite", &[1; 200])],
        vec![remove("birds", "garrulus"), insert("large", "map", &[0x5a; 4500])],
        vec![insert("birds", "pyrrhocorax", b"chough"), insert("rocks", "basalt", b"")],
    ]
}

/// Commits the scripts; the first `checkpointed` of them are in the data file, which is as short as
/// closing makes it.
fn rest(scripts: &[Vec<Op>], checkpointed: usize) -> Rest {
    let disk = SimDisk::new(1);
    let options = small(&disk).create(false);
    let mut model = new_model();
    let (before, after) = scripts.split_at(checkpointed);
    let db = small(&disk).checkpoint_on_close(true).open(DIR).expect("a new database opens");
    commit_all(&db, before, &mut model);
    db.close().expect("closing checkpoints, and shortens the file");
    if after.is_empty() {
        return Rest { disk: disk.settled(2), options, model, last_write: None };
    }
    let db = small(&disk).open(DIR).expect("it opens again");
    commit_all(&db, after, &mut model);
    let last = db.journal_records(Lsn(0)).expect("the journal is read").last();
    let last = last.expect("records are there").expect("the last one is whole");
    drop(db);
    let block = last.offset / BLOCK * BLOCK;
    let start = if block == BLOCK { 0 } else { block };
    let last_write = Some((last.file, start..last.offset + last.stored_len));
    Rest { disk: disk.settled(2), options, model, last_write }
}

fn commit_all(db: &Database, scripts: &[Vec<Op>], model: &mut Model) {
    for ops in scripts {
        model.commit(harness::write(db, ops).expect("a commit"), ops);
    }
}

/// The files, and the bits to flip: number of the file, and of the bit in it.
fn places(rest: &Rest, zeros: Zeros) -> (Vec<PathBuf>, Vec<(usize, u64)>) {
    let all = zeros == Zeros::EveryBit || env::var_os("TREEPIE_ALL_BITS").is_some();
    let mut places = Vec::new();
    let mut files = Vec::new();
    for path in rest.disk.file_paths() {
        let bytes = rest.disk.file_bytes(&path).expect("it is there");
        for (number, piece) in bytes.chunks(16).enumerate() {
            let is_zero = piece.iter().all(|byte| *byte == 0);
            for bit in 0..piece.len() * 8 {
                if all || !is_zero || bit == number % 128 {
                    places.push((files.len(), (number * 128 + bit) as u64));
                }
            }
        }
        files.push(path);
    }
    (files, places)
}

fn flip_all(name: &str, rest: &Rest, zeros: Zeros) {
    let begin = Instant::now();
    let (files, places) = places(rest, zeros);
    let counts = Counts::default();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&(file, bit)) = places.get(next.fetch_add(1, Relaxed)) {
                    flip(rest, &files[file], bit, &counts);
                }
            });
        }
    });
    println!(
        "{name}: {} flips in {:.1} s: {} refused, {} read errors, {} found by check alone, {} torn \
         tails, {} harmless",
        counts.flips.load(Relaxed),
        begin.elapsed().as_secs_f64(),
        counts.refused.load(Relaxed),
        counts.read_errors.load(Relaxed),
        counts.unclean.load(Relaxed),
        counts.torn.load(Relaxed),
        counts.harmless.load(Relaxed),
    );
    let flips = tally::thousands(counts.flips.load(Relaxed) as u64);
    tally::note(5, "bit rot: flipped bits", &format!("{flips} of a database, {name}"));
    assert_eq!(counts.flips.load(Relaxed), places.len(), "{name}");
    // Flips that change nothing would all be harmless.
    assert!(counts.refused.load(Relaxed) > 1_000, "{name}: too few flips kept it from opening");
    let found = counts.read_errors.load(Relaxed) + counts.unclean.load(Relaxed);
    assert!(found > 1_000, "{name}: too few flips were found by reading");
}

fn flip(rest: &Rest, path: &Path, bit: u64, counts: &Counts) {
    let disk = rest.disk.settled(3);
    disk.flip_bit(path, bit);
    let context = || format!("{}: bit {} of byte {}", path.display(), bit % 8, bit / 8);
    let result = catch_unwind(AssertUnwindSafe(|| open_and_read(rest, &disk, path, bit)));
    let outcome = result.unwrap_or_else(|_| panic!("{}: a panic", context()));
    let counter = match outcome.unwrap_or_else(|what| panic!("{}: {what}", context())) {
        Outcome::Refused => &counts.refused,
        Outcome::ReadError => &counts.read_errors,
        Outcome::Unclean => &counts.unclean,
        Outcome::Torn => &counts.torn,
        Outcome::Harmless => &counts.harmless,
    };
    counter.fetch_add(1, Relaxed);
    counts.flips.fetch_add(1, Relaxed);
}

/// What became of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It could not be opened.
    Refused,
    /// Something could not be read.
    ReadError,
    /// Everything could be read, and a check found it.
    Unclean,
    /// The last record was dropped.
    Torn,
    /// Nothing depends on it.
    Harmless,
}

fn open_and_read(rest: &Rest, disk: &SimDisk, path: &Path, bit: u64) -> Result<Outcome, String> {
    let options = rest.options.clone().disk(Arc::new(disk.clone()));
    let db = match options.open(DIR) {
        Ok(db) => db,
        Err(error) => return refused(error),
    };
    let snapshot = db.read().map_err(|error| format!("no snapshot: {error}"))?;
    let (lsn, newest) = (snapshot.lsn().0, rest.model.lsn());
    let torn = lsn != newest;
    if torn {
        let byte = bit / 8;
        let in_last = (rest.last_write.as_ref())
            .is_some_and(|(file, bytes)| file == path && bytes.contains(&byte));
        if lsn + 1 != newest || !in_last {
            return Err(format!("opened at LSN {lsn} of {newest}, without an error"));
        }
    }
    let state = rest.model.at(lsn).expect("the model keeps everything");
    let complete = read_everything(&snapshot, state)?;
    let clean = is_clean(&db)?;
    if clean && !complete {
        return Err("check is clean, but something cannot be read".to_owned());
    }
    Ok(match (complete, clean, torn) {
        (false, ..) => Outcome::ReadError,
        (_, false, _) => Outcome::Unclean,
        (_, _, true) => Outcome::Torn,
        _ => Outcome::Harmless,
    })
}

pub fn refused(error: Error) -> Result<Outcome, String> {
    match error {
        Error::Corrupt { .. } | Error::JournalGap { .. } | Error::NotADatabase { .. } => {
            Ok(Outcome::Refused)
        }
        other => Err(format!("refused for the wrong reason: {other:?}")),
    }
}

fn is_clean(db: &Database) -> Result<bool, String> {
    db.check().map(|report| report.is_clean()).map_err(|error| format!("no check: {error}"))
}

/// Whether everything could be read; what was read is right, or this is an error.
pub fn read_everything(snapshot: &Snapshot, state: &State) -> Result<bool, String> {
    let mut complete = true;
    match snapshot.trees() {
        Ok(trees) => {
            let found = trees.iter().map(|info| &info.name[..]).filter(|n| !n.starts_with(b"$"));
            if !found.eq(state.trees().map(|(name, _)| name)) {
                return Err("other trees are listed".to_owned());
            }
        }
        Err(_) => complete = false,
    }
    for (name, entries) in state.trees() {
        match snapshot.tree(name) {
            Ok(tree) => {
                let read = read_tree(&tree, entries);
                complete &= read.map_err(|e| format!("tree {}: {e}", name.escape_ascii()))?;
            }
            Err(Error::UnknownTree { .. }) => return Err("a tree is not found".to_owned()),
            Err(_) => complete = false,
        }
    }
    Ok(complete)
}

fn read_tree(tree: &treepie::Tree<'_>, entries: &Entries) -> Result<bool, String> {
    if tree.len() != entries.len() as u64 {
        return Err(format!("{} entries instead of {}", tree.len(), entries.len()));
    }
    let mut complete = true;
    for (key, value) in entries {
        match tree.get(key) {
            Ok(found) if found == Some(&**value) => {}
            Ok(found) => return Err(format!("another value: {:?} bytes", found.map(<[u8]>::len))),
            Err(_) => complete = false,
        }
    }
    complete &= same_entries(tree.iter(), entries.iter())?;
    complete &= same_entries(tree.iter().rev(), entries.iter().rev())?;
    Ok(complete)
}

/// Whether the entries came without an error; up to one they must be those of the model.
fn same_entries<'a, 's>(
    mut found: impl Iterator<Item = treepie::Result<(treepie::Key<'s>, &'s [u8])>>,
    model: impl Iterator<Item = (&'a Vec<u8>, &'a Arc<[u8]>)>,
) -> Result<bool, String> {
    for (key, value) in model {
        match found.next() {
            Some(Ok((k, v))) if k == key[..] && *v == **value => {}
            Some(Ok((k, _))) => return Err(format!("another entry: {k}")),
            Some(Err(_)) => return Ok(false),
            None => return Err("entries are missing".to_owned()),
        }
    }
    match found.next() {
        None => Ok(true),
        Some(Err(_)) => Ok(false),
        Some(Ok((key, _))) => Err(format!("one entry too many: {key}")),
    }
}

#[test]
fn every_flipped_bit_of_the_smallest_database_with_records_to_replay_is_found_or_harmless() {
    flip_all("smallest, to replay", &rest(&smallest_scripts(), 1), Zeros::EveryBit);
}

#[test]
fn every_flipped_bit_of_the_smallest_checkpointed_database_is_found_or_harmless() {
    flip_all("smallest, checkpointed", &rest(&smallest_scripts(), 3), Zeros::EveryBit);
}

/// Here the header of the newest segment was written together with the last record.
#[test]
fn any_flipped_bit_of_a_database_with_one_record_to_replay_is_found_or_harmless() {
    flip_all("one record", &rest(&smallest_scripts(), 2), Zeros::OneInSixteenBytes);
}

#[test]
fn any_flipped_bit_of_a_database_with_records_to_replay_is_found_or_harmless() {
    flip_all("half checkpointed", &rest(&scripts(), 2), Zeros::OneInSixteenBytes);
}

#[test]
fn any_flipped_bit_of_a_checkpointed_database_is_found_or_harmless() {
    flip_all("checkpointed", &rest(&scripts(), 4), Zeros::OneInSixteenBytes);
}

#[test]
fn any_flipped_bit_of_a_database_that_was_just_created_is_found_or_harmless() {
    flip_all("just created", &rest(&scripts(), 0), Zeros::OneInSixteenBytes);
}
