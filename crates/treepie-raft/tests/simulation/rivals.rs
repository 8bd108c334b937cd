//! Two nodes that lead in turn, each without having heard the other: the schedules of figure 8 of the Raft
//! paper.
//!
//! A leader's own records reach one other node at most, those of earlier terms reach all but the rival; then
//! its time is over, and the rival is elected, or it again. Where a leader counts replicas of a record of an
//! earlier term, the rival, whose last term is higher, takes it away from a majority afterwards.

use treepie::ids::Term;
use treepie_raft::{
    ids::NodeId,
    message::{Message, MessageKind},
    replica::Role,
};
use treepie_testkit::Rng;

use crate::{
    store::Store,
    world::{Bug, World},
};

/// Leaders in turn, at most.
const ROUNDS: u64 = 10;
/// How long an election may take.
const ELECTION_US: u64 = 4_000_000;
/// Time to come to rest.
const CALM_US: u64 = 20_000_000;

/// Who may be elected, and what the others get of its log.
#[derive(Clone, Copy, Debug)]
pub struct Rivals {
    candidate: NodeId,
    rival: NodeId,
    /// The one that gets the records of the candidate's own term.
    confidant: Option<NodeId>,
}

impl Rivals {
    /// Whether the network loses a message.
    pub fn lose(&self, message: &Message) -> bool {
        let is_own = |term: Term| term == message.term;
        match message.kind {
            MessageKind::Vote | MessageKind::PreVote => message.from != self.candidate,
            _ if message.from == self.candidate && message.to == self.rival => true,
            MessageKind::Append => {
                let has_own = message.entries.iter().any(|entry| is_own(entry.term));
                has_own && Some(message.to) != self.confidant
            }
            _ => false,
        }
    }
}

/// Runs the schedule of a seed: what came of it, or what is wrong.
pub fn run<S: Store>(seed: u64, bug: Option<Bug>) -> Result<World<S>, String> {
    let mut rng = Rng::new(treepie_testkit::mix(seed, 8));
    let mut world = World::<S>::new(seed, 5, bug);
    world.is_calm = true;
    let first = 1 + rng.below(5);
    let mut candidate = NodeId(first);
    let mut rival = NodeId(1 + (first + rng.below(4)) % 5);
    for _ in 0..3 + rng.below(ROUNDS - 3) {
        let others: Vec<NodeId> =
            (1..=5).map(NodeId).filter(|id| *id != candidate && *id != rival).collect();
        let confidant = rng.chance(2, 3).then(|| *rng.pick(&others));
        world.rivals = Some(Rivals { candidate, rival, confidant });
        let end = world.at + ELECTION_US;
        while world.at < end && !leads(&world, candidate) && world.check.wrong.is_none() {
            world.run(20_000);
        }
        world.run(200_000 + rng.below(400_000));
        if rng.chance(1, 2) {
            world.crash(candidate);
        }
        if rng.chance(3, 4) {
            (candidate, rival) = (rival, candidate);
        }
    }
    world.rivals = None;
    world.calm();
    world.run(CALM_US);
    match world.check.wrong.take() {
        Some(wrong) => Err(format!("{wrong}, after {} us", world.at)),
        None => crate::runs::converged(&world).map(|()| world),
    }
}

fn leads<S: Store>(world: &World<S>, id: NodeId) -> bool {
    let replica = world.nodes.get(&id).and_then(|node| node.replica.as_ref());
    replica.is_some_and(|replica| replica.status().role == Role::Leader)
}
