//! How writes are merged, and when they are acknowledged.

use std::time::Duration;

use crate::error::{Error, Result};

use super::Options;

/// When a write is acknowledged, and so what a power cut may take back. Whatever is lost, what is
/// left is all writes up to one of them, and none in part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// When it is on the disk: nothing acknowledged is ever lost.
    #[default]
    Sync,
    /// The same, but it may wait up to `delay_max` for others to share the disk write with: fewer
    /// syncs, and nothing lost either.
    Group {
        /// Longest wait for others.
        delay_max: Duration,
    },
    /// When the operating system has it: a process that is killed loses nothing, a power cut the
    /// writes since the last sync, which is about [`Options::sync_interval`] ago at most.
    Buffered,
    /// When readers see it: a killed process and a power cut lose the writes since the last sync.
    Memory,
}

impl Durability {
    /// Whether it waits for a sync.
    pub(crate) fn is_synced(self) -> bool {
        matches!(self, Durability::Sync | Durability::Group { .. })
    }

    /// The one of two that promises more.
    pub(crate) fn stronger(self, other: Durability) -> Durability {
        let rank = |durability| match durability {
            Durability::Memory => 0,
            Durability::Buffered => 1,
            Durability::Sync | Durability::Group { .. } => 2,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

/// When closures run while the records before them are still being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overlap {
    /// When a batch is large enough for it to pay: a millisecond of work, or a hundred closures.
    /// Below that, waiting for the write before gathers a larger batch, which is worth more.
    #[default]
    WhenLarge,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Work of a batch from which on the next one overlaps with its write.
const OVERLAP_TIME_MIN: Duration = Duration::from_millis(1);
const OVERLAP_COUNT_MIN: usize = 100;

/// Bounds of merged transactions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Merging {
    pub closures_max: usize,
    pub bytes_max: usize,
    pub time_max: Duration,
    pub queue_max: usize,
    pub gather_max: Duration,
    pub in_flight_records_max: usize,
    pub in_flight_bytes_max: u64,
    pub overlap: Overlap,
    pub slow_closure: Duration,
}

impl Default for Merging {
    fn default() -> Merging {
        Merging {
            closures_max: 1024,
            bytes_max: 32 << 20,
            time_max: Duration::from_millis(10),
            queue_max: 64 << 10,
            gather_max: Duration::from_micros(50),
            in_flight_records_max: 8,
            in_flight_bytes_max: 64 << 20,
            overlap: Overlap::default(),
            slow_closure: Duration::from_millis(100),
        }
    }
}

impl Merging {
    /// Whether a transaction of so many bytes, begun so long ago, takes no more closures.
    pub fn is_full(&self, bytes: usize, time: Duration) -> bool {
        bytes >= self.bytes_max || time >= self.time_max
    }

    /// Whether another record may be sealed while so many are in flight.
    pub fn has_way(&self, records: usize, bytes: u64) -> bool {
        records < self.in_flight_records_max && bytes < self.in_flight_bytes_max
    }

    /// Whether the next batch runs while this one is being written.
    pub fn overlaps(&self, work: Duration, closures: usize) -> bool {
        match self.overlap {
            Overlap::Always => true,
            Overlap::Never => false,
            Overlap::WhenLarge => work >= OVERLAP_TIME_MIN || closures >= OVERLAP_COUNT_MIN,
        }
    }

    pub fn validate(&self) -> Result<()> {
        let bounds = [
            ("merge_closures_max", self.closures_max),
            ("merge_bytes_max", self.bytes_max),
            ("queue_max", self.queue_max),
            ("in_flight_records_max", self.in_flight_records_max),
            ("in_flight_bytes_max", usize::try_from(self.in_flight_bytes_max).unwrap_or(1)),
        ];
        match bounds.iter().find(|(_, bound)| *bound == 0) {
            Some(&(option, _)) => {
                Err(Error::Options { option, reason: "must be at least 1".to_owned() })
            }
            None => Ok(()),
        }
    }
}

impl Options {
    /// When writes are acknowledged, unless they say otherwise. Default: [`Durability::Sync`].
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// Longest time that a write of [`Durability::Buffered`] or [`Durability::Memory`] stays
    /// without a sync; without background threads it has no effect. Default: 100 milliseconds.
    #[must_use]
    pub fn sync_interval(mut self, interval: Duration) -> Options {
        self.sync_interval = interval;
        self
    }

    /// Most closures in one merged transaction. Default: 1,024.
    #[must_use]
    pub fn merge_closures_max(mut self, count: usize) -> Options {
        self.merging.closures_max = count;
        self
    }

    /// Bytes of changed pages after which a merged transaction takes no more closures. One closure
    /// may change more. Default: 32 MiB.
    #[must_use]
    pub fn merge_bytes_max(mut self, bytes: usize) -> Options {
        self.merging.bytes_max = bytes;
        self
    }

    /// Time after which a merged transaction takes no more closures. Default: 10 milliseconds.
    #[must_use]
    pub fn merge_time_max(mut self, time: Duration) -> Options {
        self.merging.time_max = time;
        self
    }

    /// Most closures that wait to be run; who comes then waits for room. Default: 65,536.
    #[must_use]
    pub fn queue_max(mut self, count: usize) -> Options {
        self.merging.queue_max = count;
        self
    }

    /// Longest time that a batch waits for as many closures as the last one had; zero for never. A
    /// caller alone never waits. Default: 50 microseconds.
    #[must_use]
    pub fn gather_max(mut self, time: Duration) -> Options {
        self.merging.gather_max = time;
        self
    }

    /// Most records that are sealed and not written. Default: 8.
    #[must_use]
    pub fn in_flight_records_max(mut self, count: usize) -> Options {
        self.merging.in_flight_records_max = count;
        self
    }

    /// Bytes of records in flight from which on no further one is begun. Default: 64 MiB.
    #[must_use]
    pub fn in_flight_bytes_max(mut self, bytes: u64) -> Options {
        self.merging.in_flight_bytes_max = bytes;
        self
    }

    /// Whether closures run while the records before them are being written. Default:
    /// [`Overlap::WhenLarge`].
    #[must_use]
    pub fn overlap(mut self, overlap: Overlap) -> Options {
        self.merging.overlap = overlap;
        self
    }

    /// Time from which on a closure is reported as slow, with the place that passed it: it keeps all
    /// other writers waiting. Default: 100 milliseconds.
    #[must_use]
    pub fn slow_closure(mut self, time: Duration) -> Options {
        self.merging.slow_closure = time;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_batches_do_not_overlap_and_large_ones_do() {
        let merging = Merging::default();
        assert!(!merging.overlaps(Duration::from_micros(100), 64));
        assert!(merging.overlaps(Duration::from_millis(2), 1));
        assert!(merging.overlaps(Duration::from_micros(100), 200));
    }

    #[test]
    fn a_batch_is_as_durable_as_the_strongest_of_its_closures() {
        let group = Durability::Group { delay_max: Duration::from_millis(1) };
        assert_eq!(Durability::Memory.stronger(Durability::Buffered), Durability::Buffered);
        assert_eq!(Durability::Buffered.stronger(group), group);
        assert_eq!(group.stronger(Durability::Memory), group);
    }
}
