//! The thread that receives on one connection of a peer.

use std::sync::Arc;

use super::{
    Delivery, Socket, TransportError,
    connections::Connection,
    handshake::{Met, refuse},
    peer::{Peer, PeerLane},
    tcp::Shared,
};
use crate::{
    message::{Message, MessageKind},
    wire::{
        FrameHead, FrameKind, FrameReader, Hello, Refusal, WireError,
        message::{PEER_CAPS, message_of},
        stream::Ping,
        write_frame,
    },
};

/// Receives until the connection ends.
pub(super) fn run(shared: &Arc<Shared>, met: Met) {
    let Met { mut reader, hello, connection } = met;
    let (node, lane) = (hello.from, hello.lane.name());
    let Some(peer) = shared.peer(node) else {
        // Whoever admits a node says where it is: without that, nothing could be answered.
        refuse(reader.get_mut(), Refusal::Stranger);
        return;
    };
    // It is there, so it can be dialled.
    peer.poke();
    let peer_lane = peer.lane(hello.lane);
    if let Some(before) = peer_lane.set_inbound(connection.number()) {
        shared.connections.shut_down(before);
    }
    if peer_lane.outbox.is_stopped() {
        // It was removed meanwhile.
        refuse(reader.get_mut(), Refusal::Stranger);
        return;
    }
    let ended = Receiver { shared, peer: &peer, lane: peer_lane, hello: &hello, last_ping: 0 }
        .receive(&mut reader, &connection);
    peer_lane.end_inbound(connection.number());
    match ended {
        Ok(()) => tracing::debug!(node = node.0, lane, "the peer has closed its connection"),
        Err(End::Refused(refusal)) => {
            tracing::debug!(node = node.0, lane, %refusal, "a connection is ended");
            refuse(reader.get_mut(), refusal);
        }
        Err(End::Failed(error)) => {
            tracing::debug!(node = node.0, lane, %error, "a connection has ended");
            if !matches!(error, TransportError::Wire(WireError::Io(_)) | TransportError::Stopped) {
                refuse(reader.get_mut(), Refusal::Damaged);
            }
        }
    }
}

/// Why a connection ends before the peer closes it.
enum End {
    Refused(Refusal),
    Failed(TransportError),
}

impl From<WireError> for End {
    fn from(error: WireError) -> End {
        End::Failed(error.into())
    }
}

struct Receiver<'a> {
    shared: &'a Shared,
    peer: &'a Peer,
    lane: &'a PeerLane,
    hello: &'a Hello,
    last_ping: u64,
}

impl Receiver<'_> {
    fn receive(
        &mut self,
        reader: &mut FrameReader<Socket>,
        connection: &Connection,
    ) -> Result<(), End> {
        let options = &self.shared.options;
        let timeouts = reader.get_mut().set_timeouts(options.idle_timeout, options.idle_timeout);
        timeouts.map_err(|error| End::Failed(error.into()))?;
        reader.set_caps(PEER_CAPS);
        while let Some(head) = reader.head()? {
            match head.kind {
                FrameKind::Message => self.message(reader, &head)?,
                FrameKind::Ping => {
                    self.last_ping = head.control::<Ping>()?.number;
                    reader.attachments(&head)?;
                    pong(reader, self.last_ping)?;
                }
                kind => return Err(WireError::Unexpected(kind as u8).into()),
            }
            // A connection that was replaced must not go on with what it has read ahead.
            if self.lane.inbound() != Some(connection.number()) {
                return Err(End::Refused(Refusal::Replaced));
            }
        }
        Ok(())
    }

    fn message(&mut self, reader: &mut FrameReader<Socket>, head: &FrameHead) -> Result<(), End> {
        let message = message_of(head)?;
        self.check(&message)?;
        let bytes = head.attachments_len();
        let (interval, last_ping) = (self.shared.options.ping_interval, self.last_ping);
        // Who waits for room here is there, and says so.
        let credit = self.peer.receiving.take(bytes, interval, || {
            !self.shared.connections.is_stopped() && pong(reader, last_ping).is_ok()
        });
        let credit = credit.ok_or(End::Failed(TransportError::Stopped))?;
        let records = reader.attachments(head)?;
        self.lane.received(bytes);
        let is_last = !reader.has_more();
        let delivery = Delivery { message, records, credit, lane: self.lane.lane, is_last };
        self.shared.handler.deliver(delivery).map_err(End::Refused)
    }

    /// Who it says that it is from must be who has dialled. A wish to hand over is forwarded with the
    /// number of the node that is to lead.
    fn check(&self, message: &Message) -> Result<(), WireError> {
        let is_forwarded = message.kind == MessageKind::TransferLeader;
        if message.to != self.shared.options.node {
            return Err(WireError::Layout("a message is for another node"));
        }
        if message.from != self.hello.from && !is_forwarded {
            return Err(WireError::Layout("a message is of another node"));
        }
        if message.is_urgent() != (self.lane.lane == crate::wire::Lane::Urgent) {
            return Err(WireError::Layout("a message is on the wrong lane"));
        }
        Ok(())
    }
}

fn pong(reader: &mut FrameReader<Socket>, number: u64) -> Result<(), WireError> {
    write_frame(reader.get_mut(), FrameKind::Pong, &Ping { number }, &[])
}
