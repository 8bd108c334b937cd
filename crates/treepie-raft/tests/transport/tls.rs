//! Certificates: whose is believed, and whose is not.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
};
use treepie_raft::{
    ids::{ClusterId, NodeId},
    transport::{Identity, Security, TcpTransport, TransportError, TransportOptions, tls::Tls},
    wire::{Lane, Refusal},
};

use crate::harness::{CLUSTER, Event, Node, append, heartbeat, options};

/// An authority.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        Authority { issuer }
    }

    fn sign(&self, uris: &[String], until: i32) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        let uri = |uri: &String| SanType::URI(uri.as_str().try_into().expect("it is ASCII"));
        params.subject_alt_names = uris.iter().map(uri).collect();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("it is signed");
        (certificate.pem(), key.serialize_pem())
    }

    fn tls(&self, identity: &Identity, until: i32) -> Security {
        let (certificate, key) = self.sign(&[identity.to_string()], until);
        let authority = self.issuer.pem();
        let tls = Tls::new(authority.as_bytes(), certificate.as_bytes(), key.as_bytes());
        Security::Tls(tls.expect("they fit together"))
    }

    fn node(&self, id: u64) -> Node {
        let identity = Identity::Node { cluster: CLUSTER, node: NodeId(id) };
        secured(id, self.tls(&identity, 4000))
    }
}

fn secured(id: u64, security: Security) -> Node {
    secured_in(id, CLUSTER, security)
}

fn secured_in(id: u64, cluster: ClusterId, security: Security) -> Node {
    Node::with(id, TransportOptions::new(NodeId(id), cluster, "127.0.0.1:0", security))
}

/// Why there is no connection, as the node that dials sees it.
fn error_of(one: &Node, two: &Node) -> String {
    one.transport.set_peer(two.id, &two.address());
    one.status_until(two, "failed", |status| status.bulk.last_error.is_some());
    let status = one.transport.status();
    assert!(!status[0].bulk.is_connected);
    status[0].bulk.last_error.clone().expect("it was there")
}

#[test]
fn nodes_with_certificates_of_their_cluster_talk() {
    let authority = Authority::new();
    let (one, two) = (authority.node(1), authority.node(2));
    one.join(&two);
    two.join(&one);
    let records = vec![vec![1; 5 << 20], vec![2; 100]];
    let message = append(&one, &two, 1, &records);
    one.send(message.clone(), &records);
    assert_eq!(two.message(1), (message, records, Lane::Bulk));
    two.send(heartbeat(&two, &one, 2), &[]);
    assert_eq!(one.message(2).2, Lane::Urgent);
    let mut stream = one.transport.open_pages(two.id, b"echo".to_vec()).expect("it is there");
    let bytes = vec![3; 3 << 20];
    stream.write_all(&bytes).expect("it is taken");
    stream.finish().expect("it is taken");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("it comes back");
    assert!(back == bytes);
}

#[test]
fn full_bulk_lane_holds_back_no_heartbeat_under_tls() {
    let authority = Authority::new();
    let (one, two) = (authority.node(1), authority.node(2));
    one.join(&two);
    two.recorder.gate.set(true);
    let record = vec![vec![1; 1 << 20]];
    for index in 100..140 {
        one.send(append(&one, &two, index, &record), &record);
    }
    for index in 0..50 {
        one.send(heartbeat(&one, &two, index), &[]);
        two.message(index);
    }
    two.recorder.gate.set(false);
    for index in 100..140 {
        assert_eq!(two.message(index).1, record);
    }
}

#[test]
fn certificate_of_another_node_is_not_believed() {
    let authority = Authority::new();
    let two = authority.node(2);
    // Where node 2 should be, node 3 answers.
    let three = authority.node(3);
    let one = authority.node(1);
    one.transport.set_peer(two.id, &three.address());
    one.wait("reason", |event| {
        (*event == Event::Refused(two.id, Refusal::Certificate)).then_some(())
    });
    // A node does not start with the certificate of another one.
    let identity = Identity::Node { cluster: CLUSTER, node: NodeId(4) };
    let security = authority.tls(&identity, 4000);
    let options = TransportOptions::new(NodeId(5), CLUSTER, "127.0.0.1:0", security.clone());
    let (handler, source) = (Arc::clone(&one.recorder), Arc::clone(&one.recorder));
    let error = TcpTransport::start(options, handler, source).expect_err("it is of node 4");
    assert!(matches!(error, TransportError::OwnCertificate { .. }), "{error}");
}

#[test]
fn hello_that_contradicts_the_certificate_is_refused() {
    use std::time::{Duration, Instant};
    use treepie_raft::wire::{FrameKind, FrameReader, Hello, hello::HELLO_CAPS, write_frame};

    let authority = Authority::new();
    let two = authority.node(2);
    let client = Identity::Client { cluster: CLUSTER, name: "app".to_owned() };
    let node = Identity::Node { cluster: CLUSTER, node: NodeId(1) };
    let other = ClusterId { epoch: 2, ..CLUSTER };
    let stranger = Identity::Node { cluster: other, node: NodeId(3) };
    // A node that claims to be another one, one of another cluster, and a client.
    for identity in [node, stranger, client] {
        let stream = TcpStream::connect(two.transport.local_address()).expect("it listens");
        let deadline = Instant::now() + Duration::from_secs(60);
        let security = authority.tls(&identity, 4000);
        let mut socket = security.connect(stream, deadline).expect("the authority is right");
        assert!(socket.identity().is_node(CLUSTER, two.id));
        let hello = Hello {
            cluster: CLUSTER,
            from: NodeId(3),
            to: two.id,
            lane: Lane::Urgent,
            page_format: 1,
            address: String::new(),
            purpose: Vec::new(),
        };
        write_frame(&mut socket, FrameKind::Hello, &hello, &[]).expect("it is taken");
        let answer = FrameReader::new(socket, HELLO_CAPS).frame().expect("it answers");
        let refusal: Refusal = answer.expect("it answers").control().expect("a refusal");
        assert_eq!(refusal, Refusal::Certificate, "{identity}");
    }
}

#[test]
fn certificates_of_other_authorities_clusters_and_times_are_not_believed() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let two = authority.node(2);
    // The side that dials refuses first.
    let error = error_of(&foreign.node(1), &two);
    assert!(error.contains("invalid peer certificate"), "{error}");
    let expired = authority.tls(&Identity::Node { cluster: CLUSTER, node: NodeId(1) }, 2001);
    let error = error_of(&secured(1, expired.clone()), &two);
    assert!(error.to_lowercase().contains("expired"), "{error}");
    let late = secured(1, expired);
    let error = error_of(&authority.node(3), &late);
    assert!(error.to_lowercase().contains("expired"), "{error}");
    let other = ClusterId { epoch: 2, ..CLUSTER };
    let identity = Identity::Node { cluster: other, node: NodeId(1) };
    let one = secured_in(1, other, authority.tls(&identity, 4000));
    let error = error_of(&one, &two);
    assert_eq!(error, "this is not node 2: the certificate is not that of this node");
}

#[test]
fn plaintext_and_tls_do_not_talk() {
    let authority = Authority::new();
    let (plain, secure) = (Node::with(1, options(1)), authority.node(2));
    error_of(&plain, &secure);
    let secure_one = authority.node(3);
    let plain_two = Node::with(2, options(2));
    error_of(&secure_one, &plain_two);
    assert!(plain_two.transport.status().is_empty() && secure.transport.status().is_empty());
}

#[test]
fn certificate_that_names_nobody_or_several_is_refused() {
    let authority = Authority::new();
    let root = authority.issuer.pem();
    let name = |node| Identity::Node { cluster: CLUSTER, node: NodeId(node) }.to_string();
    for (uris, wanted) in [
        (vec![], "a certificate names nobody"),
        (vec!["https://here/".to_owned()], "a certificate names no node and no client"),
        (vec![name(1), name(2)], "a certificate names more than one node or client"),
    ] {
        let (certificate, key) = authority.sign(&uris, 4000);
        let error = Tls::new(root.as_bytes(), certificate.as_bytes(), key.as_bytes());
        assert_eq!(error.expect_err("it names nobody").to_string(), wanted);
    }
    let (certificate, key) = authority.sign(&[name(1)], 4000);
    let (_, other) = authority.sign(&[name(1)], 4000);
    for (root, certificate, key) in [
        (root.as_str(), certificate.as_str(), other.as_str()),
        ("", certificate.as_str(), key.as_str()),
        (root.as_str(), "", key.as_str()),
        (root.as_str(), certificate.as_str(), ""),
        (root.as_str(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key),
    ] {
        let error = Tls::new(root.as_bytes(), certificate.as_bytes(), key.as_bytes());
        assert!(matches!(error, Err(TransportError::Certificate { .. })), "{error:?}");
    }
}
