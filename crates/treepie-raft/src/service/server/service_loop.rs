//! One thread of the server, with the connections that it has.

use std::{
    io::{ErrorKind, Write},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use mio::{
    Events, Poll, Token,
    net::{TcpListener, TcpStream},
};

use super::{
    super::{
        frame,
        message::{Answer, Call, Read, Request, Response, Welcome},
        refusal::Refusal,
        store::Written,
    },
    Shared,
    connection::{Came, Connection},
    mailbox::{ConnectionId, Mail, Mailbox, Ready},
    socket::Socket,
};
use crate::{
    ids::ClusterId,
    transport::Identity,
    wire::{FrameKind, WireError},
};

const LISTENER: Token = Token(usize::MAX - 1);
/// How often it is looked whether somebody was silent for too long.
const TICK: Duration = Duration::from_secs(1);
/// Reads of one connection before the others have their turn.
const READS_IN_A_ROW: usize = 4;

/// One thread of the server.
pub struct ServiceLoop {
    index: usize,
    poll: Poll,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    listener: Option<TcpListener>,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    next_serial: u64,
    /// Bytes of requests that were handed over.
    in_flight_len: usize,
    /// Places of connections that have something to do.
    busy: Vec<usize>,
    /// Connections that are not read because too many bytes are on their way.
    held_back: Vec<usize>,
    stop_at: Option<Instant>,
    ticked: Instant,
}

impl ServiceLoop {
    pub fn new(
        index: usize,
        poll: Poll,
        shared: Arc<Shared>,
        mut listener: Option<TcpListener>,
    ) -> std::io::Result<ServiceLoop> {
        if let Some(listener) = &mut listener {
            poll.registry().register(listener, LISTENER, mio::Interest::READABLE)?;
        }
        let mailbox = Arc::clone(&shared.mailboxes[index]);
        Ok(ServiceLoop {
            index,
            poll,
            shared,
            mailbox,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            next_serial: 0,
            in_flight_len: 0,
            busy: Vec::new(),
            held_back: Vec::new(),
            stop_at: None,
            ticked: Instant::now(),
        })
    }

    pub fn run(mut self) {
        self.mailbox.own();
        let mut events = Events::with_capacity(1024);
        let mut mail = Vec::new();
        loop {
            let timeout = if self.busy.is_empty() { TICK } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "a thread that serves clients has failed");
                    return;
                }
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    Token(place) => self.touch(place, event.is_readable(), event.is_writable()),
                }
            }
            // What the store does at once is in the mail when a connection was served.
            loop {
                self.mailbox.take(&mut mail);
                if mail.is_empty() && self.busy.is_empty() {
                    break;
                }
                for mail in mail.drain(..) {
                    self.open_mail(mail);
                }
                self.serve_busy();
                if !self.busy.is_empty() {
                    break;
                }
            }
            if self.ticked.elapsed() >= TICK {
                self.ticked = Instant::now();
                self.close_silent();
            }
            if self.stop_at.is_some_and(|stop_at| self.has_stopped(stop_at)) {
                return;
            }
        }
    }

    fn touch(&mut self, place: usize, readable: bool, writable: bool) {
        if let Some(Some(connection)) = self.connections.get_mut(place) {
            connection.readable |= readable;
            connection.writable |= writable;
            self.busy.push(place);
        }
    }

    fn accept(&mut self) {
        while let Some(listener) = &self.listener {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Who was to be accepted has gone, or there are too many descriptors: the next
                // connection asks again.
                Err(error) => return tracing::warn!(%error, "cannot accept a client"),
            };
            let counters = &self.shared.counters;
            let others = counters.connections.fetch_add(1, Relaxed);
            if others >= self.shared.options.connections_max {
                counters.connections.fetch_sub(1, Relaxed);
                counters.refused.fetch_add(1, Relaxed);
                refuse(stream, Refusal::Busy("it has too many connections".to_owned()));
                continue;
            }
            let number = counters.accepted.fetch_add(1, Relaxed);
            let threads = self.shared.mailboxes.len() as u64;
            let index = usize::try_from(number % threads).expect("there are few threads");
            if index == self.index {
                self.add(stream);
            } else {
                self.shared.mailboxes[index].push(Mail::Connection(stream));
            }
        }
    }

    fn add(&mut self, stream: TcpStream) {
        // Answers are gathered here already; the system is not to wait for more.
        let _ = stream.set_nodelay(true);
        let place = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let socket = Socket::new(stream, &self.shared.options.security).and_then(|mut socket| {
            socket.register(self.poll.registry(), Token(place)).map(|()| socket)
        });
        match socket {
            Ok(socket) => {
                self.next_serial += 1;
                self.connections[place] = Some(Connection::new(socket, self.next_serial));
                self.busy.push(place);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot serve a client");
                self.shared.counters.connections.fetch_sub(1, Relaxed);
                self.free.push(place);
            }
        }
    }

    fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Connection(stream) => self.add(stream),
            Mail::Stop => self.begin_stop(),
            Mail::Ready { to, id, len, ready } => {
                self.in_flight_len -= len;
                if !self.held_back.is_empty() {
                    self.busy.append(&mut self.held_back);
                }
                let Some(Some(connection)) = self.connections.get_mut(to.place) else { return };
                if connection.serial != to.serial {
                    return;
                }
                connection.in_flight -= 1;
                let answered = match ready {
                    Ready::Answer(result) => {
                        connection.answer(id, result);
                        1
                    }
                    Ready::Snapshot(query, snapshot) => connection.look(id, query, snapshot),
                };
                self.shared.counters.responses.fetch_add(answered, Relaxed);
                self.busy.push(to.place);
            }
        }
    }

    /// Serves each connection that has something to do. Those that are not done with stay busy.
    fn serve_busy(&mut self) {
        let mut places = std::mem::take(&mut self.busy);
        places.sort_unstable();
        places.dedup();
        for place in places {
            let Some(slot) = self.connections.get_mut(place) else { continue };
            let Some(mut connection) = slot.take() else { continue };
            let served = self.serve(place, &mut connection);
            self.connections[place] = Some(connection);
            match served {
                Ok(false) => {}
                Ok(true) => self.close(place),
                Err(error) => {
                    if !matches!(error, WireError::Io(_)) {
                        self.shared.counters.broken.fetch_add(1, Relaxed);
                        tracing::warn!(%error, "what a client has sent cannot be read");
                    }
                    self.close(place);
                }
            }
        }
    }

    /// Takes requests, hands them over, and sends what is there to be sent. Returns whether the
    /// connection is over.
    fn serve(&mut self, place: usize, connection: &mut Connection) -> Result<bool, WireError> {
        let id = ConnectionId { place, serial: connection.serial };
        let mut reads = 0;
        self.send(connection)?;
        loop {
            while self.may_take(place, connection) {
                let Some((request, len)) = connection.next_request()? else { break };
                self.take(id, connection, request, len);
            }
            if !self.may_take(place, connection) || !connection.readable {
                break;
            }
            if reads == READS_IN_A_ROW {
                self.busy.push(place);
                break;
            }
            reads += 1;
            if let Came::Bytes(count) = connection.fill()? {
                self.shared.counters.received_len.fetch_add(count as u64, Relaxed);
            }
        }
        self.send(connection)?;
        // Whole requests may be left where it is held back.
        let is_done =
            connection.ended && self.in_flight_len <= self.shared.options.in_flight_len_max;
        Ok((is_done || connection.closing) && connection.is_idle())
    }

    fn send(&self, connection: &mut Connection) -> Result<(), WireError> {
        let (sent, answered) = connection.flush()?;
        self.shared.counters.sent_len.fetch_add(sent, Relaxed);
        self.shared.counters.responses.fetch_add(answered, Relaxed);
        Ok(())
    }

    fn may_take(&mut self, place: usize, connection: &Connection) -> bool {
        let options = &self.shared.options;
        if connection.closing || self.stop_at.is_some() {
            return false;
        }
        if self.in_flight_len > options.in_flight_len_max {
            if !self.held_back.contains(&place) {
                self.held_back.push(place);
            }
            return false;
        }
        connection.in_flight < options.in_flight_max && connection.has_room()
    }

    fn take(
        &mut self,
        to: ConnectionId,
        connection: &mut Connection,
        request: Request,
        len: usize,
    ) {
        self.shared.counters.requests.fetch_add(1, Relaxed);
        let Request { id, call } = request;
        if let Call::Hello(wanted) = call {
            let result = self.welcome(wanted, connection.socket.identity());
            connection.has_said_hello = result.is_ok();
            connection.closing = result.is_err();
            self.shared.counters.responses.fetch_add(1, Relaxed);
            return connection.answer(id, result);
        }
        if !connection.has_said_hello {
            connection.closing = true;
            let what = "a connection begins with a hello";
            return connection.answer(id, Err(Refusal::Invalid(what.to_owned())));
        }
        connection.in_flight += 1;
        self.in_flight_len += len;
        self.hand_over(to, id, call, len);
    }

    fn welcome(
        &self,
        wanted: Option<ClusterId>,
        who: Option<&Identity>,
    ) -> Result<Answer, Refusal> {
        let in_flight_max = self.shared.options.in_flight_max;
        let welcome = Welcome { in_flight_max, ..self.shared.store.welcome() };
        let is_wanted = wanted.is_none_or(|wanted| wanted == welcome.cluster);
        if is_wanted && who.is_some_and(|who| who.may_use(welcome.cluster)) {
            return Ok(Answer::Welcome(welcome));
        }
        self.shared.counters.refused.fetch_add(1, Relaxed);
        Err(Refusal::OtherCluster(welcome.cluster))
    }

    /// Gives a request to the store. What comes of it comes by mail.
    fn hand_over(&self, to: ConnectionId, id: u64, call: Call, len: usize) {
        let store = &self.shared.store;
        let mailbox = Arc::clone(&self.mailbox);
        let reply = Reply { mailbox, to, id, len, is_sent: false };
        match call {
            Call::Read(Read { consistency, query }) => {
                let done = move |snapshot| match snapshot {
                    Ok(snapshot) => reply.ready(Ready::Snapshot(query, snapshot)),
                    Err(refusal) => reply.answer(Err(refusal)),
                };
                store.read(consistency, Box::new(done));
            }
            Call::Write(write) => {
                let done = move |written: Result<Written, Refusal>| {
                    reply.answer(written.map(|Written { lsn, outcome, repeated }| {
                        Answer::Written { lsn, outcome, repeated }
                    }));
                };
                store.write(write, Box::new(done));
            }
            Call::Admin(admin) => {
                let done = move |lsn: Result<u64, Refusal>| {
                    reply.answer(lsn.map(|lsn| Answer::Changed { lsn }));
                };
                store.admin(admin, Box::new(done));
            }
            Call::Status => reply.answer(store.status().map(Box::new).map(Answer::Status)),
            Call::Members => reply.answer(store.members().map(Answer::Members)),
            Call::Hello(_) => reply.answer(Err(Refusal::Invalid("a second hello".to_owned()))),
        }
    }

    fn close(&mut self, place: usize) {
        let Some(mut connection) = self.connections[place].take() else { return };
        // It fails for a socket that is not registered, which this one is.
        let _ = connection.socket.deregister(self.poll.registry());
        self.shared.counters.connections.fetch_sub(1, Relaxed);
        self.free.push(place);
    }

    fn close_silent(&mut self) {
        let options = &self.shared.options;
        let (hello, stall, idle) =
            (options.hello_timeout, options.stall_timeout, options.idle_timeout);
        for place in 0..self.connections.len() {
            let Some(connection) = &self.connections[place] else { continue };
            let (since, timeout) = match connection {
                // Bytes one by one are no hello.
                connection if !connection.has_said_hello => (connection.accepted, hello),
                connection if connection.is_waited_for() => (connection.active, stall),
                connection if connection.is_idle() => (connection.active, idle),
                _ => continue,
            };
            if since.elapsed() > timeout {
                self.shared.counters.timed_out.fetch_add(1, Relaxed);
                self.close(place);
            }
        }
    }

    fn begin_stop(&mut self) {
        self.listener = None;
        self.stop_at = Some(Instant::now() + self.shared.options.stop_timeout);
    }

    fn has_stopped(&mut self, stop_at: Instant) -> bool {
        for place in 0..self.connections.len() {
            if self.connections[place].as_ref().is_some_and(Connection::is_idle) {
                self.close(place);
            }
        }
        self.connections.iter().all(Option::is_none) || Instant::now() >= stop_at
    }
}

/// Tells a client why it is not served, if that needs no waiting.
fn refuse(mut stream: TcpStream, refusal: Refusal) {
    let mut bytes = Vec::new();
    let response = Response { id: 0, result: Err(refusal) };
    if frame::append(&mut bytes, FrameKind::Response, &response).is_ok() {
        // It is closed either way; the reason is a courtesy.
        let _ = stream.write(&bytes);
    }
}

/// Whom the outcome of a request is for. Where a store gives none, that is an answer as well.
struct Reply {
    mailbox: Arc<Mailbox>,
    to: ConnectionId,
    id: u64,
    len: usize,
    is_sent: bool,
}

impl Reply {
    fn answer(self, result: Result<Answer, Refusal>) {
        self.ready(Ready::Answer(result));
    }

    fn ready(mut self, ready: Ready) {
        self.send(ready);
    }

    fn send(&mut self, ready: Ready) {
        self.is_sent = true;
        let &mut Reply { to, id, len, .. } = self;
        self.mailbox.push(Mail::Ready { to, id, len, ready });
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_sent {
            self.send(Ready::Answer(Err(Refusal::Unknown { lsn: 0 })));
        }
    }
}
