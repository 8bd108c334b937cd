//! A key as its page holds it: a prefix shared with its neighbours, and a suffix, both borrowed.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

/// A borrowed key: the bytes of [`prefix`](Key::prefix), then those of [`suffix`](Key::suffix).
///
/// Where the two parts meet says nothing; keys compare by all their bytes, also against slices.
#[derive(Clone, Copy)]
pub struct Key<'s> {
    prefix: &'s [u8],
    suffix: &'s [u8],
}

impl<'s> Key<'s> {
    /// The key with these two parts.
    #[inline(always)]
    #[must_use]
    pub fn new(prefix: &'s [u8], suffix: &'s [u8]) -> Key<'s> {
        Key { prefix, suffix }
    }

    /// Length in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// Whether it has no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first bytes: those that its page stores once for all keys.
    #[inline]
    #[must_use]
    pub fn prefix(&self) -> &'s [u8] {
        self.prefix
    }

    /// The bytes after the prefix.
    #[inline]
    #[must_use]
    pub fn suffix(&self) -> &'s [u8] {
        self.suffix
    }

    /// Its bytes in one piece.
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        [self.prefix, self.suffix].concat()
    }

    /// Replaces the content of `buf` with its bytes.
    pub fn copy_to(&self, buf: &mut Vec<u8>) {
        buf.clear();
        buf.extend_from_slice(self.prefix);
        buf.extend_from_slice(self.suffix);
    }

    /// Whether its first bytes are these.
    #[must_use]
    pub fn starts_with(&self, start: &[u8]) -> bool {
        self.len() >= start.len() && self.common_len(&Key::new(start, &[])) == start.len()
    }

    /// How many first bytes it has in common with another key.
    #[must_use]
    pub(super) fn common_len(&self, other: &Key<'_>) -> usize {
        let (mut left, mut right) = (self.parts(), other.parts());
        let mut common = 0;
        loop {
            let len = left[0].len().min(right[0].len());
            let equal = left[0].iter().zip(right[0]).take_while(|(a, b)| a == b).count();
            common += equal;
            if equal < len || len == 0 {
                return common;
            }
            left = advance(left, len);
            right = advance(right, len);
        }
    }

    /// The key without its first `len` bytes, at most all.
    #[must_use]
    pub(super) fn without(&self, len: usize) -> Key<'s> {
        let from_prefix = len.min(self.prefix.len());
        let from_suffix = (len - from_prefix).min(self.suffix.len());
        Key::new(&self.prefix[from_prefix..], &self.suffix[from_suffix..])
    }

    fn parts(&self) -> [&[u8]; 2] {
        advance([self.prefix, self.suffix], 0)
    }
}

/// Drops `len` bytes of the first part, and then the part when it is empty.
fn advance(parts: [&[u8]; 2], len: usize) -> [&[u8]; 2] {
    let first = &parts[0][len..];
    if first.is_empty() { [parts[1], &[]] } else { [first, parts[1]] }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Key<'_>) -> Ordering {
        let (mut left, mut right) = (self.parts(), other.parts());
        loop {
            let len = left[0].len().min(right[0].len());
            let order = left[0][..len].cmp(&right[0][..len]);
            if order != Ordering::Equal || len == 0 {
                return order.then_with(|| left[0].len().cmp(&right[0].len()));
            }
            left = advance(left, len);
            right = advance(right, len);
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Key<'_>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Key<'_> {}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Key<'_>) -> bool {
        self.len() == other.len() && self.cmp(other) == Ordering::Equal
    }
}

impl Hash for Key<'_> {
    /// Hashes the bytes one by one: where the parts meet must not matter.
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.prefix.iter().chain(self.suffix) {
            state.write_u8(*byte);
        }
        state.write_usize(self.len());
    }
}

impl PartialEq<[u8]> for Key<'_> {
    fn eq(&self, other: &[u8]) -> bool {
        *self == Key::new(&[], other)
    }
}

impl PartialEq<&[u8]> for Key<'_> {
    fn eq(&self, other: &&[u8]) -> bool {
        *self == **other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Key<'_> {
    fn eq(&self, other: &[u8; N]) -> bool {
        *self == other[..]
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Key<'_> {
    fn eq(&self, other: &&[u8; N]) -> bool {
        *self == other[..]
    }
}

impl PartialOrd<[u8]> for Key<'_> {
    fn partial_cmp(&self, other: &[u8]) -> Option<Ordering> {
        Some(self.cmp(&Key::new(&[], other)))
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix.escape_ascii(), self.suffix.escape_ascii())
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::DefaultHasher;

    fn hash_of(key: Key<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn keys_compare_and_hash_by_their_bytes_wherever_the_parts_meet() {
        let texts: [&[u8]; 7] = [b"", b"a", b"ab", b"abc", b"abd", b"b", b"\xff\x00"];
        for left in texts {
            for right in texts {
                for i in 0..=left.len() {
                    for j in 0..=right.len() {
                        let (a, b) = (left.split_at(i), right.split_at(j));
                        let (a, b) = (Key::new(a.0, a.1), Key::new(b.0, b.1));
                        assert_eq!(a.cmp(&b), left.cmp(right), "{a:?} {b:?}");
                        assert_eq!(a == b, left == right);
                        assert_eq!(a == *right, left == right);
                        assert_eq!(a.partial_cmp(right), left.partial_cmp(right));
                        assert_eq!(a.starts_with(right), left.starts_with(right), "{a} {b}");
                        let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
                        assert_eq!(a.common_len(&b), common, "{a:?} {b:?}");
                        assert!(left != right || hash_of(a) == hash_of(b));
                    }
                }
            }
        }
        assert_eq!(Key::new(b"a", b"b"), b"ab");
        assert_eq!(format!("{:?}", Key::new(b"a\"", b"\xff")), r#""a\"\xff""#);
    }
}
