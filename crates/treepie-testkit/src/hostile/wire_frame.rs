//! Frames of a connection, edited or made by the fuzzer, checksums made right or not; then read to their
//! end, as a node reads them.
//!
//! The bytes: flags, then edits one after the other; or frames whose content is the fuzzer's. There is
//! one encoding of each value: what is taken for whole must be what would be written.

use std::ops::Range;

use treepie::ids::{Lsn, Term};
use treepie_raft::{
    ids::{ClusterId, NodeId},
    message::{EntryKind, EntryRef, Message, MessageKind, SnapshotRef},
    wire::{
        Caps, FRAME_HEADER_SIZE, Frame, FrameHead, FrameKind, FrameReader, Hello, Lane, Refusal,
        Welcome, WireError,
        hello::HELLO_CAPS,
        message::{PEER_CAPS, message_of},
        page::{PAGE_ANSWER_SIZE, PageAnswer, PageRequest},
        parse_frame,
        stream::{Chunk, End, Ping, STREAM_CAPS},
        write_frame,
    },
};

use super::{input::Input, stamp::put};
use crate::{Rng, mix};

/// Checksums are not made right again.
pub const IS_ROTTEN: u8 = 4;
/// The frames are the fuzzer's own.
pub const IS_MADE: u8 = 8;
/// Edits and frames that one input makes at most.
const EDITS_MAX: usize = 32;
/// Length from which on the bytes are not made longer.
const LEN_MAX: usize = 1 << 20;
/// What is believed: of a node, of whoever dials, on a page stream.
const CAPS: [Caps; 4] = [PEER_CAPS, HELLO_CAPS, STREAM_CAPS, PEER_CAPS];

/// What a client might say: a type that `bincode` encodes by itself.
type Said = Vec<(String, u64)>;

/// What became of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Frames that came.
    pub frames: usize,
    /// Those that were values.
    pub values: usize,
}

/// Runs one input.
///
/// # Panics
/// If the reader breaks a promise.
pub fn run(bytes: &[u8]) -> Heard {
    let mut input = Input::new(bytes);
    let flags = input.u8();
    let frames = if flags & IS_MADE != 0 { made(&mut input) } else { edited(&mut input) };
    let frames = if flags & IS_ROTTEN != 0 { frames } else { stamped(frames) };
    hear(&frames, CAPS[usize::from(flags) % CAPS.len()])
}

/// Reads frames, and holds each against what was promised of it.
fn hear(bytes: &[u8], caps: Caps) -> Heard {
    let mut heard = Heard { frames: 0, values: 0 };
    let mut reader = FrameReader::new(bytes, caps);
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let Ok(Some(head)) = reader.head() else { break };
        let Ok(attachments) = reader.attachments(&head) else {
            assert!(matches!(parse_frame(rest, caps), Ok(None)), "it is not whole");
            break;
        };
        let parsed = parse_frame(rest, caps).expect("it was read");
        let (frame, len) = parsed.expect("it was read");
        assert_eq!((frame.kind, &frame.attachments), (head.kind, &attachments));
        assert!(matches!(parse_frame(&rest[..len - 1], caps), Ok(None)), "a byte is missing");
        heard.frames += 1;
        if let Ok(again) = written(&head, &frame) {
            assert!(again == rest[..len], "{:?} has two encodings", frame.kind);
            heard.values += 1;
        }
        at += len;
    }
    heard
}

/// The frame as it would be written, if it is a value.
fn written(head: &FrameHead, frame: &Frame) -> Result<Vec<u8>, WireError> {
    let attachments: Vec<&[u8]> = frame.attachments.iter().map(|bytes| &bytes[..]).collect();
    let mut bytes = Vec::new();
    let (to, kind) = (&mut bytes, frame.kind);
    match kind {
        FrameKind::Hello => {
            let hello = frame.control::<Hello>()?;
            if let Some(request) = PageRequest::decode(&hello.purpose)? {
                assert_eq!(request.encode()?, hello.purpose, "a request has two encodings");
            }
            write_frame(to, kind, &hello, &attachments)?;
        }
        FrameKind::Welcome => write_frame(to, kind, &frame.control::<Welcome>()?, &attachments)?,
        FrameKind::Refusal => write_frame(to, kind, &frame.control::<Refusal>()?, &attachments)?,
        FrameKind::Message => write_frame(to, kind, &message_of(head)?, &attachments)?,
        FrameKind::Ping | FrameKind::Pong => {
            write_frame(to, kind, &frame.control::<Ping>()?, &attachments)?;
        }
        FrameKind::Chunk => {
            let answer = frame.attachments.first().and_then(|bytes| bytes.get(..PAGE_ANSWER_SIZE));
            if let Some(bytes) = answer
                && let Ok(answer) = PageAnswer::decode(bytes)
            {
                assert_eq!(answer.encode()?, bytes, "an answer has two encodings");
            }
            write_frame(to, kind, &frame.control::<Chunk>()?, &attachments)?;
        }
        FrameKind::End => write_frame(to, kind, &frame.control::<End>()?, &attachments)?,
        FrameKind::Request | FrameKind::Response => {
            write_frame(to, kind, &frame.control::<Said>()?, &attachments)?;
        }
    }
    Ok(bytes)
}

/// Where each frame is, as far as their headers say.
fn frames(bytes: &[u8]) -> Vec<Range<usize>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= FRAME_HEADER_SIZE) {
        let word = |offset: usize| {
            let word = rest[offset..].first_chunk().expect("a header is longer");
            usize::try_from(u32::from_le_bytes(*word)).unwrap_or(0)
        };
        let len = [word(12), word(20)]
            .into_iter()
            .fold(word(16).saturating_mul(4), |sum, len| sum.saturating_add(len));
        let end = at.saturating_add(FRAME_HEADER_SIZE).saturating_add(len).min(bytes.len());
        ranges.push(at..end);
        at = end;
    }
    ranges
}

/// Makes the checksums of all frames right.
fn stamped(mut bytes: Vec<u8>) -> Vec<u8> {
    for range in frames(&bytes) {
        let frame = &mut bytes[range];
        let word = |offset: usize| {
            let word = frame[offset..].first_chunk().expect("a header is longer");
            usize::try_from(u32::from_le_bytes(*word)).unwrap_or(0)
        };
        let head_len = word(12).saturating_add(word(16).saturating_mul(4));
        let head = &frame[FRAME_HEADER_SIZE..];
        let checksum = crc32fast::hash(&head[..head_len.min(head.len())]);
        put(frame, 28, &checksum.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&frame[..4]);
        crc.update(&frame[8..FRAME_HEADER_SIZE]);
        put(frame, 4, &crc.finalize().to_le_bytes());
    }
    bytes
}

/// One frame of each kind, and a message of each shape.
fn template() -> Vec<u8> {
    let cluster = ClusterId { epoch: 2, ..ClusterId::default() };
    let (from, to) = (NodeId(1), NodeId(2));
    let hello = Hello {
        cluster,
        from,
        to,
        lane: Lane::Bulk,
        page_format: 1,
        address: "127.0.0.1:7001".to_owned(),
        purpose: PageRequest::new(7, 9).encode().expect("it is short"),
    };
    let mut append = Message::new(MessageKind::Append, from, to, Term(3));
    let records: [&[u8]; 2] = [b"a record", b"and another one"];
    append.entries = (7..)
        .zip(records)
        .map(|(lsn, record)| EntryRef {
            lsn: Lsn(lsn),
            term: Term(3),
            kind: EntryKind::Transaction,
            len: u32::try_from(record.len()).expect("a short record"),
            checksum: crc32fast::hash(record),
        })
        .collect();
    let mut vote = Message::new(MessageKind::ReadIndex, from, to, Term(3));
    vote.context = vec![9; 16];
    let mut snapshot = Message::new(MessageKind::Snapshot, from, to, Term(3));
    snapshot.snapshot = Some(SnapshotRef { lsn: Lsn(5), term: Term(2), members: vec![1, 2, 3] });
    let said: Said = vec![("key".to_owned(), 1), ("another".to_owned(), 2)];
    let chunk = Chunk { offset: 100, checksum: crc32fast::hash(b"bytes of a page") };
    let mut bytes = Vec::new();
    let to = &mut bytes;
    let done = write_frame(to, FrameKind::Hello, &hello, &[])
        .and_then(|()| {
            let welcome = Welcome { cluster, from, page_format: 1 };
            write_frame(to, FrameKind::Welcome, &welcome, &[])
        })
        .and_then(|()| write_frame(to, FrameKind::Refusal, &Refusal::Removed, &[]))
        .and_then(|()| write_frame(to, FrameKind::Message, &append, &records))
        .and_then(|()| write_frame(to, FrameKind::Message, &vote, &[]))
        .and_then(|()| write_frame(to, FrameKind::Message, &snapshot, &[]))
        .and_then(|()| write_frame(to, FrameKind::Ping, &Ping { number: 4 }, &[]))
        .and_then(|()| write_frame(to, FrameKind::Pong, &Ping { number: 4 }, &[]))
        .and_then(|()| write_frame(to, FrameKind::Chunk, &chunk, &[b"bytes of a page"]))
        .and_then(|()| write_frame(to, FrameKind::End, &End { len: 115 }, &[]))
        .and_then(|()| write_frame(to, FrameKind::Request, &said, &[b"value"]))
        .and_then(|()| write_frame(to, FrameKind::Response, &said, &[]));
    done.expect("a vector takes everything, and all keep their bounds");
    bytes
}

fn edited(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = template();
    for _ in 0..EDITS_MAX {
        if input.is_empty() || bytes.len() > LEN_MAX {
            break;
        }
        let what = input.u8();
        let (at, len) = (input.below(bytes.len() + 1), usize::from(input.u8()));
        let ranges = frames(&bytes);
        let frame = ranges.get(at % ranges.len().max(1)).cloned().unwrap_or(0..0);
        match what % 8 {
            0 => put(&mut bytes, at, input.bytes(len)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= input.u8()),
            2 => bytes.truncate(at),
            3 => bytes.extend_from_slice(input.bytes(len)),
            4 => drop(bytes.drain(frame)),
            5 => {
                let again = bytes[frame.clone()].to_vec();
                bytes.splice(frame.start..frame.start, again);
            }
            6 => {
                let moved: Vec<u8> = bytes.drain(frame).collect();
                bytes.splice(0..0, moved);
            }
            // A field of a header, or of what is behind it.
            _ => put(&mut bytes, frame.start + len % 128, input.bytes(1 + at % 8)),
        }
    }
    bytes
}

/// Frames whose control parts and attachments are the fuzzer's.
fn made(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..EDITS_MAX {
        if input.is_empty() {
            break;
        }
        let (kind, count) = (input.u8(), usize::from(input.u8() % 4));
        let control = input.below(512);
        let control = input.bytes(control);
        let lens: Vec<usize> = (0..count).map(|_| input.below(64)).collect();
        let start = bytes.len();
        bytes.resize(start + FRAME_HEADER_SIZE, 0);
        put(&mut bytes, start, b"TPWF");
        put(&mut bytes, start + 8, &[1, 0, kind, 0]);
        let word = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        put(&mut bytes, start + 12, &word(control.len()));
        put(&mut bytes, start + 16, &word(count));
        put(&mut bytes, start + 20, &word(lens.iter().sum()));
        lens.iter().for_each(|len| bytes.extend(word(*len)));
        bytes.extend(control);
        let attached: usize = lens.iter().sum();
        bytes.extend(input.bytes(attached));
    }
    bytes
}

/// Where a fuzzer begins: the frames as they are, edits of each kind, and frames that are made.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new(), vec![1], vec![2]];
    for kind in 0..64_u8 {
        let mut rng = Rng::new(mix(11, kind.into()));
        let mut seed = vec![kind >> 3 & 7];
        for _ in 0..3 {
            seed.push(kind & 7);
            seed.extend(rng.bytes(8));
        }
        seeds.push(seed);
    }
    let template = template();
    for range in frames(&template) {
        let frame = &template[range];
        let at = usize::from(frame[16]);
        let control = &frame[FRAME_HEADER_SIZE + 4 * at..][..usize::from(frame[12])];
        let mut seed = vec![IS_MADE, frame[10], frame[16]];
        seed.extend([frame[12], 0]);
        seed.extend(control);
        for len in frame[FRAME_HEADER_SIZE..][..4 * at].chunks(4) {
            seed.extend([len[0], 0]);
        }
        seed.extend(&frame[FRAME_HEADER_SIZE + 4 * at + control.len()..]);
        seeds.push(seed);
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_as_they_are_are_all_values() {
        assert_eq!(hear(&template(), PEER_CAPS), Heard { frames: 12, values: 12 });
        assert_eq!(run(&[]), Heard { frames: 12, values: 12 });
        assert_eq!(stamped(template()), template());
    }

    #[test]
    fn frames_that_are_made_from_the_template_are_values() {
        let made: Vec<Heard> = seeds().iter().rev().take(12).map(|seed| run(seed)).collect();
        assert_eq!(made.iter().filter(|heard| heard.values == 1).count(), 12, "{made:?}");
    }

    #[test]
    fn value_with_two_encodings_is_noticed() {
        // A flag of 2 would be taken for 1 by a reader that only looks whether it is 0.
        let mut bytes = template();
        let message = frames(&bytes).remove(3);
        bytes[message.start + FRAME_HEADER_SIZE + 8 + 1] = 2;
        let heard = hear(&stamped(bytes), PEER_CAPS);
        assert_eq!(heard, Heard { frames: 12, values: 11 }, "it is no value");
    }

    #[test]
    fn no_bit_of_a_frame_can_be_flipped_unseen() {
        let whole = template();
        let attached: Vec<usize> = frames(&whole)
            .into_iter()
            .flat_map(|range| {
                let frame = &whole[range.clone()];
                let attached = usize::from(frame[20]);
                range.end - attached..range.end
            })
            .collect();
        let mut bytes = whole.clone();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let heard = hear(&bytes, PEER_CAPS);
            // What is attached has checksums of its own, which are its owner's matter.
            assert_eq!(heard.frames == 12, attached.contains(&(bit / 8)), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
