//! Scripts: what users of a database do in one run, as data. They are drawn from a seed (`author`),
//! written and read as text (`text`), and made shorter while they still fail (`minimise`).
//!
//! A [`workload`](crate::workload) is a list of transactions; a script has all that can happen to a
//! transaction: savepoints that stay, fail or panic, closures that do, several of them merged into
//! one record, each durability, snapshots that are held, and processes that end in order or not.
//! What a script leaves follows from itself alone: every operation leads from one [`State`] to one
//! other.

mod author;
mod minimise;
mod text;

use std::{ops::Bound, sync::Arc, time::Duration};

use treepie::{Compression, Durability};

use crate::{
    model::State,
    rng::{Rng, mix},
    workload::Op,
};

pub use self::{author::Manner, minimise::minimise};

/// What is done to one database, from its creation on.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// How the database is opened, each time.
    pub setup: Setup,
    /// What is done, one after the other.
    pub steps: Vec<Step>,
}

/// The options of a database that matter for what reaches the disk, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// Seed of the disk, and of what power cuts draw.
    pub seed: u64,
    /// Bytes of a journal segment.
    pub segment_size: u64,
    /// Bytes of journal between checkpoints.
    pub checkpoint_distance: u64,
    /// Whether records are compressed.
    pub compression: Compression,
    /// Whether closing ends in a checkpoint.
    pub checkpoint_on_close: bool,
}

/// One step of a script.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// One closure, committed by itself.
    Write(Closure),
    /// Closures that are merged into one record, in this order.
    Batch(Vec<Closure>),
    /// Makes everything durable that was committed.
    Sync,
    /// A checkpoint.
    Checkpoint,
    /// Takes a snapshot, and keeps it.
    Hold,
    /// Looks at the snapshot that was kept longest, and ends it.
    Release,
    /// Closes the database in order, and opens it again.
    Reopen,
    /// Ends the process as a kill does, and opens the database in another one.
    Kill,
}

/// What one caller of `write` passes to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Closure {
    /// When it counts as done.
    pub durability: Durability,
    /// What it does.
    pub acts: Vec<Act>,
    /// How it ends.
    pub end: End,
}

/// One operation of a closure. All but [`Act::Drop`] and [`Act::Annotate`] make their tree, should
/// it be missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Makes an empty tree, unless it is there.
    Create(String),
    /// Drops a tree, which need not be there.
    Drop(String),
    /// Removes all entries of a tree.
    Clear(String),
    /// Inserts an entry, or replaces its value.
    Insert(String, Vec<u8>, Value),
    /// Removes an entry, which need not be there.
    Remove(String, Vec<u8>),
    /// Removes the entries between two bounds, which may be the wrong way round.
    RemoveRange(String, Bound<Vec<u8>>, Bound<Vec<u8>>),
    /// Adds so many bytes to the record, which no tree shows.
    Annotate(usize),
    /// A part that can fail by itself.
    Savepoint(Vec<Act>, End),
}

/// A value, told by its length and what fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Bytes.
    pub len: usize,
    /// Of those with the same length, which one. Every fourth can be compressed.
    pub fill: u64,
}

/// How a closure or a savepoint ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It returns `Ok`.
    Stays,
    /// It returns an error.
    Fails,
    /// It panics.
    Panics,
}

/// The longest that [`Durability::Group`] waits in a script: its callers come one after the other.
pub const GROUP: Durability = Durability::Group { delay_max: Duration::ZERO };

impl Value {
    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> Arc<[u8]> {
        if self.fill.is_multiple_of(4) {
            let byte = u8::try_from(self.fill % 251).expect("below 251");
            return vec![byte; self.len].into();
        }
        Rng::new(mix(self.fill, self.len as u64)).bytes(self.len).into()
    }
}

impl Act {
    /// What it leaves of a state.
    pub fn apply(&self, state: &mut State) {
        match self {
            Act::Savepoint(acts, End::Stays) => acts.iter().for_each(|act| act.apply(state)),
            Act::Savepoint(..) | Act::Annotate(_) => {}
            Act::RemoveRange(tree, lower, upper) => state.remove_range(tree, lower, upper),
            simple => {
                let op = simple.to_op().expect("all others are operations of a workload");
                state.apply(&op);
            }
        }
    }

    /// The same as an operation of a workload, where there is one.
    #[must_use]
    pub fn to_op(&self) -> Option<Op> {
        Some(match self.clone() {
            Act::Create(tree) => Op::CreateTree { tree },
            Act::Drop(tree) => Op::DropTree { tree },
            Act::Clear(tree) => Op::Clear { tree },
            Act::Insert(tree, key, value) => Op::Insert { tree, key, value: value.bytes() },
            Act::Remove(tree, key) => Op::Remove { tree, key },
            Act::RemoveRange(..) | Act::Annotate(_) | Act::Savepoint(..) => return None,
        })
    }

    /// It, and what is in it.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Act::Savepoint(acts, _) => 1 + acts.iter().map(Act::count).sum::<usize>(),
            _ => 1,
        }
    }
}

impl Closure {
    /// What it leaves of a state.
    pub fn apply(&self, state: &mut State) {
        if self.end == End::Stays {
            self.acts.iter().for_each(|act| act.apply(state));
        }
    }

    /// Operations.
    #[must_use]
    pub fn count(&self) -> usize {
        self.acts.iter().map(Act::count).sum()
    }
}

impl Step {
    /// The closures of the step.
    #[must_use]
    pub fn closures(&self) -> &[Closure] {
        match self {
            Step::Write(closure) => std::slice::from_ref(closure),
            Step::Batch(closures) => closures,
            _ => &[],
        }
    }
}

impl Script {
    /// Operations of all closures.
    #[must_use]
    pub fn acts(&self) -> usize {
        self.steps.iter().flat_map(Step::closures).map(Closure::count).sum()
    }
}
