//! Planted bugs are found: a checker that cannot fail is a defect.

use treepie::{Durability, schedules::Planted};

use crate::{
    directory::{directory, walks},
    explore::expect_found,
    readers::readers,
    submit::submit,
    world::prepare,
    writers::writers,
};

#[test]
fn a_merger_that_is_not_woken_is_found() {
    prepare();
    expect_found(Planted::SilentJoin, 2_000, "deadlock", submit);
}

#[test]
fn sleepers_that_are_woken_before_their_flag_is_set_are_found() {
    prepare();
    expect_found(Planted::WokenBeforeSet, 40_000, "deadlock", writers);
}

#[test]
fn a_stale_look_at_who_waits_is_found() {
    prepare();
    expect_found(Planted::StaleLook, 5_000, "deadlock", submit);
}

#[test]
fn a_commit_that_readers_see_before_it_is_synced_is_found() {
    prepare();
    expect_found(Planted::EarlyPublish, 2_000, "a reader sees", || readers(Durability::Sync));
}

#[test]
fn a_write_that_is_acknowledged_before_readers_see_it_is_found() {
    prepare();
    expect_found(Planted::FinalBeforeVisible, 5_000, "one's own commit", writers);
}

#[test]
fn a_reader_that_looks_at_the_visible_lsn_once_is_found() {
    expect_found(Planted::OneLook, 10_000, "page", directory);
}

#[test]
fn a_frame_that_is_used_again_under_a_reader_is_found() {
    expect_found(Planted::FrameFreedEarly, 10_000, "page", directory);
}

#[test]
fn a_walk_that_misses_what_was_taken_out_is_found() {
    expect_found(Planted::WalkNotRepeated, 10_000, "page", walks);
}

#[test]
fn a_reader_that_the_writer_does_not_hear_of_is_found() {
    expect_found(Planted::QuietReader, 10_000, "page", directory);
}

#[test]
fn a_version_that_is_changed_in_place_under_a_reader_is_found() {
    expect_found(Planted::TakenUnseen, 20_000, "page", walks);
}
