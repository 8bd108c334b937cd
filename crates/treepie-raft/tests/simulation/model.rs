//! A log in memory with the rules of the real one: what was appended and not synced is lost at a crash,
//! from some point on; sealed records are visible to nobody before they are committed.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use treepie::{
    Error, Result,
    ids::{Lsn, Term},
};
use treepie_raft::{
    ids::NodeId,
    log::{HardState, Log, LogRecord, LogState, raft_term},
    message::EntryKind,
};
use treepie_testkit::{Rng, mix};

use crate::{
    store::{Store, Wrong},
    world::{Bug, voters},
};

/// What a record does.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    NoOp,
    Write(u64),
    Members(Vec<u8>),
}

#[derive(Debug)]
struct Fields {
    lsn: Lsn,
    term: Term,
    chain_before: u64,
    chain: u64,
    known_committed: Lsn,
    body: Body,
}

/// A record of the model.
#[derive(Clone, Debug)]
pub struct Record(Arc<Fields>);

impl LogRecord for Record {
    fn lsn(&self) -> Lsn {
        self.0.lsn
    }
    fn term(&self) -> Term {
        self.0.term
    }
    fn kind(&self) -> EntryKind {
        match self.0.body {
            Body::NoOp => EntryKind::NoOp,
            Body::Write(_) => EntryKind::Transaction,
            Body::Members(_) => EntryKind::Membership,
        }
    }
    fn chain(&self) -> u64 {
        self.0.chain
    }
    fn chain_before(&self) -> u64 {
        self.0.chain_before
    }
    fn checksum(&self) -> u32 {
        u32::try_from(self.0.chain >> 32).expect("half of 64 bits")
    }
    fn record_len(&self) -> u32 {
        200
    }
    fn members(&self) -> Option<Vec<u8>> {
        match &self.0.body {
            Body::Members(members) => Some(members.clone()),
            _ => None,
        }
    }
}

/// The state that a log begins with.
#[derive(Clone, Debug, Default)]
pub struct Base {
    pub lsn: Lsn,
    pub term: Term,
    pub chain: u64,
    pub members: Option<Vec<u8>>,
}

/// What a disk has.
#[derive(Clone, Debug, Default)]
struct Disk {
    base: Base,
    records: Vec<Record>,
    hard_state: HardState,
    known_committed: Lsn,
}

impl Disk {
    fn last(&self) -> Lsn {
        Lsn(self.base.lsn.0 + self.records.len() as u64)
    }

    fn get(&self, lsn: Lsn) -> Option<&Record> {
        let at = usize::try_from(lsn.0.checked_sub(self.base.lsn.0 + 1)?).ok()?;
        self.records.get(at)
    }

    fn chain(&self, lsn: Lsn) -> Option<u64> {
        match lsn == self.base.lsn {
            true => Some(self.base.chain),
            false => self.get(lsn).map(LogRecord::chain),
        }
    }

    fn cut(&mut self, after: Lsn) {
        let kept = usize::try_from(after.0 - self.base.lsn.0).expect("small");
        self.records.truncate(kept);
    }

    fn write(&mut self, written: &Written) {
        match written {
            Written::State(state, committed) => {
                self.hard_state = *state;
                self.known_committed = self.known_committed.max(*committed);
            }
            Written::Record(record) => {
                self.known_committed = self.known_committed.max(record.0.known_committed);
                self.records.push(record.clone());
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Written {
    State(HardState, Lsn),
    Record(Record),
}

#[derive(Debug, Default)]
struct State {
    /// As the process sees it.
    disk: Disk,
    /// What a crash leaves at least.
    durable: Disk,
    /// What a crash leaves a beginning of.
    unsynced: Vec<Written>,
    sealed: VecDeque<Record>,
    leads: Option<Term>,
    committed: Lsn,
    members: Option<Vec<u8>>,
    /// Sealed, and not taken yet.
    outlet: Vec<Record>,
    /// Writes whose clients wait.
    parked: BTreeSet<Lsn>,
    acknowledged: Vec<Lsn>,
}

impl State {
    fn end(&self) -> (Lsn, u64) {
        let appended = || (self.disk.last(), self.disk.chain(self.disk.last()).unwrap_or(0));
        self.sealed.back().map_or_else(appended, |record| (record.lsn(), record.chain()))
    }

    fn make(&self, term: Term, body: Body) -> Record {
        let (last, chain_before) = self.end();
        let lsn = last.next();
        let content = match &body {
            Body::NoOp => 1,
            Body::Write(op) => 2 + op,
            Body::Members(members) => treepie_testkit::hash_bytes(members),
        };
        let chain = mix(mix(lsn.0, term.0), mix(content, chain_before));
        let known_committed = self.committed;
        Record(Arc::new(Fields { lsn, term, chain_before, chain, known_committed, body }))
    }

    fn seal(&mut self, body: Body) -> Option<Record> {
        let record = self.make(self.leads?, body);
        self.sealed.push_back(record.clone());
        self.outlet.push(record.clone());
        Some(record)
    }
}

/// The log of a node.
#[derive(Debug)]
pub struct ModelLog {
    state: Mutex<State>,
    /// Whether sealed records stay behind after leadership is lost, until they are cut off.
    keeps_sealed: bool,
    bug: Option<Bug>,
}

fn misfit(why: &'static str) -> Error {
    Error::rejected(why)
}

impl ModelLog {
    pub fn new(base: Base, keeps_sealed: bool, bug: Option<Bug>) -> ModelLog {
        let hard_state = HardState { term: Term(1), vote: 0 };
        ModelLog::of(Disk { base, hard_state, ..Disk::default() }, keeps_sealed, bug)
    }

    fn of(disk: Disk, keeps_sealed: bool, bug: Option<Bug>) -> ModelLog {
        let committed = disk.known_committed.min(disk.last()).max(disk.base.lsn);
        let mut members = disk.base.members.clone();
        for record in &disk.records {
            if record.lsn() <= committed {
                members = record.members().or(members);
            }
        }
        let durable = disk.clone();
        let state = State { disk, durable, committed, members, ..State::default() };
        ModelLog { state: Mutex::new(state), keeps_sealed, bug }
    }

    /// What is there after a crash.
    pub fn cut(&self, rng: &mut Rng) -> ModelLog {
        let state = self.state.lock();
        let mut disk = state.durable.clone();
        let kept = rng.index(state.unsynced.len() + 1);
        for written in &state.unsynced[..kept] {
            disk.write(written);
        }
        ModelLog::of(disk, self.keeps_sealed, self.bug)
    }
}

impl Store for ModelLog {
    type Origin = Base;
    type Pages = Base;

    const WRITE_US: u64 = 8_000;
    const READ_US: u64 = 6_000;

    fn origin(_seed: u64, count: u64) -> Base {
        Base { members: Some(voters(count).encode()), ..Base::default() }
    }

    fn is_founded(origin: &Base) -> bool {
        origin.members.is_some()
    }

    fn create(origin: &Base, _id: NodeId, rng: &mut Rng, bug: Option<Bug>) -> ModelLog {
        let keeps_sealed = rng.chance(1, 2);
        ModelLog::new(origin.clone(), keeps_sealed, bug)
    }

    fn crash(&self, rng: &mut Rng) -> Result<ModelLog, Wrong> {
        Ok(self.cut(rng))
    }

    /// There are no pages while readers see more than the journal has, after leadership was lost.
    fn pages(&self) -> Option<Base> {
        let state = self.state.lock();
        let (lsn, members) = (state.committed, state.members.clone());
        if lsn == state.disk.base.lsn {
            return Some(Base { members, ..state.disk.base.clone() });
        }
        let sealed = || state.sealed.iter().find(|record| record.lsn() == lsn);
        let record = state.disk.get(lsn).or_else(sealed)?;
        Some(Base { lsn, term: raft_term(record.term()), chain: record.chain(), members })
    }

    fn position(pages: &Base) -> (Lsn, Term) {
        (pages.lsn, pages.term)
    }

    fn install(&self, base: &Base, _rng: &mut Rng) -> Result<(ModelLog, bool), Wrong> {
        let hard_state = self.state.lock().durable.hard_state;
        let disk = Disk { base: base.clone(), hard_state, ..Disk::default() };
        Ok((ModelLog::of(disk, self.keeps_sealed, self.bug), true))
    }

    fn trim(&self, rng: &mut Rng) -> Result<(), Wrong> {
        let mut state = self.state.lock();
        let to = state.committed.min(state.durable.last());
        let base = state.disk.base.lsn;
        if to <= base {
            return Ok(());
        }
        let to = Lsn(base.0 + 1 + rng.below(to.0 - base.0));
        let Some(record) = state.disk.get(to).cloned() else { return Ok(()) };
        let (before, _) =
            state.disk.records.split_at(usize::try_from(to.0 - base.0).expect("small"));
        let members = before.iter().rev().find_map(LogRecord::members);
        let members = members.or_else(|| state.disk.base.members.clone());
        let base = Base { lsn: to, term: raft_term(record.term()), chain: record.chain(), members };
        for disk in [1, 2] {
            let disk = if disk == 1 { &mut state.disk } else { &mut state.durable };
            disk.records.retain(|record| record.lsn() > to);
            disk.base = base.clone();
        }
        Ok(())
    }

    fn write(&self, op: u64) {
        let mut state = self.state.lock();
        if let Some(record) = state.seal(Body::Write(op)) {
            state.parked.insert(record.lsn());
        }
    }

    fn take_sealed(&self) -> Vec<Record> {
        std::mem::take(&mut self.state.lock().outlet)
    }

    fn take_acknowledged(&self) -> Result<Vec<Lsn>, Wrong> {
        Ok(std::mem::take(&mut self.state.lock().acknowledged))
    }

    fn leads(&self) -> bool {
        self.state.lock().leads.is_some()
    }

    fn durable(&self) -> (Lsn, HardState) {
        let state = self.state.lock();
        (state.durable.last(), state.durable.hard_state)
    }

    fn chain(&self, lsn: Lsn) -> Option<u64> {
        self.state.lock().disk.chain(lsn)
    }

    fn base(&self) -> Lsn {
        self.state.lock().disk.base.lsn
    }

    fn coming(&self, lsn: Lsn) -> Vec<(Lsn, u64)> {
        let state = self.state.lock();
        let find = |lsn| {
            let sealed = || state.sealed.iter().find(|record| record.lsn() == lsn);
            state.disk.get(lsn).or_else(sealed)
        };
        let lsns = state.committed.0 + 1..=lsn.0;
        lsns.filter_map(|lsn| find(Lsn(lsn)).map(|record| (Lsn(lsn), record.chain()))).collect()
    }
}

impl Log for ModelLog {
    type Record = Record;

    fn state(&self) -> LogState {
        let state = self.state.lock();
        let (last, last_chain) = state.end();
        let record = state.sealed.back().or_else(|| state.disk.records.last());
        LogState {
            first: state.disk.base.lsn,
            last,
            last_term: record.map_or(state.disk.base.term, |record| raft_term(record.term())),
            last_chain,
            committed: state.committed,
            synced: state.durable.last(),
            hard_state: state.disk.hard_state,
        }
    }

    fn term(&self, lsn: Lsn) -> Option<Term> {
        let state = self.state.lock();
        match lsn == state.disk.base.lsn {
            true => Some(state.disk.base.term),
            false => state.disk.get(lsn).map(LogRecord::term),
        }
    }

    fn record(&self, lsn: Lsn) -> Result<Record> {
        self.state.lock().disk.get(lsn).cloned().ok_or_else(|| misfit("there is no such record"))
    }

    fn visit(&self, after: Lsn, visit: &mut dyn FnMut(Record)) -> Result<()> {
        let records = self.state.lock().disk.records.clone();
        records.into_iter().filter(|record| record.lsn() > after).for_each(visit);
        Ok(())
    }

    fn append(&self, hard_state: Option<HardState>, records: &[Record]) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(hard_state) = hard_state {
            let written = Written::State(hard_state, state.committed);
            state.disk.write(&written);
            state.unsynced.push(written);
        }
        for record in records {
            let last = state.disk.last();
            if record.lsn() != last.next() || state.disk.chain(last) != Some(record.chain_before())
            {
                return Err(misfit("the record does not continue the log"));
            }
            match state.sealed.front() {
                Some(sealed) if sealed.chain() == record.chain() => {
                    state.sealed.pop_front();
                }
                Some(_) => return Err(misfit("another record was sealed")),
                None => {}
            }
            let written = Written::Record(record.clone());
            state.disk.write(&written);
            state.unsynced.push(written);
        }
        Ok(())
    }

    fn sync(&self) -> Result<Lsn> {
        let mut state = self.state.lock();
        for written in std::mem::take(&mut state.unsynced) {
            match written {
                Written::State(..) if self.bug == Some(Bug::VoteNotSynced) => {}
                written => state.durable.write(&written),
            }
        }
        if self.bug == Some(Bug::TruncationForgotten) {
            // The old records are in the way of the new ones.
            let base = state.durable.base.lsn;
            let mut seen = Vec::new();
            for record in std::mem::take(&mut state.durable.records) {
                if record.lsn().0 == base.0 + 1 + seen.len() as u64 {
                    seen.push(record);
                }
            }
            state.durable.records = seen;
        }
        Ok(state.durable.last())
    }

    fn truncate(&self, after: Lsn) -> Result<()> {
        self.sync()?;
        let mut state = self.state.lock();
        if after < state.committed {
            return Err(misfit("it is committed"));
        }
        state.sealed.retain(|record| record.lsn() <= after);
        let last = state.disk.last();
        state.disk.cut(after.min(last));
        if self.bug != Some(Bug::TruncationForgotten) {
            let last = state.durable.last();
            state.durable.cut(after.min(last));
        }
        Ok(())
    }

    fn commit(&self, lsn: Lsn) -> Result<()> {
        let mut state = self.state.lock();
        while state.committed < lsn {
            let next = state.committed.next();
            let record = match state.disk.get(next) {
                Some(record) => record.clone(),
                None => {
                    let sealed = state.sealed.iter().find(|record| record.lsn() == next);
                    sealed.cloned().ok_or_else(|| misfit("there is nothing to commit"))?
                }
            };
            state.members = record.members().or(state.members.take());
            state.committed = next;
        }
        let later = state.parked.split_off(&lsn.next());
        let done = std::mem::replace(&mut state.parked, later);
        state.acknowledged.extend(done);
        Ok(())
    }

    fn lead(&self, term: Term) -> Result<()> {
        let mut state = self.state.lock();
        if state.committed != state.disk.last() || !state.sealed.is_empty() {
            return Err(misfit("not all is committed"));
        }
        state.leads = Some(term);
        Ok(())
    }

    fn follow(&self, _leader: Option<u64>) -> Result<()> {
        let mut state = self.state.lock();
        state.leads = None;
        state.parked.clear();
        if !self.keeps_sealed {
            state.sealed.clear();
        }
        Ok(())
    }

    fn no_op(&self, term: Term) -> Result<Record> {
        Ok(self.state.lock().make(term, Body::NoOp))
    }

    fn set_members(&self, _term: Term, members: &[u8], _change: &[u8]) -> Result<Lsn> {
        let sealed = self.state.lock().seal(Body::Members(members.to_vec()));
        sealed.map(|record| record.lsn()).ok_or_else(|| misfit("it does not lead"))
    }

    fn members(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.state.lock().members.clone())
    }
}
