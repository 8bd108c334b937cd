//! Every cut, every flipped bit, every exchange of frames of a small stream is an error; also where
//! whoever did it has made all checksums right again.

use treepie_snapshot::{Content, Control, Error, Key, ReadOptions, StreamReader, verify};
use treepie_testkit::{
    hostile::{
        stamp::put,
        stream::{FRAME_HEADER_SIZE, STREAM_HEADER_SIZE, frames, stamp_all},
    },
    tally,
};

use crate::sample::{Inside, alone, keys, read, small, write};

fn stream(key: Option<Key>) -> (Vec<u8>, Inside, ReadOptions) {
    let (header, inside) = small();
    let (writing, reading) = alone(key);
    let (stream, summary) = write(header, &inside, &writing, || true).expect("a stream");
    assert_eq!(summary.frame_count, 5, "frames to exchange");
    (stream, inside, reading)
}

/// Whether a stream is taken for whole with another content than it had: what must never be.
type Judge<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Every one of them, and what of it the judge let pass.
#[derive(Debug, Default)]
struct Tried {
    count: u64,
    missed: Vec<String>,
}

impl Tried {
    fn one(&mut self, judge: Judge<'_>, bytes: &[u8], what: impl FnOnce() -> String) {
        self.count += 1;
        if judge(bytes) {
            self.missed.push(what());
        }
    }
}

fn cuts(stream: &[u8], judge: Judge<'_>) -> Tried {
    let mut tried = Tried::default();
    for len in 0..stream.len() {
        tried.one(judge, &stream[..len], || format!("cut at {len}"));
    }
    tried
}

fn flips(stream: &[u8], stamped: bool, judge: Judge<'_>) -> Tried {
    let mut tried = Tried::default();
    let mut bytes = stream.to_vec();
    for bit in 0..stream.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if stamped {
            stamp_all(&mut bytes);
        }
        // A checksum that was flipped and made right again is as it was.
        if bytes != stream {
            tried.one(judge, &bytes, || format!("bit {} of byte {}", bit % 8, bit / 8));
        }
        bytes.copy_from_slice(stream);
    }
    tried
}

/// Frames exchanged, repeated, left out, or replaced by those of a sibling.
fn exchanges(stream: &[u8], sibling: &[u8], stamped: bool, judge: Judge<'_>) -> Tried {
    let pieces: Vec<&[u8]> = frames(stream).into_iter().map(|range| &stream[range]).collect();
    let others: Vec<&[u8]> = frames(sibling).into_iter().map(|range| &sibling[range]).collect();
    let mut orders: Vec<(String, Vec<&[u8]>)> = Vec::new();
    for a in 0..pieces.len() {
        let mut dropped = pieces.clone();
        dropped.remove(a);
        orders.push((format!("frame {a} left out"), dropped));
        let mut foreign = pieces.clone();
        foreign[a] = others[a];
        orders.push((format!("frame {a} of another stream"), foreign));
        for b in 0..=pieces.len() {
            let mut repeated = pieces.clone();
            repeated.insert(b, pieces[a]);
            orders.push((format!("frame {a} again at {b}"), repeated));
            if a < b && b < pieces.len() {
                let mut swapped = pieces.clone();
                swapped.swap(a, b);
                orders.push((format!("frames {a} and {b} exchanged"), swapped));
            }
        }
    }
    let mut tried = Tried::default();
    for (what, order) in orders {
        let mut bytes = stream[..STREAM_HEADER_SIZE].to_vec();
        let id: [u8; 8] = *stream[40..].first_chunk().expect("an id");
        for (sequence, frame) in order.iter().enumerate() {
            let start = bytes.len();
            bytes.extend_from_slice(frame);
            if stamped {
                put(&mut bytes, start + 8, &id);
                put(&mut bytes, start + 16, &(sequence as u64).to_le_bytes());
            }
        }
        if stamped {
            stamp_all(&mut bytes);
        }
        tried.one(judge, &bytes, || what);
    }
    tried
}

/// All of it; returns the counts and what was missed.
fn all(stream: &[u8], sibling: &[u8], judge: Judge<'_>) -> ([u64; 3], Vec<String>) {
    let cuts = cuts(stream, judge);
    let flips = [flips(stream, false, judge), flips(stream, true, judge)];
    let exchanges =
        [exchanges(stream, sibling, false, judge), exchanges(stream, sibling, true, judge)];
    let count = |tried: &[Tried]| tried.iter().map(|tried| tried.count).sum();
    let counts = [cuts.count, count(&flips), count(&exchanges)];
    let missed = [cuts].into_iter().chain(flips).chain(exchanges);
    (counts, missed.flat_map(|tried| tried.missed).collect())
}

#[test]
fn every_cut_flip_and_exchange_of_frames_is_an_error_or_harmless() {
    let mut sums = [0; 3];
    for key in keys() {
        let (bytes, inside, reading) = stream(key.clone());
        let (sibling, ..) = stream(key.clone());
        let judge = |bytes: &[u8]| {
            let is_whole = verify(bytes, &reading, Control::new()).is_ok();
            is_whole
                && (key.is_some()
                    || read(bytes, &reading).map(|read| read.0).ok() != Some(inside.clone()))
        };
        let (counts, missed) = all(&bytes, &sibling, &judge);
        assert!(missed.is_empty(), "{missed:?}");
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    let [cuts, flips, exchanges] = sums.map(tally::thousands);
    let counts = format!("{cuts} cuts, {flips} flipped bits, {exchanges} exchanges of frames");
    tally::note(13, "damaged streams refused", &counts);
}

/// A reader that believes what it gets without waiting for the end.
#[test]
fn reader_that_does_not_wait_for_the_trailer_is_found_out() {
    let (bytes, inside, reading) = stream(None);
    let (sibling, ..) = stream(None);
    let hasty = |bytes: &[u8]| {
        let Ok(mut reader) = StreamReader::new(bytes, &reading) else { return false };
        let mut pages = 0;
        while let Ok(Some(content)) = reader.next() {
            if let Content::Pages(some) = content {
                pages += some.count();
            }
        }
        pages > 0 && (pages != inside.pages.len() || reader.summary().is_none())
    };
    let (_, missed) = all(&bytes, &sibling, &hasty);
    for what in ["cut at", "bit", "left out", "of another stream", "again at", "exchanged"] {
        assert!(missed.iter().any(|missed| missed.contains(what)), "{what}");
    }
}

#[test]
fn errors_name_the_frame_and_its_offset() {
    let (bytes, _, reading) = stream(None);
    for (number, range) in frames(&bytes).into_iter().enumerate() {
        let offset = range.start as u64;
        let mut flipped = bytes.clone();
        flipped[range.end - 1] ^= 1;
        let said = read(&flipped, &reading).expect_err("a damaged frame").to_string();
        let place = format!("in frame {number} at byte {offset}:");
        assert!(said.contains(&place), "{said}");
        let cut = read(&bytes[..range.end - 1], &reading).expect_err("a cut stream");
        match cut {
            Error::Cut { offset, .. } => assert_eq!(offset, range.end as u64 - 1),
            other => panic!("{other}"),
        }
    }
}

/// A header may claim what it likes: memory is taken for what comes.
#[test]
fn newer_versions_and_frames_that_are_too_long_are_refused_before_they_are_read() {
    let (bytes, _, reading) = stream(None);
    let mut newer = bytes.clone();
    put(&mut newer, 8, &2_u32.to_le_bytes());
    stamp_all(&mut newer);
    let refused = read(&newer, &reading);
    assert!(matches!(refused, Err(Error::UnsupportedVersion { found: 2, supported: 1, .. })));
    let mut features = bytes.clone();
    put(&mut features, 16, &4_u64.to_le_bytes());
    stamp_all(&mut features);
    assert!(matches!(read(&features, &reading), Err(Error::UnsupportedFeatures { found: 4, .. })));
    for claimed in [u32::MAX, (8 << 20) + (16 << 10) + 17, 1 << 20 << 1] {
        let mut long = bytes[..STREAM_HEADER_SIZE + FRAME_HEADER_SIZE].to_vec();
        put(&mut long, STREAM_HEADER_SIZE + 28, &claimed.to_le_bytes());
        stamp_all(&mut long);
        assert!(matches!(read(&long, &reading), Err(Error::Damaged { .. })), "{claimed}");
    }
}
