//! A node of the simulation: a replica, its log, and the two queues of its threads.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use treepie::ids::Lsn;
use treepie_raft::{
    ids::NodeId,
    log::Log,
    replica::{Effect, Job, Options, Replica, Stopped},
};
use treepie_testkit::Rng;

use crate::store::Store;

/// What the deciding thread does, in order.
pub type Decision<S> = Effect<<S as Log>::Record>;

pub struct Node<S: Store> {
    pub id: NodeId,
    pub log: Arc<S>,
    /// None while the process is down.
    pub replica: Option<Replica<S>>,
    /// Rises with each start: events of an earlier life pass.
    pub life: u64,
    pub paused_until: u64,
    pub slow_until: u64,
    /// Parts of a million by which its clock runs fast or slow.
    rate: i64,
    pub is_pumped: bool,
    pub jobs: VecDeque<Job<S::Record>>,
    /// The number of the last job that is being written.
    pub writes: Option<u64>,
    /// The write before cut something off.
    pub has_truncated: bool,
    pub decisions: VecDeque<Decision<S>>,
    pub decides: bool,
    /// What was known to be seen when each read began.
    pub reads: BTreeMap<u64, Lsn>,
    pub is_removed: bool,
}

impl<S: Store> Node<S> {
    /// Its clock is wrong by up to `spread` parts of a million.
    pub fn new(id: NodeId, log: S, rng: &mut Rng, spread: i64) -> Node<S> {
        let drawn = rng.below(2 * spread.unsigned_abs());
        let rate = i64::try_from(drawn).expect("small") - spread;
        Node {
            id,
            log: Arc::new(log),
            replica: None,
            life: 0,
            paused_until: 0,
            slow_until: 0,
            rate,
            is_pumped: false,
            jobs: VecDeque::new(),
            writes: None,
            has_truncated: false,
            decisions: VecDeque::new(),
            decides: false,
            reads: BTreeMap::new(),
            is_removed: false,
        }
    }

    /// Its own clock.
    pub fn now(&self, at: u64) -> Duration {
        let at = i64::try_from(at).expect("a simulation is short");
        let own = at + at / 1_000_000 * self.rate + at % 1_000_000 * self.rate / 1_000_000;
        Duration::from_micros(u64::try_from(own).unwrap_or(0))
    }

    /// How long so many microseconds of its own clock last.
    pub fn lasts(&self, own: u64) -> u64 {
        own * 1_000_000 / (1_000_000 + self.rate).unsigned_abs()
    }

    pub fn start(&mut self, at: u64, seed: u64, place: Option<treepie_raft::members::Place>) {
        self.life += 1;
        let options = Options { found: place, ..Options::new(self.id, seed) };
        let opened = Replica::open(Arc::clone(&self.log), options, self.now(at));
        self.replica = Some(opened.expect("its log is whole"));
    }

    /// The process is gone, and all that it kept in memory.
    pub fn stop(&mut self) {
        self.life += 1;
        self.replica = None;
        self.is_pumped = false;
        self.jobs.clear();
        self.writes = None;
        self.decisions.clear();
        self.decides = false;
        self.reads.clear();
    }

    /// Writes the next jobs, not synced yet. What it returns is appended.
    pub fn begin_write(&mut self, count: usize) -> treepie::Result<Vec<S::Record>> {
        let mut appended = Vec::new();
        for _ in 0..count {
            let Some(job) = self.jobs.pop_front() else { break };
            if let Some(after) = job.truncate_after {
                self.log.truncate(after)?;
            }
            self.log.append(job.hard_state, &job.records)?;
            appended.extend(job.records);
            self.writes = Some(job.number);
        }
        Ok(appended)
    }

    /// Why the replica has stopped, if it has.
    pub fn stopped(&self) -> Option<Stopped> {
        self.replica.as_ref().and_then(|replica| replica.stopped().cloned())
    }
}
