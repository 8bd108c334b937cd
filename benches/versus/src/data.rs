//! Keys, values and orders: the same for every engine, made from a seed at little cost.

use clap::ValueEnum;

/// How keys look. Both shapes ascend with the entry's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyShape {
    /// Hexadecimal digits spread over the whole range, as hashes or random identifiers are.
    Spread,
    /// `users/` and decimal digits that count up.
    Counted,
}

/// How values look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ValueShape {
    /// Noise, in which no compression finds anything.
    Noise,
    /// English words in a random order.
    Text,
}

/// The entries of a database, by number.
#[derive(Clone, Copy, Debug)]
pub struct Entries {
    /// How many there are.
    pub count: u64,
    /// Length of each key in bytes, at least 24.
    pub key_len: usize,
    /// Length of each value in bytes.
    pub value_len: usize,
    /// How keys look.
    pub shape: KeyShape,
    /// How values look.
    pub values: ValueShape,
    /// What everything is made from.
    pub seed: u64,
}

impl Entries {
    /// Writes the key of entry `number` into `key`.
    pub fn key(&self, number: u64, key: &mut Vec<u8>) {
        key.clear();
        match self.shape {
            KeyShape::Spread => {
                let step = u64::MAX / self.count.max(1);
                let noise = mix(self.seed ^ number);
                push_digits::<16>(key, number * step + noise % step, self.key_len.min(16));
                push_digits::<16>(key, noise, 8);
            }
            KeyShape::Counted => {
                key.extend_from_slice(b"users/");
                push_digits::<10>(key, number, 18);
            }
        }
        key.resize(self.key_len, b'.');
    }

    /// The key of entry 0.
    pub fn first_key(&self) -> Vec<u8> {
        let mut key = Vec::new();
        self.key(0, &mut key);
        key
    }

    /// Writes the value of entry `number` into `value`; it differs for each `generation`.
    pub fn value(&self, number: u64, generation: u64, value: &mut Vec<u8>) {
        value.resize(self.value_len, 0);
        let seed = mix(self.seed ^ generation.rotate_left(40)) ^ number;
        match self.values {
            ValueShape::Noise => fill(seed, value),
            ValueShape::Text => fill_with_words(seed, value),
        }
    }

    /// Bytes of a prefix that about 1,000 keys share (or fewer, in a small database).
    pub fn prefix_len(&self) -> usize {
        match self.shape {
            KeyShape::Spread => {
                let groups = (self.count / 1000).max(1);
                (groups.ilog2() / 4).max(1) as usize
            }
            KeyShape::Counted => 6 + 18 - 3,
        }
    }
}

/// Appends the `len` last digits of `number`.
fn push_digits<const BASE: u64>(key: &mut Vec<u8>, mut number: u64, len: usize) {
    let start = key.len();
    key.resize(start + len, b'0');
    for digit in key[start..].iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number % BASE) as usize];
        number /= BASE;
    }
}

/// Fills `bytes` with noise that does not compress.
pub fn fill(seed: u64, bytes: &mut [u8]) {
    let mut random = Random::new(seed);
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
}

/// Words that text is made of; those in front come more often.
const WORDS: [&str; 64] = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "was",
    "for",
    "on",
    "are",
    "with",
    "they",
    "be",
    "at",
    "one",
    "have",
    "this",
    "from",
    "or",
    "had",
    "by",
    "not",
    "but",
    "some",
    "what",
    "there",
    "we",
    "can",
    "out",
    "other",
    "were",
    "which",
    "their",
    "time",
    "will",
    "how",
    "said",
    "each",
    "tell",
    "does",
    "three",
    "want",
    "well",
    "also",
    "play",
    "small",
    "end",
    "magpie",
    "river",
    "branch",
    "forest",
    "morning",
    "winter",
    "northern",
    "migration",
    "feather",
    "nesting",
    "observed",
    "population",
    "distribution",
    "species",
    "habitat",
    "woodland",
];

/// Fills `bytes` with words.
fn fill_with_words(seed: u64, bytes: &mut [u8]) {
    let mut random = Random::new(seed);
    let mut rest = bytes;
    while !rest.is_empty() {
        let [a, b] = [random.below(64), random.below(64)];
        let words = WORDS[(a * b / 64) as usize].bytes().chain([b' ']);
        let mut len = 0;
        rest.iter_mut().zip(words).for_each(|(byte, word)| (*byte, len) = (word, len + 1));
        rest = &mut rest[len..];
    }
}

/// Spreads the bits of a number (the last step of SplitMix64).
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins a sequence.
    pub fn new(seed: u64) -> Random {
        Random(mix(seed))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// A random order of the numbers below `count`, without a table: a Feistel network over the next
/// even power of two, walked until it lands below `count`.
#[derive(Clone, Copy, Debug)]
pub struct Shuffle {
    count: u64,
    half_bits: u32,
    seed: u64,
}

impl Shuffle {
    /// An order of `0..count`.
    pub fn new(count: u64, seed: u64) -> Shuffle {
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        Shuffle { count, half_bits: bits.div_ceil(2).max(1), seed }
    }

    /// The number at `position`, which is below `count`.
    pub fn at(&self, position: u64) -> u64 {
        let mut number = position;
        loop {
            number = self.permute(number);
            if number < self.count {
                return number;
            }
        }
    }

    fn permute(&self, number: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (number >> self.half_bits, number & mask);
        for round in 0..4 {
            let next = left ^ (mix(self.seed ^ (round << 56) ^ right) & mask);
            (left, right) = (right, next);
        }
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Entries = Entries {
        count: 10_000,
        key_len: 24,
        value_len: 150,
        shape: KeyShape::Spread,
        values: ValueShape::Noise,
        seed: 1,
    };

    #[test]
    fn keys_ascend_with_their_number_in_both_shapes() {
        for shape in [KeyShape::Spread, KeyShape::Counted] {
            let entries = Entries { shape, key_len: 30, ..SPREAD };
            let (mut before, mut key) = (Vec::new(), Vec::new());
            for number in 0..entries.count {
                entries.key(number, &mut key);
                assert_eq!(key.len(), 30);
                assert!(before < key, "{shape:?} {number}");
                before.clone_from(&key);
            }
        }
    }

    #[test]
    fn shuffle_hits_every_number_once() {
        for count in [1, 2, 3, 1000, 4097] {
            let shuffle = Shuffle::new(count, 7);
            let mut all: Vec<u64> = (0..count).map(|position| shuffle.at(position)).collect();
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..count), "{count}");
        }
    }

    #[test]
    fn value_depends_on_number_and_generation() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        SPREAD.value(1, 0, &mut a);
        SPREAD.value(1, 0, &mut b);
        assert_eq!((a.len(), &a), (150, &b));
        SPREAD.value(1, 1, &mut b);
        assert_ne!(a, b);
        SPREAD.value(2, 0, &mut b);
        assert_ne!(a, b);
    }

    #[test]
    fn text_is_words_and_differs_by_number_too() {
        let entries = Entries { values: ValueShape::Text, ..SPREAD };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        entries.value(1, 0, &mut a);
        entries.value(2, 0, &mut b);
        assert_ne!(a, b);
        let text = String::from_utf8(a).unwrap();
        let mut words: Vec<&str> = text.split(' ').collect();
        words.pop();
        assert!(words.len() > 10 && words.iter().all(|word| WORDS.contains(word)), "{text}");
    }

    #[test]
    fn prefix_is_shared_by_hundreds_of_keys() {
        let entries = Entries { count: 100_000, ..SPREAD };
        let (mut first, mut key) = (Vec::new(), Vec::new());
        entries.key(50_000, &mut first);
        let prefix = &first[..entries.prefix_len()];
        let shared = (0..entries.count).filter(|&number| {
            entries.key(number, &mut key);
            key.starts_with(prefix)
        });
        let shared = shared.count();
        assert!((500..20_000).contains(&shared), "{shared}");
    }
}
