//! The thread that sends on one lane to one peer: it dials, writes what waits, and dials again.
//!
//! Messages that wait together are written together, with one call. Pings tell apart a peer that is slow,
//! and says so, from one that is gone: of a machine that has vanished a socket tells nothing for minutes.

use std::{
    io::{self, ErrorKind, IoSlice, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    RecordBytes, RecordToSend, Socket, TransportError,
    backoff::Backoff,
    connections::Connection,
    direct::{Direct, QUIET},
    handshake::{Met, dial},
    outbox::Parcel,
    peer::{Peer, PeerLane},
    tcp::Shared,
};
use crate::wire::{
    FrameKind, Lane, Refusal, WireError, encode_head,
    hello::{HELLO_CAPS, PURPOSE_LEN_MAX},
    is_timeout, parse_frame,
    stream::Ping,
    write_all,
};

/// Bytes of pongs and of a refusal that have come, at most.
const HEARD_MAX: usize = 4096;
/// Whoever takes so much is there.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Runs until the lane is stopped.
pub(super) fn run(shared: &Arc<Shared>, peer: &Arc<Peer>, lane: Lane) {
    let lane = peer.lane(lane);
    let mut backoff = Backoff::new(shared.options.backoff_min, shared.options.backoff_max);
    loop {
        let error = match open(shared, peer, lane) {
            Ok(link) => {
                backoff.reset();
                connected(shared, peer, lane, link)
            }
            Err(error) => error,
        };
        if lane.outbox.is_stopped() || shared.connections.is_stopped() {
            break;
        }
        tracing::debug!(node = peer.node.0, lane = lane.lane.name(), %error, "not connected");
        let is_new = lane.note(&error);
        if let Some(refusal) = error.refusal() {
            if refusal.is_lasting() {
                backoff.exhaust();
            }
            if is_new {
                shared.handler.refused(peer.node, refusal);
            }
        }
        if !lane.outbox.pause(backoff.wait()) {
            break;
        }
    }
    lane.outbox.stop();
    lane.outbox.disconnected();
}

/// What a peer is told of this node; as much as a hello can hold.
fn label(shared: &Shared) -> Vec<u8> {
    let label = shared.options.label.as_bytes();
    label.get(..PURPOSE_LEN_MAX).unwrap_or(label).to_vec()
}

fn open(shared: &Shared, peer: &Peer, lane: &PeerLane) -> Result<Link, TransportError> {
    let Met { reader, connection, .. } =
        dial(shared, (peer.node, &peer.address()), lane.lane, label(shared))?;
    if reader.has_more() {
        return Err(WireError::Layout("more than a welcome came").into());
    }
    let mut socket = reader.into_inner();
    let options = &shared.options;
    socket.set_timeouts(options.idle_timeout, options.ping_interval)?;
    Ok(Link {
        socket,
        ears: Ears { heard: Vec::new(), asked: None, silence_max: options.idle_timeout },
        pings: 0,
        last_written: Instant::now(),
        connection,
    })
}

/// Sends until the connection ends, and says why it did.
fn connected(shared: &Shared, peer: &Peer, lane: &PeerLane, mut link: Link) -> TransportError {
    lane.connected(link.socket.plain_clone().map(Direct::new));
    lane.set_outbound(Some(link.connection.number()));
    tracing::debug!(node = peer.node.0, lane = lane.lane.name(), "connected");
    shared.handler.connected(peer.node, lane.lane);
    let mut batch = Vec::new();
    let ended = send_all(shared, peer, lane, &mut link, &mut batch);
    lane.set_outbound(None);
    // What was taken out may be lost, even if it was written.
    lane.outbox.lost(batch.len());
    lane.outbox.done(&mut batch);
    lane.outbox.disconnected();
    if lane.lane == Lane::Bulk {
        shared.handler.unreachable(peer.node);
    }
    let Err(error) = ended else { return TransportError::Stopped };
    // A peer that ends a connection says why, and the write that fails does not.
    match link.ears.hear(&mut link.socket) {
        Err(TransportError::Refused { refusal, .. }) => {
            TransportError::Refused { node: peer.node, refusal }
        }
        _ => error,
    }
}

fn send_all(
    shared: &Shared,
    peer: &Peer,
    lane: &PeerLane,
    link: &mut Link,
    batch: &mut Vec<Parcel>,
) -> Result<(), TransportError> {
    let interval = shared.options.ping_interval;
    let mut next_ping = Instant::now() + interval;
    let mut rest = Vec::new();
    while lane.outbox.take(batch, &mut rest, next_ping) {
        let now = Instant::now();
        let is_ping_due = now >= next_ping;
        if is_ping_due || now.duration_since(link.last_written) > QUIET {
            link.hear(peer)?;
        }
        let mut output = Output::behind(std::mem::take(&mut rest));
        let count = batch.len();
        let skipped = output.messages(shared, peer, batch);
        if is_ping_due {
            next_ping = now + interval;
            link.pings += 1;
            output.ping(link.pings)?;
            link.ears.asked.get_or_insert(now);
        }
        let bytes = link.write(lane, &output)?;
        lane.sent(count - skipped, bytes);
        drop(output);
        lane.outbox.lost(skipped);
        lane.outbox.done(batch);
        if skipped > 0 {
            shared.handler.unreachable(peer.node);
        }
    }
    Ok(())
}

/// Frames that are written with one call.
struct Output {
    heads: Vec<u8>,
    /// Where each head ends, and the records behind it.
    parts: Vec<(usize, Vec<RecordBytes>)>,
}

impl Output {
    /// Behind what is left of a message.
    fn behind(rest: Vec<u8>) -> Output {
        let parts = if rest.is_empty() { Vec::new() } else { vec![(rest.len(), Vec::new())] };
        Output { heads: rest, parts }
    }

    /// Adds messages. Those whose records cannot be had are left out; returns how many.
    fn messages(&mut self, shared: &Shared, peer: &Peer, batch: &[Parcel]) -> usize {
        let mut skipped = 0;
        for parcel in batch {
            let Some(records) = records_of(shared, peer, parcel) else {
                skipped += 1;
                continue;
            };
            let lens = records.iter().map(|record| record.bytes().len());
            match encode_head(&mut self.heads, FrameKind::Message, &parcel.message, lens) {
                Ok(()) => self.parts.push((self.heads.len(), records)),
                Err(error) => {
                    tracing::error!(node = peer.node.0, %error, "a message cannot be sent");
                    skipped += 1;
                }
            }
        }
        skipped
    }

    fn ping(&mut self, number: u64) -> Result<(), TransportError> {
        encode_head(&mut self.heads, FrameKind::Ping, &Ping { number }, std::iter::empty())?;
        self.parts.push((self.heads.len(), Vec::new()));
        Ok(())
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.parts.len() * 2);
        let mut start = 0;
        for (end, records) in &self.parts {
            if records.is_empty() && Some(*end) != self.parts.last().map(|(last, _)| *last) {
                // Heads that follow one another are one slice.
                continue;
            }
            slices.push(IoSlice::new(&self.heads[start..*end]));
            slices.extend(records.iter().map(|record| IoSlice::new(record.bytes())));
            start = *end;
        }
        slices
    }
}

/// The records of a message; `None` when one cannot be had, or is not what its entry says.
fn records_of(shared: &Shared, peer: &Peer, parcel: &Parcel) -> Option<Vec<RecordBytes>> {
    let mut records = Vec::with_capacity(parcel.records.len());
    for (entry, record) in parcel.message.entries.iter().zip(&parcel.records) {
        let read = match record {
            RecordToSend::Here(bytes) => Ok(bytes.clone()),
            RecordToSend::Stored => shared.records.record(entry),
        };
        match read {
            Ok(bytes) if bytes.bytes().len() as u64 == u64::from(entry.len) => records.push(bytes),
            Ok(bytes) => {
                let len = bytes.bytes().len();
                tracing::error!(lsn = entry.lsn.0, len, wanted = entry.len, "another record");
                return None;
            }
            Err(error) => {
                tracing::debug!(node = peer.node.0, lsn = entry.lsn.0, error, "no record to send");
                return None;
            }
        }
    }
    Some(records)
}

/// A connection to send on.
struct Link {
    socket: Socket,
    ears: Ears,
    pings: u64,
    last_written: Instant,
    connection: Connection,
}

impl Link {
    /// Hears what has come, and whether the peer is there.
    fn hear(&mut self, peer: &Peer) -> Result<(), TransportError> {
        self.ears.hear(&mut self.socket).map_err(|error| match error {
            TransportError::Refused { refusal, .. } => {
                TransportError::Refused { node: peer.node, refusal }
            }
            error => error,
        })
    }

    /// Writes everything. A peer that takes nothing is waited for as long as it says that it is there.
    fn write(&mut self, lane: &PeerLane, output: &Output) -> io::Result<u64> {
        let (ears, mut progress) = (&mut self.ears, (0, Instant::now()));
        let written = write_all(&mut self.socket, &mut output.slices(), |socket, count, _| {
            if lane.outbox.is_stopped() {
                return Err(ErrorKind::Interrupted.into());
            }
            // A pong, or bytes that went, and the patience begins anew.
            if ears.hear_any(socket)? || count > progress.0 {
                progress = (count, Instant::now());
            }
            if progress.1.elapsed() < ears.silence_max { Ok(()) } else { Err(silent()) }
        });
        let written = written.map_err(|error| match error.kind() {
            ErrorKind::Interrupted => io::Error::other("it was stopped"),
            _ => error,
        })?;
        self.last_written = Instant::now();
        if written >= PROGRESS_BYTES {
            self.ears.asked = self.ears.asked.map(|_| Instant::now());
        }
        Ok(written)
    }
}

/// What comes back on a connection to send on: pongs, and the reason why it ends.
struct Ears {
    heard: Vec<u8>,
    /// When the oldest ping went that has no answer.
    asked: Option<Instant>,
    silence_max: Duration,
}

impl Ears {
    /// Takes what has come without waiting.
    fn hear(&mut self, socket: &mut Socket) -> Result<(), TransportError> {
        self.read(socket)?;
        match self.asked {
            Some(asked) if asked.elapsed() > self.silence_max => Err(silent().into()),
            _ => Ok(()),
        }
    }

    /// As `hear`, and whether anything came.
    fn hear_any(&mut self, socket: &mut Socket) -> io::Result<bool> {
        self.read(socket).map_err(io::Error::other)
    }

    fn read(&mut self, socket: &mut Socket) -> Result<bool, TransportError> {
        socket.tcp().set_nonblocking(true)?;
        let read = self.read_some(socket);
        socket.tcp().set_nonblocking(false)?;
        let (came, ended) = read;
        while let Some((frame, len)) = parse_frame(&self.heard, HELLO_CAPS)? {
            self.heard.drain(..len);
            match frame.kind {
                FrameKind::Pong => self.asked = None,
                FrameKind::Refusal => {
                    let (node, refusal) = (crate::ids::NodeId::NONE, frame.control::<Refusal>()?);
                    return Err(TransportError::Refused { node, refusal });
                }
                kind => return Err(WireError::Unexpected(kind as u8).into()),
            }
        }
        ended.map_or(Ok(came), |error| Err(error.into()))
    }

    /// Reads until there is nothing: whether anything came, and whether the connection has ended, which
    /// matters once what came before was looked at.
    fn read_some(&mut self, socket: &mut Socket) -> (bool, Option<io::Error>) {
        let (mut buffer, before) = ([0; 1024], self.heard.len());
        let mut ended = None;
        while ended.is_none() && self.heard.len() < HEARD_MAX {
            match socket.read(&mut buffer) {
                Ok(0) => ended = Some(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.heard.extend_from_slice(&buffer[..count]),
                Err(error) if is_timeout(&error) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => ended = Some(error),
            }
        }
        (self.heard.len() > before, ended)
    }
}

fn silent() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "the peer is silent")
}
