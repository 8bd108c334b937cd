//! Which streams become one full stream, without the database.

use super::{
    Description, Kind, Position, RepositoryError,
    chains::Chains,
    entry::Entry,
    plan::{Branch, choose_branch},
};

/// A full stream and the increments on it that are to be merged, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SquashPlan {
    /// The streams.
    pub parts: Vec<Entry>,
    /// What the new stream is, but for what is known only when it is written: its creation time, digest and
    /// compression. These are the last part's here.
    pub result: Description,
    /// Bytes that are read.
    pub bytes: u64,
}

/// The newest increment of a branch with all that it builds on; none if its newest snapshot is a full one.
pub(super) fn squash_plan(
    entries: &[&Entry],
    branch: Option<Branch>,
) -> Result<Option<SquashPlan>, RepositoryError> {
    let snapshots: Vec<&Entry> =
        entries.iter().copied().filter(|entry| entry.is_snapshot()).collect();
    let all = Chains::new(snapshots.iter().copied());
    let Some(branch) = choose_branch(&all, branch)? else { return Ok(None) };
    // Neither records nor another lineage's streams: what needs them is no matter of merging pages.
    let lineage = all.lineage(branch);
    let own = snapshots.into_iter().filter(|entry| entry.stream.lineage == lineage);
    let chains = Chains::new(own.clone());
    let branch = chains.branch(&lineage).expect("it has streams");
    let reach = chains.search(branch, &[]);
    let restorable = own.filter(|entry| reach.has_base_of(branch, entry));
    let Some(newest) = restorable.max_by_key(|entry| (entry.stream.last.lsn, is_full(entry)))
    else {
        return Ok(None);
    };
    if is_full(newest) {
        return Ok(None);
    }
    let way = reach.way_to(branch, newest.stream.base.lsn).unwrap_or_default();
    let mut parts: Vec<Entry> = way.iter().map(|leg| leg.entry.clone()).collect();
    parts.push(newest.clone());
    let result = Description {
        kind: Kind::Full,
        base: Position::default(),
        first_time_us: newest.stream.last_time_us,
        ..newest.stream.clone()
    };
    let bytes = parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.bytes));
    Ok(Some(SquashPlan { parts, result, bytes }))
}

fn is_full(entry: &Entry) -> bool {
    entry.stream.kind == Kind::Full
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::{fork, full, increment, lineage, records};

    #[test]
    fn newest_increment_is_squashed_with_all_that_it_builds_on_and_nothing_else() {
        let main = lineage(0);
        let entries = [
            full(main, 5),
            full(main, 10),
            increment(main, 10, 20),
            increment(main, 10, 25),
            increment(main, 20, 30),
            records(main, 30, 40),
        ];
        let all: Vec<&Entry> = entries.iter().collect();
        let plan = squash_plan(&all, None).unwrap().unwrap();
        assert_eq!(plan.parts, [entries[1].clone(), entries[2].clone(), entries[4].clone()]);
        assert_eq!((plan.result.kind, plan.result.last), (Kind::Full, entries[4].stream.last));
        assert_eq!((plan.result.fault(), plan.bytes), (None, 1200));
        // The squashed stream takes the place of the increments for those that come after.
        let squashed = full(main, 30);
        let next = increment(main, 30, 50);
        let entries = [squashed, next];
        let all: Vec<&Entry> = entries.iter().collect();
        assert_eq!(squash_plan(&all, None).unwrap().unwrap().parts, entries);
    }

    #[test]
    fn nothing_is_squashed_where_the_newest_snapshot_is_full_or_its_base_is_missing() {
        let main = lineage(0);
        let plan = |entries: &[Entry]| {
            squash_plan(&entries.iter().collect::<Vec<_>>(), None).unwrap().map(|plan| plan.parts)
        };
        assert_eq!(plan(&[]), None);
        assert_eq!(plan(&[full(main, 10), increment(main, 10, 20), full(main, 20)]), None);
        assert_eq!(plan(&[full(main, 10), records(main, 10, 20), increment(main, 20, 30)]), None);
        let child = fork(main, 10);
        assert_eq!(plan(&[full(main, 10), increment(child, 10, 20)]), None);
    }
}
