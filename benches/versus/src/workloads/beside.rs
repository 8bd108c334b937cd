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

/// Row of the reader, and puts per commit of the writer.
pub type Neighbour = (&'static str, u64);
/// One put per commit.
pub const PUT_1: Neighbour = ("get-beside-put-1", 1);
/// 1,000 puts per commit.
pub const PUT_1000: Neighbour = ("get-beside-put-1000", 1000);

/// Gets per second of the reader, also as a share of what it does alone in the same turn, and puts
/// per second of the writer meanwhile.
pub fn gets<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    (row, batch_len): Neighbour,
) -> Result<Vec<Figure>> {
    let turn = context.limit.start();
    let gets_alone = get_until_end(engine, context, round, 1)?;
    let rate_alone = gets_alone as f64 / turn.elapsed().as_secs_f64();
    let stop = AtomicBool::new(false);
    let turn = context.limit.start();
    let (gets, puts) = thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<u64> {
            let mut writer = Writer::new(context, round, 0);
            let mut puts = 0;
            while !stop.load(Ordering::Relaxed) {
                writer.put(engine, batch_len)?;
                puts += batch_len;
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
    let reader = Figure::rate(row, gets, get_time, Unit::Gets);
    let share = Figure::new(format!("{row}-share"), reader.value / rate_alone, Unit::Share);
    let writer = Figure::rate(format!("{row}-writer"), puts, put_time, Unit::Puts);
    Ok(vec![reader, share, writer])
}
