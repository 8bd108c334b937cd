//! Members that are elsewhere than the members say. Each has said so itself, where it has dialled; whoever
//! leads has it written down, so that nodes that start later, and clients, are sent to the new place.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::{
    ids::NodeId,
    members::{Change, Members, Place},
};

/// Where members have said that they are. At most one place a member.
#[derive(Debug, Default)]
pub(super) struct Moves(Mutex<BTreeMap<NodeId, Place>>);

impl Moves {
    /// A member, or a node that will be one, has said where it is.
    pub(super) fn note(&self, id: NodeId, place: Place) {
        self.0.lock().insert(id, place);
    }

    /// What was said of this member is older than what is written down now, or cannot be.
    pub(super) fn forget(&self, id: NodeId) {
        self.0.lock().remove(&id);
    }

    /// A change that is to be made, if there is one.
    pub(super) fn next(&self, members: &Members) -> Option<(NodeId, Change)> {
        let mut said = self.0.lock();
        said.retain(|id, place| {
            let Some(member) = members.get(*id) else { return false };
            if place.label.is_empty() {
                place.label.clone_from(&member.place.label);
            }
            *place != member.place
        });
        let (id, place) = said.first_key_value()?;
        Some((*id, Change::Move { id: *id, place: place.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: &str, label: &str) -> Place {
        Place { address: address.to_owned(), label: label.to_owned() }
    }

    #[test]
    fn member_that_is_elsewhere_is_moved_and_keeps_a_label_that_it_does_not_name() {
        let members = Members::found(NodeId(1), place("a:1", "clients:1")).expect("it fits");
        let moves = Moves::default();
        moves.note(NodeId(1), place("a:1", ""));
        moves.note(NodeId(2), place("b:1", ""));
        assert_eq!(moves.next(&members), None, "one is there, the other is no member");
        moves.note(NodeId(1), place("b:1", ""));
        let moved = Change::Move { id: NodeId(1), place: place("b:1", "clients:1") };
        assert_eq!(moves.next(&members), Some((NodeId(1), moved.clone())));
        let members = members.after(&moved).expect("a member");
        assert_eq!(moves.next(&members), None);
        moves.note(NodeId(1), place("b:1", "clients:2"));
        assert!(moves.next(&members).is_some());
        moves.forget(NodeId(1));
        assert_eq!(moves.next(&members), None);
    }
}
