//! Nodes that note what happens to them.

use std::{
    error::Error,
    io::Read,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, Receiver, Sender},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use treepie::ids::{DatabaseId, Lsn, Term};
use treepie_raft::{
    ids::{ClusterId, NodeId},
    message::{EntryKind, EntryRef, Message, MessageKind},
    transport::{
        Credit, Delivery, Handler, PageStream, RecordBytes, RecordSource, RecordToSend, Security,
        Sent, TcpTransport, Transport, TransportOptions,
    },
    wire::{Hello, Lane, Refusal},
};

/// How long something may take that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const CLUSTER: ClusterId = ClusterId { database: DatabaseId([7; 16]), epoch: 1 };

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Message(Message, Vec<Vec<u8>>, Lane),
    Pages(NodeId, Vec<u8>, Result<Vec<u8>, String>),
    Unreachable(NodeId),
    Connected(NodeId, Lane),
    Refused(NodeId, Refusal),
}

/// Whether bulk messages are taken.
#[derive(Default)]
pub struct Gate {
    is_shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub fn set(&self, is_shut: bool) {
        *self.is_shut.lock() = is_shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut is_shut = self.is_shut.lock();
        while *is_shut {
            self.changed.wait(&mut is_shut);
        }
    }
}

/// What a node does with what comes.
pub struct Recorder {
    events: Mutex<Sender<Event>>,
    transport: OnceLock<Weak<TcpTransport>>,
    pub gate: Gate,
    /// Records are taken as they come, damaged or not.
    pub is_blind: AtomicBool,
    /// Refused by `admit`.
    pub refusal: Mutex<Option<Refusal>>,
    /// Credits that are kept, where that was asked for.
    pub kept: Mutex<Option<Vec<Credit>>>,
    /// Records that are not in memory.
    pub stored: Mutex<Vec<(Lsn, Vec<u8>)>>,
}

impl Recorder {
    fn note(&self, event: Event) {
        // The test may have ended.
        let _ = self.events.lock().send(event);
    }
}

impl Handler for Recorder {
    fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        if let Some(refusal) = *self.refusal.lock() {
            return Err(refusal);
        }
        if let Some(transport) = self.transport.get().and_then(Weak::upgrade)
            && !transport.status().iter().any(|peer| peer.node == hello.from)
        {
            transport.set_peer(hello.from, &hello.address);
        }
        Ok(())
    }

    fn deliver(&self, delivery: Delivery) -> Result<(), Refusal> {
        let Delivery { message, records, credit, lane, .. } = delivery;
        for (entry, record) in message.entries.iter().zip(&records) {
            if crc32fast::hash(record) != entry.checksum && !self.is_blind.load(Relaxed) {
                return Err(Refusal::Damaged);
            }
        }
        if lane == Lane::Bulk {
            self.gate.pass();
        }
        if let Some(kept) = &mut *self.kept.lock() {
            kept.push(credit);
        }
        self.note(Event::Message(message, records, lane));
        Ok(())
    }

    fn pages(&self, mut stream: PageStream) {
        let (node, purpose) = (stream.node(), stream.purpose().to_vec());
        if purpose == b"refuse" {
            return stream.refuse(Refusal::Lane);
        }
        let mut bytes = Vec::new();
        self.gate.pass();
        let read = stream.read_to_end(&mut bytes).map(|_| bytes).map_err(|e| e.to_string());
        if let (Ok(bytes), b"echo") = (&read, &purpose[..]) {
            let _ = std::io::Write::write_all(&mut stream, bytes).and_then(|()| stream.finish());
        }
        self.note(Event::Pages(node, purpose, read));
    }

    fn unreachable(&self, node: NodeId) {
        self.note(Event::Unreachable(node));
    }

    fn connected(&self, node: NodeId, lane: Lane) {
        self.note(Event::Connected(node, lane));
    }

    fn refused(&self, node: NodeId, refusal: Refusal) {
        self.note(Event::Refused(node, refusal));
    }
}

impl RecordSource for Recorder {
    fn record(&self, entry: &EntryRef) -> Result<RecordBytes, Box<dyn Error + Send + Sync>> {
        let stored = self.stored.lock();
        let found = stored.iter().find(|(lsn, _)| *lsn == entry.lsn);
        found.map(|(_, bytes)| RecordBytes::new(bytes.clone())).ok_or_else(|| "trimmed".into())
    }
}

/// A node.
pub struct Node {
    pub id: NodeId,
    pub transport: Arc<TcpTransport>,
    pub recorder: Arc<Recorder>,
    events: Receiver<Event>,
}

pub fn options(id: u64) -> TransportOptions {
    TransportOptions::new(NodeId(id), CLUSTER, "127.0.0.1:0", Security::Loopback)
        .backoff(Duration::from_millis(1), Duration::from_millis(50))
}

impl Node {
    pub fn new(id: u64) -> Node {
        Node::with(id, options(id))
    }

    pub fn with(id: u64, options: TransportOptions) -> Node {
        let (sender, events) = mpsc::channel();
        let recorder = Arc::new(Recorder {
            events: Mutex::new(sender),
            transport: OnceLock::new(),
            gate: Gate::default(),
            is_blind: AtomicBool::new(false),
            refusal: Mutex::default(),
            kept: Mutex::default(),
            stored: Mutex::default(),
        });
        let (handler, source) = (Arc::clone(&recorder), Arc::clone(&recorder));
        let transport = TcpTransport::start(options, handler, source).expect("it starts");
        let transport = Arc::new(transport);
        recorder.transport.set(Arc::downgrade(&transport)).expect("it is set once");
        Node { id: NodeId(id), transport, recorder, events }
    }

    pub fn address(&self) -> String {
        self.transport.local_address().to_string()
    }

    /// Makes another node known to this one, and waits until both lanes are open.
    pub fn join(&self, other: &Node) {
        self.join_at(other.id, &other.address());
    }

    pub fn join_at(&self, other: NodeId, address: &str) {
        self.transport.set_peer(other, address);
        let mut lanes = 0;
        self.wait("both lanes", |event| {
            lanes += u32::from(matches!(event, Event::Connected(node, _) if *node == other));
            (lanes == 2).then_some(())
        });
    }

    pub fn send(&self, message: Message, records: &[Vec<u8>]) -> Sent {
        let here = |record: &Vec<u8>| RecordToSend::Here(RecordBytes::new(record.clone()));
        self.transport.send(message, records.iter().map(here).collect())
    }

    /// Waits for an event in which there is what is looked for, and returns that.
    pub fn wait<T>(&self, what: &str, mut find: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left);
            let event = event.unwrap_or_else(|_| panic!("node {}: no {what}", self.id));
            if let Some(found) = find(&event) {
                return found;
            }
        }
    }

    /// What has happened until now.
    pub fn take_all(&self) -> Vec<Event> {
        self.events.try_iter().collect()
    }

    /// Waits for the message with this index, and returns it with its records and its lane.
    pub fn message(&self, index: u64) -> (Message, Vec<Vec<u8>>, Lane) {
        self.wait(&format!("message {index}"), |event| match event {
            Event::Message(message, records, lane) if message.index.0 == index => {
                Some((message.clone(), records.clone(), *lane))
            }
            _ => None,
        })
    }

    /// Waits until the status of a peer is as wished.
    pub fn status_until(
        &self,
        peer: &Node,
        what: &str,
        is_so: impl Fn(&treepie_raft::transport::PeerStatus) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let status = self.transport.status();
            if status.iter().any(|status| status.node == peer.id && is_so(status)) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("never {what}: {:?}", self.transport.status());
    }
}

/// A message that keeps leadership.
pub fn heartbeat(from: &Node, to: &Node, index: u64) -> Message {
    let mut message = Message::new(MessageKind::Heartbeat, from.id, to.id, Term(3));
    message.index = Lsn(index);
    message
}

/// A message with records.
pub fn append(from: &Node, to: &Node, index: u64, records: &[Vec<u8>]) -> Message {
    let mut message = Message::new(MessageKind::Append, from.id, to.id, Term(3));
    message.index = Lsn(index);
    message.entries = (1..)
        .zip(records)
        .map(|(number, record)| EntryRef {
            lsn: Lsn(index + number),
            term: Term(3),
            kind: EntryKind::Transaction,
            len: u32::try_from(record.len()).expect("a short record"),
            checksum: crc32fast::hash(record),
        })
        .collect();
    message
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that fails must not wait for itself.
        self.recorder.gate.set(false);
    }
}
