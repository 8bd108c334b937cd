//! Files of odd lengths and modes, on the real disk: sparse ones across 2³¹ and 2³² bytes, and what
//! others may read.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use tempfile::TempDir;
use treepie::{Database, Error, Options};
use treepie_testkit::hostile::{
    stamp::{PAGE_SIZE, put, stamp_header, stamp_page},
    template::DIR,
};

use crate::{
    harness::{file_options, folder, open_new},
    hostile_pages::{Forger, children},
};

/// Pages that one bitmap page of 4 KiB covers, and groups of a region.
const GROUP_PAGES: u64 = 32_512;
const REGION_GROUPS: u64 = 16;

fn open(dir: &TempDir) -> treepie::Result<Database> {
    // The map is reserved for the file's length alone: address space is all that it takes.
    Options::new().versions_memory(4 << 20).map_size(1 << 20).open(dir.path())
}

/// Writes a forged database to the disk; returns its folder, and its data file.
fn on_disk(forger: &Forger) -> (TempDir, File) {
    let dir = folder();
    for file in &forger.template.files {
        let path = dir.path().join(file.path.strip_prefix(DIR).expect("all are in one folder"));
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, &file.bytes).expect("a file");
    }
    let data = dir.path().join("data");
    fs::write(&data, &forger.data).expect("the data file");
    let data = OpenOptions::new().read(true).write(true).open(data).expect("it is there");
    (dir, data)
}

fn entries(db: &Database) -> Vec<(Vec<u8>, Vec<u8>)> {
    let snapshot = db.read().expect("a snapshot");
    let tree = snapshot.tree("numbers").expect("a tree");
    let entries = tree.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
    entries.collect::<treepie::Result<_>>().expect("everything can be read")
}

#[test]
fn file_with_a_sparse_end_across_2_31_and_2_32_bytes_opens_and_is_written_to() {
    for len in
        [(1_u64 << 31) - 1, (1 << 31) + 4097, (1 << 32) - 1, 1 << 32, (1 << 32) + 4097, 1 << 40]
    {
        let (dir, data) = on_disk(&Forger::new());
        if let Err(error) = data.set_len(len) {
            eprintln!("skipped {len} bytes: {error}");
            continue;
        }
        let db = open(&dir).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
        assert!(db.check().expect("a check").is_clean(), "{len} bytes");
        db.write(|tx| tx.tree("numbers")?.insert("new", vec![7; 5000])).expect("a commit");
        db.close().expect("closing");
        let db = open(&dir).expect("it opens again");
        assert!(db.check().expect("a check").is_clean(), "{len} bytes");
        assert!(data.metadata().expect("a length").len() < 1 << 21, "the end is given back");
    }
}

/// Moves a leaf of a tree to a page far behind, and makes the bitmap pages that lead there.
fn with_leaf_at(page: u64) -> (TempDir, File, usize) {
    let mut forger = Forger::new();
    let (_, root) = forger.tree("numbers");
    let place = root * PAGE_SIZE + children(forger.page(root));
    let old = usize::from(forger.data[place]);
    put(&mut forger.data, place, &(page as u32).to_le_bytes());
    stamp_page(forger.page(root));
    let mut leaf = forger.page(old).to_vec();
    put(&mut leaf, 4, &(page as u32).to_le_bytes());
    stamp_page(&mut leaf);
    // The old place becomes free.
    forger.page(2)[32 + old / 8] &= !(1 << (old % 8));
    stamp_page(forger.page(2));
    for number in [0, 1] {
        put(forger.page(number), 76, &(page as u32 + 1).to_le_bytes());
        stamp_header(forger.page(number));
    }
    let (dir, data) = on_disk(&forger);
    data.write_all_at(&leaf, page * PAGE_SIZE as u64).expect("a sparse file");
    for group in 1..=page / GROUP_PAGES {
        let first = group * GROUP_PAGES;
        let region = group / REGION_GROUPS * REGION_GROUPS * GROUP_PAGES;
        let number = if region == 0 { 2 + group } else { region + group % REGION_GROUPS };
        let mut bitmap = vec![0; PAGE_SIZE];
        put(&mut bitmap, 4, &(number as u32).to_le_bytes());
        bitmap[16] = 4;
        if first == region {
            // The bitmap pages of a region stand at its beginning.
            put(&mut bitmap, 32, &[0xff; 2]);
        }
        if (first..first + GROUP_PAGES).contains(&page) {
            let index = (page - first) as usize;
            bitmap[32 + index / 8] |= 1 << (index % 8);
        }
        stamp_page(&mut bitmap);
        data.write_all_at(&bitmap, number * PAGE_SIZE as u64).expect("a sparse file");
    }
    (dir, data, old)
}

#[test]
fn page_behind_2_31_and_2_32_bytes_is_read_changed_and_freed() {
    let (dir, _data) = on_disk(&Forger::new());
    let whole = entries(&open(&dir).expect("it is whole"));
    for bytes in [1_u64 << 31, 1 << 32] {
        let (dir, data, old) = with_leaf_at(bytes / PAGE_SIZE as u64 + 20);
        let db = open(&dir).unwrap_or_else(|error| panic!("behind {bytes}: {error}"));
        let report = db.check().expect("a check");
        assert!(report.is_clean(), "behind {bytes}, from page {old}: {:?}", report.problems);
        assert_eq!(entries(&db), whole);
        // A leaf far behind is changed where it is.
        let (key, value) = &whole[0];
        let new: Vec<u8> = value.iter().map(|byte| !byte).collect();
        db.write(|tx| tx.tree("numbers")?.insert(key, &new)).expect("a commit");
        db.checkpoint().expect("a checkpoint");
        db.close().expect("closing");
        assert!(data.metadata().expect("a length").len() > bytes, "its last page is in use");
        let db = open(&dir).expect("it opens again");
        assert_eq!(entries(&db)[0], (key.clone(), new));
        assert_eq!(entries(&db)[1..], whole[1..]);
        assert!(db.check().expect("a check").is_clean());
        db.write(|tx| tx.tree("numbers")?.clear()).expect("a commit");
        db.close().expect("closing");
        assert!(data.metadata().expect("a length").len() < bytes, "its end is given back");
        let db = open(&dir).expect("it opens again");
        assert!(db.check().expect("a check").is_clean());
    }
}

#[test]
fn files_and_folders_of_a_database_belong_to_their_owner_alone() {
    let (dir, db) = open_new(&file_options());
    for number in 0..40_u32 {
        db.write(|tx| tx.tree("t")?.insert(number.to_be_bytes(), vec![7; 4000])).expect("a commit");
    }
    db.checkpoint().expect("a checkpoint");
    let mut modes = Vec::new();
    collect_modes(&dir.path().join("db"), &mut modes);
    assert!(modes.len() > 4, "folders, data, lock, segments: {modes:?}");
    for (path, mode) in modes {
        assert_eq!(mode & 0o077, 0, "{path}: {mode:o}");
    }
}

fn collect_modes(path: &Path, modes: &mut Vec<(String, u32)>) {
    // A spare may be made a segment meanwhile: then it is met under its other name, or not at all.
    let Ok(metadata) = fs::metadata(path) else { return };
    modes.push((path.display().to_string(), metadata.permissions().mode() & 0o777));
    if metadata.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            collect_modes(&entry.expect("an entry").path(), modes);
        }
    }
}

/// A short read is an error, wherever the file ends.
#[test]
fn data_file_that_ends_inside_a_page_in_use_is_refused_or_found() {
    let forger = Forger::new();
    for len in
        [0, 1, 4095, 4096, 8191, 8192, 12_288, forger.data.len() - 4096, forger.data.len() - 1]
    {
        let (dir, data) = on_disk(&forger);
        data.set_len(len as u64).expect("it is cut");
        match open(&dir) {
            Ok(db) => assert!(!db.check().expect("a check begins").is_clean(), "{len} bytes"),
            Err(Error::Corrupt { .. } | Error::NotADatabase { .. } | Error::JournalGap { .. }) => {}
            Err(other) => panic!("{len} bytes: {other:?}"),
        }
    }
}
