//! The server: accepts clients, and does what they ask for on a [`Store`].
//!
//! A few threads have all connections between them. Each waits for whatever happens next on any of its
//! own: bytes that came, room to write, an outcome from the store. Requests are taken as they come and
//! answered as they are done, so any number of them are on their way on one connection, and outcomes of
//! one merged commit leave together.
//!
//! Everything is bounded: connections, requests of one and their bytes in all, answers that a client
//! does not fetch. At a bound the server reads no more until there is room, which the client's socket
//! feels.

mod connection;
mod mailbox;
mod service_loop;
mod socket;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;

use super::store::Store;
use crate::transport::Security;
use mailbox::{Mail, Mailbox};
use service_loop::ServiceLoop;

/// What a server may be told.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    threads: usize,
    connections_max: usize,
    in_flight_max: u32,
    in_flight_len_max: usize,
    hello_timeout: Duration,
    stall_timeout: Duration,
    idle_timeout: Duration,
    stop_timeout: Duration,
    security: Security,
}

impl Default for ServerOptions {
    fn default() -> ServerOptions {
        ServerOptions {
            threads: 1,
            connections_max: 1024,
            in_flight_max: 1024,
            in_flight_len_max: 64 << 20,
            hello_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(900),
            stop_timeout: Duration::from_secs(5),
            security: Security::Loopback,
        }
    }
}

impl ServerOptions {
    /// The default ones.
    #[must_use]
    pub fn new() -> ServerOptions {
        ServerOptions::default()
    }

    /// How connections are protected; not at all by default, and so only within this machine. With TLS,
    /// clients and nodes of the same cluster are served.
    #[must_use]
    pub fn security(mut self, security: Security) -> ServerOptions {
        self.security = security;
        self
    }

    /// Threads that have the connections between them; 1 by default, which serves what two cores can do.
    #[must_use]
    pub fn threads(mut self, count: usize) -> ServerOptions {
        self.threads = count.clamp(1, 64);
        self
    }

    /// Connections, at most; 1,024 by default. One more is closed at once, with the reason.
    #[must_use]
    pub fn connections_max(mut self, count: usize) -> ServerOptions {
        self.connections_max = count.max(1);
        self
    }

    /// Requests of one connection that may be on their way, at most; 1,024 by default.
    #[must_use]
    pub fn in_flight_max(mut self, count: u32) -> ServerOptions {
        self.in_flight_max = count.max(1);
        self
    }

    /// Bytes of all requests on their way, at most, and a request more; 64 MiB by default.
    #[must_use]
    pub fn in_flight_len_max(mut self, len: usize) -> ServerOptions {
        self.in_flight_len_max = len;
        self
    }

    /// How long a connection may take to say hello; 10 seconds by default.
    #[must_use]
    pub fn hello_timeout(mut self, timeout: Duration) -> ServerOptions {
        self.hello_timeout = timeout;
        self
    }

    /// How long a client may leave a request unfinished or answers unread; 30 seconds by default.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> ServerOptions {
        self.stall_timeout = timeout;
        self
    }

    /// How long a client may ask for nothing; 15 minutes by default. Clients connect again by
    /// themselves.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> ServerOptions {
        self.idle_timeout = timeout;
        self
    }

    /// How long stopping waits for what is on its way; 5 seconds by default.
    #[must_use]
    pub fn stop_timeout(mut self, timeout: Duration) -> ServerOptions {
        self.stop_timeout = timeout;
        self
    }
}

/// What a server has done since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCounters {
    /// Open connections.
    pub connections: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that were refused: too many, or another cluster's.
    pub refused: u64,
    /// Connections that were closed because damaged or forbidden bytes came.
    pub broken: u64,
    /// Connections that were closed because a client was silent for too long.
    pub timed_out: u64,
    /// Requests that came.
    pub requests: u64,
    /// Responses that were made.
    pub responses: u64,
    /// Bytes that came.
    pub received_len: u64,
    /// Bytes that were sent.
    pub sent_len: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    timed_out: AtomicU64,
    requests: AtomicU64,
    responses: AtomicU64,
    received_len: AtomicU64,
    sent_len: AtomicU64,
}

/// What the threads of a server share.
struct Shared {
    store: Arc<dyn Store>,
    options: ServerOptions,
    counters: Counters,
    /// Where each thread gets its mail, in their order.
    mailboxes: Vec<Arc<Mailbox>>,
}

/// A running server. It stops when it goes.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    /// Serves `store` to whoever connects to `listener`.
    ///
    /// # Errors
    /// The operating system has no threads or descriptors left. Without TLS, the address is not one of
    /// this machine alone.
    pub fn start(
        listener: TcpListener,
        store: Arc<dyn Store>,
        options: ServerOptions,
    ) -> io::Result<Server> {
        let address = listener.local_addr()?;
        options.security.check(&address).map_err(io::Error::other)?;
        listener.set_nonblocking(true)?;
        let mut polls = Vec::with_capacity(options.threads);
        let mut mailboxes = Vec::with_capacity(options.threads);
        for _ in 0..options.threads {
            let poll = mio::Poll::new()?;
            mailboxes.push(Arc::new(Mailbox::new(&poll)?));
            polls.push(poll);
        }
        let counters = Counters::default();
        let shared = Arc::new(Shared { store, options, counters, mailboxes });
        let server = Server { address, shared: Arc::clone(&shared), threads: Mutex::default() };
        // The first thread accepts, for all of them.
        let mut listener = Some(mio::net::TcpListener::from_std(listener));
        for (index, poll) in polls.into_iter().enumerate() {
            let service = ServiceLoop::new(index, poll, Arc::clone(&shared), listener.take())?;
            let thread = thread::Builder::new().name("treepie-clients".to_owned());
            server.threads.lock().push(thread.spawn(move || service.run())?);
        }
        tracing::info!(%address, "serving clients");
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> ServerCounters {
        let counters = &self.shared.counters;
        ServerCounters {
            connections: counters.connections.load(Relaxed) as u64,
            accepted: counters.accepted.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            broken: counters.broken.load(Relaxed),
            timed_out: counters.timed_out.load(Relaxed),
            requests: counters.requests.load(Relaxed),
            responses: counters.responses.load(Relaxed),
            received_len: counters.received_len.load(Relaxed),
            sent_len: counters.sent_len.load(Relaxed),
        }
    }

    /// Takes nothing more, answers what is on its way if that does not take too long, and ends. What is
    /// not answered may be done all the same: clients ask again with the same request id.
    pub fn stop(&self) {
        for mailbox in &self.shared.mailboxes {
            mailbox.push(Mail::Stop);
        }
        for thread in self.threads.lock().drain(..) {
            // A panic of the thread was told where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
