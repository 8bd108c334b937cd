//! Turns: so many clients, each doing one thing after the other.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{Call, Cluster, Operation, Result};

/// Rows and their values.
pub type Figures = Vec<(String, f64)>;

/// How long a cluster may be without a leader.
const GAP_MAX: Duration = Duration::from_secs(60);

fn key(number: u64) -> String {
    format!(
        "{:024x}",
        u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 32
    )
}

/// So many clients, each doing one thing after the other.
pub struct Turn {
    pub row: String,
    clients: usize,
    connections: usize,
    len: usize,
    reads: bool,
}

impl Turn {
    /// Clients that put values of `len` bytes, each with a connection of its own.
    pub fn new(row: String, clients: usize, len: usize) -> Turn {
        Turn { row, clients, connections: clients, len, reads: false }
    }

    /// The same clients with so many connections between them.
    pub fn on(mut self, connections: usize) -> Turn {
        self.connections = connections;
        self
    }

    /// They get what was put.
    pub fn reading(mut self) -> Turn {
        self.reads = true;
        self
    }

    /// A rate, and times where values are small.
    pub fn run(&self, cluster: &dyn Cluster, time: Duration) -> Result<Figures> {
        let mut calls = cluster.clients(self.clients, self.connections)?;
        let (row, reads, value) = (&self.row, self.reads, noise(self.len));
        calls[0](Operation::Put(key(0).as_bytes(), &value))?;
        let next = AtomicU64::new(0);
        let work = |mut call: Call| {
            let (next, value) = (&next, &value);
            move || {
                let key = key(if reads { 0 } else { next.fetch_add(1, Ordering::Relaxed) });
                call(match reads {
                    true => Operation::Get(key.as_bytes()),
                    false => Operation::Put(key.as_bytes(), value),
                })
            }
        };
        let [rate, p50, p99] = timed(calls.drain(..).map(work).collect(), time)?;
        if self.len > 150 {
            return Ok(vec![(format!("{row} (MB/s)"), rate * self.len as f64 / 1e6)]);
        }
        Ok(vec![
            (format!("{row} (/s)"), rate),
            (format!("{row} p50 (us)"), p50),
            (format!("{row} p99 (us)"), p99),
        ])
    }
}

/// Does each thing again and again on a thread of its own: how often in a second, and microseconds of the
/// median and of the 99th percentile.
pub fn timed(things: Vec<impl FnMut() -> Result<()> + Send>, time: Duration) -> Result<[f64; 3]> {
    let (stop, times) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let begin = Instant::now();
    let work = |mut thing: Box<dyn FnMut() -> Result<()> + Send + '_>| -> Result<()> {
        let mut own = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            thing()?;
            own.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        times.lock().expect("nobody panicked").extend(own);
        Ok(())
    };
    let work = &work;
    let outcome: Result<()> = thread::scope(|scope| {
        let threads: Vec<_> =
            things.into_iter().map(|thing| scope.spawn(move || work(Box::new(thing)))).collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().expect("nobody panicked"))
    });
    outcome?;
    let elapsed = begin.elapsed().as_secs_f64();
    let mut times = times.into_inner().expect("nobody panicked");
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    Ok([times.len() as f64 / elapsed, at(50), at(99)])
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..len).map(step).collect()
}

/// Milliseconds between the last acknowledged put before the leader is killed and the next one, with 8
/// clients that put all the time.
pub fn gap(cluster: &mut dyn Cluster) -> Result<f64> {
    let calls = cluster.clients(8, 8);
    let (stop, done, next) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(1 << 40));
    thread::scope(|scope| {
        for mut call in calls? {
            let (stop, done, next) = (&stop, &done, &next);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let key = key(next.fetch_add(1, Ordering::Relaxed));
                    if call(Operation::Put(key.as_bytes(), b"v")).is_ok() {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        thread::sleep(Duration::from_millis(500));
        let result = cluster.kill_leader().and_then(|()| {
            let killed = Instant::now();
            // What was on its way back when the leader died.
            thread::sleep(Duration::from_millis(5));
            let before = done.load(Ordering::Relaxed);
            while done.load(Ordering::Relaxed) == before {
                if killed.elapsed() > GAP_MAX {
                    return Err("no leader came".into());
                }
                thread::yield_now();
            }
            Ok(killed.elapsed().as_secs_f64() * 1e3)
        });
        stop.store(true, Ordering::Relaxed);
        result
    })
}
