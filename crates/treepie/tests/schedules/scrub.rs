//! A scrub beside writers and the checkpoint: whatever it meets, nothing is damaged.

use std::ops::ControlFlow;

use treepie::schedules::write_early;

use crate::{
    explore::explore,
    world::{End, World, any_overlap, draw, prepare},
};

#[test]
fn a_scrub_takes_nothing_for_damage() {
    prepare();
    explore("scrub", scrub);
}

/// A writer of small values, one of runs, the checkpoint, whole or in part, and a scrub or two.
pub fn scrub() {
    let world = World::new(|options| options.overlap(any_overlap()));
    let mut threads = Vec::new();
    threads.push(world.spawn(|world| {
        for index in 0..2 {
            world.write(&format!("0-{index}"), End::Well).expect("a write");
        }
    }));
    threads.push(world.spawn(|world| {
        for index in 0..3 {
            let (key, len) = ([index % 2], 5_000 * draw(1..4));
            let written = world.db.write(|tx| tx.tree("runs")?.insert(key, vec![index; len]));
            written.expect("a write");
        }
    }));
    threads.push(world.spawn(|world| {
        for _ in 0..2 {
            if draw(0..2) == 0 {
                world.db.checkpoint().map(drop).expect("a checkpoint");
            } else {
                write_early(&world.db).map(drop).expect("a pass");
            }
        }
    }));
    for _ in 0..draw(1..3) {
        threads.push(world.spawn(|world| {
            let report = world.db.scrub(None, |_| ControlFlow::Continue(())).expect("a scrub");
            assert!(report.is_complete && report.damage.is_empty(), "{report:?}");
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
}
