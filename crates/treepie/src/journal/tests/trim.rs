//! Trims that the disk interrupts.

use super::*;

/// A journal of many segments of one length.
fn long_log() -> Log {
    let mut log = Log::new(64 << 10);
    for _ in 0..60 {
        log.commit(&[30_000]);
    }
    log
}

/// How many spares are on the shelf, and how many on the disk.
fn spares_of(log: &Log) -> (usize, usize) {
    let names = log.disk.names();
    let on_disk = names.iter().filter(|name| name.starts_with("spare")).count();
    (log.journal.report().spare_count, on_disk)
}

#[test]
fn spares_made_before_a_failed_trim_are_kept_for_use() {
    for (call, skip) in [("rename", 3), ("remove", 2)] {
        let mut log = long_log();
        log.disk.calls.fail_after(call, skip);
        let checkpointed = log.position(log.last.lsn.0 - 1);
        log.journal.trim(checkpointed.lsn).expect_err("the disk fails");
        let (shelved, on_disk) = spares_of(&log);
        assert!(shelved > 0, "{call}: {on_disk} on disk");
        assert_eq!(shelved, on_disk, "{call}");
        log.journal.trim(checkpointed.lsn).expect("it trims");
        let (shelved, on_disk) = spares_of(&log);
        assert_eq!(shelved, on_disk, "{call}");
        for _ in 0..30 {
            log.commit(&[30_000]);
        }
        let (_, _, applied) =
            recover(config(&log.disk.copy(), 64 << 10), checkpointed).expect("it opens");
        assert_eq!(applied, log.history[usize::try_from(checkpointed.lsn.0).expect("small")..]);
    }
}

#[test]
fn no_spare_is_left_over_where_the_folder_could_not_be_synced() {
    let log = long_log();
    log.disk.calls.fail_after("sync_dir", 0);
    let checkpointed = log.position(log.last.lsn.0 - 1);
    log.journal.trim(checkpointed.lsn).expect_err("the disk fails");
    assert_eq!(spares_of(&log), (0, 0));
    recover(config(&log.disk.copy(), 64 << 10), checkpointed).expect("it opens");
}
