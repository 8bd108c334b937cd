//! Page streams: whole, in both directions, or an error.

use std::io::{Read, Write};

use treepie_testkit::Rng;

use crate::{
    harness::{Event, Node, heartbeat},
    proxy::Proxy,
};

fn read(two: &Node) -> Result<Vec<u8>, String> {
    two.wait("page stream", |event| match event {
        Event::Pages(_, _, read) => Some(read.clone()),
        _ => None,
    })
}

#[test]
fn page_stream_comes_as_it_went_in_both_directions() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    for len in [0, 1, 1000, 256 << 10, (3 << 20) + 17] {
        let bytes = Rng::new(len as u64).bytes(len);
        let mut stream = one.transport.open_pages(two.id, b"echo".to_vec()).expect("it is there");
        assert_eq!((stream.node(), stream.purpose()), (two.id, &b"echo"[..]));
        stream.write_all(&bytes[..len / 3]).expect("it is taken");
        stream.keep_alive().expect("it is taken");
        stream.write_all(&bytes[len / 3..]).expect("it is taken");
        stream.finish().expect("it is taken");
        stream.finish().expect("it has ended already");
        assert!(stream.write_all(b"x").is_err(), "it was ended");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("it comes back");
        assert!(back == bytes, "{len} bytes came back otherwise");
        assert_eq!(stream.counts(), (len as u64, len as u64));
        assert!(read(&two).expect("it is whole") == bytes, "{len} bytes came otherwise");
    }
}

#[test]
fn page_stream_that_is_cut_or_damaged_is_an_error() {
    let (one, two) = (Node::new(1), Node::new(2));
    let proxy = Proxy::new(&two.address());
    one.join_at(two.id, &proxy.address());
    let open = || one.transport.open_pages(two.id, b"take".to_vec()).expect("it is there");
    let mut dropped = open();
    dropped.write_all(&[1; 1000]).expect("it is taken");
    dropped.flush().expect("it is taken");
    drop(dropped);
    assert_eq!(read(&two), Err("the stream was cut".to_owned()));
    let mut damaged = open();
    proxy.flip(100_000, 3);
    damaged.write_all(&[1; 200_000]).expect("it is taken");
    damaged.finish().expect("it is taken");
    let error = read(&two).expect_err("a bit was flipped");
    assert!(error.starts_with("checksum of a chunk"), "{error}");
    let mut cut = open();
    cut.write_all(&[1; 1000]).expect("it is taken");
    cut.flush().expect("it is taken");
    proxy.cut();
    assert!(read(&two).is_err());
}

#[test]
fn page_stream_that_is_not_wanted_ends_with_its_reason() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    let mut stream = one.transport.open_pages(two.id, b"refuse".to_vec()).expect("it is there");
    let error = stream.read(&mut [0; 10]).expect_err("it is not wanted").to_string();
    assert_eq!(error, "the other side has ended the stream: nothing of this kind is served there");
}

#[test]
fn slow_reader_of_a_page_stream_holds_nothing_else_back() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    two.recorder.gate.set(true);
    let bytes = Rng::new(5).bytes(32 << 20);
    let mut stream = one.transport.open_pages(two.id, b"take".to_vec()).expect("it is there");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| stream.write_all(&bytes).and_then(|()| stream.finish()));
        for index in 0..100 {
            one.send(heartbeat(&one, &two, index), &[]);
            two.message(index);
        }
        assert!(!writing.is_finished(), "sockets do not hold so much");
        two.recorder.gate.set(false);
        writing.join().expect("no panic").expect("it is taken");
    });
    assert!(read(&two).expect("it is whole") == bytes);
}

#[test]
fn stopping_ends_page_streams() {
    let (one, two) = (Node::new(1), Node::new(2));
    one.join(&two);
    let mut stream = one.transport.open_pages(two.id, b"take".to_vec()).expect("it is there");
    one.transport.stop();
    assert!(stream.read(&mut [0; 1]).is_err());
    assert!(read(&two).is_err());
}
