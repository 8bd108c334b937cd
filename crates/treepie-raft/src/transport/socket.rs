//! A connection, with or without TLS, and who is at its other end.

use std::{
    fmt,
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{Identity, TransportError};

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all, and so only within this machine.
    Loopback,
    /// Both sides show a certificate of their own.
    #[cfg(feature = "tls")]
    Tls(Tls),
}

impl Security {
    /// Refuses an address that must not be listened on, or connected to.
    ///
    /// # Errors
    /// [`TransportError::PlaintextBeyondLoopback`].
    pub fn check(&self, address: &SocketAddr) -> Result<(), TransportError> {
        match self {
            Security::Loopback if !address.ip().to_canonical().is_loopback() => {
                let address = address.to_string();
                Err(TransportError::PlaintextBeyondLoopback { address })
            }
            _ => Ok(()),
        }
    }

    /// Who this side is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        match self {
            Security::Loopback => &Identity::Loopback,
            #[cfg(feature = "tls")]
            Security::Tls(tls) => tls.identity(),
        }
    }

    /// Protects a connection that was accepted, until the deadline, which stays in force.
    ///
    /// # Errors
    /// The other side cannot prove who it is, or takes too long.
    pub fn accept(&self, stream: TcpStream, deadline: Instant) -> Result<Socket, TransportError> {
        let tcp = Tcp::new(stream, deadline)?;
        match self {
            Security::Loopback => Ok(Socket::plain(tcp)),
            #[cfg(feature = "tls")]
            Security::Tls(tls) => {
                let (stream, identity) = tls.accept(tcp)?;
                Ok(Socket { inner: Inner::Accepted(Box::new(stream)), identity })
            }
        }
    }

    /// Protects a connection that was dialled, as above.
    ///
    /// # Errors
    /// As above.
    pub fn connect(&self, stream: TcpStream, deadline: Instant) -> Result<Socket, TransportError> {
        let tcp = Tcp::new(stream, deadline)?;
        match self {
            Security::Loopback => Ok(Socket::plain(tcp)),
            #[cfg(feature = "tls")]
            Security::Tls(tls) => {
                let (stream, identity) = tls.connect(tcp)?;
                Ok(Socket { inner: Inner::Dialled(Box::new(stream)), identity })
            }
        }
    }
}

/// A connection.
pub struct Socket {
    inner: Inner,
    identity: Identity,
}

enum Inner {
    Plain(Tcp),
    #[cfg(feature = "tls")]
    Accepted(Box<rustls::StreamOwned<rustls::ServerConnection, Tcp>>),
    #[cfg(feature = "tls")]
    Dialled(Box<rustls::StreamOwned<rustls::ClientConnection, Tcp>>),
}

impl Socket {
    fn plain(tcp: Tcp) -> Socket {
        Socket { inner: Inner::Plain(tcp), identity: Identity::Loopback }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The socket below: to be closed from elsewhere, say.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match &self.inner {
            Inner::Plain(tcp) => &tcp.stream,
            #[cfg(feature = "tls")]
            Inner::Accepted(stream) => &stream.sock.stream,
            #[cfg(feature = "tls")]
            Inner::Dialled(stream) => &stream.sock.stream,
        }
    }

    /// The same connection once more, if what is written to it is what the other side reads.
    #[must_use]
    pub fn plain_clone(&self) -> Option<TcpStream> {
        match &self.inner {
            Inner::Plain(tcp) => tcp.stream.try_clone().ok(),
            #[cfg(feature = "tls")]
            _ => None,
        }
    }

    /// Everything has to be read and written by then.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.tcp_mut().deadline = Some(deadline);
    }

    /// No deadline any more: each read and each write may take so long.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_timeouts(&mut self, read: Duration, write: Duration) -> io::Result<()> {
        self.tcp_mut().deadline = None;
        self.tcp().set_read_timeout(Some(read))?;
        self.tcp().set_write_timeout(Some(write))
    }

    fn tcp_mut(&mut self) -> &mut Tcp {
        match &mut self.inner {
            Inner::Plain(tcp) => tcp,
            #[cfg(feature = "tls")]
            Inner::Accepted(stream) => &mut stream.sock,
            #[cfg(feature = "tls")]
            Inner::Dialled(stream) => &mut stream.sock,
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(tcp) => tcp.read(buffer),
            #[cfg(feature = "tls")]
            Inner::Accepted(stream) => stream.read(buffer),
            #[cfg(feature = "tls")]
            Inner::Dialled(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(tcp) => tcp.write_vectored(slices),
            #[cfg(feature = "tls")]
            Inner::Accepted(stream) => stream.write_vectored(slices),
            #[cfg(feature = "tls")]
            Inner::Dialled(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::Plain(tcp) => tcp.flush(),
            #[cfg(feature = "tls")]
            Inner::Accepted(stream) => stream.flush(),
            #[cfg(feature = "tls")]
            Inner::Dialled(stream) => stream.flush(),
        }
    }
}

/// A socket on which everything has to be done by a deadline: a timeout of each read alone would let
/// somebody send a byte at a time, for ever.
#[derive(Debug)]
pub(super) struct Tcp {
    stream: TcpStream,
    deadline: Option<Instant>,
}

impl Tcp {
    fn new(stream: TcpStream, deadline: Instant) -> io::Result<Tcp> {
        stream.set_nodelay(true)?;
        Ok(Tcp { stream, deadline: Some(deadline) })
    }

    /// How long this call may take; `None` where the timeouts of the socket hold.
    fn remaining(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Tcp {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(remaining) = self.remaining()? {
            self.stream.set_read_timeout(Some(remaining))?;
        }
        self.stream.read(buffer)
    }
}

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(remaining) = self.remaining()? {
            self.stream.set_write_timeout(Some(remaining))?;
        }
        self.stream.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
