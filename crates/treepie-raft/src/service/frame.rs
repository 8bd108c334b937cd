//! Frames of requests and responses: out of bytes as they come, and into them.

use std::io::{self, ErrorKind, Read};

use bincode::{Decode, Encode};

use super::message::FRAME_LEN_MAX;
use crate::wire::{Caps, FRAME_HEADER_SIZE, FrameHeader, FrameKind, WireError, codec, encode_head};

/// So many bytes are read with one call: the small frames of many requests.
const CHUNK_SIZE: usize = 64 << 10;
/// A buffer that has grown beyond this for a large frame is given back.
const KEPT_LEN_MAX: usize = 1 << 20;
const CAPS: Caps = Caps::new(FRAME_LEN_MAX as u32, 0, 0);

/// Appends a frame.
///
/// # Errors
/// [`WireError::TooLong`]: nothing was appended.
pub fn append(to: &mut Vec<u8>, kind: FrameKind, value: &impl Encode) -> Result<(), WireError> {
    encode_head(to, kind, value, std::iter::empty())
}

/// Bytes that came, and of which frames are taken.
#[derive(Debug, Default)]
pub struct InBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the frame in front, once they are known.
    wanted: usize,
}

impl InBuffer {
    /// Whether a part of a frame has come.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that the next call may read, once there is room.
    fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// As `fill`, and whether there may be more: less was read than there was room for, or not.
    pub fn fill_some(&mut self, from: &mut impl Read) -> io::Result<(usize, bool)> {
        self.make_room();
        let room = self.room();
        self.fill(from).map(|count| (count, count == room))
    }

    /// Reads what there is, with one call; 0 at the end. The buffer grows with what has come, whatever
    /// a length says.
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        loop {
            match from.read(&mut self.bytes[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn make_room(&mut self) {
        let len = self.end - self.start;
        if len == 0 {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT_LEN_MAX {
                self.bytes = Vec::new();
            }
        } else if self.start > 0 && self.bytes.len() - self.end < CHUNK_SIZE / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, len);
        }
        if self.bytes.len() - self.end < CHUNK_SIZE / 2 {
            let twice = (self.bytes.len() * 2).max(CHUNK_SIZE);
            // A frame that is known to be longer needs no more than its own bytes.
            let grown = if self.wanted > self.bytes.len() { twice.min(self.wanted) } else { twice };
            self.bytes.resize(grown.max(self.end + CHUNK_SIZE / 2), 0);
        }
    }

    /// The next whole frame's value, and the frame's length; `None` when more has to come.
    ///
    /// # Errors
    /// What is wrong with it: nothing more can be taken.
    pub fn take<T: Decode<()>>(
        &mut self,
        kind: FrameKind,
    ) -> Result<Option<(T, usize)>, WireError> {
        let bytes = &self.bytes[self.start..self.end];
        let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_SIZE>() else {
            return Ok(None);
        };
        if rest.len() + FRAME_HEADER_SIZE < self.wanted {
            return Ok(None);
        }
        let header = FrameHeader::decode(header, CAPS)?;
        if header.kind != kind {
            return Err(WireError::Unexpected(header.kind as u8));
        }
        let control_len = usize::try_from(header.control_len).unwrap_or(usize::MAX);
        let len = FRAME_HEADER_SIZE.saturating_add(control_len);
        let Some(control) = rest.get(..control_len) else {
            self.wanted = len;
            return Ok(None);
        };
        let (stored, computed) = (header.head_checksum, crc32fast::hash(control));
        if stored != computed {
            return Err(WireError::Checksum { part: "a frame's control part", stored, computed });
        }
        let value = codec::decode(control)?;
        self.start += len;
        self.wanted = 0;
        Ok(Some((value, len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_whatever_pieces_they_arrive_in() {
        let mut bytes = Vec::new();
        let values = [vec![1_u8; 3], vec![2; 3_000_000], Vec::new(), vec![3; 70_000]];
        for value in &values {
            append(&mut bytes, FrameKind::Request, value).expect("short");
        }
        for piece in [7, 31, 33, 1000, 65_536, bytes.len()] {
            let (mut buffer, mut came) = (InBuffer::default(), Vec::new());
            for mut part in bytes.chunks(piece) {
                while !part.is_empty() {
                    buffer.fill(&mut part).expect("memory can be read");
                    while let Some((value, _)) =
                        buffer.take::<Vec<u8>>(FrameKind::Request).expect("whole")
                    {
                        came.push(value);
                    }
                }
            }
            assert_eq!(came, values, "pieces of {piece}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn buffer_grows_with_what_has_come_and_not_with_what_a_length_says() {
        let mut frame = Vec::new();
        append(&mut frame, FrameKind::Request, &vec![0_u8; FRAME_LEN_MAX - 8]).expect("it fits");
        let mut buffer = InBuffer::default();
        buffer.fill(&mut &frame[..100]).expect("memory can be read");
        assert!(matches!(buffer.take::<Vec<u8>>(FrameKind::Request), Ok(None)));
        buffer.fill(&mut &frame[100..200]).expect("memory can be read");
        assert!(buffer.bytes.len() <= 2 * CHUNK_SIZE, "{}", buffer.bytes.len());
    }

    #[test]
    fn frame_of_another_kind_with_a_flipped_bit_or_too_long_is_refused() {
        let mut frame = Vec::new();
        append(&mut frame, FrameKind::Request, &7_u64).expect("short");
        let take = |bytes: &[u8], kind| {
            let mut buffer = InBuffer::default();
            buffer.fill(&mut &bytes[..]).expect("memory can be read");
            buffer.take::<u64>(kind)
        };
        assert!(matches!(take(&frame, FrameKind::Request), Ok(Some((7, 40)))));
        assert!(matches!(take(&frame, FrameKind::Response), Err(WireError::Unexpected(16))));
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(take(&flipped, FrameKind::Request).is_err(), "bit {bit}");
        }
        let long = append(&mut Vec::new(), FrameKind::Request, &vec![0_u8; FRAME_LEN_MAX]);
        assert!(matches!(long, Err(WireError::TooLong { .. })));
    }
}
