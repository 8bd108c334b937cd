//! The page checksum, and how it follows a change without reading the page again.
//!
//! CRC-32 (IEEE) is linear: for two texts of the same length, the checksums differ by the CRC of
//! their difference, and a difference confined to a few bytes is the CRC of those bytes times a
//! power of x for the bytes behind them. So a page's checksum is brought up to date from the old
//! and new bytes of the changed ranges alone, at each commit, and every record carries the
//! checksums of the pages that it changes: recovery can verify what it rebuilt.

use crate::limits::PAGE_SIZE_MAX;

use super::blocks::BLOCK_SIZE;

const POLYNOMIAL: u32 = 0xedb8_8320;
const STEP_COUNT: usize = PAGE_SIZE_MAX / BLOCK_SIZE + 1;
/// `SHIFT[n]` is x^(8 × 16 × n) modulo the polynomial, bit-reflected.
static SHIFT: [u32; STEP_COUNT] = shift_table();

/// CRC-32 of `bytes`.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// What the CRC-32 of a page changes by (with XOR) when `old` becomes `new` at a place with
/// `tail_len` bytes behind it. `old` and `new` have the same length; `tail_len` is a multiple of
/// 16 and at most the largest page.
#[must_use]
#[allow(clippy::indexing_slicing, reason = "the writer changes bytes of its own page")]
pub fn crc32_change(old: &[u8], new: &[u8], tail_len: usize) -> u32 {
    debug_assert_eq!(old.len(), new.len());
    debug_assert_eq!(tail_len % BLOCK_SIZE, 0);
    multiply(crc32(old) ^ crc32(new), SHIFT[tail_len / BLOCK_SIZE])
}

/// Product of two polynomials modulo the CRC's, bit-reflected (bit 31 is the constant term).
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        product ^= b & (((a << bit) as i32 >> 31) as u32);
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit += 1;
    }
    product
}

#[allow(
    clippy::indexing_slicing,
    reason = "the table is computed by the compiler, which checks it"
)]
const fn shift_table() -> [u32; STEP_COUNT] {
    let mut table = [0; STEP_COUNT];
    let mut block: u32 = 1 << 31;
    let mut bit = 0;
    while bit < 8 * BLOCK_SIZE {
        block = (block >> 1) ^ (POLYNOMIAL & (block & 1).wrapping_neg());
        bit += 1;
    }
    table[0] = 1 << 31;
    let mut i = 1;
    while i < STEP_COUNT {
        table[i] = multiply(table[i - 1], block);
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_of_a_range_gives_the_checksum_of_the_whole() {
        let old: Vec<u8> = (0..8192u32).map(|i| (i * 7 % 251) as u8).collect();
        for (offset, len) in [(0, 16), (16, 160), (4096, 4096), (8176, 16), (0, 8192)] {
            let mut new = old.clone();
            for byte in &mut new[offset..offset + len] {
                *byte = byte.wrapping_mul(31).wrapping_add(5);
            }
            let tail_len = old.len() - offset - len;
            let change =
                crc32_change(&old[offset..offset + len], &new[offset..offset + len], tail_len);
            assert_eq!(crc32(&old) ^ change, crc32(&new), "range {offset}+{len}");
        }
    }
}
