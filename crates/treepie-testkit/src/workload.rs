//! Seeded workloads as data: what a user of a database does, step by step.
//!
//! The same seed and shape give the same steps. A harness applies each step to the database and
//! to the [`Model`](crate::model::Model): it commits a [`Step::Write`] to both, and only undoes
//! [`Step::Abort`] in the database.

use std::sync::Arc;

use crate::rng::{Rng, mix};

/// One operation inside a transaction. All but `DropTree` make their tree, should it be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes an empty tree, unless it is there.
    CreateTree {
        /// Name of the tree.
        tree: String,
    },
    /// Drops a tree, which need not be there.
    DropTree {
        /// Name of the tree.
        tree: String,
    },
    /// Removes all entries of a tree.
    Clear {
        /// Name of the tree.
        tree: String,
    },
    /// Inserts an entry, or replaces its value.
    Insert {
        /// Name of the tree.
        tree: String,
        /// The key.
        key: Vec<u8>,
        /// The value; it may fill several pages.
        value: Arc<[u8]>,
    },
    /// Removes an entry, which need not be there.
    Remove {
        /// Name of the tree.
        tree: String,
        /// The key.
        key: Vec<u8>,
    },
}

/// One step of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A transaction that commits.
    Write(Vec<Op>),
    /// A transaction whose closure fails at its end: nothing of it may stay.
    Abort(Vec<Op>),
    /// A checkpoint now.
    Checkpoint,
    /// Closes the database and opens it again.
    Reopen,
}

/// What workloads look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Steps.
    pub steps: usize,
    /// Most operations of one transaction.
    pub ops_max: usize,
    /// Different trees.
    pub trees: usize,
    /// Different keys of a tree; few of them make overwrites and removals that hit.
    pub keys: usize,
    /// Longest key in bytes, at least 8.
    pub key_len_max: usize,
    /// Page size of the database: value lengths are drawn around its fractions and multiples.
    pub page_size: usize,
    /// Longest value in pages.
    pub value_pages_max: usize,
    /// One step of so many is a checkpoint; 0 is never.
    pub checkpoint_every: u64,
    /// One step of so many reopens; 0 is never.
    pub reopen_every: u64,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            steps: 40,
            ops_max: 12,
            trees: 3,
            keys: 200,
            key_len_max: 64,
            page_size: 4096,
            value_pages_max: 5,
            checkpoint_every: 12,
            reopen_every: 20,
        }
    }
}

/// The steps of a seed.
///
/// # Panics
/// If the shape has no trees, keys or operations, or keys shorter than 8 bytes.
#[must_use]
pub fn generate(seed: u64, shape: &Shape) -> Vec<Step> {
    assert!(shape.trees > 0 && shape.keys > 0 && shape.ops_max > 0, "{shape:?}");
    assert!(shape.key_len_max >= 8, "{shape:?}");
    let mut generator = Generator { rng: Rng::new(mix(seed, 0x0077_6f72_6b6c_6f61)), seed, shape };
    (0..shape.steps).map(|_| generator.step()).collect()
}

struct Generator<'a> {
    rng: Rng,
    seed: u64,
    shape: &'a Shape,
}

impl Generator<'_> {
    fn step(&mut self) -> Step {
        if self.one_of(self.shape.checkpoint_every) {
            return Step::Checkpoint;
        }
        if self.one_of(self.shape.reopen_every) {
            return Step::Reopen;
        }
        // Many small transactions and a few large ones.
        let most = if self.rng.chance(1, 4) { self.shape.ops_max } else { 3 };
        let count = self.rng.range(1..most.min(self.shape.ops_max) + 1);
        let ops = (0..count).map(|_| self.op()).collect();
        if self.rng.chance(1, 10) { Step::Abort(ops) } else { Step::Write(ops) }
    }

    fn one_of(&mut self, many: u64) -> bool {
        many > 0 && self.rng.chance(1, many)
    }

    fn op(&mut self) -> Op {
        let tree = format!("tree{}", self.rng.index(self.shape.trees));
        match self.rng.below(100) {
            0 => Op::DropTree { tree },
            1 => Op::Clear { tree },
            2..4 => Op::CreateTree { tree },
            4..30 => Op::Remove { tree, key: self.key() },
            _ => Op::Insert { tree, key: self.key(), value: self.value() },
        }
    }

    /// A key's bytes follow from its number, so that the same few keys come again. They share
    /// beginnings of different lengths; some have bytes 0 and 255.
    fn key(&mut self) -> Vec<u8> {
        let number = self.rng.index(self.shape.keys) as u64;
        let mut rng = Rng::new(mix(self.seed, number));
        let mut key = match rng.below(4) {
            0 => number.to_be_bytes().to_vec(),
            1 => format!("users/{number:08}").into_bytes(),
            2 => vec![if rng.chance(1, 2) { 0 } else { 255 }; rng.range(1..5)],
            _ => Vec::new(),
        };
        let len = rng.range(8..self.shape.key_len_max + 1);
        if key.len() < len {
            let rest = rng.bytes(len - key.len());
            key.extend(rest);
        }
        key.truncate(self.shape.key_len_max);
        key
    }

    /// Empty, small, about a fraction of a page, or several pages.
    fn value(&mut self) -> Arc<[u8]> {
        let page = self.shape.page_size;
        let len = match self.rng.below(20) {
            0 => 0,
            1..13 => self.rng.range(1..100),
            13..17 => self.rng.range(100..page / 4),
            17..19 => {
                // Around what decides whether a value stays in its leaf.
                let about = page / *self.rng.pick(&[8, 4, 3, 2, 1]);
                about - 48 + self.rng.index(96)
            }
            _ => self.rng.range(page..page * self.shape.value_pages_max.max(1) + 1),
        };
        self.rng.bytes(len).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    #[test]
    fn a_seed_gives_the_same_steps_and_another_seed_others() {
        let shape = Shape::default();
        assert_eq!(generate(1, &shape), generate(1, &shape));
        assert_ne!(generate(1, &shape), generate(2, &shape));
    }

    #[test]
    fn workloads_hold_every_kind_of_step_and_stay_within_their_shape() {
        let shape = Shape { steps: 3000, ..Shape::default() };
        let mut model = Model::new();
        let mut kinds = [0; 9];
        let mut lsn = 0;
        for step in generate(5, &shape) {
            match &step {
                Step::Checkpoint => kinds[0] += 1,
                Step::Reopen => kinds[1] += 1,
                Step::Abort(_) => kinds[2] += 1,
                Step::Write(ops) => {
                    lsn += 1;
                    model.commit(lsn, ops);
                    model.forget_before(lsn);
                    for op in ops {
                        count(op, &shape, &mut kinds);
                    }
                }
            }
        }
        assert!(kinds.iter().all(|&kind| kind > 0), "{kinds:?}");
        assert!(model.newest().entry_count() > 50);
    }

    fn count(op: &Op, shape: &Shape, kinds: &mut [i32; 9]) {
        match op {
            Op::CreateTree { .. } => kinds[3] += 1,
            Op::DropTree { .. } => kinds[4] += 1,
            Op::Clear { .. } => kinds[5] += 1,
            Op::Remove { .. } => kinds[6] += 1,
            Op::Insert { key, value, .. } => {
                kinds[7] += i32::from(value.is_empty());
                kinds[8] += i32::from(value.len() > shape.page_size);
                assert!(!key.is_empty() && key.len() <= shape.key_len_max);
                assert!(value.len() <= shape.page_size * shape.value_pages_max);
            }
        }
    }
}
