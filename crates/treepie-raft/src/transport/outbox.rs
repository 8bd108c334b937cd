//! Messages that wait for one lane of one peer. Who puts them in never waits; one thread takes them out.
//!
//! The bulk lane is bounded by bytes, and takes nothing while there is no connection. The urgent lane is
//! bounded by their number; while there is no connection it keeps the newest, because a vote that is lost
//! costs an election.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    DropReason, RecordToSend, Sent,
    direct::{Direct, Went},
};
use crate::{message::Message, wire::Lane};

/// Messages that wait in one lane, at most.
const COUNT_MAX: usize = 1024;
/// Messages of the urgent lane that are kept without a connection.
const KEPT_MAX: usize = 64;
/// Messages that are taken out at once, and bytes, at most; one message at least.
const BATCH_COUNT_MAX: usize = 64;
const BATCH_BYTES_MAX: u64 = 4 << 20;
/// What a message counts without its records.
const MESSAGE_BYTES: u64 = 128;

/// A message with its records.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) message: Message,
    pub(super) records: Vec<RecordToSend>,
    bytes: u64,
}

impl Parcel {
    pub(super) fn new(message: Message, records: Vec<RecordToSend>) -> Parcel {
        let bytes = message.entries.iter().map(|entry| u64::from(entry.len)).sum::<u64>();
        Parcel { message, records, bytes: bytes + MESSAGE_BYTES }
    }

    /// What it counts.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct Outbox {
    lane: Lane,
    bytes_max: u64,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Parcel>,
    /// Bytes of the queue, and of what was taken out and is not written.
    bytes: u64,
    is_connected: bool,
    is_stopped: bool,
    /// How to send without the thread that sends, while that one sleeps.
    direct: Option<Direct>,
    is_asleep: bool,
    /// What is left of a message that has partly gone so.
    rest: Vec<u8>,
    /// Somebody knows that dialling is worth a try.
    is_poked: bool,
    dropped: u64,
}

impl Outbox {
    pub(super) fn new(lane: Lane, bytes_max: u64) -> Outbox {
        Outbox { lane, bytes_max, state: Mutex::default(), wake: Condvar::new() }
    }

    /// Puts a message in, or drops it. Where it can go at once it goes at once; returns how many bytes did.
    pub(super) fn put(&self, parcel: Parcel) -> (Sent, u64) {
        let mut state = self.state.lock();
        let refused = self.refuses(&mut state, &parcel);
        if let Some(reason) = refused {
            state.dropped += 1;
            return (Sent::Dropped(reason), 0);
        }
        match state.send(&parcel) {
            Went::Whole(bytes) => return (Sent::Queued, bytes),
            Went::Partly(rest) => state.rest = rest,
            Went::Not => {
                state.bytes += parcel.bytes;
                state.queue.push_back(parcel);
            }
        }
        drop(state);
        self.wake.notify_one();
        (Sent::Queued, 0)
    }

    fn refuses(&self, state: &mut State, parcel: &Parcel) -> Option<DropReason> {
        if state.is_stopped {
            return Some(DropReason::Stopped);
        }
        if !state.is_connected {
            if self.lane != Lane::Urgent {
                return Some(DropReason::Unreachable);
            }
            if state.queue.len() >= KEPT_MAX
                && let Some(oldest) = state.queue.pop_front()
            {
                state.bytes -= oldest.bytes;
                state.dropped += 1;
            }
        }
        let is_over = state.bytes > 0 && state.bytes + parcel.bytes > self.bytes_max;
        let is_full = is_over || state.queue.len() >= COUNT_MAX;
        is_full.then_some(DropReason::OverBudget)
    }

    /// Waits for messages until `deadline`, and moves some into the batch, and what goes before them into
    /// `rest`; false once stopped. Until the next call, all that is sent is sent by the caller.
    pub(super) fn take(
        &self,
        batch: &mut Vec<Parcel>,
        rest: &mut Vec<u8>,
        deadline: Instant,
    ) -> bool {
        let mut state = self.state.lock();
        if let Some(direct) = &mut state.direct {
            direct.refresh();
        }
        state.is_asleep = true;
        while state.queue.is_empty() && state.rest.is_empty() && !state.is_stopped {
            if self.wake.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.is_asleep = false;
        mem::swap(&mut state.rest, rest);
        let mut bytes = 0;
        while let Some(next) = state.queue.front() {
            let is_full = batch.len() >= BATCH_COUNT_MAX || bytes + next.bytes > BATCH_BYTES_MAX;
            if is_full && !batch.is_empty() {
                break;
            }
            bytes += next.bytes;
            batch.extend(state.queue.pop_front());
        }
        !state.is_stopped
    }

    /// What was taken out is written, or lost: its bytes are free again.
    pub(super) fn done(&self, batch: &mut Vec<Parcel>) {
        let bytes = batch.drain(..).map(|parcel| parcel.bytes).sum::<u64>();
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// There is a connection now, which may be written to directly.
    pub(super) fn connected(&self, direct: Option<Direct>) {
        let mut state = self.state.lock();
        state.is_connected = true;
        state.is_poked = false;
        state.direct = direct;
    }

    /// There is none any more. What waits is dropped, except for urgent messages; returns how many.
    pub(super) fn disconnected(&self) -> usize {
        let mut state = self.state.lock();
        state.is_connected = false;
        state.direct = None;
        state.rest.clear();
        let keep = if self.lane == Lane::Urgent { KEPT_MAX } else { 0 };
        let excess = state.queue.len().saturating_sub(keep);
        let dropped: Vec<Parcel> = state.queue.drain(..excess).collect();
        state.bytes -= dropped.iter().map(|parcel| parcel.bytes).sum::<u64>();
        state.dropped += excess as u64;
        // The records are freed without the lock.
        drop(state);
        dropped.len()
    }

    /// Waits before dialling again, unless somebody pokes; false once stopped.
    pub(super) fn pause(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut state = self.state.lock();
        while !state.is_stopped && !mem::take(&mut state.is_poked) {
            if self.wake.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        !state.is_stopped
    }

    /// Dials at once: the peer has just been heard of, or its address has changed.
    pub(super) fn poke(&self) {
        let mut state = self.state.lock();
        if !state.is_connected {
            state.is_poked = true;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// No more messages, and nobody waits for any.
    pub(super) fn stop(&self) {
        self.state.lock().is_stopped = true;
        self.wake.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().is_stopped
    }

    /// Whether there is a connection; messages and bytes that wait; messages that were dropped.
    pub(super) fn counts(&self) -> (bool, usize, u64, u64) {
        let state = self.state.lock();
        (state.is_connected, state.queue.len(), state.bytes, state.dropped)
    }

    /// Messages that were taken out are lost.
    pub(super) fn lost(&self, count: usize) {
        self.state.lock().dropped += count as u64;
    }
}

impl State {
    /// Sends a message without the thread, where that sleeps and nothing waits for it.
    fn send(&mut self, parcel: &Parcel) -> Went {
        match &mut self.direct {
            Some(direct) if self.is_asleep && self.queue.is_empty() && self.rest.is_empty() => {
                direct.send(parcel)
            }
            _ => Went::Not,
        }
    }
}

#[cfg(test)]
mod tests {
    use treepie::ids::{Lsn, Term};

    use super::*;
    use crate::{
        ids::NodeId,
        message::{EntryKind, EntryRef, MessageKind},
    };

    fn parcel(kind: MessageKind, index: u64, len: u32) -> Parcel {
        let mut message = Message::new(kind, NodeId(1), NodeId(2), Term(1));
        message.index = Lsn(index);
        if len > 0 {
            let (lsn, kind) = (Lsn(index + 1), EntryKind::Transaction);
            message.entries.push(EntryRef { lsn, term: Term(1), kind, len, checksum: 0 });
        }
        Parcel::new(message, vec![RecordToSend::Stored])
    }

    fn taken(outbox: &Outbox) -> Vec<u64> {
        let mut batch = Vec::new();
        assert!(outbox.take(&mut batch, &mut Vec::new(), Instant::now()));
        let indexes = batch.iter().map(|parcel| parcel.message.index.0).collect();
        outbox.done(&mut batch);
        indexes
    }

    #[test]
    fn records_over_the_budget_are_dropped_until_others_are_written() {
        let outbox = Outbox::new(Lane::Bulk, 1000);
        let append = |index, len| outbox.put(parcel(MessageKind::Append, index, len)).0;
        assert_eq!(append(1, 10), Sent::Dropped(DropReason::Unreachable));
        outbox.connected(None);
        assert_eq!(append(2, 5000), Sent::Queued, "a longer record goes alone");
        assert_eq!(append(3, 10), Sent::Dropped(DropReason::OverBudget));
        let mut batch = Vec::new();
        assert!(outbox.take(&mut batch, &mut Vec::new(), Instant::now()));
        assert_eq!(append(4, 10), Sent::Dropped(DropReason::OverBudget), "it is not written yet");
        outbox.done(&mut batch);
        assert_eq!(append(5, 10), Sent::Queued);
        assert_eq!(outbox.disconnected(), 1);
        assert_eq!(outbox.counts(), (false, 0, 0, 4));
        outbox.stop();
        assert_eq!(append(6, 10), Sent::Dropped(DropReason::Stopped));
        assert!(!outbox.take(&mut batch, &mut Vec::new(), Instant::now()) && batch.is_empty());
    }

    #[test]
    fn newest_urgent_messages_are_kept_without_a_connection() {
        let outbox = Outbox::new(Lane::Urgent, u64::MAX);
        for index in 0..100 {
            assert_eq!(outbox.put(parcel(MessageKind::Vote, index, 0)).0, Sent::Queued);
        }
        assert_eq!(taken(&outbox), (36..100).collect::<Vec<u64>>());
        assert_eq!(outbox.counts(), (false, 0, 0, 36));
    }

    #[test]
    fn batch_is_bounded_by_count_and_bytes() {
        let outbox = Outbox::new(Lane::Bulk, u64::MAX);
        outbox.connected(None);
        for index in 0..100 {
            outbox.put(parcel(MessageKind::Append, index, 1));
        }
        assert_eq!(taken(&outbox).len(), BATCH_COUNT_MAX);
        assert_eq!(taken(&outbox).len(), 100 - BATCH_COUNT_MAX);
        for index in 0..4 {
            outbox.put(parcel(MessageKind::Append, index, 3 << 20));
        }
        assert_eq!(taken(&outbox), [0]);
    }

    #[test]
    fn poke_ends_a_pause() {
        let outbox = Outbox::new(Lane::Bulk, 1);
        outbox.poke();
        assert!(outbox.pause(Duration::from_secs(600)));
        outbox.stop();
        assert!(!outbox.pause(Duration::from_secs(600)));
    }
}
