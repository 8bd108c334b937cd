//! Changes of members in the words of the core. Its bytes are made here, on each node, from our own
//! encoding; none of them travels.

use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

use crate::{
    ids::NodeId,
    members::{ChangeError, Members},
};

/// What the core has to do for a step from some members to others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Nothing: an address has changed, or the first members are written down.
    Nothing,
    /// This.
    Conf(ConfChangeV2),
}

/// The core's words for members.
pub(crate) fn conf_state(members: &Members) -> ConfState {
    let mut state = ConfState::default();
    state.set_voters(members.voters().map(|id| id.0).collect());
    state.set_voters_outgoing(members.outgoing().map(|id| id.0).collect());
    state.set_learners(members.learners().map(|id| id.0).collect());
    state
}

/// The step from one set of members to the next.
///
/// # Errors
/// [`ChangeError::NotAStep`] when they do not follow from each other.
pub(crate) fn step(from: &Members, to: &Members) -> Result<Step, ChangeError> {
    let voters = Difference::of(from.voters(), to.voters());
    let learners = Difference::of(from.learners(), to.learners());
    let add = |ids: &[NodeId]| singles(ids, ConfChangeType::AddNode);
    let learn = |ids: &[NodeId]| singles(ids, ConfChangeType::AddLearnerNode);
    let remove = |ids: &[NodeId]| singles(ids, ConfChangeType::RemoveNode);
    let changes = match (from.is_joint(), to.is_joint()) {
        // The second step: no voter and no learner changes, the old voters are left behind.
        (true, false) if voters.is_none() && learners.is_none() => {
            return Ok(Step::Conf(ConfChangeV2::default()));
        }
        // The first step: who becomes a voter was a learner.
        (false, true)
            if from.voters().eq(to.outgoing())
                && learners.added.is_empty()
                && learners.removed == voters.added =>
        {
            let mut change = ConfChangeV2::default();
            change.set_transition(ConfChangeTransition::Explicit);
            change.set_changes([add(&voters.added), remove(&voters.removed)].concat().into());
            return Ok(Step::Conf(change));
        }
        (false, false) if voters.is_none() => {
            [learn(&learners.added), remove(&learners.removed)].concat()
        }
        // A node that has not joined yet reads of the founder.
        (false, false) if from.is_empty() => [add(&voters.added), learn(&learners.added)].concat(),
        _ => return Err(ChangeError::NotAStep),
    };
    match changes.len() {
        0 => Ok(Step::Nothing),
        1 => {
            let mut change = ConfChangeV2::default();
            change.set_changes(changes.into());
            Ok(Step::Conf(change))
        }
        _ => Err(ChangeError::NotAStep),
    }
}

struct Difference {
    added: Vec<NodeId>,
    removed: Vec<NodeId>,
}

impl Difference {
    fn of(from: impl Iterator<Item = NodeId>, to: impl Iterator<Item = NodeId>) -> Difference {
        let (from, to): (Vec<_>, Vec<_>) = (from.collect(), to.collect());
        Difference {
            added: to.iter().filter(|id| !from.contains(id)).copied().collect(),
            removed: from.iter().filter(|id| !to.contains(id)).copied().collect(),
        }
    }

    fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

fn singles(ids: &[NodeId], kind: ConfChangeType) -> Vec<ConfChangeSingle> {
    let single = |id: &NodeId| {
        let mut single = ConfChangeSingle { node_id: id.0, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        single
    };
    ids.iter().map(single).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members::{Change, Place};

    fn place() -> Place {
        Place { address: "host:1".to_owned(), label: String::new() }
    }

    #[test]
    fn voters_change_by_explicit_joint_steps_and_learners_by_simple_ones() {
        let one = Members::found(NodeId(1), place()).expect("fits");
        let two = one.after(&Change::AddLearner { id: NodeId(2), place: place() }).expect("new");
        let Ok(Step::Conf(add)) = step(&one, &two) else { panic!("a learner is added") };
        assert_eq!(add.enter_joint(), None);
        let joint = two.after(&Change::Promote(NodeId(2))).expect("a learner");
        let Ok(Step::Conf(enter)) = step(&two, &joint) else { panic!("a voter is added") };
        assert_eq!(enter.enter_joint(), Some(false), "explicit: the core must not leave by itself");
        let done = joint.after(&Change::Complete).expect("half done");
        let Ok(Step::Conf(leave)) = step(&joint, &done) else { panic!("it is completed") };
        assert!(leave.leave_joint());
        let moved = done.after(&Change::Move { id: NodeId(2), place: place() }).expect("a member");
        assert_eq!(step(&done, &moved), Ok(Step::Nothing));
    }

    #[test]
    fn members_that_do_not_follow_in_one_step_are_refused() {
        let one = Members::found(NodeId(1), place()).expect("fits");
        let two = one.after(&Change::AddLearner { id: NodeId(2), place: place() }).expect("new");
        let three = two.after(&Change::AddLearner { id: NodeId(3), place: place() }).expect("new");
        let joint = two.after(&Change::Promote(NodeId(2))).expect("a learner");
        let done = joint.after(&Change::Complete).expect("half done");
        for (from, to) in [(&one, &three), (&one, &joint), (&two, &done), (&joint, &two)] {
            assert_eq!(step(from, to), Err(ChangeError::NotAStep));
        }
    }
}
