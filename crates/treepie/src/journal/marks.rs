//! How many bytes of journal are behind an LSN: a sparse, bounded list of (LSN, bytes so far).
//!
//! The answer counts from the nearest mark at or below the LSN, so it is exact at marks and else
//! too high by at most the distance of two marks; it grows with every append. Nothing is behind the
//! last record once that is checkpointed: a writer who waits for a shorter journal goes on.

use std::collections::VecDeque;

use crate::ids::Lsn;

const MARKS_MAX: usize = 1024;
const DISTANCE_MIN: u64 = 64 << 10;

/// The list, and the bytes so far.
#[derive(Debug)]
pub struct Marks {
    total: u64,
    /// The last LSN that was counted.
    last: Lsn,
    distance: u64,
    marks: VecDeque<(Lsn, u64)>,
}

impl Marks {
    /// Nothing is behind `lsn` yet.
    pub fn new(lsn: Lsn) -> Marks {
        Marks { total: 0, last: lsn, distance: DISTANCE_MIN, marks: VecDeque::from([(lsn, 0)]) }
    }

    /// Counts `bytes` more, up to and with `lsn`.
    pub fn add(&mut self, lsn: Lsn, bytes: u64) {
        self.total += bytes;
        self.last = lsn;
        let marked = self.marks.back().map_or(0, |mark| mark.1);
        if self.total - marked < self.distance {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            self.distance *= 2;
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back((lsn, self.total));
    }

    /// Bytes behind `lsn`.
    pub fn behind(&self, lsn: Lsn) -> u64 {
        let index = self.marks.partition_point(|mark| mark.0 <= lsn).saturating_sub(1);
        self.total - self.marks.get(index).map_or(0, |mark| mark.1)
    }

    /// Forgets the marks of records above `lsn`, which were given up. Their bytes are there all the same.
    pub fn truncate(&mut self, lsn: Lsn) {
        self.last = self.last.min(lsn);
        while self.marks.len() > 1 && self.marks.back().is_some_and(|mark| mark.0 > lsn) {
            self.marks.pop_back();
        }
    }

    /// Forgets the marks that only questions below `lsn` need.
    pub fn trim(&mut self, lsn: Lsn) {
        if lsn >= self.last {
            self.marks = VecDeque::from([(self.last, self.total)]);
            return;
        }
        let index = self.marks.partition_point(|mark| mark.0 <= lsn).saturating_sub(1);
        self.marks.drain(..index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_behind_an_lsn_grow_with_each_append_and_stay_near_the_truth() {
        let mut marks = Marks::new(Lsn(10));
        for lsn in 11..=100_000 {
            let before = marks.behind(Lsn(10));
            marks.add(Lsn(lsn), 4096);
            assert_eq!(marks.behind(Lsn(10)), before + 4096);
        }
        let truth = 4096 * 50_000;
        let found = marks.behind(Lsn(50_000));
        assert!((truth..truth + 2 * marks.distance).contains(&found), "{found}");
        assert!(marks.marks.len() <= MARKS_MAX);
        marks.trim(Lsn(50_000));
        assert_eq!(marks.behind(Lsn(50_000)), found);
    }

    #[test]
    fn nothing_is_behind_the_last_record_once_it_is_checkpointed() {
        let mut marks = Marks::new(Lsn(0));
        marks.add(Lsn(1), 4096);
        assert_eq!(marks.behind(Lsn(1)), 4096, "too high, by less than a distance");
        marks.trim(Lsn(1));
        assert_eq!(marks.behind(Lsn(1)), 0);
        marks.add(Lsn(2), 4096);
        assert_eq!(marks.behind(Lsn(1)), 4096);
    }
}
