//! Which streams a restore reads, in their order.

use treepie::{Lineage, ids::Lsn};

use super::{
    Kind, RepositoryError,
    chains::{Chains, Leg, Reach},
    entry::Entry,
};
use crate::store::Name;

/// What is to be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The newest state.
    #[default]
    Latest,
    /// The state after the record with this LSN.
    Lsn(Lsn),
    /// The state after the last commit at or before this time, in microseconds since 1970.
    Time(u64),
}

/// Which branch of the history is meant, where a database was restored and went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Its epoch.
    pub epoch: u64,
    /// Where it forked, if that is needed to tell it from another one.
    pub forked_at: Option<Lsn>,
}

/// How much of a stream is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// All of it.
    End,
    /// Records up to this LSN.
    Lsn(Lsn),
    /// Records up to the last one before the first that is later than `time_us`, and not beyond
    /// `lsn_max`.
    Time {
        /// Microseconds since 1970.
        time_us: u64,
        /// Where a child forked from this lineage, or the end of the stream.
        lsn_max: Lsn,
    },
}

/// One stream of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The stream.
    pub entry: Entry,
    /// The state that it is applied to; records up to there are skipped. None for a full stream.
    pub from: Option<Lsn>,
    /// How much of it is restored.
    pub until: Until,
    /// The chain hash that must be there afterwards, where it is known.
    pub chain: Option<u64>,
}

/// What a restore reads, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The branch that was planned for. Its first steps may be of the lineages that it forked from.
    pub lineage: Lineage,
    /// What was asked for.
    pub target: Target,
    /// The streams: a full one, increments, records.
    pub steps: Vec<Step>,
    /// Where it ends. With a time inside a stream, the lowest LSN that it can end at.
    pub lsn: Lsn,
    /// Bytes of all files that are read.
    pub bytes: u64,
    /// The time that was asked for is after everything that the repository holds; or it may be, where
    /// the last step is cut by a fork and nothing of the child is here.
    pub ends_before_target: bool,
}

/// Why a state cannot be restored, and which ones can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hole {
    /// The LSN that was asked for, if it was one.
    pub target_lsn: Option<Lsn>,
    /// The time that was asked for, if it was one.
    pub target_time_us: Option<u64>,
    /// First and last LSN that are missing; none if the repository ends before the target.
    pub missing: Option<(Lsn, Lsn)>,
    /// The next lower LSN that can be restored.
    pub below: Option<Lsn>,
    /// The next higher one.
    pub above: Option<Lsn>,
    /// Files that the manifest names and the store does not have.
    pub absent: Vec<Name>,
}

/// Chooses the branch: the one that was named, or the one with the newest stream.
pub(super) fn choose_branch(
    chains: &Chains<'_>,
    branch: Option<Branch>,
) -> Result<Option<usize>, RepositoryError> {
    let Some(wanted) = branch else {
        let newest = chains.lineages().max_by_key(|(lineage, us)| (*us, lineage.epoch));
        return Ok(newest.and_then(|(lineage, _)| chains.branch(&lineage)));
    };
    let is_wanted = |lineage: &Lineage| {
        lineage.epoch == wanted.epoch && wanted.forked_at.is_none_or(|at| at == lineage.forked_at)
    };
    let found: Vec<Lineage> =
        chains.lineages().map(|(lineage, _)| lineage).filter(is_wanted).collect();
    match found.as_slice() {
        [] => Err(RepositoryError::NoBranch { epoch: wanted.epoch }),
        [lineage] => Ok(chains.branch(lineage)),
        more => Err(RepositoryError::AmbiguousBranch { epoch: wanted.epoch, count: more.len() }),
    }
}

/// Plans a restore from these entries. `absent` are files that are missing, for the error.
pub(super) fn plan(
    entries: &[&Entry],
    target: Target,
    branch: Option<Branch>,
    place: &str,
    absent: Vec<Name>,
) -> Result<Plan, RepositoryError> {
    let chains = Chains::new(entries.iter().copied());
    let empty = || RepositoryError::Empty {
        place: place.to_owned(),
        newest: entries.iter().map(|entry| entry.stream.last.lsn).max(),
    };
    let branch = choose_branch(&chains, branch)?.ok_or_else(empty)?;
    let planner = Planner { chains: &chains, branch, target, absent };
    let reach = chains.search(branch, &[]);
    if reach.covered.is_empty() {
        return Err(empty());
    }
    match target {
        Target::Latest => planner.to_lsn(chains.newest_lsn(branch)),
        Target::Lsn(lsn) => planner.to_lsn(lsn),
        Target::Time(time_us) => planner.to_time(time_us, &reach),
    }
}

struct Planner<'s, 'a> {
    chains: &'s Chains<'a>,
    branch: usize,
    target: Target,
    absent: Vec<Name>,
}

impl<'a> Planner<'_, 'a> {
    fn to_lsn(&self, lsn: Lsn) -> Result<Plan, RepositoryError> {
        let reach = self.chains.search(self.branch, &[lsn]);
        match reach.way_to(self.branch, lsn) {
            Some(legs) => Ok(self.plan(&legs, lsn, &reach)),
            None => Err(self.hole(lsn, &reach)),
        }
    }

    fn plan(&self, legs: &[Leg<'a>], lsn: Lsn, reach: &Reach<'a>) -> Plan {
        let steps = legs.iter().map(|leg| {
            let last = leg.entry.stream.last;
            let branch = self.chains.branch(&leg.entry.stream.lineage);
            let is_whole = leg.until == last.lsn;
            let fork = reach.state_at(self.branch, leg.until);
            let known = branch.and_then(|branch| self.chains.chain((branch, leg.until)));
            Step {
                entry: leg.entry.clone(),
                from: leg.from,
                until: if is_whole { Until::End } else { Until::Lsn(leg.until) },
                chain: if is_whole {
                    Some(last.chain)
                } else {
                    known.or_else(|| fork.and_then(|state| self.chains.chain(state)))
                },
            }
        });
        let steps: Vec<Step> = steps.collect();
        Plan {
            lineage: self.chains.lineage(self.branch),
            target: self.target,
            lsn,
            bytes: steps.iter().fold(0, |sum: u64, step| sum.saturating_add(step.entry.bytes)),
            steps,
            ends_before_target: false,
        }
    }

    /// The last commit at or before a time. Where it is in the middle of a file of records, only the
    /// restore itself can tell which record it is.
    fn to_time(&self, time_us: u64, reach: &Reach<'a>) -> Result<Plan, RepositoryError> {
        let entries = self.chains.of_family(self.branch);
        let is_straddling = |entry: &Entry| {
            let stream = &entry.stream;
            stream.kind == Kind::Records
                && stream.first_time_us <= time_us
                && time_us < stream.last_time_us
        };
        // The highest LSN that is surely not later.
        let known = entries.iter().filter_map(|(entry, bound)| {
            let stream = &entry.stream;
            if stream.last_time_us <= time_us {
                Some(*bound)
            } else {
                is_straddling(entry).then(|| stream.base.lsn.next())
            }
        });
        let Some(known) = known.max() else {
            return Err(self.before_all(reach));
        };
        let straddling = entries.iter().find(|(entry, bound)| {
            is_straddling(entry) && entry.stream.base.lsn < known && known < *bound
        });
        let mut plan = self.to_lsn(known)?;
        if let Some((entry, bound)) = straddling {
            extend(&mut plan, entry, time_us, *bound);
            if *bound < entry.stream.last.lsn {
                // The time may be that of the child that forked here, whose records then matter.
                plan.ends_before_target = self.ends_at(&entries, *bound)?;
            }
            return Ok(plan);
        }
        plan.ends_before_target = self.ends_at(&entries, known)?;
        Ok(plan)
    }

    /// Whether nothing follows an LSN. If something does, it must follow at once.
    fn ends_at(&self, entries: &[(&Entry, Lsn)], lsn: Lsn) -> Result<bool, RepositoryError> {
        let following = entries.iter().filter(|(_, bound)| *bound > lsn);
        let begins = following.map(|(entry, _)| match entry.stream.kind {
            Kind::Records => entry.stream.base.lsn.next(),
            Kind::Full | Kind::Increment => entry.stream.last.lsn,
        });
        match begins.min() {
            None => Ok(true),
            // The next record is there, and is later.
            Some(next) if next <= lsn.next() => Ok(false),
            Some(next) => {
                let reach = self.chains.search(self.branch, &[lsn]);
                let mut hole = self.hole_at(lsn.next(), &reach);
                hole.missing = Some((lsn.next(), Lsn(next.0 - 1)));
                Err(RepositoryError::Hole(Box::new(hole)))
            }
        }
    }

    fn before_all(&self, reach: &Reach<'a>) -> RepositoryError {
        let first = reach.covered.iter().map(|(from, _)| *from).min();
        let below_first = first.map(|lsn| Lsn(lsn.0.saturating_sub(1)));
        let missing = below_first.filter(|lsn| lsn.0 > 0).map(|lsn| (Lsn(1), lsn));
        let hole = Hole { missing, above: first, ..self.hole_at(Lsn(0), reach) };
        RepositoryError::Hole(Box::new(hole))
    }

    fn hole(&self, lsn: Lsn, reach: &Reach<'a>) -> RepositoryError {
        RepositoryError::Hole(Box::new(self.hole_at(lsn, reach)))
    }

    /// What is missing around an LSN that cannot be restored.
    fn hole_at(&self, lsn: Lsn, reach: &Reach<'a>) -> Hole {
        let (below, above) = reach.nearest(lsn);
        let first = below.unwrap_or_default().next();
        let newest = self.chains.newest_lsn(self.branch);
        // What comes next is there, even if nothing leads to it.
        let entries = self.chains.of_family(self.branch);
        let follows = entries.iter().filter(|(_, bound)| *bound >= first);
        let next = follows.map(|(entry, _)| match entry.stream.kind {
            Kind::Records => entry.stream.base.lsn.next(),
            Kind::Full | Kind::Increment => entry.stream.last.lsn,
        });
        let next = next.filter(|next| *next > first).min();
        let last = above.into_iter().chain(next).min().map(|next| Lsn(next.0 - 1));
        let missing = last.filter(|_| lsn <= newest).map(|last| (first, last.max(first)));
        Hole {
            target_lsn: match self.target {
                Target::Lsn(lsn) => Some(lsn),
                Target::Latest => Some(newest),
                Target::Time(_) => None,
            },
            target_time_us: match self.target {
                Target::Time(time_us) => Some(time_us),
                Target::Latest | Target::Lsn(_) => None,
            },
            missing,
            below,
            above,
            absent: self.absent.clone(),
        }
    }
}

/// Lets a plan that reaches into a file of records go on in it until a time.
fn extend(plan: &mut Plan, entry: &Entry, time_us: u64, lsn_max: Lsn) {
    let until = Until::Time { time_us, lsn_max };
    if let Some(step) = plan.steps.last_mut()
        && step.entry.id == entry.id
    {
        step.until = until;
        step.chain = None;
        return;
    }
    let from = Some(plan.lsn);
    plan.bytes = plan.bytes.saturating_add(entry.bytes);
    plan.steps.push(Step { entry: entry.clone(), from, until, chain: None });
}
