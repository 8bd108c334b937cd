//! What a thread of the server is told by others, and what wakes it.

use std::{
    io,
    sync::OnceLock,
    thread::{self, ThreadId},
};

use mio::{Poll, Token, Waker, net::TcpStream};
use parking_lot::Mutex;
use treepie::Snapshot;

use super::super::{
    message::{Answer, Query},
    refusal::Refusal,
};

/// The waker's token; that of the listener is one below, connections count from 0.
pub const WAKER: Token = Token(usize::MAX);

/// Which connection of a thread. Places are used again; the serial number is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    pub place: usize,
    pub serial: u64,
}

/// What has come of a request.
pub enum Ready {
    /// It is done.
    Answer(Result<Answer, Refusal>),
    /// It can be looked for, here.
    Snapshot(Query, Snapshot),
}

/// What a thread is told.
pub enum Mail {
    /// A client has connected.
    Connection(TcpStream),
    /// Something has come of a request with this number, of so many bytes.
    Ready { to: ConnectionId, id: u64, len: usize, ready: Ready },
    /// The server stops.
    Stop,
}

/// Where a thread gets its mail.
pub struct Mailbox {
    mail: Mutex<Vec<Mail>>,
    waker: Waker,
    owner: OnceLock<ThreadId>,
}

impl Mailbox {
    pub fn new(poll: &Poll) -> io::Result<Mailbox> {
        let waker = Waker::new(poll.registry(), WAKER)?;
        Ok(Mailbox { mail: Mutex::default(), waker, owner: OnceLock::new() })
    }

    /// Called once, by the thread whose mailbox it is.
    pub fn own(&self) {
        self.owner.get_or_init(|| thread::current().id());
    }

    /// The thread looks into its mailbox before it waits. So it is woken by the first mail only, and not
    /// by its own.
    pub fn push(&self, mail: Mail) {
        let mut all = self.mail.lock();
        let is_first = all.is_empty();
        all.push(mail);
        drop(all);
        if is_first
            && self.owner.get() != Some(&thread::current().id())
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a thread that serves clients cannot be woken");
        }
    }

    /// Takes all mail, and leaves empty memory for more.
    pub fn take(&self, to: &mut Vec<Mail>) {
        std::mem::swap(&mut *self.mail.lock(), to);
    }
}
