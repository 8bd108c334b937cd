//! What a server takes at most, and how it ends.

use std::{
    io::{Read, Write as _},
    net::TcpStream,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use treepie_raft::{
    service::{
        Client, ClientError, Done, Refusal, ServerOptions, Store, Transaction, Written,
        message::{Call, Consistency, Operation, Query, Read as ReadCall, Request, Write},
    },
    wire::{FrameKind, write_frame},
};

use crate::serving::{Rerouted, Served, patient, wait_until};

type Kept = (Write, Done<Written>);

/// A server that keeps writes until the test lets them go.
fn keeping(options: ServerOptions) -> (Served, mpsc::Receiver<Kept>) {
    let (keep, kept) = mpsc::channel();
    let keep = Mutex::new(keep);
    let served = Served::with(options, |inner| {
        let on_write = move |_: &dyn Store, write: Write, done: Done<Written>| {
            keep.lock().send((write, done)).unwrap();
        };
        Arc::new(Rerouted { inner, on_write: Box::new(on_write) })
    });
    (served, kept)
}

fn dial(served: &Served) -> TcpStream {
    let mut stream = TcpStream::connect(served.server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    send(&mut stream, Call::Hello(None));
    stream
}

fn send(stream: &mut TcpStream, call: Call) {
    write_frame(stream, FrameKind::Request, &Request { id: 9, call }, &[]).unwrap();
}

fn write(operation: Operation) -> Call {
    Call::Write(Write { operations: vec![operation], ..Write::default() })
}

fn ends(mut stream: TcpStream) -> bool {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).is_ok()
}

#[test]
fn requests_beyond_the_bound_wait_until_others_are_answered() {
    let (served, kept) = keeping(ServerOptions::new().in_flight_max(10));
    let mut stream = dial(&served);
    for _ in 0..25 {
        send(&mut stream, Call::Write(Write::default()));
    }
    let mut held: Vec<Kept> = (0..10).map(|_| kept.recv().unwrap()).collect();
    // A second connection is served meanwhile, and all that came before is taken by then.
    served.client().status().unwrap();
    assert!(kept.try_recv().is_err(), "an eleventh was taken");
    for answered in 10..25 {
        let (_, done) = held.remove(0);
        done(Err(Refusal::Stopping));
        held.push(kept.recv().unwrap());
        assert_eq!(held.len(), 10, "after {answered}");
    }
    assert!(kept.try_recv().is_err());
}

#[test]
fn bytes_of_requests_on_their_way_are_bounded_over_all_connections() {
    let (served, kept) = keeping(ServerOptions::new().in_flight_len_max(1 << 20));
    let value = vec![0; 300 << 10];
    let put = || Operation::Put { tree: b"t".to_vec(), key: b"k".to_vec(), value: value.clone() };
    thread::scope(|scope| {
        for _ in 0..3 {
            let mut stream = dial(&served);
            let put = &put;
            scope.spawn(move || {
                for _ in 0..4 {
                    send(&mut stream, write(put()));
                }
                let mut answers = Vec::new();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                stream.read_to_end(&mut answers).unwrap();
            });
        }
        // Each has 300 KiB: four are more than the bound, and no fifth is taken beside them.
        let mut held: Vec<Kept> = (0..4).map(|_| kept.recv().unwrap()).collect();
        for answered in 0..8 {
            let hellos = 3;
            assert!(served.server.counters().requests <= hellos + 4 + answered);
            let (_, done) = held.remove(0);
            done(Err(Refusal::Stopping));
            held.push(kept.recv().unwrap());
        }
        for (_, done) in held {
            done(Err(Refusal::Stopping));
        }
    });
}

#[test]
fn client_that_reads_nothing_is_not_served_on_and_others_are() {
    let served = Served::new();
    served.client().put("t", "k", vec![7; 1 << 20]).unwrap();
    let mut slow = dial(&served);
    let query = Query::Get { tree: b"t".to_vec(), key: b"k".to_vec() };
    let read = ReadCall { consistency: Consistency::Linearizable, query };
    for _ in 0..200 {
        send(&mut slow, Call::Read(read.clone()));
    }
    let client = served.client();
    for n in 0..100 {
        client.put("t", n.to_string(), "").unwrap();
    }
    let answered = served.server.counters().responses;
    assert!(answered < 103 + 100, "{answered} answers: of 200 MiB, hardly any were read");
    // Read after all, everything comes.
    slow.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    slow.read_to_end(&mut all).unwrap();
    assert!(all.len() > 200 << 20, "{}", all.len());
}

#[test]
fn one_connection_too_many_is_told_so() {
    let served = Served::with(ServerOptions::new().connections_max(2), |store| store);
    let first = served.client();
    let second = served.client();
    let options = patient().timeout(Duration::from_millis(100));
    let error = Client::connect([served.address()], options).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    first.put("t", "k", "v").unwrap();
    drop(second);
    // The place is free as soon as the server has seen that it ended.
    let third = Client::connect([served.address()], patient()).unwrap();
    third.put("t", "k", "v").unwrap();
    let counters = served.server.counters();
    assert_eq!(counters.connections, 2);
    assert!(counters.refused > 0);
}

#[test]
fn silent_connections_are_closed() {
    let short = Duration::from_millis(1);
    let serve = |options| Served::with(options, |store| store);
    let served = serve(ServerOptions::new().hello_timeout(short));
    assert!(ends(TcpStream::connect(served.server.address()).unwrap()));
    let served = serve(ServerOptions::new().stall_timeout(short));
    let mut stalled = dial(&served);
    stalled.write_all(b"TPWF").unwrap();
    assert!(ends(stalled));
    let served = serve(ServerOptions::new().idle_timeout(short));
    let client = served.client();
    assert!(ends(dial(&served)));
    wait_until("both are closed", || served.server.counters().timed_out == 2);
    // The client connects again.
    client.put("t", "k", "v").unwrap();
}

#[test]
fn stopping_answers_what_is_on_its_way() {
    let (served, kept) = keeping(ServerOptions::new().stop_timeout(Duration::from_secs(60)));
    let client = served.client();
    let started = client.start(Transaction::new().put("t", "k", "v")).unwrap();
    let (_, done) = kept.recv().unwrap();
    thread::scope(|scope| {
        let stopping = scope.spawn(|| served.server.stop());
        done(Err(Refusal::Full("as a test says".to_owned())));
        let error = started.wait().unwrap_err();
        assert!(matches!(error, ClientError::Refused(Refusal::Full(_))), "{error}");
        stopping.join().unwrap();
    });
    assert!(TcpStream::connect(served.server.address()).is_err());
}

#[test]
fn stopping_does_not_wait_for_ever() {
    let (served, kept) = keeping(ServerOptions::new().stop_timeout(Duration::from_millis(10)));
    let options = patient().timeout(Duration::from_millis(100));
    let client = Client::connect([served.address()], options).unwrap();
    let started = client.start(Transaction::new().put("t", "k", "v")).unwrap();
    let (_, _never) = kept.recv().unwrap();
    served.server.stop();
    let error = started.wait().unwrap_err();
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
}

#[test]
fn several_threads_of_a_server_share_the_connections() {
    let served = Served::with(ServerOptions::new().threads(3), |store| store);
    thread::scope(|scope| {
        for thread in 0..7 {
            let client = served.client();
            scope.spawn(move || {
                for n in 0..50 {
                    client.put("t", format!("{thread}/{n}"), "").unwrap();
                }
            });
        }
    });
    assert_eq!(served.db.read().unwrap().tree("t").unwrap().len(), 350);
}
