//! A page stream that outlives its connections: where one is cut, the stream goes on over the next.
//!
//! ```text
//! who dials     purpose: push | fetch, 16 random bytes      the stream
//!               purpose: more, the same 16 bytes            after a cut
//! who receives  8 bytes: how many it has                    first thing on a connection of the second kind
//! ```
//!
//! Who sends keeps the newest [`WINDOW_LEN`] bytes: more than sockets hold. After a cut it waits up to
//! [`RESUME_MAX`], and the state that it sends stays pinned, because whoever makes the stream waits with it.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, ErrorKind, Read, Write},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, never};
use parking_lot::Mutex;

use super::{
    error::NodeError,
    install::wrong,
    probe::{Bug, Step},
    shared::Shared,
};
use crate::{
    ids::NodeId,
    transport::PageStream,
    wire::{Refusal, is_timeout},
};

/// A stream goes on.
const MORE: &[u8] = b"more";
/// Bytes of the number of a stream.
const NUMBER_SIZE: usize = 16;
/// Bytes that are kept by who sends, to be sent again.
const WINDOW_LEN: usize = 16 << 20;
/// How long a stream waits for its next connection.
const RESUME_MAX: Duration = Duration::from_secs(10);
/// Between two attempts to dial.
const PAUSE: Duration = Duration::from_millis(100);
/// Cuts that one stream bears, at most.
const CUTS_MAX: u32 = 1000;

type Number = [u8; NUMBER_SIZE];

/// A stream that is waited for.
#[derive(Debug)]
struct Awaited {
    node: NodeId,
    next: Sender<PageStream>,
    is_cut: bool,
}

/// What the streams of a node have in common.
#[derive(Debug, Default)]
pub(super) struct Streams {
    awaited: Mutex<HashMap<Number, Awaited>>,
    is_stopped: AtomicBool,
    resumed: AtomicU64,
    sent_again: AtomicU64,
}

/// Page streams that were cut, and went on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumptions {
    /// How often one has gone on over another connection.
    pub count: u64,
    /// Bytes that were sent a second time.
    pub sent_again: u64,
}

impl Streams {
    /// Ends all that wait, and lets none wait any more.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Relaxed);
        self.awaited.lock().clear();
    }

    /// Ends those that wait for a connection: somebody begins anew.
    pub(super) fn give_cut_ones_up(&self) {
        self.awaited.lock().retain(|_, awaited| !awaited.is_cut);
    }

    /// How often streams went on.
    pub(super) fn resumptions(&self) -> Resumptions {
        let (count, sent_again) = (self.resumed.load(Relaxed), self.sent_again.load(Relaxed));
        Resumptions { count, sent_again }
    }

    /// Hands the next connection of a stream over to it; refuses it where nobody waits.
    pub(super) fn hand_over(&self, stream: PageStream) {
        let number = number_of(stream.purpose(), MORE);
        let next = {
            let awaited = self.awaited.lock();
            let found = number.and_then(|number| awaited.get(&number));
            let found = found.filter(|awaited| awaited.node == stream.node());
            found.map(|awaited| awaited.next.clone())
        };
        let refused = match next {
            Some(next) => next.try_send(stream).map_err(TrySendError::into_inner).err(),
            None => Some(stream),
        };
        if let Some(stream) = refused {
            stream.refuse(Refusal::Lane);
        }
    }
}

/// The number of a stream, if its purpose is this one.
fn number_of(purpose: &[u8], kind: &[u8]) -> Option<Number> {
    purpose.strip_prefix(kind)?.try_into().ok()
}

/// What a connection is for: begins with one of these.
pub(super) fn is_for(purpose: &[u8], kind: &[u8]) -> bool {
    number_of(purpose, kind).is_some()
}

/// Whether it is another connection of a stream.
pub(super) fn is_more(purpose: &[u8]) -> bool {
    is_for(purpose, MORE)
}

/// A page stream over one connection after the other.
pub(super) struct ResumedStream<'a> {
    shared: &'a Shared,
    stream: PageStream,
    number: Number,
    /// Whom this side dials; none where it is dialled.
    dials: Option<NodeId>,
    next: Receiver<PageStream>,
    /// The newest bytes that were sent.
    window: VecDeque<u8>,
    sent: u64,
    read: u64,
    cuts: u32,
}

impl<'a> ResumedStream<'a> {
    /// Dials a node for a stream of a kind.
    pub(super) fn dial(
        shared: &'a Shared,
        node: NodeId,
        kind: &[u8],
    ) -> Result<ResumedStream<'a>, NodeError> {
        let mut number = [0; NUMBER_SIZE];
        getrandom::fill(&mut number).map_err(|error| NodeError::Stream(error.into()))?;
        let transport = shared.transport.get().ok_or(NodeError::NotRunning)?;
        let stream = transport.open_pages(node, [kind, &number].concat())?;
        Ok(ResumedStream::new(shared, stream, number, Some(node), never()))
    }

    /// Takes a stream of a kind that was dialled.
    pub(super) fn accept(
        shared: &'a Shared,
        stream: PageStream,
        kind: &[u8],
    ) -> Result<ResumedStream<'a>, NodeError> {
        let number = number_of(stream.purpose(), kind).ok_or_else(|| wrong("it has no number"))?;
        let (sender, next) = bounded(1);
        let node = stream.node();
        let awaited = Awaited { node, next: sender, is_cut: false };
        shared.streams.awaited.lock().insert(number, awaited);
        Ok(ResumedStream::new(shared, stream, number, None, next))
    }

    fn new(
        shared: &'a Shared,
        stream: PageStream,
        number: Number,
        dials: Option<NodeId>,
        next: Receiver<PageStream>,
    ) -> ResumedStream<'a> {
        let (window, sent, read, cuts) = (VecDeque::new(), 0, 0, 0);
        ResumedStream { shared, stream, number, dials, next, window, sent, read, cuts }
    }

    /// The connection at the end, for what is not resumed.
    pub(super) fn stream(&mut self) -> &mut PageStream {
        &mut self.stream
    }

    /// Tells the other side that nothing more comes.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.stream.say_no(refusal);
    }

    /// Ends what is sent, and waits for an answer of one byte; what was lost by then is sent again.
    pub(super) fn finish_and_hear(&mut self, patience: Duration) -> Result<u8, NodeError> {
        loop {
            let heard = self.stream.finish().and_then(|()| {
                self.stream.set_patience(patience)?;
                let mut answer = [0; 1];
                self.stream.read_exact(&mut answer).map(|()| answer[0])
            });
            match heard {
                Err(error) if is_cut(&error) => {
                    self.resume(Role::Sends).map_err(NodeError::Stream)?
                }
                heard => return heard.map_err(NodeError::Stream),
            }
        }
    }

    fn resume(&mut self, role: Role) -> io::Result<()> {
        self.cuts += 1;
        let probe = &self.shared.options.probe;
        if self.cuts > CUTS_MAX || probe.has(Bug::NeverResumes) {
            return Err(io::Error::other("the stream was cut too often"));
        }
        self.mark(true);
        let resumed = self.reconnect(role);
        self.mark(false);
        resumed
    }

    fn mark(&self, is_cut: bool) {
        if let Some(awaited) = self.shared.streams.awaited.lock().get_mut(&self.number) {
            awaited.is_cut = is_cut;
        }
    }

    fn reconnect(&mut self, role: Role) -> io::Result<()> {
        let clock = self.shared.clock;
        let deadline = clock.now() + RESUME_MAX;
        loop {
            let left = deadline.saturating_sub(clock.now());
            if left.is_zero() || self.shared.streams.is_stopped.load(Relaxed) {
                return Err(io::Error::new(ErrorKind::TimedOut, "the stream was not resumed"));
            }
            let Some(stream) = self.next_connection(left)? else { continue };
            self.stream = stream;
            let gone_on = match role {
                Role::Sends => self.send_again(),
                Role::Receives => {
                    let written = self.stream.write_all(&self.read.to_le_bytes());
                    written.and_then(|()| self.stream.flush())
                }
            };
            match gone_on {
                Err(error) if is_cut(&error) => {}
                gone_on => {
                    gone_on?;
                    self.shared.streams.resumed.fetch_add(1, Relaxed);
                    let (node, sent, read) = (self.stream.node().0, self.sent, self.read);
                    tracing::info!(node, sent, read, "a page stream goes on");
                    return Ok(());
                }
            }
        }
    }

    /// The next connection; none where the next attempt may have one.
    fn next_connection(&self, left: Duration) -> io::Result<Option<PageStream>> {
        let gone = || io::Error::new(ErrorKind::ConnectionAborted, "the stream was given up");
        let Some(node) = self.dials else {
            return self.next.recv_timeout(left).map(Some).map_err(|_| gone());
        };
        let transport = self.shared.transport.get().ok_or_else(gone)?;
        let dialled = transport.open_pages(node, [MORE, &self.number].concat());
        if dialled.is_err() {
            // Nobody sends on it: it is a pause.
            let _ = self.next.recv_timeout(PAUSE.min(left));
        }
        Ok(dialled.ok())
    }

    /// Sends what the other side says that it lacks.
    fn send_again(&mut self) -> io::Result<()> {
        let mut has = [0; 8];
        self.stream.read_exact(&mut has)?;
        let has = u64::from_le_bytes(has);
        let lacks = self.sent.checked_sub(has).and_then(|len| usize::try_from(len).ok());
        let Some(lacks) = lacks.filter(|len| *len <= self.window.len()) else {
            let what = "the other side lacks what is not kept any more";
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        };
        let (first, second) = self.window.as_slices();
        let skip = self.window.len() - lacks;
        self.stream.write_all(first.get(skip..).unwrap_or_default())?;
        self.stream.write_all(&second[skip.saturating_sub(first.len())..])?;
        self.shared.streams.sent_again.fetch_add(lacks as u64, Relaxed);
        Ok(())
    }
}

/// What a side does with the bytes of the stream.
#[derive(Clone, Copy)]
enum Role {
    Sends,
    Receives,
}

/// Whether an error says that a connection was cut, and not that the stream is wrong or given up.
fn is_cut(error: &io::Error) -> bool {
    let kind = error.kind();
    is_timeout(error)
        || matches!(
            kind,
            ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::NotConnected
        )
}

impl Write for ResumedStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(WINDOW_LEN / 4)];
        let surplus = (self.window.len() + bytes.len()).saturating_sub(WINDOW_LEN);
        self.window.drain(..surplus);
        self.window.extend(bytes);
        let before = self.sent;
        self.sent += bytes.len() as u64;
        let probed = self.shared.options.probe.at(Step::Sent(before >> 20, self.sent >> 20));
        let written = match probed {
            Ok(()) => self.stream.write_all(bytes),
            // A test wants the connection to be cut.
            Err(_) => self.stream.shut_down().and(Err(ErrorKind::BrokenPipe.into())),
        };
        match written {
            Err(error) if is_cut(&error) => self.resume(Role::Sends)?,
            written => written?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.stream.flush() {
            Err(error) if is_cut(&error) => self.resume(Role::Sends),
            flushed => flushed,
        }
    }
}

impl Read for ResumedStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if is_cut(&error) => self.resume(Role::Receives)?,
                read => {
                    let len = read?;
                    self.read += len as u64;
                    return Ok(len);
                }
            }
        }
    }
}

impl Drop for ResumedStream<'_> {
    fn drop(&mut self) {
        self.shared.streams.awaited.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_are_told_apart_and_have_a_number() {
        let number = [7; NUMBER_SIZE];
        let more = [MORE, &number].concat();
        assert_eq!(more, *b"more\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07");
        assert_eq!(number_of(&more, MORE), Some(number));
        assert!(is_more(&more) && !is_for(&more, b"push"));
        assert!(!is_more(&more[..19]) && !is_more(b"more"));
    }
}
