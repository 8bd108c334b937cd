//! The sharp edges of the core, each shown to be handled.

use treepie::ids::{Lsn, Term};

use super::*;
use crate::{
    members::{Change, Members, Place},
    message::{EntryRef, MessageKind},
};

fn place() -> Place {
    Place { address: "host:1".to_owned(), label: String::new() }
}

/// Voters 1 to 3, and the learner 4.
fn members() -> Members {
    let mut members = Members::found(NodeId(1), place()).expect("an address");
    let add = |id| Change::AddLearner { id: NodeId(id), place: place() };
    for id in [2, 3] {
        for change in [add(id), Change::Promote(NodeId(id)), Change::Complete] {
            members = members.after(&change).expect("it follows");
        }
    }
    members.after(&add(4)).expect("it follows")
}

fn core(seed: u64) -> Core {
    let beginning = Beginning {
        hard_state: HardState { term: Term(1), vote: 0 },
        committed: Lsn(0),
        floor: Lsn(0),
        ranges: vec![(Lsn(0), Term(0))],
        chain: 0,
    };
    let handles = Handles::new(beginning, conf_state(&members()));
    let config = Config { id: NodeId(1), election_ticks: 10, heartbeat_ticks: 2, seed };
    Core::open(config, handles, Lsn(0)).expect("an empty log is one")
}

fn handle(lsn: Lsn, term: Term) -> Option<Handle> {
    let kind = EntryKind::Transaction;
    Some(Handle { entry: EntryRef { lsn, term, kind, len: 10, checksum: 0 }, chain: lsn.0 })
}

/// Takes all turns. What they say is durable at once, or never.
fn drive(core: &mut Core, syncs: bool) -> Vec<Turn> {
    let mut turns = Vec::new();
    while core.has_turn() {
        let turn = core.take(handle).expect("it runs");
        if syncs {
            core.persisted(turn.number).expect("it runs");
        }
        core.advance_apply().expect("it runs");
        turns.push(turn);
    }
    turns
}

fn say(core: &mut Core, kind: MessageKind, from: u64, fill: impl Fn(&mut Message)) {
    let mut message = Message::new(kind, NodeId(from), NodeId(1), core.term());
    fill(&mut message);
    core.step(&message).expect("it runs");
}

/// Makes it lead; the entry with which it begins is not durable anywhere.
fn elect(core: &mut Core) -> u32 {
    let mut ticks = 0;
    while core.role() == Role::Follower {
        core.tick().expect("it runs");
        ticks += 1;
    }
    drive(core, true);
    let next = Term(core.term().0 + 1);
    say(core, MessageKind::PreVoteReply, 2, |message| message.term = next);
    drive(core, true);
    say(core, MessageKind::VoteReply, 2, |_| {});
    assert_eq!(core.role(), Role::Leader);
    drive(core, false);
    ticks
}

fn acknowledge(core: &mut Core, from: u64, index: u64) {
    say(core, MessageKind::AppendReply, from, |message| message.index = Lsn(index));
}

#[test]
fn broken_invariant_stops_the_core_and_not_the_process() {
    let mut core = core(1);
    let mut lie = Message::new(MessageKind::Heartbeat, NodeId(2), NodeId(1), Term(5));
    lie.committed = Lsn(1_000);
    let broken = core.step(&lie).expect_err("it has no such entry");
    assert!(broken.0.contains("out of range"), "{broken}");
    assert_eq!(core.tick(), Err(broken.clone()));
    assert_eq!(core.propose(&Step::Nothing), Err(broken));
    assert!(!core.has_turn());
}

#[test]
fn elections_follow_from_the_seed_alone() {
    let waits: Vec<u32> = (0..40).map(|seed| elect(&mut core(seed))).collect();
    let again: Vec<u32> = (0..40).map(|seed| elect(&mut core(seed))).collect();
    assert_eq!(waits, again);
    assert!(waits.iter().all(|ticks| (10..20).contains(ticks)), "{waits:?}");
    assert!(waits.iter().any(|ticks| *ticks != waits[0]), "{waits:?}");
}

#[test]
fn vote_leaves_after_the_sync_of_its_hard_state() {
    let mut core = core(1);
    say(&mut core, MessageKind::Vote, 2, |message| message.term = Term(7));
    let turns = drive(&mut core, true);
    assert_eq!(turns[0].hard_state, Some(HardState { term: Term(7), vote: 2 }));
    assert!(turns[0].at_once.is_empty());
    assert_eq!(turns[0].after_sync[0].kind, MessageKind::VoteReply);
    assert!(!turns[0].after_sync[0].reject);
}

#[test]
fn entries_are_committed_by_a_majority_without_the_own_sync() {
    let mut core = core(1);
    elect(&mut core);
    acknowledge(&mut core, 4, 1);
    acknowledge(&mut core, 2, 1);
    assert_eq!(core.committed(), Lsn(0), "a learner does not count");
    acknowledge(&mut core, 3, 1);
    assert_eq!((core.committed(), core.persisted_lsn()), (Lsn(1), Lsn(0)));
}

#[test]
fn entry_of_an_earlier_term_is_not_committed_by_counting() {
    let mut core = core(1);
    elect(&mut core);
    core.persisted(u64::MAX).expect("it runs");
    say(&mut core, MessageKind::Heartbeat, 2, |message| message.term = Term(message.term.0 + 1));
    drive(&mut core, true);
    elect(&mut core);
    core.persisted(u64::MAX).expect("it runs");
    assert_eq!((core.last(), core.term_of(Lsn(1)) < core.term_of(Lsn(2))), (Lsn(2), true));
    acknowledge(&mut core, 2, 1);
    acknowledge(&mut core, 3, 1);
    assert_eq!(core.committed(), Lsn(0), "all have it, and it may still be replaced");
    acknowledge(&mut core, 3, 2);
    assert_eq!(core.committed(), Lsn(2));
}

#[test]
fn entries_go_out_one_a_message_and_at_once() {
    let mut core = core(1);
    elect(&mut core);
    acknowledge(&mut core, 2, 1);
    drive(&mut core, false);
    for _ in 0..3 {
        assert_eq!(core.propose(&Step::Nothing), Ok(Proposed::Accepted));
    }
    let turns = drive(&mut core, false);
    let sent: Vec<_> = turns.iter().flat_map(|turn| &turn.at_once).collect();
    let lens: Vec<_> = sent.iter().filter(|m| m.to == NodeId(2)).map(|m| m.entries.len()).collect();
    assert_eq!(lens, [1, 1, 1]);
    assert!(sent.iter().all(|message| message.entries.iter().all(|entry| entry.len == 10)));
}

#[test]
fn read_before_the_first_commit_of_a_term_gets_no_answer() {
    let mut core = core(1);
    elect(&mut core);
    assert!(!core.has_committed_in_its_term());
    core.read_index(b"early".to_vec()).expect("it runs");
    acknowledge(&mut core, 2, 1);
    acknowledge(&mut core, 3, 1);
    assert!(core.has_committed_in_its_term());
    core.read_index(b"later".to_vec()).expect("it runs");
    drive(&mut core, false);
    for context in [b"early", b"later"] {
        say(&mut core, MessageKind::HeartbeatReply, 2, |message| {
            message.context = context.to_vec();
        });
    }
    let confirmed: Vec<_> = drive(&mut core, false).into_iter().flat_map(|t| t.confirmed).collect();
    assert_eq!(confirmed, [(b"later".to_vec(), Lsn(1))]);
}

#[test]
fn one_change_of_members_at_a_time_and_the_joint_one_stays_until_it_is_left() {
    let mut core = core(1);
    elect(&mut core);
    core.persisted(u64::MAX).expect("it runs");
    acknowledge(&mut core, 2, 1);
    drive(&mut core, true);
    let joint = members().after(&Change::Promote(NodeId(4))).expect("a learner");
    let change = step(&members(), &joint).expect("it follows");
    assert_eq!(core.propose(&change), Ok(Proposed::Accepted));
    assert_eq!(core.propose(&change), Ok(Proposed::Dropped), "one is pending");
    assert_eq!(core.last(), Lsn(2), "and nothing stands in its place");
    drive(&mut core, true);
    acknowledge(&mut core, 2, 2);
    drive(&mut core, true);
    core.apply(&change).expect("it is committed");
    drive(&mut core, true);
    assert_eq!(core.last(), Lsn(2), "the core proposes nothing by itself");
    let done = joint.after(&Change::Complete).expect("half done");
    let leave = step(&joint, &done).expect("it follows");
    assert_eq!(core.propose(&leave), Ok(Proposed::Accepted));
}

#[test]
fn proposals_during_a_hand_over_are_dropped() {
    let mut core = core(1);
    elect(&mut core);
    core.transfer(NodeId(2)).expect("it runs");
    assert_eq!(core.transfers_to(), Some(NodeId(2)));
    assert_eq!(core.propose(&Step::Nothing), Ok(Proposed::Dropped));
    for _ in 0..10 {
        core.tick().expect("it runs");
    }
    assert_eq!(core.transfers_to(), None, "it is given up after an election timeout");
}

#[test]
fn follower_whose_records_were_trimmed_is_to_be_installed_and_is_sent_no_snapshot() {
    let mut core = core(1);
    elect(&mut core);
    core.persisted(u64::MAX).expect("it runs");
    acknowledge(&mut core, 2, 1);
    drive(&mut core, true);
    core.trim(Lsn(1));
    say(&mut core, MessageKind::AppendReply, 3, |message| {
        (message.reject, message.index) = (true, Lsn(0));
    });
    say(&mut core, MessageKind::HeartbeatReply, 3, |_| {});
    let turns = drive(&mut core, true);
    let installs: Vec<_> = turns.iter().flat_map(|turn| turn.installs.clone()).collect();
    assert_eq!(installs, [(NodeId(3), Lsn(1))]);
    assert!(core.progress(NodeId(3)).expect("a member").installs);
    core.install_ended(NodeId(3), true).expect("it runs");
    assert!(!core.progress(NodeId(3)).expect("a member").installs);
}
