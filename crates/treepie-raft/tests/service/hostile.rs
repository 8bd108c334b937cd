//! Bytes that no client, and no server, would send.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use treepie_raft::{
    service::{
        Client, ClientError, Refusal,
        message::{
            Answer, Call, Condition, Consistency, Operation, Query, Request, RequestId, Response,
            Scan,
        },
    },
    wire::{Caps, FrameKind, FrameReader, write_frame},
};

use crate::serving::{Served, patient};

/// Frames of all kinds of requests, behind one another.
fn requests() -> Vec<Request> {
    let (tree, key, value) = (b"t".to_vec(), b"k".to_vec(), b"v".to_vec());
    let write = treepie_raft::service::message::Write {
        request: Some(RequestId { client: [7; 16], number: 0, settled: 0 }),
        conditions: vec![Condition { tree: tree.clone(), key: key.clone(), value: None }],
        operations: vec![
            Operation::Put { tree: tree.clone(), key: key.clone(), value },
            Operation::Delete { tree: tree.clone(), key: key.clone() },
            Operation::Get { tree: tree.clone(), key: key.clone() },
        ],
    };
    let consistency = Consistency::Linearizable;
    let get = Query::Get { tree: tree.clone(), key: key.clone() };
    let scan = Query::Scan(Scan {
        tree,
        from: std::ops::Bound::Included(key.clone()),
        to: std::ops::Bound::Excluded(key),
        reverse: false,
        entries_max: 10,
        bytes_max: 1000,
    });
    let read = |query| Call::Read(treepie_raft::service::message::Read { consistency, query });
    [Call::Hello(None), Call::Write(write), read(get), read(scan), Call::Status, Call::Members]
        .into_iter()
        .zip(1..)
        .map(|(call, id)| Request { id, call })
        .collect()
}

fn frames(requests: &[Request]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        write_frame(&mut bytes, FrameKind::Request, request, &[]).unwrap();
    }
    bytes
}

/// Sends bytes, ends, and returns how many whole answers came back before the server closed.
fn answers(served: &Served, bytes: &[u8]) -> Vec<Response> {
    let mut stream = TcpStream::connect(served.server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // Both fail where the server has had enough.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut came = Vec::new();
    // It ends with an error where bytes that the server did not read are still on their way.
    let _ = stream.read_to_end(&mut came);
    let mut reader = FrameReader::new(&came[..], Caps::new(u32::MAX, 0, 0));
    let mut answers = Vec::new();
    while let Ok(Some(frame)) = reader.frame() {
        answers.push(frame.control().unwrap());
    }
    answers
}

#[test]
fn every_flipped_bit_and_every_cut_of_requests_leaves_the_server_serving() {
    let served = Served::new();
    let client = served.client();
    let requests = requests();
    let bytes = frames(&requests);
    assert_eq!(answers(&served, &bytes).len(), requests.len());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let came = answers(&served, &flipped);
        assert!(came.len() < requests.len(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(answers(&served, &bytes[..len]).len() < requests.len(), "{len} bytes");
    }
    client.put("t", "still", "here").unwrap();
    let counters = served.server.counters();
    assert!(counters.broken as usize >= bytes.len() * 7, "{counters:?}");
    treepie_testkit::tally::note(
        8,
        "service: hostile requests",
        &format!("{} flipped bits, {} cuts", bytes.len() * 8, bytes.len()),
    );
}

/// A frame with these bytes as its control part, and with checksums that hold.
fn stamped(control: &[u8]) -> Vec<u8> {
    // Fixed arrays have no length before them; pieces of them are put together to one part.
    let mut bytes = Vec::new();
    let pieces: Vec<[u8; 1]> = control.iter().map(|byte| [*byte]).collect();
    write_frame(&mut bytes, FrameKind::Request, &Raw(pieces), &[]).unwrap();
    bytes
}

struct Raw(Vec<[u8; 1]>);

impl bincode::Encode for Raw {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        encoder: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.0.iter().try_for_each(|byte| byte.encode(encoder))
    }
}

#[test]
fn requests_that_lie_about_lengths_under_valid_checksums_are_refused() {
    let served = Served::new();
    let hello = frames(&requests()[..1]);
    let control = |request: &Request| {
        let mut bytes = Vec::new();
        treepie_raft::wire::codec::encode(request, &mut bytes).unwrap();
        bytes
    };
    let mut tried = 0;
    for request in &requests()[1..] {
        let whole = control(request);
        let plain = [&hello[..], &stamped(&whole)].concat();
        assert_eq!(answers(&served, &plain).len(), 2, "{request:?}");
        // Each place becomes a number that is far too high, wherever a length or a kind may be.
        for at in 8..whole.len() {
            let mut lying = whole.clone();
            for byte in lying.iter_mut().skip(at).take(8) {
                *byte = 0xfe;
            }
            answers(&served, &[&hello[..], &stamped(&lying)].concat());
            tried += 1;
        }
    }
    served.client().put("t", "still", "here").unwrap();
    treepie_testkit::tally::note(8, "service: lying lengths", &format!("{tried} requests"));
}

#[test]
fn first_request_has_to_be_a_hello() {
    let served = Served::new();
    let came = answers(&served, &frames(&requests()[1..]));
    assert_eq!(came.len(), 1);
    assert!(matches!(came[0].result, Err(Refusal::Invalid(_))), "{came:?}");
    let again = [&requests()[..1], &requests()[..1]].concat();
    assert!(matches!(answers(&served, &frames(&again))[1].result, Ok(Answer::Welcome(_))));
}

#[test]
fn server_that_answers_nonsense_is_left() {
    for nonsense in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0; 100]] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = Served::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(nonsense).unwrap();
            });
            // Nothing listens at the first address after the first connection.
            let client = Client::connect([address, served.server.address()], patient()).unwrap();
            client.put("t", "k", "v").unwrap();
        });
    }
}

#[test]
fn silent_server_costs_the_connect_timeout_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let options =
        patient().connect_timeout(Duration::from_millis(50)).timeout(Duration::from_millis(200));
    let error = Client::connect([address], options).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}
