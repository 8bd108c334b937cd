//! Copies of pages beside writers and the checkpoint: each has every page as of its LSN, and increments
//! add up to what a full copy has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use treepie::{
    CopyOptions, PageCopy,
    ids::{Lsn, PageId},
    schedules::{turn, write_early},
};

use crate::{
    explore::explore,
    world::{End, World, any_overlap, draw, prepare},
};

const PAGE_SIZE: usize = 4096;

/// Pages by their numbers.
type Pages = BTreeMap<u32, Vec<u8>>;
/// A whole copy, and its LSN.
type Whole = (Lsn, Pages);

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
    let whole: Arc<Mutex<Option<Whole>>> = Arc::default();
    let made = Arc::clone(&whole);
    threads.push(world.spawn(move |world| {
        let old = (draw(0..2) == 0).then(|| world.db.read().expect("a snapshot"));
        turn();
        let mut full = world.db.copy_pages(&CopyOptions::new()).expect("a copy begins");
        drop(old);
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
        *made.lock().expect("no panic inside") = Some((again.lsn(), whole));
    }));
    threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
    world.settle();
    let (lsn, pages) = whole.lock().expect("no panic inside").take().expect("it was made");
    if lsn == world.db.read().expect("a snapshot").lsn() {
        compare(&world, &pages);
    }
}

/// Compares pages with what readers see, but for the inside of runs.
fn compare(world: &World, pages: &Pages) {
    for (&page, bytes) in pages {
        if bytes[4..8] == page.to_le_bytes() {
            let seen = world.db.page(PageId(page)).expect("a page");
            assert!(seen.bytes == *bytes, "page {page} differs from what readers see");
        }
    }
}

/// Reads a copy to its end, which verifies that no page is newer than it.
fn read(copy: &mut PageCopy, pages: &mut Pages) {
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
