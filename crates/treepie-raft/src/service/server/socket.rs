//! A client's socket that never waits: plain, or with TLS around it.

#[cfg(feature = "tls")]
use std::io::ErrorKind;
use std::io::{self, Read, Write};

use mio::{Interest, Registry, Token, net::TcpStream};

#[cfg(feature = "tls")]
use crate::transport::tls;
use crate::transport::{Identity, Security};

/// A client's socket.
pub struct Socket {
    stream: TcpStream,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::ServerConnection>>,
    /// Who is at the other end, once that is known.
    identity: Option<Identity>,
}

impl Socket {
    pub fn new(stream: TcpStream, security: &Security) -> io::Result<Socket> {
        match security {
            Security::Loopback => Ok(Socket {
                stream,
                #[cfg(feature = "tls")]
                tls: None,
                identity: Some(Identity::Loopback),
            }),
            #[cfg(feature = "tls")]
            Security::Tls(tls) => {
                let connection = tls.accepted().map_err(io::Error::other)?;
                Ok(Socket { stream, tls: Some(Box::new(connection)), identity: None })
            }
        }
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.stream)
    }

    /// Who is at the other end; nobody while hands are shaken.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Whether bytes may have come that the system has given away: those in TLS.
    pub fn holds_input(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// Whether bytes wait in TLS that the system did not take.
    pub fn has_unsent(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.wants_write();
        }
        false
    }

    /// Sends what waits in TLS.
    #[cfg(feature = "tls")]
    fn push(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[cfg(feature = "tls")]
    fn read_tls(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(tls) = &mut self.tls else { return Ok(0) };
            match tls.reader().read(to) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Without a farewell the end may be somebody else's doing; the requests that came whole
                // are whole all the same.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            match tls.read_tls(&mut self.stream) {
                Ok(0) if tls.is_handshaking() => return Ok(0),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let processed = tls.process_new_packets();
            if processed.is_ok() && self.identity.is_none() && !tls.is_handshaking() {
                self.identity = Some(tls::identity_at(tls).map_err(io::Error::other)?);
            }
            match self.push() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                // What is left goes when there is room.
                _ => processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?,
            };
        }
    }
}

impl Read for Socket {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return self.read_tls(to);
        }
        self.stream.read(to)
    }
}

impl Write for Socket {
    /// With TLS, bytes that were taken may still wait: [`has_unsent`](Socket::has_unsent).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            // First what waits: so no more than one piece ever does.
            self.push()?;
            let Some(tls) = &mut self.tls else { return Ok(0) };
            let taken = tls.writer().write(bytes)?;
            return match self.push() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                _ => Ok(taken),
            };
        }
        self.stream.write(bytes)
    }

    /// Sends what waits.
    fn flush(&mut self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        self.push()?;
        Ok(())
    }
}
