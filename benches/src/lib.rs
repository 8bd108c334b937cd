//! What the benchmarks share: keys, values, and a loaded database.
//!
//! `cargo bench -p treepie-benches` runs all of them, on 200,000 entries of 24 + 150 bytes unless
//! `TREEPIE_BENCH_ENTRIES` says otherwise. Rows that wait for the disk move by 20–40 % within a
//! minute: compare them only within one run.

use tempfile::TempDir;
use treepie::Database;

/// Bytes of a key.
pub const KEY_LEN: usize = 24;
/// Bytes of a value.
pub const VALUE_LEN: usize = 150;
const BATCH: u64 = 10_000;

/// Entries of a loaded database.
#[must_use]
pub fn entries() -> u64 {
    let wanted = std::env::var("TREEPIE_BENCH_ENTRIES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(200_000)
}

/// A generator of numbers without order (SplitMix64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Begins with a seed.
    #[must_use]
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key of entry `n`: random order, no two alike.
#[must_use]
pub fn random_key(n: u64) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    key[..8].copy_from_slice(&mix(n).to_be_bytes());
    key[8..16].copy_from_slice(&mix(n ^ 0x5555).to_be_bytes());
    key[16..].copy_from_slice(&n.to_be_bytes());
    key
}

/// The key of entry `n`: ascending with `n`.
#[must_use]
pub fn sorted_key(n: u64) -> [u8; KEY_LEN] {
    let mut key = *b"entry-00000000----------";
    key[16..].copy_from_slice(&n.to_be_bytes());
    key
}

/// A value that does not compress.
#[must_use]
pub fn value(n: u64) -> [u8; VALUE_LEN] {
    let mut numbers = Numbers::new(n);
    let mut value = [0; VALUE_LEN];
    for bytes in value.chunks_mut(8) {
        let number = numbers.draw().to_le_bytes();
        bytes.copy_from_slice(&number[..bytes.len()]);
    }
    value
}

/// An empty database in a folder of its own.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn empty() -> (TempDir, Database) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let db = Database::open(dir.path().join("db")).expect("a new database");
    (dir, db)
}

/// A database whose tree `t` holds all entries under random keys.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn loaded() -> (TempDir, Database) {
    let (dir, db) = empty();
    load(&db, random_key);
    db.checkpoint().expect("a checkpoint");
    (dir, db)
}

/// Loads all entries into the tree `t`.
///
/// # Panics
/// If a write fails.
pub fn load(db: &Database, key: fn(u64) -> [u8; KEY_LEN]) {
    for start in (0..entries()).step_by(BATCH as usize) {
        db.write(|tx| {
            let mut tree = tx.tree("t")?;
            for n in start..(start + BATCH).min(entries()) {
                tree.insert(key(n), value(n))?;
            }
            Ok(())
        })
        .expect("a write");
    }
}
