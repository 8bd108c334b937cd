//! What goes in comes out, whatever the options.

use std::{env, io, io::Read};

use treepie_snapshot::{
    Content, Control, Error, PageHasher, ReadOptions, StreamKind, StreamOptions, StreamReader,
    StreamWriter,
    ids::{Lsn, PageId},
    verify,
};
use treepie_testkit::{Rng, tally};

use crate::sample::{Inside, alone, header, key, keys, read, record, small, write};

/// Seeds of an ordinary run.
const SEEDS: u64 = 60;

fn random_inside(rng: &mut Rng, kind: StreamKind, page_size: usize) -> Inside {
    let mut inside = Inside::default();
    let mut number = rng.index(300) as u32;
    while kind != StreamKind::Records && number < 5_000 && inside.pages.len() < 900 {
        let run_max = if rng.chance(1, 4) { 300 } else { 4 };
        for _ in 0..1 + rng.index(run_max) {
            let page = match rng.below(4) {
                0 => vec![0; page_size],
                1 => rng.bytes(page_size),
                _ => vec![rng.next_u64() as u8; page_size],
            };
            inside.pages.insert(number.min(4_999), page);
            number += 1;
        }
        let gap_max = if rng.chance(1, 2) { 20 } else { 900 };
        number += rng.index(gap_max) as u32;
    }
    let mut at = header(kind, page_size).position;
    let count = if kind == StreamKind::Records { rng.index(40) } else { rng.index(4) };
    for _ in 0..count {
        let len = match rng.below(8) {
            0 => 0,
            1 => rng.index(5 << 20),
            _ => rng.index(5_000),
        };
        let payload = if rng.chance(1, 2) { rng.bytes(len) } else { vec![1; len] };
        inside.records.push(record(&mut at, page_size, &payload));
    }
    inside
}

fn trip(seed: u64) -> (u64, u64) {
    let mut rng = Rng::new(seed);
    let kinds = [StreamKind::Full, StreamKind::Increment, StreamKind::Records];
    let (kind, page_size) = (*rng.pick(&kinds), *rng.pick(&[4096, 8192]));
    let inside = random_inside(&mut rng, kind, page_size);
    let (mut writing, mut reading) = alone(rng.pick(&keys()).clone());
    writing = writing
        .level(*rng.pick(&[0, 1, 3, 5]))
        .threads(rng.index(5))
        .frame_len(*rng.pick(&[1 << 20, 1_500_000, 8 << 20]));
    reading = reading.threads(rng.index(5));
    let header = header(kind, page_size);
    let flushes = rng.chance(1, 2);
    let (stream, written) = write(header, &inside, &writing, || flushes && rng.chance(1, 5))
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert_eq!(written.stored_len, stream.len() as u64, "seed {seed}");
    let (found, summary) = read(&stream, &reading).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    assert!(found == inside, "seed {seed}: another content");
    assert_eq!(summary, written, "seed {seed}");
    assert_eq!(summary.header, header, "seed {seed}");
    assert_eq!(summary.record_count, inside.records.len() as u64, "seed {seed}");
    let mut hasher = PageHasher::new(page_size);
    inside.pages.iter().for_each(|(number, page)| hasher.push(PageId(*number), page));
    assert_eq!(summary.page_hash, hasher.finish(), "seed {seed}");
    let verified = verify(&stream[..], &reading, Control::new());
    assert_eq!(verified.unwrap_or_else(|e| panic!("seed {seed}: {e}")), written);
    (summary.page_count, summary.record_count)
}

#[test]
fn what_goes_into_a_stream_comes_out_of_it() {
    let one = env::var("TREEPIE_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let (mut pages, mut records, mut streams) = (0, 0, 0);
    for seed in one.map_or(0..SEEDS, |seed| seed..seed + 1) {
        println!("TREEPIE_SEED={seed} cargo test -p treepie-snapshot --test stream what_goes");
        let (page_count, record_count) = trip(seed);
        (pages, records, streams) = (pages + page_count, records + record_count, streams + 1);
    }
    let counts = format!("{streams}, with {} pages, {records} records", tally::thousands(pages));
    tally::note(13, "streams written and read", &counts);
}

/// Gives a few bytes at a time, and is interrupted in between.
struct Trickle<'a>(&'a [u8], Rng);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1.chance(1, 3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = (1 + self.1.index(100)).min(buffer.len());
        self.0.read(&mut buffer[..len])
    }
}

#[test]
fn reader_needs_no_whole_reads_and_leaves_what_follows_alone() {
    let (header, inside) = small();
    for key in keys() {
        let (writing, reading) = alone(key);
        let (mut stream, written) = write(header, &inside, &writing, || true).expect("a stream");
        let verified = verify(Trickle(&stream, Rng::new(1)), &reading, Control::new());
        assert_eq!(verified.expect("it is whole"), written);

        stream.extend_from_slice(b"more");
        let reader = StreamReader::new(&stream[..], &reading).expect("a header");
        let (rest, summary) = reader.finish().expect("it is whole");
        assert_eq!((rest, summary), (&b"more"[..], written));
        let offset = written.stored_len;
        match verify(&stream[..], &reading, Control::new()) {
            Err(Error::TrailingBytes { offset: found }) => assert_eq!(found, offset),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bytes_do_not_depend_on_how_many_threads_work() {
    let mut rng = Rng::new(5);
    let inside = random_inside(&mut rng, StreamKind::Full, 4096);
    let header = header(StreamKind::Full, 4096);
    let written = [1, 2, 4].map(|threads| {
        let options = StreamOptions::new().threads(threads);
        write(header, &inside, &options, || false).expect("a stream").1
    });
    for summary in written {
        assert_eq!(summary.stored_len, written[0].stored_len);
        assert_eq!(summary.page_hash, written[0].page_hash);
    }
}

#[test]
fn stream_that_is_flushed_can_be_read_while_it_grows() {
    let header = header(StreamKind::Records, 4096);
    let mut at = header.position;
    let records = [b"one".as_slice(), b"two"].map(|payload| record(&mut at, 4096, payload));
    let mut writer =
        StreamWriter::new(Vec::new(), header, &StreamOptions::new()).expect("a writer");
    writer.record(Lsn(701), &records[0]).expect("it follows");
    writer.flush().expect("memory");
    let len = usize::try_from(writer.stored_len()).expect("short");
    writer.record(Lsn(702), &records[1]).expect("it follows");
    let (stream, _) = writer.finish(at).expect("its end");
    let mut reader = StreamReader::new(&stream[..len], &alone(None).1).expect("a header");
    match reader.next().expect("the first record is there") {
        Some(Content::Record(piece)) => assert_eq!(piece.bytes, records[0]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(reader.next(), Err(Error::Cut { .. })));
    assert!(matches!(reader.next(), Err(Error::Broken)));
}

#[cfg(feature = "encryption")]
#[test]
fn encrypted_stream_needs_its_key_and_names_it() {
    use treepie_snapshot::{Key, KeyId, Keys};

    let (header, inside) = small();
    let key = key().named(KeyId::new("nightly").expect("an id"));
    let (writing, _) = alone(Some(key.clone()));
    let (stream, _) = write(header, &inside, &writing, || true).expect("a stream");
    let open =
        |keys: Keys| StreamReader::new(&stream[..], &ReadOptions::new().keys(keys)).map(drop);
    match open(Keys::default()) {
        Err(Error::KeyMissing { key_id }) => assert_eq!(key_id.as_str(), "nightly"),
        other => panic!("{other:?}"),
    }
    let wrong = Key::new([1; 32]);
    assert!(matches!(open(wrong.clone().into()), Err(Error::WrongKey { .. })));
    assert!(matches!(open(Keys::by_id(|_| None)), Err(Error::KeyMissing { .. })));
    let ring =
        move |id: &KeyId| Some(if id.as_str() == "nightly" { key.clone() } else { wrong.clone() });
    assert!(open(Keys::by_id(ring)).is_ok());
    let text = inside.pages[&2].as_slice();
    assert!(!stream.windows(64).any(|window| window == &text[..64]), "plaintext");
}

#[cfg(not(feature = "encryption"))]
#[test]
fn build_without_encryption_refuses_a_key() {
    let options = StreamOptions::new().key(key());
    let made = StreamWriter::new(Vec::new(), header(StreamKind::Full, 4096), &options);
    assert!(matches!(made.map(drop), Err(Error::NoEncryption)));
    let _ = ReadOptions::new();
}
