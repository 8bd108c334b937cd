//! Certificates: who is served, and who is believed.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
};
use tempfile::TempDir;
use treepie::Database;
use treepie_raft::{
    ids::{ClusterId, NodeId},
    service::{Client, ClientError, ClientOptions, Server, ServerOptions, Standalone},
    transport::{Identity, Security, tls::Tls},
};

use crate::serving::{database, patient};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Authority { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    fn security(&self, identity: &Identity, until: i32) -> Security {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let uri = identity.to_string();
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let tls = Tls::new(
            self.issuer.pem().as_bytes(),
            certificate.as_bytes(),
            key.serialize_pem().as_bytes(),
        );
        Security::Tls(tls.unwrap())
    }
}

struct Secured {
    server: Server,
    db: Database,
    cluster: ClusterId,
    _folder: TempDir,
}

impl Secured {
    /// A server of node 1, whose certificate says what `name` makes of the cluster.
    fn new(authority: &Authority, name: impl Fn(ClusterId) -> Identity) -> Secured {
        let (db, folder) = database();
        let cluster = ClusterId { database: db.id(), epoch: db.lineage().epoch };
        let options = ServerOptions::new().security(authority.security(&name(cluster), 4000));
        let store = Arc::new(Standalone::new(db.clone(), NodeId(1), ""));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::start(listener, store, options).unwrap();
        Secured { server, db, cluster, _folder: folder }
    }

    fn connect(&self, security: Security) -> Result<Client, ClientError> {
        Client::connect([self.server.address()], patient().security(security))
    }

    fn refused(&self, security: Security) -> String {
        let options = ClientOptions::new().timeout(Duration::from_millis(200)).security(security);
        Client::connect([self.server.address()], options).unwrap_err().to_string()
    }
}

fn node_1(cluster: ClusterId) -> Identity {
    Identity::Node { cluster, node: NodeId(1) }
}

fn client_of(cluster: ClusterId) -> Identity {
    Identity::Client { cluster, name: "app".to_owned() }
}

#[test]
fn client_with_a_certificate_of_the_cluster_is_served() {
    let authority = Authority::new();
    let secured = Secured::new(&authority, node_1);
    let client = secured.connect(authority.security(&client_of(secured.cluster), 4000)).unwrap();
    for len in [0, 1, 16_383, 100_000, 5 << 20] {
        let value = vec![7; len];
        client.put("t", len.to_be_bytes(), &value).unwrap();
        assert!(client.get("t", len.to_be_bytes()).unwrap().value.unwrap() == value, "{len}");
    }
    thread::scope(|scope| {
        for thread in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                for n in 0..100 {
                    let key = format!("{thread}/{n}");
                    client.put("u", &key, &key).unwrap();
                    let got = client.get("u", &key).unwrap().value;
                    assert_eq!(got.as_deref(), Some(key.as_bytes()));
                }
            });
        }
    });
    assert_eq!(secured.db.read().unwrap().tree("u").unwrap().len(), 800);
    let counters = secured.server.counters();
    assert_eq!((counters.accepted, counters.broken), (1, 0));
}

#[test]
fn client_of_another_cluster_authority_or_time_is_not_served() {
    let authority = Authority::new();
    let secured = Secured::new(&authority, node_1);
    let other = client_of(ClusterId { epoch: 7, ..secured.cluster });
    let said = secured.refused(authority.security(&other, 4000));
    assert!(said.contains("another cluster is served there"), "{said}");
    let hellos = secured.server.counters().requests;
    let ours = client_of(secured.cluster);
    secured.refused(Authority::new().security(&ours, 4000));
    secured.refused(authority.security(&ours, 2001));
    secured.refused(Security::Loopback);
    assert_eq!(secured.server.counters().requests, hellos, "none got as far as a hello");
    secured.connect(authority.security(&ours, 4000)).unwrap().put("t", "k", "v").unwrap();
}

#[test]
fn server_that_is_not_the_node_it_says_is_not_believed() {
    let authority = Authority::new();
    let ours = |secured: &Secured| authority.security(&client_of(secured.cluster), 4000);
    let secured = Secured::new(&authority, |cluster| Identity::Node { cluster, node: NodeId(2) });
    let said = secured.refused(ours(&secured));
    assert!(said.contains("its certificate does not"), "{said}");
    // A client's certificate is none of a node.
    let secured = Secured::new(&authority, client_of);
    let said = secured.refused(ours(&secured));
    assert!(said.contains("its certificate does not"), "{said}");
    let secured = Secured::new(&Authority::new(), node_1);
    secured.refused(ours(&secured));
}

#[test]
fn bytes_that_are_no_tls_end_the_connection() {
    let authority = Authority::new();
    let secured = Secured::new(&authority, node_1);
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3], &[0; 100]] {
        let mut stream = TcpStream::connect(secured.server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // An alert may come before the end.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.len() < 100);
    }
    let ours = client_of(secured.cluster);
    secured.connect(authority.security(&ours, 4000)).unwrap().put("t", "k", "v").unwrap();
}

#[test]
fn plaintext_is_served_within_this_machine_only() {
    let (db, _folder) = database();
    let store = Arc::new(Standalone::new(db, NodeId(1), ""));
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(Server::start(listener, store, ServerOptions::new()).is_err());
    let error = Client::connect([format!("192.0.2.1:{port}")], ClientOptions::new()).unwrap_err();
    assert!(matches!(error, ClientError::Address { .. }), "{error}");
}
