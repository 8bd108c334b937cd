//! Random gets of one thread while another one writes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    Result,
    contest::Context,
    engine::Engine,
    measure::{Figure, Unit},
    workloads::{read::get_until_end, write::Writer},
};

/// How the other thread writes, and the rows of reader and writer.
#[derive(Clone, Copy, Debug)]
pub struct Neighbour {
    batch_len: u64,
    reader_row: &'static str,
    writer_row: &'static str,
}

/// One put per commit.
pub const PUT_1: Neighbour = Neighbour {
    batch_len: 1,
    reader_row: "get-beside-put-1",
    writer_row: "get-beside-put-1-writer",
};
/// 1,000 puts per commit.
pub const PUT_1000: Neighbour = Neighbour {
    batch_len: 1000,
    reader_row: "get-beside-put-1000",
    writer_row: "get-beside-put-1000-writer",
};

/// Gets per second of the reader, and puts per second of the writer meanwhile.
pub fn gets<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    neighbour: Neighbour,
) -> Result<Vec<Figure>> {
    let stop = AtomicBool::new(false);
    let turn = context.limit.start();
    let (gets, puts) = thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<u64> {
            // Other values than those that the write workloads leave behind.
            let mut writer = Writer::new(context, round + 1000);
            let mut puts = 0;
            while !stop.load(Ordering::Relaxed) {
                writer.put(engine, neighbour.batch_len)?;
                puts += neighbour.batch_len;
            }
            Ok(puts)
        });
        let gets = get_until_end(engine, context, round, 0);
        let gets = gets.map(|gets| (gets, turn.elapsed()));
        stop.store(true, Ordering::Relaxed);
        let puts = writer.join().map_err(|_| "the writer panicked".into()).flatten();
        (gets, puts.map(|puts| (puts, turn.elapsed())))
    });
    let ((gets, get_time), (puts, put_time)) = (gets?, puts?);
    Ok(vec![
        Figure::rate(neighbour.reader_row, gets, get_time, Unit::Gets),
        Figure::rate(neighbour.writer_row, puts, put_time, Unit::Puts),
    ])
}
