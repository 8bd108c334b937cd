//! Who still needs records that the checkpoint does not: how many segments a trim leaves.
//!
//! Two things hold checkpointed segments: `retention`, bytes that are kept for whoever comes, and pins,
//! each of someone who reads on from an LSN. Both are bounded by bytes, counted in whole segments below
//! the checkpoint: a pin that would keep more than `pins_max` is broken instead, and its owner is told
//! at the next look. The journal never grows because somebody stopped reading.

use std::collections::BTreeMap;

use crate::ids::Lsn;

use super::spare::Live;

/// Bytes of checkpointed segments that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// In any case.
    pub retention: u64,
    /// Most for one pin.
    pub pins_max: u64,
}

/// A pin, as its owner and a report see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinInfo {
    /// The records above it are needed.
    pub after: Lsn,
    /// Whether they were given up, because they were too many.
    pub is_broken: bool,
}

/// All pins.
#[derive(Debug)]
pub struct Pins {
    keep: Keep,
    next: u64,
    held: BTreeMap<u64, PinInfo>,
}

impl Pins {
    /// None yet.
    pub fn new(keep: Keep) -> Pins {
        Pins { keep, next: 0, held: BTreeMap::new() }
    }

    /// Adds a pin; returns its number.
    pub fn add(&mut self, after: Lsn) -> u64 {
        self.next += 1;
        self.held.insert(self.next, PinInfo { after, is_broken: false });
        self.next
    }

    /// Moves a pin up.
    ///
    /// # Panics
    /// If there is no such pin.
    pub fn advance(&mut self, number: u64, after: Lsn) {
        let pin = self.held.get_mut(&number).expect("its owner holds it");
        pin.after = pin.after.max(after);
    }

    /// Removes a pin.
    pub fn remove(&mut self, number: u64) {
        self.held.remove(&number);
    }

    /// What is known of a pin.
    ///
    /// # Panics
    /// If there is no such pin.
    pub fn get(&self, number: u64) -> PinInfo {
        *self.held.get(&number).expect("its owner holds it")
    }

    /// All of them, the oldest first.
    pub fn all(&self) -> Vec<PinInfo> {
        let mut all: Vec<PinInfo> = self.held.values().copied().collect();
        all.sort_unstable_by_key(|pin| pin.after);
        all
    }

    /// How many of `segments`, ascending, a trim may give up, of which the first `count` hold nothing
    /// above the checkpoint. Breaks the pins that ask for too much.
    pub fn give_up_count(&mut self, segments: &[Live], count: usize) -> usize {
        let bytes_from = |index: usize| segments[index..count].iter().map(|live| live.len).sum();
        let mut keep_from = count;
        while keep_from > 0 && bytes_from(keep_from - 1) <= self.keep.retention {
            keep_from -= 1;
        }
        let mut pinned_from = count;
        for pin in self.held.values_mut().filter(|pin| !pin.is_broken) {
            let behind = segments.partition_point(|live| live.first <= pin.after.next());
            let Some(index) = behind.checked_sub(1) else {
                pin.is_broken = true;
                continue;
            };
            let bytes: u64 = if index < count { bytes_from(index) } else { 0 };
            if bytes > self.keep.pins_max {
                pin.is_broken = true;
            } else {
                pinned_from = pinned_from.min(index);
            }
        }
        keep_from.min(pinned_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of 100 bytes that begin with 1, 11, 21, …
    fn segments(count: u64) -> Vec<Live> {
        (0..count).map(|n| Live { first: Lsn(n * 10 + 1), len: 100, used: 100 }).collect()
    }

    #[test]
    fn retention_keeps_the_newest_segments_that_fit() {
        let keep = |retention| Keep { retention, pins_max: 0 };
        for (retention, kept) in [(0, 0), (99, 0), (100, 1), (350, 3), (9_999, 6)] {
            let given_up = Pins::new(keep(retention)).give_up_count(&segments(10), 6);
            assert_eq!(6 - given_up, kept, "{retention}");
        }
    }

    #[test]
    fn pin_keeps_the_segment_of_the_next_record_until_it_asks_for_too_much() {
        let mut pins = Pins::new(Keep { retention: 0, pins_max: 300 });
        let number = pins.add(Lsn(35));
        assert_eq!(pins.give_up_count(&segments(10), 6), 3, "records 36 to 40 are in the fourth");
        pins.advance(number, Lsn(40));
        assert_eq!(pins.give_up_count(&segments(10), 6), 4, "record 41 begins the fifth");
        let slow = pins.add(Lsn(20));
        assert_eq!(pins.give_up_count(&segments(10), 6), 4, "400 bytes are too many");
        assert!(pins.get(slow).is_broken && !pins.get(number).is_broken);
        pins.remove(number);
        assert_eq!(pins.give_up_count(&segments(10), 6), 6, "a broken pin holds nothing");
        let ahead = pins.add(Lsn(95));
        assert_eq!(
            pins.give_up_count(&segments(10), 6),
            6,
            "what is not checkpointed stays anyway"
        );
        assert!(!pins.get(ahead).is_broken);
    }
}
