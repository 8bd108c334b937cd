//! Submitted writes, and all threads of the database: the merger's, the checkpoint, the flusher, and
//! the one that prepares segments. They begin, serve and end.

use std::{future::Future, pin::pin, task::Poll};

use treepie::{Durability, Submitted};

use crate::{
    explore::explore,
    world::{End, World, any_overlap, draw, prepare, step},
};

#[test]
fn what_is_submitted_is_settled_and_the_threads_end() {
    prepare();
    explore("submit", submit);
}

/// Two threads that submit and wait, or poll; one that writes; then the database is closed.
pub fn submit() {
    let durability = [Durability::Sync, Durability::Buffered, Durability::Memory][draw(0..3)];
    let world = World::new(|options| {
        options
            .background_threads(true)
            .overlap(any_overlap())
            .durability(durability)
            .queue_max([1, 2, 1024][draw(0..3)])
    });
    let mut threads = Vec::new();
    for writer in 0..2 {
        threads.push(world.spawn(move |world| {
            let writes: Vec<Submitted<u64>> = (0..2)
                .map(|index| {
                    let key = format!("{writer}-{index}");
                    let write = world.db.submit(move |tx| step(tx, &key, End::Well));
                    write.expect("it is taken")
                })
                .collect();
            for write in writes {
                let receipt = if draw(0..2) == 0 { write.wait() } else { block_on(write) };
                world.acknowledge(receipt.expect("a commit"), End::Well);
            }
        }));
    }
    threads.push(world.spawn(|world| {
        world.write("own", End::Well).expect("a write");
    }));
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
    world.db.close().expect("it closes");
}

/// Polls a future until it is ready.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    shuttle::future::block_on(async move {
        let mut future = pin!(future);
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(output),
            Poll::Pending => Poll::Pending,
        })
        .await
    })
}
