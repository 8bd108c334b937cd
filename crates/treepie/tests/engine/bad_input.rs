//! What callers, files and file systems can do wrong, on the real disk: each has its own error,
//! which names file, offset, LSN or limit, and says what to do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tempfile::TempDir;
use treepie::{Database, Error, Options, Structure};
use treepie_testkit::{Call, Fault, FaultError, SimDisk};

use crate::harness::{self, DIR, assert_says, file_options, folder};

/// Name of the variable that makes this binary a second process which opens a database.
const SECOND_PROCESS: &str = "TREEPIE_TEST_SECOND_PROCESS";

fn small() -> Options {
    file_options().versions_memory(4 << 20).background_threads(false)
}

/// A closed database with a tree of 200 entries; its journal is checkpointed.
fn closed() -> (TempDir, PathBuf) {
    let dir = folder();
    let path = dir.path().join("db");
    let db = small().open(&path).expect("a new database opens");
    fill(&db, 200);
    db.close().expect("closing");
    (dir, path)
}

/// A database that was never closed in order: several segments of records are to be replayed.
fn killed() -> (TempDir, PathBuf) {
    let dir = folder();
    let path = dir.path().join("db");
    let db = small().checkpoint_on_close(false).open(&path).expect("a new database opens");
    for _ in 0..60 {
        fill(&db, 30);
    }
    db.close().expect("closing");
    (dir, path)
}

fn fill(db: &Database, count: u32) {
    db.write(|tx| {
        let mut tree = tx.tree("numbers")?;
        let first = tree.len() as u32;
        for number in first..first + count {
            tree.insert(number.to_be_bytes(), vec![number as u8; 100])?;
        }
        Ok(())
    })
    .expect("a commit");
}

fn open_error(path: &Path) -> Error {
    Options::new().open(path).map(|_| ()).expect_err("opening is refused")
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(path.join("journal"))
        .expect("the journal is a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| !path.ends_with("spare-reserve.seg"))
        .collect();
    segments.sort();
    segments
}

#[test]
fn a_file_of_something_else_is_not_a_database() {
    let (_dir, path) = closed();
    let data = path.join("data");
    let mut bytes = fs::read(&data).expect("the data file");
    bytes[..4096 * 2].fill(b'x');
    fs::write(&data, &bytes).expect("writing");
    let error = open_error(&path);
    assert!(
        matches!(&error, Error::NotADatabase { file, found } if *file == data && found == b"xxxxxxxx"),
        "{error:?}"
    );
    assert_says(&error, &["data", "not a Treepie data file", "check the path"]);
}

#[test]
fn another_page_size_is_refused_and_the_right_one_is_named() {
    let (_dir, path) = closed();
    let error = Options::new().page_size(8192).open(&path).expect_err("refused");
    assert!(matches!(error, Error::PageSize { found: 4096, wanted: 8192, .. }), "{error:?}");
    assert_says(&error, &["4096", "8192", "leave the page size out"]);
    let error = Options::new().page_size(1000).open(&path).expect_err("refused");
    assert_says(&error, &["page_size", "4096 or 8192"]);
}

/// The checksum of a meta page is that of all its bytes but the checksum itself.
fn stamp(page: &mut [u8]) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&page[..12]);
    hasher.update(&page[16..]);
    page[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
}

#[test]
fn a_newer_format_and_unknown_features_are_refused_with_both_versions() {
    for (offset, value) in [(8, 9_u8), (16, 4)] {
        let (_dir, path) = closed();
        let data = path.join("data");
        let mut bytes = fs::read(&data).expect("the data file");
        for page in bytes[..8192].chunks_mut(4096) {
            page[offset] = value;
            stamp(page);
        }
        fs::write(&data, &bytes).expect("writing");
        let error = open_error(&path);
        match (&error, offset) {
            (Error::UnsupportedVersion { found: 9, supported: 1, .. }, 8) => {
                assert_says(&error, &["version 9", "up to 1", "upgrade Treepie"]);
            }
            (Error::UnsupportedFeatures { found: 4, .. }, 16) => {
                assert_says(&error, &["0x4", "upgrade Treepie"]);
            }
            _ => panic!("{error:?}"),
        }
    }
}

/// Changes one meta page of a closed database, and perhaps makes its checksum right again.
fn edit_meta(path: &Path, number: usize, change: impl FnOnce(&mut [u8]), is_stamped: bool) {
    let data = path.join("data");
    let mut bytes = fs::read(&data).expect("the data file");
    let page = &mut bytes[number * 4096..][..4096];
    change(page);
    if is_stamped {
        stamp(page);
    }
    fs::write(&data, &bytes).expect("writing");
}

#[test]
fn a_flipped_bit_in_version_or_features_of_one_meta_page_leaves_the_other_one() {
    let (_dir, path) = closed();
    let data = path.join("data");
    let whole = fs::read(&data).expect("the data file");
    let generation = |page: usize| {
        let bytes = &whole[page * 4096 + 24..][..8];
        u64::from_le_bytes(bytes.try_into().expect("8 bytes"))
    };
    for number in [0, 1] {
        let is_older = generation(number) < generation(1 - number);
        for bit in (8 * 8..12 * 8).chain(16 * 8..24 * 8) {
            fs::write(&data, &whole).expect("writing");
            edit_meta(&path, number, |page| page[bit / 8] ^= 1 << (bit % 8), false);
            match small().checkpoint_on_close(false).open(&path) {
                Ok(db) => {
                    let snapshot = db.read().expect("a snapshot");
                    assert_eq!(snapshot.tree("numbers").expect("a tree").len(), 200);
                }
                // The older page leads to segments that closing has given up.
                Err(Error::JournalGap { .. }) if !is_older => {}
                Err(error) => panic!("page {number}, bit {bit}: {error:?}"),
            }
        }
    }
}

#[test]
fn one_valid_meta_page_of_a_newer_version_or_with_a_new_feature_is_enough_to_refuse() {
    for number in [0, 1] {
        let (_dir, path) = closed();
        edit_meta(&path, number, |page| page[8] = 2, true);
        let error = open_error(&path);
        let Error::UnsupportedVersion { file, offset, structure, found: 2, supported: 1 } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!((file, *offset), (&path.join("data"), number as u64 * 4096));
        assert_eq!(*structure, Structure::Meta(number as u32));
        assert_says(&error, &["version 2", &format!("meta page {number}"), "up to 1", "upgrade"]);

        let (_dir, path) = closed();
        edit_meta(&path, number, |page| page[16] = 2, true);
        assert!(matches!(open_error(&path), Error::UnsupportedFeatures { found: 2, .. }));
    }
}

/// Changes the last record of a journal, and makes its checksums right again. Returns the segment,
/// its bytes before, and where the record begins.
fn forge_last_record(path: &Path, change: impl FnOnce(&mut [u8])) -> (PathBuf, Vec<u8>, usize) {
    let newest = segments(path).pop().expect("a segment");
    let whole = fs::read(&newest).expect("the segment");
    let at = (0..whole.len()).step_by(4096).rfind(|at| whole[*at..].starts_with(b"TPFR"));
    let frame = at.expect("a frame");
    let record_len = u32::from_le_bytes(whole[frame + 16..frame + 20].try_into().expect("4"));
    let mut bytes = whole.clone();
    let (head, record) = bytes[frame..][..32 + record_len as usize].split_at_mut(32);
    change(record);
    record[4..8].fill(0);
    let sum = crc32fast::hash(record).to_le_bytes();
    record[4..8].copy_from_slice(&sum);
    let frame_sum = crc32fast::hash(&[&head[..4], &head[8..], &sum].concat());
    head[4..8].copy_from_slice(&frame_sum.to_le_bytes());
    fs::write(&newest, &bytes).expect("writing");
    (newest, whole, frame + 32)
}

#[test]
fn a_last_record_of_a_newer_version_is_refused() {
    let (_dir, path) = killed();
    let (newest, whole, offset) = forge_last_record(&path, |record| record[8] = 3);
    let error = open_error(&path);
    assert!(matches!(error, Error::UnsupportedVersion { found: 3, supported: 1, .. }), "{error:?}");
    let name = newest.file_name().and_then(|name| name.to_str()).expect("a name");
    let place = format!("record 61 at byte {offset}");
    assert_says(&error, &[name, "format version 3", &place, "up to 1", "upgrade Treepie"]);
    // Nothing was changed by the attempt.
    fs::write(&newest, &whole).expect("writing");
    let db = small().open(&path).expect("with the old record it opens");
    assert_eq!(db.read().expect("a snapshot").tree("numbers").expect("a tree").len(), 1800);
}

/// The run in a record: where its change begins, for a value of 5,000 bytes.
fn find_run(record: &[u8]) -> usize {
    let tail = [&2_u32.to_le_bytes()[..], &[0; 4], &5032_u64.to_le_bytes()].concat();
    let at = record.windows(tail.len()).position(|bytes| bytes == tail).expect("a run");
    at - 8
}

#[test]
fn a_record_with_a_run_where_none_can_be_is_refused_without_a_panic() {
    const LEAF: u8 = 1;
    const OVERFLOW: u8 = 3;
    const BITMAP: u8 = 4;
    let places: [(Option<u32>, u8); 8] = [
        (Some(0), OVERFLOW),
        (Some(1), OVERFLOW),
        (Some(2), BITMAP),
        (Some(17), OVERFLOW),
        (Some(520_191), OVERFLOW),
        (Some(u32::MAX - 3), OVERFLOW),
        (None, LEAF),
        (None, BITMAP),
    ];
    for (first, kind) in places {
        let dir = folder();
        let path = dir.path().join("db");
        let db = small().checkpoint_on_close(false).open(&path).expect("a new database opens");
        db.write(|tx| tx.tree("numbers")?.insert("large", [7; 5000])).expect("a commit");
        db.close().expect("closing");
        forge_last_record(&path, |record| {
            let at = find_run(record);
            let change = &mut record[at..];
            if let Some(first) = first {
                change[4..8].copy_from_slice(&first.to_le_bytes());
            }
            let first: [u8; 4] = change[4..8].try_into().expect("4 bytes");
            let mut run = change[24..][..5032].to_vec();
            run.resize(8192, 0);
            run[4..8].copy_from_slice(&first);
            run[16] = kind;
            if kind != OVERFLOW {
                run[20..32].fill(0);
                run[32..].fill(0xff);
            }
            if kind == LEAF {
                run[20] = 3;
                run[26..28].copy_from_slice(&8192_u16.to_le_bytes());
            }
            run[5032..].fill(0);
            let sum = crc32fast::hash(&run[4..]);
            run[..4].copy_from_slice(&sum.to_le_bytes());
            change[24..][..5032].copy_from_slice(&run[..5032]);
        });
        let before = fs::read(path.join("data")).expect("the data file");
        let error = open_error(&path);
        assert!(matches!(error, Error::Corrupt { .. }), "{first:?}, kind {kind}: {error:?}");
        let after = fs::read(path.join("data")).expect("the data file");
        assert_eq!(before[..8192], after[..8192], "{first:?}, kind {kind}");
    }
}

#[test]
fn a_data_file_cut_short_is_refused_or_found_wherever_it_was_cut() {
    let (_dir, path) = closed();
    let data = path.join("data");
    let whole = fs::read(&data).expect("the data file");
    let mut lengths: Vec<usize> = (0..whole.len()).step_by(4096).collect();
    lengths.extend([1, 100, 4095, 4097, 8191, 8193, whole.len() - 1, whole.len() - 4095]);
    for len in lengths {
        fs::write(&data, &whole[..len]).expect("writing");
        let found = match small().create(false).checkpoint_on_close(false).open(&path) {
            Err(error) => {
                assert!(
                    matches!(&error, Error::Corrupt { file, .. } if *file == data),
                    "cut at {len}: {error:?}"
                );
                error.to_string()
            }
            Ok(db) => {
                let report = db.check().expect("a check begins");
                assert!(!report.is_clean(), "cut at {len}: nobody says so");
                let snapshot = db.read().expect("a snapshot");
                for info in snapshot.trees().unwrap_or_default() {
                    let Ok(tree) = snapshot.tree(&info.name) else { continue };
                    let _all: Vec<_> = tree.iter().take_while(Result::is_ok).collect();
                }
                report.problems[0].to_string()
            }
        };
        assert!(!found.is_empty());
        fs::write(&data, &whole).expect("writing");
    }
}

#[test]
fn a_missing_segment_is_a_gap_that_names_the_folder_and_the_lsn() {
    let (_dir, path) = killed();
    let all = segments(&path);
    assert!(all.len() >= 3, "{all:?}");
    let away = path.join("away");
    for middle in &all[..all.len() - 1] {
        fs::rename(middle, &away).expect("moving");
        // A segment that was prepared and holds nothing yet is not missed.
        if let Err(error) = small().checkpoint_on_close(false).open(&path) {
            assert!(
                matches!(&error, Error::JournalGap { folder, missing, .. }
                    if *folder == path.join("journal") && missing.0 > 0),
                "{}: {error:?}",
                middle.display()
            );
            assert_says(&error, &["no valid record", "restore from a backup"]);
        } else {
            panic!("{} is gone, and nobody says so", middle.display());
        }
        fs::rename(&away, middle).expect("moving back");
    }
    let db = small().open(&path).expect("with all segments it opens");
    assert_eq!(db.read().expect("a snapshot").tree("numbers").expect("a tree").len(), 1800);
}

/// The checkpoint is past it, so that opening reads it, and does not need it.
#[test]
fn a_check_names_the_part_of_the_journal_that_it_cannot_read() {
    let (dir, db) = harness::open_new(&file_options().background_threads(false));
    for number in 0..8_u8 {
        let row = [harness::insert("t", &format!("row {number}"), &[number; 500])];
        harness::write(&db, &row).expect("it commits");
    }
    db.checkpoint().expect("a checkpoint");
    let segments = db.report().expect("a report").journal.segments;
    let path = dir.path().join("db/journal").join(&segments[0].file);
    assert!(db.check().expect("a check").is_clean());
    let whole = fs::read(&path).expect("it is there");
    let mut damaged = whole.clone();
    // In the first record behind the header.
    damaged[4096 + 80] ^= 1;
    fs::write(&path, &damaged).expect("it can be written");
    let problems = db.check().expect("a check").problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].what.contains(&segments[0].file), "{}", problems[0]);
    assert!(problems[0].what.contains("journal cannot be read"), "{}", problems[0]);
    fs::write(&path, &whole).expect("it can be written");
    assert!(db.check().expect("a check").is_clean());
}

#[test]
fn a_journal_without_any_segment_is_missed() {
    let (_dir, path) = killed();
    for segment in segments(&path) {
        fs::remove_file(segment).expect("removing");
    }
    let error = open_error(&path);
    assert!(matches!(error, Error::JournalGap { .. }), "{error:?}");
    fs::remove_dir_all(path.join("journal")).expect("removing");
    let error = open_error(&path);
    assert!(matches!(error, Error::JournalGap { .. } | Error::Io { .. }), "{error:?}");
}

#[test]
fn a_journal_without_its_data_file_is_not_taken_for_a_new_database() {
    let (_dir, path) = killed();
    fs::remove_file(path.join("data")).expect("removing");
    let error = small().open(&path).map(|_| ()).expect_err("refused");
    assert!(matches!(error, Error::JournalGap { .. }), "{error:?}");
    assert_says(&error, &["`data`"]);
}

#[test]
fn a_second_opening_in_this_process_is_refused_until_the_first_has_ended() {
    let (_dir, path) = closed();
    let db = small().open(&path).expect("it opens");
    let snapshot = db.read().expect("a snapshot");
    for _ in 0..2 {
        let error = open_error(&path);
        assert!(matches!(error, Error::Locked { .. }), "{error:?}");
        assert_says(&error, &["already open", "close it there first"]);
    }
    drop(db);
    assert!(matches!(open_error(&path), Error::Locked { .. }), "a snapshot keeps it open");
    drop(snapshot);
    small().open(&path).expect("now it opens");
}

#[test]
fn a_second_process_is_refused_with_the_owner_of_the_database() {
    let (_dir, path) = closed();
    let _db = small().open(&path).expect("it opens");
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "bad_input::second_process", "--nocapture"])
        .env(SECOND_PROCESS, &path)
        .output()
        .expect("a child process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let owner = format!("is already open in process {}", std::process::id());
    assert!(text.contains(&owner), "{text}");
}

/// Does nothing unless it is the child of the test above.
#[test]
fn second_process() {
    if let Some(path) = std::env::var_os(SECOND_PROCESS) {
        println!("{}", open_error(Path::new(&path)));
    }
}

#[test]
fn a_missing_database_is_not_made_unless_asked_for() {
    let dir = folder();
    for path in [dir.path().join("none"), dir.path().to_owned()] {
        let error = open_error(&path);
        assert!(matches!(&error, Error::NotFound { path: found } if *found == path), "{error:?}");
        assert_says(&error, &["no database", "create one"]);
    }
    assert!(!dir.path().join("none").exists());
    let error = small().open(dir.path().join("a/b")).map(|_| ()).expect_err("no parent");
    assert!(matches!(error, Error::Io { action: "create", .. }), "{error:?}");
}

#[test]
fn a_folder_that_may_not_be_written_is_an_error_that_names_it() {
    let disk = SimDisk::new(1);
    let denied = FaultError::Os(13);
    disk.fail(Fault::nth(1).of(Call::Create).error(denied).forever());
    let error = harness::options(&disk).open(DIR).map(|_| ()).expect_err("refused");
    assert!(matches!(error, Error::Io { action: "create", .. }), "{error:?}");
    assert_says(&error, &["cannot create /db/data.new", "denied"]);

    let dir = folder();
    let mut permissions = fs::metadata(dir.path()).expect("metadata").permissions();
    permissions.set_readonly(true);
    fs::set_permissions(dir.path(), permissions.clone()).expect("chmod");
    if fs::write(dir.path().join("probe"), b"").is_ok() {
        println!("skipped on the real disk: this user may write to read-only folders");
        return;
    }
    let error = small().open(dir.path().join("db")).map(|_| ()).expect_err("refused");
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert_says(&error, &["cannot create", "denied"]);
}

#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let disk = SimDisk::new(1);
    let db = harness::options(&disk).open(DIR).expect("it opens");
    disk.set_capacity(Some(1));
    let error = (0..).find_map(|_| db.write(|tx| tx.tree("t")?.insert("k", vec![1; 20_000])).err());
    let error = error.expect("the disk is full");
    let Error::Io { file, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.raw_os_error(), Some(28), "{error}");
    assert!(file.starts_with(DIR), "{error}");
    drop(db);

    // A real device that is always full, where there is one.
    let full = Arc::new(treepie::disk::RealDisk);
    let error = Options::new().create(true).disk(full).open("/dev/full/db").map(|_| ());
    assert!(matches!(error, Err(Error::Io { .. })), "{error:?}");
}
