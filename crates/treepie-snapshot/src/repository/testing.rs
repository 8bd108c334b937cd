//! Entries for the tests of this crate.

use treepie::{
    Lineage,
    ids::{DatabaseId, Lsn},
};

use super::{Description, Entry, Kind, Position, entry::hex, naming};

/// Microseconds between two LSNs.
pub(crate) const STEP_US: u64 = 60_000_000;
/// The time of LSN 0.
pub(crate) const START_US: u64 = 1_700_000_000_000_000;

/// The lineage of an epoch that began anew, or of one that forked.
pub(crate) fn lineage(epoch: u64) -> Lineage {
    Lineage {
        database_id: DatabaseId([1; 16]),
        epoch: epoch << 32,
        forked_at: Lsn(0),
        forked_chain: 0,
    }
}

/// A lineage that forked from another one.
pub(crate) fn fork(parent: Lineage, at: u64) -> Lineage {
    let (epoch, forked_at) = (parent.epoch + (1 << 32), Lsn(at));
    Lineage { epoch, forked_at, forked_chain: chain(parent, at), ..parent }
}

/// The chain hash of an LSN: of the parent's history below the fork, and its own above.
pub(crate) fn chain(lineage: Lineage, lsn: u64) -> u64 {
    if lsn == lineage.forked_at.0 && lineage.epoch > 0 {
        return lineage.forked_chain;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&lineage.epoch.to_le_bytes()).update(&lineage.forked_chain.to_le_bytes());
    hasher.update(&lsn.to_le_bytes());
    let digest = hasher.finalize();
    let half = digest.as_bytes().first_chunk().expect("a digest has 32 bytes");
    u64::from_le_bytes(*half)
}

/// The time of an LSN.
pub(crate) fn time(lsn: u64) -> u64 {
    START_US + lsn * STEP_US
}

/// An entry; its id follows from what it is.
pub(crate) fn entry(kind: Kind, lineage: Lineage, base: u64, last: u64, bytes: u64) -> Entry {
    let position = |lsn| Position { lsn: Lsn(lsn), chain: chain(lineage, lsn) };
    let base = if kind == Kind::Full { Position::default() } else { position(base) };
    let first = if kind == Kind::Records { base.lsn.0 + 1 } else { last };
    let stream = Description {
        kind,
        lineage,
        base,
        last: position(last),
        first_time_us: time(first),
        last_time_us: time(last),
        created_us: time(last) + 1000 + lineage.epoch,
        page_size: 8192,
        page_count: 100,
        digest: [7; 32],
        compression: "none".to_owned(),
        key_id: None,
        damage_count: 0,
    };
    let what = format!("{kind} {lineage:?} {base:?} {last} {bytes}");
    let id = hex(&blake3::hash(what.as_bytes()).as_bytes()[..8]);
    let file = naming::name_of(kind, base.lsn, Lsn(last), time(last), &id);
    Entry { id, file, bytes, stream }
}

/// A full stream of 1,000 bytes.
pub(crate) fn full(lineage: Lineage, last: u64) -> Entry {
    entry(Kind::Full, lineage, 0, last, 1000)
}

/// An increment of 100 bytes.
pub(crate) fn increment(lineage: Lineage, base: u64, last: u64) -> Entry {
    entry(Kind::Increment, lineage, base, last, 100)
}

/// Records, 10 bytes each.
pub(crate) fn records(lineage: Lineage, base: u64, last: u64) -> Entry {
    entry(Kind::Records, lineage, base, last, 10 * (last - base))
}
