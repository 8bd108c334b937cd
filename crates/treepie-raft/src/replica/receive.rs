//! What is checked of a message before consensus sees it.
//!
//! The core trusts what it is told and panics where that cannot be. So each rule that a correct node
//! keeps is checked here; what breaks one is refused, and what shows that this node's own log is not the
//! cluster's stops it.

use std::time::Duration;

use treepie::ids::Lsn;

use crate::{
    consensus::Role,
    ids::NodeId,
    log::{Log, LogRecord, raft_term},
    members::Members,
    message::{CONTEXT_LEN_MAX, ENTRIES_MAX, EntryKind, Message, MessageKind},
};

use super::{
    Replica,
    effect::{Refused, Stopped},
};

/// Bytes of records that wait for the journal, at most; one record may pass it.
const PENDING_LEN_MAX: u64 = 256 << 20;
/// Terms and LSNs, at most: a million each second for centuries. What is higher comes of no election and
/// would overflow.
const NUMBER_MAX: u64 = 1 << 56;

impl<L: Log> Replica<L> {
    /// A message, and the records of its entries in their order.
    ///
    /// # Errors
    /// [`Refused`]: the message has no effect. After [`Refused::Malformed`] and [`Refused::Record`] the
    /// connection is worth closing.
    pub fn message(
        &mut self,
        now: Duration,
        message: &Message,
        records: &[L::Record],
    ) -> Result<(), Refused> {
        if self.stopped.is_some() {
            return Err(Refused::Stopped);
        }
        self.pass_time(now);
        self.check_form(message)?;
        check_records(message, records)?;
        if self.ignores(message) {
            return Ok(());
        }
        if let Some(stopped) = self.compare(message, records) {
            self.stop(stopped);
            return Err(Refused::Stopped);
        }
        self.admit(records)?;
        self.note_contact(message);
        match self.core.step(message) {
            Ok(()) => Ok(()),
            Err(broken) => {
                self.stop(broken.into());
                Err(Refused::Stopped)
            }
        }
    }

    fn check_form(&self, message: &Message) -> Result<(), Refused> {
        let malformed = |what| Err(Refused::Malformed(what));
        if message.to != self.options.id || message.from == self.options.id {
            return malformed("it is for another node");
        }
        if message.from == NodeId::NONE {
            return malformed("it comes from nobody");
        }
        if message.context.len() > CONTEXT_LEN_MAX {
            return malformed("its context is too long");
        }
        let lsns = [message.index, message.committed, message.reject_hint];
        let terms = [message.term, message.log_term, message.committed_term];
        if terms.iter().any(|t| t.0 > NUMBER_MAX) || lsns.iter().any(|l| l.0 > NUMBER_MAX) {
            return malformed("a term or LSN is higher than any can be");
        }
        // Without a term, the core takes a message for its own.
        if (message.term.0 == 0) != (message.kind == MessageKind::ReadIndex) {
            return malformed("its term cannot be");
        }
        if message.request_snapshot != Lsn(0) || message.snapshot.is_some() {
            return malformed("nodes do not ask for states in messages");
        }
        let is_append = message.kind == MessageKind::Append;
        if message.entries.len() > ENTRIES_MAX || !(is_append || message.entries.is_empty()) {
            return malformed("it has entries that it must not have");
        }
        match message.kind {
            MessageKind::Snapshot | MessageKind::TransferLeader => {
                malformed("its kind is not used")
            }
            MessageKind::Append => check_entries(message),
            // Who led before it was started anew may have sent more than it has now.
            MessageKind::AppendReply if !message.reject && self.core.role() == Role::Leader => {
                match message.term == self.core.term() && message.index > self.core.last() {
                    true => malformed("it has what nobody sent"),
                    false => Ok(()),
                }
            }
            MessageKind::ReadIndex | MessageKind::ReadIndexReply if message.context.is_empty() => {
                malformed("a read has no context")
            }
            _ => Ok(()),
        }
    }

    /// Messages that are in order, and to which a careful node does not listen.
    fn ignores(&self, message: &Message) -> bool {
        match message.kind {
            // Before it was started anew, it may have confirmed that another node leads, and forgotten.
            MessageKind::Vote | MessageKind::PreVote => {
                self.ticks <= u64::from(self.options.election_ticks)
            }
            MessageKind::TimeoutNow => self.core.leader() != Some(message.from),
            // The core would pass it on, in the name of who has asked; who asks does it again.
            MessageKind::ReadIndex => self.core.role() != Role::Leader,
            _ => false,
        }
    }

    /// Compares what a leader says with the own log. What differs below what is committed, or has the
    /// same number and term and another content, must never be.
    fn compare(&self, message: &Message, records: &[L::Record]) -> Option<Stopped> {
        if message.term < self.core.term() {
            return None;
        }
        let (last, handles) = (self.core.last(), self.core.handles());
        if message.kind == MessageKind::Heartbeat && message.committed > last {
            return Some(Stopped::Lost { last, acknowledged: message.committed });
        }
        // Where the last entry that both have is the same, so is the history that it ends.
        let is_same = self.core.term_of(message.index) == Some(message.log_term);
        if let (true, Some(first)) = (is_same && message.index <= handles.last(), records.first())
            && handles.term_of(message.index) == Some(message.log_term)
            && handles.chain(message.index).is_some_and(|chain| chain != first.chain_before())
        {
            return Some(Stopped::Divergence { lsn: message.index });
        }
        records.iter().find_map(|record| {
            let (lsn, term) = (record.lsn(), raft_term(record.term()));
            // Of what the core has taken since the last turn there is no handle yet.
            let own = handles.get(lsn).filter(|own| own.entry.term == term);
            let differs = match self.core.term_of(lsn)? == term {
                true => own.is_some_and(|own| own.chain != record.chain()),
                false => lsn <= self.core.committed(),
            };
            differs.then_some(Stopped::Divergence { lsn })
        })
    }

    /// Keeps records until the core has decided about their entries.
    fn admit(&mut self, records: &[L::Record]) -> Result<(), Refused> {
        let len: u64 = records.iter().map(|record| u64::from(record.record_len())).sum();
        let pending = self.arrived_len + self.unsynced_len;
        if len > 0 && pending > 0 && pending + len > PENDING_LEN_MAX {
            return Err(Refused::Busy);
        }
        self.arrived_len += len;
        for record in records {
            self.arrived.insert((record.lsn(), raft_term(record.term())), record.clone());
        }
        Ok(())
    }

    /// Remembers when the state here was last known to be the leader's.
    fn note_contact(&mut self, message: &Message) {
        let committed = match message.kind {
            MessageKind::Append => message.committed,
            MessageKind::Heartbeat => message.index,
            _ => return,
        };
        if message.term < self.core.term() {
            return;
        }
        if committed <= self.applied {
            self.fresh = Some(self.now);
            self.contact = None;
        } else if self.contact.is_none() {
            self.contact = Some((self.now, committed));
        }
    }
}

fn check_entries(message: &Message) -> Result<(), Refused> {
    // The core says term 0 of what it has not, and would take it for the same.
    if (message.index.0 == 0) != (message.log_term.0 == 0) {
        return Err(Refused::Malformed("the entry before its entries has no term"));
    }
    let (mut lsn, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        let is_next = Some(entry.lsn.0) == lsn.0.checked_add(1);
        if !is_next || entry.term < term || entry.term > message.term || entry.term.0 == 0 {
            return Err(Refused::Malformed("its entries do not follow each other"));
        }
        (lsn, term) = (entry.lsn, entry.term);
    }
    match message.log_term > message.term {
        true => Err(Refused::Malformed("its entries come from a later term")),
        false => Ok(()),
    }
}

/// Whether the records are those that the entries name, in one chain.
fn check_records<R: LogRecord>(message: &Message, records: &[R]) -> Result<(), Refused> {
    if records.len() != message.entries.len() {
        return Err(Refused::Malformed("it has more or fewer records than entries"));
    }
    let mut chain = None;
    for (entry, record) in message.entries.iter().zip(records) {
        let follows = chain.is_none_or(|chain| chain == record.chain_before());
        if !follows || record.entry() != *entry {
            return Err(Refused::Record(entry.lsn));
        }
        let is_readable = entry.kind != EntryKind::Membership || members_of(record).is_some();
        if !is_readable {
            return Err(Refused::Record(entry.lsn));
        }
        chain = Some(record.chain());
    }
    Ok(())
}

/// The members after a membership record.
pub(super) fn members_of<R: LogRecord>(record: &R) -> Option<Members> {
    Members::decode(&record.members()?).ok().filter(|members| !members.is_empty())
}
