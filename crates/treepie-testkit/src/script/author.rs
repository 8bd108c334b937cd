//! Draws scripts from a seed.

use std::ops::Bound;

use treepie::{Compression, Durability};

use super::{Act, Closure, End, GROUP, Script, Setup, Step, Value};
use crate::rng::{Rng, mix};

/// Most closures of one batch.
const BATCH_MAX: usize = 6;
/// How deep savepoints nest.
const DEPTH_MAX: u32 = 4;
/// Snapshots that are held at a time.
const HELD_MAX: usize = 4;

/// What the scripts of a seed look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Steps.
    pub steps: usize,
    /// Most operations of a closure, savepoints counted as one.
    pub acts_max: usize,
    /// Different trees.
    pub trees: usize,
    /// Different keys of a tree.
    pub keys: usize,
    /// Longest key in bytes, at least 8.
    pub key_len_max: usize,
    /// Page size of the database: lengths of values are drawn around its parts and multiples.
    pub page_size: usize,
    /// Longest value in pages.
    pub value_pages_max: usize,
    /// One step of so many ends the database, and opens it again.
    pub reopen_every: u64,
    /// One step of so many is a checkpoint.
    pub checkpoint_every: u64,
    /// One closure of so many is not synced before it counts as done; 0 is none.
    pub lazy_every: u64,
}

impl Manner {
    /// That of a seed: few keys or many, short closures or long ones, often opened or seldom.
    #[must_use]
    pub fn of_seed(seed: u64) -> Manner {
        let base = Manner {
            steps: 34,
            acts_max: 12,
            trees: 3,
            keys: 120,
            key_len_max: 48,
            page_size: 4096,
            value_pages_max: 5,
            reopen_every: 16,
            checkpoint_every: 10,
            lazy_every: 0,
        };
        match seed % 6 {
            // Wide: it fills the memory of versions between checkpoints.
            0 => Manner { acts_max: 90, keys: 500, checkpoint_every: 40, ..base },
            1 => Manner { trees: 6, checkpoint_every: 5, lazy_every: 3, ..base },
            2 => Manner { keys: 30, value_pages_max: 12, lazy_every: 2, ..base },
            3 => Manner { key_len_max: 400, reopen_every: 6, ..base },
            4 => Manner { acts_max: 4, keys: 12, reopen_every: 5, lazy_every: 2, ..base },
            _ => Manner { steps: 50, acts_max: 6, keys: 60, ..base },
        }
    }
}

impl Setup {
    /// Options of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Setup {
        let mut rng = Rng::new(mix(seed, 77));
        let distance = *rng.pick(&[24 << 10, 64 << 10, 1 << 20]);
        Setup {
            seed,
            segment_size: *rng.pick(&[16 << 10, 16 << 10, 64 << 10]),
            checkpoint_distance: if seed.is_multiple_of(6) { 4 << 20 } else { distance },
            compression: *rng.pick(&[Compression::Off, Compression::Auto]),
            checkpoint_on_close: rng.chance(1, 2),
        }
    }
}

impl Script {
    /// The script of a seed.
    ///
    /// # Panics
    /// If the manner has no trees, keys or operations, or keys shorter than 8 bytes.
    #[must_use]
    pub fn of_seed(seed: u64, manner: &Manner) -> Script {
        assert!(manner.trees > 0 && manner.keys > 0 && manner.acts_max > 0, "{manner:?}");
        assert!(manner.key_len_max >= 8, "{manner:?}");
        let rng = Rng::new(mix(seed, 0x0073_6372_6970_7473));
        let mut author = Author { rng, seed, manner, held: 0 };
        let steps = (0..manner.steps).map(|_| author.step()).collect();
        Script { setup: Setup::of_seed(seed), steps }
    }
}

struct Author<'a> {
    rng: Rng,
    seed: u64,
    manner: &'a Manner,
    held: usize,
}

impl Author<'_> {
    fn step(&mut self) -> Step {
        if self.rng.chance(1, self.manner.checkpoint_every) {
            return Step::Checkpoint;
        }
        if self.rng.chance(1, self.manner.reopen_every) {
            self.held = 0;
            return if self.rng.chance(1, 2) { Step::Reopen } else { Step::Kill };
        }
        match self.rng.below(20) {
            0 | 1 if self.held < HELD_MAX => {
                self.held += 1;
                Step::Hold
            }
            2 | 3 if self.held > 0 => {
                self.held -= 1;
                Step::Release
            }
            4 if self.manner.lazy_every > 0 => Step::Sync,
            5..8 => {
                let count = self.rng.range(2..BATCH_MAX + 1);
                Step::Batch((0..count).map(|_| self.closure()).collect())
            }
            _ => Step::Write(self.closure()),
        }
    }

    fn closure(&mut self) -> Closure {
        // Many small transactions and a few large ones.
        let most = if self.rng.chance(1, 4) { self.manner.acts_max } else { 3 };
        let count = self.rng.range(1..most.min(self.manner.acts_max) + 1);
        let acts = self.acts(count, 0);
        let is_lazy = self.manner.lazy_every > 0 && self.rng.chance(1, self.manner.lazy_every);
        let durability = match self.rng.below(4) {
            0 if is_lazy => Durability::Memory,
            _ if is_lazy => Durability::Buffered,
            0 => GROUP,
            _ => Durability::Sync,
        };
        Closure { durability, acts, end: self.end(8) }
    }

    /// Stays `stays` times of ten.
    fn end(&mut self, stays: u64) -> End {
        match self.rng.below(10) {
            n if n < stays => End::Stays,
            n if n.is_multiple_of(2) => End::Fails,
            _ => End::Panics,
        }
    }

    fn acts(&mut self, count: usize, depth: u32) -> Vec<Act> {
        (0..count).map(|_| self.act(depth)).collect()
    }

    fn act(&mut self, depth: u32) -> Act {
        let tree = format!("tree{}", self.rng.index(self.manner.trees));
        match self.rng.below(100) {
            0 => Act::Drop(tree),
            1 => Act::Clear(tree),
            2 => Act::Create(tree),
            3 => Act::Annotate(self.rng.index(3000)),
            4..7 => {
                let (one, other) = (self.key(), self.key());
                let (lower, upper) =
                    if self.rng.chance(9, 10) && one > other { (other, one) } else { (one, other) };
                Act::RemoveRange(tree, self.bound(lower), self.bound(upper))
            }
            7..17 if depth < DEPTH_MAX => {
                let count = self.rng.range(1..5);
                let end = self.end(5);
                Act::Savepoint(self.acts(count, depth + 1), end)
            }
            17..38 => Act::Remove(tree, self.key()),
            _ => Act::Insert(tree, self.key(), self.value()),
        }
    }

    fn bound(&mut self, key: Vec<u8>) -> Bound<Vec<u8>> {
        match self.rng.below(12) {
            0 => Bound::Unbounded,
            1..7 => Bound::Included(key),
            _ => Bound::Excluded(key),
        }
    }

    /// A key's bytes follow from its number, so that the same few come again. They share beginnings
    /// of different lengths; some have bytes 0 and 255.
    fn key(&mut self) -> Vec<u8> {
        let number = self.rng.index(self.manner.keys) as u64;
        let mut rng = Rng::new(mix(self.seed, number));
        match rng.below(4) {
            0 => number.to_be_bytes().to_vec(),
            1 => vec![if rng.chance(1, 2) { 0 } else { 255 }; rng.range(1..6)],
            2 => format!("k{number}").into_bytes(),
            _ => {
                let mut key = format!("users/{number:08}/").into_bytes();
                let len = rng.range(8..self.manner.key_len_max + 1);
                key.extend(rng.bytes(len.saturating_sub(key.len())));
                key.truncate(self.manner.key_len_max);
                key
            }
        }
    }

    /// Empty, small, about a part of a page, or several pages.
    fn value(&mut self) -> Value {
        let page = self.manner.page_size;
        let len = match self.rng.below(20) {
            0 => 0,
            1..13 => self.rng.range(1..100),
            13..17 => self.rng.range(100..page / 4),
            17..19 => {
                // Around what decides whether a value stays in its leaf.
                let about = page / *self.rng.pick(&[8, 4, 3, 2, 1]);
                about - 48 + self.rng.index(96)
            }
            _ => self.rng.range(page..page * self.manner.value_pages_max.max(1) + 1),
        };
        Value { len, fill: self.rng.below(1000) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;

    #[test]
    fn a_seed_gives_the_same_script_and_another_seed_another() {
        let manner = Manner::of_seed(1);
        assert_eq!(Script::of_seed(1, &manner), Script::of_seed(1, &manner));
        assert_ne!(Script::of_seed(1, &manner).steps, Script::of_seed(2, &manner).steps);
    }

    #[test]
    fn scripts_hold_every_kind_of_step_and_act_and_end() {
        let (mut steps, mut acts, mut ends) = ([0; 8], [0; 8], [0; 6]);
        let mut entries = 0;
        for seed in 0..60 {
            let mut state = State::default();
            for step in Script::of_seed(seed, &Manner::of_seed(seed)).steps {
                let kind = match step {
                    Step::Write(_) => 0,
                    Step::Batch(_) => 1,
                    Step::Sync => 2,
                    Step::Checkpoint => 3,
                    Step::Hold => 4,
                    Step::Release => 5,
                    Step::Reopen => 6,
                    Step::Kill => 7,
                };
                steps[kind] += 1;
                for closure in step.closures() {
                    closure.apply(&mut state);
                    ends[closure.end as usize] += 1;
                    count(&closure.acts, &mut acts, &mut ends);
                }
            }
            entries += state.entry_count();
        }
        assert!(steps.iter().all(|&count| count > 20), "{steps:?}");
        assert!(acts.iter().all(|&count| count > 20), "{acts:?}");
        assert!(ends.iter().all(|&count| count > 20), "{ends:?}");
        assert!(entries > 1000, "{entries} entries at the ends of all scripts");
    }

    fn count(list: &[Act], acts: &mut [i32; 8], ends: &mut [i32; 6]) {
        for act in list {
            let kind = match act {
                Act::Create(_) => 0,
                Act::Drop(_) => 1,
                Act::Clear(_) => 2,
                Act::Insert(..) => 3,
                Act::Remove(..) => 4,
                Act::RemoveRange(..) => 5,
                Act::Annotate(_) => 6,
                Act::Savepoint(inner, end) => {
                    ends[3 + *end as usize] += 1;
                    count(inner, acts, ends);
                    7
                }
            };
            acts[kind] += 1;
        }
    }
}
