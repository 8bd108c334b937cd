//! Little-endian integers at an offset.
//!
//! The readers return 0 past the end instead of panicking: callers check lengths first, and where
//! a damaged length slips through, an arbitrary value is as wrong as any other, and safe.

/// Reads a `u16` at `offset`.
#[inline(always)]
#[must_use]
pub fn get_u16(bytes: &[u8], offset: usize) -> u16 {
    bytes.get(offset..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}

/// Reads a `u32` at `offset`.
#[inline(always)]
#[must_use]
pub fn get_u32(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

/// Reads a `u64` at `offset`.
#[inline(always)]
#[must_use]
pub fn get_u64(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

/// Reads `N` bytes at `offset`; zeros past the end.
#[inline(always)]
#[must_use]
pub fn get_array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes.get(offset..).and_then(|b| b.first_chunk()).map_or([0; N], |b| *b)
}

/// Writes `value` at `offset`.
///
/// # Panics
/// If the bytes do not reach that far: writers own their buffers.
#[allow(clippy::indexing_slicing, reason = "writers own their buffers")]
#[inline(always)]
pub fn put_u32(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes `value` at `offset`. Panics as [`put_u32`].
#[allow(clippy::indexing_slicing, reason = "writers own their buffers")]
#[inline(always)]
pub fn put_u64(bytes: &mut [u8], offset: usize, value: u64) {
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}

/// Writes `value` at `offset`. Panics as [`put_u32`].
#[allow(clippy::indexing_slicing, reason = "writers own their buffers")]
#[inline(always)]
pub fn put_array<const N: usize>(bytes: &mut [u8], offset: usize, value: &[u8; N]) {
    bytes[offset..offset + N].copy_from_slice(value);
}

/// Whether every byte is zero. Looks at so many at a time as the processor can.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}
