//! One connection to one node, shared by all threads of a client.
//!
//! Who sends puts a frame behind those that wait, and writes all of them unless somebody is writing
//! already. Who waits for an answer reads, unless somebody is reading already, and wakes whom the other
//! answers are for; when it has its own, another one who waits goes on. So an answer need not be handed
//! from thread to thread. While nobody waits a thread reads, which sees when the connection ends.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::{TcpStream, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bincode::Encode;
use parking_lot::{Condvar, Mutex};

use super::{
    super::{
        frame::{self, InBuffer},
        message::{Answer, Call, Response, Welcome},
        refusal::Refusal,
    },
    ClientOptions,
    stream::Stream,
};
use crate::wire::{FrameKind, WireError, is_timeout};

/// Bytes that wait to be written, at most, and a frame more.
const UNSENT_LEN_MAX: usize = 1 << 20;

/// What came of a request that was sent.
#[derive(Debug)]
pub enum Reply {
    /// An answer.
    Response(Result<Answer, Refusal>),
    /// The connection ended before.
    Lost(String),
}

/// After so long without a caller who reads, the thread does.
const LINGER: Duration = Duration::from_millis(100);
/// How long a caller reads before it looks at the time.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Where a reply is waited for.
#[derive(Debug, Default)]
pub struct Slot {
    state: Mutex<SlotState>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct SlotState {
    reply: Option<Reply>,
    is_waited_for: bool,
    /// Nobody reads any more: it is for whoever waits here.
    may_read: bool,
}

impl Slot {
    fn is_done(&self) -> bool {
        self.state.lock().reply.is_some()
    }

    fn fill(&self, with: Reply) {
        let mut state = self.state.lock();
        state.reply = Some(with);
        if state.is_waited_for {
            self.came.notify_one();
        }
    }

    /// Asks whoever waits here to read. False where nobody does.
    fn pass_reading(&self) -> bool {
        let mut state = self.state.lock();
        let is_wanted = state.is_waited_for && state.reply.is_none();
        if is_wanted {
            state.may_read = true;
            self.came.notify_one();
        }
        is_wanted
    }
}

/// Why a request was not sent.
#[derive(Debug)]
pub enum NotSent {
    /// There is no connection any more.
    Lost,
    /// It cannot be sent on any.
    Invalid(WireError),
    /// There was no room for it in time.
    Timeout,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    inner: Arc<Inner>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    stream: Stream,
    in_flight_max: usize,
    waiting: Mutex<Waiting>,
    room: Condvar,
    output: Mutex<Output>,
    drained: Condvar,
    /// Who has this reads.
    reading: Mutex<Reading>,
    /// Callers who wait for a reply.
    waiters: AtomicUsize,
    /// How often a caller has read.
    turns: AtomicU64,
    /// Whether the thread is to read at once; and its sleep.
    is_wanted: Mutex<bool>,
    wanted: Condvar,
}

#[derive(Debug)]
struct Reading {
    input: InBuffer,
    /// Each read ends after [`LOOK_INTERVAL`].
    is_timed: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    next_id: u64,
    slots: HashMap<u64, Arc<Slot>>,
    /// Threads that wait for room.
    queued: usize,
    lost: Option<String>,
}

#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    spare: Vec<u8>,
    is_writing: bool,
    queued: usize,
}

impl Link {
    /// Connects, and says hello.
    pub fn dial(address: &str, options: &ClientOptions) -> Result<Link, Dialed> {
        let tcp = connect(address, options)?;
        let greeted = greet(tcp, options);
        let (stream, welcome, input) = greeted.map_err(|dialed| dialed.at(address))?;
        stream.set_read_timeout(None).map_err(Dialed::from)?;
        let in_flight_max = options.in_flight_max.min(welcome.in_flight_max.max(1) as usize);
        let inner = Arc::new(Inner {
            stream,
            in_flight_max,
            waiting: Mutex::new(Waiting { next_id: 1, ..Waiting::default() }),
            room: Condvar::new(),
            output: Mutex::default(),
            drained: Condvar::new(),
            reading: Mutex::new(Reading { input, is_timed: false }),
            waiters: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
            is_wanted: Mutex::new(true),
            wanted: Condvar::new(),
        });
        let reading = Arc::clone(&inner);
        let thread = thread::Builder::new().name("treepie-client".to_owned());
        let reader = thread.spawn(move || reading.attend()).map_err(Dialed::from)?;
        Ok(Link { inner, reader: Some(reader) })
    }

    /// Whether nothing can be sent any more.
    pub fn is_lost(&self) -> bool {
        self.inner.waiting.lock().lost.is_some()
    }

    /// Sends a request. Its reply comes to the slot.
    pub fn send(&self, call: &Call, until: Instant) -> Result<Arc<Slot>, NotSent> {
        let (id, slot) = self.inner.enter(until)?;
        if let Err(not_sent) = self.inner.write(&(id, call), until) {
            self.inner.leave(id);
            return Err(not_sent);
        }
        Ok(slot)
    }

    /// Waits until there is a reply; `None` when the time is up.
    pub fn wait(&self, slot: &Slot, until: Instant) -> Option<Reply> {
        let inner = &self.inner;
        inner.waiters.fetch_add(1, SeqCst);
        let reply = inner.wait(slot, until);
        inner.waiters.fetch_sub(1, SeqCst);
        reply
    }

    /// Whether there is a reply. Where nobody waits for one, the thread looks for it.
    pub fn is_done(&self, slot: &Slot) -> bool {
        let is_done = slot.is_done();
        if !is_done {
            *self.inner.is_wanted.lock() = true;
            self.inner.wanted.notify_one();
        }
        is_done
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.inner.lose("the client has closed it");
        if let Some(reader) = self.reader.take() {
            // A panic of the thread was told where it happened.
            let _ = reader.join();
        }
    }
}

impl Inner {
    /// Makes a slot for a reply, when there is room for one more.
    fn enter(&self, until: Instant) -> Result<(u64, Arc<Slot>), NotSent> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.lost.is_some() {
                return Err(NotSent::Lost);
            }
            if waiting.slots.len() < self.in_flight_max {
                break;
            }
            waiting.queued += 1;
            let timed_out = self.room.wait_until(&mut waiting, until).timed_out();
            waiting.queued -= 1;
            if timed_out {
                return Err(NotSent::Timeout);
            }
        }
        let id = waiting.next_id;
        waiting.next_id += 1;
        let slot = Arc::new(Slot::default());
        waiting.slots.insert(id, Arc::clone(&slot));
        Ok((id, slot))
    }

    fn leave(&self, id: u64) -> Option<Arc<Slot>> {
        let mut waiting = self.waiting.lock();
        let slot = waiting.slots.remove(&id);
        if waiting.queued > 0 {
            self.room.notify_one();
        }
        slot
    }

    fn write(&self, request: &impl Encode, until: Instant) -> Result<(), NotSent> {
        let mut output = self.output.lock();
        while output.is_writing && output.bytes.len() > UNSENT_LEN_MAX {
            output.queued += 1;
            let timed_out = self.drained.wait_until(&mut output, until).timed_out();
            output.queued -= 1;
            if timed_out {
                return Err(NotSent::Timeout);
            }
        }
        frame::append(&mut output.bytes, FrameKind::Request, request).map_err(NotSent::Invalid)?;
        if output.is_writing {
            return Ok(());
        }
        output.is_writing = true;
        while !output.bytes.is_empty() {
            let spare = std::mem::take(&mut output.spare);
            let bytes = std::mem::replace(&mut output.bytes, spare);
            if output.queued > 0 {
                self.drained.notify_all();
            }
            drop(output);
            let written = self.stream.write_all(&bytes);
            output = self.output.lock();
            output.spare = bytes;
            output.spare.clear();
            output.spare.shrink_to(UNSENT_LEN_MAX);
            if let Err(error) = written {
                output.bytes.clear();
                output.is_writing = false;
                drop(output);
                // Part of it may have been sent: all that wait, this one included, are told.
                self.lose(&error.to_string());
                return Ok(());
            }
        }
        output.is_writing = false;
        Ok(())
    }

    fn wait(&self, slot: &Slot, until: Instant) -> Option<Reply> {
        let mut state = slot.state.lock();
        state.is_waited_for = true;
        while state.reply.is_none() {
            drop(state);
            if let Some(mut reading) = self.reading.try_lock() {
                self.turns.fetch_add(1, SeqCst);
                self.read(&mut reading, Some((slot, until)));
                drop(reading);
                self.pass_reading();
            }
            state = slot.state.lock();
            let mut timed_out = Instant::now() >= until;
            while state.reply.is_none() && !state.may_read && !timed_out {
                timed_out = slot.came.wait_until(&mut state, until).timed_out();
            }
            if timed_out {
                break;
            }
            state.may_read &= state.reply.is_some();
        }
        state.is_waited_for = false;
        let (reply, may_read) = (state.reply.take(), std::mem::take(&mut state.may_read));
        drop(state);
        if may_read {
            // It has its reply, or no more time; somebody else is to read.
            self.pass_reading();
        }
        reply
    }

    /// Nobody reads now: asks one of those who wait. Who comes later finds that nobody does.
    fn pass_reading(&self) {
        if self.waiters.load(SeqCst) > 0 {
            let _ = self.waiting.lock().slots.values().any(|slot| slot.pass_reading());
        }
    }

    /// The life of the thread that reads when no caller does: then only the end of the connection is to
    /// be expected, or answers that nobody waits for yet.
    fn attend(&self) {
        let mut seen = self.turns.load(SeqCst);
        while self.waiting.lock().lost.is_none() {
            let mut is_wanted = self.is_wanted.lock();
            if !*is_wanted {
                self.wanted.wait_for(&mut is_wanted, LINGER);
            }
            let turns = self.turns.load(SeqCst);
            let is_due = std::mem::take(&mut *is_wanted) || turns == seen;
            seen = turns;
            drop(is_wanted);
            if is_due && let Some(mut reading) = self.reading.try_lock() {
                self.read(&mut reading, None);
                drop(reading);
                self.pass_reading();
            }
        }
    }

    /// Reads, and hands out the replies that come: until there is one at the slot, or the time is up;
    /// without a slot, until some have come.
    fn read(&self, reading: &mut Reading, slot: Option<(&Slot, Instant)>) {
        if reading.is_timed != slot.is_some() {
            reading.is_timed = slot.is_some();
            let timeout = reading.is_timed.then_some(LOOK_INTERVAL);
            if let Err(error) = self.stream.set_read_timeout(timeout) {
                return self.lose(&error.to_string());
            }
        }
        let mut has_come = false;
        loop {
            match reading.input.take::<Response>(FrameKind::Response) {
                Ok(Some((Response { id, result }, _))) => {
                    has_come = true;
                    if let Some(slot) = self.leave(id) {
                        slot.fill(Reply::Response(result));
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => return self.lose(&error.to_string()),
            }
            let is_over = match slot {
                Some((slot, until)) => slot.is_done() || Instant::now() >= until,
                None => has_come,
            };
            if is_over {
                return;
            }
            match reading.input.fill(&mut &self.stream) {
                Ok(0) => return self.lose("the node has closed the connection"),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {}
                Err(error) => return self.lose(&error.to_string()),
            }
        }
    }

    /// Ends the connection, and tells all who wait.
    fn lose(&self, why: &str) {
        let mut waiting = self.waiting.lock();
        waiting.lost.get_or_insert_with(|| why.to_owned());
        let slots = std::mem::take(&mut waiting.slots);
        drop(waiting);
        self.room.notify_all();
        *self.is_wanted.lock() = true;
        self.wanted.notify_one();
        // It fails where the other side was first.
        let _ = self.stream.shutdown();
        for slot in slots.into_values() {
            slot.fill(Reply::Lost(why.to_owned()));
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Dialed {
    /// Try another node, or later.
    Failed(String),
    /// The address is none.
    Address(String),
    /// The node has refused.
    Refused(Refusal),
}

impl From<io::Error> for Dialed {
    fn from(error: io::Error) -> Dialed {
        Dialed::Failed(error.to_string())
    }
}

impl Dialed {
    fn at(self, address: &str) -> Dialed {
        match self {
            Dialed::Failed(why) => Dialed::Failed(format!("{address}: {why}")),
            other => other,
        }
    }
}

fn connect(address: &str, options: &ClientOptions) -> Result<TcpStream, Dialed> {
    let found = address.to_socket_addrs().map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => Dialed::Address(error.to_string()),
        _ => Dialed::Failed(format!("{address}: {error}")),
    })?;
    let mut last = Dialed::Failed(format!("{address}: it has no address"));
    for address in found {
        if let Err(error) = options.security.check(&address) {
            return Err(Dialed::Address(error.to_string()));
        }
        match TcpStream::connect_timeout(&address, options.connect_timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Dialed::Failed(format!("{address}: {error}")),
        }
    }
    Err(last)
}

/// Finds out who is there, and says hello.
fn greet(tcp: TcpStream, options: &ClientOptions) -> Result<(Stream, Welcome, InBuffer), Dialed> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(options.connect_timeout))?;
    tcp.set_write_timeout(Some(options.timeout.max(options.connect_timeout)))?;
    let stream = Stream::new(tcp, &options.security)?;
    let mut hello = Vec::new();
    let request = (0_u64, Call::Hello(options.cluster));
    frame::append(&mut hello, FrameKind::Request, &request).map_err(|error| failed(&error))?;
    stream.write_all(&hello)?;
    let mut input = InBuffer::default();
    let answer = loop {
        match input.take::<Response>(FrameKind::Response).map_err(|error| failed(&error))? {
            Some((response, _)) => break response.result.map_err(Dialed::Refused)?,
            None if input.fill(&mut &stream)? == 0 => {
                return Err(Dialed::Failed("the node has closed the connection".to_owned()));
            }
            None => {}
        }
    };
    let Answer::Welcome(welcome) = answer else {
        return Err(Dialed::Failed("a hello was answered by something else".to_owned()));
    };
    if !stream.identity().is_node(welcome.cluster, welcome.node) {
        let what = format!("it says it is node {}, and its certificate does not", welcome.node);
        return Err(Dialed::Failed(what));
    }
    Ok((stream, welcome, input))
}

fn failed(error: &WireError) -> Dialed {
    Dialed::Failed(error.to_string())
}
