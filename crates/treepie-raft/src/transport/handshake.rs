//! Hello, and the answer to it, on both sides.

use std::{
    net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use super::{Socket, TransportError, connections::Connection, tcp::Shared};
use crate::{
    ids::NodeId,
    wire::{
        FrameKind, FrameReader, Hello, Lane, PROTOCOL_VERSION, Refusal, Welcome, WireError,
        hello::HELLO_CAPS, write_frame,
    },
};

/// How long the reason for an end is kept on its way before the connection is closed, at most.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away meanwhile, at most.
const LINGER_BYTES_MAX: usize = 64 << 20;

/// A connection on which both sides know each other.
pub(super) struct Met {
    pub(super) reader: FrameReader<Socket>,
    /// What was said by who has dialled.
    pub(super) hello: Hello,
    pub(super) connection: Connection,
}

/// Connects to a node, says hello, and waits to be welcome.
pub(super) fn dial(
    shared: &Shared,
    (node, address): (NodeId, &str),
    lane: Lane,
    purpose: Vec<u8>,
) -> Result<Met, TransportError> {
    let stream = connect(shared, address)?;
    let connection = shared.connections.add(&stream)?;
    let options = &shared.options;
    let deadline = Instant::now() + options.hello_timeout;
    let mut socket = options.security.connect(stream, deadline)?;
    if !socket.identity().is_node(options.cluster, node) {
        return Err(TransportError::Impostor { node, refusal: Refusal::Certificate });
    }
    let hello = Hello {
        cluster: options.cluster,
        from: options.node,
        to: node,
        lane,
        page_format: options.page_format,
        address: shared.advertised.clone(),
        purpose,
    };
    write_frame(&mut socket, FrameKind::Hello, &hello, &[])?;
    let mut reader = FrameReader::new(socket, HELLO_CAPS);
    let frame = reader.frame()?.ok_or_else(closed)?;
    match frame.kind {
        FrameKind::Welcome => check_welcome(shared, node, &frame.control()?)?,
        FrameKind::Refusal => {
            return Err(TransportError::Refused { node, refusal: frame.control()? });
        }
        kind => return Err(WireError::Unexpected(kind as u8).into()),
    }
    Ok(Met { reader, hello, connection })
}

fn connect(shared: &Shared, address: &str) -> Result<TcpStream, TransportError> {
    let failed = |source| TransportError::Connect { address: address.to_owned(), source };
    let mut last = None;
    for resolved in address.to_socket_addrs().map_err(failed)? {
        shared.options.security.check(&resolved)?;
        match TcpStream::connect_timeout(&resolved, shared.options.connect_timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    let nowhere = || std::io::Error::new(std::io::ErrorKind::NotFound, "it leads nowhere");
    Err(failed(last.unwrap_or_else(nowhere)))
}

fn check_welcome(shared: &Shared, node: NodeId, welcome: &Welcome) -> Result<(), TransportError> {
    let options = &shared.options;
    let refusal = if welcome.cluster != options.cluster {
        Refusal::OtherCluster { ours: welcome.cluster }
    } else if welcome.from != node {
        Refusal::OtherNode { ours: welcome.from }
    } else if welcome.page_format != options.page_format {
        Refusal::PageFormat { ours: welcome.page_format }
    } else {
        return Ok(());
    };
    Err(TransportError::Impostor { node, refusal })
}

/// Reads the hello of a connection that was accepted, and says whether it is welcome.
pub(super) fn meet(shared: &Shared, stream: TcpStream) -> Result<Met, TransportError> {
    let connection = shared.connections.add(&stream)?;
    let options = &shared.options;
    let deadline = Instant::now() + options.hello_timeout;
    let socket = options.security.accept(stream, deadline)?;
    let mut reader = FrameReader::new(socket, HELLO_CAPS);
    let frame = reader.frame();
    if matches!(frame, Err(WireError::Version { .. })) {
        // The header of the answer says as much to whoever cannot read the rest.
        refuse(reader.get_mut(), Refusal::Protocol { ours: PROTOCOL_VERSION });
    }
    let frame = frame?.ok_or_else(closed)?;
    if frame.kind != FrameKind::Hello {
        return Err(WireError::Unexpected(frame.kind as u8).into());
    }
    let hello: Hello = frame.control()?;
    if let Err(refusal) = admit(shared, reader.get_ref(), &hello) {
        refuse(reader.get_mut(), refusal);
        return Err(TransportError::Refused { node: hello.from, refusal });
    }
    let (cluster, from, page_format) = (options.cluster, options.node, options.page_format);
    let welcome = Welcome { cluster, from, page_format };
    write_frame(reader.get_mut(), FrameKind::Welcome, &welcome, &[])?;
    Ok(Met { reader, hello, connection })
}

fn admit(shared: &Shared, socket: &Socket, hello: &Hello) -> Result<(), Refusal> {
    let options = &shared.options;
    if hello.cluster != options.cluster {
        return Err(Refusal::OtherCluster { ours: options.cluster });
    }
    if hello.to != options.node {
        return Err(Refusal::OtherNode { ours: options.node });
    }
    let is_node = socket.identity().is_node(hello.cluster, hello.from);
    if !is_node || hello.from == options.node || hello.from == NodeId::NONE {
        return Err(Refusal::Certificate);
    }
    if hello.page_format != options.page_format {
        return Err(Refusal::PageFormat { ours: options.page_format });
    }
    shared.handler.admit(hello)
}

/// Says why a connection ends. What the other side has sent meanwhile is read and thrown away: a socket
/// that is closed with unread bytes takes back what it has sent last.
pub(super) fn refuse(socket: &mut Socket, refusal: Refusal) {
    socket.set_deadline(Instant::now() + LINGER);
    if write_frame(socket, FrameKind::Refusal, &refusal, &[]).is_err() {
        return;
    }
    let _ = socket.tcp().shutdown(Shutdown::Write);
    let mut buffer = [0; 8192];
    for _ in 0..LINGER_BYTES_MAX / buffer.len() {
        if !matches!(std::io::Read::read(socket, &mut buffer), Ok(1..)) {
            break;
        }
    }
}

/// Whether the address is one at which the listener can be reached from this machine.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        let loopback = match address {
            SocketAddr::V4(_) => std::net::IpAddr::from([127, 0, 0, 1]),
            SocketAddr::V6(_) => std::net::IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        };
        address.set_ip(loopback);
    }
    address
}

fn closed() -> TransportError {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it was closed without an answer").into()
}
