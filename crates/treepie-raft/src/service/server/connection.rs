//! One client: bytes that came, answers that go, and what is on its way between them.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Write},
    time::Instant,
};

use treepie::Snapshot;

use super::{
    super::{
        apply,
        frame::{self, InBuffer},
        message::{Answer, FRAME_LEN_MAX, Query, Request, Response},
        refusal::Refusal,
    },
    socket::Socket,
};
use crate::wire::{FrameKind, WireError};

/// Bytes of answers that wait for a client to read them; when there are more, it is not served.
const UNREAD_LEN_MAX: usize = 1 << 20;
/// Memory for answers that is kept for the next ones.
const KEPT_LEN_MAX: usize = 256 << 10;

/// One client.
pub struct Connection {
    pub socket: Socket,
    pub serial: u64,
    input: InBuffer,
    output: Vec<u8>,
    /// Of `output`, what was sent.
    sent: usize,
    /// Reads that may be answered when there is room.
    parked: VecDeque<(u64, Query, Snapshot)>,
    /// Requests that were handed over.
    pub in_flight: u32,
    pub has_said_hello: bool,
    /// The socket may have something to read, or room to write.
    pub readable: bool,
    pub writable: bool,
    /// No more requests come.
    pub ended: bool,
    /// It is to be closed when the answers are sent.
    pub closing: bool,
    pub accepted: Instant,
    /// When bytes came or went last.
    pub active: Instant,
}

/// What reading has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    Bytes(usize),
    Nothing,
}

impl Connection {
    pub fn new(socket: Socket, serial: u64) -> Connection {
        Connection {
            socket,
            serial,
            input: InBuffer::default(),
            output: Vec::new(),
            sent: 0,
            parked: VecDeque::new(),
            in_flight: 0,
            has_said_hello: false,
            readable: true,
            writable: true,
            ended: false,
            closing: false,
            accepted: Instant::now(),
            active: Instant::now(),
        }
    }

    /// Reads once.
    pub fn fill(&mut self) -> Result<Came, WireError> {
        match self.input.fill_some(&mut self.socket) {
            Ok((0, _)) => {
                self.ended = true;
                self.readable = false;
                Ok(Came::Nothing)
            }
            Ok((count, may_have_more)) => {
                self.active = Instant::now();
                // What comes from now on is told again.
                self.readable = may_have_more || self.socket.holds_input();
                Ok(Came::Bytes(count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(Came::Nothing)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole request, and its length.
    pub fn next_request(&mut self) -> Result<Option<(Request, usize)>, WireError> {
        self.input.take(FrameKind::Request)
    }

    /// Puts an answer behind those that wait to be sent.
    pub fn answer(&mut self, id: u64, result: Result<Answer, Refusal>) {
        let before = self.output.len();
        let response = Response { id, result };
        if frame::append(&mut self.output, FrameKind::Response, &response).is_ok() {
            return;
        }
        self.output.truncate(before);
        let max = FRAME_LEN_MAX as u64;
        let response: Response = Response { id, result: Err(Refusal::TooLarge { len: max, max }) };
        frame::append(&mut self.output, FrameKind::Response, &response)
            .expect("a refusal is far shorter than a frame may be");
    }

    /// Answers a read, now or when there is room for the answer. Returns how many were answered.
    pub fn look(&mut self, id: u64, query: Query, snapshot: Snapshot) -> u64 {
        self.parked.push_back((id, query, snapshot));
        self.answer_parked()
    }

    fn answer_parked(&mut self) -> u64 {
        let mut answered = 0;
        while self.has_room()
            && let Some((id, query, snapshot)) = self.parked.pop_front()
        {
            let found = apply::look(&snapshot, &query);
            let lsn = snapshot.lsn().0;
            self.answer(id, found.map(|found| Answer::Found { lsn, found }));
            answered += 1;
        }
        answered
    }

    /// Whether more answers may be made.
    pub fn has_room(&self) -> bool {
        self.unsent() < UNREAD_LEN_MAX
    }

    fn has_unsent(&self) -> bool {
        self.unsent() > 0 || self.socket.has_unsent()
    }

    fn unsent(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Sends what can be sent now. Returns bytes that were sent, and reads that were answered.
    pub fn flush(&mut self) -> Result<(u64, u64), WireError> {
        let (mut sent, mut answered) = (0, 0);
        if self.writable && self.socket.has_unsent() {
            match self.socket.flush() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                flushed => flushed?,
            }
        }
        while self.writable && self.unsent() > 0 {
            match self.socket.write(&self.output[self.sent..]) {
                Ok(0) => return Err(std::io::Error::from(ErrorKind::WriteZero).into()),
                Ok(count) => {
                    self.sent += count;
                    sent += count as u64;
                    self.active = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error.into()),
            }
            if self.unsent() == 0 {
                self.output.clear();
                self.sent = 0;
                self.output.shrink_to(KEPT_LEN_MAX);
            }
            answered += self.answer_parked();
        }
        Ok((sent, answered))
    }

    /// Whether nothing is left to be done for it.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0 && !self.has_unsent() && self.parked.is_empty()
    }

    /// Whether the client is expected to do something: to finish a request, or to read answers.
    pub fn is_waited_for(&self) -> bool {
        self.has_unsent() || (!self.input.is_empty() && self.in_flight == 0)
    }
}
