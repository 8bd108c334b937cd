//! The transport over TCP: who is talked with, and the threads that do it.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, atomic::AtomicUsize},
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Mutex, RwLock};

use super::{
    DropReason, Handler, PageStream, PeerStatus, RecordSource, RecordToSend, Sent, Transport,
    TransportError, TransportOptions,
    connections::Connections,
    handshake::{dial, reachable},
    listener,
    outbox::Parcel,
    peer::Peer,
    sender,
};
use crate::{ids::NodeId, message::Message, wire::Lane};

/// Connections to other nodes over TCP. Dropping it stops it.
pub struct TcpTransport {
    shared: Arc<Shared>,
}

/// What its threads have in common.
pub(super) struct Shared {
    pub(super) options: TransportOptions,
    pub(super) advertised: String,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) records: Arc<dyn RecordSource>,
    pub(super) connections: Arc<Connections>,
    pub(super) accepted: AtomicUsize,
    local: SocketAddr,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shared {
    pub(super) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.read().get(&node).cloned()
    }

    /// Runs a thread that is joined when the transport stops.
    pub(super) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(error) => tracing::error!(%error, "no thread for a connection"),
        }
    }
}

impl TcpTransport {
    /// Listens, and dials whoever is made known by [`set_peer`](TcpTransport::set_peer).
    ///
    /// # Errors
    /// The address cannot be listened on, or must not; the certificate is another node's.
    pub fn start(
        options: TransportOptions,
        handler: Arc<dyn Handler>,
        records: Arc<dyn RecordSource>,
    ) -> Result<TcpTransport, TransportError> {
        let identity = options.security.identity();
        if !identity.is_node(options.cluster, options.node) {
            return Err(TransportError::OwnCertificate { identity: identity.to_string() });
        }
        let listener = listen(&options)?;
        let local = listener.local_addr()?;
        let advertised = options.advertised.clone().unwrap_or_else(|| local.to_string());
        let shared = Arc::new(Shared {
            options,
            advertised,
            handler,
            records,
            connections: Arc::default(),
            accepted: AtomicUsize::new(0),
            local,
            peers: RwLock::default(),
            threads: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        shared.spawn("treepie listener", move || listener::run(&accepting, &listener));
        Ok(TcpTransport { shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.shared.local
    }

    /// A node is at this address: it is dialled from now on, and messages to it are taken. One that was
    /// elsewhere is dialled there the next time that there is no connection.
    pub fn set_peer(&self, node: NodeId, address: &str) {
        let shared = &self.shared;
        if node == shared.options.node || shared.connections.is_stopped() {
            return;
        }
        let mut peers = shared.peers.write();
        if let Some(peer) = peers.get(&node) {
            peer.set_address(address);
            return;
        }
        let peer = Arc::new(Peer::new(node, address.to_owned(), &shared.options));
        peers.insert(node, Arc::clone(&peer));
        drop(peers);
        for lane in [Lane::Urgent, Lane::Bulk] {
            let (shared, peer) = (Arc::clone(shared), Arc::clone(&peer));
            let name = format!("to {node} {}", lane.name());
            self.shared.spawn(&name, move || sender::run(&shared, &peer, lane));
        }
    }

    /// A node is talked with no longer. What waits for it is dropped, and its connections end.
    pub fn remove_peer(&self, node: NodeId) {
        let Some(peer) = self.shared.peers.write().remove(&node) else { return };
        peer.stop();
        for lane in peer.lanes() {
            for number in [lane.inbound(), lane.outbound()].into_iter().flatten() {
                self.shared.connections.shut_down(number);
            }
        }
    }

    /// What was counted, by number of the node.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        self.shared.peers.read().values().map(|peer| peer.status()).collect()
    }

    /// Opens a page stream to a node, which gets to see the purpose. Waits for the connection.
    ///
    /// # Errors
    /// There is none; or the node refuses.
    pub fn open_pages(&self, node: NodeId, purpose: Vec<u8>) -> Result<PageStream, TransportError> {
        let peer = self.shared.peer(node).ok_or(TransportError::UnknownPeer(node))?;
        let address = peer.address();
        let mut met = dial(&self.shared, (node, &address), Lane::Pages, purpose)?;
        let timeout = self.shared.options.idle_timeout;
        met.reader.get_mut().set_timeouts(timeout, timeout)?;
        Ok(PageStream::new(node, met))
    }

    /// Ends all connections, and waits until all threads have ended; so it must not be called while
    /// something is held that a [`Handler`] waits for.
    pub fn stop(&self) {
        let shared = &self.shared;
        shared.connections.stop();
        shared.peers.read().values().for_each(|peer| peer.stop());
        // The listener waits for a connection. If this one fails, another one has come.
        let _ = TcpStream::connect_timeout(&reachable(shared.local), Duration::from_secs(1));
        loop {
            let threads: Vec<JoinHandle<()>> = shared.threads.lock().drain(..).collect();
            if threads.is_empty() {
                break;
            }
            for thread in threads {
                // A handler may drop the last reference to the transport on a thread of it.
                if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                    tracing::error!("a thread of the transport has panicked");
                }
            }
        }
    }
}

fn listen(options: &TransportOptions) -> Result<TcpListener, TransportError> {
    let failed = |source| TransportError::Listen { address: options.listen.clone(), source };
    let addresses = std::net::ToSocketAddrs::to_socket_addrs(&options.listen).map_err(failed)?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    for address in &addresses {
        options.security.check(address)?;
    }
    TcpListener::bind(&addresses[..]).map_err(failed)
}

impl Transport for TcpTransport {
    fn send(&self, message: Message, records: Vec<RecordToSend>) -> Sent {
        assert_eq!(message.entries.len(), records.len(), "each entry has its record");
        let Some(peer) = self.shared.peer(message.to) else {
            return Sent::Dropped(DropReason::UnknownPeer);
        };
        let lane = if message.is_urgent() { &peer.urgent } else { &peer.bulk };
        let (sent, bytes) = lane.outbox.put(Parcel::new(message, records));
        if bytes > 0 {
            lane.sent(1, bytes);
        }
        sent
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let local = self.shared.local;
        f.debug_struct("TcpTransport").field("local", &local).finish_non_exhaustive()
    }
}
