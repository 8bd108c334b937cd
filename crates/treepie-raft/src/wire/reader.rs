//! Frames out of a byte stream.

use std::io::{self, BufReader, ErrorKind, Read};

use bincode::Decode;

use super::{
    WireError, codec,
    frame::{Caps, FRAME_HEADER_SIZE, FrameHeader, FrameKind, within},
};

/// Bytes that are allocated, at most, because a length says so, before as many have come: longer
/// attachments grow as they come. A record of 4 MiB is one allocation, and a lie costs little.
pub const RESERVE_MAX: usize = 16 << 20;
/// So many bytes are read ahead: the small frames of many messages with one call.
const BUFFER_SIZE: usize = 64 << 10;

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub kind: FrameKind,
    control: Vec<u8>,
    /// Its attachments.
    pub attachments: Vec<Vec<u8>>,
}

/// A frame whose attachments were not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// What it is for.
    pub kind: FrameKind,
    control: Vec<u8>,
    lens: Vec<u32>,
}

impl Frame {
    /// The control part as a value.
    ///
    /// # Errors
    /// Those of [`codec::decode`].
    pub fn control<T: Decode<()>>(&self) -> Result<T, WireError> {
        codec::decode(&self.control)
    }
}

impl FrameHead {
    /// The control part as a value.
    ///
    /// # Errors
    /// Those of [`codec::decode`].
    pub fn control<T: Decode<()>>(&self) -> Result<T, WireError> {
        codec::decode(&self.control)
    }

    /// How long each of its attachments is.
    #[must_use]
    pub fn attachment_lens(&self) -> &[u32] {
        &self.lens
    }

    /// Bytes of all attachments.
    #[must_use]
    pub fn attachments_len(&self) -> u64 {
        self.lens.iter().map(|len| u64::from(*len)).sum()
    }
}

/// Reads frames, one after the other. After an error nothing more can be read.
#[derive(Debug)]
pub struct FrameReader<R> {
    from: BufReader<R>,
    caps: Caps,
    /// Attachments of the last head that were not read yet.
    ahead: usize,
}

impl<R: Read> FrameReader<R> {
    /// Reads from a connection on which these lengths are allowed.
    pub fn new(from: R, caps: Caps) -> FrameReader<R> {
        FrameReader { from: BufReader::with_capacity(BUFFER_SIZE, from), caps, ahead: 0 }
    }

    /// What is read from: to write to it, where it is a socket. Reading from it loses bytes.
    pub fn get_mut(&mut self) -> &mut R {
        self.from.get_mut()
    }

    /// What is read from.
    pub fn get_ref(&self) -> &R {
        self.from.get_ref()
    }

    /// What was read from. Bytes that were read ahead are lost: see [`has_more`](FrameReader::has_more).
    pub fn into_inner(self) -> R {
        self.from.into_inner()
    }

    /// Other lengths are allowed from here on.
    pub fn set_caps(&mut self, caps: Caps) {
        self.caps = caps;
    }

    /// Whether bytes were read ahead: the next frame has begun to come.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.from.buffer().is_empty()
    }

    /// The next frame; `None` when the stream ended between two frames.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(head) = self.head()? else { return Ok(None) };
        let attachments = self.attachments(&head)?;
        Ok(Some(Frame { kind: head.kind, control: head.control, attachments }))
    }

    /// The next frame up to its attachments; `None` when the stream ended between two frames.
    ///
    /// # Errors
    /// What is wrong with it; or the attachments of the frame before were not read, because something was
    /// wrong with that one.
    pub fn head(&mut self) -> Result<Option<FrameHead>, WireError> {
        if self.ahead > 0 {
            return Err(WireError::Layout("the frame before was not read to its end"));
        }
        let mut header = [0; FRAME_HEADER_SIZE];
        if !read_or_end(&mut self.from, &mut header)? {
            return Ok(None);
        }
        let header = FrameHeader::decode(&header, self.caps)?;
        let (mut table, mut control) = (Vec::new(), Vec::new());
        read_exactly(&mut self.from, u64::from(header.attachment_count) * 4, &mut table)?;
        read_exactly(&mut self.from, header.control_len.into(), &mut control)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&table);
        crc.update(&control);
        let (stored, computed) = (header.head_checksum, crc.finalize());
        if stored != computed {
            return Err(WireError::Checksum { part: "a frame's head", stored, computed });
        }
        let lens = self.lens(&table, header.attachments_len)?;
        self.ahead = lens.len();
        Ok(Some(FrameHead { kind: header.kind, control, lens }))
    }

    fn lens(&self, table: &[u8], all: u64) -> Result<Vec<u32>, WireError> {
        let lens: Vec<u32> = table
            .chunks_exact(4)
            .map(|len| u32::from_le_bytes([len[0], len[1], len[2], len[3]]))
            .collect();
        for len in &lens {
            let max = self.caps.attachment_len;
            within("bytes of an attachment", u64::from(*len), max.into())?;
        }
        if lens.iter().map(|len| u64::from(*len)).sum::<u64>() != all {
            return Err(WireError::Layout("attachments do not add up to their length"));
        }
        Ok(lens)
    }

    /// The attachments of the frame whose head came last, each one allocation.
    ///
    /// # Errors
    /// The stream failed or ended.
    pub fn attachments(&mut self, head: &FrameHead) -> Result<Vec<Vec<u8>>, WireError> {
        let mut attachments = Vec::with_capacity(head.lens.len());
        for len in &head.lens {
            let mut bytes = Vec::new();
            self.attachment_into(*len, &mut bytes)?;
            attachments.push(bytes);
        }
        Ok(attachments)
    }

    /// The next attachment of the frame whose head came last, which has `len` bytes, in memory that is
    /// used again.
    ///
    /// # Errors
    /// The stream failed or ended.
    pub fn attachment_into(&mut self, len: u32, to: &mut Vec<u8>) -> Result<(), WireError> {
        read_exactly(&mut self.from, len.into(), to)?;
        self.ahead = self.ahead.saturating_sub(1);
        Ok(())
    }
}

/// The first frame of bytes that came so far, and how long it is; `None` when it is not whole yet.
///
/// # Errors
/// What is wrong with it.
pub fn parse_frame(bytes: &[u8], caps: Caps) -> Result<Option<(Frame, usize)>, WireError> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_SIZE>() else { return Ok(None) };
    let header = FrameHeader::decode(header, caps)?;
    let table_len = u64::from(header.attachment_count) * 4;
    let rest = table_len + u64::from(header.control_len) + header.attachments_len;
    let len = usize::try_from(FRAME_HEADER_SIZE as u64 + rest).unwrap_or(usize::MAX);
    let Some(whole) = bytes.get(..len) else { return Ok(None) };
    let frame = FrameReader::new(whole, caps).frame()?;
    Ok(frame.map(|frame| (frame, len)))
}

/// Fills the buffer; false when the stream ended before its first byte.
fn read_or_end(from: &mut impl Read, buffer: &mut [u8]) -> Result<bool, WireError> {
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) if len == 0 => return Ok(false),
            Ok(0) => return Err(ended()),
            Ok(count) => len += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A timeout between two frames may be tried again; inside of one it is the end.
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Reads `len` bytes without zeroing them first, and without believing that they come.
fn read_exactly(from: &mut impl Read, len: u64, to: &mut Vec<u8>) -> Result<(), WireError> {
    to.clear();
    to.reserve_exact(usize::try_from(len).unwrap_or(usize::MAX).min(RESERVE_MAX));
    let read = from.take(len).read_to_end(to)?;
    if read as u64 == len { Ok(()) } else { Err(ended()) }
}

fn ended() -> WireError {
    WireError::Io(io::Error::new(ErrorKind::UnexpectedEof, "it ended inside of a frame"))
}

#[cfg(test)]
mod tests {
    use super::{super::write_frame, *};

    const CAPS: Caps = Caps::new(100, 2, 1000);

    fn frame() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, FrameKind::Request, &7_u32, &[b"first", b"second"])
            .expect("it keeps its bounds");
        bytes
    }

    #[test]
    fn frame_is_read_whole_or_not_at_all() {
        let whole = frame();
        for len in 0..whole.len() {
            let bytes = &whole[..len];
            let read = FrameReader::new(bytes, CAPS).frame();
            let is_end = matches!(read, Ok(None));
            let is_cut = matches!(&read, Err(WireError::Io(error))
                if error.kind() == ErrorKind::UnexpectedEof);
            assert!(if len == 0 { is_end } else { is_cut }, "{len}: {read:?}");
            assert!(matches!(parse_frame(bytes, CAPS), Ok(None)), "{len}");
        }
        let (frame, len) = parse_frame(&whole, CAPS).expect("it is whole").expect("it is whole");
        assert_eq!((frame.attachments.len(), len), (2, whole.len()));
    }

    #[test]
    fn attachments_that_were_not_read_are_no_frame() {
        let bytes = [frame(), frame()].concat();
        let mut reader = FrameReader::new(&bytes[..], CAPS);
        let head = reader.head().expect("a frame").expect("a frame");
        assert!(matches!(reader.head(), Err(WireError::Layout(_))));
        assert_eq!(reader.attachments(&head).expect("they are there").len(), 2);
        assert!(reader.head().expect("a frame").is_some());
    }

    #[test]
    fn attachment_beyond_its_cap_is_refused_even_if_all_together_are_not() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, FrameKind::Request, &7_u32, &[&[0; 1001], b""])
            .expect("it keeps its bounds");
        let read = FrameReader::new(&bytes[..], CAPS).frame();
        assert!(matches!(read, Err(WireError::TooLong { len: 1001, max: 1000, .. })), "{read:?}");
    }
}
