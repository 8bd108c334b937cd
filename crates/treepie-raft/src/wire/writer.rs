//! Frames into a byte stream.

use std::io::{self, ErrorKind, IoSlice, Write};

use bincode::Encode;

use super::{
    WireError, codec,
    error::is_timeout,
    frame::{FRAME_HEADER_SIZE, FrameHeader, FrameKind, within},
};

/// Appends a frame up to its attachments, which have these lengths and are to be written behind it.
///
/// # Errors
/// A bound of the format is passed; nothing was appended then.
pub fn encode_head(
    to: &mut Vec<u8>,
    kind: FrameKind,
    control: &impl Encode,
    lens: impl Iterator<Item = usize>,
) -> Result<(), WireError> {
    let start = to.len();
    let done = try_encode_head(to, kind, control, lens);
    if done.is_err() {
        to.truncate(start);
    }
    done
}

fn try_encode_head(
    to: &mut Vec<u8>,
    kind: FrameKind,
    control: &impl Encode,
    lens: impl Iterator<Item = usize>,
) -> Result<(), WireError> {
    let start = to.len();
    let table = start + FRAME_HEADER_SIZE;
    to.resize(table, 0);
    let (mut attachment_count, mut attachments_len) = (0, 0);
    for len in lens {
        let too_long =
            WireError::TooLong { what: "an attachment", len: len as u64, max: u32::MAX.into() };
        let len = u32::try_from(len).map_err(|_| too_long)?;
        to.extend(len.to_le_bytes());
        attachment_count += 1;
        attachments_len += u64::from(len);
    }
    let at = to.len();
    codec::encode(control, to)?;
    let control_len = to.len() - at;
    within("a control part", control_len as u64, codec::CONTROL_LEN_MAX as u64)?;
    let control_len = u32::try_from(control_len).expect("the limit is far below");
    let head_checksum = crc32fast::hash(&to[table..]);
    let header =
        FrameHeader { kind, control_len, attachment_count, attachments_len, head_checksum };
    to[start..table].copy_from_slice(&header.encode());
    Ok(())
}

/// Writes one frame.
///
/// # Errors
/// A bound of the format is passed, and nothing was written; or the connection failed.
pub fn write_frame(
    to: &mut impl Write,
    kind: FrameKind,
    control: &impl Encode,
    attachments: &[&[u8]],
) -> Result<(), WireError> {
    let mut head = Vec::with_capacity(256);
    encode_head(&mut head, kind, control, attachments.iter().map(|bytes| bytes.len()))?;
    let mut slices = Vec::with_capacity(1 + attachments.len());
    slices.push(IoSlice::new(&head));
    slices.extend(attachments.iter().map(|bytes| IoSlice::new(bytes)));
    write_all(to, &mut slices, |_, _, error| Err(error))?;
    Ok(())
}

/// Writes slices one after the other, without copying them, flushes, and returns how many bytes there
/// were. Where a socket takes nothing for as long as its timeout is, `stalled` says whether to go on; it
/// is told how many bytes went until then.
///
/// # Errors
/// The connection failed, or `stalled` says so.
pub fn write_all<W: Write>(
    to: &mut W,
    mut slices: &mut [IoSlice<'_>],
    mut stalled: impl FnMut(&mut W, u64, io::Error) -> io::Result<()>,
) -> io::Result<u64> {
    let mut written = 0;
    // Empty slices in front are skipped: nothing to write is no failure.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match to.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                written += count as u64;
                IoSlice::advance_slices(&mut slices, count);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => stalled(to, written, error)?,
            Err(error) => return Err(error),
        }
    }
    loop {
        match to.flush() {
            Ok(()) => return Ok(written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => stalled(to, written, error)?,
            Err(error) => return Err(error),
        }
    }
}
