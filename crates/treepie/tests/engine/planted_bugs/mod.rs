//! Bugs that are planted in the engine, one at a time, and the check that finds each: a checker that
//! cannot fail is a defect. The checks are those that the other tests make of the engine as it is.
//!
//! It takes a build in which bugs can be planted:
//!
//! ```text
//! cargo test -p treepie --features planted --test engine planted_bugs -- --show-output
//! ```

mod checks;
mod scripts;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::Instant,
};

use treepie::planted::{Planted, is_planted, plant};
use treepie_testkit::tally;

use crate::{
    copies, install,
    kills::{self, Kills},
    removals, replication,
};

/// A check: an error, or a panic, says what it found.
type Check = fn() -> Result<(), String>;

/// The bugs, and the check that finds each: its name, and the check.
const BUGS: &[(Planted, &str, Check)] = &[
    (Planted::JournalNotSynced, "power cuts", checks::power_cuts),
    (Planted::AcknowledgedBeforeSync, "power cut after commits", scripts::cut_after_commits),
    (Planted::FolderNotSynced, "power cuts", checks::power_cuts),
    (Planted::TrimmedTooFar, "power cuts", checks::power_cuts),
    (Planted::NewFileNotSynced, "power cuts", checks::power_cuts),
    (Planted::MetaBeforeData, "power cuts", checks::power_cuts),
    (Planted::MetaNotSynced, "power cuts", checks::power_cuts),
    (Planted::PastWritten, "power cuts", checks::power_cuts),
    (Planted::WrongChainInMeta, "power cuts", checks::power_cuts),
    (Planted::WrongPageLsn, "power cuts", checks::power_cuts),
    (Planted::ChangeLostAtReplay, "power cuts", checks::power_cuts),
    (Planted::OldSegmentNotSynced, "power cuts, unsynced commits", checks::unsynced_commits),
    (Planted::PastSync, "power cuts, little memory", checks::unsynced_commits_in_little_memory),
    (Planted::TailNotSynced, "power cut after a kill", scripts::cut_after_a_kill),
    (Planted::TailNotRewritten, "power cut after a failed sync", scripts::cut_after_a_failed_sync),
    (Planted::SyncErrorIgnored, "failing calls", scripts::failing_sync),
    (Planted::SyncRetried, "failing calls", scripts::failing_sync),
    (Planted::NotPoisoned, "failing calls", scripts::failing_write),
    (Planted::ReserveForAll, "removals on full disks", full_disks),
    (Planted::StaleRecordAccepted, "hostile journals", scripts::journal_of_an_earlier_life),
    (Planted::ChainNotVerified, "hostile journals", scripts::journal_of_another_history),
    (Planted::CutAtFirstBad, "bit rot", scripts::flipped_bits),
    (Planted::RunTailNotVerified, "bit rot", scripts::flipped_bits),
    (Planted::PastOldestReader, "snapshots against the model", checks::model),
    (Planted::FrameFreedEarly, "slices beside a checkpoint", scripts::slices_beside_a_checkpoint),
    (Planted::UndoLost, "savepoints against the model", checks::savepoints),
    (Planted::WrongEntryCount, "model", checks::model),
    (Planted::WrongSeparator, "model", checks::model),
    (Planted::JoinLosesEntry, "model", checks::model),
    (Planted::BitLostAtReplay, "model", checks::model),
    (Planted::WrongPageCountInMeta, "model", checks::model),
    (Planted::RunNotMarked, "model", checks::model),
    (Planted::FreedRunKept, "model", checks::model),
    (Planted::PageNotFreed, "model", checks::model),
    (Planted::PageFreedTwice, "model", checks::model),
    (Planted::BothMetas, "model", checks::model),
    (Planted::InstalledNotSynced, "cut installations", cut_installations),
    (Planted::InstallingNotNoted, "cut installations", cut_installations),
    (Planted::KeptLeftOut, "copies under load", copies::under_load),
    (Planted::NoHandOver, "copies under load", copies::under_load),
    (Planted::HandOverAfterWrite, "copies under load", copies::under_load),
    (Planted::SpeculationKept, "promises of the door", promises_of_the_door),
    (Planted::DivergenceUnseen, "promises of the door", promises_of_the_door),
    (Planted::ChangeLostAtApply, "promises of the door", promises_of_the_door),
    (Planted::SettledEarly, "promises of the door", promises_of_the_door),
    (Planted::MembersOfAnotherTerm, "promises of the door", promises_of_the_door),
    (Planted::RequestForgotten, "promises of the door", promises_of_the_door),
    (Planted::CommitsNotVouchedFor, "three sites by hand", three_sites_by_hand),
    (Planted::AcknowledgedBeforeWrite, "real kills", kills_with_early_acknowledgements),
];

/// Each check passes without a bug; with its bug, it does not.
#[test]
fn every_planted_bug_is_found_by_its_check() {
    let begin = Instant::now();
    let mut healthy: Vec<Check> = Vec::new();
    for (.., check) in BUGS {
        if !healthy.iter().any(|other| std::ptr::fn_addr_eq(*other, *check)) {
            healthy.push(*check);
        }
    }
    let next = AtomicUsize::new(0);
    let missed = parking_lot::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Relaxed);
                    if let Some(check) = healthy.get(index) {
                        check().unwrap_or_else(|what| panic!("without a bug: {what}"));
                    } else if let Some(bug) = BUGS.get(index - healthy.len()) {
                        missed.lock().extend(miss(bug));
                    } else {
                        return;
                    }
                }
            });
        }
    });
    let (missed, count) = (missed.into_inner(), BUGS.len());
    let seconds = begin.elapsed().as_secs_f64();
    let found = count - missed.len();
    tally::note(14, "planted bugs", &format!("{found} of {count} found, in {seconds:.0} s"));
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Plants a bug in this thread and runs its check; returns the bug if nothing is found.
fn miss((bug, name, check): &(Planted, &str, Check)) -> Option<Planted> {
    let begin = Instant::now();
    plant(Some(*bug));
    let result = catch_unwind(AssertUnwindSafe(check));
    plant(None);
    let what = match result {
        Ok(Ok(())) => None,
        Ok(Err(what)) => Some(what),
        Err(panic) => Some(format!("a panic: {}", message_of(&*panic))),
    };
    let milliseconds = begin.elapsed().as_millis();
    match what {
        Some(what) => {
            let line: String = what.lines().next().unwrap_or_default().chars().take(160).collect();
            println!("{bug:?}: found by {name} in {milliseconds} ms: {line}");
            None
        }
        None => {
            println!("{bug:?}: NOT FOUND by {name} in {milliseconds} ms");
            Some(*bug)
        }
    }
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// A disk that is full is emptied.
fn full_disks() -> Result<(), String> {
    removals::empty_full_disks(2).and(removals::empty_full_disks(3)).map(|_| ())
}

fn promises_of_the_door() -> Result<(), String> {
    replication::all_promises(1).map(|_| ())
}

fn three_sites_by_hand() -> Result<(), String> {
    (1..=20).try_for_each(|seed| replication::three_sites(seed).map(|_| ()))
}

/// The bug is planted in the process that is killed, and not in this one.
fn kills_with_early_acknowledgements() -> Result<(), String> {
    const KILLS_MAX: u64 = 30;
    let is_early = is_planted(Planted::AcknowledgedBeforeWrite);
    kills::run(&Kills { count: KILLS_MAX, seed: 5, is_early }).map(|_| ())
}

fn cut_installations() -> Result<(), String> {
    install::interrupted().map(|_| ())
}
