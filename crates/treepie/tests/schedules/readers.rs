//! Readers beside writers: a snapshot never changes, it is the state at its LSN, and that LSN is
//! synced where writes are acknowledged when they are.

use treepie::Durability;

use crate::{
    explore::explore,
    world::{End, World, any_overlap, draw, prepare},
};

#[test]
fn readers_see_the_state_at_their_lsn_and_nothing_unsynced() {
    prepare();
    explore("readers", || readers(Durability::Sync));
}

#[test]
fn readers_see_the_state_at_their_lsn_before_it_is_synced() {
    prepare();
    explore("readers of weaker writes", || {
        readers([Durability::Buffered, Durability::Memory][draw(0..2)]);
    });
}

/// Two writers and two readers.
pub fn readers(durability: Durability) {
    let world = World::new(|options| options.overlap(any_overlap()).durability(durability));
    let mut threads = Vec::new();
    for writer in 0..2 {
        threads.push(world.spawn(move |world| {
            for index in 0..2 {
                world.write(&format!("{writer}-{index}"), End::Well).expect("a write");
            }
        }));
    }
    for _ in 0..2 {
        threads.push(world.spawn(move |world| {
            let first = world.read(durability == Durability::Sync);
            let second = world.read(durability == Durability::Sync);
            assert!(first <= second, "{second} after {first}");
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
}
