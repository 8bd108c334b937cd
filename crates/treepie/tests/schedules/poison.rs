//! Failing writes and syncs with callers waiting: all of them are told, and what was acknowledged is
//! there after reopening.

use treepie::Error;
use treepie_testkit::{Call, Fault};

use crate::{
    explore::explore,
    world::{End, World, any_overlap, draw, prepare},
};

#[test]
fn everyone_is_told_when_the_journal_fails() {
    prepare();
    explore("poison", poison);
}

#[test]
fn everyone_is_told_when_the_checkpoint_fails() {
    prepare();
    explore("failing checkpoint", failing_checkpoint);
}

/// Three writers and a reader; the journal fails sooner or later.
pub fn poison() {
    let world = World::new(|options| {
        options.overlap(any_overlap()).queue_max([1, 1024][draw(0..2)]).in_flight_records_max(2)
    });
    let call = [Call::SyncData, Call::SyncData, Call::Write][draw(0..3)];
    world.disk.fail(Fault::nth(1 + draw(0..4) as u64).of(call).on("journal").forever());
    let mut threads = Vec::new();
    for writer in 0..3 {
        threads.push(world.spawn(move |world| {
            for index in 0..2 {
                match world.write(&format!("{writer}-{index}"), End::Well) {
                    Ok(_) | Err(Error::OutcomeUnknown { .. } | Error::Poisoned { .. }) => {}
                    // A roll of the journal that could not begin.
                    Err(Error::Io { .. }) => {}
                    Err(error) => panic!("a writer is told {error}"),
                }
            }
        }));
    }
    threads.push(world.spawn(|world| {
        world.read(true);
        world.read(true);
    }));
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
    world.reopen();
}

/// Three writers wait for the checkpoint, which cannot write or sync the data file.
pub fn failing_checkpoint() {
    let world = World::new(|options| {
        options
            .background_threads(true)
            .overlap(any_overlap())
            .checkpoint_distance(4 << 10)
            .journal_max(8 << 10)
    });
    let call = [Call::SyncData, Call::Write][draw(0..2)];
    world.disk.fail(Fault::nth(1 + draw(0..2) as u64).of(call).on("data").forever());
    let mut threads = Vec::new();
    for writer in 0..3 {
        threads.push(world.spawn(move |world| {
            for index in 0..2 {
                match world.write_blindly(&format!("{writer}-{index}")) {
                    Ok(()) | Err(Error::Poisoned { .. } | Error::Io { .. }) => {}
                    Err(error) => panic!("a writer is told {error}"),
                }
            }
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
    world.reopen();
}
