//! Writers alone: every acknowledged closure is in the final state, LSNs are in the order in which
//! the closures ran, and nobody waits for ever.

use crate::{
    explore::explore,
    world::{End, World, any_overlap, any_synced, draw, prepare},
};

#[test]
fn every_acknowledged_closure_is_there_and_nobody_waits_for_ever() {
    prepare();
    explore("writers", writers);
}

/// Three or four writers, each with a few closures, of which some fail or panic.
pub fn writers() {
    let world = World::new(|options| {
        options
            .overlap(any_overlap())
            .durability(any_synced())
            .merge_closures_max([1, 2, 1024][draw(0..3)])
            .queue_max([1, 3, 1024][draw(0..3)])
            .in_flight_records_max(1 + draw(0..2))
    });
    let writers: Vec<_> = (0..draw(3..5))
        .map(|writer| {
            let ends: Vec<End> = (0..draw(1..3)).map(|_| any_end()).collect();
            world.spawn(move |world| {
                for (index, end) in ends.into_iter().enumerate() {
                    world.write(&format!("{writer}-{index}"), end).expect("a write");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("a writer"));
    world.settle();
}

fn any_end() -> End {
    [End::Well, End::Well, End::Well, End::Error, End::Panic][draw(0..5)]
}
