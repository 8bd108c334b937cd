//! Durable transactions of one put each, by one thread or many.

use std::{
    collections::VecDeque,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    combiner::Combiner,
    contest::Context,
    engine::{Batch, Engine, Pending},
    measure::{Figure, latencies},
    workloads::write::Writer,
};

/// Threads that submit without waiting for each commit.
const SUBMITTERS: u64 = 2;

/// Transactions of some threads, each of which commits by itself.
pub fn alone<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    threads: u64,
) -> Result<Vec<Figure>> {
    let row = format!("puts-{threads}");
    each(context, round, threads, &row, |writer, times| {
        commit(context, threads, writer, times, |key, value| {
            engine.write(|batch| batch.put(key, value))
        })
    })
}

/// The same behind a thread that combines what waits into one transaction.
pub fn combined<E: Engine>(
    engine: &E,
    context: &Context,
    round: u32,
    threads: u64,
) -> Result<Vec<Figure>> {
    let row = format!("combined-{threads}");
    Combiner::run(engine, |combiner| {
        each(context, round, threads, &row, |writer, times| {
            let caller = combiner.caller();
            commit(context, threads, writer, times, |key, value| caller.put(key, value))
        })
    })
}

/// Transactions of two threads that hand them over and wait for them later, each with a number
/// of them in flight. No figures where the engine has no such call.
pub fn submitted<E: Engine>(engine: &E, context: &Context, round: u32) -> Result<Vec<Figure>> {
    let (key, value) = (context.entries.first_key(), vec![0; context.entries.value_len]);
    let Some(wait) = engine.submit(&key, &value)? else { return Ok(Vec::new()) };
    wait()?;
    each(context, round, SUBMITTERS, "submit-2", |writer, times| {
        submit(engine, context, writer, times)
    })
}

/// Runs `body` in some threads, each with entries of its own to write, and gathers their times.
fn each(
    context: &Context,
    round: u32,
    threads: u64,
    row: &str,
    body: impl Fn(&mut Writer<'_>, &mut Vec<Duration>) -> Result<()> + Sync,
) -> Result<Vec<Figure>> {
    let ready = Barrier::new(usize::try_from(threads)? + 1);
    let (times, elapsed) = thread::scope(|scope| {
        let (ready, body) = (&ready, &body);
        let run = move |thread| -> Result<Vec<Duration>> {
            let (mut writer, mut times) = (Writer::new(context, round, thread), Vec::new());
            ready.wait();
            body(&mut writer, &mut times)?;
            Ok(times)
        };
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        ready.wait();
        let start = Instant::now();
        let mut all = Vec::new();
        for handle in handles {
            all.extend(handle.join().map_err(|_| "a writer panicked")??);
        }
        Result::Ok((all, start.elapsed()))
    })?;
    latencies(row, times, elapsed)
}

/// Commits one put after the other until the turn ends.
fn commit(
    context: &Context,
    threads: u64,
    writer: &mut Writer<'_>,
    times: &mut Vec<Duration>,
    put: impl Fn(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let turn = context.limit.shared_by(threads).start();
    while turn.goes_on(times.len() as u64) {
        let start = Instant::now();
        let (key, value) = writer.next();
        put(key, value)?;
        times.push(start.elapsed());
    }
    Ok(())
}

/// Submits puts until the turn ends, and waits for the oldest when enough are in flight. The time
/// of a transaction is that from handing it over to its end.
fn submit<E: Engine>(
    engine: &E,
    context: &Context,
    writer: &mut Writer<'_>,
    times: &mut Vec<Duration>,
) -> Result<()> {
    let turn = context.limit.shared_by(SUBMITTERS).start();
    let mut in_flight = VecDeque::new();
    while turn.goes_on((times.len() + in_flight.len()) as u64) {
        if in_flight.len() == context.options.in_flight
            && let Some((start, wait)) = in_flight.pop_front()
        {
            end(start, wait, times)?;
        }
        let start = Instant::now();
        let (key, value) = writer.next();
        let wait = engine.submit(key, value)?.ok_or("the engine stopped taking puts")?;
        in_flight.push_back((start, wait));
    }
    in_flight.into_iter().try_for_each(|(start, wait)| end(start, wait, times))
}

fn end(start: Instant, wait: Pending<'_>, times: &mut Vec<Duration>) -> Result<()> {
    wait()?;
    times.push(start.elapsed());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn rows(figures: &[Figure]) -> Vec<&str> {
        figures.iter().map(|figure| figure.row.as_str()).collect()
    }

    #[test]
    fn each_way_of_committing_has_a_rate_and_percentiles() {
        let context = Context::for_tests(100);
        let memory = Memory::default();
        let alone = alone(&memory, &context, 0, 4).unwrap();
        assert_eq!(rows(&alone), ["puts-4", "puts-4-p50", "puts-4-p99"]);
        assert_eq!(memory.commits(), 100);
        let combined = combined(&memory, &context, 0, 4).unwrap();
        assert_eq!(rows(&combined), ["combined-4", "combined-4-p50", "combined-4-p99"]);
        let before = memory.commits();
        let submitted = submitted(&memory, &context, 0).unwrap();
        assert_eq!(rows(&submitted), ["submit-2", "submit-2-p50", "submit-2-p99"]);
        assert_eq!(memory.commits() - before, 101);
    }
}
