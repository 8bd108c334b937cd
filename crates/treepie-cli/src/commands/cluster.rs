//! `status`, `member` and `transfer`: what nodes are doing, and who belongs together.

use serde::Serialize;
use treepie_raft::{
    ids::NodeId,
    service::message::{Admin, Member as MemberInfo, PeerState, PeerStatus, Status},
};

use super::client::{connect, connect_to};
use crate::{
    arguments::client::{Member, Reach, Status as StatusArguments, Transfer},
    failure::{Failure, Result},
    output::{Output, bytes, grouped},
};

#[derive(Serialize)]
struct StatusObject {
    at: String,
    node: u64,
    cluster: String,
    role: &'static str,
    term: u64,
    leader: Option<u64>,
    committed: u64,
    applied: u64,
    appended: u64,
    synced: u64,
    checkpointed: u64,
    journal_bytes: u64,
    fault: Option<String>,
    uptime_ms: u64,
    peers: Vec<PeerObject>,
}

#[derive(Serialize)]
struct PeerObject {
    node: u64,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<u64>,
    matched: u64,
    lag_records: u64,
    lag_bytes: u64,
    silent_ms: Option<u64>,
}

impl StatusObject {
    fn new(at: &str, status: Status) -> StatusObject {
        StatusObject {
            at: at.to_owned(),
            node: status.node.0,
            cluster: status.cluster.to_string(),
            role: status.role.name(),
            term: status.term,
            leader: status.leader.map(|leader| leader.0),
            committed: status.committed,
            applied: status.applied,
            appended: status.appended,
            synced: status.synced,
            checkpointed: status.checkpointed,
            journal_bytes: status.journal_len,
            fault: status.fault,
            uptime_ms: status.uptime_ms,
            peers: status.peers.iter().map(PeerObject::from).collect(),
        }
    }

    fn text(&self) -> String {
        let leader = self.leader.map_or_else(
            || "no leader is known".to_owned(),
            |leader| format!("node {leader} leads"),
        );
        let mut text = format!(
            "node {} at {}: {}, term {}, {leader}\n  cluster {}, up for {:.1} s\n  \
             committed {}, applied {}, appended {}, synced {}, checkpointed {} ({} of journal since)",
            self.node,
            self.at,
            self.role,
            self.term,
            self.cluster,
            self.uptime_ms as f64 / 1e3,
            self.committed,
            self.applied,
            self.appended,
            self.synced,
            self.checkpointed,
            bytes(self.journal_bytes),
        );
        if let Some(fault) = &self.fault {
            text += &format!("\n  FAULT: {fault}");
        }
        for peer in &self.peers {
            text += &format!(
                "\n  node {}: {}, has LSN {}, lags by {} records ({}), {}",
                peer.node,
                peer.state,
                peer.matched,
                grouped(peer.lag_records),
                bytes(peer.lag_bytes),
                peer.silence(),
            );
            if let (Some(sent), Some(total), Some(rate)) =
                (peer.sent_bytes, peer.total_bytes, peer.bytes_per_second)
            {
                text += &format!(", {} of {} sent, {}/s", bytes(sent), bytes(total), bytes(rate));
            }
        }
        text
    }
}

impl PeerObject {
    fn silence(&self) -> String {
        self.silent_ms
            .map_or_else(|| "never heard of".to_owned(), |ms| format!("heard of {ms} ms ago"))
    }
}

impl From<&PeerStatus> for PeerObject {
    fn from(peer: &PeerStatus) -> PeerObject {
        let (state, install) = match peer.state {
            PeerState::Probing => ("probing", None),
            PeerState::Replicating => ("replicating", None),
            PeerState::Installing { sent, total, rate } => {
                ("installing", Some((sent, total, rate)))
            }
            PeerState::Unreachable => ("unreachable", None),
        };
        PeerObject {
            node: peer.node.0,
            state,
            sent_bytes: install.map(|(sent, ..)| sent),
            total_bytes: install.map(|(_, total, _)| total),
            bytes_per_second: install.map(|(.., rate)| rate),
            matched: peer.matched,
            lag_records: peer.lag_records,
            lag_bytes: peer.lag_len,
            silent_ms: Some(peer.silent_ms).filter(|ms| *ms != u64::MAX),
        }
    }
}

/// A node that has not answered.
#[derive(Serialize)]
struct Silent<'s> {
    at: &'s str,
    error: String,
}

/// Prints what each of the nodes is doing. Ends with an error when one has not answered.
pub fn status(arguments: &StatusArguments, output: &mut Output) -> Result<()> {
    let mut silent = None;
    for at in &arguments.reach.at {
        let asked = connect_to(std::slice::from_ref(at), &arguments.reach);
        match asked.and_then(|client| Ok(client.status()?)) {
            Ok(status) => output.either(&StatusObject::new(at, status), StatusObject::text)?,
            // Bad arguments are the same for all of them.
            Err(failure) if failure.code() == 2 => return Err(failure),
            Err(failure) => {
                let object = Silent { at, error: failure.to_string() };
                output.either(&object, |silent| format!("{}: {}", silent.at, silent.error))?;
                silent = Some(failure);
            }
        }
    }
    silent.map_or(Ok(()), Err)
}

#[derive(Serialize)]
struct MemberObject {
    node: u64,
    voter: bool,
    address: String,
    client_address: String,
}

/// What a change of the members did.
#[derive(Serialize)]
struct ClusterChanged {
    done: &'static str,
    lsn: u64,
}

/// Lists members, or changes them.
pub fn member(arguments: &Member, output: &mut Output) -> Result<()> {
    match arguments {
        Member::List { reach } => {
            for member in connect(reach)?.members()? {
                list(member, output)?;
            }
            Ok(())
        }
        Member::Add { id, address, client_address, reach } => {
            let (address, client_address) = (address.clone(), client_address.clone());
            let node = NodeId(*id);
            change(Admin::AddLearner { node, address, client_address }, "added", reach, output)
        }
        Member::Promote { id, reach } => {
            change(Admin::Promote { node: NodeId(*id) }, "promoted", reach, output)
        }
        Member::Replace { id, with, reach } => {
            let admin = Admin::Replace { old: NodeId(*id), new: NodeId(*with) };
            change(admin, "replaced", reach, output)
        }
        Member::Move { id, listen, nodes, reach } => {
            let admin = Admin::Move {
                node: NodeId(*id),
                address: nodes.clone().unwrap_or_default(),
                client_address: listen.clone().unwrap_or_default(),
            };
            change(admin, "moved", reach, output)
        }
        Member::Remove { id, reach } => {
            change(Admin::Remove { node: NodeId(*id) }, "removed", reach, output)
        }
    }
}

fn list(member: MemberInfo, output: &mut Output) -> Result<()> {
    let MemberInfo { node, is_voter, address, client_address } = member;
    let object = MemberObject { node: node.0, voter: is_voter, address, client_address };
    output.either(&object, |member| {
        let part = if member.voter { "voter" } else { "learner" };
        let at = |what, address: &str| match address {
            "" => String::new(),
            address => format!(", {what} at {address}"),
        };
        let (nodes, clients) =
            (at("nodes", &member.address), at("clients", &member.client_address));
        format!("node {}: {part}{nodes}{clients}", member.node)
    })
}

/// Lets another node lead.
pub fn transfer(arguments: &Transfer, output: &mut Output) -> Result<()> {
    let admin = Admin::Transfer { to: NodeId(arguments.to) };
    change(admin, "transferred", &arguments.reach, output)
}

fn change(admin: Admin, done: &'static str, reach: &Reach, output: &mut Output) -> Result<()> {
    let lsn = connect(reach)?.admin(admin).map_err(Failure::from)?;
    let changed = ClusterChanged { done, lsn: lsn.0 };
    output.either(&changed, |changed| format!("{}, LSN {}", changed.done, changed.lsn))
}
