//! Sending without the thread that sends: a short message goes from the thread that has it, where nothing
//! waits before it and the socket takes it at once. What the socket does not take is left to the thread.

use std::{
    io::{self, ErrorKind, IoSlice},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

use super::{RecordToSend, outbox::Parcel};
use crate::wire::{FrameKind, encode_head};

/// Bytes of a message that is sent so, at most: whoever has it has other things to do.
pub(super) const DIRECT_LEN_MAX: u64 = 64 << 10;
/// After so long without a message the thread looks at the connection before the next one is written: the
/// peer may have closed it, and a write would not tell.
pub(super) const QUIET: Duration = Duration::from_millis(20);

/// A connection that can be written to beside its thread, while that one sleeps.
#[derive(Debug)]
pub(super) struct Direct {
    socket: TcpStream,
    last_written: Instant,
    head: Vec<u8>,
}

/// What has become of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It went, with so many bytes.
    Whole(u64),
    /// These bytes are left.
    Partly(Vec<u8>),
    /// Nothing went: it is for the thread.
    Not,
}

impl Direct {
    pub(super) fn new(socket: TcpStream) -> Direct {
        Direct { socket, last_written: Instant::now(), head: Vec::new() }
    }

    /// The thread has looked at the connection.
    pub(super) fn refresh(&mut self) {
        self.last_written = Instant::now();
    }

    /// Sends a message, as far as that takes no waiting.
    pub(super) fn send(&mut self, parcel: &Parcel) -> Went {
        let now = Instant::now();
        if parcel.bytes() > DIRECT_LEN_MAX || now.duration_since(self.last_written) > QUIET {
            return Went::Not;
        }
        let mut records = Vec::with_capacity(parcel.records.len());
        for (entry, record) in parcel.message.entries.iter().zip(&parcel.records) {
            match record {
                RecordToSend::Here(record)
                    if record.bytes().len() as u64 == u64::from(entry.len) =>
                {
                    records.push(record.bytes());
                }
                _ => return Went::Not,
            }
        }
        self.head.clear();
        let lens = records.iter().map(|record| record.len());
        if encode_head(&mut self.head, FrameKind::Message, &parcel.message, lens).is_err() {
            return Went::Not;
        }
        let mut slices = Vec::with_capacity(1 + records.len());
        slices.push(IoSlice::new(&self.head));
        slices.extend(records.iter().map(|record| IoSlice::new(record)));
        self.last_written = now;
        match send_now(&self.socket, &slices) {
            Ok(count) if count == len_of(&slices) => Went::Whole(count as u64),
            Ok(0) | Err(_) => Went::Not,
            Ok(count) => Went::Partly(behind(&slices, count)),
        }
    }
}

fn len_of(slices: &[IoSlice<'_>]) -> usize {
    slices.iter().map(|slice| slice.len()).sum()
}

/// What is left of slices after their first `count` bytes.
fn behind(slices: &[IoSlice<'_>], mut count: usize) -> Vec<u8> {
    let mut left = Vec::with_capacity(len_of(slices) - count);
    for slice in slices {
        let skipped = count.min(slice.len());
        left.extend_from_slice(&slice[skipped..]);
        count -= skipped;
    }
    left
}

/// Sends what the socket takes without waiting; 0 when that is nothing.
fn send_now(socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    match sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags) {
        Ok(count) => Ok(count),
        Err(error) => match io::Error::from(error) {
            error if error.kind() == ErrorKind::WouldBlock => Ok(0),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_slices_begins_where_the_bytes_that_went_end() {
        let slices = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defg")];
        for count in 0..=7 {
            assert_eq!(behind(&slices, count), b"abcdefg"[count..], "{count} bytes went");
        }
    }
}
