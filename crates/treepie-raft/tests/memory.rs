//! What messages cost in memory: a record its own bytes, once, at either end; and what a hostile frame
//! claims, little. One test alone, because the allocator counts for the process.

use std::{
    error::Error,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    time::Duration,
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
    wire::{
        FrameKind, FrameReader, Hello, Lane, RESERVE_MAX, Refusal, encode_head, message::PEER_CAPS,
    },
};
use treepie_testkit::{
    hostile::allocations::{Counted, peak_of},
    tally,
};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const MIB: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

enum Event {
    Came(Vec<Vec<u8>>),
    Connected,
}

struct Notes(Mutex<Sender<Event>>);

impl Notes {
    fn note(&self, event: Event) {
        let _ = self.0.lock().send(event);
    }
}

impl Handler for Notes {
    fn admit(&self, _: &Hello) -> Result<(), Refusal> {
        Ok(())
    }

    fn deliver(&self, delivery: Delivery) -> Result<(), Refusal> {
        self.note(Event::Came(delivery.records));
        Ok(())
    }

    fn pages(&self, _: PageStream) {}

    fn unreachable(&self, _: NodeId) {}

    fn connected(&self, _: NodeId, _: Lane) {
        self.note(Event::Connected);
    }
}

impl RecordSource for Notes {
    fn record(&self, _: &EntryRef) -> Result<RecordBytes, Box<dyn Error + Send + Sync>> {
        Err("all are in memory".into())
    }
}

fn start(id: u64, events: Sender<Event>) -> TcpTransport {
    let cluster = ClusterId::default();
    let options = TransportOptions::new(NodeId(id), cluster, "127.0.0.1:0", Security::Loopback);
    let notes = Arc::new(Notes(Mutex::new(events)));
    let source = Arc::clone(&notes);
    TcpTransport::start(options, notes, source).expect("it starts")
}

fn append(len: usize) -> Message {
    let mut message = Message::new(MessageKind::Append, NodeId(1), NodeId(2), Term(1));
    let len = u32::try_from(len).expect("a short record");
    let (lsn, kind) = (Lsn(1), EntryKind::Transaction);
    message.entries = vec![EntryRef { lsn, term: Term(1), kind, len, checksum: 0 }];
    message
}

/// A record goes from one node to another: memory at the peak, of both, beyond the record itself.
fn sending(len: usize) -> usize {
    let (sender, events) = mpsc::channel();
    let (one, two) = (start(1, sender.clone()), start(2, sender));
    let none = "127.0.0.1:1";
    two.set_peer(NodeId(1), none);
    one.set_peer(NodeId(2), &two.local_address().to_string());
    let mut open = 0;
    while open < 2 {
        let event = events.recv_timeout(PATIENCE).expect("they connect");
        open += u32::from(matches!(event, Event::Connected));
    }
    let record = RecordBytes::new(vec![7; len]);
    let (records, peak) = peak_of(|| {
        // It stays in memory, as one that the journal has just taken.
        let sent = one.send(append(len), vec![RecordToSend::Here(record.clone())]);
        assert_eq!(sent, Sent::Queued);
        loop {
            match events.recv_timeout(PATIENCE).expect("it comes") {
                Event::Came(records) => return records,
                Event::Connected => {}
            }
        }
    });
    assert!(records == [vec![7; len]]);
    peak
}

/// Reads bytes that claim a lot: memory at the peak.
fn reading(bytes: &[u8]) -> usize {
    let (whole, peak) = peak_of(|| {
        let mut reader = FrameReader::new(bytes, PEER_CAPS);
        reader.frame().is_ok_and(|frame| frame.is_some())
    });
    assert!(!whole, "there was less than it said");
    peak
}

#[test]
fn record_is_one_allocation_at_each_end_and_a_claim_is_none() {
    let mut peaks = Vec::new();
    for len in [MIB, 4 * MIB, 15 * MIB] {
        let peak = sending(len);
        assert!((len..len + 256 * 1024).contains(&peak), "{len}: {peak}");
        peaks.push(format!("{} KiB of {}", peak / 1024, len / 1024));
    }
    let mut bytes = Vec::new();
    let lens = [3 << 30, 3 << 30];
    let message = append(lens[0]);
    encode_head(&mut bytes, FrameKind::Message, &message, lens.into_iter()).expect("a head");
    bytes.extend([0; 1000]);
    let claimed = reading(&bytes);
    assert!(claimed < RESERVE_MAX + MIB, "{claimed}");
    // What has come is kept twice at most, while it grows.
    bytes.resize(20 * MIB, 0);
    let came = reading(&bytes);
    assert!(came < 3 * 20 * MIB, "{came}");
    let counts = format!("records {}; 6 GiB claimed: {} KiB", peaks.join(", "), claimed / 1024);
    tally::note(8, "frames: memory at the peak", &counts);
}
