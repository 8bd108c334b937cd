//! Writes, each commit durable: one put, batches, loads, large values.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use treepie_benches::{Numbers, empty, entries, load, loaded, random_key, sorted_key, value};

fn puts(criterion: &mut Criterion) {
    let (_dir, db) = loaded();
    let mut numbers = Numbers::new(1);
    let mut group = criterion.benchmark_group("durable puts");
    group.sample_size(50);
    for batch in [1, 1_000, 10_000] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(format!("{batch} per commit"), |b| {
            b.iter(|| {
                db.write(|tx| {
                    let mut tree = tx.tree("t")?;
                    for _ in 0..batch {
                        let n = numbers.below(entries());
                        tree.insert(random_key(n), value(numbers.draw()))?;
                    }
                    Ok(())
                })
                .unwrap()
            });
        });
    }
    group.finish();
}

fn loads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10);
    group.throughput(Throughput::Elements(entries()));
    for (name, key) in [("sorted", sorted_key as fn(u64) -> _), ("random", random_key)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                empty,
                |(dir, db)| {
                    load(&db, key);
                    (dir, db)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn large_values(criterion: &mut Criterion) {
    let (_dir, db) = empty();
    let mut group = criterion.benchmark_group("durable large values");
    group.sample_size(20);
    let mut numbers = Numbers::new(1);
    for (name, len) in [("64 KiB", 64 << 10), ("1 MiB", 1 << 20), ("4 MiB", 4 << 20)] {
        let bytes: Vec<u8> = (0..len / 8).flat_map(|_| numbers.draw().to_le_bytes()).collect();
        group.throughput(Throughput::Bytes(len));
        group.bench_function(name, |b| {
            b.iter(|| {
                let key = [numbers.below(32) as u8];
                db.write(|tx| tx.tree("large")?.insert(key, &bytes)).unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, puts, loads, large_values);
criterion_main!(benches);
