//! Zone of the space map: how many of 4,096 pages are free, and how long their free runs are.
//!
//! The count is always right. The runs are worked out when a search asks for them, once after any
//! number of changes: 64 words, while a change of the map touches one.

#[cfg(test)]
use std::cell::Cell;

/// Words of a zone; the last zone may have fewer.
pub(super) const ZONE_WORDS: usize = 64;

#[cfg(test)]
thread_local! {
    /// What searches for runs cost, for tests.
    pub(super) static WORDS_LOOKED_AT: Cell<usize> = const { Cell::new(0) };
}

/// What a zone has free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zone {
    free: u16,
    /// `None` when pages were taken or given since they were worked out.
    runs: Option<Packed>,
}

/// [`Runs`] in less memory: there is one for each 4,096 pages of the file.
#[derive(Clone, Copy, Debug)]
struct Packed {
    front: u16,
    back: u16,
    longest: u16,
}

/// Free runs of a zone, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// At the zone's begin; with `back` for runs that cross the borders of zones.
    pub front: u32,
    /// At its end.
    pub back: u32,
    /// The longest one.
    pub longest: u32,
}

impl Zone {
    /// The zone of these words.
    pub fn new(words: &[u64]) -> Zone {
        Zone { free: words.iter().map(|word| word.count_zeros() as u16).sum(), runs: None }
    }

    /// Number of free pages.
    #[inline]
    pub fn free(&self) -> u16 {
        self.free
    }

    /// Notes that a free page is used now.
    #[inline]
    pub fn took_one(&mut self) {
        self.free -= 1;
        self.runs = None;
    }

    /// Notes that a used page is free now.
    #[inline]
    pub fn got_one(&mut self) {
        self.free += 1;
        self.runs = None;
    }

    /// The free runs; `words` are the zone's.
    pub fn runs(&mut self, words: &[u64]) -> Runs {
        let packed = *self.runs.get_or_insert_with(|| Packed::of(measure(words)));
        let [front, back, longest] = [packed.front, packed.back, packed.longest].map(u32::from);
        Runs { front, back, longest }
    }
}

impl Packed {
    fn of(runs: Runs) -> Packed {
        Packed { front: runs.front as u16, back: runs.back as u16, longest: runs.longest as u16 }
    }
}

/// The free runs of these words.
pub(super) fn measure(words: &[u64]) -> Runs {
    let mut runs = Runs::default();
    let page_count = words.len() as u32 * 64;
    each_run(words, |start, len| {
        if start == 0 {
            runs.front = len;
        }
        if start + len == page_count {
            runs.back = len;
        }
        runs.longest = runs.longest.max(len);
        true
    });
    runs
}

/// Where the lowest run of at least `len` free pages begins.
pub(super) fn find(words: &[u64], len: u32) -> Option<u32> {
    let mut found = None;
    each_run(words, |start, run| {
        found = (run >= len).then_some(start);
        found.is_none()
    });
    found
}

/// Calls `each` with begin and length of every run of clear bits, until it returns false.
fn each_run(words: &[u64], mut each: impl FnMut(u32, u32) -> bool) {
    #[cfg(test)]
    WORDS_LOOKED_AT.set(WORDS_LOOKED_AT.get() + words.len());
    let mut run = 0;
    for (index, &word) in words.iter().enumerate() {
        let (mut word, mut at) = (word, 0);
        while at < 64 {
            let free = word.trailing_zeros().min(64 - at);
            run += free;
            at += free;
            if at == 64 {
                break;
            }
            let end = index as u32 * 64 + at;
            if run > 0 && !each(end - run, run) {
                return;
            }
            run = 0;
            let used = (word >> free).trailing_ones();
            at += used;
            word = word.checked_shr(free + used).unwrap_or(0);
        }
    }
    if run > 0 {
        each(words.len() as u32 * 64 - run, run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_measured_within_and_across_words() {
        let runs = |words: &[u64]| {
            let Runs { front, back, longest } = measure(words);
            (front, back, longest)
        };
        assert_eq!(runs(&[]), (0, 0, 0));
        assert_eq!(runs(&[0, 0]), (128, 128, 128));
        assert_eq!(runs(&[u64::MAX]), (0, 0, 0));
        assert_eq!(runs(&[1 << 63]), (63, 0, 63));
        assert_eq!(runs(&[1]), (0, 63, 63));
        assert_eq!(runs(&[0xf0, 0, 1 << 5]), (4, 58, 64 - 8 + 64 + 5));
        assert_eq!(runs(&[!0b1000, u64::MAX]), (0, 0, 1));
    }

    #[test]
    fn the_lowest_run_that_is_long_enough_is_found() {
        let words = [!0b110_0010, !(0b1_1111 << 59), !1, u64::MAX];
        assert_eq!(find(&words, 1), Some(1));
        assert_eq!(find(&words, 2), Some(5));
        assert_eq!(find(&words, 3), Some(64 + 59));
        assert_eq!(find(&words, 6), Some(64 + 59));
        assert_eq!(find(&words, 7), None);
    }
}
