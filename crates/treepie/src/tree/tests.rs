//! The tree against a `BTreeMap`, against hostile keys, and against damaged pages.

use std::{
    collections::{BTreeMap, HashSet},
    ops::{Bound, RangeBounds},
};

use crate::{
    error::Error,
    format::node::{self, Branch, Leaf},
    ids::{PageId, TreeId},
    limits::key_len_max,
    pager::access::PageRead,
};

use super::{
    Cursor, Edit, Hint, Key, Range, TreeState, bound::prefix_end, check, contains_key, create,
    drop_pages, first, get, last, store::MemoryStore,
};

/// A small generator of random numbers (splitmix64).
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

type MakeKey = fn(&mut Random, usize) -> Vec<u8>;

/// Kinds of keys that trees find hard, each with a name to print.
const KEYS: [(&str, MakeKey); 8] = [
    ("short, of few bytes", |r, _| {
        let len = r.below(6);
        (0..len).map(|_| [0, 1, b'a', 0xfe, 0xff][r.below(5)]).collect()
    }),
    ("random", |r, _| {
        let len = 1 + r.below(40);
        r.bytes(len)
    }),
    ("decimal", |r, _| format!("users/{:08}/name", r.below(20_000)).into_bytes()),
    ("of any length", |r, page_size| {
        let len = r.below(key_len_max(page_size) + 1);
        let mut key = vec![b'x'; len];
        key.extend_from_slice(&(r.below(3000) as u16).to_be_bytes());
        key.truncate(key_len_max(page_size));
        key
    }),
    ("of the greatest length, differing late", |r, page_size| {
        let mut key = vec![b'p'; key_len_max(page_size)];
        let at = key.len() - 2;
        key[at..].copy_from_slice(&(r.below(3000) as u16).to_be_bytes());
        key
    }),
    ("of the greatest length, differing early", |r, page_size| {
        let mut key = vec![b'p'; key_len_max(page_size)];
        key[..2].copy_from_slice(&(r.below(3000) as u16).to_be_bytes());
        key
    }),
    ("with shared prefixes of every length", |r, page_size| {
        let mut key = vec![b's'; r.below(key_len_max(page_size) - 4)];
        let tail = r.below(4);
        key.extend(r.bytes(tail));
        key
    }),
    ("all 0xff", |r, page_size| vec![0xff; r.below(key_len_max(page_size) + 1)]),
];

struct Harness {
    store: MemoryStore,
    state: TreeState,
    hint: Hint,
    model: BTreeMap<Vec<u8>, Vec<u8>>,
    random: Random,
    page_size: usize,
    make_key: MakeKey,
}

impl Harness {
    fn new(page_size: usize, seed: u64, make_key: MakeKey) -> Harness {
        let mut store = MemoryStore::new(page_size);
        let state = create(&mut store, TreeId(2)).expect("memory does not fail");
        let (hint, model, random) = (Hint::default(), BTreeMap::new(), Random(seed));
        Harness { store, state, hint, model, random, page_size, make_key }
    }

    fn key(&mut self) -> Vec<u8> {
        (self.make_key)(&mut self.random, self.page_size)
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(20) {
            0..10 => self.random.below(30),
            10..17 => self.random.below(300),
            17..19 => self.random.below(self.page_size / 3),
            _ => self.random.below(self.page_size * 3),
        };
        vec![self.random.next() as u8; len]
    }

    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let (store, state, hint) = (&mut self.store, &mut self.state, &mut self.hint);
        let was_there =
            Edit::new(store, state, hint).insert(&key, &value).expect("memory does not fail");
        assert_eq!(was_there, self.model.insert(key, value).is_some());
    }

    fn remove(&mut self, key: &[u8]) {
        let (store, state, hint) = (&mut self.store, &mut self.state, &mut self.hint);
        let was_there = Edit::new(store, state, hint).remove(key).expect("memory does not fail");
        assert_eq!(was_there, self.model.remove(key).is_some());
    }

    fn step(&mut self, insert_percent: usize) {
        let key = self.key();
        match self.random.below(100) {
            n if n < insert_percent => {
                let value = self.value();
                self.insert(key, value);
            }
            n if n < 92 => {
                let other = self.model.range(key.clone()..).next().map(|(key, _)| key.clone());
                let key = if n % 4 == 0 { key } else { other.unwrap_or(key) };
                self.remove(&key);
            }
            n if n < 96 => {
                let found = get(&self.store, &self.state, &key).expect("memory does not fail");
                assert_eq!(found, self.model.get(&key).map(Vec::as_slice));
                let found = contains_key(&self.store, &self.state, &key);
                assert_eq!(found.expect("memory does not fail"), self.model.contains_key(&key));
            }
            n if n < 98 => self.compare_range(&key),
            _ => self.compare_cursor(&key),
        }
    }

    /// Removes the entries from about `key` on, about `len` of them.
    fn remove_range(&mut self, key: Vec<u8>, len: usize) {
        let end = self.model.range(key.clone()..).nth(len).map(|entry| entry.0.clone());
        let upper = if let Some(end) = end { self.bound(end) } else { Bound::Unbounded };
        let lower = if len > 0 { Bound::Included(key) } else { self.bound(key) };
        let bounds = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
        let before = self.model.len();
        self.model.retain(|key, _| !RangeBounds::<[u8]>::contains(&bounds, key.as_slice()));
        let edit = &mut Edit::new(&mut self.store, &mut self.state, &mut self.hint);
        let count = edit.remove_range(bounds.0, bounds.1).expect("memory does not fail");
        assert_eq!(count, (before - self.model.len()) as u64, "{bounds:?}");
    }

    fn bound(&mut self, key: Vec<u8>) -> Bound<Vec<u8>> {
        match self.random.below(5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Included(key),
            _ => Bound::Excluded(key),
        }
    }

    /// Compares a range, taken from both ends at random.
    fn compare_range(&mut self, key: &[u8]) {
        let other = self.key();
        let (start, end) = if self.random.below(4) == 0 {
            let len = self.random.below(key.len() + 1);
            let end = prefix_end(&key[..len]).map(|key| key.as_slice().to_vec());
            (Bound::Included(key[..len].to_vec()), end)
        } else {
            (self.bound(key.to_vec()), self.bound(other))
        };
        let inside = |key: &[u8]| {
            let low = match &start {
                Bound::Unbounded => true,
                Bound::Included(start) => key >= start.as_slice(),
                Bound::Excluded(start) => key > start.as_slice(),
            };
            low && match &end {
                Bound::Unbounded => true,
                Bound::Included(end) => key <= end.as_slice(),
                Bound::Excluded(end) => key < end.as_slice(),
            }
        };
        let mut expected = self.model.iter().filter(|(key, _)| inside(key));
        let bounds = (start.as_ref().map(Vec::as_slice), end.as_ref().map(Vec::as_slice));
        let mut range = Range::new(&self.store, &self.state, bounds.0, bounds.1);
        let back_percent = [0, 100, 50, 5, 95][self.random.below(5)];
        let limit = if self.random.below(3) > 0 { 50 } else { usize::MAX };
        for _ in 0..limit {
            let (found, wanted) = if self.random.below(100) < back_percent {
                (range.next_back(), expected.next_back())
            } else {
                (range.next(), expected.next())
            };
            let found = found.map(|entry| entry.expect("memory does not fail"));
            assert_eq!(
                found.map(|(key, value)| (key.to_vec(), value)),
                wanted.map(|(key, value)| (key.clone(), value.as_slice()))
            );
            if wanted.is_none() {
                assert!(range.next().is_none() && range.next_back().is_none());
                break;
            }
        }
    }

    fn compare_cursor(&mut self, key: &[u8]) {
        let mut cursor = Cursor::new(&self.store, &self.state);
        let mut forward = self.model.range(key.to_vec()..);
        let mut placed = cursor.seek(key).expect("memory does not fail");
        for _ in 0..20 {
            let wanted = forward.next();
            assert_eq!(placed, wanted.is_some());
            assert_eq!(cursor.key().map(|key| key.to_vec()), wanted.map(|entry| entry.0.clone()));
            placed = cursor.next().expect("memory does not fail");
        }
        let mut backward = self.model.range(..=key.to_vec());
        let mut placed = cursor.seek_for_prev(key).expect("memory does not fail");
        for _ in 0..20 {
            let wanted = backward.next_back();
            assert_eq!(placed, wanted.is_some());
            assert_eq!(cursor.key().map(|key| key.to_vec()), wanted.map(|entry| entry.0.clone()));
            let value = cursor.value().expect("memory does not fail");
            assert_eq!(value, wanted.map(|entry| entry.1.as_slice()));
            placed = cursor.prev().expect("memory does not fail");
        }
    }

    /// Checks the whole tree, and that no page leaked.
    fn check(&self) {
        self.store.validate_all();
        let mut claimed = HashSet::new();
        let mut claim =
            |id: PageId, count: u32| (id.0..id.0 + count).all(|page| claimed.insert(page));
        let (found, damage) = check(&self.store, &self.state, &mut claim);
        assert_eq!(damage, []);
        assert_eq!(self.state.entries, self.model.len() as u64);
        let payload_len: usize =
            self.model.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!(self.state.payload_len, payload_len as u64);
        let pages = (found.leaf_pages + found.branch_pages) as usize;
        assert_eq!(self.store.used_count(), (pages, found.overflow_pages as usize));
        let entry = |entry: Option<(&Vec<u8>, &Vec<u8>)>| entry.map(|e| (e.0.clone(), e.1.clone()));
        let own = |entry: Option<(Key<'_>, &[u8])>| entry.map(|e| (e.0.to_vec(), e.1.to_vec()));
        let found = first(&self.store, &self.state).expect("memory does not fail");
        assert_eq!(own(found), entry(self.model.first_key_value()));
        let found = last(&self.store, &self.state).expect("memory does not fail");
        assert_eq!(own(found), entry(self.model.last_key_value()));
        let all = Range::new(&self.store, &self.state, Bound::Unbounded, Bound::Unbounded);
        let all = all.map(|entry| entry.expect("memory does not fail"));
        assert!(
            all.map(|(k, v)| (k.to_vec(), v.to_vec()))
                .eq(self.model.iter().map(|(k, v)| (k.clone(), v.clone())))
        );
    }

    fn clear(&mut self) {
        Edit::new(&mut self.store, &mut self.state, &mut self.hint)
            .clear()
            .expect("memory does not fail");
        self.model.clear();
    }
}

fn run_model(page_size: usize, seed: u64, steps: usize) {
    for (name, make_key) in KEYS {
        eprintln!("keys {name}, page size {page_size}, seed {seed}");
        let mut harness = Harness::new(page_size, seed, make_key);
        for step in 0..steps {
            harness.step(if step / 3000 % 2 == 0 { 70 } else { 25 });
            if step % 1000 == 999 {
                harness.check();
            }
            if harness.random.below(15_000) == 0 {
                harness.clear();
                harness.check();
            }
        }
        while let Some((key, _)) = harness.model.first_key_value() {
            let key = key.clone();
            harness.remove(&key);
        }
        harness.check();
        assert_eq!(harness.state.depth, 1);
        drop_pages(&mut harness.store, &harness.state).expect("memory does not fail");
        assert_eq!(harness.store.used_count(), (0, 0));
    }
}

/// Fills trees of all kinds of keys by turns, and removes ranges of every length from them.
fn run_range_model(page_size: usize, seed: u64) {
    for (name, make_key) in KEYS {
        let seed = Random(seed ^ name.len() as u64).next();
        println!("keys {name}, pages of {page_size}, seed {seed:#x}");
        let mut harness = Harness::new(page_size, seed, make_key);
        for round in 0..8 {
            for _ in 0..600 {
                let (key, value) = (harness.key(), harness.value());
                // Every second round without values in runs: then whole leaves are not looked at.
                let value = value[..value.len().min([usize::MAX, 900][round % 2])].to_vec();
                harness.insert(key, value);
            }
            for _ in 0..12 {
                let (key, len) = (harness.key(), [0, 1, 3, 30, 300][harness.random.below(5)]);
                harness.remove_range(key, len);
                harness.check();
            }
            if round % 2 == 1 {
                harness.remove_range(Vec::new(), usize::MAX);
                harness.check();
            }
        }
    }
}

#[test]
fn removed_ranges_equal_the_model_in_pages_of_either_size() {
    run_range_model(4096, 0x7e57);
    run_range_model(8192, 0x7e58);
}

#[test]
fn removing_a_range_changes_few_pages() {
    let mut harness = Harness::new(8192, 1, |_, _| Vec::new());
    for i in 0..200_000_u32 {
        harness.insert(format!("key {i:08}").into_bytes(), vec![7; 100]);
    }
    harness.store.take_changed_len();
    harness.remove_range(b"key 00001000".to_vec(), 198_000);
    assert!(harness.state.entries < 2100);
    let changed_len = harness.store.take_changed_len();
    assert!(changed_len < 100_000, "{changed_len} bytes changed to remove 22 MB");
    harness.check();
}

#[test]
fn tree_of_4_kib_pages_equals_the_model() {
    for seed in 1..=3 {
        run_model(4096, seed, 15_000);
    }
}

#[test]
fn tree_of_8_kib_pages_equals_the_model() {
    for seed in 11..=12 {
        run_model(8192, seed, 20_000);
    }
}

#[test]
fn ascending_and_descending_keys_of_every_kind_are_held() {
    for page_size in [4096, 8192] {
        for (name, make_key) in KEYS {
            eprintln!("keys {name}, page size {page_size}");
            let mut random = Random(7);
            let keys: std::collections::BTreeSet<_> =
                (0..4000).map(|_| make_key(&mut random, page_size)).collect();
            let mut ascending = Harness::new(page_size, 1, make_key);
            for key in &keys {
                ascending.insert(key.clone(), b"value".to_vec());
            }
            ascending.check();
            for key in keys.iter().rev() {
                ascending.remove(key);
            }
            ascending.check();
            for key in keys.iter().rev() {
                ascending.insert(key.clone(), vec![1; 700]);
            }
            ascending.check();
            for key in keys.iter().rev() {
                ascending.insert(key.clone(), vec![2; 900]);
            }
            ascending.check();
        }
    }
}

/// A page dense with short suffixes behind a long prefix meets keys that lack the prefix.
#[test]
fn keys_without_the_prefix_of_a_dense_page_find_room() {
    for page_size in [4096, 8192] {
        let long = key_len_max(page_size) - 3;
        for strangers in [[&b"a"[..], b"z"], [b"z", b"a"], [b"", b"pp"]] {
            let mut harness = Harness::new(page_size, 1, KEYS[0].1);
            for i in 0..30_000_u16 {
                let mut key = vec![b'p'; long];
                key.extend_from_slice(&(i.reverse_bits() >> 1).to_be_bytes());
                harness.insert(key, vec![]);
            }
            harness.check();
            for key in strangers {
                harness.insert(key.to_vec(), vec![9; page_size / 5]);
                harness.check();
            }
            let keys: Vec<_> = harness.model.keys().cloned().collect();
            for key in keys.iter().filter(|key| key.len() > long).step_by(2) {
                harness.remove(key);
            }
            harness.check();
        }
    }
}

#[test]
fn limits_of_key_and_value_are_errors() {
    let mut harness = Harness::new(4096, 1, KEYS[0].1);
    let (store, state, hint) = (&mut harness.store, &mut harness.state, &mut harness.hint);
    let longest = vec![1; key_len_max(4096)];
    assert!(
        !Edit::new(store, state, hint).insert(&longest, b"").expect("the longest key is allowed")
    );
    let error = Edit::new(store, state, hint).insert(&[&longest[..], &[0]].concat(), b"");
    assert!(matches!(error, Err(Error::KeyTooLong { len: 977, max: 976 })));
    harness.model.insert(longest, vec![]);
    harness.check();
}

#[test]
fn ascending_insertion_fills_leaves() {
    let mut harness = Harness::new(8192, 1, KEYS[0].1);
    for i in 0..100_000 {
        harness.insert(format!("key-{i:020}").into_bytes(), vec![3; 150]);
    }
    harness.check();
    let fill = leaf_fill(&harness);
    assert!(fill > 0.95, "leaves are {fill} full");
}

#[test]
fn random_insertion_leaves_pages_four_fifths_full() {
    let mut harness = Harness::new(8192, 5, KEYS[0].1);
    for _ in 0..200_000 {
        let key = harness.random.bytes(24);
        harness.insert(key, vec![3; 150]);
    }
    let fill = leaf_fill(&harness);
    eprintln!("leaves are {fill} full");
    assert!(fill > 0.80, "leaves are {fill} full");
}

fn leaf_fill(harness: &Harness) -> f64 {
    let (found, _) = check(&harness.store, &harness.state, &mut |_, _| true);
    found.leaf_fill(harness.page_size)
}

#[test]
fn an_insertion_changes_few_bytes() {
    let mut harness = Harness::new(8192, 5, KEYS[0].1);
    for i in 0..40 {
        harness.store.take_changed_len();
        harness.insert(format!("{:016}", i * 7919 % 41).into_bytes(), vec![3; 150]);
        let changed_len = harness.store.take_changed_len();
        // The header, the cell, half of the heads and all offsets, each up to a block more.
        let limit = 16 + (172 + 30) + (4 * i + 30) + (2 * i + 30);
        assert!(changed_len <= limit, "entry {i} changed {changed_len} bytes");
    }
    harness.insert(format!("{:016}", 7919 % 41).into_bytes(), vec![4; 150]);
    let changed_len = harness.store.take_changed_len();
    assert!(changed_len <= 176, "an overwrite changed {changed_len} bytes");
    harness.check();
}

/// Prints what random insertion writes, when each is a transaction of its own.
#[test]
#[ignore = "a measurement, not a test"]
fn rates_of_changed_bytes() {
    let mut harness = Harness::new(8192, 5, KEYS[0].1);
    let mut changed_len = 0;
    for _ in 0..20_000 {
        let key = harness.random.bytes(24);
        harness.insert(key, vec![3; 150]);
        changed_len += harness.store.take_changed_len();
    }
    println!("{} bytes change in one insertion", changed_len / 20_000);
}

#[test]
fn leaf_has_these_bytes() {
    let mut harness = Harness::new(4096, 1, KEYS[0].1);
    harness.insert(b"bcdef".to_vec(), b"two".to_vec());
    harness.insert(b"a".to_vec(), b"one".to_vec());
    harness.insert(b"c".to_vec(), vec![7; 5000]);
    let page = harness.store.page(harness.state.root).expect("the root");
    let golden = [
        1, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0xd7, 0x0f, 0, 0, 0, 0, // from 16 on
        0, 0, 0, b'a', b'e', b'd', b'c', b'b', 0, 0, 0, b'c', // heads
        0xec, 0x0f, 0xf4, 0x0f, 0xd7, 0x0f, // offsets
    ];
    assert_eq!(page[16..50], golden, "{:02x?}", &page[16..50]);
    let cells = [
        1, 0x80, 16, 0, b'c', 3, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x13, 0, 0, 0, 0, 0, 0, // c
        1, 0, 3, 0, b'a', b'o', b'n', b'e', // a
        5, 0, 3, 0, b'b', b'c', b'd', b'e', b'f', b't', b'w', b'o',
    ];
    assert_eq!(page[4096 - cells.len()..], cells, "{:02x?}", &page[4055..]);
}

#[test]
fn branch_has_these_bytes() {
    let mut harness = Harness::new(4096, 1, KEYS[0].1);
    for key in [&b"key/a1"[..], b"key/b1", b"key/c1", b"key/d1", b"key/e1"] {
        harness.insert(key.to_vec(), vec![1; 900]);
    }
    let page = harness.store.page(harness.state.root).expect("the root");
    let golden = [
        2, 1, 2, 0, 2, 0, 0, 0, 0, 0, 0xf7, 0x0f, 0, 0, 0, 0, // from 16 on
        0, 0, 0, 0, b'/', b'y', b'e', b'k', // heads
        0xfe, 0x0f, 0xf7, 0x0f, // offsets
        3, 0, 0, 0, 4, 0, 0, 0, // children
    ];
    assert_eq!(page[16..52], golden, "{:02x?}", &page[16..52]);
    let cells = [5, 0, b'k', b'e', b'y', b'/', b'e', 0, 0];
    assert_eq!(page[4096 - cells.len()..], cells, "{:02x?}", &page[4080..]);
}

/// Reads everything that can be read of a page.
fn touch(page: &[u8]) {
    let _ = node::validate(page);
    let (leaf, branch) = (Leaf::new(page), Branch::new(page));
    for i in 0..leaf.len() + 2 {
        let _ = (leaf.entry(i), leaf.payload(i), leaf.cell_len(i), leaf.suffix(i));
        let _ = (branch.child(i), branch.suffix(i), branch.cell_len(i));
    }
    for key in [&b""[..], b"key", b"\xff\xff\xff\xff\xff", b"users/0000"] {
        let _ = (leaf.search(key), branch.search(key), branch.child_index(key));
    }
    let _ = (leaf.used_len(), branch.used_len());
}

fn read_everything(harness: &Harness) {
    let bounds = (Bound::Unbounded, Bound::Unbounded);
    let range = || Range::new(&harness.store, &harness.state, bounds.0, bounds.1);
    let _ = (range().filter(Result::is_ok).count(), range().rev().filter(Result::is_ok).count());
    let _ = get(&harness.store, &harness.state, b"users/00000500/name");
    let mut cursor = Cursor::new(&harness.store, &harness.state);
    let _ = (cursor.seek(b"users/00001"), cursor.next(), cursor.prev(), cursor.entry());
    let mut claimed = HashSet::new();
    check(&harness.store, &harness.state, &mut |id, _| claimed.insert(id));
}

fn small_tree() -> Harness {
    let mut harness = Harness::new(4096, 3, KEYS[2].1);
    for _ in 0..500 {
        let (key, value) = (harness.key(), harness.value());
        harness.insert(key, value);
    }
    harness.check();
    harness
}

#[test]
fn no_flipped_bit_makes_a_reader_panic() {
    let mut harness = small_tree();
    let leaf = first_leaf(&harness);
    for id in [harness.state.root, leaf] {
        for bit in 0..4096 * 8 {
            harness.store.bytes_mut(id)[bit / 8] ^= 1 << (bit % 8);
            touch(harness.store.page(id).expect("the page"));
            if bit % 8 == bit / 8 % 8 {
                read_everything(&harness);
            }
            harness.store.bytes_mut(id)[bit / 8] ^= 1 << (bit % 8);
        }
    }
    harness.check();
}

fn first_leaf(harness: &Harness) -> PageId {
    let mut id = harness.state.root;
    for _ in 1..harness.state.depth {
        id = Branch::new(harness.store.page(id).expect("a page")).child(0);
    }
    id
}

#[test]
fn no_garbage_makes_a_reader_panic() {
    let mut harness = small_tree();
    let mut random = Random(99);
    let leaf = first_leaf(&harness);
    for round in 0..20_000 {
        let id = if round % 2 == 0 { leaf } else { harness.state.root };
        let good = harness.store.page(id).expect("the page").to_vec();
        let page = harness.store.bytes_mut(id);
        for _ in 0..1 + random.below(8) {
            let end = if random.below(3) == 0 { page.len() } else { 200 };
            page[18 + random.below(end - 18)] = random.next() as u8;
        }
        touch(page);
        if round % 8 < 2 {
            read_everything(&harness);
        }
        harness.store.bytes_mut(id).copy_from_slice(&good);
    }
    for _ in 0..200 {
        let garbage = random.bytes(4096);
        touch(&garbage);
        touch(&garbage[..random.below(4096)]);
    }
}

#[test]
fn check_reports_all_damage() {
    let mut harness = small_tree();
    let root = Branch::new(harness.store.page(harness.state.root).expect("the root"));
    let leaves: Vec<_> = (0..2).map(|i| root.child(i)).collect();
    for &id in &leaves {
        harness.store.bytes_mut(id)[30] = 1;
    }
    harness.state.entries += 1;
    let (_, damage) = check(&harness.store, &harness.state, &mut |_, _| true);
    for id in leaves {
        assert!(damage.iter().any(|damage| damage.page == id), "{damage:?}");
    }
    assert!(damage.iter().any(|d| d.page == harness.state.root), "{damage:?}");
}

/// Inserts or removes until a change fails, and returns why.
fn first_failure(change_state: fn(&mut TreeState), is_filling: bool) -> Option<Error> {
    let mut harness = Harness::new(4096, 5, KEYS[2].1);
    let keys: Vec<Vec<u8>> = (0..400_u32).map(|i| format!("{i:08}").into_bytes()).collect();
    if !is_filling {
        keys.iter().for_each(|key| harness.insert(key.clone(), vec![7; 300]));
        harness.insert(b"large".to_vec(), vec![7; 5000]);
    }
    change_state(&mut harness.state);
    let (store, state, hint) = (&mut harness.store, &mut harness.state, &mut harness.hint);
    let mut edit = Edit::new(store, state, hint);
    if is_filling {
        edit.insert(b"large", &[7; 5000])
            .err()
            .or_else(|| keys.iter().find_map(|key| edit.insert(key, &[7; 300]).err()))
    } else {
        edit.remove(b"large").err().or_else(|| keys.iter().find_map(|key| edit.remove(key).err()))
    }
}

#[test]
fn counters_that_a_damaged_catalog_holds_are_errors_when_they_leave_their_range() {
    assert!(first_failure(|_| (), true).is_none());
    assert!(first_failure(|_| (), false).is_none());
    let high: [fn(&mut TreeState); 5] = [
        |state| state.entries = u64::MAX,
        |state| state.payload_len = u64::MAX - 100,
        |state| state.overflow_pages = u32::MAX - 1,
        |state| state.leaf_pages = u32::MAX - 1,
        |state| state.branch_pages = u32::MAX,
    ];
    let low: [fn(&mut TreeState); 5] = [
        |state| state.entries = 3,
        |state| state.payload_len = 100,
        |state| state.overflow_pages = 1,
        |state| state.leaf_pages = 2,
        |state| state.branch_pages = 0,
    ];
    for (number, change) in high.into_iter().enumerate() {
        let error = first_failure(change, true);
        assert!(matches!(error, Some(Error::Corrupt { .. })), "high {number}: {error:?}");
    }
    for (number, change) in low.into_iter().enumerate() {
        let error = first_failure(change, false);
        assert!(matches!(error, Some(Error::Corrupt { .. })), "low {number}: {error:?}");
    }
}

/// Prints the cost of validating a leaf, and of reading it whole.
#[test]
#[ignore = "a measurement, not a test"]
fn rates_of_validation() {
    let mut harness = Harness::new(8192, 5, KEYS[0].1);
    for _ in 0..2000 {
        let key = harness.random.bytes(24);
        harness.insert(key, vec![3; 150]);
    }
    for id in [first_leaf(&harness), harness.state.root] {
        let page = harness.store.page(id).expect("a page");
        let start = std::time::Instant::now();
        for _ in 0..100_000 {
            node::validate(std::hint::black_box(page)).expect("a valid page");
        }
        let entries = Leaf::new(page).len();
        println!("{} ns, {entries} entries", start.elapsed().as_nanos() / 100_000);
    }
}

/// Key `i` of a measurement, in `buf`: computed, so that the keys cost no misses of memory.
fn measured_key(name: &str, i: usize, buf: &mut [u8; 24]) {
    if name == "random" {
        let mut random = Random(i as u64);
        for part in buf.chunks_mut(8) {
            part.copy_from_slice(&random.next().to_le_bytes());
        }
        return;
    }
    *buf = *b"users/000000000000/value";
    let mut rest = i;
    for digit in buf[6..18].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Prints rates: `cargo test -p treepie --release rates_ -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn rates_of_small_and_large_trees() {
    for count in [10_000, 1_000_000] {
        for (name, ascending) in [("random", false), ("decimal", true), ("decimal", false)] {
            println!("{count} {name} keys, {}", if ascending { "ascending" } else { "shuffled" });
            measure(count, name, ascending);
        }
    }
}

fn measure(count: usize, name: &str, ascending: bool) {
    use std::{hint::black_box, time::Instant};
    let ns = |start: Instant, n: usize| start.elapsed().as_nanos() as f64 / n as f64;
    let mut store = MemoryStore::new(8192);
    let mut state = create(&mut store, TreeId(2)).expect("memory does not fail");
    let (mut hint, mut random, mut key) = (Hint::default(), Random(1), [0; 24]);
    let mut order: Vec<usize> = (0..count).collect();
    if !ascending {
        (1..count).for_each(|i| order.swap(i, random.below(i + 1)));
    }
    let start = Instant::now();
    for &i in &order {
        measured_key(name, i, &mut key);
        Edit::new(&mut store, &mut state, &mut hint).insert(&key, &[5; 150]).expect("memory");
    }
    println!("  insert {:.0} ns", ns(start, count));
    let (found, _) = check(&store, &state, &mut |_, _| true);
    let fills = (found.leaf_fill(8192), found.branch_used_len / found.branch_pages.max(1));
    println!("  fill {:.3}, branch bytes {}, leaves {}", fills.0, fills.1, found.leaf_pages);
    let start = Instant::now();
    for _ in 0..1_000_000 {
        measured_key(name, random.below(count), &mut key);
        black_box(get(&store, &state, black_box(&key)).expect("memory"));
    }
    println!("  get {:.0} ns", ns(start, 1_000_000));
    let start = Instant::now();
    for _ in 0..1_000_000 {
        measured_key(name, random.below(count), &mut key);
        Edit::new(&mut store, &mut state, &mut hint).insert(&key, &[6; 150]).expect("memory");
    }
    println!("  overwrite {:.0} ns", ns(start, 1_000_000));
    let times = 4_000_000 / count;
    let start = Instant::now();
    let mut sum = 0;
    for _ in 0..times {
        for entry in Range::new(&store, &state, Bound::Unbounded, Bound::Unbounded) {
            let (key, value) = entry.expect("memory");
            sum += usize::from(value[0]) + key.len();
        }
    }
    println!("  scan {:.1} ns {}", ns(start, count * times), black_box(sum) % 10);
    let start = Instant::now();
    for _ in 0..count / 10 {
        measured_key(name, random.below(count), &mut key);
        let range = Range::new(&store, &state, Bound::Included(&key), Bound::Unbounded);
        assert!(range.take(10).count() > 0);
    }
    println!("  scan of 10: {:.0} ns", ns(start, count / 10));
    let start = Instant::now();
    for &i in &order {
        measured_key(name, i, &mut key);
        assert!(Edit::new(&mut store, &mut state, &mut hint).remove(&key).expect("memory"));
    }
    println!("  remove {:.0} ns", ns(start, count));
}
