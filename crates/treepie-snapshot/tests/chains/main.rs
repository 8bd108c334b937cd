//! Databases, backed up under load and restored, against a model: row 13 of `docs/testing.md`.
//!
//! Everything follows from a seed, on a simulated disk, and every failure prints it.
//! `TREEPIE_SEED=<n>` runs one seed alone; `TREEPIE_SEEDS=<n>` goes through n times as many.

mod chain;
mod damage;
mod golden;
#[cfg(feature = "planted")]
mod planted;
mod repositories;
mod resumed;
mod source;
mod tasks;

use std::env;

/// The seeds of a test: `count` from 1 on, or as the environment says.
fn seeds(count: u64) -> Vec<u64> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("TREEPIE_SEED") {
        Some(seed) => vec![seed],
        None => (1..=count * number("TREEPIE_SEEDS").unwrap_or(1)).collect(),
    }
}

/// Runs `work` on every seed, on two threads, and adds up what they count.
fn for_seeds<T: Default + Send>(
    seeds: &[u64],
    work: impl Fn(u64) -> T + Sync,
    add: impl Fn(&mut T, T) + Sync,
) -> T {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let sum = std::sync::Mutex::new(T::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(&seed) = seeds.get(index) else { return };
                    let counted = work(seed);
                    add(&mut sum.lock().expect("no test has panicked with it"), counted);
                }
            });
        }
    });
    sum.into_inner().expect("no test has panicked with it")
}
