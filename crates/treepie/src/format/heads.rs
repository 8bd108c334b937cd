//! Heads: the first bytes of suffixes as numbers, dense, so that they can be searched without a look
//! at the keys.

/// Size of a head in bytes.
pub const HEAD_SIZE: usize = 4;
/// Up to this many heads are counted one by one (in vector registers).
const LINEAR_COUNT_MAX: usize = 64;
/// Parts that more heads are divided into.
const PARTS: usize = 8;

/// Head of a suffix.
#[inline(always)]
#[must_use]
pub fn head_of(suffix: &[u8]) -> u32 {
    if let Some(first) = suffix.first_chunk() {
        return u32::from_be_bytes(*first);
    }
    let mut head = [0; HEAD_SIZE];
    for (to, from) in head.iter_mut().zip(suffix) {
        *to = *from;
    }
    u32::from_be_bytes(head)
}

/// Index of the first head that is not below `head`: without branches that depend on the heads.
///
/// Many heads are first narrowed to one part of [`PARTS`], by the heads that begin the others:
/// these are read at once, so their cache misses overlap, which those of halving would not.
#[inline(always)]
#[must_use]
pub fn lower_bound(heads: &[[u8; HEAD_SIZE]], head: u32) -> usize {
    if heads.len() <= LINEAR_COUNT_MAX {
        return count_below(heads.iter(), head);
    }
    let part_len = heads.len().div_ceil(PARTS);
    let below = count_below(heads.iter().skip(part_len).step_by(part_len), head);
    let start = below * part_len;
    let part = heads.get(start..heads.len().min(start + part_len)).unwrap_or(&[]);
    start + count_below(part.iter(), head)
}

/// How many heads are below `head`.
#[inline(always)]
fn count_below<'h>(heads: impl Iterator<Item = &'h [u8; HEAD_SIZE]>, head: u32) -> usize {
    heads.map(|h| u32::from(u32::from_le_bytes(*h) < head)).sum::<u32>() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_bound_equals_a_count_of_smaller_heads() {
        for len in [0, 1, 2, 63, 64, 65, 66, 71, 72, 73, 127, 128, 129, 300, 815] {
            let heads: Vec<_> = (0..len).map(|i: u32| (i / 3 * 2).to_le_bytes()).collect();
            for head in 0..=len + 1 {
                let expected = heads.iter().filter(|h| u32::from_le_bytes(**h) < head).count();
                assert_eq!(lower_bound(&heads, head), expected, "{len} heads, {head}");
            }
        }
    }
}
