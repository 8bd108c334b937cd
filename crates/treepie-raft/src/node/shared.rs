//! What a node's threads have in common.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex, RwLock};
use treepie::{Database, replication::SharedRecord};

use super::{
    input::{Clock, Input, Waiting},
    log::DoorLog,
    moves::Moves,
    options::NodeOptions,
    progress::Installs,
    repair::Repairing,
    resume::Streams,
    works::{Hand, Works},
};
use crate::{
    ids::{ClusterId, NodeId},
    members::{Members, Place},
    message::{EntryRef, Message},
    replica::{ReadError, Replica},
    transport::{
        Delivery, DropReason, Handler, PageStream, RecordBytes, RecordSource, RecordToSend, Sent,
        TcpTransport, Transport,
    },
    wire::{Hello, Lane, Refusal},
};

/// What a node says of itself without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) leader: Option<NodeId>,
    pub(super) is_open: bool,
    pub(super) is_founded: bool,
    pub(super) is_stopped: bool,
}

/// What a running replica needs, and what is exchanged when the database is.
pub(super) struct Running {
    pub(super) database: Database,
    pub(super) log: Arc<DoorLog>,
    pub(super) works: Arc<Works>,
    pub(super) threads: Vec<JoinHandle<()>>,
}

/// What a node's threads have in common.
pub(super) struct Shared {
    pub(super) options: NodeOptions,
    pub(super) cluster: ClusterId,
    path: PathBuf,
    pub(super) clock: Clock,
    pub(super) transport: OnceLock<TcpTransport>,
    /// None while the database is exchanged, and when the node was stopped.
    pub(super) running: RwLock<Option<Running>>,
    pub(super) members: RwLock<Members>,
    pub(super) view: Mutex<View>,
    pub(super) view_changed: Condvar,
    /// Reads that waited for a replica that has ended.
    pub(super) left: Mutex<Vec<Waiting>>,
    /// Who is elsewhere than the members say.
    pub(super) moves: Moves,
    pub(super) installs: Arc<Installs>,
    /// One state is received at a time.
    pub(super) installing: Mutex<()>,
    /// Page streams that may go on over another connection.
    pub(super) streams: Streams,
    /// Damaged pages that are fetched from others.
    pub(super) repairing: Repairing,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shared {
    pub(super) fn new(options: NodeOptions, cluster: ClusterId, path: PathBuf) -> Shared {
        Shared {
            options,
            cluster,
            path,
            clock: Clock::new(),
            transport: OnceLock::new(),
            running: RwLock::new(None),
            members: RwLock::new(Members::default()),
            view: Mutex::new(View::default()),
            view_changed: Condvar::new(),
            left: Mutex::new(Vec::new()),
            moves: Moves::default(),
            installs: Arc::default(),
            installing: Mutex::new(()),
            streams: Streams::default(),
            repairing: Repairing::default(),
            threads: Mutex::new(Vec::new()),
        }
    }

    /// The folder of the database.
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The transport, once.
    pub(super) fn set_transport(&self, transport: TcpTransport) {
        let is_new = self.transport.set(transport).is_ok();
        assert!(is_new, "a node has one transport");
    }

    /// Where others find this node.
    pub(super) fn address(&self) -> String {
        let local = || self.transport.get().map(|transport| transport.local_address().to_string());
        self.options.advertised.clone().or_else(local).unwrap_or_default()
    }

    /// The database that runs now.
    pub(super) fn database(&self) -> Option<Database> {
        self.running.read().as_ref().map(|running| running.database.clone())
    }

    /// Its log.
    pub(super) fn log(&self) -> Option<Arc<DoorLog>> {
        self.running.read().as_ref().map(|running| Arc::clone(&running.log))
    }

    /// Runs a thread that is waited for when the node stops; false if there is none to be had.
    pub(super) fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> bool {
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        match thread::Builder::new().name(name.to_owned()).spawn(work) {
            Ok(thread) => {
                threads.push(thread);
                true
            }
            Err(error) => {
                tracing::error!(%error, name, "no thread");
                false
            }
        }
    }

    /// Waits for the threads of [`spawn`](Shared::spawn).
    pub(super) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the node has panicked");
            }
        }
    }

    /// Where the work of the running replica is done.
    pub(super) fn works(&self) -> Option<Arc<Works>> {
        self.running.read().as_ref().map(|running| Arc::clone(&running.works))
    }

    /// Tells the running replica something; false if there is none.
    pub(super) fn tell(&self, input: Input, hand: Hand) -> bool {
        // Not under the lock: who works for it may need that.
        self.works().is_some_and(|works| works.tell(input, hand))
    }

    /// Takes over what the replica says of itself. Returns whether it leads, and its database takes
    /// writes.
    pub(super) fn note(&self, replica: &Replica<DoorLog>, log: &DoorLog) -> bool {
        let view = View {
            leader: replica.leader(),
            is_open: replica.open_term().is_some() && log.door.is_leading(),
            is_founded: replica.is_founded(),
            is_stopped: replica.stopped().is_some(),
        };
        let mut known = self.view.lock();
        if *known != view {
            *known = view;
            self.view_changed.notify_all();
        }
        view.is_open
    }

    /// These are the members: whoever is new is dialled, whoever is gone is not any more.
    pub(super) fn meet(&self, members: &Members) {
        let before = std::mem::replace(&mut *self.members.write(), members.clone());
        let leads = self.view.lock().is_open;
        let Some(transport) = self.transport.get() else { return };
        for (id, member) in members.iter() {
            // One that has moved has said so itself.
            if before.get(id).is_none_or(|known| known.place != member.place) {
                // Whoever leads has heard what it has said since, and writes that down, too.
                if !leads && id != self.options.id {
                    self.moves.forget(id);
                }
                transport.set_peer(id, &member.place.address);
            }
        }
        for (id, _) in before.iter().filter(|(id, _)| members.get(*id).is_none()) {
            transport.remove_peer(id);
        }
    }

    /// There is no replica, and none will come: whoever waits for one is told.
    pub(super) fn give_up(&self) {
        *self.view.lock() = View { is_stopped: true, ..View::default() };
        self.view_changed.notify_all();
        let left = std::mem::take(&mut *self.left.lock());
        for waiting in left {
            (waiting.done)(Err(ReadError::TimedOut));
        }
    }

    /// Where a member is.
    pub(super) fn place(&self, node: NodeId) -> Option<Place> {
        self.members.read().get(node).map(|member| member.place.clone())
    }
}

/// The way to the transport, which is there before anything is sent.
pub(super) struct Link(pub(super) Arc<Shared>);

impl Transport for Link {
    fn send(&self, message: Message, records: Vec<RecordToSend>) -> Sent {
        match self.0.transport.get() {
            Some(transport) => transport.send(message, records),
            None => Sent::Dropped(DropReason::Stopped),
        }
    }
}

/// What the transport tells a node, while there is one.
pub(super) struct Ears(pub(super) Weak<Shared>);

impl Handler for Ears {
    fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        let shared = self.0.upgrade().ok_or(Refusal::Stopping)?;
        let members = shared.members.read();
        let is_member = members.get(hello.from).is_some();
        if !is_member && hello.from.0 <= members.highest() {
            return Err(Refusal::Removed);
        }
        // A node that wants to join gets the pages first.
        if !is_member && hello.lane == Lane::Pages {
            return Ok(());
        }
        // Who was given its pages a while ago does not know of later members.
        if !is_member && members.get(shared.options.id).is_some() {
            return Err(Refusal::Stranger);
        }
        // It may be elsewhere than the members say: it has moved, and knows best.
        if let Some(transport) = shared.transport.get() {
            transport.set_peer(hello.from, &hello.address);
        }
        if is_member && hello.lane == Lane::Urgent {
            let label = String::from_utf8(hello.purpose.clone()).unwrap_or_default();
            shared.moves.note(hello.from, Place { address: hello.address.clone(), label });
        }
        drop(members);
        Ok(())
    }

    fn deliver(&self, delivery: Delivery) -> Result<(), Refusal> {
        let shared = self.0.upgrade().ok_or(Refusal::Stopping)?;
        let Delivery { message, records, credit, lane, is_last } = delivery;
        let records: Result<Vec<_>, _> = records.into_iter().map(SharedRecord::receive).collect();
        let records = records.map_err(|error| {
            tracing::warn!(from = message.from.0, %error, "a damaged record came");
            Refusal::Damaged
        })?;
        let hand = match lane {
            Lane::Bulk => Hand::Receiver { is_last },
            _ => Hand::Urgent,
        };
        shared.tell(Input::Message(message, records, credit), hand);
        Ok(())
    }

    fn pages(&self, stream: PageStream) {
        match self.0.upgrade() {
            Some(shared) => super::install::serve(&shared, stream),
            None => stream.refuse(Refusal::Stopping),
        }
    }

    fn unreachable(&self, node: NodeId) {
        if let Some(shared) = self.0.upgrade() {
            shared.tell(Input::Unreachable(node), Hand::Light);
        }
    }
}

/// Records for the transport; those of messages were read before they were handed over.
pub(super) struct Stored(pub(super) Weak<Shared>);

impl RecordSource for Stored {
    fn record(
        &self,
        entry: &EntryRef,
    ) -> Result<RecordBytes, Box<dyn std::error::Error + Send + Sync>> {
        let shared = self.0.upgrade().ok_or("the node is stopping")?;
        let log = shared.log().ok_or("the node is stopping")?;
        let record = log.door.record(entry.lsn)?;
        if record.term() != entry.term {
            return Err("another record has this number now".into());
        }
        Ok(super::log::bytes_of(record))
    }
}
