//! Writes of every durability beside each other, explicit transactions, and syncs: each write is
//! acknowledged as its own durability asks for, and a power cut takes nothing else.

use treepie::Durability;

use crate::{
    explore::explore,
    world::{End, World, any_overlap, draw, prepare},
};

#[test]
fn each_write_is_as_durable_as_it_asks_for() {
    prepare();
    explore("mixed", mixed);
}

/// Three writers of any durability, one with explicit transactions; somebody syncs; the power fails.
pub fn mixed() {
    let world =
        World::new(|options| options.overlap(any_overlap()).in_flight_records_max(1 + draw(0..3)));
    let mut threads = Vec::new();
    for writer in 0..2 {
        threads.push(world.spawn(move |world| {
            for index in 0..2 {
                world.write_as(any(), &format!("{writer}-{index}"), End::Well).expect("a write");
            }
        }));
    }
    threads.push(world.spawn(|world| {
        for index in 0..2 {
            world.transact(any(), &format!("own-{index}"), draw(0..3) > 0).expect("a transaction");
        }
    }));
    threads.push(world.spawn(|world| {
        let before = world.read(false);
        let synced = world.db.sync().expect("a sync");
        assert!(synced.0 >= before, "{synced} is synced, {before} was read before");
    }));
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
    world.cut_power();
}

fn any() -> Durability {
    [Durability::Sync, Durability::Buffered, Durability::Memory][draw(0..3)]
}
