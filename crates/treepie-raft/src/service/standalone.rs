//! A database by itself as a [`Store`]: a cluster of one, without consensus.

use std::{sync::Arc, time::Instant};

use treepie::{Database, Error, Receipt, Result, Snapshot};

use super::{
    apply,
    message::{Admin, Consistency, Member, Outcome, Role, Status, Welcome, Write},
    refusal::Refusal,
    requests::Sweep,
    settle::settle,
    store::{Done, Store, Written},
};
use crate::ids::{ClusterId, NodeId};

/// A database by itself. Its reads are linearizable: what is acknowledged is visible.
pub struct Standalone {
    db: Database,
    node: NodeId,
    client_address: String,
    sweep: Arc<Sweep>,
    started: Instant,
}

impl Standalone {
    /// Serves a database as node `node`, which clients reach at `client_address`.
    #[must_use]
    pub fn new(db: Database, node: NodeId, client_address: impl Into<String>) -> Standalone {
        let client_address = client_address.into();
        Standalone { db, node, client_address, sweep: Arc::default(), started: Instant::now() }
    }

    fn cluster(&self) -> ClusterId {
        ClusterId { database: self.db.id(), epoch: self.db.lineage().epoch }
    }

    fn snapshot(&self, consistency: Consistency) -> Result<Snapshot, Refusal> {
        let snapshot = self.db.read().map_err(|error| match error {
            Error::Bound { .. } => Refusal::Busy(error.to_string()),
            error => error.into(),
        })?;
        match consistency {
            // Nobody has a receipt of a later LSN, but from another database.
            Consistency::AtLeast(lsn) if lsn > snapshot.lsn().0 => {
                Err(Refusal::Behind { at: snapshot.lsn().0 })
            }
            _ => Ok(snapshot),
        }
    }
}

impl Store for Standalone {
    fn welcome(&self) -> Welcome {
        Welcome { node: self.node, cluster: self.cluster(), in_flight_max: 0 }
    }

    fn write(&self, write: Write, done: Done<Written>) {
        let sweep = Arc::clone(&self.sweep);
        match self.db.submit(move |txn| apply::change(txn, &write, &sweep)) {
            Ok(submitted) => settle(submitted, |result| done(written(result))),
            Err(error) => done(Err(error.into())),
        }
    }

    fn read(&self, consistency: Consistency, done: Done<Snapshot>) {
        done(self.snapshot(consistency));
    }

    fn status(&self) -> Result<Status, Refusal> {
        let stats = self.db.stats();
        Ok(Status {
            node: self.node,
            cluster: self.cluster(),
            role: Role::Standalone,
            term: 0,
            leader: Some(self.node),
            committed: stats.committed.0,
            applied: stats.committed.0,
            appended: stats.appended.0,
            synced: stats.synced.0,
            checkpointed: stats.checkpointed.0,
            journal_len: stats.journal_bytes,
            fault: stats.poisoned_by.map(|action| format!("a {action} has failed")),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            peers: Vec::new(),
        })
    }

    fn members(&self) -> Result<Vec<Member>, Refusal> {
        Ok(vec![Member {
            node: self.node,
            is_voter: true,
            address: String::new(),
            client_address: self.client_address.clone(),
        }])
    }

    fn admin(&self, _: Admin, done: Done<u64>) {
        let what = "this node serves a database by itself, without a cluster";
        done(Err(Refusal::Unsupported(what.to_owned())));
    }
}

pub(super) fn written(result: Result<Receipt<(Outcome, bool)>>) -> Result<Written, Refusal> {
    let Receipt { value: (outcome, repeated), lsn } = result?;
    Ok(Written { lsn: lsn.0, outcome, repeated })
}
