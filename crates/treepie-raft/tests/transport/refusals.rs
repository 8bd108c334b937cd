//! Who is not let in, and that both sides are told why.

use std::{io::Read, net::TcpStream, sync::Arc, time::Duration};

use treepie_raft::{
    ids::{ClusterId, NodeId},
    transport::{Security, TcpTransport, TransportError, TransportOptions},
    wire::Refusal,
};

use crate::harness::{CLUSTER, Event, Node, options};

/// A node dials another one, and gets to see why it is not wanted.
fn refused(one: &Node, wanted: NodeId, two: &Node, refusal: Refusal) {
    one.transport.set_peer(wanted, &two.address());
    one.wait(&refusal.to_string(), |event| {
        (*event == Event::Refused(wanted, refusal)).then_some(())
    });
    let status = one.transport.status();
    let lanes = status.iter().flat_map(|peer| [&peer.urgent, &peer.bulk]);
    assert!(lanes.into_iter().any(|lane| lane.refusal == Some(refusal)), "{status:?}");
}

fn of_cluster(id: u64, cluster: ClusterId) -> Node {
    let listen = "127.0.0.1:0";
    Node::with(id, TransportOptions::new(NodeId(id), cluster, listen, Security::Loopback))
}

#[test]
fn nodes_of_other_clusters_lineages_numbers_and_formats_are_refused() {
    let two = Node::new(2);
    let other = ClusterId { database: treepie::ids::DatabaseId([8; 16]), ..CLUSTER };
    let forked = ClusterId { epoch: 2, ..CLUSTER };
    for cluster in [other, forked] {
        let one = of_cluster(1, cluster);
        refused(&one, two.id, &two, Refusal::OtherCluster { ours: CLUSTER });
    }
    refused(&Node::new(1), NodeId(3), &two, Refusal::OtherNode { ours: two.id });
    let newer = Node::with(1, options(1).page_format(2));
    refused(&newer, two.id, &two, Refusal::PageFormat { ours: 1 });
    assert!(two.transport.status().is_empty(), "nobody was let in");
}

#[test]
fn node_that_was_removed_is_told_and_is_let_in_when_it_is_a_member_again() {
    let (one, two) = (Node::new(1), Node::new(2));
    for refusal in [Refusal::Removed, Refusal::Stranger] {
        *two.recorder.refusal.lock() = Some(refusal);
        refused(&one, two.id, &two, refusal);
    }
    *two.recorder.refusal.lock() = None;
    one.status_until(&two, "let in", |status| {
        status.urgent.is_connected && status.bulk.is_connected && status.bulk.refusal.is_none()
    });
}

#[test]
fn node_with_the_number_of_this_one_is_refused() {
    let (one, again) = (Node::new(1), Node::new(1));
    // It dials a third number at the address of the first: that is not there either.
    refused(&again, NodeId(2), &one, Refusal::OtherNode { ours: one.id });
}

#[test]
fn page_streams_are_refused_with_a_reason() {
    let (one, two) = (Node::new(1), Node::new(2));
    let error = one.transport.open_pages(two.id, Vec::new()).expect_err("it is not known");
    assert!(matches!(error, TransportError::UnknownPeer(NodeId(2))), "{error}");
    *two.recorder.refusal.lock() = Some(Refusal::Removed);
    one.transport.set_peer(two.id, &two.address());
    let error = one.transport.open_pages(two.id, Vec::new()).expect_err("it was removed");
    assert_eq!(error.refusal(), Some(Refusal::Removed));
    assert_eq!(error.to_string(), "node 2 refuses: this node was removed from the cluster");
}

#[test]
fn plaintext_stays_on_this_machine() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let one = Node::new(1);
        let options = TransportOptions::new(NodeId(9), CLUSTER, listen, Security::Loopback);
        let (handler, source) = (Arc::clone(&one.recorder), Arc::clone(&one.recorder));
        let error = TcpTransport::start(options, handler, source).expect_err("it is not allowed");
        assert!(
            matches!(error, TransportError::PlaintextBeyondLoopback { .. }),
            "{listen}: {error}"
        );
    }
    // Nor is anybody else dialled without it.
    let (one, two) = (Node::new(1), Node::new(2));
    one.transport.set_peer(two.id, "192.0.2.1:7000");
    one.status_until(&two, "refused", |status| {
        let error = status.bulk.last_error.as_deref().unwrap_or_default();
        error.starts_with("192.0.2.1:7000 is reachable from other machines")
    });
}

#[test]
fn connections_beyond_their_number_are_closed() {
    let hello_timeout = Duration::from_secs(600);
    let few = options(2).connections_max(3).connect_timeouts(hello_timeout, hello_timeout);
    let two = Node::with(2, few);
    let dial = || TcpStream::connect(two.transport.local_address()).expect("it listens");
    let waiting: Vec<TcpStream> = (0..3).map(|_| dial()).collect();
    assert_eq!(dial().read(&mut [0; 1]).unwrap_or(0), 0, "there are three already");
    drop(waiting);
    // There is room again.
    let one = Node::new(1);
    one.join(&two);
}
