//! All pages, from one node to another: on a connection of its own, as a stream of backups.
//!
//! ```text
//! who has them     term ── stream of pages ── end
//! who gets them                               ── 1, when it has taken them over
//! ```
//!
//! The first 8 bytes are the term of the last record that the pages hold. The stream goes straight to the
//! folder of a new database beside the old one; it is verified, given term and vote, made durable, and
//! only then takes the place of the old one. Until then the node goes on with what it has.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::bounded;
use treepie::{
    Database,
    ids::{Lsn, Term},
    replication::{HardState, Outlet, SharedRecord},
};
use treepie_snapshot::{BackupOptions, Control, RestoreOptions, backup, restore};

use super::{
    error::NodeError,
    input::Input,
    log::DoorLog,
    probe::{Bug, Probe, Step},
    repair,
    resume::{ResumedStream, is_for, is_more},
    shared::Shared,
    start::{start, stop},
    works::Hand,
};
use crate::{
    ids::NodeId,
    members::Members,
    transport::PageStream,
    wire::{Refusal, page::PageRequest},
};

/// Here are all pages.
const PUSH: &[u8] = b"push";
/// Send me all pages.
const FETCH: &[u8] = b"fetch";
/// What says that they were taken over.
const TAKEN: [u8; 1] = [1];
/// How long taking them over may last: the new database is verified and synced.
const TAKE_OVER_MAX: Duration = Duration::from_secs(600);

/// Nothing is sealed by a database that is being made.
struct Nowhere;

impl Outlet for Nowhere {
    fn sealed(&self, _: SharedRecord) {}
}

/// Gives a node all pages, and waits until it has taken them over.
pub(super) fn push(shared: &Shared, log: &DoorLog, peer: NodeId) -> Result<(), NodeError> {
    // What follows the pages stays in the journal until they are taken over.
    let _pin = log.door.records(log.door.state().committed)?;
    let mut stream = ResumedStream::dial(shared, peer, PUSH)?;
    let install = shared.installs.begin(peer);
    send(shared, log, &mut stream, install.watch())?;
    let taken = [stream.finish_and_hear(TAKE_OVER_MAX)?];
    if taken == TAKEN { Ok(()) } else { Err(wrong("it did not take them over")) }
}

fn send(
    shared: &Shared,
    log: &DoorLog,
    stream: &mut ResumedStream<'_>,
    control: Control,
) -> Result<(), NodeError> {
    let database = shared.database().ok_or(NodeError::NotRunning)?;
    let term = log.door.state();
    let term = log.door.term(term.committed).ok_or_else(|| wrong("its term is not known"))?;
    stream.write_all(&term.0.to_le_bytes()).map_err(NodeError::Stream)?;
    // Who is behind catches up with writers only if it does not wait for them.
    let options = BackupOptions::new().yields(false);
    let (stream, report) = backup(&database, stream, &options, control)?;
    // Another leader may have come in between.
    if log.door.term(report.summary.last.lsn) != Some(term) {
        stream.refuse(Refusal::Stopping);
        return Err(wrong("the term has changed meanwhile; it may be tried again"));
    }
    stream.flush().map_err(NodeError::Stream)
}

/// Serves a page stream that another node has opened.
pub(super) fn serve(shared: &Arc<Shared>, stream: PageStream) {
    let node = stream.node().0;
    let purpose = stream.purpose().to_vec();
    let served = match &purpose[..] {
        // Nobody but the leader knows that this node lacks records.
        push if is_for(push, PUSH) && shared.view.lock().leader != Some(stream.node()) => {
            return stream.refuse(Refusal::Stranger);
        }
        push if is_for(push, PUSH) => match shared.installing.try_lock() {
            Some(_turn) => ResumedStream::accept(shared, stream, PUSH)
                .and_then(|mut stream| receive(shared, &mut stream)),
            None => {
                shared.streams.give_cut_ones_up();
                return stream.refuse(Refusal::Busy);
            }
        },
        // A member whose pages are gone has forgotten its votes too.
        fetch if is_for(fetch, FETCH) && shared.place(stream.node()).is_some() => {
            return stream.refuse(Refusal::Stranger);
        }
        fetch if is_for(fetch, FETCH) => match shared.log() {
            Some(log) => ResumedStream::accept(shared, stream, FETCH).and_then(|mut stream| {
                send(shared, &log, &mut stream, Control::new())?;
                stream.finish_and_hear(TAKE_OVER_MAX).map(drop)
            }),
            None => return stream.refuse(Refusal::Stopping),
        },
        more if is_more(more) => return shared.streams.hand_over(stream),
        _ => return serve_page(shared, stream, &purpose),
    };
    match served {
        Ok(()) => tracing::info!(node, "all pages have gone from one node to the other"),
        Err(error) => tracing::warn!(node, %error, "a page stream has failed"),
    }
}

/// Serves a node whose own page is damaged.
fn serve_page(shared: &Shared, stream: PageStream, purpose: &[u8]) {
    let node = stream.node();
    let request = match PageRequest::decode(purpose) {
        Ok(Some(_)) if shared.place(node).is_none() => return stream.refuse(Refusal::Stranger),
        Ok(Some(request)) => request,
        Ok(None) => return stream.refuse(Refusal::Lane),
        Err(_) => return stream.refuse(Refusal::Damaged),
    };
    match repair::serve(shared, stream, request) {
        Ok(()) => tracing::info!(node = node.0, page = request.page, "a page was given away"),
        Err(error) => tracing::warn!(node = node.0, page = request.page, %error, "it was not"),
    }
}

/// Takes all pages, and exchanges the database.
fn receive(shared: &Arc<Shared>, stream: &mut ResumedStream<'_>) -> Result<(), NodeError> {
    let path = shared.path();
    if !path.exists() {
        return Err(NodeError::NotRunning);
    }
    let received = beside(&path, "received");
    remove(&received)?;
    let state = take(shared, stream, &received)?;
    exchange(shared, &path, &received, state)?;
    say_taken(stream.stream())
}

fn say_taken(stream: &mut PageStream) -> Result<(), NodeError> {
    stream.write_all(&TAKEN).map_err(NodeError::Stream)?;
    stream.finish().map_err(NodeError::Stream)
}

/// Makes a database of the pages that come; returns its last record, and the term of that.
fn take(
    shared: &Shared,
    stream: &mut ResumedStream<'_>,
    target: &Path,
) -> Result<(Lsn, Term), NodeError> {
    let probe = &shared.options.probe;
    probe.at(Step::Receiving)?;
    let mut term = [0; 8];
    stream.read_exact(&mut term).map_err(NodeError::Stream)?;
    let engine = shared.options.engine.clone();
    let options = RestoreOptions::new().engine(engine).replica(true).check(false);
    let report = restore(&mut *stream, target, &options, Control::new())?;
    // It ends in order only where its term is right.
    match stream.read(&mut [0; 1]).map_err(NodeError::Stream)? {
        0 => {
            probe.at(Step::Received).map(|()| (report.position.lsn, Term(u64::from_le_bytes(term))))
        }
        _ => Err(wrong("it goes on behind its end")),
    }
}

/// Gives a new database term and vote, as durable as the pages. Only then is it called installed.
fn prepare(
    shared: &Shared,
    (received, installed): (&Path, &Path),
    term: Term,
    known: Option<HardState>,
) -> Result<(), NodeError> {
    let database = shared.options.engine.open(received)?;
    let lineage = database.lineage();
    if (lineage.database_id, lineage.epoch) != (shared.cluster.database, shared.cluster.epoch) {
        return Err(wrong("it is that of another cluster"));
    }
    let door = database.replicate(Arc::new(Nowhere))?;
    door.set_base_term(term)?;
    let members = door.members()?.and_then(|bytes| Members::decode(&bytes).ok());
    let is_member = members.is_some_and(|members| members.get(shared.options.id).is_some());
    let hard_state = match known {
        Some(known) if known.term >= term => known,
        None if is_member => {
            return Err(wrong("this node is a member that has lost its pages; use a new number"));
        }
        _ => HardState { term, vote: 0 },
    };
    let probe = &shared.options.probe;
    if !probe.has(Bug::InstalledWithoutVote) {
        door.append(Some(hard_state), &[])?;
        door.sync()?;
    }
    drop(door);
    database.close()?;
    probe.at(Step::Prepared)?;
    remove(installed)?;
    rename(received, installed)?;
    probe.at(Step::Installed)
}

/// Puts a new database in the place of the one that runs. Who holds a handle of the old one goes on to
/// read its last state.
fn exchange(
    shared: &Arc<Shared>,
    path: &Path,
    received: &Path,
    (lsn, term): (Lsn, Term),
) -> Result<(), NodeError> {
    // Without the lock: what the replica does before it answers may need it.
    let (reply, answer) = bounded(1);
    if !shared.tell(Input::YieldTo(lsn, term, reply), Hand::Light) {
        return Err(NodeError::NotRunning);
    }
    if !answer.recv().map_err(|_| NodeError::NotRunning)? {
        // It has caught up meanwhile, and must keep what it has acknowledged since.
        return remove(received);
    }
    let mut slot = shared.running.write();
    let Some(mut running) = slot.take() else { return Err(NodeError::NotRunning) };
    stop(&mut running);
    // From here on it votes for nobody, so that this stays true.
    let hard_state = running.log.door.state().hard_state;
    let installed = beside(path, "installed");
    let probe = &shared.options.probe;
    let exchanged = probe
        .at(Step::Stopped)
        .and_then(|()| prepare(shared, (received, &installed), term, Some(hard_state)))
        .map_err(NotExchanged::as_before)
        .and_then(|()| swap(path, &installed, probe));
    let (next, exchanged) = match exchanged {
        Ok(()) => (shared.options.engine.open(path).map_err(NodeError::from), Ok(())),
        Err(NotExchanged { is_as_before, error })
            if is_as_before || probe.has(Bug::GoesOnAside) =>
        {
            (Ok(running.database.clone()), Err(error))
        }
        Err(NotExchanged { error, .. }) => (Err(NodeError::NotRunning), Err(error)),
    };
    drop(running);
    match next.and_then(|database| start(shared, database)) {
        Ok(running) => *slot = Some(running),
        Err(error) => {
            drop(slot);
            shared.give_up();
            return exchanged.and(Err(error));
        }
    }
    drop(slot);
    exchanged?;
    probe.at(Step::Started)?;
    remove(&beside(path, "replaced"))
}

/// An exchange has failed.
struct NotExchanged {
    /// The old database has its name, and can go on.
    is_as_before: bool,
    error: NodeError,
}

impl NotExchanged {
    fn as_before(error: NodeError) -> NotExchanged {
        NotExchanged { is_as_before: true, error }
    }
}

/// Renames the new database to the name of the old one. Where that fails, the old one has its name
/// again; or it is not known who has it, and the next start looks.
fn swap(path: &Path, installed: &Path, probe: &Probe) -> Result<(), NotExchanged> {
    let old = beside(path, "replaced");
    remove(&old).map_err(NotExchanged::as_before)?;
    let put_aside = match probe.has(Bug::OldRemovedFirst) {
        true => remove(path),
        false => rename(path, &old),
    };
    let swapped = put_aside
        .and_then(|()| probe.at(Step::Aside))
        .and_then(|()| rename(installed, path))
        .and_then(|()| probe.at(Step::Swapped));
    swapped.map_err(|error| {
        // Whoever has the name may have it for a moment only, until the folder is synced.
        let is_back = !path.exists() && rename(&old, path).is_ok();
        NotExchanged { is_as_before: is_back || !old.exists(), error }
    })
}

/// Gets all pages from a member, for a node that has nothing yet.
pub(super) fn fetch(shared: &Shared, member: NodeId, path: &Path) -> Result<Database, NodeError> {
    let _turn = shared.installing.lock();
    let mut stream = ResumedStream::dial(shared, member, FETCH)?;
    let (received, installed) = (beside(path, "received"), beside(path, "installed"));
    remove(&received)?;
    let (_, term) = take(shared, &mut stream, &received)?;
    say_taken(stream.stream())?;
    prepare(shared, (&received, &installed), term, None)?;
    rename(&installed, path)?;
    Ok(shared.options.engine.open(path)?)
}

/// Completes an exchange that was cut off between its two renames; removes what others have left.
pub(super) fn complete(path: &Path, probe: &Probe) -> Result<(), NodeError> {
    let (installed, replaced) = (beside(path, "installed"), beside(path, "replaced"));
    let is_cut = !path.exists() && installed.exists() && replaced.exists();
    if is_cut && !probe.has(Bug::ExchangeNotCompleted) {
        rename(&installed, path)?;
    } else if !path.exists() && replaced.exists() && !installed.exists() {
        rename(&replaced, path)?;
    }
    for left in [installed, replaced, beside(path, "received")] {
        remove(&left)?;
    }
    Ok(())
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    name.into()
}

fn remove(path: &Path) -> Result<(), NodeError> {
    for path in [path.to_owned(), beside(path, "partial")] {
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(NodeError::Folder { action: "remove", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), NodeError> {
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let renamed = fs::rename(from, to);
    let synced = renamed.and_then(|()| fs::File::open(parent)?.sync_all());
    synced.map_err(|source| NodeError::Folder { action: "rename to", path: to.into(), source })
}

pub(super) fn wrong(what: &'static str) -> NodeError {
    NodeError::Stream(io::Error::new(io::ErrorKind::InvalidData, what))
}
