//! What the writers of a killed process do. The operations of each commit follow from the number of
//! the writer and that of the commit: whoever knows how many each has made knows every entry.

use treepie::{Result, Snapshot, WriteTxn};
use treepie_testkit::{Rng, mix, model::State, workload::Op};

use crate::harness::apply;

/// Threads that write.
pub const WRITERS: usize = 4;
/// Different keys of a writer.
const KEYS: u64 = 48;
/// Tree with the number of commits of each writer, and of all of them together.
const COUNTS: &str = "counts";
const ALL: &str = "all";

/// Operations of one commit: entries small and large, removals, and now and then a whole tree.
fn ops(writer: usize, number: u64) -> Vec<Op> {
    let mut rng = Rng::new(mix(writer as u64, number));
    let tree = format!("writer {writer}");
    if rng.chance(1, 90) {
        return vec![Op::DropTree { tree }];
    }
    let count = rng.range(1..6);
    let one = |_| {
        let key = format!("key {:03}", rng.below(KEYS)).into_bytes();
        if rng.chance(1, 4) {
            return Op::Remove { tree: tree.clone(), key };
        }
        let len = match rng.below(12) {
            0 => rng.range(4_000..40_000),
            1 | 2 => rng.range(500..3_000),
            _ => rng.range(0..200),
        };
        Op::Insert { tree: tree.clone(), key, value: rng.bytes(len).into() }
    };
    (0..count).map(one).collect()
}

fn count_of(writer: usize, number: u64) -> Op {
    insert(&format!("{writer}"), number)
}

fn insert(key: &str, number: u64) -> Op {
    let value = number.to_be_bytes().as_slice().into();
    Op::Insert { tree: COUNTS.to_owned(), key: key.as_bytes().to_vec(), value }
}

/// Makes commit `number` of a writer.
pub fn commit(tx: &mut WriteTxn<'_>, writer: usize, number: u64) -> Result<()> {
    apply(tx, &ops(writer, number))?;
    let all = tx.tree(COUNTS)?.get(ALL)?.and_then(|bytes| bytes.try_into().ok());
    let all = all.map_or(0, u64::from_be_bytes) + 1;
    apply(tx, &[count_of(writer, number), insert(ALL, all)])
}

/// How many commits each writer has made.
pub fn counts(snapshot: &Snapshot) -> Result<[u64; WRITERS]> {
    let mut counts = [0; WRITERS];
    let Some(tree) = snapshot.find_tree(COUNTS)? else { return Ok(counts) };
    for (writer, count) in counts.iter_mut().enumerate() {
        let stored = tree.get(format!("{writer}"))?.and_then(|bytes| bytes.try_into().ok());
        *count = stored.map_or(0, u64::from_be_bytes);
    }
    Ok(counts)
}

/// Whether a snapshot has no commit in part, as far as their numbers tell.
pub fn is_whole(snapshot: &Snapshot) -> Result<bool> {
    let Some(tree) = snapshot.find_tree(COUNTS)? else { return Ok(true) };
    let all = tree.get(ALL)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    Ok(all == counts(snapshot)?.iter().sum::<u64>())
}

/// The state after so many commits of each writer, in whatever order they were.
#[derive(Debug, Default)]
pub struct Expected {
    /// How many.
    pub counts: [u64; WRITERS],
    /// All trees.
    pub state: State,
}

impl Expected {
    /// Goes on to a higher count of each writer.
    pub fn advance_to(&mut self, counts: &[u64; WRITERS]) {
        for (writer, (from, to)) in self.counts.iter_mut().zip(counts).enumerate() {
            while *from < *to {
                *from += 1;
                ops(writer, *from).iter().for_each(|op| self.state.apply(op));
                self.state.apply(&count_of(writer, *from));
            }
        }
        let all = counts.iter().sum();
        if all > 0 {
            self.state.apply(&insert(ALL, all));
        }
    }
}
