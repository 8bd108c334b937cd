//! Streams of snapshots, from memory to memory: pages a second, written, read and hashed, on as many
//! threads as there are processors.
//!
//! The pages are those of two databases of 64 MiB: one whose values are words, and one whose values do
//! not compress.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has nothing to say")]

use std::{fs, hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use treepie_benches::{Numbers, empty, random_key, value};
use treepie_snapshot::{
    Content, Key, Lineage, PageHasher, Position, ReadOptions, StreamHeader, StreamKind,
    StreamOptions, StreamReader, StreamWriter, ids::PageId,
};

const PAGE_SIZE: usize = 8192;
const PAGES_LEN: usize = 64 << 20;
const WORDS: &[&str] = &[
    "magpie",
    "crow",
    "jay",
    "raven",
    "nutcracker",
    "of",
    "the",
    "northern",
    "eastern",
    "blue",
    "black",
    "billed",
    "Pica",
    "Corvus",
    "Garrulus",
    "1758",
    "1823",
    "Europe",
    "Asia",
    "Linnaeus",
];

fn words(n: u64) -> Vec<u8> {
    let mut numbers = Numbers::new(n);
    let mut text = Vec::new();
    while text.len() < 150 {
        text.extend_from_slice(WORDS[numbers.below(WORDS.len() as u64) as usize].as_bytes());
        text.extend_from_slice(format!(" {} ", numbers.below(1000)).as_bytes());
    }
    text
}

/// The pages of a database, without its meta pages.
fn pages(value: fn(u64) -> Vec<u8>) -> Vec<u8> {
    let (dir, db) = empty();
    for batch in 0..40 {
        db.write(|tx| {
            let mut tree = tx.tree("t")?;
            (0..8_000)
                .map(|n| batch * 8_000 + n)
                .try_for_each(|n| tree.insert(random_key(n), value(n)).map(drop))
        })
        .unwrap();
    }
    db.close().unwrap();
    let mut bytes = fs::read(dir.path().join("db/data")).unwrap();
    bytes.drain(..18 * PAGE_SIZE);
    assert!(bytes.len() >= PAGES_LEN, "{} bytes", bytes.len());
    bytes.truncate(PAGES_LEN);
    bytes
}

fn header() -> StreamHeader {
    StreamHeader {
        kind: StreamKind::Full,
        lineage: Lineage::default(),
        page_size: PAGE_SIZE,
        page_count: 1 << 20,
        position: Position::default(),
        base: Position::default(),
        time_us: 0,
        database_created_us: 0,
        created_us: 0,
    }
}

fn write(out: Vec<u8>, pages: &[u8], options: &StreamOptions) -> Vec<u8> {
    let header = header();
    let mut writer = StreamWriter::new(out, header, options).unwrap();
    for (first, bytes) in (18..).step_by(32).zip(pages.chunks(32 * PAGE_SIZE)) {
        writer.pages(PageId(first), bytes).unwrap();
    }
    writer.finish(header.position).unwrap().0
}

fn read(stream: &[u8], options: &ReadOptions, data: &mut [u8]) {
    let mut reader = StreamReader::new(stream, options).unwrap();
    while let Some(content) = reader.next().unwrap() {
        let Content::Pages(pages) = content else { continue };
        for run in pages.runs() {
            let start = (run.first.0 as usize - 18) * PAGE_SIZE;
            if let Some(bytes) = run.bytes {
                data[start..start + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

fn streams(criterion: &mut Criterion) {
    let key = Key::new([7; 32]);
    let coded = [
        ("plain", StreamOptions::new().level(0)),
        ("level 1", StreamOptions::new()),
        ("level 3", StreamOptions::new().level(3)),
        ("level 1, encrypted", StreamOptions::new().key(key.clone())),
    ];
    let reading = ReadOptions::new().keys(key);
    for (name, pages) in [("words", pages(words)), ("noise", pages(|n| value(n).to_vec()))] {
        let mut group = criterion.benchmark_group(format!("stream of {name}"));
        group.throughput(Throughput::Bytes(PAGES_LEN as u64));
        group.sample_size(10);
        group.warm_up_time(Duration::from_millis(500));
        group.measurement_time(Duration::from_secs(2));
        let mut data = vec![0; PAGES_LEN];
        for (how, options) in &coded {
            let mut out = Some(Vec::with_capacity(PAGES_LEN + (1 << 20)));
            group.bench_function(format!("write, {how}"), |b| {
                b.iter(|| {
                    let mut buffer = out.take().unwrap();
                    buffer.clear();
                    out = Some(write(buffer, &pages, options));
                });
            });
            let mut buffer = out.take().unwrap();
            buffer.clear();
            let stream = write(buffer, &pages, options);
            data.fill(0);
            read(&stream, &reading, &mut data);
            assert!(data == pages, "another content");
            println!("{how}: {:.1} % of its pages", stream.len() as f64 * 100.0 / PAGES_LEN as f64);
            group.bench_function(format!("read, {how}"), |b| {
                b.iter(|| read(black_box(&stream), &reading, &mut data));
            });
        }
        group.bench_function("page hash, one thread", |b| {
            b.iter(|| {
                let mut hasher = PageHasher::new(PAGE_SIZE);
                hasher.push(PageId(18), black_box(&pages));
                hasher.finish()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, streams);
criterion_main!(benches);
