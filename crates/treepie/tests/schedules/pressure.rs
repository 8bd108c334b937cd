//! Back-pressure: a journal so short that writers wait for the checkpoint, which waits for readers.

use treepie::Error;

use crate::{
    explore::explore,
    world::{World, any_overlap, draw, prepare},
};

#[test]
fn writers_wait_for_the_checkpoint_and_go_on() {
    prepare();
    explore("pressure", pressure);
}

/// Two or three writers, a reader or none, and all threads of the database; then it is closed, with
/// a checkpoint.
pub fn pressure() {
    let world = World::new(|options| {
        options
            .background_threads(true)
            .overlap(any_overlap())
            .checkpoint_distance(4 << 10)
            .journal_max([8 << 10, 16 << 10][draw(0..2)])
            .checkpoint_on_close(true)
    });
    let has_reader = draw(0..2) == 0;
    let mut threads = Vec::new();
    for writer in 0..draw(2..4) {
        threads.push(world.spawn(move |world| {
            for index in 0..2 {
                match world.write_blindly(&format!("{writer}-{index}")) {
                    Ok(()) => {}
                    Err(Error::Bound { option: "journal_max", .. }) if has_reader => {}
                    Err(error) => panic!("a writer is told {error}"),
                }
            }
        }));
    }
    if has_reader {
        threads.push(world.spawn(|world| {
            world.read(true);
        }));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
    world.db.close().expect("it closes");
}
