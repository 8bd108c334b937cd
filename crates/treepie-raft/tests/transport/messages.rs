//! What is sent comes, in its order, and waits for nothing that it need not wait for.

use std::sync::Arc;

use treepie::ids::Lsn;
use treepie_raft::{
    message::{Message, MessageKind},
    transport::{DropReason, RecordToSend, Sent, Transport},
    wire::{Lane, Refusal},
};

use crate::harness::{Event, Node, append, heartbeat, options};

const MIB: usize = 1 << 20;

#[test]
fn messages_come_as_they_went_on_their_lanes() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    let records = vec![b"first".to_vec(), vec![0xab; 4 * MIB], Vec::new()];
    let sent = append(&one, &two, 10, &records);
    assert_eq!(one.send(sent.clone(), &records), Sent::Queued);
    assert_eq!(two.message(10), (sent, records, Lane::Bulk));
    let beat = heartbeat(&one, &two, 11);
    assert_eq!(one.send(beat.clone(), &[]), Sent::Queued);
    assert_eq!(two.message(11), (beat, Vec::new(), Lane::Urgent));
    // The hello has said where the other one is.
    let reply = Message::new(MessageKind::HeartbeatReply, two.id, one.id, sent_term());
    two.status_until(&one, "connected", |status| status.urgent.is_connected);
    assert_eq!(two.send(reply, &[]), Sent::Queued);
    one.message(0);
}

fn sent_term() -> treepie::ids::Term {
    treepie::ids::Term(3)
}

#[test]
fn messages_of_a_lane_keep_their_order() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    let record = vec![vec![5; 3000]];
    for index in 0..600 {
        assert_eq!(one.send(append(&one, &two, index, &record), &record), Sent::Queued);
    }
    let mut next = 0;
    two.wait("all of them", |event| {
        if let Event::Message(message, _, Lane::Bulk) = event {
            assert_eq!(message.index, Lsn(next));
            next += 1;
        }
        (next == 600).then_some(())
    });
    let status = one.transport.status();
    let bulk = &status[0].bulk;
    assert_eq!((bulk.sent_messages, bulk.dropped, bulk.connects), (600, 0, 1), "{bulk:?}");
    assert!(bulk.sent_bytes > 600 * 3000, "{bulk:?}");
    two.status_until(&one, "all counted", |status| status.bulk.received_messages == 600);
}

#[test]
fn record_that_is_not_in_memory_is_read_by_the_sending_thread() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    let records = vec![vec![1; 100], vec![2; 200]];
    one.recorder.stored.lock().push((Lsn(22), records[1].clone()));
    let message = append(&one, &two, 20, &records);
    let (sent, read) = (message.clone(), records.clone());
    let first = treepie_raft::transport::RecordBytes::new(Arc::<[u8]>::from(&records[0][..]));
    let places = vec![RecordToSend::Here(first), RecordToSend::Stored];
    assert_eq!(one.transport.send(message, places), Sent::Queued);
    assert_eq!(two.message(20), (sent, read, Lane::Bulk));
    // One that was trimmed, and one of another length, are reported; what follows comes.
    for index in [30, 21] {
        let message = append(&one, &two, index, &[vec![1; 100]]);
        assert_eq!(one.transport.send(message, vec![RecordToSend::Stored]), Sent::Queued);
        one.wait("report", |event| (*event == Event::Unreachable(two.id)).then_some(()));
    }
    assert_eq!(one.send(append(&one, &two, 40, &[]), &[]), Sent::Queued);
    two.message(40);
    assert_eq!(one.transport.status()[0].bulk.dropped, 2);
}

#[test]
fn heartbeats_pass_a_bulk_lane_that_is_full() {
    let small = |id| options(id).send_credit(8 << 20).receive_credit(4 << 20);
    let (one, two) = (Node::with(1, small(1)), Node::with(2, small(2)));
    one.join(&two);
    two.recorder.gate.set(true);
    let record = vec![vec![9; MIB]];
    let mut accepted = 0;
    // The sockets between them hold some, but not more than a bounded number of bytes.
    while one.send(append(&one, &two, 100 + accepted, &record), &record) == Sent::Queued
        || one.transport.status()[0].bulk.queued_bytes < (7 << 20)
    {
        accepted += 1;
        assert!(accepted < 10_000_000, "nothing holds it back");
    }
    let full = one.send(append(&one, &two, 99, &record), &record);
    assert_eq!(full, Sent::Dropped(DropReason::OverBudget));
    for index in 0..100 {
        assert_eq!(one.send(heartbeat(&one, &two, index), &[]), Sent::Queued);
        assert_eq!(two.message(index).2, Lane::Urgent);
    }
    two.recorder.gate.set(false);
    two.message(100);
    one.status_until(&two, "empty", |status| status.bulk.queued_bytes == 0);
    assert_eq!(one.send(append(&one, &two, 98, &record), &record), Sent::Queued);
    two.message(98);
}

#[test]
fn records_that_are_not_dealt_with_hold_back_who_sends_them() {
    let (one, two) = (Node::new(1), Node::with(2, options(2).receive_credit(3 << 20)));
    *two.recorder.kept.lock() = Some(Vec::new());
    one.join(&two);
    let record = vec![vec![9; MIB]];
    for index in 0..12 {
        assert_eq!(one.send(append(&one, &two, index, &record), &record), Sent::Queued);
    }
    two.message(2);
    two.status_until(&one, "full", |status| status.receiving == 3 << 20);
    for index in 3..12 {
        let oldest = two.recorder.kept.lock().as_mut().map(|kept| kept.remove(0));
        assert_eq!(oldest.expect("they are kept").bytes(), MIB as u64);
        two.message(index);
    }
    assert_eq!(two.transport.status()[0].receiving, 3 << 20);
    two.recorder.kept.lock().take();
    assert_eq!(two.transport.status()[0].receiving, 0);
}

#[test]
fn record_that_is_damaged_ends_the_connection_and_the_next_one_works() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    let mut message = append(&one, &two, 1, &[vec![1; 100]]);
    message.entries[0].checksum ^= 1;
    assert_eq!(one.send(message, &[vec![1; 100]]), Sent::Queued);
    one.wait("reason", |event| (*event == Event::Refused(two.id, Refusal::Damaged)).then_some(()));
    one.wait("connection", |event| (*event == Event::Connected(two.id, Lane::Bulk)).then_some(()));
    assert_eq!(one.send(append(&one, &two, 2, &[]), &[]), Sent::Queued);
    two.message(2);
}

#[test]
fn message_of_another_node_ends_the_connection() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    let mut forged = heartbeat(&one, &two, 1);
    forged.from = treepie_raft::ids::NodeId(3);
    assert_eq!(one.send(forged, &[]), Sent::Queued);
    one.wait("reason", |event| (*event == Event::Refused(two.id, Refusal::Damaged)).then_some(()));
    // A wish to hand over is forwarded with the number of who is to lead.
    let mut forwarded = heartbeat(&one, &two, 2);
    forwarded.kind = MessageKind::TransferLeader;
    forwarded.from = treepie_raft::ids::NodeId(3);
    assert_eq!(one.send(forwarded, &[]), Sent::Queued);
    two.message(2);
}

#[test]
fn message_to_nobody_is_dropped() {
    let (one, two) = (Node::new(1), Node::new(2));
    let beat = heartbeat(&one, &two, 1);
    assert_eq!(one.send(beat.clone(), &[]), Sent::Dropped(DropReason::UnknownPeer));
    one.join(&two);
    one.transport.remove_peer(two.id);
    assert_eq!(one.send(beat, &[]), Sent::Dropped(DropReason::UnknownPeer));
    two.status_until(&one, "alone", |status| status.urgent.is_connected);
}
