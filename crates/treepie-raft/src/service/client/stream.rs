//! A client's connection that one thread reads and another writes: plain, or with TLS around it.

#[cfg(feature = "tls")]
use std::io::ErrorKind;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

#[cfg(feature = "tls")]
use parking_lot::Mutex;

#[cfg(feature = "tls")]
use crate::transport::tls;
use crate::transport::{Identity, Security};

/// A connection. Reading has to be left to one thread, writing to one at a time.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    #[cfg(feature = "tls")]
    tls: Option<Mutex<Half>>,
    identity: Identity,
}

#[cfg(feature = "tls")]
#[derive(Debug)]
struct Half {
    connection: rustls::ClientConnection,
    /// What is to be sent, encrypted.
    output: Vec<u8>,
    /// What came and was not decrypted yet.
    input: Vec<u8>,
}

#[cfg(feature = "tls")]
impl Half {
    fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }
}

/// Bytes that are read at once, encrypted: a TLS record and a little more.
#[cfg(feature = "tls")]
const INPUT_SIZE: usize = 20 << 10;

impl Stream {
    /// Protects a connection as `security` says, within the timeouts that it has.
    pub fn new(tcp: TcpStream, security: &Security) -> io::Result<Stream> {
        match security {
            Security::Loopback => Ok(Stream {
                tcp,
                #[cfg(feature = "tls")]
                tls: None,
                identity: Identity::Loopback,
            }),
            #[cfg(feature = "tls")]
            Security::Tls(tls) => {
                let mut connection = tls.dialled().map_err(io::Error::other)?;
                connection.set_buffer_limit(None);
                while connection.is_handshaking() {
                    connection.complete_io(&mut &tcp)?;
                }
                let identity = tls::identity_at(&connection).map_err(io::Error::other)?;
                let half = Half { connection, output: Vec::new(), input: Vec::new() };
                Ok(Stream { tcp, tls: Some(Mutex::new(half)), identity })
            }
        }
    }

    /// Who is at the other end.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp.set_read_timeout(timeout)
    }

    pub fn shutdown(&self) -> io::Result<()> {
        self.tcp.shutdown(Shutdown::Both)
    }

    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let mut half = tls.lock();
            let Half { connection, output, .. } = &mut *half;
            connection.writer().write_all(bytes)?;
            while connection.wants_write() {
                connection.write_tls(output)?;
            }
            // Not under the lock: who reads needs it.
            let encrypted = std::mem::take(output);
            drop(half);
            return (&self.tcp).write_all(&encrypted);
        }
        (&self.tcp).write_all(bytes)
    }

    #[cfg(feature = "tls")]
    fn read_tls(&self, tls: &Mutex<Half>, to: &mut [u8]) -> io::Result<usize> {
        let mut encrypted = [0; INPUT_SIZE];
        let mut rest = tls.lock().take_input();
        loop {
            let mut half = tls.lock();
            let Half { connection, input, .. } = &mut *half;
            match connection.reader().read(to) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => {
                    // It takes no more while what was decrypted is not read.
                    *input = rest;
                    let is_cut = |error: &io::Error| error.kind() == ErrorKind::UnexpectedEof;
                    return if result.as_ref().is_err_and(is_cut) { Ok(0) } else { result };
                }
            }
            if rest.is_empty() {
                // Not under the lock: who writes needs it.
                drop(half);
                let count = (&self.tcp).read(&mut encrypted)?;
                if count == 0 {
                    return Ok(0);
                }
                rest.extend(&encrypted[..count]);
                continue;
            }
            let mut unread = &rest[..];
            let taken = connection.read_tls(&mut unread)?;
            rest.drain(..taken);
            connection
                .process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return self.read_tls(tls, to);
        }
        (&self.tcp).read(to)
    }
}
