//! Bugs that are planted in the journal as a log, one at a time, and the check that finds each.

use std::{panic::catch_unwind, path::Path};

use treepie::planted::{Planted, plant};

use crate::{
    cuts::{cut_everywhere, record},
    model::Leaves,
    run::{Op, Run, is_loss, open},
};

type Check = fn() -> Result<(), String>;

const BUGS: &[(Planted, &str, Check)] = &[
    (Planted::SupersededRecordAccepted, "power cuts", power_cuts),
    (Planted::RemainsBelieved, "power cuts", power_cuts),
    (Planted::HeadNotSynced, "power cuts", power_cuts),
    (Planted::HardStateTrimmed, "power cut after a trim", trim_behind_a_roll),
    (Planted::TailApplied, "power cuts", power_cuts),
    (Planted::JournalNotSynced, "power cuts", power_cuts),
    (Planted::OldSegmentNotSynced, "power cuts", power_cuts),
    (Planted::HardStateNotVouchedFor, "rot of a hard state", rotten_hard_state),
];

fn power_cuts() -> Result<(), String> {
    (1..13).try_for_each(|seed| cut_everywhere(&record(seed, 40), 4).map(|_| ()))
}

/// A hard state alone rots, with one synced write behind it: that must be found.
fn rotten_hard_state() -> Result<(), String> {
    let mut looked_at = 0;
    for seed in 1..30 {
        let mut run = Run::begin(seed);
        while !run.model.is_replicated() {
            let op = run.plan();
            run.perform(&op).expect("nothing fails");
        }
        let newest = run.journal().report().segments.pop().expect("one was just begun");
        let path = Path::new("/db/journal").join(&newest.file);
        let before = run.journal().hard_state().expect("it is replicated");
        let state = treepie::planted::journal::HardState { vote: 7, ..before };
        let known = treepie::ids::Lsn(0);
        run.journal().append_group(Some(&state), &[], known).expect("nothing fails");
        run.journal().sync().expect("nothing fails");
        let op = run.append_one();
        run.perform(&op).expect("nothing fails");
        run.journal().sync().expect("nothing fails");
        let there = run.journal().report().segments.pop().expect("one is there");
        if there.used != newest.used + 2 * 4096 {
            // A segment that is too short for both was replaced in between.
            continue;
        }
        looked_at += 1;
        let settled = run.disk.settled(seed);
        let file = treepie::disk::Disk::open(&settled, &path, treepie::disk::OpenMode::ReadWrite);
        let file = file.expect("it is there");
        file.write_at(newest.used + 100, &[0x55]).expect("it is written");
        match open(seed, &settled, run.model.position(run.model.checkpoint)) {
            Err(error) if is_loss(&error) => {}
            Err(error) => return Err(format!("seed {seed}: {error}")),
            Ok((_, found)) => return Err(format!("seed {seed}: it opens: {found:?}")),
        }
    }
    assert!(looked_at > 3, "only {looked_at} seeds had long segments");
    Ok(())
}

/// A trim gives up what a checkpoint holds while the head of the newest segment is not durable.
fn trim_behind_a_roll() -> Result<(), String> {
    for seed in 1..9 {
        let mut run = Run::begin(seed);
        while !run.model.is_replicated() {
            let op = run.plan();
            run.perform(&op).expect("nothing fails");
        }
        let count = |run: &Run| run.journal().report().segments.len();
        let begun = count(&run);
        let mut before = 0;
        while count(&run) < begun + 3 {
            for op in [Op::Sync, Op::Commit(run.model.last())] {
                run.perform(&op).expect("nothing fails");
            }
            before = run.model.last();
            let op = run.append_one();
            run.perform(&op).expect("nothing fails");
        }
        run.perform(&Op::Trim(before)).expect("nothing fails");
        let log = run.disk.log();
        let mut player = log.player(seed);
        player.advance_to(log.len());
        let opened = open(seed, &player.image_of(512, 0), run.model.position(before));
        let (_, found) = opened.map_err(|error| format!("seed {seed}: {error}"))?;
        run.model.compare(&run.model, Leaves::Prefix, &found)?;
    }
    Ok(())
}

fn outcome(check: Check) -> Result<(), String> {
    catch_unwind(check).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.unwrap_or_else(|| "a panic".to_owned()))
    })
}

#[test]
fn each_planted_bug_of_the_log_is_found() {
    for (bug, name, check) in BUGS {
        plant(Some(*bug));
        let found = outcome(*check);
        plant(None);
        let what = found.expect_err(&format!("{bug:?} is not found by {name}"));
        println!("{bug:?}, found by {name}: {}", what.lines().next().unwrap_or_default());
    }
}

#[test]
fn trim_never_takes_the_only_durable_hard_state() {
    trim_behind_a_roll().unwrap_or_else(|what| panic!("{what}"));
}

#[test]
fn rot_of_a_hard_state_with_a_synced_write_behind_it_is_found() {
    rotten_hard_state().unwrap_or_else(|what| panic!("{what}"));
}
