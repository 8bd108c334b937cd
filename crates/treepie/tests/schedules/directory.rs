//! Page directory and registry of readers without a database around them: small enough for many
//! schedules of the hottest code.

use std::sync::Arc;

use shuttle::thread;
use treepie::schedules::World;

use crate::{explore::explore, world::draw};

#[test]
fn every_reader_sees_its_state_while_versions_come_and_go() {
    explore("directory", directory);
}

#[test]
fn a_walk_through_a_chain_survives_what_is_taken_out() {
    explore("walks", walks);
}

/// A writer, the checkpoint, and a reader or two over a few pages.
pub fn directory() {
    let world = Arc::new(World::new(draw(1..4) as u32, 256 << 10));
    let last = draw(2..9) as u64;
    let passes = draw(1..3);
    let spawn = |body: Box<dyn FnOnce(&World) + Send>| {
        let world = Arc::clone(&world);
        thread::spawn(move || body(&world))
    };
    let mut threads = vec![
        spawn(Box::new(move |world| (1..=last).for_each(|lsn| world.commit(lsn)))),
        spawn(Box::new(move |world| (0..passes).for_each(|_| world.write_early()))),
    ];
    for _ in 0..draw(1..3) {
        let times = draw(1..3);
        threads.push(spawn(Box::new(move |world| {
            world.read(times);
            world.read(1);
        })));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.end();
}

/// A writer and a reader that walks through long chains.
pub fn walks() {
    let world = Arc::new(World::new(2, 256 << 10));
    let (writing, reading) = (Arc::clone(&world), Arc::clone(&world));
    let writer = thread::spawn(move || (1..=8).for_each(|lsn| writing.commit(lsn)));
    let reader = thread::spawn(move || (0..3).for_each(|_| reading.read(2)));
    writer.join().expect("the writer");
    reader.join().expect("the reader");
    world.end();
}
