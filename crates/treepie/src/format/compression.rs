//! Compression of a record's payload: one LZ4 block, where it pays.
//!
//! It pays for large transactions with repetitive values, whose time goes into writing. A small
//! record is one block of the disk either way. Whatever the mode, the compressed form is kept only
//! when it saves at least an eighth, and at most 48 MiB: what reading a record costs is bounded by
//! its stored length.

use crate::limits::{COMPRESSION_SAVED_MAX, RECORD_LEN_MAX};

/// Payloads shorter than this are not tried by `Auto`, in bytes: their write is not what takes time.
const AUTO_LEN_MIN: usize = 256 << 10;
/// Longest payload that is compressed, in bytes: well inside what an LZ4 block can hold.
const LEN_MAX: usize = 1 << 30;
const SAMPLE_COUNT: usize = 4;
const SAMPLE_LEN: usize = 4096;
/// LZ4 encodes at most this many bytes in one.
const RATIO_MAX: usize = 255;

/// When records are compressed.
///
/// ```
/// assert_eq!(treepie::Compression::default(), treepie::Compression::Auto);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// Never.
    Off,
    /// Records of 256 KiB or more, when samples of them shrink by at least a third.
    #[default]
    Auto,
    /// All records that shrink by at least an eighth.
    Lz4,
}

/// Compresses what is behind the first `head_len` bytes, and copies those. `None` when it does not
/// pay, or is not wanted.
#[allow(clippy::indexing_slicing, reason = "the buffer is made as long as it must be")]
pub fn pack(bytes: &[u8], head_len: usize, mode: Compression) -> Option<Vec<u8>> {
    let (head, payload) = bytes.split_at(head_len);
    if payload.is_empty() || payload.len() > LEN_MAX {
        return None;
    }
    match mode {
        Compression::Off => return None,
        Compression::Auto if payload.len() < AUTO_LEN_MIN || !samples_shrink(payload) => {
            return None;
        }
        Compression::Auto | Compression::Lz4 => {}
    }
    let room = lz4_flex::block::get_maximum_output_size(payload.len());
    let mut packed = vec![0; head_len + room];
    let len = lz4_flex::block::compress_into(payload, &mut packed[head_len..]).ok()?;
    let saved_min = payload.len() / 8;
    if len > payload.len() - saved_min || payload.len() > raw_len_max(len) {
        return None;
    }
    packed[..head_len].copy_from_slice(head);
    packed.truncate(head_len + len);
    packed.shrink_to_fit();
    Some(packed)
}

/// Decompresses a block that must give exactly `raw_len` bytes. `None` when it does not.
pub fn unpack(stored: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    if raw_len as u64 > RECORD_LEN_MAX || raw_len > raw_len_max(stored.len()) {
        return None;
    }
    let mut raw = vec![0; raw_len];
    let len = lz4_flex::block::decompress_into(stored, &mut raw).ok()?;
    (len == raw_len).then_some(raw)
}

/// More than this does not come out of a block of `stored_len` bytes.
pub fn raw_len_max(stored_len: usize) -> usize {
    let possible = stored_len.saturating_mul(RATIO_MAX);
    possible.min(stored_len.saturating_add(COMPRESSION_SAVED_MAX))
}

#[allow(clippy::indexing_slicing, reason = "what is sampled is longer than its samples")]
fn samples_shrink(payload: &[u8]) -> bool {
    let step = payload.len() / SAMPLE_COUNT;
    let mut packed = [0; lz4_flex::block::get_maximum_output_size(SAMPLE_LEN)];
    let packed_len: usize = (0..SAMPLE_COUNT)
        .map(|i| {
            let sample = &payload[i * step..][..SAMPLE_LEN];
            lz4_flex::block::compress_into(sample, &mut packed).unwrap_or(SAMPLE_LEN)
        })
        .sum();
    packed_len * 3 <= SAMPLE_COUNT * SAMPLE_LEN * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_that_would_save_more_than_a_reader_allocates_is_stored_as_it_is() {
        for (len, is_packed) in [(COMPRESSION_SAVED_MAX, true), (COMPRESSION_SAVED_MAX * 2, false)]
        {
            let packed = pack(&vec![7; len], 0, Compression::Auto);
            assert_eq!(packed.is_some(), is_packed, "{len} bytes");
            let Some(packed) = packed else { continue };
            assert_eq!(unpack(&packed, len), Some(vec![7; len]));
            assert_eq!(unpack(&packed, COMPRESSION_SAVED_MAX * 2), None);
        }
    }
}
