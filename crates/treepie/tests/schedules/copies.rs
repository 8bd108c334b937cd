//! Copies of pages beside writers and the checkpoint: each has every page as of its LSN, and increments
//! add up to what a full copy has.

use std::collections::BTreeMap;

use treepie::{CopyOptions, PageCopy, schedules::write_early};

use crate::{
    explore::explore,
    world::{End, World, any_overlap, draw, prepare},
};

const PAGE_SIZE: usize = 4096;

#[test]
fn copies_have_every_page_as_of_their_lsn() {
    prepare();
    explore("copies", copies);
}

/// A writer of small values, one of runs, the checkpoint, whole or in part, and a copy with an
/// increment on it.
pub fn copies() {
    let world = World::new(|options| options.overlap(any_overlap()));
    let mut threads = Vec::new();
    threads.push(world.spawn(|world| {
        for index in 0..3 {
            world.write(&format!("0-{index}"), End::Well).expect("a write");
        }
    }));
    threads.push(world.spawn(|world| {
        for index in 0..2 {
            let (key, len) = ([index % 2], 5_000 * draw(1..4));
            let written = world.db.write(|tx| tx.tree("runs")?.insert(key, vec![index; len]));
            written.expect("a write");
        }
    }));
    threads.push(world.spawn(|world| {
        for _ in 0..3 {
            if draw(0..3) == 0 {
                world.db.checkpoint().map(drop).expect("a checkpoint");
            } else {
                write_early(&world.db).map(drop).expect("a pass");
            }
        }
    }));
    threads.push(world.spawn(|world| {
        let mut full = world.db.copy_pages(&CopyOptions::new()).expect("a copy begins");
        let mut pages = BTreeMap::new();
        read(&mut full, &mut pages);
        let base = CopyOptions::new().base(full.as_base());
        let mut increment = world.db.copy_pages(&base).expect("a copy begins");
        assert!(increment.is_from_map());
        let mut again = world.db.copy_pages(&CopyOptions::new()).expect("a copy begins");
        read(&mut increment, &mut pages);
        let mut whole = BTreeMap::new();
        read(&mut again, &mut whole);
        if again.lsn() == increment.lsn() {
            for (page, bytes) in &whole {
                assert!(pages.get(page) == Some(bytes), "page {page} differs at {}", again.lsn());
            }
        }
    }));
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
}

/// Reads a copy to its end, which verifies that no page is newer than it.
fn read(copy: &mut PageCopy, pages: &mut BTreeMap<u32, Vec<u8>>) {
    let mut bytes = Vec::new();
    loop {
        let next = copy.next(&mut bytes, PAGE_SIZE * draw(1..4));
        let Some(first) = next.unwrap_or_else(|error| panic!("a copy: {error}")) else { return };
        for (page, bytes) in (first.0..).zip(bytes.chunks(PAGE_SIZE)) {
            pages.insert(page, bytes.to_vec());
        }
        bytes.clear();
    }
}
