//! Connections that end in the middle of anything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use treepie_raft::{
    ids::NodeId,
    service::{
        Client, ClientError, ServerOptions, Standalone, Store, Transaction,
        message::{Effect, Outcome, Write},
    },
};

use crate::{
    proxy::{Cut, Proxy},
    serving::{Rerouted, Served, connect, patient, serve, wait_until},
};

const WHOLE: Cut = Cut { up: usize::MAX, down: usize::MAX };

/// Adds one to a counter, once or twice: what it was before tells.
fn count() -> Transaction {
    Transaction::new().get("t", "k").delete("t", "k").put("t", "k", "done")
}

/// Counts how many of the cuts made a request count twice. Each request puts a key that nobody else
/// puts: one that was there before was put by the same request.
fn doubled(served: &Served, cuts: &[Cut], exactly_once: bool) -> Vec<Cut> {
    let proxy = Proxy::new(served.server.address());
    let mut doubled = Vec::new();
    for (n, cut) in cuts.iter().enumerate() {
        proxy.cut(*cut);
        let options = patient().exactly_once(exactly_once);
        let client = Client::connect([proxy.address()], options).unwrap();
        match client.put("t", format!("{n}/{exactly_once}"), "v") {
            Ok(receipt) if receipt.value => doubled.push(*cut),
            Ok(_) => {}
            Err(ClientError::OutcomeUnknown { .. }) if !exactly_once => {}
            Err(error) => panic!("{cut:?}: {error}"),
        }
    }
    doubled
}

fn all_cuts() -> Vec<Cut> {
    // A hello has 41 bytes and its answer 80; the put and its answer have fewer than 160 and 80.
    let up = (0..210).map(|up| Cut { up, ..WHOLE });
    let down = (0..170).map(|down| Cut { down, ..WHOLE });
    up.chain(down).collect()
}

#[test]
fn request_whose_connection_is_cut_anywhere_is_done_once() {
    let served = Served::new();
    let cuts = all_cuts();
    assert!(doubled(&served, &cuts, true).is_empty());
    let entries = served.db.read().unwrap().tree("t").unwrap().len();
    assert_eq!(entries, cuts.len() as u64);
    treepie_testkit::tally::note(
        8,
        "service: cut connections",
        &format!("{} places, each request done once", cuts.len()),
    );
}

#[test]
fn check_of_cut_connections_finds_a_server_that_forgets_requests() {
    let served = Served::with(ServerOptions::new(), |inner| {
        let on_write = |inner: &dyn Store, write: Write, done: _| {
            inner.write(Write { request: None, ..write }, done);
        };
        Arc::new(Rerouted { inner, on_write: Box::new(on_write) })
    });
    assert!(!doubled(&served, &all_cuts(), true).is_empty());
}

#[test]
fn request_without_an_id_is_not_sent_again_when_it_may_have_been_done() {
    let served = Served::new();
    assert!(doubled(&served, &all_cuts(), false).is_empty());
}

#[test]
fn requests_of_many_threads_are_done_once_while_connections_are_cut() {
    let served = Served::new();
    let proxy = Proxy::new(served.server.address());
    let client = connect(&[proxy.address()]);
    let acknowledged = AtomicU64::new(0);
    thread::scope(|scope| {
        let writing: Vec<_> = (0..6)
            .map(|thread| {
                let (client, acknowledged) = (&client, &acknowledged);
                scope.spawn(move || {
                    for n in 0..150 {
                        let key = format!("{thread}/{n}");
                        assert!(!client.put("t", &key, "").unwrap().value, "{key} was put twice");
                        acknowledged.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        let mut cuts = 0;
        while !writing.iter().all(thread::ScopedJoinHandle::is_finished) {
            let before = acknowledged.load(SeqCst);
            wait_until("writes go on", || {
                acknowledged.load(SeqCst) > before + 20
                    || writing.iter().all(thread::ScopedJoinHandle::is_finished)
            });
            proxy.cut_all();
            cuts += 1;
        }
        assert!(cuts > 5, "{cuts} cuts");
    });
    assert_eq!(served.db.read().unwrap().tree("t").unwrap().len(), 900);
}

#[test]
fn server_that_is_restarted_elsewhere_is_found_and_nothing_is_done_twice() {
    let served = Served::new();
    let proxy = Proxy::new(served.server.address());
    let client = connect(&[proxy.address()]);
    let acknowledged = AtomicU64::new(0);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for n in 0..300 {
                assert!(!client.put("t", n.to_string(), "").unwrap().value, "{n} was put twice");
                acknowledged.fetch_add(1, SeqCst);
            }
        });
        let mut servers = Vec::new();
        for round in 1..=3 {
            wait_until("writes go on", || acknowledged.load(SeqCst) >= round * 60);
            servers.last().unwrap_or(&served.server).stop();
            let store = Arc::new(Standalone::new(served.db.clone(), NodeId(1), ""));
            servers.push(serve(store, ServerOptions::new()));
            proxy.redirect(servers.last().unwrap().address());
        }
        writing.join().unwrap();
    });
    assert_eq!(served.db.read().unwrap().tree("t").unwrap().len(), 300);
}

#[test]
fn outcome_of_a_repeated_transaction_is_that_of_the_first_time() {
    let served = Served::new();
    let proxy = Proxy::new(served.server.address());
    // The answer of the hello has 80 bytes; of the transaction's nothing is let through.
    proxy.cut(Cut { down: 80, ..WHOLE });
    let client = connect(&[proxy.address()]);
    let effects = vec![Effect::Value(None), Effect::Deleted(false), Effect::Put(false)];
    assert_eq!(client.run(count()).unwrap().value, Outcome::Done(effects));
    assert_eq!(served.server.counters().accepted, 2, "it was sent twice");
}
