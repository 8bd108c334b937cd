//! What is kept for removals on a full disk.

use super::*;
use crate::journal::{Room, is_full, reserve_len};

const SEGMENT: u64 = 32 << 10;
const RESERVE: &str = "spare-reserve.seg";

fn config_with(disk: &Arc<MemoryDisk>, segment_size: u64, reserve_len: u64) -> JournalConfig {
    JournalConfig { reserve_len, ..config(disk, segment_size) }
}

fn open(disk: &Arc<MemoryDisk>, segment_size: u64, reserve_len: u64, from: JournalPosition) -> Log {
    let config = config_with(disk, segment_size, reserve_len);
    let (journal, recovered, history) = recover(config, from).expect("the journal opens");
    Log { disk: disk.clone(), journal, last: recovered.last, history }
}

fn new(segment_size: u64, reserve_len: u64) -> Log {
    open(&Arc::new(MemoryDisk::default()), segment_size, reserve_len, genesis())
}

/// Commits a record of one block, in common room or in the reserve.
fn try_commit(log: &mut Log, room: Room) -> Result<()> {
    log.journal.reserve(4096, room)?;
    log.commit(&[100]);
    Ok(())
}

/// Commits until the disk has no room; returns how many records it took.
fn fill(log: &mut Log, room: Room) -> u64 {
    let before = log.last.lsn.0;
    loop {
        if let Err(error) = try_commit(log, room) {
            assert!(is_full(&error), "{error}");
            return log.last.lsn.0 - before;
        }
    }
}

fn no_room(log: &Log) {
    log.disk.calls.allocate_max.store(1, Ordering::Relaxed);
}

fn room(log: &Log) {
    log.disk.calls.allocate_max.store(0, Ordering::Relaxed);
}

fn has_reserve(log: &Log) -> bool {
    let is_there = log.disk.names().iter().any(|name| name == RESERVE);
    assert_eq!(is_there, log.journal.report().reserve_len > 0);
    is_there
}

#[test]
fn the_reserve_has_whole_blocks_and_is_one_segment_at_most() {
    let lens = [0, 4096, 8191, 8192, 100_000, 1 << 20].map(|len| reserve_len(len, 64 << 10));
    assert_eq!(lens, [0, 0, 0, 8192, 64 << 10, 64 << 10]);
}

#[test]
fn the_reserve_is_made_after_the_first_roll_and_goes_when_the_journal_is_shrunk() {
    let mut log = new(SEGMENT, SEGMENT);
    assert!(!has_reserve(&log));
    try_commit(&mut log, Room::Common).expect("there is room");
    assert!(has_reserve(&log));
    log.journal.shrink().expect("it shrinks");
    assert!(!has_reserve(&log));
    let mut without = new(SEGMENT, 0);
    try_commit(&mut without, Room::Common).expect("there is room");
    assert!(!has_reserve(&without));
}

#[test]
fn a_full_disk_leaves_the_reserve_to_removals_and_a_trim_makes_it_anew() {
    let mut log = new(SEGMENT, SEGMENT);
    try_commit(&mut log, Room::Common).expect("there is room");
    no_room(&log);
    fill(&mut log, Room::Common);
    assert!(has_reserve(&log) && log.journal.is_short() && !log.journal.is_poisoned());
    assert_eq!(fill(&mut log, Room::Reserve), SEGMENT / 4096 - 1);
    assert!(!has_reserve(&log));
    assert!(log.journal.would_free(log.last.lsn));
    // Without a single block that is new.
    log.journal.trim(log.last.lsn).expect("it trims");
    assert!(has_reserve(&log));
    assert_eq!(fill(&mut log, Room::Common), 0, "the segment was full");
    assert_eq!(fill(&mut log, Room::Reserve), SEGMENT / 4096 - 1);
    let found = recover(config(&log.disk.copy(), SEGMENT), genesis());
    assert!(found.is_err(), "the first records are gone");
    let at = log.position(log.last.lsn.0 - 3);
    let (.., applied) = recover(config(&log.disk.copy(), SEGMENT), at).expect("it opens");
    assert_eq!(applied, log.history[log.history.len() - 3..]);
}

#[test]
fn a_segment_that_was_the_reserve_is_for_removals_until_there_is_another_reserve() {
    let mut log = new(SEGMENT, SEGMENT);
    try_commit(&mut log, Room::Common).expect("there is room");
    no_room(&log);
    fill(&mut log, Room::Common);
    try_commit(&mut log, Room::Reserve).expect("the reserve");
    assert_eq!(fill(&mut log, Room::Common), 0);
    log.journal.trim(log.last.lsn).expect("it trims");
    assert_eq!(fill(&mut log, Room::Common), SEGMENT / 4096 - 2);
    assert!(has_reserve(&log));
}

#[test]
fn the_reserve_is_made_anew_as_soon_as_there_is_room_and_everyone_goes_on() {
    let mut log = new(SEGMENT, SEGMENT);
    try_commit(&mut log, Room::Common).expect("there is room");
    no_room(&log);
    fill(&mut log, Room::Common);
    fill(&mut log, Room::Reserve);
    room(&log);
    try_commit(&mut log, Room::Common).expect("there is room");
    assert!(has_reserve(&log) && !log.journal.is_short());
}

#[test]
fn a_reserve_of_another_length_is_made_as_long_as_it_should_be_and_found_again() {
    let mut log = new(SEGMENT, SEGMENT);
    try_commit(&mut log, Room::Common).expect("there is room");
    for len in [8192, 64 << 10, 16 << 10, 0] {
        let (disk, from) = (log.disk.copy(), log.position(log.last.lsn.0));
        log = open(&disk, 64 << 10, len, from);
        log.history = vec![(0, 0); usize::try_from(from.lsn.0).expect("small")];
        assert!(has_reserve(&log));
        try_commit(&mut log, Room::Common).expect("there is room");
        assert_eq!(log.journal.report().reserve_len, len);
    }
    assert!(!has_reserve(&log));
}

#[test]
fn a_reserve_that_cannot_become_longer_stays_as_it_is() {
    let mut log = new(SEGMENT, 8192);
    try_commit(&mut log, Room::Common).expect("there is room");
    let (disk, from) = (log.disk.copy(), log.position(1));
    let mut log = open(&disk, SEGMENT, 64 << 10, from);
    log.history = vec![(0, 0)];
    log.disk.calls.allocate_max.store(SEGMENT, Ordering::Relaxed);
    try_commit(&mut log, Room::Common).expect("there is room for a segment");
    assert_eq!(log.journal.report().reserve_len, 8192);
}

#[test]
fn a_disk_without_room_for_a_long_segment_gets_a_shorter_one() {
    let mut log = new(64 << 20, 0);
    log.disk.calls.allocate_max.store(100 << 10, Ordering::Relaxed);
    try_commit(&mut log, Room::Common).expect("there is room for 64 KiB");
    assert_eq!(log.journal.report().segments[0].len, 64 << 10);
    log.disk.calls.allocate_max.store(60 << 10, Ordering::Relaxed);
    fill(&mut log, Room::Common);
    assert_eq!(log.journal.report().segments.len(), 1);
}

#[test]
fn a_failed_sync_of_the_reserve_is_told_and_poisons_nothing() {
    let mut log = new(SEGMENT, SEGMENT);
    // The first is that of the spare which becomes the segment.
    log.disk.calls.fail_after("sync_data", 1);
    let error = try_commit(&mut log, Room::Common).expect_err("it is told");
    assert!(matches!(error, Error::Io { action: "sync", .. }), "{error:?}");
    assert!(!log.journal.is_poisoned() && !has_reserve(&log));
    try_commit(&mut log, Room::Common).expect("it goes on");
}

#[test]
fn the_reserve_is_prepared_in_the_background() {
    let disk = Arc::new(MemoryDisk::default());
    let config = JournalConfig { background: true, ..config_with(&disk, SEGMENT, SEGMENT) };
    let (journal, recovered, history) = recover(config, genesis()).expect("it opens");
    let mut log = Log { disk, journal, last: recovered.last, history };
    try_commit(&mut log, Room::Common).expect("there is room");
    while log.journal.report().reserve_len == 0 {
        std::thread::yield_now();
    }
    assert!(has_reserve(&log));
}
