//! Reads: get, full scan, scan of ten, prefix scan, and gets beside a writer.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use treepie_benches::{Numbers, entries, loaded, random_key, value};

fn reads(criterion: &mut Criterion) {
    let (_dir, db) = loaded();
    let snapshot = db.read().unwrap();
    let tree = snapshot.tree("t").unwrap();
    let mut numbers = Numbers::new(1);
    let mut group = criterion.benchmark_group("reads");

    group.throughput(Throughput::Elements(1));
    group.bench_function("get", |b| {
        b.iter(|| black_box(tree.get(random_key(numbers.below(entries()))).unwrap()));
    });
    group.bench_function("snapshot and get", |b| {
        b.iter(|| {
            let snapshot = db.read().unwrap();
            let tree = snapshot.tree("t").unwrap();
            black_box(tree.get(random_key(numbers.below(entries()))).unwrap().map(<[u8]>::len))
        });
    });
    group.throughput(Throughput::Elements(10));
    group.bench_function("scan of 10", |b| {
        b.iter(|| {
            let key = random_key(numbers.below(entries()));
            tree.range(&key[..]..).take(10).map(|entry| entry.unwrap().1.len()).sum::<usize>()
        });
    });
    group.bench_function("prefix of 2 bytes", |b| {
        b.iter(|| {
            let key = random_key(numbers.below(entries()));
            tree.prefix(&key[..2]).map(|entry| entry.unwrap().1.len()).sum::<usize>()
        });
    });
    group.throughput(Throughput::Elements(entries()));
    group.sample_size(20);
    group.bench_function("full scan", |b| {
        b.iter(|| tree.iter().map(|entry| entry.unwrap().1.len()).sum::<usize>());
    });
    group.finish();
}

fn reads_beside_a_writer(criterion: &mut Criterion) {
    let (_dir, db) = loaded();
    let mut group = criterion.benchmark_group("get beside a writer");
    group.throughput(Throughput::Elements(1));
    for batch in [1, 1_000] {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut numbers = Numbers::new(2);
                while !stop.load(Ordering::Relaxed) {
                    db.write(|tx| {
                        let mut tree = tx.tree("t")?;
                        for _ in 0..batch {
                            let n = numbers.below(entries());
                            tree.insert(random_key(n), value(numbers.draw()))?;
                        }
                        Ok(())
                    })
                    .unwrap();
                }
            });
            let mut numbers = Numbers::new(3);
            group.bench_function(format!("of {batch} puts per commit"), |b| {
                b.iter(|| {
                    let snapshot = db.read().unwrap();
                    let tree = snapshot.tree("t").unwrap();
                    let key = random_key(numbers.below(entries()));
                    black_box(tree.get(key).unwrap().map(<[u8]>::len))
                });
            });
            stop.store(true, Ordering::Relaxed);
        });
    }
    group.finish();
}

criterion_group!(benches, reads, reads_beside_a_writer);
criterion_main!(benches);
