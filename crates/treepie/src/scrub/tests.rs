//! Damage that is put into the files of an open database, and the blind spots that would miss it.

use std::{
    fs::File,
    ops::ControlFlow,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tempfile::TempDir;

use super::{counted::counted, *};
use crate::{
    Database, Options, ScrubReport,
    format::bitmap::{bit_position, bitmap_page, is_fixed},
    ids::PageId,
};

const PAGE_SIZE: u64 = 4096;
/// A run of 147 pages: more than two slices.
const LONG: usize = 600_000;

/// A folder in memory, where there is one: syncs take most of the time.
fn folder() -> TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// A database with leaves, branches, short and long runs and a small journal, all at rest.
fn furnished() -> (TempDir, Database) {
    let dir = folder();
    let options = Options::new().create(true).page_size(4096).map_size(1 << 24);
    let options = options.background_threads(false).checkpoint_on_close(false);
    let db = options.open(dir.path().join("db")).expect("it opens");
    for round in 0..6_u32 {
        let filled = db.write(|tx| {
            let mut tree = tx.tree("entries")?;
            for number in 0..40_u32 {
                tree.insert((number * 7 + round).to_be_bytes(), [round as u8; 700])?;
            }
            tx.tree("values")?.insert(round.to_be_bytes(), vec![7; 5_000])?;
            tx.tree("values")?.insert(format!("long {}", round % 2), vec![8; LONG]).map(|_| ())
        });
        filled.expect("a commit");
    }
    db.checkpoint().expect("a checkpoint");
    db.write(|tx| tx.tree("entries")?.insert("last", "record")).expect("a commit");
    db.write(|tx| tx.tree("entries")?.insert("very last", "record")).expect("a commit");
    (dir, db)
}

fn scrub(db: &Database) -> ScrubReport {
    let report = db.scrub(None, |_| ControlFlow::Continue(())).expect("a scrub");
    assert!(report.is_complete);
    report
}

/// Changes bytes behind the back of the database, and says what was there.
fn overwrite(path: &Path, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let file = File::options().read(true).write(true).open(path).expect("it is there");
    let mut before = vec![0; bytes.len()];
    file.read_exact_at(&mut before, offset).expect("it is inside the file");
    file.write_all_at(bytes, offset).expect("it can be written");
    before
}

fn flip(path: &Path, offset: u64) -> Vec<u8> {
    let mut byte = [0];
    File::open(path).expect("it is there").read_exact_at(&mut byte, offset).expect("a byte");
    overwrite(path, offset, &[byte[0] ^ 0x10])
}

/// The pages in use that have no newer version in memory, so that the file's bytes count.
fn pages_at_rest(db: &Database) -> Vec<u32> {
    let snapshot = db.read().expect("a snapshot");
    let pager = &db.shared_core().pager;
    let bits = pager.page(bitmap_page(0, 4096), snapshot.lsn()).expect("the bitmap");
    let used = |page: u32| {
        let (byte, mask) = bit_position(page);
        bits[byte] & mask != 0 && (!is_fixed(PageId(page), 4096) || [2, 18].contains(&page))
    };
    let at_rest = |page: u32| {
        pager.directory.find(PageId(page), snapshot.lsn()) == crate::pager::directory::Found::Map
    };
    (2..pager.file_pages()).filter(|page| used(*page) && at_rest(*page)).collect()
}

/// Flips a byte in each page, one at a time; returns the pages whose damage was not told, or not as the
/// only one, or in another place.
fn missed_pages(db: &Database, pages: &[u32], inside: u64) -> Vec<u32> {
    let data = db.path().join("data");
    let is_missed = |page: &u32| {
        let offset = u64::from(*page) * PAGE_SIZE + inside;
        let before = flip(&data, offset);
        let damage = scrub(db).damage;
        overwrite(&data, offset, &before);
        let is_told = |item: &FoundDamage| {
            item.file == data && (item.offset..item.offset + item.len).contains(&offset)
        };
        damage.len() != 1 || !damage.iter().all(is_told)
    };
    pages.iter().copied().filter(is_missed).collect()
}

#[test]
fn a_flipped_byte_of_any_page_at_rest_is_told_once_and_in_its_place() {
    let (_dir, db) = furnished();
    assert_eq!(scrub(&db).damage, []);
    let pages = pages_at_rest(&db);
    assert!(pages.len() > 300, "{} pages", pages.len());
    assert_eq!(missed_pages(&db, &pages, 4095), [0; 0]);
    let some: Vec<u32> = pages.into_iter().step_by(7).collect();
    for inside in [0, 5, 20, 26, 100] {
        assert_eq!(missed_pages(&db, &some, inside), [0; 0], "byte {inside} of some pages");
    }
    assert_eq!(scrub(&db).damage, [], "everything is as it was");
    assert_eq!(db.stats().damage_found, db.damage().len() as u64, "each place once");
}

#[test]
fn damage_of_a_page_names_its_tree_and_what_to_do() {
    let (_dir, db) = furnished();
    let root = db.read().expect("a snapshot").tree("values").expect("a tree").state().root;
    flip(&db.path().join("data"), u64::from(root.0) * PAGE_SIZE + 3000);
    let damage = scrub(&db).damage;
    assert_eq!((damage.len(), damage[0].page), (1, Some(root)));
    assert_eq!(damage[0].tree_name.as_deref(), Some(&b"values"[..]));
    let text = damage[0].to_string();
    for words in ["page", "of tree \"values\"", "checksum", "treepie check DB --repair NEW"] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn owner_of_a_page_that_says_nothing_is_who_leads_to_it() {
    let (_dir, db) = furnished();
    let state = *db.read().expect("a snapshot").tree("entries").expect("a tree").state();
    assert!(state.depth > 1, "{state:?}");
    let data = db.path().join("data");
    let mut named = 0;
    for page in pages_at_rest(&db) {
        let offset = u64::from(page) * PAGE_SIZE;
        let before = overwrite(&data, offset, &[0; 4096]);
        let (kind, tree) =
            (before[16], u32::from_le_bytes([before[20], before[21], before[22], 0]));
        let damage = scrub(&db).damage;
        overwrite(&data, offset, &before);
        if kind == 1 && tree == state.id.0 && before[4..8] == page.to_le_bytes() {
            assert_eq!(damage[0].tree_name.as_deref(), Some(&b"entries"[..]), "page {page}");
            named += 1;
        }
    }
    assert!(named > 10, "{named}");
}

/// Zeroed, and replaced by the bytes of another page: a header that says nothing, or of another page.
#[test]
fn zeroed_and_misdirected_pages_are_told() {
    let (_dir, db) = furnished();
    let data = db.path().join("data");
    let pages = pages_at_rest(&db);
    let mut told = 0;
    for (&page, &other) in pages.iter().zip(pages.iter().rev()).step_by(3) {
        let mut stranger = vec![0; 4096];
        let file = File::open(&data).expect("it is there");
        file.read_exact_at(&mut stranger, u64::from(other) * PAGE_SIZE).expect("a page");
        for bytes in [vec![0; 4096], stranger] {
            let before = overwrite(&data, u64::from(page) * PAGE_SIZE, &bytes);
            let is_changed = before != bytes;
            let damage = scrub(&db).damage;
            overwrite(&data, u64::from(page) * PAGE_SIZE, &before);
            let offset = u64::from(page) * PAGE_SIZE;
            let is_told = damage.iter().any(|d| (d.offset..d.offset + d.len).contains(&offset));
            assert_eq!(is_told, is_changed, "page {page}: {damage:?}");
            assert!(damage.len() <= 1, "page {page}: {damage:?}");
            told += usize::from(is_told);
        }
    }
    assert!(told > 100, "{told}");
}

fn records(db: &Database) -> Vec<(PathBuf, u64, u64, Lsn)> {
    let records = db.journal_records(Lsn(0)).expect("the journal");
    let records = records.map(|record| record.expect("it is whole"));
    records.map(|r| (r.file, r.offset, r.stored_len, r.lsn)).collect()
}

/// The records whose damage is not told.
fn missed_records(db: &Database) -> Vec<Lsn> {
    let mut missed = Vec::new();
    for (file, offset, len, lsn) in records(db) {
        // In the frame, the header, the payload's end.
        for place in [offset - 20, offset + 20, offset + len - 1] {
            let before = flip(&file, place);
            let damage = scrub(db).damage;
            overwrite(&file, place, &before);
            let told: Vec<_> = damage.iter().map(|item| (item.file.clone(), item.record)).collect();
            if told != [(file.clone(), Some(lsn))] {
                missed.push(lsn);
            }
        }
    }
    missed
}

#[test]
fn a_flipped_byte_of_any_record_is_told_with_its_number_and_the_others_are_verified() {
    let (_dir, db) = furnished();
    let count = records(&db).len();
    assert!(count >= 8, "{count} records");
    assert_eq!(missed_records(&db), []);
    let (file, offset, _, lsn) = records(&db)[count - 2].clone();
    flip(&file, offset + 30);
    let report = scrub(&db);
    assert_eq!(report.records_verified, count as u64 - 1, "{:?}", report.damage);
    assert!(report.damage[0].advice.contains("make a checkpoint now"), "{:?}", report.damage);
    assert_eq!(report.damage[0].record, Some(lsn));
    // The header of the segment.
    flip(&file, 40);
    assert!(scrub(&db).damage.iter().any(|item| item.offset == 0 && item.file == file));
}

#[test]
fn damaged_meta_pages_are_told() {
    let (_dir, db) = furnished();
    for page in [0, 1] {
        let before = flip(&db.path().join("data"), page * PAGE_SIZE + 90);
        let damage = scrub(&db).damage;
        assert_eq!((damage.len(), damage[0].offset), (1, page * PAGE_SIZE));
        overwrite(&db.path().join("data"), page * PAGE_SIZE + 90, &before);
    }
}

fn blinded<T>(spot: Blind, look: impl FnOnce() -> T) -> T {
    BLIND.set(Some(spot));
    let seen = look();
    BLIND.set(None);
    seen
}

#[test]
fn planted_blind_spots_are_noticed() {
    let (_dir, db) = furnished();
    let pages: Vec<u32> = pages_at_rest(&db).into_iter().step_by(10).collect();
    let missed = blinded(Blind::LongRuns, || missed_pages(&db, &pages, 100));
    assert!(missed.len() > 2 * 12, "the long runs' pages are missed: {missed:?}");
    let missed = blinded(Blind::LastRecords, || missed_records(&db));
    assert_eq!(missed.last(), Some(&db.stats().synced));
    let damage = blinded(Blind::Versions, || scrub(&db).damage);
    assert_eq!(damage, [], "those two pages are in the file in an older state, whole as well");
    db.write(|tx| tx.tree("new")?.insert("k", vec![9; 900])).expect("a commit");
    let damage = blinded(Blind::Versions, || scrub(&db).damage);
    assert!(!damage.is_empty(), "a page that the file does not have yet is taken for damaged");
    assert_eq!(scrub(&db).damage, []);
}

/// Scrubs a database that is written to and checkpointed between any two slices: short and long runs
/// come and go wherever the scrub is. Returns the scrubs that called something damaged, and how many
/// pages were verified.
fn scrub_in_churn(seed: u64, scrubs: u32) -> (u32, u64) {
    let dir = folder();
    let options = Options::new().create(true).page_size(4096).map_size(1 << 24);
    let options = options.background_threads(false).checkpoint_on_close(false);
    let db = options.journal_segment_size(64 << 10).open(dir.path().join("db")).expect("it opens");
    let mut rng = treepie_testkit::Rng::new(seed);
    let mut change = |db: &Database| {
        let changed = db.write(|tx| {
            for _ in 0..1 + rng.below(3) {
                let key = format!("key {}", rng.below(24));
                let (kind, len) = (rng.below(10), rng.below(100) as usize);
                let mut tree = tx.tree(if kind < 5 { "a" } else { "b" })?;
                match kind {
                    0 | 5 => drop(tree.remove(&key)?),
                    1 | 6 => drop(tree.insert(&key, vec![kind as u8; len])?),
                    2 | 7 => drop(tree.insert(&key, vec![kind as u8; 3_000 * len])?),
                    _ => drop(tree.insert(&key, vec![kind as u8; 400 * len])?),
                }
            }
            Ok(())
        });
        changed.expect("a commit");
        if rng.below(2) == 0 {
            db.checkpoint().expect("a checkpoint");
        }
    };
    (0..40).for_each(|_| change(&db));
    let (mut alarms, mut verified) = (0, 0);
    for _ in 0..scrubs {
        let report = db.scrub(None, |_| {
            change(&db);
            ControlFlow::Continue(())
        });
        let report = report.expect("a scrub");
        alarms += u32::from(!report.damage.is_empty());
        verified += report.pages_verified;
    }
    (alarms, verified)
}

#[test]
fn nothing_that_is_being_written_is_taken_for_damage() {
    let (mut pages, seeds) = (0, 12);
    for seed in 0..seeds {
        let (alarms, verified) = scrub_in_churn(seed, 12);
        assert_eq!(alarms, 0, "seed {seed}: `cargo test -p treepie --lib being_written`");
        pages += verified;
    }
    let scrubs = seeds * 12;
    let mut noticed = 0;
    for spot in [Blind::Versions, Blind::NewRuns, Blind::ChangedRuns] {
        // That a long run changes while it is summed up, and is written over in part, is rare.
        let seeds = if spot == Blind::ChangedRuns { 0..10 * seeds } else { 0..seeds };
        let alarms = seeds.map(|seed| blinded(spot, || scrub_in_churn(seed, 6).0)).sum::<u32>();
        println!("{spot:?}: {alarms} false alarms");
        assert!(alarms > 0, "{spot:?} is not noticed");
        noticed += 1;
    }
    let counts =
        format!("{scrubs} between commits, {pages} pages, {noticed}/3 blind spots noticed");
    treepie_testkit::tally::note(5, "bit rot: scrub in steps", &counts);
}

/// A value whose run has so many pages.
fn run_of(pages: usize) -> Vec<u8> {
    vec![2; pages * 4096 - 100]
}

/// What the file has where a run comes into use that only the memory has: two short runs, and then …
#[derive(Clone, Copy, Debug)]
enum Under {
    /// … the middle of a run that there was.
    Middle,
    /// … the beginning of a run that there was, written over in part.
    Torn,
    /// … nothing: it ends there.
    End,
}

/// Scrubs a database in which such a run comes into use between two slices. `lead` pages of a run are
/// before it.
fn scrub_while_a_run_comes(lead: usize, under: Under) -> Vec<FoundDamage> {
    let dir = folder();
    let options = Options::new().create(true).page_size(4096).map_size(1 << 24);
    let options = options.background_threads(false).checkpoint_on_close(false);
    let db = options.journal_segment_size(64 << 10).open(dir.path().join("db")).expect("it opens");
    let change = |removed: &[&str], inserted: &[(&str, usize)]| {
        let changed = db.write(|tx| {
            let mut tree = tx.tree("t")?;
            removed.iter().try_for_each(|key| tree.remove(key).map(drop))?;
            inserted.iter().try_for_each(|(key, pages)| tree.insert(key, run_of(*pages)).map(drop))
        });
        changed.expect("a commit");
    };
    let checkpoint = || {
        db.checkpoint().expect("a checkpoint");
    };
    match under {
        Under::Middle => {
            change(&[], &[("lead", lead), ("old", 40)]);
            checkpoint();
            change(&["old"], &[("short 1", 3), ("short 2", 3)]);
        }
        Under::Torn => {
            change(&[], &[("lead", lead), ("short 1", 3), ("short 2", 3), ("old", 13)]);
            checkpoint();
            // What stands in the gap is never written.
            change(&["old"], &[("gap", 4), ("piece", 2)]);
            change(&["gap"], &[]);
        }
        Under::End => change(&[], &[("lead", lead), ("short 1", 3), ("short 2", 3)]),
    }
    checkpoint();
    let mut is_changed = false;
    let report = db.scrub(None, |progress| {
        if progress.bytes_done > lead as u64 * PAGE_SIZE && !is_changed {
            change(&["short 1", "short 2", "piece"], &[("new", 20)]);
            is_changed = true;
        }
        ControlFlow::Continue(())
    });
    let report = report.expect("a scrub");
    assert!(report.is_complete && is_changed);
    report.damage
}

/// Wherever the slice ends, and the file.
#[test]
fn what_the_file_has_under_a_run_in_memory_is_not_taken_for_damage() {
    for (under, leads, words) in [
        (Under::Middle, 30..50, "checksum 02020202 does not match"),
        (Under::Torn, 30..50, "does not match the bytes of its 13 pages"),
        (Under::End, 220..240, "it cannot be read from the disk"),
    ] {
        let mut alarms = Vec::new();
        for lead in leads {
            let look = || scrub_while_a_run_comes(lead, under);
            assert_eq!(look(), [], "{under:?} behind {lead} pages");
            alarms.extend(blinded(Blind::RunsInMemory, look));
        }
        let is_noticed = alarms.iter().any(|item| item.what.contains(words));
        assert!(is_noticed, "{under:?}, by a look at the file alone: {alarms:?}");
    }
}

/// A database of thousands of leaves, each damaged where its header still says whose it is: damage that
/// is told page by page. Returns the bytes read from the medium, and how many pages there are.
fn ruined(change: impl Fn(&mut [u8])) -> (TempDir, Database, Arc<AtomicU64>, u64) {
    let dir = folder();
    let (disk, medium) = counted();
    let options = Options::new().create(true).page_size(4096).map_size(1 << 24);
    let options = options.background_threads(false).checkpoint_on_close(false);
    let db = options.disk(Arc::new(disk)).open(dir.path().join("db")).expect("it opens");
    let filled = db.write(|tx| {
        let mut tree = tx.tree("entries")?;
        (0..6_000_u32).try_for_each(|at| tree.insert(at.to_be_bytes(), [7; 1_000]).map(|_| ()))
    });
    filled.expect("a commit");
    db.checkpoint().expect("a checkpoint");
    let data = db.path().join("data");
    let file = File::options().read(true).write(true).open(&data).expect("it is there");
    let mut count = 0;
    for page in pages_at_rest(&db) {
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, u64::from(page) * PAGE_SIZE).expect("a page");
        if bytes[16] == 1 && bytes[20] > 2 {
            change(&mut bytes);
            file.write_all_at(&bytes, u64::from(page) * PAGE_SIZE).expect("a page");
            count += 1;
        }
    }
    assert!(count >= 1_500, "{count} leaves");
    (dir, db, medium, count)
}

#[test]
fn thousands_of_damaged_pages_are_read_a_few_times_and_all_of_it_is_counted() {
    let (_dir, db, medium, count) = ruined(|bytes| bytes[4095] ^= 1);
    let before = medium.load(Relaxed);
    let report = scrub(&db);
    let read = medium.load(Relaxed) - before;
    assert_eq!((report.damage_count, report.damage.len()), (count, damage::DAMAGE_MAX));
    assert!(read < 6 * count * PAGE_SIZE, "{read} bytes were read for {count} pages");
    assert!(report.bytes_read >= read, "{read} bytes were read, {} counted", report.bytes_read);
}

/// The header names a tree that there is not: who leads to the page has to be looked for.
#[test]
fn owners_are_not_looked_for_beyond_the_end_of_the_list() {
    let (_dir, db, _medium, count) = ruined(|bytes| bytes[22] = 9);
    // It is asked after each search for an owner, and after each slice.
    let mut asked = 0;
    let report = db.scrub(None, |_| {
        asked += 1;
        ControlFlow::Continue(())
    });
    let report = report.expect("a scrub");
    assert_eq!(report.damage_count, count);
    assert!(report.damage.iter().all(|item| item.tree_name.as_deref() == Some(b"entries")));
    assert!((1_000..1_200).contains(&asked), "{asked}");
    let pages = report.bytes_read / PAGE_SIZE / damage::DAMAGE_MAX as u64;
    assert!(pages > 6, "{pages} pages for each item: the branches are counted");
}

#[test]
fn scrub_without_a_place_among_the_readers_tries_again_after_a_minute_at_most() {
    let bound = Error::Bound { option: "readers_max", max: 3, hint: "" };
    let io = Error::Poisoned { action: "a test" };
    let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
    assert_eq!([hour, second].map(|every| pause_after(&bound, every)), [RETRY_AFTER, second]);
    assert_eq!([hour, second].map(|every| pause_after(&io, every)), [hour, second]);
}

/// With every slot taken, until it has failed a few times.
#[test]
fn scrub_goes_on_once_a_reader_has_ended() {
    let dir = folder();
    let options = Options::new().create(true).page_size(4096).map_size(1 << 24).readers_max(4);
    let db = options.background_threads(false).open(dir.path().join("db")).expect("it opens");
    db.write(|tx| tx.tree("t")?.insert("k", "v").map(|_| ())).expect("a commit");
    let readers: Vec<_> = std::iter::from_fn(|| db.read().ok()).collect();
    assert_eq!(readers.len(), 4);
    let refused = db.scrub(None, |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(Error::Bound { option: "readers_max", .. })), "{refused:?}");
    let core = db.shared_core();
    let (scrubber, checkpointer) = (Scrubber::default(), Mutex::default());
    let every = Duration::from_millis(1);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| scrubber.serve(core, &checkpointer, every, u64::MAX));
        assert_eq!(scrubber.counts().1, 0, "no scrub can have come to its end");
        drop(readers);
        while scrubber.counts().1 == 0 {
            assert!(!serving.is_finished(), "it has given up");
            std::thread::yield_now();
        }
        scrubber.stop();
    });
    assert_eq!(scrubber.counts().0, 0, "nothing is damaged");
}
