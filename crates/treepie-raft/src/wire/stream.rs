//! Byte stream: what is said on a connection for pages, in both directions. Chunks, of kind 7, whose
//! bytes are the only attachment:
//!
//! | Offset | Size | Field      | Meaning                                              |
//! |-------:|-----:|------------|------------------------------------------------------|
//! |      0 |    8 | `offset`   | Bytes of the stream before it                        |
//! |      8 |    4 | `checksum` | CRC-32 of its bytes                                  |
//!
//! and an end, of kind 8, without which a stream was cut:
//!
//! | Offset | Size | Field      | Meaning                                              |
//! |-------:|-----:|------------|------------------------------------------------------|
//! |      0 |    8 | `len`      | Bytes of the stream                                  |
//!
//! A ping and a pong, of kinds 5 and 6, are a number of 8 bytes: the pong has that of its ping, or the
//! one before when the node that answers is alive but takes no messages.

use bincode::{Decode, Encode};

use super::frame::Caps;

/// Bytes of a chunk, at most.
pub const CHUNK_LEN_MAX: usize = 1 << 20;
/// The lengths that are believed on a connection for pages.
pub const STREAM_CAPS: Caps = Caps::new(64, 1, CHUNK_LEN_MAX as u32);

/// A piece of a byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Chunk {
    /// Bytes of the stream before it.
    pub offset: u64,
    /// CRC-32 of its bytes.
    pub checksum: u32,
}

/// The end of a byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct End {
    /// Bytes of the stream.
    pub len: u64,
}

/// Is anybody there? And the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ping {
    /// Number of the ping.
    pub number: u64,
}

#[cfg(test)]
mod tests {
    use super::{super::codec, *};

    #[test]
    fn chunk_end_and_ping_have_these_bytes() {
        let mut bytes = Vec::new();
        codec::encode(&Chunk { offset: 0x11, checksum: 0x2122_2324 }, &mut bytes).expect("small");
        assert_eq!(bytes, [0x11, 0, 0, 0, 0, 0, 0, 0, 0x24, 0x23, 0x22, 0x21]);
        bytes.clear();
        codec::encode(&(End { len: 3 }, Ping { number: 4 }), &mut bytes).expect("small");
        assert_eq!(bytes, [3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    }
}
