//! Records behind the end of a journal, made by the fuzzer with right checksums and a right chain;
//! then a user's visit, whose opening replays them.
//!
//! The bytes: records, one after the other. Each begins with flags that say which of its bytes are
//! the fuzzer's and which are made right, and with the lengths that its header is to claim.

use super::{
    Visit,
    input::Input,
    open_and_check::rotten,
    stamp::{FRAME_SIZE, PAGE_SIZE, RECORD_HEADER_SIZE, put, stamp_frame_and_record, u64_at},
    template,
    visit::visit,
};

/// Records that one input makes at most.
const RECORDS_MAX: usize = 32;
/// Longest segment that they make, in bytes.
const SEGMENT_LEN_MAX: usize = 512 << 10;

/// The payload is one LZ4 block.
const IS_LZ4: u8 = 1;
/// The next record has a number that leaves one out.
const LEAVES_GAP: u8 = 2;
/// The frame is at the next multiple of 4 KiB.
const AT_BLOCK: u8 = 4;
/// The fuzzer's bytes overwrite the header, and the lengths in it are not made right.
const HAS_HEADER: u8 = 8;
/// The chain is broken, or checksums are.
const IS_BROKEN: u8 = 16;
/// Plain bytes instead of a record.
const IS_RAW: u8 = 32;

/// Runs one input.
pub fn run(bytes: &[u8]) -> Visit {
    let mut input = Input::new(bytes);
    let template = &template::all()[1];
    let mut files = template.files.clone();
    let newest = files.iter_mut().find(|file| file.path == template.end.0);
    let segment = &mut newest.expect("the newest segment is a file").bytes;
    let mut tail = Tail {
        incarnation: u64_at(segment, 48),
        at: template.end.1,
        lsn: template.last.0,
        chain: template.last.1,
        segment,
    };
    let mut made = 0;
    while !input.is_empty() && made < RECORDS_MAX && tail.at < SEGMENT_LEN_MAX {
        tail.push(&mut input);
        made += 1;
    }
    visit(&rotten(template, &files))
}

/// The end of a segment that grows.
struct Tail<'a> {
    segment: &'a mut Vec<u8>,
    incarnation: u64,
    at: usize,
    lsn: u64,
    chain: u64,
}

impl Tail<'_> {
    fn push(&mut self, input: &mut Input<'_>) {
        let flags = input.u8();
        if flags & AT_BLOCK != 0 {
            self.at = self.at.next_multiple_of(PAGE_SIZE);
        }
        if flags & IS_RAW != 0 {
            let len = usize::from(input.u8());
            return self.append(input.bytes(len));
        }
        self.lsn += if flags & LEAVES_GAP != 0 { 2 } else { 1 };
        let mut bytes = self.record(input, flags);
        let (frame, record) = bytes.split_at_mut(FRAME_SIZE);
        if flags & IS_BROKEN != 0 {
            self.chain ^= u64::from(input.u8());
        }
        self.chain = stamp_frame_and_record(frame, record, self.chain);
        if flags & IS_BROKEN != 0 {
            let at = input.below(bytes.len());
            bytes[at] ^= input.u8();
        }
        self.append(&bytes);
    }

    /// Frame and record, not stamped.
    fn record(&self, input: &mut Input<'_>, flags: u8) -> Vec<u8> {
        let (kind, unsynced) = (input.u8(), input.u8());
        let (change_count, annotations_len) = (input.u16(), input.u16());
        let raw_len = input.u32();
        let payload_len = usize::from(input.u16());
        let header_bytes = if flags & HAS_HEADER != 0 { input.bytes(96) } else { &[] };
        let payload = input.bytes(payload_len);
        let mut bytes = vec![0; FRAME_SIZE + RECORD_HEADER_SIZE];
        bytes.extend(payload);
        let (frame, record) = bytes.split_at_mut(FRAME_SIZE);
        let record_len = u32::try_from(record.len()).unwrap_or(u32::MAX);
        put(frame, 0, b"TPFR");
        put(frame, 8, &self.incarnation.to_le_bytes());
        put(frame, 16, &record_len.to_le_bytes());
        let unsynced = if unsynced == 255 { u32::MAX } else { u32::from(unsynced.max(1)) };
        put(frame, 20, &unsynced.to_le_bytes());
        put(frame, 24, &self.lsn.to_le_bytes());
        let is_lz4 = flags & IS_LZ4 != 0;
        let raw_len = if is_lz4 { u64::from(raw_len) } else { payload.len() as u64 };
        put(record, 0, b"TPRC");
        put(record, 8, &[1, 0, kind.max(1), u8::from(is_lz4), 0, 16, 0, 0]);
        put(record, 16, &self.lsn.to_le_bytes());
        put(record, 40, &(payload.len() as u64).to_le_bytes());
        put(record, 48, &raw_len.to_le_bytes());
        put(record, 56, &u64::from(annotations_len).to_le_bytes());
        put(record, 80, &u32::from(change_count).to_le_bytes());
        put(record, 8, header_bytes);
        bytes
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        if end > self.segment.len() {
            self.segment.resize(end.next_multiple_of(PAGE_SIZE), 0);
        }
        self.segment[self.at..end].copy_from_slice(bytes);
        self.at = end.next_multiple_of(8);
    }
}
