//! Messages that no correct node sends.

use std::{sync::Arc, time::Duration};

use treepie::ids::{Lsn, Term};
use treepie_raft::{
    ids::NodeId,
    log::{Log, LogRecord, LogState, raft_term},
    message::{Message, MessageKind},
    replica::{Effect, Options, Replica, Stopped},
};
use treepie_testkit::{
    Rng,
    tally::{note, thousands},
};

use crate::{
    model::{ModelLog, Record},
    world::World,
};

/// Messages to each of the nodes.
const MESSAGES: u64 = 20_000;

const KINDS: [MessageKind; 13] = [
    MessageKind::Append,
    MessageKind::AppendReply,
    MessageKind::Vote,
    MessageKind::VoteReply,
    MessageKind::PreVote,
    MessageKind::PreVoteReply,
    MessageKind::Heartbeat,
    MessageKind::HeartbeatReply,
    MessageKind::ReadIndex,
    MessageKind::ReadIndexReply,
    MessageKind::TimeoutNow,
    MessageKind::TransferLeader,
    MessageKind::Snapshot,
];

/// A number near another one, or anywhere.
fn near(rng: &mut Rng, number: u64) -> u64 {
    match rng.below(12) {
        0 => 0,
        1 => u64::MAX,
        2 => rng.next_u64(),
        _ => number.saturating_add(rng.below(7)).saturating_sub(3),
    }
}

fn message(rng: &mut Rng, log: &ModelLog, state: &LogState) -> (Message, Vec<Record>) {
    let term = Term(near(rng, state.hard_state.term.0));
    let (from, to) = (NodeId(near(rng, 3)), NodeId(if rng.chance(1, 20) { 2 } else { 1 }));
    let mut message = Message::new(*rng.pick(&KINDS), from, to, term);
    message.index = Lsn(near(rng, state.last.0));
    message.log_term = Term(near(rng, state.last_term.0));
    message.committed = Lsn(near(rng, state.committed.0));
    message.committed_term = Term(near(rng, state.last_term.0));
    message.reject = rng.chance(1, 2);
    message.reject_hint = Lsn(near(rng, state.last.0));
    message.context = rng.bytes(rng.clone().index(70));
    let mut records = Vec::new();
    if message.kind == MessageKind::Append && rng.chance(2, 3) {
        // As if it were right, most of the time.
        if rng.chance(3, 4) {
            message.index =
                Lsn(state.committed.0 + rng.below(state.last.0 - state.committed.0 + 1));
            message.log_term = log.term(message.index).map_or(Term(1), raft_term);
        }
        let lsns =
            message.index.0.saturating_add(1)..message.index.0.saturating_add(1 + rng.below(4));
        records.extend(lsns.filter_map(|lsn| log.record(Lsn(lsn)).ok()));
        if rng.chance(1, 2) {
            records.extend(log.no_op(Term(near(rng, state.hard_state.term.0))).ok());
        }
    }
    message.entries = records.iter().map(LogRecord::entry).collect();
    if let (Some(entry), true) = (message.entries.first_mut(), rng.chance(1, 8)) {
        entry.term = Term(near(rng, entry.term.0));
    }
    (message, records)
}

/// What the replica wants is done at once.
fn obey(replica: &mut Replica<ModelLog>, log: &ModelLog, now: Duration) -> Result<(), Stopped> {
    loop {
        let effects = replica.effects(now)?;
        if effects.is_empty() {
            return Ok(());
        }
        for effect in effects {
            match effect {
                Effect::Persist(job) => {
                    if let Some(after) = job.truncate_after {
                        log.truncate(after).expect("nothing committed is cut off");
                    }
                    log.append(job.hard_state, &job.records).expect("it continues the log");
                    log.sync().expect("the model syncs");
                    replica.persisted(job.number);
                }
                Effect::Commit(lsn) => {
                    log.commit(lsn).expect("it is there");
                    replica.applied(lsn);
                }
                Effect::Lead(term) => log.lead(term).expect("all is committed"),
                Effect::Follow { number, .. } => {
                    log.follow(None).expect("the model follows");
                    replica.followed(number, log.state().last);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn hostile_messages_break_no_invariant_of_consensus() {
    let (mut taken, mut refused, mut stopped) = (0, 0, 0);
    for seed in 0..10 {
        println!("seed {seed}");
        let mut world = World::<ModelLog>::new(seed, 3, None);
        world.run(3_000_000);
        assert_eq!(world.check.wrong, None);
        let node = world.nodes.get(&NodeId(1)).expect("a node");
        let mut rng = Rng::new(seed);
        let mut log = Arc::new(node.log.cut(&mut rng));
        let mut now = Duration::from_secs(10);
        let open = |log: &Arc<ModelLog>, now| {
            Replica::open(Arc::clone(log), Options::new(NodeId(1), seed), now).expect("a log")
        };
        let mut replica = open(&log, now);
        for count in 1..=MESSAGES {
            // One high term makes nonsense of all that follows.
            if count % 300 == 0 {
                log = Arc::new(node.log.cut(&mut rng));
                replica = open(&log, now);
            }
            now += Duration::from_millis(10);
            replica.tick(now);
            let (message, records) = message(&mut rng, &log, &log.state());
            match replica.message(now, &message, &records) {
                Ok(()) => taken += 1,
                Err(_) => refused += 1,
            }
            if let Err(why) = obey(&mut replica, &log, now) {
                let is_broken = matches!(why, Stopped::Broken(_));
                assert!(!is_broken, "seed {seed}: {message:?} breaks it: {why}");
                stopped += 1;
                log = Arc::new(node.log.cut(&mut rng));
                replica = open(&log, now);
            }
        }
    }
    let counts = [taken, refused, stopped].map(thousands);
    let [taken, refused, stopped] = counts;
    let what = format!("{taken} taken, {refused} refused, {stopped} that stop the node in order");
    note(15, "hostile messages", &what);
}
