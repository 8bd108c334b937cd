//! Planted bugs are found: a checker that cannot fail is a defect.

use treepie::{Durability, schedules::Planted};

use crate::{
    copies::copies,
    directory::{directory, walks},
    explore::expect_found,
    readers::readers,
    submit::submit,
    world::prepare,
    writers::writers,
};

/// A test for each bug: after how many schedules it is found at the latest, what shows it, and the
/// scenario. From this list follows how many there are, too.
macro_rules! planted {
    ($($test:ident: $bug:ident, $count:literal, $sign:literal, $scenario:expr;)*) => {
        /// The bugs that are planted.
        pub const BUGS: &[Planted] = &[$(Planted::$bug),*];

        $(
            #[test]
            fn $test() {
                prepare();
                expect_found(Planted::$bug, $count, $sign, $scenario);
            }
        )*
    };
}

planted! {
    a_merger_that_is_not_woken_is_found:
        SilentJoin, 2_000, "deadlock", submit;
    sleepers_that_are_woken_before_their_flag_is_set_are_found:
        WokenBeforeSet, 40_000, "deadlock", writers;
    a_stale_look_at_who_waits_is_found:
        StaleLook, 5_000, "deadlock", submit;
    a_commit_that_readers_see_before_it_is_synced_is_found:
        EarlyPublish, 2_000, "a reader sees", || readers(Durability::Sync);
    a_write_that_is_acknowledged_before_readers_see_it_is_found:
        FinalBeforeVisible, 5_000, "one's own commit", writers;
    a_reader_that_looks_at_the_visible_lsn_once_is_found:
        OneLook, 10_000, "page", directory;
    a_frame_that_is_used_again_under_a_reader_is_found:
        FrameFreedEarly, 10_000, "page", directory;
    a_walk_that_misses_what_was_taken_out_is_found:
        WalkNotRepeated, 10_000, "page", walks;
    a_reader_that_the_writer_does_not_hear_of_is_found:
        QuietReader, 10_000, "page", directory;
    a_version_that_is_changed_in_place_under_a_reader_is_found:
        TakenUnseen, 20_000, "page", walks;
    a_copy_that_is_not_given_what_is_written_over_is_found:
        NoHandOver, 2_000, "newer", copies;
    a_copy_that_is_given_pages_when_they_are_written_is_found:
        HandOverAfterWrite, 2_000, "newer", copies;
    a_copy_whose_cursor_is_ahead_of_its_reads_is_found:
        CursorBeforeRead, 20_000, "newer", copies;
    a_generation_that_begins_too_late_is_found:
        LateGeneration, 20_000, "differs", copies;
}
