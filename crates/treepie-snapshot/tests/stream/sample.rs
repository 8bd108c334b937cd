//! Streams to test with, and what is in them.

use std::collections::BTreeMap;

use treepie_snapshot::{
    Content, Key, Lineage, Position, ReadOptions, RecordBuffer, Result, StreamHeader, StreamKind,
    StreamOptions, StreamReader, StreamSummary, StreamWriter,
    ids::{DatabaseId, Lsn, PageId},
};
use treepie_testkit::hostile::stamp::{put, stamp_record};
use xxhash_rust::xxh3::xxh3_64;

/// What a stream holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    pub pages: BTreeMap<u32, Vec<u8>>,
    pub records: Vec<Vec<u8>>,
}

pub fn key() -> Key {
    Key::new([0x5a; 32])
}

pub fn header(kind: StreamKind, page_size: usize) -> StreamHeader {
    let position = Position { lsn: Lsn(700), chain: 0x0102_0304_0506_0708 };
    let base = match kind {
        StreamKind::Full => Position::default(),
        StreamKind::Increment => Position { lsn: Lsn(600), chain: 99 },
        StreamKind::Records => position,
    };
    StreamHeader {
        kind,
        lineage: Lineage {
            database_id: DatabaseId([7; 16]),
            epoch: 3,
            forked_at: Lsn(500),
            forked_chain: 55,
        },
        page_size,
        page_count: 5_000,
        position,
        base,
        time_us: 1_000_000,
        database_created_us: 1_000,
        created_us: 2_000_000,
    }
}

/// A record that follows a position; its header as an engine would write it.
pub fn record(after: &mut Position, page_size: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend_from_slice(payload);
    let (lsn, len) = (after.lsn.0 + 1, payload.len() as u64);
    put(&mut bytes, 0, b"TPRC");
    put(&mut bytes, 8, &[1, 0, 1, 0]);
    put(&mut bytes, 12, &u32::try_from(page_size).expect("a page size").to_le_bytes());
    put(&mut bytes, 16, &lsn.to_le_bytes());
    put(&mut bytes, 32, &after.chain.to_le_bytes());
    put(&mut bytes, 40, &len.to_le_bytes());
    put(&mut bytes, 48, &len.to_le_bytes());
    put(&mut bytes, 64, &(1_000_000 + lsn).to_le_bytes());
    stamp_record(&mut bytes);
    *after = Position { lsn: Lsn(lsn), chain: xxh3_64(&bytes) };
    bytes
}

/// Writes all of it, page by page; frames end behind the pages and records that `ends_frame` names.
pub fn write(
    header: StreamHeader,
    inside: &Inside,
    options: &StreamOptions,
    mut ends_frame: impl FnMut() -> bool,
) -> Result<(Vec<u8>, StreamSummary)> {
    let mut writer = StreamWriter::new(Vec::new(), header, options)?;
    let mut last = None;
    for (&number, page) in &inside.pages {
        // A group is not cut.
        if last.is_some_and(|last| last / 128 < number / 128) && ends_frame() {
            writer.flush()?;
        }
        writer.pages(PageId(number), page)?;
        last = Some(number);
    }
    for (lsn, record) in (header.position.lsn.0 + 1..).zip(&inside.records) {
        if ends_frame() {
            writer.flush()?;
        }
        writer.record(Lsn(lsn), record)?;
    }
    let end = writer.position();
    writer.finish(end)
}

/// Reads all of it.
pub fn read(stream: &[u8], options: &ReadOptions) -> Result<(Inside, StreamSummary)> {
    let mut reader = StreamReader::new(stream, options)?;
    let mut inside = Inside::default();
    let mut buffer = RecordBuffer::new();
    while let Some(content) = reader.next()? {
        match content {
            Content::Pages(pages) => {
                inside.pages.extend(pages.map(|(id, page)| (id.0, page.to_vec())));
            }
            Content::Record(piece) => {
                inside.records.extend(buffer.push(&piece).map(|(_, record)| record.to_vec()));
            }
        }
    }
    let summary = *reader.summary().expect("it has ended");
    Ok((inside, summary))
}

/// A small stream with frames of every kind, some of them compressed; its header and what it holds.
pub fn small() -> (StreamHeader, Inside) {
    let header = header(StreamKind::Full, 4096);
    let mut inside = Inside::default();
    for number in [0_u32, 1, 2, 200, 203, 300, 301] {
        let byte = if number == 301 { 0 } else { number as u8 + 1 };
        inside.pages.insert(number, vec![byte; 4096]);
    }
    let mut at = header.position;
    inside.records.push(record(&mut at, 4096, b"short"));
    inside.records.push(record(&mut at, 4096, &[7; 300]));
    (header, inside)
}

/// Options for tests that write or read thousands of streams: no threads.
pub fn alone(key: Option<Key>) -> (StreamOptions, ReadOptions) {
    let (writing, reading) = (StreamOptions::new().threads(1), ReadOptions::new().threads(1));
    match key {
        None => (writing, reading),
        Some(key) => (writing.key(key.clone()), reading.keys(key)),
    }
}

/// With and without encryption, as far as this build has it.
pub fn keys() -> Vec<Option<Key>> {
    if cfg!(feature = "encryption") { vec![None, Some(key())] } else { vec![None] }
}
