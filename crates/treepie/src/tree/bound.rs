//! Bound of a range: a copy of the caller's key, without an allocation when the key is short.

use std::{fmt, ops::Bound};

/// Keys of up to this length need no allocation: two bounds and their lengths are two cache lines.
const SHORT_LEN_MAX: usize = 62;

/// The bytes of a key.
#[derive(Clone)]
pub struct BoundKey(Bytes);

#[derive(Clone)]
enum Bytes {
    Short(u8, [u8; SHORT_LEN_MAX]),
    Long(Box<[u8]>),
}

impl BoundKey {
    /// Copies a key.
    #[inline]
    pub fn new(key: &[u8]) -> BoundKey {
        match u8::try_from(key.len()) {
            Ok(len) if key.len() <= SHORT_LEN_MAX => {
                let mut short = [0; SHORT_LEN_MAX];
                short[..key.len()].copy_from_slice(key);
                BoundKey(Bytes::Short(len, short))
            }
            _ => BoundKey(Bytes::Long(key.into())),
        }
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short(len, short) => &short[..usize::from(*len)],
            Bytes::Long(long) => long,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Bytes::Short(len, short) => &mut short[..usize::from(*len)],
            Bytes::Long(long) => long,
        }
    }
}

impl fmt::Debug for BoundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_slice().escape_ascii())
    }
}

/// Copies a bound.
#[inline]
pub fn copied(bound: Bound<&[u8]>) -> Bound<BoundKey> {
    bound.map(BoundKey::new)
}

/// The bound above all keys that begin with `prefix`: its last byte that is not 0xff, plus one.
pub fn prefix_end(prefix: &[u8]) -> Bound<BoundKey> {
    let Some(last) = prefix.iter().rposition(|&byte| byte != 0xff) else {
        return Bound::Unbounded;
    };
    let mut end = BoundKey::new(&prefix[..=last]);
    end.as_mut_slice()[last] += 1;
    Bound::Excluded(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(prefix: &[u8]) -> Bound<Vec<u8>> {
        prefix_end(prefix).map(|key| key.as_slice().to_vec())
    }

    #[test]
    fn bound_of_a_prefix_is_the_next_key_of_its_length_or_less() {
        assert_eq!(end_of(b"ab"), Bound::Excluded(b"ac".to_vec()));
        assert_eq!(end_of(b"a\xff\xff"), Bound::Excluded(b"b".to_vec()));
        assert_eq!(end_of(b"\xff"), Bound::Unbounded);
        assert_eq!(end_of(b""), Bound::Unbounded);
        let long = [b'x'; 300];
        assert_eq!(end_of(&long), Bound::Excluded([&long[..299], b"y"].concat()));
    }

    #[test]
    fn keys_of_every_length_are_held() {
        for len in 0..300 {
            let key: Vec<u8> = (0..len).map(|i| i as u8).collect();
            assert_eq!(BoundKey::new(&key).as_slice(), key);
        }
    }
}
