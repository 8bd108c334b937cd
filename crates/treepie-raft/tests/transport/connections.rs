//! Connections that are cut or silent, and nodes that come back.

use std::{sync::Arc, time::Duration};

use treepie_raft::{
    transport::{DropReason, Sent},
    wire::Lane,
};

use crate::{
    harness::{Event, Node, append, heartbeat, options},
    proxy::Proxy,
};

fn impatient(id: u64) -> Node {
    Node::with(id, options(id).patience(Duration::from_millis(20), Duration::from_millis(300)))
}

/// Sends until one arrives: those that are on their way while a connection ends are lost.
fn until_one_comes(one: &Node, two: &Node, lane: Lane) {
    for index in 1000.. {
        let message = match lane {
            Lane::Urgent => heartbeat(one, two, index),
            _ => append(one, two, index, &[]),
        };
        one.send(message, &[]);
        let came = |event: &Event| matches!(event, Event::Message(m, ..) if m.index.0 >= 1000);
        if two.take_all().iter().any(came) {
            return;
        }
        std::thread::yield_now();
        assert!(index < 500_000_000, "nothing comes");
    }
}

#[test]
fn connection_that_is_cut_is_made_again_and_reported() {
    let (one, two) = (Node::new(1), Node::new(2));
    let proxy = Proxy::new(&two.address());
    one.join_at(two.id, &proxy.address());
    for _ in 0..10 {
        one.status_until(&two, "connected", |status| status.bulk.is_connected);
        proxy.cut();
        one.wait("report", |event| (*event == Event::Unreachable(two.id)).then_some(()));
        until_one_comes(&one, &two, Lane::Bulk);
        until_one_comes(&one, &two, Lane::Urgent);
    }
    let status = one.transport.status();
    assert!(status[0].urgent.connects > 1 && status[0].bulk.connects > 1, "{status:?}");
}

#[test]
fn node_that_restarts_elsewhere_is_found() {
    let one = Node::new(1);
    let two = Node::new(2);
    one.join(&two);
    two.transport.stop();
    one.status_until(&two, "gone", |status| !status.bulk.is_connected);
    let dropped = one.send(append(&one, &two, 1, &[]), &[]);
    assert_eq!(dropped, Sent::Dropped(DropReason::Unreachable));
    // A vote that is sent meanwhile is kept.
    one.status_until(&two, "gone", |status| !status.urgent.is_connected);
    assert_eq!(one.send(heartbeat(&one, &two, 7), &[]), Sent::Queued);
    let again = Node::new(2);
    one.transport.set_peer(again.id, &again.address());
    again.message(7);
    until_one_comes(&one, &again, Lane::Bulk);
}

#[test]
fn node_that_dials_is_dialled_at_once() {
    // It would be asked again after ten minutes.
    let never = Duration::from_secs(600);
    let one = Node::with(1, options(1).backoff(never, never));
    let two = Node::new(2);
    let proxy = Proxy::new("127.0.0.1:1");
    one.transport.set_peer(two.id, &proxy.address());
    one.status_until(&two, "tried", |status| {
        status.urgent.last_error.is_some() && status.bulk.last_error.is_some()
    });
    proxy.set_target(&two.address());
    two.transport.set_peer(one.id, &one.address());
    let mut lanes = 0;
    one.wait("both lanes", |event| {
        lanes += u32::from(matches!(event, Event::Connected(..)));
        (lanes == 2).then_some(())
    });
}

#[test]
fn peer_that_is_silent_is_given_up_and_dialled_again() {
    let (one, two) = (impatient(1), impatient(2));
    let proxy = Proxy::new(&two.address());
    one.join_at(two.id, &proxy.address());
    proxy.set_silent(true);
    one.status_until(&two, "given up", |status| {
        !status.urgent.is_connected && !status.bulk.is_connected
    });
    proxy.set_silent(false);
    until_one_comes(&one, &two, Lane::Urgent);
    until_one_comes(&one, &two, Lane::Bulk);
}

#[test]
fn connection_without_messages_stays_open() {
    let (one, two) = (impatient(1), impatient(2));
    one.join(&two);
    // Other nodes are restarted meanwhile: some seconds of pings and pongs.
    for _ in 0..3 {
        let three = impatient(3);
        let proxy = Proxy::new(&three.address());
        two.join_at(three.id, &proxy.address());
        proxy.set_silent(true);
        two.status_until(&three, "given up", |status| !status.urgent.is_connected);
        two.transport.remove_peer(three.id);
    }
    let status = one.transport.status();
    assert_eq!((status[0].urgent.connects, status[0].bulk.connects), (1, 1), "{status:?}");
}

#[test]
fn peer_that_is_slow_but_alive_is_not_given_up() {
    let slow = |id| {
        let patience = (Duration::from_millis(20), Duration::from_millis(300));
        options(id).patience(patience.0, patience.1).receive_credit(1 << 20)
    };
    let (one, two) = (Node::with(1, slow(1)), Node::with(2, slow(2)));
    *two.recorder.kept.lock() = Some(Vec::new());
    one.join(&two);
    let record = vec![vec![1; 1 << 20]];
    for index in 0..32 {
        one.send(append(&one, &two, index, &record), &record);
    }
    two.message(0);
    // Nothing is given back while another node is silent for longer than anybody's patience.
    let three = impatient(3);
    let proxy = Proxy::new(&three.address());
    for _ in 0..3 {
        two.join_at(three.id, &proxy.address());
        proxy.set_silent(true);
        two.status_until(&three, "given up", |status| !status.urgent.is_connected);
        two.transport.remove_peer(three.id);
        proxy.set_silent(false);
    }
    two.recorder.kept.lock().take();
    two.message(31);
    assert_eq!(one.transport.status()[0].bulk.connects, 1);
}

#[test]
fn stopped_transport_has_no_threads_left() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    two.join(&one);
    let recorder = Arc::downgrade(&one.recorder);
    one.transport.stop();
    one.transport.stop();
    let beat = heartbeat(&one, &two, 1);
    assert_eq!(one.send(beat, &[]), Sent::Dropped(DropReason::Stopped));
    drop(one);
    assert_eq!(recorder.strong_count(), 0, "a thread still holds the handler");
}

#[test]
fn stopping_does_not_wait_for_a_peer_that_takes_nothing() {
    let (one, two) = (Node::new(1), Node::new(2));
    let proxy = Proxy::new(&two.address());
    one.join_at(two.id, &proxy.address());
    proxy.set_silent(true);
    let record = vec![vec![1; 1 << 20]];
    for index in 0..40 {
        one.send(append(&one, &two, index, &record), &record);
    }
    let recorder = Arc::downgrade(&one.recorder);
    drop(one);
    assert_eq!(recorder.strong_count(), 0);
}
