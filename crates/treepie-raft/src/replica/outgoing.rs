//! Messages on their way out: fewer of them, and with their records.

use std::{collections::BTreeMap, time::Duration};

use treepie::ids::Lsn;

use crate::{
    consensus::Role,
    ids::NodeId,
    log::{Log, LogRecord, raft_term},
    message::{ENTRIES_MAX, Message, MessageKind},
};

use super::{
    Replica,
    effect::{Effect, Stopped},
};

/// Bytes of records in one message, at most; a single record may pass it.
const MESSAGE_LEN_MAX: u64 = 1 << 20;

/// How long a leader waits for an entry to send before it tells the others what is committed.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(1);

/// What others were told that is committed, on a leader.
#[derive(Debug, Default)]
pub(super) struct Notices {
    told: BTreeMap<NodeId, Lsn>,
    /// When those are told who were not.
    due: Option<Duration>,
    /// What was announced last: who does not hear it is told with what it lacks.
    announced: Lsn,
}

impl<L: Log> Replica<L> {
    /// When there is something to be done that no input brings, besides ticks.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.notices.due
    }

    /// What is committed goes along with the next entries; where none come, it goes by itself a little
    /// later. On a busy leader that saves half of all messages.
    pub(super) fn announce(&mut self) -> Result<(), Stopped> {
        let committed = self.core.committed();
        let is_told = |id| self.notices.told.get(&id).is_some_and(|told| *told >= committed);
        let mut others = self.members.iter().map(|(id, _)| id).filter(|id| *id != self.options.id);
        let is_new = self.core.role() == Role::Leader && committed > self.notices.announced;
        if !is_new || others.all(is_told) {
            self.notices.due = None;
            return Ok(());
        }
        match self.notices.due {
            Some(at) if self.now >= at => {
                self.notices.due = None;
                self.notices.announced = committed;
                self.core.announce()?;
            }
            Some(_) => {}
            None => self.notices.due = Some(self.now + ANNOUNCE_DELAY),
        }
        Ok(())
    }

    /// Sends messages, each with the records that are still in memory.
    pub(super) fn send(&mut self, messages: Vec<Message>) {
        for mut message in messages {
            if message.kind == MessageKind::Heartbeat {
                // The core says there what the receiver may commit; this is what is committed.
                message.index = self.core.committed();
            }
            if message.kind == MessageKind::Append {
                self.notices.told.insert(message.to, message.committed);
            }
            let records = message.entries.iter().map(|entry| {
                let record = self.unsynced.get(&entry.lsn);
                record.filter(|record| raft_term(record.term()) == entry.term).cloned()
            });
            let records = records.collect();
            self.effects.push(Effect::Send { message, records });
        }
    }
}

/// Makes one message of several to one receiver that continue each other. The core makes one for each
/// entry, because it knows nothing of their lengths.
pub(super) fn join_appends(messages: Vec<Message>) -> Vec<Message> {
    let mut joined: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        let before = joined.iter_mut().rev().find(|before| before.to == message.to);
        match before {
            Some(before) if continues(before, &message) => {
                before.entries.extend_from_slice(&message.entries);
                before.committed = message.committed;
            }
            _ => joined.push(message),
        }
    }
    joined
}

fn continues(before: &Message, message: &Message) -> bool {
    let (Some(last), false) = (before.entries.last(), message.entries.is_empty()) else {
        return false;
    };
    let all = || before.entries.iter().chain(&message.entries);
    before.kind == MessageKind::Append
        && message.kind == MessageKind::Append
        && before.term == message.term
        && (last.lsn, last.term) == (message.index, message.log_term)
        && before.entries.len() + message.entries.len() <= ENTRIES_MAX
        // Nobody knows the length of an old one.
        && all().all(|entry| entry.len > 0)
        && all().map(|entry| u64::from(entry.len)).sum::<u64>() <= MESSAGE_LEN_MAX
}

/// Leaves of several acknowledgements to one leader the furthest one: it covers the others.
pub(super) fn join_acks(messages: Vec<Message>) -> Vec<Message> {
    let is_ack = |message: &Message| message.kind == MessageKind::AppendReply && !message.reject;
    let mut joined: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        let earlier =
            joined.iter_mut().find(|m| is_ack(m) && (m.to, m.term) == (message.to, message.term));
        match earlier {
            Some(earlier) if is_ack(&message) => {
                earlier.index = earlier.index.max(message.index);
                earlier.committed = earlier.committed.max(message.committed);
            }
            _ => joined.push(message),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use treepie::ids::{Lsn, Term};

    use super::*;
    use crate::{
        ids::NodeId,
        message::{EntryKind, EntryRef},
    };

    fn append(to: u64, index: u64, len: u32) -> Message {
        let mut message = Message::new(MessageKind::Append, NodeId(1), NodeId(to), Term(3));
        (message.index, message.log_term) = (Lsn(index), Term(3));
        let (lsn, kind) = (Lsn(index + 1), EntryKind::Transaction);
        message.entries.push(EntryRef { lsn, term: Term(3), kind, len, checksum: 0 });
        message
    }

    #[test]
    fn appends_that_continue_each_other_become_one_within_bounds() {
        let lens = |messages: Vec<Message>| -> Vec<usize> {
            join_appends(messages).iter().map(|message| message.entries.len()).collect()
        };
        assert_eq!(lens(vec![append(2, 5, 9), append(3, 5, 9), append(2, 6, 9)]), [2, 1]);
        assert_eq!(lens(vec![append(2, 5, 9), append(2, 7, 9)]), [1, 1], "a gap");
        assert_eq!(lens(vec![append(2, 5, 1 << 19), append(2, 6, 1 << 20)]), [1, 1], "megabytes");
        assert_eq!(lens(vec![append(2, 5, 0), append(2, 6, 9)]), [1, 1], "an old one");
        let many = (0..100).map(|index| append(2, index, 9)).collect();
        assert_eq!(lens(many), [64, 36]);
    }

    #[test]
    fn furthest_acknowledgement_stands_for_all_and_a_refusal_for_itself() {
        let reply = |index, reject| {
            let mut message = Message::new(MessageKind::AppendReply, NodeId(2), NodeId(1), Term(3));
            (message.index, message.reject) = (Lsn(index), reject);
            message
        };
        let joined =
            join_acks(vec![reply(5, false), reply(9, true), reply(7, false), reply(6, false)]);
        let left: Vec<_> = joined.iter().map(|message| (message.index.0, message.reject)).collect();
        assert_eq!(left, [(7, false), (9, true)]);
    }
}
