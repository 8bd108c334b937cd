//! Streams of snapshots, edited or made by the fuzzer, checksums made right or not; then read to their
//! end.
//!
//! The bytes: which stream, flags, then edits one after the other; or frames whose content is the
//! fuzzer's. A stream that is taken for whole must hold what it held before it was edited.

use treepie_snapshot::{
    Content, Control, Key, ReadOptions, RecordBuffer, StreamReader, StreamSummary, verify,
};

use super::{
    input::Input,
    stamp::put,
    stream::{FRAME_HEADER_SIZE, STREAM_HEADER_SIZE, frames, stamp_all},
};
use crate::hash_bytes;

/// The streams that are edited: those that are kept for ever.
pub const TEMPLATES: [&[u8]; 4] = [
    include_bytes!("../../../treepie-snapshot/tests/fixtures/stream-1/full.tps"),
    include_bytes!("../../../treepie-snapshot/tests/fixtures/stream-1/increment.tps"),
    include_bytes!("../../../treepie-snapshot/tests/fixtures/stream-1/records.tps"),
    include_bytes!("../../../treepie-snapshot/tests/fixtures/stream-1/encrypted.tps"),
];
/// The key of the last one.
const KEY: [u8; 32] = [0x5a; 32];
/// Edits and frames that one input makes at most.
const EDITS_MAX: usize = 32;
/// Length from which on a stream is not made longer: a frame that takes in all others and is repeated
/// doubles it.
const STREAM_LEN_MAX: usize = 1 << 20;

/// Checksums are not made right again.
pub const IS_ROTTEN: u8 = 4;
/// Frames get the numbers of their places.
pub const IS_NUMBERED: u8 = 8;
/// The frames are the fuzzer's own.
pub const IS_MADE: u8 = 16;
/// Threads work on it.
pub const HAS_THREADS: u8 = 32;

/// What became of a stream: how many pieces came, and whether it was taken for whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Pieces of content.
    pub pieces: usize,
    /// Hash of the content.
    pub hash: u64,
    /// The end, if it was reached.
    pub summary: Option<StreamSummary>,
}

/// Runs one input.
///
/// # Panics
/// If the reader breaks a promise.
pub fn run(bytes: &[u8]) -> Reading {
    let mut input = Input::new(bytes);
    let flags = input.u8();
    let template = TEMPLATES[usize::from(flags) % TEMPLATES.len()];
    let mut stream = template.to_vec();
    if flags & IS_MADE != 0 {
        make(&mut stream, &mut input);
    } else {
        edit(&mut stream, &mut input);
    }
    if flags & IS_NUMBERED != 0 {
        for (sequence, range) in frames(&stream).into_iter().enumerate() {
            put(&mut stream[range], 16, &(sequence as u64).to_le_bytes());
        }
    }
    if flags & IS_ROTTEN == 0 {
        stamp_all(&mut stream);
    }
    let threads = if flags & HAS_THREADS != 0 { 2 } else { 1 };
    let reading = read(&stream, threads);
    if reading.summary.is_some() {
        let whole = read(template, 1);
        assert_eq!(whole.hash, reading.hash, "another content was taken for whole");
    }
    let options = options(threads);
    let verified = verify(&stream[..], &options, Control::new()).ok();
    assert!(verified.is_none() || verified == reading.summary, "{verified:?}");
    reading
}

fn options(threads: usize) -> ReadOptions {
    ReadOptions::new().threads(threads).keys(Key::new(KEY))
}

/// Reads a stream, and holds what is handed out against what was promised of it.
fn read(stream: &[u8], threads: usize) -> Reading {
    let mut reading = Reading { pieces: 0, hash: 0, summary: None };
    let Ok(mut reader) = StreamReader::new(stream, &options(threads)) else { return reading };
    let header = *reader.header();
    let (mut next_page, mut next_lsn) = (0, header.position.lsn.0.saturating_add(1));
    let mut buffer = RecordBuffer::new();
    while let Ok(Some(content)) = reader.next() {
        reading.pieces += 1;
        match content {
            Content::Pages(pages) => {
                for (id, page) in pages {
                    assert!(u64::from(id.0) >= next_page && id.0 < header.page_count, "{id}");
                    assert_eq!(page.len(), header.page_size);
                    next_page = u64::from(id.0) + 1;
                    reading.hash = hash_bytes(page) ^ reading.hash.rotate_left(1) ^ u64::from(id.0);
                }
            }
            Content::Record(piece) => {
                if let Some((lsn, record)) = buffer.push(&piece) {
                    assert_eq!(lsn.0, next_lsn, "records have no gap");
                    next_lsn = next_lsn.saturating_add(1);
                    reading.hash = hash_bytes(record) ^ reading.hash.rotate_left(1);
                }
            }
        }
    }
    reading.summary = reader.summary().copied();
    assert!(reader.next().is_ok() == reading.summary.is_some(), "an error does not go away");
    reading
}

fn edit(stream: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..EDITS_MAX {
        if input.is_empty() || stream.len() > STREAM_LEN_MAX {
            break;
        }
        let what = input.u8();
        let (at, len) = (input.below(stream.len() + 1), usize::from(input.u8()));
        let ranges = frames(stream);
        let frame = ranges.get(at % ranges.len().max(1)).cloned().unwrap_or(0..0);
        match what % 8 {
            0 => put(stream, at, input.bytes(len)),
            1 => stream.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= input.u8()),
            2 => stream.truncate(at),
            3 => stream.extend_from_slice(input.bytes(len)),
            4 => drop(stream.drain(frame)),
            5 => {
                let again = stream[frame.clone()].to_vec();
                stream.splice(frame.start..frame.start, again);
            }
            6 => {
                let moved: Vec<u8> = stream.drain(frame).collect();
                stream.extend(moved);
            }
            // A field of the header of a frame, or of the stream.
            _ => {
                let start = if len < 128 { frame.start } else { 0 };
                put(stream, start + len % 128, input.bytes(1 + at % 8));
            }
        }
    }
}

/// Frames behind the header of the template.
fn make(stream: &mut Vec<u8>, input: &mut Input<'_>) {
    let id: [u8; 8] =
        stream.get(40..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; 8]);
    stream.truncate(STREAM_HEADER_SIZE);
    put(stream, 32, &input.u32().to_le_bytes());
    for sequence in 0..EDITS_MAX as u64 {
        if input.is_empty() {
            break;
        }
        let (kind, flags) = (input.u8() % 4, input.u8());
        let (claimed, pages) = (input.u32(), usize::from(flags >> 2) % 4);
        let len = usize::from(input.u16());
        let mut content = vec![flags; pages * 4096];
        content.extend_from_slice(input.bytes(len));
        let raw_len = match flags & 1 {
            0 => content.len() as u32,
            _ => claimed,
        };
        let mut header = [0; FRAME_HEADER_SIZE];
        put(&mut header, 0, b"TPSF");
        put(&mut header, 8, &id);
        put(&mut header, 16, &sequence.to_le_bytes());
        put(&mut header, 24, &[kind, flags & 1]);
        put(&mut header, 28, &raw_len.to_le_bytes());
        put(&mut header, 32, &(content.len() as u32).to_le_bytes());
        stream.extend_from_slice(&header);
        stream.extend_from_slice(&content);
    }
}

/// Where a fuzzer begins: each stream as it is, each kind of edit, frames of pages and of records.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for template in 0..TEMPLATES.len() as u8 {
        seeds.push(vec![template | IS_ROTTEN]);
        seeds.push(vec![template | HAS_THREADS]);
        for what in 0..8 {
            for flags in [0, IS_NUMBERED] {
                seeds.push([template | flags, what, 90, 1, 6, 1, 2, 3, 4, 5, 6].to_vec());
            }
        }
    }
    let page_count = 1_000_u32.to_le_bytes();
    // One page of ones, number 5.
    let table = [5, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let frame = [&[1, 4, 0, 0, 0, 0, 16, 0][..], &table].concat();
    seeds.push([&[IS_MADE][..], &page_count, &frame, &frame].concat());
    // One record of 6 bytes, the one after the header's position.
    let mut content = [0; 16 + 128 + 6];
    put(&mut content, 0, &701_u64.to_le_bytes());
    put(&mut content, 16, b"TPRC");
    put(&mut content, 24, &[1, 0, 1, 0]);
    put(&mut content, 32, &701_u64.to_le_bytes());
    put(&mut content, 48, &0x0102_0304_0506_0708_u64.to_le_bytes());
    put(&mut content, 56, &6_u64.to_le_bytes());
    let frame = [&[2, 0, 0, 0, 0, 0, 150, 0][..], &content].concat();
    seeds.push([&[IS_MADE | 2][..], &page_count, &frame].concat());
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_reach_whole_streams_and_the_content_of_made_frames() {
        let readings: Vec<Reading> = seeds().iter().map(|seed| run(seed)).collect();
        let whole = readings.iter().filter(|reading| reading.summary.is_some()).count();
        let readable = TEMPLATES.len() - usize::from(!cfg!(feature = "encryption"));
        assert!(whole >= 2 * readable, "{whole} of {}", readings.len());
        let made: Vec<usize> =
            readings.iter().rev().take(2).map(|reading| reading.pieces).collect();
        assert_eq!(made, [1, 1], "a record, and a page");
    }
}
