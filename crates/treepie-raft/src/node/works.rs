//! The three places where a node's work is done, and who may do it there.
//!
//! ```text
//!              inputs             jobs               decisions
//! whoever ──> [ replica ] ──┬──> [ journal ] ──┐
//!                  ^        └──> [ readers' view ]
//!                  └───────────────────┴───────┘  what has come of it
//! ```
//!
//! Each has a thread of its own, which sleeps while others do its work. Who brings something works at the
//! replica, which never waits for a disk. A thread that receives records also writes and syncs small ones
//! where nothing else has come: it has nothing better to do until they are acknowledged. Not so a thread
//! that receives heartbeats, which a slow disk must not keep from being heard. What a majority has is
//! shown to readers by whoever hears of it, on the leader, where that is no more than a note.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use treepie::replication::SharedRecord;

use super::{
    driver::Driver,
    input::Input,
    log::DoorLog,
    shared::Shared,
    station::{Panicked, Station},
    writer::{Decider, Decision, JournalWriter},
};
use crate::replica::Job;

/// The thread of the replica.
pub(super) const RAFT: &str = "treepie raft";
/// That of the journal.
pub(super) const JOURNAL: &str = "treepie journal";
/// That of decisions.
pub(super) const COMMIT: &str = "treepie commit";

/// Bytes of records that a thread writes which has received them, at most.
const WRITTEN_HERE_MAX: u64 = 64 << 10;
/// Times in a row that one thread works for all, at most.
const ROUNDS_MAX: usize = 16;

/// Who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hand {
    /// Whoever must wait for nothing: it may be in the middle of a write.
    Light,
    /// A thread that has received an urgent message.
    Urgent,
    /// A thread that has received one of the bulk lane, and whether nothing more has come by now.
    Receiver { is_last: bool },
    /// The thread of the journal.
    Journal,
}

impl Hand {
    fn may_write(self) -> bool {
        self == Hand::Receiver { is_last: true }
    }

    fn may_commit(self) -> bool {
        self != Hand::Light
    }
}

/// The three places.
pub(super) struct Works {
    pub(super) replica: Station<Input, Driver>,
    pub(super) journal: Station<Job<SharedRecord>, JournalWriter>,
    pub(super) decisions: Station<Decision, Decider>,
    /// The node leads, and its database takes writes.
    pub(super) leads: AtomicBool,
    /// Whom a panic concerns.
    concerned: OnceLock<(Weak<Shared>, Weak<DoorLog>)>,
}

impl Works {
    pub(super) fn new() -> Works {
        Works {
            replica: Station::new(),
            journal: Station::new(),
            decisions: Station::new(),
            leads: AtomicBool::new(false),
            concerned: OnceLock::new(),
        }
    }

    /// Whom a panic concerns, once.
    pub(super) fn concerns(&self, shared: &Arc<Shared>, log: &Arc<DoorLog>) {
        self.concerned.get_or_init(|| (Arc::downgrade(shared), Arc::downgrade(log)));
    }

    /// Tells the replica something; false when there is none any more.
    pub(super) fn tell(&self, input: Input, hand: Hand) -> bool {
        let is_told = self.replica.leave(input, 0);
        self.work(hand);
        is_told
    }

    /// Does what there is to do and this thread may do, and wakes the others for the rest.
    pub(super) fn work(&self, hand: Hand) {
        for _ in 0..ROUNDS_MAX {
            let mut did = self.noticed(RAFT, self.replica.try_work());
            let leads = self.leads.load(Relaxed);
            if hand.may_write() && !leads && self.journal.is_light(WRITTEN_HERE_MAX) {
                did |= self.noticed(JOURNAL, self.journal.try_work());
            }
            if hand.may_commit() && leads && self.decisions.is_light(0) {
                did |= self.noticed(COMMIT, self.decisions.try_work());
            }
            if !did {
                break;
            }
        }
        self.replica.wake();
        self.journal.wake();
        self.decisions.wake();
    }

    /// The life of the thread of the replica.
    pub(super) fn serve_replica(&self) {
        while self.noticed(RAFT, self.replica.wait_and_work()) {
            self.work(Hand::Light);
        }
    }

    /// That of the journal.
    pub(super) fn serve_journal(&self) {
        while self.noticed(JOURNAL, self.journal.wait_and_work()) {
            self.work(Hand::Journal);
        }
    }

    /// That of decisions.
    pub(super) fn serve_decisions(&self) {
        while self.noticed(COMMIT, self.decisions.wait_and_work()) {
            self.work(Hand::Light);
        }
    }

    fn noticed(&self, name: &'static str, worked: Result<bool, Panicked>) -> bool {
        worked.unwrap_or_else(|Panicked| {
            self.panicked(name);
            false
        })
    }

    /// Whoever did this work has panicked.
    pub(super) fn panicked(&self, name: &'static str) {
        tracing::error!(name, "a thread of the node has panicked");
        if name != RAFT {
            self.replica.put(Input::Panicked(name));
            return;
        }
        // Nobody listens any more: whoever waits is told here.
        self.replica.shut();
        self.journal.shut();
        self.decisions.shut();
        let Some((shared, log)) = self.concerned.get() else { return };
        if let Some(log) = log.upgrade() {
            drop(log.door.close());
        }
        if let Some(shared) = shared.upgrade() {
            shared.give_up();
        }
    }

    /// Whether this thread is at work here, further up.
    pub(super) fn is_own(&self) -> bool {
        self.replica.is_own() || self.journal.is_own() || self.decisions.is_own()
    }

    /// Waits until nobody works here, and nobody will.
    pub(super) fn retire(&self) {
        self.replica.retire();
        self.journal.retire();
        self.decisions.retire();
    }
}
