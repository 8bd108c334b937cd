//! Damaged pages that are taken from another database with the same history: only one that is right is.

use std::{fs, os::unix::fs::FileExt, path::Path};

use treepie::{Database, Error, RepairOutcome, WholePage, ids::PageId};

const PAGE_SIZE: u64 = 8192;
const KEYS: usize = 2000;
/// Longer than any page here.
const LEN_MAX: usize = 1 << 20;

fn key(n: usize) -> String {
    format!("key-{n:05}")
}

fn flip(folder: &Path, page: PageId) {
    let file = fs::OpenOptions::new().read(true).write(true).open(folder.join("data"));
    let file = file.expect("it is there");
    let offset = u64::from(page.0) * PAGE_SIZE + 4321;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("it is there");
    file.write_all_at(&[byte[0] ^ 8], offset).expect("it is there");
}

/// The leaf that has an entry, or the first page of the run that has its value.
fn page_of(folder: &Path, bytes: &[u8]) -> PageId {
    let data = fs::read(folder.join("data")).expect("it is there");
    let mut pages = data.chunks_exact(PAGE_SIZE as usize);
    let found = pages.position(|page| page.windows(bytes.len()).any(|part| part == bytes));
    PageId(u32::try_from(found.expect("it is there")).expect("few pages"))
}

/// Two databases with one history and the same entries, all of them in their data files.
fn twins() -> (tempfile::TempDir, Database, Database) {
    let dir = tempfile::tempdir().expect("a folder");
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let db = Database::open(&first).expect("a database");
    db.write(|tx| {
        let mut tree = tx.tree("t")?;
        for n in 0..KEYS {
            tree.insert(key(n), format!("{n}=value"))?;
        }
        tree.insert("large", "large=value".repeat(9000))?;
        tx.tree("other")?.insert("a", "1")
    })
    .expect("it is taken");
    db.close().expect("it closes");
    fs::create_dir_all(second.join("journal")).expect("a folder");
    for part in ["", "journal"] {
        for entry in fs::read_dir(first.join(part)).expect("a folder") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                fs::copy(entry.path(), second.join(part).join(entry.file_name())).expect("a copy");
            }
        }
    }
    let (first, second) = (Database::open(first), Database::open(second));
    (dir, first.expect("a database"), second.expect("a database"))
}

fn get(db: &Database, key: &str) -> treepie::Result<Option<Vec<u8>>> {
    let snapshot = db.read()?;
    Ok(snapshot.tree("t")?.get(key)?.map(<[u8]>::to_vec))
}

fn whole(db: &Database, page: PageId) -> WholePage {
    db.whole_page(page, LEN_MAX).expect("whole").expect("it is in use")
}

#[test]
fn damaged_leaf_and_damaged_run_are_noted_when_read_and_repaired_for_good() {
    let (_dir, first, second) = twins();
    let folder = second.path().to_owned();
    let leaf = page_of(&folder, b"700=value");
    let run = page_of(&folder, b"large=valuelarge=value");
    for (page, key) in [(leaf, key(700)), (run, "large".to_owned())] {
        flip(&folder, page);
        assert!(matches!(get(&second, &key), Err(Error::Corrupt { .. })), "{key}");
        let noted = second.damaged_pages();
        assert_eq!(noted.iter().map(|damaged| damaged.page).collect::<Vec<_>>(), [page]);
        assert!(second.whole_page(page, LEN_MAX).is_err(), "it gave a damaged page away");
        let outcome = second.repair_page(&whole(&first, page)).expect("it is written");
        assert_eq!(outcome, RepairOutcome::Written);
        assert_eq!(get(&second, &key).expect("whole"), get(&first, &key).expect("whole"));
        assert!(second.damaged_pages().is_empty());
    }
    assert_eq!((second.stats().pages_damaged, second.stats().pages_repaired), (0, 2));
    second.close().expect("it closes");
    let again = Database::open(folder).expect("it opens");
    assert!(again.check().expect("it runs").is_clean());
}

#[test]
fn page_of_another_state_is_not_written_and_a_whole_one_stays() {
    let (_dir, first, second) = twins();
    let folder = second.path().to_owned();
    let (leaf, other) = (page_of(&folder, b"700=value"), page_of(&folder, b"1500=value"));
    assert_ne!(leaf, other);
    let old = whole(&first, leaf);
    // The page is whole.
    assert_eq!(second.repair_page(&old).expect("no error"), RepairOutcome::NotNeeded);
    flip(&folder, leaf);
    flip(&folder, other);
    // This database goes on before the damage is seen: the page may have changed by then.
    second.write(|tx| tx.tree("other")?.insert("a", "2")).expect("it is taken");
    assert!(second.verify_page(leaf).is_err());
    assert_eq!(second.repair_page(&old).expect("no error"), RepairOutcome::Late);
    // The other one is ahead, and has changed one of the two pages.
    for n in 0..3 {
        first.write(|tx| tx.tree("t")?.insert(key(700), format!("{n}"))).expect("it is taken");
    }
    assert!(second.verify_page(other).is_err());
    assert_eq!(second.repair_page(&whole(&first, other)).expect("no error"), RepairOutcome::Early);
    assert_eq!(second.repair_page(&whole(&first, leaf)).expect("no error"), RepairOutcome::Waits);
    // What waits is not in the file, and a page that rotted on the way is nothing at all.
    assert!(matches!(get(&second, &key(700)), Err(Error::Corrupt { .. })));
    let mut rotten = whole(&first, other);
    rotten.bytes[5000] ^= 1;
    assert!(matches!(second.repair_page(&rotten), Err(Error::Received { .. })));
    assert!(matches!(get(&second, &key(1500)), Err(Error::Corrupt { .. })));
}

#[test]
fn page_that_is_not_in_use_or_is_too_long_is_not_given_away() {
    let (_dir, first, _second) = twins();
    let run = page_of(first.path(), b"large=valuelarge=value");
    assert_eq!(first.whole_page(run, 8192).expect("no error"), None);
    assert_eq!(first.whole_page(PageId(0), LEN_MAX).expect("no error"), None);
    assert_eq!(first.whole_page(PageId(u32::MAX), LEN_MAX).expect("no error"), None);
    let leaf = page_of(first.path(), b"700=value");
    first.write(|tx| tx.tree("t")?.remove_range::<&str>(..).map(drop)).expect("it is taken");
    assert_eq!(first.whole_page(leaf, LEN_MAX).expect("no error"), None);
}
