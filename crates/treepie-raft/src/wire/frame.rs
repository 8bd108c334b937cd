//! Frame header: the first 32 bytes of everything that is said.
//!
//! | Offset | Size | Field             | Meaning                                                     |
//! |-------:|-----:|-------------------|-------------------------------------------------------------|
//! |      0 |    4 | `magic`           | `TPWF`                                                      |
//! |      4 |    4 | `checksum`        | CRC-32 of this header but these 4 bytes                     |
//! |      8 |    2 | `version`         | Protocol version, now 1                                     |
//! |     10 |    1 | `kind`            | 1 hello, 2 welcome, 3 refusal, 4 message, 5 ping, 6 pong, 7 chunk, 8 end, 16 request, 17 response |
//! |     11 |    1 | `reserved`        | Zero                                                        |
//! |     12 |    4 | `control_len`     | Bytes of the control part                                   |
//! |     16 |    4 | `attachment_count`| Attachments                                                 |
//! |     20 |    8 | `attachments_len` | Bytes of all attachments                                    |
//! |     28 |    4 | `head_checksum`   | CRC-32 of the table and of the control part                 |
//!
//! Behind it are the table, which is the length (u32) of each attachment; the control part; and the
//! attachments, one behind the other. The lengths of the table add up to `attachments_len`. Attachments
//! have checksums of their own: a record in its header, a chunk in its control part.
//!
//! **In every version** `magic`, `checksum` and `version` are where they are here, and a header has 32
//! bytes: so both sides can say which version they speak.

use super::WireError;

/// Size of a frame's header in bytes.
pub const FRAME_HEADER_SIZE: usize = 32;
/// Version of the protocol that this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"TPWF";
const CHECKSUM_OFFSET: usize = 4;
const _: () = assert!(FRAME_HEADER_SIZE == 4 + 4 + 2 + 1 + 1 + 4 + 4 + 8 + 4);

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Who dials, and what for.
    Hello = 1,
    /// The answer to a hello that is welcome.
    Welcome = 2,
    /// The answer to one that is not, or the reason why a connection ends.
    Refusal = 3,
    /// A message of Raft, with its records.
    Message = 4,
    /// Is anybody there?
    Ping = 5,
    /// The answer to that.
    Pong = 6,
    /// A piece of a byte stream.
    Chunk = 7,
    /// The end of a byte stream.
    End = 8,
    /// What a client wants.
    Request = 16,
    /// What it gets.
    Response = 17,
}

impl FrameKind {
    fn from_u8(kind: u8) -> Option<FrameKind> {
        Some(match kind {
            1 => FrameKind::Hello,
            2 => FrameKind::Welcome,
            3 => FrameKind::Refusal,
            4 => FrameKind::Message,
            5 => FrameKind::Ping,
            6 => FrameKind::Pong,
            7 => FrameKind::Chunk,
            8 => FrameKind::End,
            16 => FrameKind::Request,
            17 => FrameKind::Response,
            _ => return None,
        })
    }
}

/// What lengths are believed on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of a control part, at most.
    pub control_len: u32,
    /// Attachments of a frame, at most.
    pub attachment_count: u32,
    /// Bytes of one attachment, at most.
    pub attachment_len: u32,
}

impl Caps {
    /// These.
    #[must_use]
    pub const fn new(control_len: u32, attachment_count: u32, attachment_len: u32) -> Caps {
        Caps { control_len, attachment_count, attachment_len }
    }
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is for.
    pub kind: FrameKind,
    /// Bytes of the control part.
    pub control_len: u32,
    /// Attachments.
    pub attachment_count: u32,
    /// Bytes of all attachments.
    pub attachments_len: u64,
    /// Checksum of the table and of the control part.
    pub head_checksum: u32,
}

impl FrameHeader {
    /// The header as it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_SIZE] {
        let mut bytes = [0; FRAME_HEADER_SIZE];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        bytes[10] = self.kind as u8;
        bytes[12..16].copy_from_slice(&self.control_len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.attachment_count.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.attachments_len.to_le_bytes());
        bytes[28..].copy_from_slice(&self.head_checksum.to_le_bytes());
        let checksum = checksum(&bytes).to_le_bytes();
        bytes[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 4].copy_from_slice(&checksum);
        bytes
    }

    /// Reads a header, and holds its lengths against what is allowed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8; FRAME_HEADER_SIZE], caps: Caps) -> Result<FrameHeader, WireError> {
        if bytes[..4] != MAGIC {
            return Err(WireError::Magic);
        }
        let (stored, computed) = (u32_at(bytes, CHECKSUM_OFFSET), checksum(bytes));
        if stored != computed {
            return Err(WireError::Checksum { part: "a frame's header", stored, computed });
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != PROTOCOL_VERSION {
            return Err(WireError::version(version));
        }
        if bytes[11] != 0 {
            return Err(WireError::Layout("reserved bytes of a frame are not zero"));
        }
        let upper = u64::from(u32_at(bytes, 24)) << 32;
        let header = FrameHeader {
            kind: FrameKind::from_u8(bytes[10]).ok_or(WireError::Unexpected(bytes[10]))?,
            control_len: u32_at(bytes, 12),
            attachment_count: u32_at(bytes, 16),
            attachments_len: upper | u64::from(u32_at(bytes, 20)),
            head_checksum: u32_at(bytes, 28),
        };
        header.check(caps).map(|()| header)
    }

    fn check(&self, caps: Caps) -> Result<(), WireError> {
        let Caps { control_len, attachment_count, attachment_len } = caps;
        within("bytes of a control part", self.control_len.into(), control_len.into())?;
        within("attachments of a frame", self.attachment_count.into(), attachment_count.into())?;
        let all_max = u64::from(self.attachment_count) * u64::from(attachment_len);
        within("bytes of attachments", self.attachments_len, all_max)
    }
}

/// Refuses a length that passes its cap.
pub(crate) fn within(what: &'static str, len: u64, max: u64) -> Result<(), WireError> {
    if len > max { Err(WireError::TooLong { what, len, max }) } else { Ok(()) }
}

fn u32_at(bytes: &[u8; FRAME_HEADER_SIZE], offset: usize) -> u32 {
    let [a, b, c, d] = [0, 1, 2, 3].map(|place| bytes[offset + place]);
    u32::from_le_bytes([a, b, c, d])
}

fn checksum(bytes: &[u8; FRAME_HEADER_SIZE]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..CHECKSUM_OFFSET]);
    crc.update(&bytes[CHECKSUM_OFFSET + 4..]);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps::new(u32::MAX, u32::MAX, u32::MAX);

    fn header() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Message,
            control_len: 0x1112_1314,
            attachment_count: 0x2122_2324,
            attachments_len: 0x0132_3334_3536_3738,
            head_checksum: 0x4142_4344,
        }
    }

    #[test]
    fn frame_header_has_these_bytes() {
        let bytes = header().encode();
        assert_eq!(&bytes[..4], b"TPWF");
        assert_eq!(bytes[4..8], checksum(&bytes).to_le_bytes());
        assert_eq!(bytes[8..12], [1, 0, 4, 0]);
        assert_eq!(bytes[12..20], [0x14, 0x13, 0x12, 0x11, 0x24, 0x23, 0x22, 0x21]);
        assert_eq!(bytes[20..28], [0x38, 0x37, 0x36, 0x35, 0x34, 0x33, 0x32, 0x01]);
        assert_eq!(bytes[28..], [0x44, 0x43, 0x42, 0x41]);
        assert_eq!(FrameHeader::decode(&bytes, CAPS).expect("it is whole"), header());
    }

    #[test]
    fn every_flipped_bit_of_a_frame_header_is_found() {
        let mut bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bytes, CAPS).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn lengths_above_their_caps_are_refused() {
        let small =
            FrameHeader { control_len: 10, attachment_count: 2, attachments_len: 200, ..header() };
        let decode = |header: FrameHeader| {
            FrameHeader::decode(&header.encode(), Caps::new(10, 2, 100)).map(|_| ())
        };
        assert!(decode(small).is_ok());
        for long in [
            FrameHeader { control_len: 11, ..small },
            FrameHeader { attachment_count: 3, ..small },
            FrameHeader { attachments_len: 201, ..small },
        ] {
            assert!(matches!(decode(long), Err(WireError::TooLong { .. })), "{long:?}");
        }
    }

    #[test]
    fn another_version_is_told_with_both_numbers() {
        let mut bytes = header().encode();
        bytes[8] = 9;
        let stamped = checksum(&bytes).to_le_bytes();
        bytes[CHECKSUM_OFFSET..CHECKSUM_OFFSET + 4].copy_from_slice(&stamped);
        let error = FrameHeader::decode(&bytes, CAPS).expect_err("another version");
        assert_eq!(error.to_string(), "protocol version 9, but 1 is spoken here");
    }
}
