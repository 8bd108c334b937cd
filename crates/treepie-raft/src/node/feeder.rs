//! The thread that reads records from the journal for nodes that are behind.
//!
//! Who owns the replica does no I/O: messages whose records are not in memory any more come here. For each
//! node there is a reader that goes on where the last message ended, and that keeps the journal from being
//! trimmed before it.

use std::{collections::BTreeMap, sync::Arc};

use crossbeam_channel::Receiver;
use treepie::{
    ids::Lsn,
    replication::{LogRecords, SharedRecord},
};

use super::{
    error::NodeError,
    input::Input,
    log::{DoorLog, bytes_of},
    works::Works,
};
use crate::{
    ids::NodeId,
    log::LogRecord,
    message::Message,
    transport::{RecordToSend, Sent, Transport},
};

/// A message, and those of its records that are in memory.
pub(super) type Wanted = (Message, Vec<Option<SharedRecord>>);

/// Its life.
pub(super) fn feed(
    log: &Arc<DoorLog>,
    transport: &Arc<dyn Transport>,
    wanted: &Receiver<Wanted>,
    works: &Works,
) {
    let mut readers = BTreeMap::new();
    while let Ok((message, records)) = wanted.recv() {
        let to = message.to;
        let is_sent = match fill(log, &mut readers, message, records) {
            Ok((message, records)) => {
                let last = message.entries.last().map(|entry| entry.lsn);
                if last.is_some_and(|last| log.door.recent(last.next()).is_some()) {
                    // It has caught up with what is in memory: the journal need not wait for it.
                    readers.remove(&to);
                }
                transport.send(message, records) == Sent::Queued
            }
            Err(error) => {
                tracing::debug!(node = to.0, %error, "cannot read a record for another node");
                readers.remove(&to);
                false
            }
        };
        if !is_sent && !works.replica.put(Input::Unreachable(to)) {
            return;
        }
    }
}

fn fill(
    log: &DoorLog,
    readers: &mut BTreeMap<NodeId, LogRecords>,
    mut message: Message,
    records: Vec<Option<SharedRecord>>,
) -> Result<(Message, Vec<RecordToSend>), NodeError> {
    let mut filled = Vec::with_capacity(records.len());
    for (entry, record) in message.entries.iter_mut().zip(records) {
        let record = match record.or_else(|| log.door.recent(entry.lsn)) {
            Some(record) => record,
            None => read(log, readers, message.to, entry.lsn)?,
        };
        let found = record.entry();
        if found.term != entry.term {
            return Err(NodeError::NoRecord(entry.lsn));
        }
        *entry = found;
        filled.push(RecordToSend::Here(bytes_of(record)));
    }
    Ok((message, filled))
}

fn read(
    log: &DoorLog,
    readers: &mut BTreeMap<NodeId, LogRecords>,
    node: NodeId,
    lsn: Lsn,
) -> Result<SharedRecord, NodeError> {
    let before = Lsn(lsn.0.saturating_sub(1));
    let mut reader = match readers.remove(&node) {
        Some(reader) if reader.last() == before => reader,
        _ => log.door.records(before)?,
    };
    let record = reader.next_record()?;
    readers.insert(node, reader);
    record.ok_or(NodeError::NoRecord(lsn))
}
