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

/// A turn of `clients` clients; a rate, and times where values are small.
pub fn turn(
    cluster: &dyn Cluster,
    row: &str,
    clients: usize,
    len: usize,
    reads: bool,
    time: Duration,
) -> Result<Figures> {
    let mut calls = Vec::new();
    for _ in 0..clients {
        calls.push(cluster.client()?);
    }
    let value = noise(len);
    calls[0](Operation::Put(key(0).as_bytes(), &value))?;
    let (stop, next, times) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    let begin = Instant::now();
    let work = |mut call: Call| -> Result<()> {
        let mut own = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let key = key(if reads { 0 } else { next.fetch_add(1, Ordering::Relaxed) });
            let begin = Instant::now();
            call(match reads {
                true => Operation::Get(key.as_bytes()),
                false => Operation::Put(key.as_bytes(), &value),
            })?;
            own.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        times.lock().expect("nobody panicked").extend(own);
        Ok(())
    };
    let work = &work;
    let outcome: Result<()> = thread::scope(|scope| {
        let threads: Vec<_> = calls.drain(..).map(|call| scope.spawn(move || work(call))).collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().expect("nobody panicked"))
    });
    outcome?;
    let elapsed = begin.elapsed().as_secs_f64();
    let mut times = times.into_inner().expect("nobody panicked");
    times.sort_by(f64::total_cmp);
    let rate = times.len() as f64 / elapsed;
    if len > 150 {
        return Ok(vec![(format!("{row} (MB/s)"), rate * len as f64 / 1e6)]);
    }
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    Ok(vec![
        (format!("{row} (/s)"), rate),
        (format!("{row} p50 (us)"), at(50)),
        (format!("{row} p99 (us)"), at(99)),
    ])
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
    let calls: Result<Vec<_>> = (0..8).map(|_| cluster.client()).collect();
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
