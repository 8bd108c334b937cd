//! The checkpoint beside writers and readers: pages go to the data file under readers of the map,
//! and nobody notices.

use treepie::schedules::write_early;

use crate::{
    explore::explore,
    world::{End, World, any_overlap, draw, prepare},
};

#[test]
fn the_checkpoint_changes_nothing_that_anyone_reads() {
    prepare();
    explore("checkpoint", checkpoint);
}

/// A writer or two, a reader or two, and the checkpoint, whole or in part.
pub fn checkpoint() {
    let world = World::new(|options| options.overlap(any_overlap()));
    let mut threads = Vec::new();
    for writer in 0..draw(1..3) {
        threads.push(world.spawn(move |world| {
            for index in 0..3 {
                world.write(&format!("{writer}-{index}"), End::Well).expect("a write");
            }
        }));
    }
    for _ in 0..draw(1..3) {
        threads.push(world.spawn(|world| {
            world.read(true);
            world.read(true);
        }));
    }
    threads.push(world.spawn(|world| {
        for _ in 0..2 {
            if draw(0..2) == 0 {
                world.db.checkpoint().map(drop).expect("a checkpoint");
            } else {
                write_early(&world.db).map(drop).expect("a pass");
            }
        }
    }));
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
    if draw(0..8) == 0 {
        assert!(world.db.check().expect("a check").is_clean());
        world.reopen();
    }
}
