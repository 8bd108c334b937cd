//! What goes wrong, and what operators do meanwhile.

use treepie_raft::{ids::NodeId, members::Change, replica::Replica};

use crate::{
    store::Store,
    world::{Bug, World, place},
};

/// Nodes that there may be, removed ones included.
const NODES_MAX: u64 = 9;

impl<S: Store> World<S> {
    /// One of the things that happen.
    pub fn fault(&mut self) {
        if self.is_calm {
            return;
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let id = *self.rng.pick(&ids);
        match self.rng.below(10) {
            0 | 1 if self.weather.crashes => self.crash(id),
            // The leader, which has most to lose.
            2 if self.weather.crashes => {
                let leader = self.nodes.values().find(|node| node.log.leads()).map(|node| node.id);
                self.crash(leader.unwrap_or(id));
            }
            3 | 4 if self.weather.cuts => self.cut_soon(),
            5 => {
                let until = self.at + *self.rng.pick(&[20_000, 300_000, 1_200_000]);
                self.nodes.get_mut(&id).expect("a node").paused_until = until;
            }
            6 => {
                let until = self.at + *self.rng.pick(&[100_000, 1_000_000]);
                self.nodes.get_mut(&id).expect("a node").slow_until = until;
            }
            7 => self.transfer(id),
            8 => self.change_members(),
            _ => {
                let node = self.nodes.get_mut(&id).expect("a node");
                if let Err(wrong) = node.log.trim(&mut self.rng) {
                    return self.check.fail(format!("node {id}: {wrong}"));
                }
                if self.bug == Some(Bug::InstalledOverNewer) {
                    self.plant_install(id);
                }
            }
        }
        self.fault_again();
    }

    /// A node that takes writes.
    pub fn leader(&mut self) -> Option<&mut Replica<S>> {
        let nodes = self.nodes.values_mut();
        nodes.filter_map(|node| node.replica.as_mut()).find(|replica| replica.status().is_open)
    }

    fn transfer(&mut self, to: NodeId) {
        if let Some(replica) = self.leader()
            && replica.transfer(to).is_ok()
        {
            self.counts.transfers += 1;
        }
    }

    fn change_members(&mut self) {
        let (draw, count) = (self.rng.next_u64(), self.nodes.len() as u64);
        let Some(replica) = self.leader() else { return };
        let members = replica.status().members;
        let (voters, learners): (Vec<_>, Vec<_>) =
            (members.voters().collect(), members.learners().collect());
        let pick = |ids: &[NodeId]| ids[usize::try_from(draw).unwrap_or(0) % ids.len()];
        let next = NodeId(count + 1);
        let change = match draw >> 61 {
            0 | 1 if count < NODES_MAX => Change::AddLearner { id: next, place: place(next) },
            2 | 3 if !learners.is_empty() => Change::Promote(pick(&learners)),
            4 if voters.len() > 2 => Change::Remove(pick(&voters)),
            5 if !learners.is_empty() => Change::Remove(pick(&learners)),
            6 => Change::Move { id: pick(&voters), place: place(next) },
            _ if !learners.is_empty() => {
                Change::Replace { old: pick(&voters), new: pick(&learners) }
            }
            _ => return,
        };
        if replica.change(draw, &change).is_ok()
            && let Change::AddLearner { id, .. } = change
        {
            self.add_node(id);
        }
    }
}
