//! What happens between two steps inside, where no caller can stand.

use std::{fs, path::Path};

use super::{sparse::sparse, *};
use crate::{
    format::{node, page},
    ids::{PageId, TreeId},
};

/// Options without anything in the background, and without a checkpoint at the end.
fn options() -> Options {
    let options = Options::new().create(true).page_size(4096).map_size(1 << 20);
    options.background_threads(false).checkpoint_on_close(false)
}

fn insert(db: &Database, tree: &str, value: &[u8]) -> Lsn {
    db.write(|tx| tx.tree(tree)?.insert("key", value)).expect("a commit").lsn
}

/// What a kill at this moment leaves, in a folder of its own.
fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("journal")).expect("a folder");
    fs::copy(from.join("data"), to.join("data")).expect("a copy of the data file");
    for entry in fs::read_dir(from.join("journal")).expect("the journal is a folder") {
        let entry = entry.expect("an entry");
        let copy = to.join("journal").join(entry.file_name());
        fs::copy(entry.path(), copy).expect("a copy of a segment");
    }
}

/// A reader that is stopped inside its registration shows an older LSN for a moment. When that is
/// after the checkpoint has looked how far it may go, and before it writes, it writes less.
#[test]
fn checkpoint_vouches_only_for_what_its_own_pass_has_written() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("db");
    let db = options().open(&path).expect("a new database opens");
    let older = insert(&db, "first", &[1; 900]);
    let newest = insert(&db, "second", &[2; 900]);
    // What the older commit showed goes, as with any commit that follows.
    let pager = &db.shared.core.pager;
    pager.directory.change(&pager.registry).finish(&pager.pool, false);
    // The bound is the first scan, the pass's own registration the second.
    db.shared.core.pager.registry.stop_reader(older, 1);
    let checkpointed = db.checkpoint().expect("a checkpoint");

    let killed = dir.path().join("killed");
    copy_files(&path, &killed);
    let copy = options().create(false).open(&killed).expect("what a kill left opens");
    let snapshot = copy.read().expect("a snapshot");
    assert_eq!(snapshot.lsn(), newest);
    for (tree, value) in [("first", [1; 900]), ("second", [2; 900])] {
        let tree = snapshot.tree(tree).expect("what was committed is there");
        assert_eq!(tree.get("key").expect("a look-up"), Some(&value[..]));
    }
    assert!(copy.check().expect("a check").is_clean());
    assert!(checkpointed < older, "the pass waited for the reader, and gave up");

    db.shared.core.pager.registry.release_reader();
    assert_eq!(db.checkpoint().expect("a checkpoint"), newest);
}

fn leaf(id: PageId) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    page::init(&mut bytes, id, page::PageKind::Leaf, 0, TreeId(9));
    node::init_leaf(&mut bytes);
    let checksum = page::compute_checksum(&bytes);
    page::set_checksum(&mut bytes, checksum);
    bytes
}

/// Where an offset in 31 or 32 bits would end.
#[test]
fn pages_on_both_sides_of_2_and_4_gib_are_read_as_they_were_written() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = options().disk(Arc::new(sparse())).map_size(5 << 30);
    let db = options.open(dir.path().join("db")).expect("a new database opens");
    let lsn = insert(&db, "first", &[1; 900]);
    let pager = &db.shared.core.pager;
    let places =
        [1_u64 << 31, 1 << 32].map(|offset| u32::try_from(offset / 4096).expect("32 bits"));
    let places: Vec<PageId> =
        places.iter().flat_map(|page| [page - 1, *page, page + 1]).map(PageId).collect();
    // Backwards, so that the file grows in one step, and then two pages with one call.
    for id in places.iter().rev() {
        pager.write(*id, &leaf(*id)).expect("a write");
    }
    for pair in places.chunks_exact(3) {
        pager.write(pair[0], &[leaf(pair[0]), leaf(pair[1])].concat()).expect("a write");
    }
    pager.sync().expect("a sync");
    for id in places {
        assert_eq!(pager.page(id, lsn).expect("a page"), leaf(id), "page {id}");
        pager.page_verified_again(id, lsn).expect("a page");
    }
    assert!(fs::metadata(dir.path().join("db/data")).expect("the file").len() > 1 << 32);
    assert!(db.check().expect("a check").is_clean(), "what is at the beginning is untouched");
}
