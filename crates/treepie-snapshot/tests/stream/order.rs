//! What a writer refuses, and what it does when the output fails.

use std::io::{self, Write};

use treepie_snapshot::{
    CancelToken, Control, Error, Position, StreamKind, StreamOptions, StreamWriter,
    ids::{Lsn, PageId},
};

use crate::sample::{header, record};

const PAGE: [u8; 4096] = [3; 4096];

fn writer(kind: StreamKind) -> StreamWriter<Vec<u8>> {
    let options = StreamOptions::new().threads(1);
    StreamWriter::new(Vec::new(), header(kind, 4096), &options).expect("a writer")
}

fn is_out_of_order<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::OutOfOrder { .. }))
}

#[test]
fn pages_that_do_not_ascend_or_do_not_exist_are_refused_and_end_the_stream() {
    type Misuse = fn(&mut StreamWriter<Vec<u8>>) -> Result<(), Error>;
    let misuses: [Misuse; 6] = [
        |writer| writer.pages(PageId(9), &PAGE),
        |writer| writer.pages(PageId(10), &PAGE),
        |writer| writer.pages(PageId(5_000), &PAGE),
        |writer| writer.pages(PageId(u32::MAX), &[0; 8192]),
        |writer| writer.pages(PageId(11), &PAGE[..4095]),
        |writer| writer.flush().and_then(|()| writer.pages(PageId(127), &PAGE)),
    ];
    for (number, misuse) in misuses.iter().enumerate() {
        let mut writer = writer(StreamKind::Full);
        writer.pages(PageId(10), &PAGE).expect("the first page");
        assert!(is_out_of_order(misuse(&mut writer)), "misuse {number}");
        assert!(matches!(writer.pages(PageId(300), &PAGE), Err(Error::Broken)), "misuse {number}");
        let end = writer.position();
        assert!(matches!(writer.finish(end), Err(Error::Broken)), "misuse {number}");
    }
    assert!(is_out_of_order(writer(StreamKind::Records).pages(PageId(1), &PAGE)));
}

#[test]
fn records_without_the_one_before_or_of_another_history_are_refused() {
    let start = header(StreamKind::Records, 4096).position;
    let first = record(&mut start.clone(), 4096, b"a");
    let later = record(&mut Position { lsn: Lsn(701), chain: 5 }, 4096, b"b");
    let other = record(&mut Position { chain: 5, ..start }, 4096, b"c");
    assert!(writer(StreamKind::Records).record(Lsn(701), &first).is_ok());
    assert!(is_out_of_order(writer(StreamKind::Records).record(Lsn(702), &first)));
    assert!(is_out_of_order(writer(StreamKind::Records).record(Lsn(702), &later)));
    assert!(is_out_of_order(writer(StreamKind::Records).record(Lsn(701), &other)));
    for len in 0..first.len() {
        assert!(is_out_of_order(writer(StreamKind::Records).record(Lsn(701), &first[..len])));
    }
    let mut full = writer(StreamKind::Full);
    full.record(Lsn(701), &first).expect("it follows");
    assert!(is_out_of_order(full.pages(PageId(1), &PAGE)));
    let ends_elsewhere = writer(StreamKind::Full).finish(Position { chain: 5, ..start });
    assert!(is_out_of_order(ends_elsewhere));
}

#[test]
fn options_and_headers_that_cannot_be_are_refused() {
    let refused = |header, options: &StreamOptions| {
        let made = StreamWriter::new(Vec::new(), header, options).map(drop);
        assert!(matches!(made, Err(Error::Options { .. })), "{made:?}");
    };
    let full = header(StreamKind::Full, 4096);
    for options in [
        StreamOptions::new().level(-1),
        StreamOptions::new().level(10),
        StreamOptions::new().frame_len(100_000),
        StreamOptions::new().frame_len((8 << 20) + 1),
    ] {
        refused(full, &options);
    }
    let mut base = full;
    base.base.lsn = Lsn(1);
    refused(base, &StreamOptions::new());
    let mut size = full;
    size.page_size = 5000;
    refused(size, &StreamOptions::new());
}

/// Fails after so many bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let len = bytes.len().min(self.0);
        self.0 -= len;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_that_fails_at_any_byte_is_an_error_and_never_a_finished_stream() {
    let attempt = |room, threads| {
        let options = StreamOptions::new().threads(threads);
        let mut writer = StreamWriter::new(Full(room), header(StreamKind::Full, 4096), &options)?;
        for number in 0..3 {
            writer.pages(PageId(number * 256), &PAGE)?;
            writer.flush()?;
        }
        let end = writer.position();
        writer.finish(end).map(|(_, summary)| summary.stored_len)
    };
    let len = attempt(usize::MAX, 1).expect("there is room");
    let len = usize::try_from(len).expect("short");
    for room in 0..len {
        match attempt(room, 1 + room % 2) {
            Err(Error::Io { action: "write", offset, source }) => {
                assert_eq!(source.kind(), io::ErrorKind::StorageFull);
                assert!(offset <= room as u64, "{room}");
            }
            other => panic!("room for {room} bytes: {other:?}"),
        }
    }
    assert!(attempt(len, 2).is_ok());
}

#[test]
fn cancelled_stream_says_so() {
    let token = CancelToken::new();
    let out = Control::new().cancel(&token).pace(Vec::new());
    let options = StreamOptions::new().threads(1);
    let mut writer = StreamWriter::new(out, header(StreamKind::Full, 4096), &options).expect("one");
    writer.pages(PageId(1), &PAGE).expect("not yet cancelled");
    token.cancel();
    assert!(matches!(writer.flush(), Err(Error::Cancelled)));
    assert!(matches!(writer.flush(), Err(Error::Broken)));
}
