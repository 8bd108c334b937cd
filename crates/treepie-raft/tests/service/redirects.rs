//! Nodes that are not the leader, lose leadership, or do not answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use treepie_raft::{
    ids::{ClusterId, NodeId},
    service::{
        Client, ClientError, Done, Leader, Refusal, ServerOptions, Store, Transaction, Written,
        message::Write,
    },
};

use crate::serving::{Rerouted, Served, connect, patient};

/// A server that does with writes what a test says, and counts them.
fn served_with(
    on_write: impl Fn(&dyn Store, u64, Write, Done<Written>) + Send + Sync + 'static,
) -> (Served, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let served = Served::with(ServerOptions::new(), |inner| {
        let on_write = move |inner: &dyn Store, write: Write, done: Done<Written>| {
            on_write(inner, counter.fetch_add(1, SeqCst), write, done);
        };
        Arc::new(Rerouted { inner, on_write: Box::new(on_write) })
    });
    (served, count)
}

#[test]
fn client_follows_a_redirect_and_stays_with_the_leader() {
    let leader = Served::new();
    let address = leader.address();
    let (follower, asked) = served_with(move |_, _, _, done| {
        let leader = Leader { node: NodeId(2), address: address.clone() };
        done(Err(Refusal::NotLeader { leader: Some(leader) }));
    });
    let client = connect(&[follower.address()]);
    for n in 0..20 {
        assert!(!client.put("t", n.to_string(), "").unwrap().value);
    }
    assert_eq!(asked.load(SeqCst), 1);
    assert_eq!(leader.db.read().unwrap().tree("t").unwrap().len(), 20);
}

#[test]
fn client_asks_around_while_nobody_knows_the_leader() {
    let (undecided, asked) = served_with(|inner, n, write, done| match n {
        0..3 => done(Err(Refusal::NotLeader { leader: None })),
        _ => inner.write(write, done),
    });
    let (other, others) =
        served_with(|_, _, _, done| done(Err(Refusal::NotLeader { leader: None })));
    let client = connect(&[other.address(), undecided.address()]);
    assert!(!client.put("t", "k", "").unwrap().value);
    assert_eq!(asked.load(SeqCst), 4);
    assert!(others.load(SeqCst) >= 3);
}

#[test]
fn node_that_cannot_be_reached_is_passed_over() {
    let gone = Served::new();
    let address = gone.address();
    drop(gone);
    let served = Served::new();
    let client = connect(&[address.clone(), served.address()]);
    client.put("t", "k", "v").unwrap();
    let nobody = Client::connect([address], patient().timeout(Duration::from_millis(50)));
    let error = nobody.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.is_safe_to_repeat());
}

#[test]
fn request_with_an_unknown_outcome_is_asked_for_again_and_done_once() {
    // The first attempt is done, but the node says that it does not know.
    let (served, asked) = served_with(|inner, n, write, done| match n {
        0 => inner.write(write, Box::new(|_| done(Err(Refusal::Unknown { lsn: 7 })))),
        _ => inner.write(write, done),
    });
    let client = served.client();
    assert!(!client.put("t", "k", "v").unwrap().value, "the first attempt put it");
    assert_eq!(asked.load(SeqCst), 2);
}

#[test]
fn request_that_a_store_forgets_is_asked_for_again() {
    let (served, asked) = served_with(|inner, n, write, done| match n {
        0 => drop(done),
        _ => inner.write(write, done),
    });
    assert!(!served.client().put("t", "k", "v").unwrap().value);
    assert_eq!(asked.load(SeqCst), 2);
}

#[test]
fn unknown_outcome_is_told_where_there_is_no_request_id() {
    let (served, asked) = served_with(|_, _, _, done| done(Err(Refusal::Unknown { lsn: 7 })));
    let options = patient().exactly_once(false);
    let client = Client::connect([served.address()], options).unwrap();
    let error = client.put("t", "k", "v").unwrap_err();
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    assert!(!error.is_safe_to_repeat());
    assert_eq!(asked.load(SeqCst), 1);
}

#[test]
fn refusal_after_an_attempt_in_doubt_does_not_say_that_nothing_was_done() {
    let (served, _) = served_with(|_, n, _, done| match n {
        0 => done(Err(Refusal::Unknown { lsn: 7 })),
        _ => done(Err(Refusal::Full("the disk is full".to_owned()))),
    });
    let error = served.client().put("t", "k", "v").unwrap_err();
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    let error = served.client().put("t", "k", "v").unwrap_err();
    assert!(matches!(error, ClientError::Refused(Refusal::Full(_))), "{error}");
}

#[test]
fn write_that_is_not_answered_in_time_has_an_unknown_outcome() {
    let (kept, keep) = mpsc::channel();
    let kept = Mutex::new(kept);
    // What comes is kept, and never answered.
    let (served, _) = served_with(move |_, _, _, done| kept.lock().send(done).unwrap());
    let options = patient().timeout(Duration::from_millis(300));
    let client = Client::connect([served.address()], options).unwrap();
    let started = Instant::now();
    let error = client.put("t", "k", "v").unwrap_err();
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(300));
    // The connection goes on, and a late answer goes nowhere.
    let late: Done<Written> = keep.recv().unwrap();
    late(Err(Refusal::Stopping));
    client.status().unwrap();
}

#[test]
fn busy_node_is_asked_again() {
    let (served, asked) = served_with(|inner, n, write, done| match n {
        0 | 1 => done(Err(Refusal::Busy("as a test says".to_owned()))),
        _ => inner.write(write, done),
    });
    assert!(!served.client().put("t", "k", "v").unwrap().value);
    assert_eq!(asked.load(SeqCst), 3);
}

#[test]
fn node_of_another_cluster_is_refused() {
    let served = Served::new();
    let wanted = ClusterId { database: served.db.id(), epoch: 0 };
    let client = Client::connect([served.address()], patient().cluster(wanted)).unwrap();
    client.run(Transaction::new()).unwrap();
    let stranger = ClusterId { epoch: 1, ..wanted };
    let options = patient().cluster(stranger).timeout(Duration::from_millis(100));
    let error = Client::connect([served.address()], options).unwrap_err();
    assert!(error.to_string().contains("another cluster is served there"), "{error}");
    assert!(served.server.counters().refused > 0);
}
