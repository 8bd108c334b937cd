//! Sectors that a disk puts in the wrong place, keeps back, swaps, loses or fills with noise, in data
//! file and journal: found, with file, offset, page and owner, or harmless; never a wrong answer.
//!
//! One thing no checksum tells: a whole page that is an earlier version of itself, because the disk
//! lost all of a write that it had acknowledged. Reading may serve it. A test of its own counts how
//! often, and what finds it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use treepie::{Compression, Database, Error, Options, ids::Lsn};
use treepie_testkit::{
    Rng, SimDisk, mix,
    model::Model,
    tally,
    workload::{Op, Shape, Step, generate},
};

use crate::{
    bit_flips::{Outcome, read_everything, refused},
    harness::{self, DIR, for_seeds, new_model, options, seeds},
};

const DATA: &str = "/db/data";
/// Databases, and cases of each.
const SEEDS: u64 = 560;
const CASES: u64 = 250;
/// Bytes of a block of the journal.
const BLOCK: usize = 4096;
/// Pages of the longest run that the workload makes.
const RUN_PAGES_MAX: usize = 6;

/// A database at rest, its files at an earlier time, and what is known of it.
struct Rest {
    disk: SimDisk,
    options: Options,
    page_size: usize,
    files: Vec<(PathBuf, Vec<u8>)>,
    earlier: SimDisk,
    model: Model,
    /// Where the last write to the journal lies: file and bytes.
    last_write: (PathBuf, std::ops::Range<usize>),
    /// Whether the newest meta page vouches for it.
    is_checkpointed: bool,
}

/// What happens to sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Zeroed,
    Noise,
    /// As it was at an earlier time.
    Stale,
    /// A copy of another sector of the same file.
    Misdirected,
    /// A copy of a sector of another file.
    Foreign,
    Swapped,
}

const FAULTS: [Fault; 6] =
    [Fault::Zeroed, Fault::Noise, Fault::Stale, Fault::Misdirected, Fault::Foreign, Fault::Swapped];

/// A damaged range of a file.
#[derive(Clone, Debug)]
struct Hit {
    path: PathBuf,
    start: usize,
    len: usize,
}

/// Ends of the cases, counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    cases: u64,
    refused: u64,
    read_errors: u64,
    by_check: u64,
    torn: u64,
    harmless: u64,
    wrong: u64,
    /// Left out: the damage made a page an earlier one, whole and valid.
    left_out: u64,
}

impl Counts {
    fn add(&mut self, outcome: Outcome) {
        self.cases += 1;
        *match outcome {
            Outcome::Refused => &mut self.refused,
            Outcome::ReadError => &mut self.read_errors,
            Outcome::Unclean => &mut self.by_check,
            Outcome::Torn => &mut self.torn,
            Outcome::Harmless => &mut self.harmless,
        } += 1;
    }

    fn sum(all: &[Counts]) -> Counts {
        all.iter().fold(Counts::default(), |sum, counts| Counts {
            cases: sum.cases + counts.cases,
            refused: sum.refused + counts.refused,
            read_errors: sum.read_errors + counts.read_errors,
            by_check: sum.by_check + counts.by_check,
            torn: sum.torn + counts.torn,
            harmless: sum.harmless + counts.harmless,
            wrong: sum.wrong + counts.wrong,
            left_out: sum.left_out + counts.left_out,
        })
    }
}

fn small(disk: &SimDisk, page_size: usize) -> Options {
    options(disk).page_size(page_size).map_size(1 << 20).compression(Compression::Off)
}

/// Three parts of a workload, each ended by closing; the last one is checkpointed, or to be replayed.
fn rest(seed: u64) -> Rest {
    let page_size = if seed.is_multiple_of(2) { 4096 } else { 8192 };
    let is_checkpointed = (seed / 2).is_multiple_of(2);
    let shape = Shape {
        steps: 12,
        ops_max: 30,
        keys: 150,
        page_size,
        value_pages_max: 3,
        checkpoint_every: 0,
        reopen_every: 0,
        ..Shape::default()
    };
    let disk = SimDisk::new(seed);
    let mut model = new_model();
    let mut earlier = None;
    let mut last = None;
    for part in 0..3 {
        let ends_checkpointed = part < 2 || is_checkpointed;
        let db = small(&disk, page_size).checkpoint_on_close(ends_checkpointed).open(DIR);
        let db = db.expect("a database opens");
        for step in generate(mix(seed, part), &shape) {
            if let Step::Write(ops) = step {
                commit(&db, &ops, &mut model);
            }
        }
        last = db.journal_records(Lsn(0)).expect("the journal is read").last();
        db.close().expect("closing");
        earlier = if part == 1 { Some(disk.settled(1)) } else { earlier };
    }
    let last = last.expect("records are there").expect("the last one is whole");
    let start = last.offset as usize / BLOCK * BLOCK;
    let start = if start == BLOCK { 0 } else { start };
    let last_write = (last.file, start..(last.offset + last.stored_len) as usize);
    let files = disk.file_paths().into_iter().map(|path| {
        let bytes = disk.file_bytes(&path).expect("it is there");
        (path, bytes)
    });
    Rest {
        files: files.filter(|(_, bytes)| !bytes.is_empty()).collect(),
        options: small(&disk, page_size).create(false).checkpoint_on_close(false),
        page_size,
        disk: disk.settled(2),
        earlier: earlier.expect("there were three parts"),
        model,
        last_write,
        is_checkpointed,
    }
}

fn commit(db: &Database, ops: &[Op], model: &mut Model) {
    model.commit(harness::write(db, ops).expect("a commit"), ops);
}

impl Rest {
    fn file(&self, path: &Path) -> &[u8] {
        let found = self.files.iter().find(|(name, _)| name == path);
        found.map_or(&[], |(_, bytes)| bytes)
    }

    /// Damages a copy of the files; returns the disk, and where bytes differ.
    fn damage(&self, rng: &mut Rng, fault: Fault) -> (SimDisk, Vec<Hit>) {
        let size = if rng.chance(1, 2) { 512 } else { 4096 };
        let mut files = self.files.clone();
        let mut places = Vec::new();
        for _ in 0..rng.range(1..4) {
            // Files of the journal are many and small: half of the hits are theirs.
            let data = self.files.iter().position(|(path, _)| path == Path::new(DATA));
            let index = match data {
                Some(data) if rng.chance(1, 2) => data,
                _ => rng.index(files.len()),
            };
            let start = rng.index(files[index].1.len().div_ceil(size)) * size;
            let sector = self.sector(rng, fault, (index, start, size));
            let other = rng.index(files[index].1.len().div_ceil(size)) * size;
            if fault == Fault::Swapped {
                let moved = part(&files[index].1, start, size).to_vec();
                put(&mut files[index].1, other, &moved);
                places.push((index, other, size));
            }
            put(&mut files[index].1, start, &sector);
            places.push((index, start, size));
        }
        let disk = self.disk.settled(3);
        let mut hits = Vec::new();
        for (index, start, size) in places {
            let (path, whole) = &self.files[index];
            if part(whole, start, size) != part(&files[index].1, start, size) {
                hits.push(Hit { path: path.clone(), start, len: size });
                disk.rot(path, &files[index].1);
            }
        }
        (disk, hits)
    }

    /// What is put over a sector.
    fn sector(&self, rng: &mut Rng, fault: Fault, place: (usize, usize, usize)) -> Vec<u8> {
        let (index, start, size) = place;
        let (path, bytes) = &self.files[index];
        match fault {
            Fault::Zeroed => vec![0; size],
            Fault::Noise => rng.bytes(size),
            Fault::Stale => {
                let old = self.earlier.file_bytes(path).unwrap_or_default();
                part(&old, start, size).to_vec()
            }
            Fault::Misdirected | Fault::Swapped => {
                let from = rng.index(bytes.len().div_ceil(size)) * size;
                part(bytes, from, size).to_vec()
            }
            Fault::Foreign => {
                let (_, other) = rng.pick(&self.files);
                let from = rng.index(other.len().div_ceil(size)) * size;
                part(other, from, size).to_vec()
            }
        }
    }

    /// Whether a page is now, as a whole, what it was earlier: no checksum tells. That of meta pages
    /// counts as damage all the same.
    fn has_earlier_page(&self, disk: &SimDisk, hits: &[Hit]) -> bool {
        let data = Path::new(DATA);
        let (now, earlier) = (disk.file_bytes(data), self.earlier.file_bytes(data));
        let (now, earlier) = (now.unwrap_or_default(), earlier.unwrap_or_default());
        hits.iter().filter(|hit| hit.path == data).any(|hit| {
            let pages = hit.start / self.page_size..(hit.start + hit.len).div_ceil(self.page_size);
            pages.skip_while(|page| *page < 2).any(|page| {
                let page = |bytes| part(bytes, page * self.page_size, self.page_size);
                page(&now) == page(&earlier)
            })
        })
    }

    /// Opens and reads everything: an outcome, or what is wrong with it.
    fn examine(&self, disk: &SimDisk, hits: &[Hit]) -> Result<Outcome, String> {
        let db = match self.options.clone().disk(Arc::new(disk.clone())).open(DIR) {
            Ok(db) => db,
            Err(error) => return self.named(&error, hits).and_then(|()| refused(error)),
        };
        let snapshot = db.read().map_err(|error| format!("no snapshot: {error}"))?;
        let (lsn, newest) = (snapshot.lsn().0, self.model.lsn());
        if lsn != newest {
            self.check_torn(lsn, newest, hits)?;
        }
        let state = self.model.at(lsn).expect("the model keeps everything");
        let complete = read_everything(&snapshot, state)?;
        let report = db.check().map_err(|error| format!("no check: {error}"))?;
        if report.is_clean() && !complete {
            return Err("check is clean, but something cannot be read".to_owned());
        }
        if !report.is_clean() {
            self.located(&report.problems, hits)?;
        }
        Ok(match (complete, report.is_clean()) {
            (false, _) => Outcome::ReadError,
            (_, false) => Outcome::Unclean,
            _ if lsn != newest => Outcome::Torn,
            _ => Outcome::Harmless,
        })
    }

    /// Only what was written together with the last record may go with it.
    fn check_torn(&self, lsn: u64, newest: u64, hits: &[Hit]) -> Result<(), String> {
        let (file, range) = &self.last_write;
        let is_hit = |hit: &Hit| {
            hit.path == *file && hit.start < range.end && range.start < hit.start + hit.len
        };
        // Who vouches for a record is the one behind it: both may be hit.
        let journal_hits = hits.iter().filter(|hit| hit.path == *file).count() as u64;
        let is_meta = |hit: &Hit| hit.path == Path::new(DATA) && hit.start < 2 * self.page_size;
        let is_vouched = self.is_checkpointed && !hits.iter().any(is_meta);
        if newest - lsn > journal_hits || is_vouched || !hits.iter().any(is_hit) {
            return Err(format!("opened at LSN {lsn} of {newest}, without an error"));
        }
        Ok(())
    }

    /// An error names a file that was damaged.
    fn named(&self, error: &Error, hits: &[Hit]) -> Result<(), String> {
        let Error::Corrupt { file, .. } = error else { return Ok(()) };
        // What a record changes is replayed onto what the data file has.
        let is_named = hits.iter().any(|hit| hit.path == *file || hit.path.starts_with(file))
            || file == Path::new(DATA);
        if is_named { Ok(()) } else { Err(format!("the error names another file: {error}")) }
    }

    /// A problem of a check names a place that was damaged, and whose it is.
    fn located(&self, problems: &[treepie::Problem], hits: &[Hit]) -> Result<(), String> {
        let is_hit = |offset: u64| {
            let start = offset as usize;
            let end = start + RUN_PAGES_MAX * self.page_size;
            let mut data = hits.iter().filter(|hit| hit.path == Path::new(DATA));
            data.any(|hit| hit.start < end && start < hit.start + hit.len)
        };
        // Of the journal, the segment; its offset is in the words.
        let names_segment = |problem: &treepie::Problem| {
            let names = hits.iter().filter_map(|hit| hit.path.file_name()?.to_str());
            let mut names = names.filter(|name| name.ends_with(".seg"));
            problem.page.is_none() && names.any(|name| problem.what.contains(name))
        };
        // What is said of the journal excuses no problem of a page that is said to be elsewhere.
        let mut offsets = problems.iter().filter_map(|problem| problem.offset).peekable();
        let is_located = match offsets.peek() {
            Some(_) => offsets.any(is_hit),
            None => problems.iter().any(names_segment),
        };
        match is_located {
            true => Ok(()),
            false => Err(format!("no problem names the damage: {problems:?}")),
        }
    }
}

fn part(bytes: &[u8], start: usize, len: usize) -> &[u8] {
    bytes.get(start..bytes.len().min(start + len)).unwrap_or(&[])
}

/// Overwrites what is there; the file keeps its length.
fn put(bytes: &mut [u8], start: usize, piece: &[u8]) {
    let end = bytes.len().min(start + piece.len());
    if start < end {
        bytes[start..end].copy_from_slice(&piece[..end - start]);
    }
}

fn context(seed: u64, what: &str) -> String {
    format!(
        "seed {seed}, {what}; rerun with TREEPIE_SEED={seed} \
         cargo test -p treepie --test engine sectors::"
    )
}

fn cases(seed: u64) -> Counts {
    let rest = rest(seed);
    let mut counts = Counts::default();
    for number in 0..CASES {
        let mut rng = Rng::new(mix(seed, number));
        let fault = *rng.pick(&FAULTS);
        let (disk, hits) = rest.damage(&mut rng, fault);
        if hits.is_empty() {
            continue;
        }
        if rest.has_earlier_page(&disk, &hits) {
            counts.left_out += 1;
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(|| rest.examine(&disk, &hits)));
        let context = || context(seed, &format!("case {number}: {fault:?} {hits:?}"));
        let outcome = result.unwrap_or_else(|_| panic!("{}: a panic", context()));
        counts.add(outcome.unwrap_or_else(|what| panic!("{}: {what}", context())));
    }
    counts
}

/// Each page of the data file as it was earlier, one at a time.
fn stale_pages(seed: u64) -> Counts {
    stale_pages_of(&rest(seed), seed)
}

fn stale_pages_of(rest: &Rest, seed: u64) -> Counts {
    let data = Path::new(DATA);
    let whole = rest.file(data);
    let earlier = rest.earlier.file_bytes(data).expect("a data file");
    let mut counts = Counts::default();
    for start in (2 * rest.page_size..whole.len()).step_by(rest.page_size) {
        let (now, old) =
            (part(whole, start, rest.page_size), part(&earlier, start, rest.page_size));
        if now == old || old.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut bytes = whole.to_vec();
        put(&mut bytes, start, old);
        let disk = rest.disk.settled(3);
        disk.rot(data, &bytes);
        let result = catch_unwind(AssertUnwindSafe(|| rest.examine_stale(&disk)));
        let context = || context(seed, &format!("the page at byte {start} is an earlier one"));
        match result.unwrap_or_else(|_| panic!("{}: a panic", context())) {
            Some(outcome) => counts.add(outcome),
            None => {
                counts.cases += 1;
                counts.wrong += 1;
            }
        }
    }
    counts
}

impl Rest {
    /// As `examine`, where wrong answers may be: `None` when there are, and nothing tells.
    fn examine_stale(&self, disk: &SimDisk) -> Option<Outcome> {
        let db = match self.options.clone().disk(Arc::new(disk.clone())).open(DIR) {
            Ok(db) => db,
            Err(error) => return Some(refused(error).expect("the page is damaged")),
        };
        let snapshot = db.read().expect("a snapshot");
        let read = read_everything(&snapshot, self.model.newest());
        let clean = db.check().expect("a check begins").is_clean();
        match read {
            Ok(false) => Some(Outcome::ReadError),
            _ if !clean => Some(Outcome::Unclean),
            Ok(true) => Some(Outcome::Harmless),
            Err(_) => None,
        }
    }
}

#[test]
fn sectors_that_are_lost_moved_or_swapped_are_found_or_harmless() {
    let seeds = seeds(1, SEEDS);
    let counts = Counts::sum(&for_seeds(&seeds, cases));
    println!("{counts:?}");
    let found = counts.refused + counts.read_errors + counts.by_check;
    let text = format!(
        "{} sectors zeroed, stale, moved, swapped: {} found, {} torn tails, {} harmless; \
         {} left out, whole pages stale",
        tally::thousands(counts.cases),
        tally::thousands(found),
        tally::thousands(counts.torn),
        tally::thousands(counts.harmless),
        tally::thousands(counts.left_out),
    );
    tally::note(5, "bit rot: sectors", &text);
    assert!(seeds.len() == 1 || counts.cases >= 100_000, "only {} sectors", counts.cases);
    assert!(found > counts.cases / 3, "damage that is mostly harmless shows nothing");
}

/// Overwrites values by others of their length, each time in other leaves: no count of the catalog
/// tells that a leaf is an earlier one. Closed after each round, the last one kept in the journal.
fn overwrites(rounds: usize) -> Rest {
    let disk = SimDisk::new(rounds as u64);
    let mut model = new_model();
    let insert = |numbers: std::ops::Range<usize>, byte: usize| -> Vec<Op> {
        let op = |n| harness::insert("numbers", &format!("{n:06}"), &[byte as u8; 60]);
        numbers.map(op).collect()
    };
    let mut earlier = None;
    let mut last = None;
    for round in 0..rounds + 2 {
        let options = small(&disk, 4096).journal_segment_size(256 << 10);
        let db = options.checkpoint_on_close(true).open(DIR).expect("it opens");
        match round {
            0 => commit(&db, &insert(0..2000, 1), &mut model),
            // All leaves once, then others, so that their records are trimmed.
            1 => (0..50).for_each(|n| commit(&db, &insert(n * 20..n * 20 + 20, 2), &mut model)),
            _ => {
                (50..100).for_each(|n| commit(&db, &insert(n * 20..n * 20 + 20, round), &mut model))
            }
        }
        last = db.journal_records(Lsn(0)).expect("the journal is read").last();
        db.close().expect("closing");
        earlier = if round == 0 { Some(disk.settled(1)) } else { earlier };
    }
    let last = last.expect("records are there").expect("the last one is whole");
    let files = disk.file_paths().into_iter().map(|path| {
        let bytes = disk.file_bytes(&path).expect("it is there");
        (path, bytes)
    });
    Rest {
        files: files.filter(|(_, bytes)| !bytes.is_empty()).collect(),
        options: small(&disk, 4096).create(false).checkpoint_on_close(false),
        page_size: 4096,
        disk: disk.settled(2),
        earlier: earlier.expect("there was a first round"),
        model,
        last_write: (last.file, 0..0),
        is_checkpointed: true,
    }
}

/// Where only the record of a change tells, it does for as long as the journal has it: behind that,
/// the earlier values are served. That is the limit, and this test says where it is.
#[test]
fn lost_write_of_a_page_is_found_by_check_while_its_record_is_in_the_journal() {
    let counts = stale_pages_of(&overwrites(1), 0);
    println!("{counts:?}");
    assert!(counts.by_check > 5, "pages of the newest segment are found");
    assert!(counts.wrong > 5, "and others are not: then the test would find wrong answers");
    let text = format!(
        "{} leaves with values of the same length stale: {} found by check, {} served",
        counts.cases, counts.by_check, counts.wrong,
    );
    tally::note(5, "bit rot: lost leaf writes", &text);
}

/// The limit of what checksums can do, measured on workloads whose values differ in length: there,
/// counts and neighbours tell of nearly every page. The test above shows that wrong answers are found.
#[test]
fn stale_pages_are_found_by_reading_or_by_check_as_far_as_anything_tells() {
    let seeds = seeds(1, 48);
    let counts = Counts::sum(&for_seeds(&seeds, stale_pages));
    println!("{counts:?}");
    let text = format!(
        "{} whole pages stale: {} found by reading, {} by check alone, {} not, {} harmless",
        tally::thousands(counts.cases),
        tally::thousands(counts.refused + counts.read_errors),
        tally::thousands(counts.by_check),
        tally::thousands(counts.wrong),
        tally::thousands(counts.harmless),
    );
    tally::note(5, "bit rot: lost page writes", &text);
    if seeds.len() > 1 {
        assert!(counts.refused + counts.read_errors >= 40, "{counts:?}");
        assert!(counts.by_check >= 60, "{counts:?}");
        assert!(counts.wrong * 10 <= counts.cases, "{counts:?}");
    }
}
