//! What a repository keeps. A pure function of its entries, a policy and a time.
//!
//! Rules name *snapshots* (full streams and increments) and *records*:
//!
//! - the newest snapshot of each of the last so many hours, days, weeks and months that have one;
//! - the last so many; all that are younger than an age; and always the newest state;
//! - every point in time that is younger than an age, as far as it can be restored now.
//!
//! A state counts once, however many snapshots have it: a full stream that was made of an increment and
//! what it builds on takes its place, and nightly ones of a database that nobody writes to take no place
//! but one.
//!
//! What is kept keeps what it builds on: the cheapest way to each kept snapshot, and to where each run of
//! kept records begins. What cannot be restored is not counted by any rule, so that it never takes
//! the place of something that can. It is not removed either: whoever finds the missing file may
//! put it back.

use std::collections::{BTreeMap, BTreeSet, HashMap, hash_map};

use treepie::ids::Lsn;

use super::{
    Kind, RepositoryError,
    chains::{Chains, Reach},
    entry::Entry,
    plan::choose_branch,
};
use crate::calendar;

/// What to keep. Rules add up: a snapshot that one of them names is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The last so many snapshots of different states.
    pub last: usize,
    /// The newest snapshot of each of so many hours that have one.
    pub hourly: usize,
    /// The same by days, in UTC.
    pub daily: usize,
    /// The same by weeks, from Monday.
    pub weekly: usize,
    /// The same by months.
    pub monthly: usize,
    /// All snapshots of so many microseconds up to now.
    pub within_us: Option<u64>,
    /// Every point of so many microseconds up to now. None keeps all records that lead on from a kept
    /// snapshot.
    pub records_for_us: Option<u64>,
}

/// Why something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Keep {
    /// One of the last snapshots.
    Last,
    /// The newest of an hour.
    Hourly,
    /// The newest of a day.
    Daily,
    /// The newest of a week.
    Weekly,
    /// The newest of a month.
    Monthly,
    /// Young enough.
    Within,
    /// The newest state can be restored by it.
    Newest,
    /// Records of points in time that are promised, or that lead on from a kept snapshot.
    Records,
    /// Something that is kept builds on it.
    Needed,
    /// It cannot be restored, because something is missing. It is left for whoever finds that.
    Broken,
}

impl Keep {
    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Keep::Last => "last",
            Keep::Hourly => "hourly",
            Keep::Daily => "daily",
            Keep::Weekly => "weekly",
            Keep::Monthly => "monthly",
            Keep::Within => "young",
            Keep::Newest => "newest state",
            Keep::Records => "points in time",
            Keep::Needed => "needed by another",
            Keep::Broken => "broken",
        }
    }
}

/// What a policy keeps, by id, and why. What is not in it goes.
pub type Kept = BTreeMap<String, BTreeSet<Keep>>;

impl Retention {
    /// Whether there is any rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly];
        counts == [0; 5] && self.within_us.is_none() && self.records_for_us.is_none()
    }

    /// What is kept of these entries at this time.
    ///
    /// # Errors
    /// [`RepositoryError::EmptyPolicy`].
    pub fn apply(&self, entries: &[&Entry], now_us: u64) -> Result<Kept, RepositoryError> {
        if self.is_empty() {
            return Err(RepositoryError::EmptyPolicy);
        }
        let chains = Chains::new(entries.iter().copied());
        let mut keeper = Keeper { entries, chains: &chains, kept: Kept::new() };
        keeper.newest()?;
        keeper.snapshots(self, now_us);
        let oldest = keeper.oldest_kept_us();
        match self.records_for_us.map(|age| now_us.saturating_sub(age)) {
            Some(since_us) => {
                keeper.window(since_us);
                keeper.broken(since_us);
            }
            None => {
                keeper.leading_on();
                keeper.broken(oldest);
            }
        }
        Ok(keeper.kept)
    }
}

/// The number of an hour, day, week or month.
type Period = fn(u64) -> u64;

struct Keeper<'s, 'a> {
    entries: &'s [&'a Entry],
    chains: &'s Chains<'a>,
    kept: Kept,
}

impl<'a> Keeper<'_, 'a> {
    fn keep(&mut self, entry: &Entry, why: Keep) {
        self.kept.entry(entry.id.clone()).or_default().insert(why);
    }

    /// Keeps the way to a state; whether there is one.
    fn keep_way(&mut self, reach: &Reach<'a>, branch: usize, lsn: Lsn, why: Keep) -> bool {
        let Some(legs) = reach.way_to(branch, lsn) else { return false };
        let last = legs.len().saturating_sub(1);
        for (index, leg) in legs.iter().enumerate() {
            self.keep(leg.entry, if index == last { why } else { Keep::Needed });
        }
        true
    }

    /// The newest state of the branch that was written to last.
    fn newest(&mut self) -> Result<(), RepositoryError> {
        let Some(branch) = choose_branch(self.chains, None)? else { return Ok(()) };
        let newest = self.chains.newest_lsn(branch);
        let reach = self.chains.search(branch, &[]);
        // Where it cannot be restored, the nearest state below.
        let highest = reach.nearest(newest).0.unwrap_or_default();
        self.keep_way(&reach, branch, highest, Keep::Newest);
        Ok(())
    }

    /// Snapshots that can be restored, the newest first.
    fn restorable(&self) -> Vec<&'a Entry> {
        let mut reaches = BTreeMap::new();
        let snapshots = self.entries.iter().copied().filter(|entry| entry.is_snapshot());
        let mut restorable: Vec<&Entry> = snapshots
            .filter(|entry| {
                let branch = self.chains.branch(&entry.stream.lineage).expect("it is in there");
                let reach =
                    reaches.entry(branch).or_insert_with(|| self.chains.search(branch, &[]));
                reach.has_base_of(branch, entry)
            })
            .collect();
        restorable.sort_by_key(|entry| {
            (entry.stream.last_time_us, entry.stream.created_us, entry.id.as_str())
        });
        restorable.reverse();
        restorable
    }

    /// Of those, one for each state, in the order of the newest ones: a full stream if there is one.
    fn one_for_each_state(&self) -> Vec<&'a Entry> {
        let mut places = HashMap::new();
        let mut chosen: Vec<&Entry> = Vec::new();
        for entry in self.restorable() {
            let stream = &entry.stream;
            let (lineage, last) = (&stream.lineage, stream.last);
            let branch = self.chains.branch(lineage).expect("it is in there");
            match places.entry((branch, last.lsn, last.chain)) {
                hash_map::Entry::Vacant(place) => {
                    place.insert(chosen.len());
                    chosen.push(entry);
                }
                hash_map::Entry::Occupied(place) => {
                    let before = &mut chosen[*place.get()];
                    // Of several, the one that a restore would read: it is kept for the newest state.
                    let rank = |entry: &Entry| (entry.stream.kind != Kind::Full, entry.bytes);
                    if rank(entry) <= rank(before) {
                        *before = entry;
                    }
                }
            }
        }
        chosen
    }

    fn snapshots(&mut self, policy: &Retention, now_us: u64) {
        let restorable = self.one_for_each_state();
        let time = |entry: &Entry| entry.stream.last_time_us;
        let mut chosen: Vec<(&Entry, Keep)> = Vec::new();
        chosen.extend(restorable.iter().take(policy.last).map(|entry| (*entry, Keep::Last)));
        let periods: [(usize, Period, Keep); 4] = [
            (policy.hourly, calendar::hour, Keep::Hourly),
            (policy.daily, calendar::day, Keep::Daily),
            (policy.weekly, calendar::week, Keep::Weekly),
            (policy.monthly, calendar::month, Keep::Monthly),
        ];
        for (count, period, why) in periods {
            let mut seen = BTreeSet::new();
            let first_of = |entry: &&&Entry| seen.len() < count && seen.insert(period(time(entry)));
            chosen.extend(restorable.iter().filter(first_of).map(|entry| (*entry, why)));
        }
        if let Some(age) = policy.within_us {
            let since = now_us.saturating_sub(age);
            let young = restorable.iter().filter(|entry| time(entry) >= since);
            chosen.extend(young.map(|entry| (*entry, Keep::Within)));
        }
        let mut reaches = BTreeMap::new();
        for (entry, why) in chosen {
            self.keep(entry, why);
            if entry.stream.kind == Kind::Increment {
                let branch = self.chains.branch(&entry.stream.lineage).expect("it is in there");
                let reach =
                    reaches.entry(branch).or_insert_with(|| self.chains.search(branch, &[]));
                self.keep_way(reach, branch, entry.stream.base.lsn, Keep::Needed);
            }
        }
    }

    /// Files of records by branch and by where they begin.
    fn records(&self) -> BTreeMap<usize, Vec<&'a Entry>> {
        let mut records: BTreeMap<usize, Vec<&Entry>> = BTreeMap::new();
        for &entry in self.entries.iter().filter(|entry| !entry.is_snapshot()) {
            let branch = self.chains.branch(&entry.stream.lineage).expect("it is in there");
            records.entry(branch).or_default().push(entry);
        }
        for files in records.values_mut() {
            files.sort_by_key(|entry| (entry.stream.base.lsn, entry.stream.last.lsn));
        }
        records
    }

    /// Every point from `since_us` on that can be restored now: the files of records with such points,
    /// and a way to the first point of each run of them.
    fn window(&mut self, since_us: u64) {
        for (branch, mut files) in self.records() {
            files.retain(|entry| entry.stream.last_time_us >= since_us);
            // A run begins with its first record; a way may also join in later, at a snapshot.
            let mut stops: Vec<Lsn> =
                files.iter().map(|entry| entry.stream.base.lsn.next()).collect();
            stops.dedup();
            let reach = self.chains.search(branch, &stops);
            let mut reached = Lsn(0);
            for entry in files {
                let (base, last) = (entry.stream.base.lsn, entry.stream.last.lsn);
                // What ended at or behind where this one begins was kept, with the way to it.
                let goes_on = reached > Lsn(0) && reached >= base;
                let joins = goes_on || self.keep_way(&reach, branch, base.next(), Keep::Needed);
                let joins = joins || self.join_later(&reach, branch, entry);
                if joins {
                    self.keep(entry, Keep::Records);
                    reached = reached.max(last);
                }
            }
        }
    }

    /// Keeps the first state inside a file of records that a snapshot leads to.
    fn join_later(&mut self, reach: &Reach<'a>, branch: usize, entry: &Entry) -> bool {
        let (base, last) = (entry.stream.base.lsn, entry.stream.last.lsn);
        let Some(lsn) = reach.first_state(branch, base.next(), last) else { return false };
        self.keep_way(reach, branch, lsn, Keep::Needed)
    }

    /// All records that lead on from what is kept.
    fn leading_on(&mut self) {
        let kept = |entry: &&&Entry| !entry.is_snapshot() || self.kept.contains_key(&entry.id);
        let remaining: Vec<&Entry> = self.entries.iter().filter(kept).copied().collect();
        let chains = Chains::new(remaining.iter().copied());
        let mut leading: Vec<&Entry> = Vec::new();
        for (lineage, _) in chains.lineages() {
            let branch = chains.branch(&lineage).expect("it was listed");
            let reach = chains.search(branch, &[]);
            let own = remaining.iter().copied().filter(|entry| {
                let is_records = !entry.is_snapshot() && entry.stream.lineage == lineage;
                let (base, last) = (entry.stream.base.lsn, entry.stream.last.lsn);
                is_records && reach.first_state(branch, base, Lsn(last.0 - 1)).is_some()
            });
            leading.extend(own);
        }
        for entry in leading {
            self.keep(entry, Keep::Records);
        }
    }

    /// The time of the oldest snapshot that is kept.
    fn oldest_kept_us(&self) -> u64 {
        let kept = self.entries.iter().filter(|entry| self.kept.contains_key(&entry.id));
        kept.map(|entry| entry.stream.last_time_us).min().unwrap_or_default()
    }

    /// What cannot be restored even with all that is there: snapshots, and records of `since_us` and
    /// later. Older records are of no use to anybody.
    fn broken(&mut self, since_us: u64) {
        let restorable: BTreeSet<&str> =
            self.restorable().iter().map(|entry| entry.id.as_str()).collect();
        let mut reaches = BTreeMap::new();
        let mut broken: Vec<&Entry> = Vec::new();
        for &entry in self.entries {
            let (base, last) = (entry.stream.base.lsn, entry.stream.last.lsn);
            let is_broken = if entry.is_snapshot() {
                !restorable.contains(entry.id.as_str())
            } else if entry.stream.last_time_us < since_us {
                false
            } else {
                let branch = self.chains.branch(&entry.stream.lineage).expect("it is in there");
                let reach =
                    reaches.entry(branch).or_insert_with(|| self.chains.search(branch, &[]));
                reach.first_state(branch, base, Lsn(last.0 - 1)).is_none()
            };
            if is_broken {
                broken.push(entry);
            }
        }
        for entry in broken {
            self.keep(entry, Keep::Broken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::{entry, full, increment, lineage, time};

    fn last(count: usize) -> Retention {
        Retention { last: count, ..Retention::default() }
    }

    fn kept(policy: &Retention, entries: &[Entry]) -> Vec<(Kind, u64, u64)> {
        let all: Vec<&Entry> = entries.iter().collect();
        let kept = policy.apply(&all, time(1000)).expect("it has a rule");
        let left = entries.iter().filter(|entry| kept.contains_key(&entry.id));
        left.map(|e| (e.stream.kind, e.stream.last.lsn.0, e.bytes)).collect()
    }

    #[test]
    fn squashed_full_takes_the_place_of_the_increment_that_it_was_made_of() {
        let main = lineage(0);
        let chain = [full(main, 10), increment(main, 10, 20), increment(main, 20, 30)];
        let squashed = entry(Kind::Full, main, 0, 30, 1050);
        let squashed_at = (Kind::Full, 30, 1050);
        let mut entries = chain.to_vec();
        entries.push(squashed);
        assert_eq!(kept(&last(1), &entries), [squashed_at]);
        let two = kept(&last(2), &entries);
        assert_eq!(two, [(Kind::Full, 10, 1000), (Kind::Increment, 20, 100), squashed_at]);
        let young = Retention { within_us: Some(time(1000)), ..Retention::default() };
        assert_eq!(kept(&young, &entries), two, "the last increment has no state of its own");
    }

    #[test]
    fn copies_of_one_state_leave_the_older_states_their_places() {
        let main = lineage(0);
        let mut entries = vec![full(main, 10), full(main, 20)];
        entries.extend((0..5).map(|night| entry(Kind::Full, main, 0, 30, 1000 + night)));
        let at = |lsn| (Kind::Full, lsn, 1000);
        assert_eq!(kept(&last(3), &entries), [at(10), at(20), at(30)]);
        assert_eq!(kept(&last(2), &entries), [at(20), at(30)]);
    }

    #[test]
    fn states_of_different_histories_at_one_lsn_count_each() {
        let (main, mut other) = (lineage(0), full(lineage(0), 30));
        // A volume that was rolled back has the same lineage and another history.
        other.stream.last.chain ^= 1;
        other.id = "other".to_owned();
        let entries = [full(main, 20), full(main, 30), other];
        assert_eq!(kept(&last(2), &entries).len(), 2);
        assert!(kept(&last(2), &entries).iter().all(|(_, lsn, _)| *lsn == 30));
    }
}
