//! What streams cost in memory: at most 64 MiB, however long they are, whatever the options, and
//! whatever a hostile stream claims. One test alone, because the allocator counts for the process.

use std::io::{self, Read, Write};

use treepie_snapshot::{
    Content, Lineage, Position, ReadOptions, StreamHeader, StreamKind, StreamOptions, StreamReader,
    StreamWriter, ids::PageId, limits,
};
use treepie_testkit::{
    Rng,
    hostile::{
        allocations::{Counted, peak_of},
        stamp::put,
        stream::{STREAM_HEADER_SIZE, stamp_all},
    },
    tally,
};
use zstd::bulk::Compressor;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const MIB: usize = 1 << 20;
const MEMORY_MAX: usize = 64 * MIB;
/// A thread that decompresses has a context of zstd, and the blocks of the allocator itself.
const DECOMPRESSOR_LEN: usize = 256 << 10;

fn header() -> StreamHeader {
    StreamHeader {
        kind: StreamKind::Full,
        lineage: Lineage::default(),
        page_size: 8192,
        page_count: 1 << 30,
        position: Position::default(),
        base: Position::default(),
        time_us: 0,
        database_created_us: 0,
        created_us: 0,
    }
}

/// Writes pages of half noise, half zeros, that are not kept anywhere; returns the length.
fn write(out: impl Write, frames: u32, options: &StreamOptions) -> u64 {
    let mut writer = StreamWriter::new(out, header(), options).expect("a writer");
    let mut run = vec![0; 64 * 8192];
    let mut rng = Rng::new(1);
    for first in (0..frames * 128).step_by(64) {
        run.chunks_mut(8192).for_each(|page| rng.fill(&mut page[..4096]));
        writer.pages(PageId(first), &run).expect("they ascend");
    }
    writer.finish(Position::default()).expect("its end").1.stored_len
}

fn read(stream: impl Read, threads: usize) -> u64 {
    let options = ReadOptions::new().threads(threads);
    let mut reader = StreamReader::new(stream, &options).expect("a header");
    let mut pages = 0;
    while let Some(content) = reader.next().expect("it is whole") {
        if let Content::Pages(some) = content {
            pages += some.runs().map(|run| u64::from(run.count)).sum::<u64>();
        }
    }
    pages
}

/// What zstd takes beside the allocator that counts: its contexts are C.
fn context_len(level: i32, frame_len: usize) -> usize {
    if level == 0 {
        return 0;
    }
    let mut compressor = Compressor::new(level).expect("memory");
    let noise = Rng::new(2).bytes(limits::content_len_max(frame_len));
    compressor.compress(&noise).expect("there is room");
    let len = compressor.context_mut().sizeof();
    assert!(len <= limits::context_len_max(level), "level {level}: {len}");
    len
}

/// A header, and then a frame that claims all that it may, of which little comes.
fn hostile() -> Vec<u8> {
    let options = StreamOptions::new().threads(1).frame_len(limits::FRAME_LEN_MAX);
    let mut stream = Vec::new();
    write(&mut stream, 1, &options);
    let claimed = u32::try_from(limits::content_len_max(limits::FRAME_LEN_MAX)).expect("32 bits");
    put(&mut stream, STREAM_HEADER_SIZE + 28, &claimed.to_le_bytes());
    put(&mut stream, STREAM_HEADER_SIZE + 32, &(claimed - 1).to_le_bytes());
    put(&mut stream, STREAM_HEADER_SIZE + 25, &[1]);
    stream.truncate(STREAM_HEADER_SIZE + 64 + 1000);
    stamp_all(&mut stream);
    stream
}

#[test]
fn stream_of_any_length_takes_no_more_than_64_mib() {
    let mut highest = 0;
    for (level, frame_len) in [(0, MIB), (1, MIB), (3, 4 * MIB), (6, MIB), (9, MIB), (9, 8 * MIB)] {
        for threads in [1, 2, 64] {
            let options = StreamOptions::new().level(level).frame_len(frame_len).threads(threads);
            let frames = if level > 3 { 20 } else { 60 };
            let (_, peak) = peak_of(|| write(io::sink(), frames, &options));
            let workers = limits::work(threads, level, frame_len).1.max(1);
            let peak = peak + workers * context_len(level, frame_len);
            println!("level {level}, frames of {frame_len}, {threads} threads: {peak} bytes");
            assert!(peak <= MEMORY_MAX, "level {level}, {frame_len}, {threads} threads: {peak}");
            highest = highest.max(peak);
        }
        let mut stream = Vec::new();
        let options = StreamOptions::new().level(level).frame_len(frame_len);
        write(&mut stream, 50, &options);
        for threads in [1, 2, 64] {
            let (pages, peak) = peak_of(|| read(&stream[..], threads));
            let workers = limits::work(threads, 0, frame_len).1.max(1);
            let peak = peak + workers * DECOMPRESSOR_LEN;
            assert_eq!(pages, 50 * 128);
            assert!(peak <= MEMORY_MAX, "reading {frame_len}, {threads} threads: {peak}");
            highest = highest.max(peak);
        }
    }
    let stream = hostile();
    let (refused, peak) = peak_of(|| {
        let reader = StreamReader::new(&stream[..], &ReadOptions::new());
        reader.expect("a header").next().is_err()
    });
    assert!(refused && peak < MIB, "{peak} bytes for a claim");
    let counts = format!("at most {:.1} MiB", highest as f64 / MIB as f64);
    tally::note(13, "memory of a stream", &counts);
}
