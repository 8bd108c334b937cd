//! A node: a database that is replicated, with its threads and connections.
//!
//! ```text
//!            transport ──► raft (owns the replica) ──► journal: append, sync
//!  database ──sealed─────►      no I/O             ──► commit: what readers see
//!                                                  ──► feeder: old records for who is behind
//!                                                  ──► transport: messages, records
//! ```

mod driver;
mod error;
mod feeder;
mod input;
mod install;
mod log;
mod moves;
mod options;
mod probe;
mod progress;
mod repair;
mod resume;
mod shared;
mod start;
mod station;
mod works;
mod writer;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::bounded;
use treepie::{
    Database, Receipt, Snapshot, WriteTxn,
    ids::{Lsn, PageId},
};

use self::{
    input::{Answered, Input, Waiting},
    shared::{Ears, Shared, Stored},
    works::Hand,
};
use crate::{
    ids::{ClusterId, NodeId},
    members::{Change, Members, Place},
    replica::{Status, Stopped},
    transport::{PeerStatus, TcpTransport, TransportOptions},
};

#[cfg(not(feature = "planted"))]
use self::probe::{Bug, Probe};
#[cfg(feature = "planted")]
#[doc(hidden)]
pub use self::probe::{Bug, Probe, Step};
pub use self::{
    error::NodeError,
    input::{AgeDone, ChangeDone, ReadDone},
    options::NodeOptions,
    progress::InstallProgress,
    repair::Repairs,
    resume::Resumptions,
};

/// How long a node is asked for its status before it counts as not running.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);

/// A replicated database: one node of a cluster.
///
/// Its [`database`](Node::database) is used as any other: the same closures, the same receipts. Writes are
/// taken on the node that leads; elsewhere they are refused with
/// [`NotLeader`](treepie::Error::NotLeader), which is safe to repeat on the node that it names. A write
/// that was sealed when leadership was lost ends with [`OutcomeUnknown`](treepie::Error::OutcomeUnknown).
pub struct Node {
    shared: Arc<Shared>,
}

/// How a node is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its part in consensus.
    pub replica: Status,
    /// Why it takes no more part, if it does not.
    pub stopped: Option<Stopped>,
    /// How long other nodes were not heard; those that never were are missing.
    pub silent: BTreeMap<NodeId, Duration>,
    /// How far page streams are that it sends to members.
    pub installs: BTreeMap<NodeId, InstallProgress>,
    /// Its connections.
    pub peers: Vec<PeerStatus>,
    /// How far its database is.
    pub database: treepie::Stats,
    /// Damaged pages, and what became of them.
    pub repairs: Repairs,
    /// Page streams that were cut, and went on.
    pub resumptions: Resumptions,
}

impl Node {
    /// Makes a database a node of a cluster: the one that it is in, or, with
    /// [`found`](NodeOptions::found), a new one of this node alone.
    ///
    /// # Errors
    /// [`NodeError`]: the address cannot be listened on, somebody else replicates the database, or its log
    /// contradicts itself.
    pub fn start(database: Database, options: NodeOptions) -> Result<Node, NodeError> {
        let lineage = database.lineage();
        let cluster = ClusterId { database: lineage.database_id, epoch: lineage.epoch };
        let path = database.path().to_owned();
        let node = Node::listen(options, cluster, &path)?;
        node.run(database)?;
        Ok(node)
    }

    /// Opens the database in the folder `path`, and starts a node on it.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn open(path: impl AsRef<Path>, options: NodeOptions) -> Result<Node, NodeError> {
        install::complete(path.as_ref(), &options.probe)?;
        let database = options.engine.open(path)?;
        Node::start(database, options)
    }

    /// Whether there is a database in the folder `path`, also where all pages of it were just exchanged.
    ///
    /// # Errors
    /// [`NodeError::Folder`] when an exchange that was cut off cannot be completed.
    pub fn is_there(path: impl AsRef<Path>) -> Result<bool, NodeError> {
        install::complete(path.as_ref(), &Probe::default())?;
        Ok(path.as_ref().join("data").exists())
    }

    /// Gets all pages from a member of a cluster into the folder `path`, which must not be there, and
    /// starts a node on them. It takes part once it was added as a learner, on the leader.
    ///
    /// # Errors
    /// As [`Node::start`]; and where the pages cannot be had.
    pub fn join(
        path: impl AsRef<Path>,
        options: NodeOptions,
        cluster: ClusterId,
        (member, address): (NodeId, &str),
    ) -> Result<Node, NodeError> {
        let path = path.as_ref();
        let node = Node::listen(options, cluster, path)?;
        let transport = node.shared.transport.get().ok_or(NodeError::NotRunning)?;
        transport.set_peer(member, address);
        let database = install::fetch(&node.shared, member, path)?;
        node.run(database)?;
        Ok(node)
    }

    fn listen(options: NodeOptions, cluster: ClusterId, path: &Path) -> Result<Node, NodeError> {
        let (listen, security) = (options.listen.clone(), options.security.clone());
        let mut transport = TransportOptions::new(options.id, cluster, listen, security)
            .label(&options.label)
            .send_credit(options.send_credit)
            .receive_credit(options.receive_credit);
        if let Some(address) = &options.advertised {
            transport = transport.advertised(address);
        }
        let shared = Arc::new(Shared::new(options, cluster, path.to_owned()));
        let (ears, stored) = (Ears(Arc::downgrade(&shared)), Stored(Arc::downgrade(&shared)));
        let started = TcpTransport::start(transport, Arc::new(ears), Arc::new(stored))?;
        shared.set_transport(started);
        Ok(Node { shared })
    }

    fn run(&self, database: Database) -> Result<(), NodeError> {
        let mut slot = self.shared.running.write();
        *slot = Some(start::start(&self.shared, database)?);
        Ok(())
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.options.id
    }

    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.shared.cluster
    }

    /// Where it listens for other nodes.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`] after it was stopped.
    pub fn address(&self) -> Result<SocketAddr, NodeError> {
        let transport = self.shared.transport.get().ok_or(NodeError::NotRunning)?;
        Ok(transport.local_address())
    }

    /// Where other nodes find it, as the members say.
    #[must_use]
    pub fn advertised_address(&self) -> String {
        self.shared.address()
    }

    /// The database. Ask again for each use rather than keep it: where this node has to be given all
    /// pages anew, a new database takes the place of the old one, whose handles show its last state from
    /// then on, and refuse writes.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`] while that goes on.
    pub fn database(&self) -> Result<Database, NodeError> {
        self.shared.database().ok_or(NodeError::NotRunning)
    }

    /// As [`Database::write`]: when it returns, a majority has the changes on their disks.
    ///
    /// # Errors
    /// As [`Database::write`].
    ///
    /// # Panics
    /// If `change` does.
    #[track_caller]
    pub fn write<T: Send>(
        &self,
        change: impl FnOnce(&mut WriteTxn<'_>) -> treepie::Result<T> + Send,
    ) -> Result<Receipt<T>, NodeError> {
        Ok(self.database()?.write(change)?)
    }

    /// A snapshot that has everything that was acknowledged to anybody before the call, on any node.
    ///
    /// # Errors
    /// [`NodeError::Read`] when no quorum has confirmed it within `timeout`.
    #[track_caller]
    pub fn read_linearizable(&self, timeout: Duration) -> Result<Snapshot, NodeError> {
        self.read_when(None, timeout)
    }

    /// A snapshot of a state at or after an LSN: that of a receipt, to read one's own writes anywhere.
    ///
    /// # Errors
    /// [`NodeError::Read`] when this node is not there within `timeout`.
    #[track_caller]
    pub fn read_at_least(&self, lsn: Lsn, timeout: Duration) -> Result<Snapshot, NodeError> {
        self.read_when(Some(lsn), timeout)
    }

    /// A snapshot that has everything that was acknowledged `bound` ago, as far as this node can know.
    ///
    /// # Errors
    /// [`NodeError::Stale`] when this node was not in touch with a leader for that long.
    #[track_caller]
    pub fn read_stale(&self, bound: Duration) -> Result<Snapshot, NodeError> {
        let age = self.staleness()?;
        if age.is_none_or(|age| age > bound) && !self.shared.options.probe.has(Bug::AgeNotAsked) {
            let age_ms = age.and_then(|age| u64::try_from(age.as_millis()).ok());
            return Err(NodeError::Stale { node: self.id(), age_ms: age_ms.unwrap_or(u64::MAX) });
        }
        Ok(self.database()?.read()?)
    }

    /// How old the state of this node may be; none when no leader was heard.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`].
    pub fn staleness(&self) -> Result<Option<Duration>, NodeError> {
        let (reply, answer) = bounded(1);
        let done: AgeDone = Box::new(move |age| {
            let _ = reply.send(age);
        });
        self.ask_staleness(done)?;
        answer.recv().map_err(|_| NodeError::NotRunning)
    }

    /// As `staleness`, without waiting.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`].
    pub fn ask_staleness(&self, done: AgeDone) -> Result<(), NodeError> {
        self.tell(Input::Staleness(done))
    }

    #[track_caller]
    fn read_when(&self, at_least: Option<Lsn>, timeout: Duration) -> Result<Snapshot, NodeError> {
        let (reply, answer) = bounded(1);
        let done: ReadDone = Box::new(move |outcome| {
            // Nobody waits any more.
            let _ = reply.send(outcome);
        });
        self.ask_read(at_least, timeout, done)?;
        answer.recv().map_err(|_| NodeError::NotRunning)??;
        Ok(self.database()?.read()?)
    }

    /// As `read_linearizable` and `read_at_least`, without waiting: `done` is called on a thread of the
    /// node when a snapshot will do that is opened then, and must not wait for anything.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`].
    pub fn ask_read(
        &self,
        at_least: Option<Lsn>,
        timeout: Duration,
        done: ReadDone,
    ) -> Result<(), NodeError> {
        let deadline = self.shared.clock.now().saturating_add(timeout);
        self.tell(Input::Read(Waiting { at_least, deadline, done }))
    }

    /// Changes the members, on the leader; returns when it is complete. See [`Change`].
    ///
    /// # Errors
    /// [`NodeError::Change`].
    pub fn change(&self, change: Change) -> Result<Lsn, NodeError> {
        let (reply, answer) = bounded(1);
        let done: ChangeDone = Box::new(move |outcome| {
            let _ = reply.send(outcome);
        });
        self.ask_change(change, done)?;
        Ok(answer.recv().map_err(|_| NodeError::NotRunning)??)
    }

    /// As `change`, without waiting.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`].
    pub fn ask_change(&self, change: Change, done: ChangeDone) -> Result<(), NodeError> {
        self.tell(Input::Change(change, done))
    }

    /// Adds a node that gets all records and has no vote.
    ///
    /// # Errors
    /// [`NodeError::Change`].
    pub fn add_learner(&self, id: NodeId, place: Place) -> Result<Lsn, NodeError> {
        self.change(Change::AddLearner { id, place })
    }

    /// Begins to hand leadership over; whether it came to that shows in [`leader`](Node::leader).
    ///
    /// # Errors
    /// [`NodeError::Change`] when this node does not lead, or the other cannot.
    pub fn transfer(&self, to: NodeId) -> Result<(), NodeError> {
        let (reply, answer) = bounded(1);
        self.tell(Input::Transfer(to, reply))?;
        Ok(answer.recv().map_err(|_| NodeError::NotRunning)??)
    }

    /// Who leads, as far as this node knows, and where it is.
    #[must_use]
    pub fn leader(&self) -> Option<(NodeId, Place)> {
        let leader = self.shared.view.lock().leader?;
        Some((leader, self.shared.place(leader).unwrap_or_default()))
    }

    /// Whether this node takes writes now.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.shared.view.lock().is_open
    }

    /// Waits until this node takes writes or knows who does; returns whether that came to be in time.
    #[must_use]
    pub fn wait_for_leader(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut view = self.shared.view.lock();
        while !view.is_open && view.leader.is_none_or(|leader| leader == self.id()) {
            if self.shared.view_changed.wait_until(&mut view, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// Waits until its log says who belongs to the cluster, which a node that founds one has written down
    /// when it has elected itself; returns whether that came to be in time.
    #[must_use]
    pub fn wait_for_members(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut view = self.shared.view.lock();
        while !view.is_founded && !view.is_stopped {
            if self.shared.view_changed.wait_until(&mut view, deadline).timed_out() {
                return false;
            }
        }
        view.is_founded
    }

    /// A member may be found at this address, as somebody says who knows the cluster: for a node that was
    /// away while others have moved. Whoever is there has to prove that it is that member.
    pub fn look_for(&self, member: NodeId, address: &str) {
        let is_member = self.shared.members.read().get(member).is_some();
        if let Some(transport) = self.shared.transport.get().filter(|_| is_member) {
            transport.set_peer(member, address);
        }
    }

    /// The members, as this node knows them.
    #[must_use]
    pub fn members(&self) -> Members {
        self.shared.members.read().clone()
    }

    /// How it is.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`].
    pub fn status(&self) -> Result<NodeStatus, NodeError> {
        let (reply, answer) = bounded(1);
        self.tell(Input::Status(reply))?;
        let answered = answer.recv_timeout(STATUS_PATIENCE);
        let answered = answered.map_err(|_| NodeError::NotRunning)?;
        let Answered { replica, stopped, silent } = answered;
        let installs = self.shared.installs.all();
        let peers = self.shared.transport.get().map(TcpTransport::status).unwrap_or_default();
        let database = self.database()?;
        let repairs = repair::counts(&self.shared, &database);
        let resumptions = self.shared.streams.resumptions();
        let database = database.stats();
        Ok(NodeStatus { replica, stopped, silent, installs, peers, database, repairs, resumptions })
    }

    /// Verifies pages as they are now, and takes those that are damaged from other nodes. Pages that are met
    /// by reads, by [`check`](Database::check) and by applying are repaired without being asked for.
    ///
    /// # Errors
    /// [`NodeError::NotRunning`]. What could not be repaired is in the counts.
    pub fn repair(&self, pages: &[PageId]) -> Result<Repairs, NodeError> {
        let database = self.database()?;
        for page in pages {
            // One that is damaged is noted.
            drop(database.verify_page(*page));
        }
        repair::round(&self.shared, &database);
        Ok(repair::counts(&self.shared, &database))
    }

    fn tell(&self, input: Input) -> Result<(), NodeError> {
        if self.shared.tell(input, Hand::Light) { Ok(()) } else { Err(NodeError::NotRunning) }
    }

    /// Stops taking part, and closes the database, unless others hold handles of it. Every later call
    /// fails.
    ///
    /// # Errors
    /// [`NodeError::Engine`] when the database cannot be closed in order.
    pub fn stop(&self) -> Result<(), NodeError> {
        match self.end() {
            Some(database) => Ok(database.close()?),
            None => Ok(()),
        }
    }

    fn end(&self) -> Option<Database> {
        let running = self.shared.running.write().take();
        let database = running.map(|mut running| {
            start::stop(&mut running);
            running.database.clone()
        });
        self.shared.streams.stop();
        if let Some(transport) = self.shared.transport.get() {
            transport.stop();
        }
        self.shared.join();
        self.shared.give_up();
        database
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}
