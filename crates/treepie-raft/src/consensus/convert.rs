//! Messages of ours and of the core. What the core calls a snapshot is never sent: see `Turn::installs`.

use raft::eraftpb::{Entry, EntryType, Message as CoreMessage, MessageType};
use treepie::ids::{Lsn, Term};

use crate::{
    ids::NodeId,
    message::{EntryKind, EntryRef, Message, MessageKind},
};

use super::handles::Handles;

/// The core's kind of a message; none for what is not for the core.
fn core_kind(kind: MessageKind) -> Option<MessageType> {
    Some(match kind {
        MessageKind::Append => MessageType::MsgAppend,
        MessageKind::AppendReply => MessageType::MsgAppendResponse,
        MessageKind::Vote => MessageType::MsgRequestVote,
        MessageKind::VoteReply => MessageType::MsgRequestVoteResponse,
        MessageKind::PreVote => MessageType::MsgRequestPreVote,
        MessageKind::PreVoteReply => MessageType::MsgRequestPreVoteResponse,
        MessageKind::Heartbeat => MessageType::MsgHeartbeat,
        MessageKind::HeartbeatReply => MessageType::MsgHeartbeatResponse,
        MessageKind::ReadIndex => MessageType::MsgReadIndex,
        MessageKind::ReadIndexReply => MessageType::MsgReadIndexResp,
        MessageKind::TimeoutNow => MessageType::MsgTimeoutNow,
        MessageKind::TransferLeader | MessageKind::Snapshot => return None,
    })
}

fn our_kind(kind: MessageType) -> Option<MessageKind> {
    Some(match kind {
        MessageType::MsgAppend => MessageKind::Append,
        MessageType::MsgAppendResponse => MessageKind::AppendReply,
        MessageType::MsgRequestVote => MessageKind::Vote,
        MessageType::MsgRequestVoteResponse => MessageKind::VoteReply,
        MessageType::MsgRequestPreVote => MessageKind::PreVote,
        MessageType::MsgRequestPreVoteResponse => MessageKind::PreVoteReply,
        MessageType::MsgHeartbeat => MessageKind::Heartbeat,
        MessageType::MsgHeartbeatResponse => MessageKind::HeartbeatReply,
        MessageType::MsgReadIndex => MessageKind::ReadIndex,
        MessageType::MsgReadIndexResp => MessageKind::ReadIndexReply,
        MessageType::MsgTimeoutNow => MessageKind::TimeoutNow,
        _ => return None,
    })
}

/// What the core is given; none for a kind that is not for it.
pub(super) fn to_core(message: &Message) -> Option<CoreMessage> {
    let kind = core_kind(message.kind)?;
    let mut core = CoreMessage::default();
    core.set_msg_type(kind);
    core.from = message.from.0;
    core.to = message.to.0;
    core.term = message.term.0;
    core.log_term = message.log_term.0;
    // A heartbeat says there what is committed, which is not for the core.
    core.index = if message.kind == MessageKind::Heartbeat { 0 } else { message.index.0 };
    core.commit = message.committed.0;
    core.commit_term = message.committed_term.0;
    core.reject = message.reject;
    core.reject_hint = message.reject_hint.0;
    core.priority = message.priority;
    match message.kind {
        MessageKind::ReadIndex | MessageKind::ReadIndexReply => {
            let read = Entry { data: message.context.clone().into(), ..Entry::default() };
            core.set_entries(vec![read].into());
        }
        _ => {
            core.context = message.context.clone().into();
            core.set_entries(message.entries.iter().map(entry).collect());
        }
    }
    Some(core)
}

fn entry(handle: &EntryRef) -> Entry {
    let mut entry = Entry { index: handle.lsn.0, ..Entry::default() };
    entry.term = handle.term.0;
    // Its content is not for the core: it only has to know that members may change there.
    if handle.kind == EntryKind::Membership {
        entry.set_entry_type(EntryType::EntryConfChangeV2);
    }
    entry
}

/// What the core says; none for what does not travel.
pub(super) fn from_core(core: &CoreMessage, handles: &Handles) -> Option<Message> {
    let kind = our_kind(core.get_msg_type())?;
    let mut message = Message::new(kind, NodeId(core.from), NodeId(core.to), Term(core.term));
    message.log_term = Term(core.log_term);
    message.index = Lsn(core.index);
    message.committed = Lsn(core.commit);
    message.committed_term = Term(core.commit_term);
    message.reject = core.reject;
    message.reject_hint = Lsn(core.reject_hint);
    message.request_snapshot = Lsn(core.request_snapshot);
    message.priority = core.priority;
    match kind {
        MessageKind::ReadIndex | MessageKind::ReadIndexReply => {
            message.context = core.entries.first().map_or(Vec::new(), |read| read.data.to_vec());
        }
        _ => {
            message.context = core.context.to_vec();
            message.entries = core.entries.iter().map(|entry| handle(entry, handles)).collect();
        }
    }
    Some(message)
}

/// The handle of an entry. An old one has a length of 0: who reads its record fills it in.
fn handle(entry: &Entry, handles: &Handles) -> EntryRef {
    let (lsn, term) = (Lsn(entry.index), Term(entry.term));
    let known = handles.get(lsn).map(|handle| handle.entry).filter(|known| known.term == term);
    known.unwrap_or(EntryRef { lsn, term, kind: EntryKind::Transaction, len: 0, checksum: 0 })
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::ConfState;

    use super::*;
    use crate::{consensus::handles::Beginning, log::HardState};

    #[test]
    fn every_kind_that_travels_comes_back_as_it_went() {
        let handles = Handles::new(
            Beginning {
                hard_state: HardState::default(),
                committed: Lsn(0),
                floor: Lsn(0),
                ranges: vec![(Lsn(0), Term(0))],
                chain: 0,
            },
            ConfState::default(),
        );
        let kinds = (1..=13).filter_map(|kind| {
            [
                MessageKind::Append,
                MessageKind::AppendReply,
                MessageKind::Vote,
                MessageKind::VoteReply,
                MessageKind::PreVote,
                MessageKind::PreVoteReply,
                MessageKind::HeartbeatReply,
                MessageKind::ReadIndex,
                MessageKind::ReadIndexReply,
                MessageKind::TimeoutNow,
            ]
            .into_iter()
            .find(|k| *k as u8 == kind)
        });
        let mut count = 0;
        for kind in kinds {
            let mut message = Message::new(kind, NodeId(2), NodeId(3), Term(4));
            message.log_term = Term(5);
            message.index = Lsn(6);
            message.committed = Lsn(7);
            message.committed_term = Term(8);
            message.reject = true;
            message.reject_hint = Lsn(9);
            message.context = b"context".to_vec();
            if kind == MessageKind::Append {
                let kind = EntryKind::Transaction;
                let entry = EntryRef { lsn: Lsn(7), term: Term(5), kind, len: 0, checksum: 0 };
                message.entries.push(entry);
            }
            let core = to_core(&message).expect("for the core");
            assert_eq!(from_core(&core, &handles), Some(message));
            count += 1;
        }
        assert_eq!(count, 10);
    }

    #[test]
    fn snapshots_and_proposals_never_travel() {
        for kind in [MessageKind::Snapshot, MessageKind::TransferLeader] {
            assert_eq!(to_core(&Message::new(kind, NodeId(1), NodeId(2), Term(3))), None);
        }
        for kind in [MessageType::MsgSnapshot, MessageType::MsgPropose, MessageType::MsgHup] {
            assert_eq!(our_kind(kind), None);
        }
    }
}
