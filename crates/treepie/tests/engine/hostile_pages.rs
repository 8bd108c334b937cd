//! Pages that are valid by themselves, with right checksums, and lie about each other. Each test
//! makes one such database by hand; what fuzzers make is in the corpus of the testkit.

use std::path::Path;

use treepie::{Database, Error, ids::PageId};
use treepie_testkit::{
    SimDisk,
    hostile::{
        page::{BRANCH_KIND, Entry, LEAF_KIND, lay_out, seal},
        stamp::{
            FRAME_SIZE, PAGE_SIZE, RECORD_HEADER_SIZE, put, stamp_frame_and_record, stamp_page,
            u64_at,
        },
        template::{self, DATA, DIR, Template, options},
        visit,
    },
};

use crate::{
    harness::{self, assert_says, insert, remove},
    others::{forge, place_of, quiet, runs},
};

/// The catalog's root.
const CATALOG_ROOT: usize = 18;

/// A data file that is being forged.
pub struct Forger {
    /// What it began with.
    pub template: &'static Template,
    /// The data file.
    pub data: Vec<u8>,
}

impl Forger {
    /// Nothing forged yet.
    pub fn new() -> Forger {
        let template = &template::all()[0];
        Forger { template, data: template.data().to_vec() }
    }

    /// The bytes of a page.
    pub fn page(&mut self, number: usize) -> &mut [u8] {
        &mut self.data[number * PAGE_SIZE..][..PAGE_SIZE]
    }

    /// Adds zeroed pages behind the file; returns the number of the first.
    fn extend(&mut self, count: usize) -> usize {
        let first = self.data.len() / PAGE_SIZE;
        self.data.resize((first + count) * PAGE_SIZE, 0);
        first
    }

    /// Number and root page of a tree.
    pub fn tree(&self, name: &str) -> (u32, usize) {
        let db = options(&self.template.disk.settled(3)).open(DIR).expect("it is whole");
        let trees = db.read().and_then(|snapshot| snapshot.trees()).expect("it is whole");
        let info = trees.iter().find(|info| info.name == name.as_bytes()).expect("it is there");
        let root = info.root.0 as usize;
        let owner = &self.data[root * PAGE_SIZE + 20..][..4];
        (u32::from_le_bytes(owner.try_into().expect("4 bytes")), root)
    }

    /// Where the catalog holds the state of a tree, in the data file.
    fn state(&self, (tree, root): (u32, usize)) -> usize {
        let fields = [tree.to_le_bytes(), (root as u32).to_le_bytes()].concat();
        let catalog = &self.data[CATALOG_ROOT * PAGE_SIZE..][..PAGE_SIZE];
        let at = catalog.windows(8).position(|bytes| bytes == fields).expect("a leaf holds it");
        CATALOG_ROOT * PAGE_SIZE + at - 4
    }

    fn put_node(&mut self, number: usize, (kind, level, tree): (u8, u8, u32), entries: &[Entry]) {
        let page = self.page(number);
        page.fill(0);
        put(page, 16, &[kind, level]);
        put(page, 20, &tree.to_le_bytes());
        lay_out(page, kind, b"", entries);
        seal(&mut self.data, number);
    }

    fn disk(&self) -> SimDisk {
        let disk = self.template.disk.settled(3);
        disk.rot(Path::new(DATA), &self.data);
        disk
    }

    fn open(&self) -> Database {
        options(&self.disk()).checkpoint_on_close(false).open(DIR).expect("it opens")
    }
}

fn leaf_entry(key: &str) -> Entry {
    Entry { suffix: key.as_bytes().to_vec(), rest: vec![7; 40], ..Entry::default() }
}

fn child(separator: &[u8], page: usize) -> Entry {
    Entry { suffix: separator.to_vec(), child: page as u32, ..Entry::default() }
}

fn assert_corrupt<T>(result: treepie::Result<T>, words: &str) {
    match result {
        Err(error @ Error::Corrupt { .. }) => {
            assert!(error.to_string().contains(words), "{error}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("damage was not found"),
    }
}

/// Where the lowest branch of a tree of two levels has its children's numbers.
pub fn children(root: &[u8]) -> usize {
    assert_eq!(root[16..18], [BRANCH_KIND, 1], "the tree of the template has two levels");
    32 + usize::from(root[24]).next_multiple_of(4) + 6 * usize::from(root[18])
}

/// The pages of the two leaves below a root that is made a branch over them.
fn two_leaves(forger: &mut Forger) -> [usize; 2] {
    let (tree, root) = forger.tree("numbers");
    let children = children(forger.page(root));
    let page = forger.page(root);
    let child_at = |at: usize| page[children + 4 * at] as usize;
    let leaves = [child_at(0), child_at(1)];
    let branch = [child(b"", leaves[0]), child(b"k20", leaves[1])];
    forger.put_node(root, (BRANCH_KIND, 1, tree), &branch);
    leaves
}

#[test]
fn removal_beside_a_leaf_whose_keys_overlap_is_no_panic() {
    let mut forger = Forger::new();
    let (tree, _) = forger.tree("numbers");
    let [left, right] = two_leaves(&mut forger);
    let keys: Vec<String> = (10..20).map(|number| format!("k{number}")).collect();
    let entries: Vec<Entry> = keys.iter().map(|key| leaf_entry(key)).collect();
    forger.put_node(left, (LEAF_KIND, 0, tree), &entries);
    // What the first and the last key of both leaves begin with, this one does not.
    forger.put_node(right, (LEAF_KIND, 0, tree), &[leaf_entry("a"), leaf_entry("k99")]);
    let db = forger.open();
    let removed = db.write(|tx| {
        let mut tree = tx.tree("numbers")?;
        keys[1..].iter().try_for_each(|key| tree.remove(key).map(|_| ()))
    });
    if let Err(error) = removed {
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
    assert!(!db.check().expect("a check begins").is_clean());
    let snapshot = db.read().expect("a snapshot");
    let numbers = snapshot.tree("numbers").expect("a tree");
    assert!(numbers.iter().any(|entry| entry.is_err()), "keys that descend are damage");
}

/// Sixteen levels of branches, each with a hundred children that are one and the same page.
fn endless(leaf: &[Entry]) -> Forger {
    let mut forger = Forger::new();
    let (tree, root) = forger.tree("numbers");
    let state = forger.state((tree, root));
    forger.data[state + 1] = 16;
    seal(&mut forger.data, CATALOG_ROOT);
    let first = forger.extend(15);
    let mut below = first + 14;
    forger.put_node(below, (LEAF_KIND, 0, tree), leaf);
    for level in 1..16 {
        let number = if level == 15 { root } else { first + level as usize - 1 };
        let mut children = vec![child(b"", below)];
        children.extend((1..100).map(|at| child(&[at], below)));
        forger.put_node(number, (BRANCH_KIND, level, tree), &children);
        below = number;
    }
    forger
}

#[test]
fn walk_along_empty_leaves_that_are_used_many_times_ends() {
    let db = endless(&[]).open();
    let snapshot = db.read().expect("a snapshot");
    let tree = snapshot.tree("numbers").expect("its state is in order");
    assert_corrupt(tree.iter().next().expect("an end is an answer too"), "the leaf is empty");
    assert_corrupt(tree.iter().next_back().expect("from behind"), "the leaf is empty");
    let removed = db.write(|tx| tx.tree("numbers")?.remove_range("a".."b"));
    assert_corrupt(removed, "the leaf is empty");
    assert!(!db.check().expect("a check ends").is_clean());
    assert!(!db.report().expect("a report ends").damage.is_empty());
}

#[test]
fn walk_along_leaves_that_are_used_many_times_ends_with_an_error() {
    let db = endless(&[leaf_entry("one"), leaf_entry("two")]).open();
    let snapshot = db.read().expect("a snapshot");
    let tree = snapshot.tree("numbers").expect("its state is in order");
    let entries: Vec<_> = tree.iter().collect();
    assert_eq!(entries.len(), 3, "a leaf, and an error");
    assert_corrupt(entries.into_iter().next_back().expect("three"), "not between those");
    assert_eq!(tree.iter().rev().count(), 3);
    assert!(!db.check().expect("a check ends").is_clean());
}

#[test]
fn tree_whose_root_is_the_catalogs_is_refused() {
    let mut forger = Forger::new();
    let tree = forger.tree("birds");
    let state = forger.state(tree);
    put(&mut forger.data, state + 8, &(CATALOG_ROOT as u32).to_le_bytes());
    seal(&mut forger.data, CATALOG_ROOT);
    let db = forger.open();
    assert_corrupt(db.read().expect("a snapshot").tree("birds"), "the root of the catalog");
    let removed = db.write(|tx| tx.tree("birds")?.remove("").map(|_| ()));
    assert_corrupt(removed, "the root of the catalog");
    assert!(!visit(&forger.disk()).clean);
}

#[test]
fn catalog_leaf_below_a_users_branch_makes_a_commit_fail_and_not_panic() {
    let mut forger = Forger::new();
    let (tree, root) = forger.tree("numbers");
    let branch = [child(b"", CATALOG_ROOT), child(b"zz", CATALOG_ROOT)];
    forger.put_node(root, (BRANCH_KIND, 1, tree), &branch);
    let db = forger.open();
    let removed = db.write(|tx| tx.tree("numbers")?.remove("").map(|_| ()));
    assert!(removed.is_err());
    assert_eq!(db.read().and_then(|s| s.tree("birds").map(|tree| tree.len())).expect("whole"), 3);
    assert!(!visit(&forger.disk()).clean);
}

#[test]
fn page_that_is_newer_than_the_last_record_is_damage_and_not_an_answer() {
    let mut forger = Forger::new();
    let (_, root) = forger.tree("birds");
    let lsn = u64_at(forger.page(root), 8);
    assert!(lsn <= forger.template.last.0);
    let newer = forger.template.last.0 + 1;
    put(forger.page(root), 8, &newer.to_le_bytes());
    seal(&mut forger.data, root);
    let db = forger.open();
    let snapshot = db.read().expect("a snapshot");
    let tree = snapshot.tree("birds").expect("its state is in order");
    assert_corrupt(tree.get("pica pica"), "newer than the last record");
    assert!(!db.check().expect("a check begins").is_clean());
}

#[test]
fn one_page_that_two_trees_own_is_found_and_dropping_both_is_no_panic() {
    let mut forger = Forger::new();
    let (birds, large) = (forger.tree("birds"), forger.tree("large"));
    let state = forger.state(large);
    put(&mut forger.data, state + 8, &(birds.1 as u32).to_le_bytes());
    seal(&mut forger.data, CATALOG_ROOT);
    let db = forger.open();
    let report = db.check().expect("a check begins");
    assert!(report.problems.iter().any(|problem| problem.what.contains("used twice")));
    let first = db.write(|tx| tx.drop_tree("birds"));
    assert!(first.is_ok(), "{first:?}");
    let second = db.write(|tx| tx.drop_tree("large"));
    assert!(matches!(second, Err(Error::Corrupt { .. })), "{second:?}");
    assert!(!visit(&forger.disk()).clean);
}

/// A page number behind the end of the file, in each place that holds one.
#[test]
fn page_numbers_behind_the_end_of_the_file_are_errors() {
    for number in [0, 1, 5_000, u32::MAX - 1, u32::MAX] {
        let mut forger = Forger::new();
        let (tree, root) = forger.tree("numbers");
        let branch = [child(b"", number as usize), child(b"m", number as usize)];
        forger.put_node(root, (BRANCH_KIND, 1, tree), &branch);
        let seen = visit(&forger.disk());
        assert!(seen.opened && !seen.clean && !seen.readable, "{number}: {seen:?}");

        let mut forger = Forger::new();
        let (tree, root) = forger.tree("birds");
        let run = [u64::from(number).to_le_bytes(), (1_u64 << 30).to_le_bytes()].concat();
        let entry = Entry { suffix: b"pica".to_vec(), rest: run, is_run: true, ..Entry::default() };
        forger.put_node(root, (LEAF_KIND, 0, tree), &[entry]);
        let seen = visit(&forger.disk());
        assert!(seen.opened && !seen.clean && !seen.readable, "run {number}: {seen:?}");
    }
}

/// Puts a record with one page change behind the end of a journal.
fn append(disk: &SimDisk, template: &Template, change: &[u8]) {
    let mut segment = disk.file_bytes(&template.end.0).expect("the newest segment");
    let mut bytes = vec![0; FRAME_SIZE + RECORD_HEADER_SIZE];
    bytes.extend(change);
    let (frame, record) = bytes.split_at_mut(FRAME_SIZE);
    let lsn = (template.last.0 + 1).to_le_bytes();
    put(frame, 0, b"TPFR");
    put(frame, 8, &segment[48..56]);
    put(frame, 16, &(record.len() as u32).to_le_bytes());
    put(frame, 20, &1_u32.to_le_bytes());
    put(frame, 24, &lsn);
    put(record, 0, b"TPRC");
    put(record, 8, &[1, 0, 1, 0, 0, 16, 0, 0]);
    put(record, 16, &lsn);
    put(record, 40, &(change.len() as u64).to_le_bytes());
    put(record, 48, &(change.len() as u64).to_le_bytes());
    put(record, 80, &1_u32.to_le_bytes());
    stamp_frame_and_record(frame, record, template.last.1);
    segment.truncate(template.end.1);
    segment.resize(template.end.1, 0);
    segment.extend(&bytes);
    segment.resize(segment.len().next_multiple_of(PAGE_SIZE), 0);
    disk.rot(&template.end.0, &segment);
}

/// A record puts a run over a leaf that was read, and so verified, before the run was written.
#[test]
fn leaf_that_a_run_was_written_over_is_verified_again() {
    let mut forger = Forger::new();
    let (tree, root) = forger.tree("numbers");
    let children = children(forger.page(root));
    let page = forger.page(root);
    let leaves = [1, 2].map(|at: usize| page[children + 4 * at] as usize);
    let leaf = leaves.into_iter().find(|leaf| leaf - 1 != root).expect("one of two");
    // The second page of the run looks like a leaf whose cells begin before the page.
    let mut run = vec![0; 2 * PAGE_SIZE];
    put(&mut run, 4, &(leaf as u32 - 1).to_le_bytes());
    put(&mut run, 8, &(forger.template.last.0 + 1).to_le_bytes());
    put(&mut run, 16, &[3]);
    put(&mut run, 20, &tree.to_le_bytes());
    put(&mut run, 24, &(PAGE_SIZE as u64 * 2 - 32).to_le_bytes());
    put(&mut run, PAGE_SIZE + 16, &[LEAF_KIND, 0, 1, 0]);
    stamp_page(&mut run);
    let mut change = vec![2, 0, 0, 0];
    change.extend((leaf as u32 - 1).to_le_bytes());
    change.extend([2, 0, 0, 0, 0, 0, 0, 0]);
    change.extend((run.len() as u64).to_le_bytes());
    change.extend(&run);
    let disk = forger.disk();
    append(&disk, forger.template, &change);
    let db = options(&disk).checkpoint_on_close(false).open(DIR).expect("it opens");
    let keys = |db: &Database| -> Vec<treepie::Result<Vec<u8>>> {
        let snapshot = db.read().expect("a snapshot");
        let tree = snapshot.tree("numbers").expect("its state is in order");
        tree.iter().map(|entry| entry.map(|(key, _)| key.to_vec())).collect()
    };
    let before = keys(&db);
    assert!(before.iter().all(Result::is_ok), "the leaf is still in the file");
    db.checkpoint().expect("the run is written over it");
    let damaged = keys(&db).into_iter().find_map(Result::err);
    assert_says(&damaged.expect("what is there now is no leaf"), &["checksum"]);
    for key in before.into_iter().flatten() {
        if let Err(error) = db.write(|tx| tx.tree("numbers")?.insert(&key, vec![9; 200])) {
            assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        }
    }
}

/// Else all the others would show nothing.
#[test]
fn template_is_clean_before_anything_is_forged() {
    assert!(Forger::new().open().check().expect("a check begins").is_clean());
    let seen = visit(&Forger::new().disk());
    assert!(seen.opened && seen.clean && seen.readable && seen.written, "{seen:?}");
}

/// Freeing it would make a record that no recovery accepts.
#[test]
fn a_value_past_the_last_page_is_not_freed() {
    let disk = SimDisk::new(1);
    let db = quiet(&disk).checkpoint_on_close(true).open(DIR).expect("a new database opens");
    harness::write(&db, &[insert("t", "k", &[7; 3500])]).expect("a commit");
    let run = runs(&db)[0];
    let leads = |id: &PageId| {
        let dump = db.page(*id).expect("a page");
        let number = run.0.to_le_bytes();
        dump.kind == "leaf" && dump.bytes[32..].windows(4).any(|window| window == number)
    };
    let leaf = (18..400).map(PageId).find(leads).expect("a leaf leads to the value");
    db.close().expect("closing");
    let rest = disk.settled(2);
    for past in [u32::MAX, u32::MAX - 1, 1 << 31] {
        let disk = forge(&rest, leaf, |page| {
            let at = place_of(page, run);
            page[at..at + 4].copy_from_slice(&past.to_le_bytes());
        });
        let db = quiet(&disk).open(DIR).expect("it opens");
        let removed = harness::write(&db, &[remove("t", "k")]);
        assert!(matches!(removed, Err(Error::Corrupt { .. })), "{past}: {removed:?}");
        harness::write(&db, &[insert("other", "k", b"v")]).expect("other trees go on");
        drop(db);
        quiet(&disk.restart()).open(DIR).expect("it opens again");
    }
}
