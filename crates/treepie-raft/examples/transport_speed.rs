//! How fast messages go from one node to another on this machine, both in this process:
//! `cargo run --release -p treepie-raft --example transport_speed`, with `--features tls` for both.

use std::{
    error::Error,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use treepie::ids::{Lsn, Term};
use treepie_raft::{
    ids::{ClusterId, NodeId},
    message::{EntryKind, EntryRef, Message, MessageKind},
    transport::{
        Delivery, Handler, PageStream, RecordBytes, RecordSource, RecordToSend, Security, Sent,
        TcpTransport, Transport, TransportOptions,
    },
    wire::{Hello, Lane, Refusal},
};

const PATIENCE: Duration = Duration::from_secs(60);
const BEATS: u64 = 20_000;
const SMALL: u64 = 200_000;
const LARGE: u64 = 1000;

/// What came, and when; 0 is a lane that was opened.
struct Notes(Mutex<Sender<(u64, Instant)>>);

impl Notes {
    fn note(&self, number: u64) {
        let _ = self.0.lock().send((number, Instant::now()));
    }
}

impl Handler for Notes {
    fn admit(&self, _: &Hello) -> Result<(), Refusal> {
        Ok(())
    }

    fn deliver(&self, delivery: Delivery) -> Result<(), Refusal> {
        self.note(delivery.message.index.0);
        Ok(())
    }

    fn pages(&self, _: PageStream) {}

    fn unreachable(&self, _: NodeId) {}

    fn connected(&self, _: NodeId, _: Lane) {
        self.note(0);
    }
}

impl RecordSource for Notes {
    fn record(&self, _: &EntryRef) -> Result<RecordBytes, Box<dyn Error + Send + Sync>> {
        Err("all are in memory".into())
    }
}

struct Pair {
    one: TcpTransport,
    _two: TcpTransport,
    events: Receiver<(u64, Instant)>,
}

impl Pair {
    fn new(security: impl Fn(u64) -> Security) -> Pair {
        let (sender, events) = mpsc::channel();
        let start = |id: u64| {
            let cluster = ClusterId::default();
            let options = TransportOptions::new(NodeId(id), cluster, "127.0.0.1:0", security(id));
            let notes = Arc::new(Notes(Mutex::new(sender.clone())));
            let source = Arc::clone(&notes);
            TcpTransport::start(options, notes, source).expect("it starts")
        };
        let (one, two) = (start(1), start(2));
        two.set_peer(NodeId(1), &one.local_address().to_string());
        one.set_peer(NodeId(2), &two.local_address().to_string());
        let pair = Pair { one, _two: two, events };
        (0..4).for_each(|_| _ = pair.wait());
        pair
    }

    fn wait(&self) -> (u64, Instant) {
        self.events.recv_timeout(PATIENCE).expect("it comes")
    }

    /// Times from handing a message over to its delivery, in µs: the median, and of 99 in 100.
    fn latency(&self, kind: MessageKind) -> (f64, f64) {
        let mut times: Vec<f64> = (1..=BEATS)
            .map(|index| {
                let mut message = Message::new(kind, NodeId(1), NodeId(2), Term(1));
                message.index = Lsn(index);
                let begun = Instant::now();
                assert_eq!(self.one.send(message, Vec::new()), Sent::Queued);
                self.wait().1.duration_since(begun).as_secs_f64() * 1e6
            })
            .collect();
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() * 99 / 100])
    }

    /// Sends so many records of a length, as fast as they are taken; returns seconds.
    fn throughput(&self, count: u64, len: usize) -> f64 {
        let record = RecordBytes::new(vec![0x5a; len]);
        let (begun, mut waiting) = (Instant::now(), 0);
        for index in 1..=count {
            let mut message = Message::new(MessageKind::Append, NodeId(1), NodeId(2), Term(1));
            message.index = Lsn(index);
            let len = u32::try_from(len).expect("a short record");
            let (lsn, kind) = (Lsn(index), EntryKind::Transaction);
            message.entries = vec![EntryRef { lsn, term: Term(1), kind, len, checksum: 0 }];
            // As many as a leader has in flight.
            while waiting >= 12 {
                self.wait();
                waiting -= 1;
            }
            let sent = self.one.send(message, vec![RecordToSend::Here(record.clone())]);
            assert_eq!(sent, Sent::Queued, "12 records keep the budget");
            waiting += 1;
        }
        (0..waiting).for_each(|_| _ = self.wait());
        begun.elapsed().as_secs_f64()
    }

    fn measure(&self, name: &str) {
        for kind in [MessageKind::Heartbeat, MessageKind::Append] {
            let (median, high) = self.latency(kind);
            println!("{name}: {kind:?} alone: {median:.1} µs one way, 99 in 100 {high:.1} µs");
        }
        let small = SMALL as f64 / self.throughput(SMALL, 300);
        println!("{name}: records of 300 bytes, 12 in flight: {small:.0} a second");
        let seconds = self.throughput(LARGE, 4 << 20);
        let rate = (LARGE * (4 << 20)) as f64 / 1e6 / seconds;
        println!("{name}: records of 4 MiB, 12 in flight: {rate:.0} MB/s");
    }
}

#[cfg(feature = "tls")]
fn certificates() -> impl Fn(u64) -> Security {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
    use treepie_raft::transport::{Identity, tls::Tls};

    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
    move |id| {
        let identity = Identity::Node { cluster: ClusterId::default(), node: NodeId(id) };
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        let uri = identity.to_string().try_into().expect("it is ASCII");
        params.subject_alt_names = vec![SanType::URI(uri)];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("it is signed");
        let (pem, key) = (certificate.pem(), key.serialize_pem());
        let tls = Tls::new(issuer.pem().as_bytes(), pem.as_bytes(), key.as_bytes());
        Security::Tls(tls.expect("they fit together"))
    }
}

fn main() {
    Pair::new(|_| Security::Loopback).measure("plaintext");
    #[cfg(feature = "tls")]
    Pair::new(certificates()).measure("TLS");
}
