//! A node of a cluster as a [`Store`].

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use treepie::{Error, Snapshot, ids::Lsn};

use super::{
    apply,
    message::{Admin, Consistency, Member, PeerState, PeerStatus, Role, Status, Welcome, Write},
    refusal::{Leader, Refusal},
    requests::Sweep,
    settle::settle,
    standalone::written,
    store::{Done, Store, Written},
};
use crate::{
    ids::NodeId,
    members::{Change, ChangeError, Place, Standing},
    node::{Node, NodeError, NodeStatus},
    replica::{self, ReadError},
};

/// How long a read waits for a quorum, or for this node to get somewhere.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// A node of a cluster. Where clients find a member is its label.
pub struct Replicated {
    node: Arc<Node>,
    sweep: Arc<Sweep>,
    started: Instant,
}

impl Replicated {
    /// Serves what a node has.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Replicated {
        Replicated { node, sweep: Arc::default(), started: Instant::now() }
    }

    fn leader(&self, leader: Option<NodeId>) -> Refusal {
        leader_of(&Arc::downgrade(&self.node), leader)
    }

    /// Where another node may be asked, that is said.
    fn refusal(&self, error: Error) -> Refusal {
        match error {
            Error::NotLeader { leader } => self.leader(leader.map(NodeId)),
            error => error.into(),
        }
    }
}

impl Store for Replicated {
    fn welcome(&self) -> Welcome {
        Welcome { node: self.node.id(), cluster: self.node.cluster(), in_flight_max: 0 }
    }

    fn write(&self, write: Write, done: Done<Written>) {
        let database = match self.node.database() {
            Ok(database) => database,
            Err(error) => return done(Err(node_refusal(&error))),
        };
        let sweep = Arc::clone(&self.sweep);
        // What waits for a node does not keep it.
        let node = Arc::downgrade(&self.node);
        match database.submit(move |txn| apply::change(txn, &write, &sweep)) {
            Ok(submitted) => settle(submitted, move |result| match result {
                // Asking who leads takes a lock that nobody holds for long.
                Err(Error::NotLeader { leader }) => done(Err(leader_of(&node, leader.map(NodeId)))),
                result => done(written(result)),
            }),
            Err(error) => done(Err(self.refusal(error))),
        }
    }

    fn read(&self, consistency: Consistency, done: Done<Snapshot>) {
        if let Err(error) = self.node.database() {
            return done(Err(node_refusal(&error)));
        }
        let node = Arc::downgrade(&self.node);
        let asked = match consistency {
            Consistency::Stale(bound_ms) => self.node.ask_staleness(Box::new(move |age| {
                let bound = Duration::from_millis(bound_ms);
                done(match age.filter(|age| *age <= bound) {
                    Some(_) => snapshot(&node),
                    None => Err(Refusal::Stale { age_ms: age.map_or(u64::MAX, milliseconds) }),
                });
            })),
            Consistency::Linearizable => ask(&self.node, None, node, done),
            Consistency::AtLeast(lsn) => ask(&self.node, Some(Lsn(lsn)), node, done),
        };
        if let Err(error) = asked {
            // Who asked is told by the end of the connection: `done` went with the question.
            tracing::debug!(%error, "a read came while the node was not running");
        }
    }

    fn status(&self) -> Result<Status, Refusal> {
        let status = self.node.status().map_err(|error| node_refusal(&error))?;
        let stats = &status.database;
        Ok(Status {
            node: self.node.id(),
            cluster: self.node.cluster(),
            role: role(&status, self.node.id()),
            term: status.replica.term.0,
            leader: status.replica.leader,
            committed: status.replica.committed.0,
            applied: stats.committed.0,
            appended: stats.appended.0,
            synced: stats.synced.0,
            checkpointed: stats.checkpointed.0,
            journal_len: stats.journal_bytes,
            fault: status.stopped.as_ref().map(ToString::to_string),
            uptime_ms: milliseconds(self.started.elapsed()),
            peers: peers(&status),
        })
    }

    fn members(&self) -> Result<Vec<Member>, Refusal> {
        let members = self.node.members();
        let member = |(node, member): (NodeId, &crate::members::Member)| Member {
            node,
            is_voter: member.standing != Standing::Learner,
            address: member.place.address.clone(),
            client_address: member.place.label.clone(),
        };
        Ok(members.iter().map(member).collect())
    }

    fn admin(&self, admin: Admin, done: Done<u64>) {
        let change = match admin {
            Admin::AddLearner { node, address, client_address } => {
                let place = Place { address, label: client_address };
                Change::AddLearner { id: node, place }
            }
            Admin::Promote { node } => Change::Promote(node),
            Admin::Remove { node } => Change::Remove(node),
            Admin::Replace { old, new } => Change::Replace { old, new },
            Admin::Move { node, address, client_address } => {
                let mut place = match self.node.members().get(node) {
                    Some(member) => member.place.clone(),
                    None => Place::default(),
                };
                for (new, old) in
                    [(address, &mut place.address), (client_address, &mut place.label)]
                {
                    if !new.is_empty() {
                        *old = new;
                    }
                }
                Change::Move { id: node, place }
            }
            Admin::Transfer { to } => {
                let transferred = self.node.transfer(to);
                let committed = self.node.database().map(|db| db.durable_lsn().0);
                return done(match transferred {
                    Ok(()) => Ok(committed.unwrap_or_default()),
                    Err(NodeError::Change(error)) => {
                        Err(change_refusal(&Arc::downgrade(&self.node), error))
                    }
                    Err(error) => Err(node_refusal(&error)),
                });
            }
        };
        let node = Arc::downgrade(&self.node);
        let told = self.node.ask_change(
            change,
            Box::new(move |outcome| {
                done(outcome.map(|lsn| lsn.0).map_err(|error| change_refusal(&node, error)));
            }),
        );
        if let Err(error) = told {
            tracing::debug!(%error, "a change came while the node was not running");
        }
    }
}

/// Who leads, and where clients find it.
fn leader_of(node: &Weak<Node>, leader: Option<NodeId>) -> Refusal {
    let Some(node) = node.upgrade() else { return Refusal::Stopping };
    let leader = leader.filter(|leader| *leader != node.id()).map(|leader| {
        let members = node.members();
        let place = members.get(leader).map(|member| member.place.label.clone());
        Leader { node: leader, address: place.unwrap_or_default() }
    });
    Refusal::NotLeader { leader }
}

fn ask(
    asked: &Node,
    at_least: Option<Lsn>,
    node: Weak<Node>,
    done: Done<Snapshot>,
) -> Result<(), NodeError> {
    asked.ask_read(
        at_least,
        READ_TIMEOUT,
        Box::new(move |outcome| {
            done(match outcome {
                Ok(_) => snapshot(&node),
                Err(error @ ReadError::Busy) => Err(Refusal::Busy(error.to_string())),
                Err(_) if at_least.is_some() => {
                    let database = node.upgrade().and_then(|node| node.database().ok());
                    let at = database.map_or(0, |database| database.durable_lsn().0);
                    Err(Refusal::Behind { at })
                }
                Err(error) => Err(Refusal::Busy(error.to_string())),
            });
        }),
    )
}

fn snapshot(node: &Weak<Node>) -> Result<Snapshot, Refusal> {
    let database = node
        .upgrade()
        .ok_or(Refusal::Stopping)?
        .database()
        .map_err(|error| node_refusal(&error))?;
    database.read().map_err(|error| match error {
        Error::Bound { .. } => Refusal::Busy(error.to_string()),
        error => error.into(),
    })
}

fn node_refusal(error: &NodeError) -> Refusal {
    match error {
        NodeError::NotRunning => Refusal::Stopping,
        error => Refusal::Fault(error.to_string()),
    }
}

fn change_refusal(node: &Weak<Node>, error: ChangeError) -> Refusal {
    match error {
        ChangeError::NotLeader { leader } => leader_of(node, leader),
        error @ (ChangeError::Pending | ChangeError::Behind { .. }) => {
            Refusal::Busy(error.to_string())
        }
        error => Refusal::Invalid(error.to_string()),
    }
}

fn role(status: &NodeStatus, id: NodeId) -> Role {
    let is_learner = || {
        let member = status.replica.members.get(id);
        member.is_none_or(|member| member.standing == Standing::Learner)
    };
    match status.replica.role {
        _ if status.stopped.is_some() => Role::Stopped,
        replica::Role::Leader => Role::Leader,
        replica::Role::Candidate => Role::Candidate,
        replica::Role::Follower if is_learner() => Role::Learner,
        replica::Role::Follower => Role::Follower,
    }
}

/// The others, as the leader sees them.
fn peers(status: &NodeStatus) -> Vec<PeerStatus> {
    let last = status.replica.last;
    let peer = |(node, progress): &(NodeId, replica::Progress)| PeerStatus {
        node: *node,
        state: match progress {
            progress if progress.installs => {
                let install = status.installs.get(node).copied().unwrap_or_default();
                PeerState::Installing {
                    sent: install.sent,
                    total: install.total,
                    rate: install.rate,
                }
            }
            progress if !progress.is_active => PeerState::Unreachable,
            progress if progress.matched == Lsn(0) => PeerState::Probing,
            _ => PeerState::Replicating,
        },
        matched: progress.matched.0,
        lag_records: last.0.saturating_sub(progress.matched.0),
        lag_len: progress.lag_len,
        silent_ms: status.silent.get(node).map_or(u64::MAX, |silent| milliseconds(*silent)),
    };
    status.replica.progress.iter().map(peer).collect()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
