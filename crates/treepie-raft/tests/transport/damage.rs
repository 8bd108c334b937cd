//! Bytes that change on their way, and bytes of somebody who speaks something else.

use std::{
    env,
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::Ordering,
    time::Duration,
};

use treepie_raft::{
    message::Message,
    wire::{
        FrameKind, FrameReader, Hello, Lane, Refusal, Welcome, WireError, hello::HELLO_CAPS,
        write_frame,
    },
};
use treepie_testkit::{Rng, mix, tally};

use crate::{
    harness::{CLUSTER, Event, Node, append, heartbeat, options},
    proxy::Proxy,
};

fn seeds() -> Vec<u64> {
    let number = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("TREEPIE_SEED") {
        Some(seed) => vec![seed],
        None => (0..60 * number("TREEPIE_SEEDS").unwrap_or(1)).collect(),
    }
}

/// The message with this index, and its record, which follows from it.
fn made(one: &Node, two: &Node, index: u64) -> (Message, Vec<Vec<u8>>) {
    let mut rng = Rng::new(mix(9, index));
    if index.is_multiple_of(3) {
        return (heartbeat(one, two, index), Vec::new());
    }
    let len = rng.range(1..2000);
    let records = vec![rng.bytes(len)];
    (append(one, two, index, &records), records)
}

/// What came must be what was sent; returns how much it was.
fn check(one: &Node, two: &Node, seed: u64) -> usize {
    let mut count = 0;
    for event in two.take_all() {
        if let Event::Message(message, records, _) = event {
            let rerun =
                format!("TREEPIE_SEED={seed} cargo test -p treepie-raft --test transport damage");
            assert_eq!((message.clone(), records), made(one, two, message.index.0), "{rerun}");
            count += 1;
        }
    }
    count
}

#[test]
fn flipped_bits_are_never_delivered_and_connections_recover() {
    let (one, two) = (Node::new(1), Node::new(2));
    let proxy = Proxy::new(&two.address());
    one.join_at(two.id, &proxy.address());
    let (mut index, mut came) = (0, 0);
    let all = seeds();
    for seed in &all {
        let mut rng = Rng::new(mix(8, *seed));
        proxy.flip(rng.below(6000), (rng.next_u64() % 8) as u8);
        while proxy.is_to_flip() {
            index += 1;
            let (message, records) = made(&one, &two, index);
            one.send(message, &records);
            came += check(&one, &two, *seed);
            std::thread::yield_now();
        }
        // Then something comes on both lanes again.
        for kind in [0, 1] {
            let before = index;
            loop {
                index += 1;
                let wanted = index * 3 + kind;
                let (message, records) = made(&one, &two, wanted);
                one.send(message, &records);
                let now = check(&one, &two, *seed);
                came += now;
                if now > 0 {
                    break;
                }
                std::thread::yield_now();
                assert!(index < before + 500_000_000, "seed {seed}: nothing comes");
            }
        }
    }
    let counts = format!("{} flips, {} messages came", all.len(), tally::thousands(came as u64));
    tally::note(8, "frames: flipped on their way", &counts);
}

#[test]
fn damaged_record_is_noticed_where_its_owner_does_not_verify_it() {
    let (one, two) = (Node::new(1), Node::new(2));
    let proxy = Proxy::new(&two.address());
    one.join_at(two.id, &proxy.address());
    two.recorder.is_blind.store(true, Ordering::Relaxed);
    proxy.flip(50_000, 0);
    let records = vec![vec![0; 100_000]];
    one.send(append(&one, &two, 1, &records), &records);
    let came = two.message(1).1;
    assert_eq!(came[0].iter().map(|byte| u32::from(*byte)).sum::<u32>(), 1, "the planted bit");
}

/// Says something to a node, and reads what it answers until it closes the connection.
fn say(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.transport.local_address()).expect("it listens");
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    // It may be closed before everything was read.
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn hello(lane: Lane) -> Vec<u8> {
    let hello = Hello {
        cluster: CLUSTER,
        from: treepie_raft::ids::NodeId(1),
        to: treepie_raft::ids::NodeId(2),
        lane,
        page_format: 1,
        address: "127.0.0.1:1".to_owned(),
        purpose: Vec::new(),
    };
    let mut bytes = Vec::new();
    write_frame(&mut bytes, FrameKind::Hello, &hello, &[]).expect("it keeps its bounds");
    bytes
}

#[test]
fn strangers_who_speak_something_else_are_shut_out() {
    let two = Node::with(
        2,
        options(2).connect_timeouts(Duration::from_secs(1), Duration::from_millis(50)),
    );
    assert_eq!(say(&two, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n and more than a header"), b"");
    assert_eq!(say(&two, &[0; 5000]), b"");
    // Half a hello, then silence: it waits for so long, and no longer.
    let half = &hello(Lane::Urgent)[..50];
    let mut stream = TcpStream::connect(two.transport.local_address()).expect("it listens");
    stream.write_all(half).expect("it is taken");
    assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0);
    let one = Node::new(1);
    one.join(&two);
}

#[test]
fn another_version_of_the_protocol_is_told_which_one_is_spoken() {
    let two = Node::new(2);
    let mut later = hello(Lane::Urgent);
    later[8] = 2;
    let stamped = crc32fast::hash(&[&later[..4], &later[8..32]].concat()).to_le_bytes();
    later[4..8].copy_from_slice(&stamped);
    let answer = say(&two, &later);
    let frame = FrameReader::new(&answer[..], HELLO_CAPS).frame().expect("a frame");
    let refusal: Refusal = frame.expect("an answer").control().expect("a refusal");
    assert_eq!(refusal, Refusal::Protocol { ours: 1 });
}

#[test]
fn node_with_a_later_version_is_not_dialled_in_a_hurry() {
    // Somebody who answers each hello in a later version.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let answering = std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.expect("a connection");
            // All of it: a socket that is closed with unread bytes takes its answer back.
            let mut header = [0; 32];
            stream.read_exact(&mut header).expect("a header");
            let len = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
            let mut hello = vec![0; len as usize];
            stream.read_exact(&mut hello).expect("a hello");
            let mut answer = Vec::new();
            write_frame(&mut answer, FrameKind::Refusal, &1_u64, &[]).expect("a frame");
            answer[8] = 9;
            let stamped = crc32fast::hash(&[&answer[..4], &answer[8..32]].concat()).to_le_bytes();
            answer[4..8].copy_from_slice(&stamped);
            stream.write_all(&answer).expect("it is taken");
        }
    });
    let one = Node::with(1, options(1).backoff(Duration::ZERO, Duration::from_secs(600)));
    let wanted = treepie_raft::ids::NodeId(2);
    one.transport.set_peer(wanted, &address);
    for _ in 0..2 {
        let refusal = Refusal::Protocol { ours: 9 };
        one.wait("version", |event| (*event == Event::Refused(wanted, refusal)).then_some(()));
    }
    answering.join().expect("both lanes have dialled once");
}

#[test]
fn damage_behind_a_hello_is_answered_with_a_reason() {
    let two = Node::new(2);
    let mut frames = hello(Lane::Urgent);
    write_frame(&mut frames, FrameKind::Chunk, &1_u64, &[]).expect("it keeps its bounds");
    let answer = say(&two, &frames);
    let mut reader = FrameReader::new(&answer[..], HELLO_CAPS);
    let welcome = reader.frame().expect("a frame").expect("a welcome");
    assert_eq!(welcome.control::<Welcome>().expect("a welcome").from, two.id);
    let end = reader.frame().expect("a frame").expect("a refusal");
    assert_eq!(end.control::<Refusal>().expect("a refusal"), Refusal::Damaged);
}

#[test]
fn lengths_beyond_their_caps_end_a_connection_at_once() {
    let two = Node::new(2);
    let mut frames = hello(Lane::Bulk);
    let header = treepie_raft::wire::FrameHeader {
        kind: FrameKind::Message,
        control_len: u32::MAX,
        attachment_count: u32::MAX,
        attachments_len: u64::MAX,
        head_checksum: 0,
    };
    frames.extend(header.encode());
    let answer = say(&two, &frames);
    let mut reader = FrameReader::new(&answer[..], HELLO_CAPS);
    assert!(reader.frame().expect("a frame").is_some());
    let end = reader.frame().expect("a frame").expect("a refusal");
    assert_eq!(end.control::<Refusal>().expect("a refusal"), Refusal::Damaged);
    assert!(matches!(reader.frame(), Ok(None) | Err(WireError::Io(_))));
}
