//! Changes of members: one at a time, checked before they are sealed.

use std::collections::BTreeMap;

use treepie::ids::{Lsn, Term};

use crate::{
    consensus::{Role, step},
    ids::NodeId,
    log::Log,
    members::{Change, ChangeError, Members},
};

use super::{
    Replica,
    effect::{Effect, Stopped},
};

/// A learner may lack that many records and get a vote.
const BEHIND_MAX: u64 = 1_024;

/// A change that is going on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Who asked for it; nobody for what a replica does by itself.
    id: Option<u64>,
    /// A record of it is being sealed, or is not committed.
    is_sealed: bool,
}

/// The members of a log that has none that are known to be committed: where this node has founded a cluster
/// and ended at once, those that it wrote down then. It needs nobody else to commit them.
pub(super) fn founded(coming: &BTreeMap<Lsn, Members>, id: NodeId) -> Members {
    let first = coming.first_key_value().map(|(_, members)| members.clone());
    let is_alone = |members: &Members| members.iter().map(|(other, _)| other).eq([id]);
    first.filter(is_alone).unwrap_or_default()
}

impl<L: Log> Replica<L> {
    /// Changes the members. An [`Effect::Changed`] with this `id` says when it is complete.
    ///
    /// # Errors
    /// [`ChangeError`] when this is not possible, or not now.
    pub fn change(&mut self, id: u64, change: &Change) -> Result<(), ChangeError> {
        if self.open.is_none() || self.stopped.is_some() || self.has_lost_its_place() {
            return Err(ChangeError::NotLeader { leader: self.core.leader() });
        }
        if self.wanted.is_some() || !self.coming.is_empty() || self.core.has_pending_change() {
            return Err(ChangeError::Pending);
        }
        if !self.is_founded || self.core.transfers_to().is_some() || *change == Change::Complete {
            return Err(ChangeError::Pending);
        }
        let next = self.members.after(change)?;
        if let Change::Promote(learner) | Change::Replace { new: learner, .. } = change {
            self.check_caught_up(*learner)?;
        }
        self.wanted = Some(Wanted { id: Some(id), is_sealed: true });
        self.seal_members(&next);
        Ok(())
    }

    /// The change that [`Effect::SetMembers`] asked for in this term could not be sealed. One of another
    /// term was given up when that ended.
    pub fn members_refused(&mut self, term: Term) {
        if self.open == Some(term) {
            self.give_up_change();
        }
    }

    fn check_caught_up(&self, learner: NodeId) -> Result<(), ChangeError> {
        let last = self.core.last().0;
        let progress = self.core.progress(learner);
        let behind = last - progress.map_or(0, |progress| progress.matched.0.min(last));
        match progress.is_some_and(|p| p.is_active) && behind <= BEHIND_MAX {
            true => Ok(()),
            false => Err(ChangeError::Behind { id: learner, behind }),
        }
    }

    fn seal_members(&mut self, next: &Members) {
        // The record says by itself what it makes of the cluster.
        let (members, change) = (next.encode(), next.encode());
        let term = self.core.term();
        self.effects.push(Effect::SetMembers { term, members, change });
    }

    /// What a leader does by itself: it writes the first members down, and completes what is half done.
    pub(super) fn drive_members(&mut self) {
        let is_free = self.wanted.is_none_or(|wanted| !wanted.is_sealed);
        if self.open.is_none() || !is_free || !self.coming.is_empty() {
            return;
        }
        if self.core.has_pending_change() || self.core.transfers_to().is_some() {
            return;
        }
        let next = match (self.is_founded, self.members.is_joint()) {
            (false, _) => self.members.clone(),
            (true, true) => match self.members.after(&Change::Complete) {
                Ok(next) => next,
                Err(_) => return,
            },
            (true, false) => return,
        };
        let id = self.wanted.and_then(|wanted| wanted.id);
        self.wanted = Some(Wanted { id, is_sealed: true });
        self.seal_members(&next);
    }

    /// A membership record is committed and durable here.
    pub(super) fn apply_members(&mut self, lsn: Lsn) -> Result<(), Stopped> {
        let later = self.coming.split_off(&lsn.next());
        let coming = std::mem::replace(&mut self.coming, later);
        let Some(next) = coming.get(&lsn) else {
            return Err(super::damaged(lsn));
        };
        let change = step(&self.members, next).map_err(super::broken)?;
        self.core.apply(&change)?;
        self.members = next.clone();
        self.is_founded = true;
        self.reads.end_lease();
        self.effects.push(Effect::Members(self.members.clone()));
        self.finish_change(lsn);
        let is_gone = self.members.get(self.options.id).is_none();
        if is_gone && self.core.role() == Role::Leader {
            // The core would lead on, and take nothing.
            self.core.step_down()?;
        }
        Ok(())
    }

    fn finish_change(&mut self, lsn: Lsn) {
        let Some(wanted) = self.wanted.as_mut() else { return };
        wanted.is_sealed = false;
        if self.members.is_joint() {
            return;
        }
        if let Some(id) = self.wanted.take().and_then(|wanted| wanted.id) {
            self.effects.push(Effect::Changed { id, outcome: Ok(lsn) });
        }
    }

    pub(super) fn give_up_change(&mut self) {
        if let Some(id) = self.wanted.take().and_then(|wanted| wanted.id) {
            let leader = self.core.leader();
            let outcome = Err(ChangeError::NotLeader { leader });
            self.effects.push(Effect::Changed { id, outcome });
        }
    }

    /// Whether the log says who belongs to the cluster.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.is_founded
    }

    /// The term in which it takes writes, if it does.
    #[must_use]
    pub fn open_term(&self) -> Option<Term> {
        self.open.filter(|_| !self.has_lost_its_place())
    }
}
