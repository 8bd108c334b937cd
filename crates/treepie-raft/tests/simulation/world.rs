//! Nodes, a network between them, and time: all from one seed, in one thread.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

use treepie::ids::Lsn;
use treepie_raft::{
    ids::NodeId,
    log::{Log, LogRecord, raft_term},
    members::{Members, Place},
    message::{Message, MessageKind},
    replica::{Effect, Role, Status},
};
use treepie_testkit::{Rng, mix};

use crate::{
    check::Check,
    model::{Base, ModelLog},
    node::Node,
    rivals::Rivals,
    store::Store,
};

/// A mistake that is made on purpose: the checks have to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Term and vote are written and never synced.
    VoteNotSynced,
    /// The replica is told that a job is durable when it was only written.
    AckBeforeSync,
    /// A suffix is cut off in memory, and is there again after a crash.
    TruncationForgotten,
    /// A leader answers reads without asking a quorum.
    ReadWithoutQuorum,
    /// A state is installed on nodes that have more than it has.
    InstalledOverNewer,
    /// Clocks run at speeds so different that a lease promises nothing.
    WildClocks,
    /// A leader counts replicas of records of earlier terms (Raft paper, figure 8).
    OldTermCommitted,
}

type Records<S> = Vec<<S as Log>::Record>;

enum Event<S: Store> {
    Tick(u64),
    Pump(u64),
    Written(u64),
    Decided(u64),
    Deliver(Box<(Message, Records<S>)>),
    Restart,
    Installed { from: NodeId, pages: Option<S::Pages> },
    Heal,
    Cut,
    Write,
    Read,
    Fault,
}

/// How rough it is.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub lost_percent: u64,
    pub doubled_percent: u64,
    pub fault_us: u64,
    pub crashes: bool,
    pub cuts: bool,
}

type Scheduled = Reverse<(u64, u64, NodeId)>;

/// All of it.
pub struct World<S: Store> {
    pub rng: Rng,
    pub at: u64,
    pub nodes: BTreeMap<NodeId, Node<S>>,
    pub check: Check,
    pub weather: Weather,
    pub bug: Option<Bug>,
    pub trace: u64,
    queue: BinaryHeap<Scheduled>,
    events: BTreeMap<u64, Event<S>>,
    count: u64,
    /// Links that pass nothing, from and to.
    cut: BTreeSet<(NodeId, NodeId)>,
    installs: BTreeSet<NodeId>,
    ops: u64,
    pub is_calm: bool,
    pub counts: Counts,
    /// What every log begins with.
    pub origin: S::Origin,
    /// Clients write no more.
    pub is_quiet: bool,
    /// Who may be elected, and what of its log others get.
    pub rivals: Option<Rivals>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub steps: u64,
    pub crashes: u64,
    pub cuts: u64,
    pub truncations: u64,
    pub installs: u64,
    pub changes: u64,
    pub transfers: u64,
}

pub fn place(id: NodeId) -> Place {
    Place { address: format!("host-{id}:1"), label: String::new() }
}

/// A cluster of voters, none of which has a record.
pub fn voters(count: u64) -> Members {
    let mut members = Members::found(NodeId(1), place(NodeId(1))).expect("an address");
    for id in (2..=count).map(NodeId) {
        use treepie_raft::members::Change;
        for change in
            [Change::AddLearner { id, place: place(id) }, Change::Promote(id), Change::Complete]
        {
            members = members.after(&change).expect("it follows");
        }
    }
    members
}

impl<S: Store> World<S> {
    pub fn new(seed: u64, node_count: u64, bug: Option<Bug>) -> World<S> {
        let mut rng = Rng::new(seed);
        let weather = Weather {
            lost_percent: *rng.pick(&[0, 1, 5, 20]),
            doubled_percent: *rng.pick(&[0, 2, 10]),
            fault_us: *rng.pick(&[60_000, 100_000, 200_000, 500_000]),
            crashes: rng.chance(4, 5),
            cuts: rng.chance(4, 5),
        };
        let mut world = World {
            rng,
            at: 0,
            nodes: BTreeMap::new(),
            check: Check::default(),
            weather,
            bug,
            trace: seed,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            count: 0,
            cut: BTreeSet::new(),
            installs: BTreeSet::new(),
            ops: 0,
            is_calm: false,
            counts: Counts::default(),
            origin: S::origin(seed, node_count),
            is_quiet: false,
            rivals: None,
        };
        if bug.is_some() {
            // Leaders that end soon after each other bring most mistakes to light.
            world.weather = Weather { fault_us: 100_000, crashes: true, cuts: true, ..weather };
        }
        for id in (1..=node_count).map(NodeId) {
            world.add_node(id);
        }
        world.schedule(1_000, NodeId(0), Event::Write);
        world.schedule(2_000, NodeId(0), Event::Read);
        world.schedule(700_000, NodeId(0), Event::Fault);
        world
    }

    /// A new node without records.
    pub fn add_node(&mut self, id: NodeId) {
        let log = S::create(&self.origin, id, &mut self.rng, self.bug);
        let spread = if self.bug == Some(Bug::WildClocks) { 900_000 } else { 60_000 };
        let node = Node::new(id, log, &mut self.rng, spread);
        self.nodes.insert(id, node);
        self.start(id);
    }

    fn start(&mut self, id: NodeId) {
        let (at, seed) = (self.at, self.rng.next_u64());
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (_, hard_state) = node.log.durable();
        self.check.hard_state(id, hard_state);
        let founds = !S::is_founded(&self.origin) && id == NodeId(1);
        node.start(at, seed, founds.then(|| place(id)));
        let life = node.life;
        self.schedule(1 + seed % 50_000, id, Event::Tick(life));
    }

    fn schedule(&mut self, after: u64, id: NodeId, event: Event<S>) {
        self.count += 1;
        self.events.insert(self.count, event);
        self.queue.push(Reverse((self.at + after, self.count, id)));
    }

    /// Runs for so long, or until something is wrong.
    pub fn run(&mut self, microseconds: u64) {
        let end = self.at + microseconds;
        while self.check.wrong.is_none() {
            let Some(Reverse((at, number, id))) = self.queue.peek().copied() else { break };
            if at > end {
                self.at = end;
                break;
            }
            self.queue.pop();
            self.at = at;
            let Some(event) = self.events.remove(&number) else { continue };
            let paused_until = self.nodes.get(&id).map_or(0, |node| node.paused_until);
            if paused_until > at && !matches!(event, Event::Restart) {
                self.schedule(paused_until - at, id, event);
                continue;
            }
            self.counts.steps += 1;
            self.trace = mix(self.trace, mix(at, number));
            self.handle(id, event);
        }
    }

    fn handle(&mut self, id: NodeId, event: Event<S>) {
        let is_now = |world: &World<S>, life| world.nodes.get(&id).is_some_and(|n| n.life == life);
        match event {
            Event::Tick(life) if is_now(self, life) => self.tick(id),
            Event::Pump(life) if is_now(self, life) => self.pump(id),
            Event::Written(life) if is_now(self, life) => self.written(id),
            Event::Decided(life) if is_now(self, life) => self.decided(id),
            Event::Tick(_) | Event::Pump(_) | Event::Written(_) | Event::Decided(_) => {}
            Event::Deliver(sent) => self.deliver(id, &sent.0, &sent.1),
            Event::Restart => {
                if self.nodes.get(&id).is_some_and(|node| node.replica.is_none()) {
                    self.start(id);
                }
            }
            Event::Installed { from, pages } => self.installed(from, id, pages),
            Event::Heal => self.cut.clear(),
            Event::Cut => self.cut_links(),
            Event::Write => self.write(),
            Event::Read => self.read(),
            Event::Fault => self.fault(),
        }
    }

    fn tick(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (now, life, half_tick) = (node.now(self.at), node.life, node.lasts(25_000));
        if let Some(replica) = &mut node.replica {
            replica.tick(now);
        }
        self.pump_soon(id);
        self.schedule(half_tick, id, Event::Tick(life));
    }

    fn pump_soon(&mut self, id: NodeId) {
        let delay = self.rng.below(300);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let life = node.life;
        if !std::mem::replace(&mut node.is_pumped, true) {
            self.schedule(delay, id, Event::Pump(life));
        }
    }

    /// Gives the replica what its database has sealed, and does what it wants.
    fn pump(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.is_pumped = false;
        let now = node.now(self.at);
        let Some(replica) = &mut node.replica else { return };
        for record in node.log.take_sealed() {
            replica.sealed(record);
        }
        let effects = match replica.effects(now) {
            Ok(effects) => effects,
            Err(stopped) => return self.check.fail(format!("node {id} has stopped: {stopped}")),
        };
        let status = replica.status();
        if status.role == Role::Leader {
            let log = &node.log;
            self.check.leads(status.term, id, |lsn| log.chain(lsn), log.base());
            if self.bug == Some(Bug::OldTermCommitted) {
                let counted = counted(id, &status).min(log.state().last);
                node.decisions.push_back(Effect::Commit(counted.max(status.committed)));
            }
        }
        for effect in effects {
            self.begin(id, effect);
        }
        self.write_next(id);
        self.decide_next(id);
    }

    fn begin(&mut self, id: NodeId, effect: Effect<S::Record>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        match effect {
            Effect::Send { message, records } => self.send(id, message, records),
            Effect::Persist(job) => node.jobs.push_back(job),
            Effect::Commit(_) | Effect::Lead(_) | Effect::Follow { .. } => {
                node.decisions.push_back(effect);
            }
            Effect::Answer { id: read, outcome } => {
                let floor = node.reads.remove(&read);
                let sees = node.log.state().committed;
                if let (Some(floor), Ok(_)) = (floor, outcome) {
                    self.check.reads(id, floor, sees);
                }
            }
            Effect::SetMembers { term, members, change } => {
                match node.log.set_members(term, &members, &change) {
                    Ok(_) => self.pump_soon(id),
                    Err(_) => {
                        if let Some(replica) = &mut node.replica {
                            replica.members_refused(term);
                        }
                    }
                }
            }
            Effect::Changed { outcome, .. } => self.counts.changes += u64::from(outcome.is_ok()),
            Effect::Members(members) => self.note_removed(&members),
            Effect::Install { peer, .. } => {
                let pages = node.log.pages();
                let after = 20_000 + self.rng.below(150_000);
                self.installs.insert(peer);
                self.schedule(after, peer, Event::Installed { from: id, pages });
            }
        }
    }

    fn note_removed(&mut self, members: &Members) {
        if members.is_joint() {
            return;
        }
        let highest = members.iter().map(|(id, _)| id).max();
        for (id, node) in &mut self.nodes {
            node.is_removed |= members.get(*id).is_none() && Some(*id) < highest;
        }
    }

    fn send(&mut self, id: NodeId, mut message: Message, records: Vec<Option<S::Record>>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if !message.reject {
            match message.kind {
                MessageKind::VoteReply => self.check.votes(id, message.term, message.to),
                MessageKind::AppendReply => {
                    self.check.acks(id, message.index, node.log.durable().0);
                }
                _ => {}
            }
        }
        let to = message.to;
        let mut attached = Vec::with_capacity(records.len());
        for (entry, record) in message.entries.iter_mut().zip(records) {
            let record = record.or_else(|| node.log.record(entry.lsn).ok());
            match record.filter(|record| raft_term(record.term()) == entry.term) {
                Some(record) => {
                    *entry = record.entry();
                    attached.push(record);
                }
                None => {
                    if let Some(replica) = &mut node.replica {
                        replica.unreachable(to);
                    }
                    return;
                }
            }
        }
        let is_lost = self.rivals.as_ref().is_some_and(|rivals| rivals.lose(&message));
        if is_lost || self.cut.contains(&(id, to)) {
            if let (true, Some(replica)) = (self.rng.chance(1, 4), &mut node.replica) {
                replica.unreachable(to);
            }
            return;
        }
        let copies = match self.is_calm {
            true => 1,
            false if self.rng.below(100) < self.weather.lost_percent => 0,
            false => 1 + u64::from(self.rng.below(100) < self.weather.doubled_percent),
        };
        for _ in 0..copies {
            let slow = if self.rng.chance(1, 50) && !self.is_calm { 60_000 } else { 2_000 };
            let delay = 100 + self.rng.below(slow);
            let sent = Box::new((message.clone(), attached.clone()));
            self.schedule(delay, to, Event::Deliver(sent));
        }
    }

    fn deliver(&mut self, id: NodeId, message: &Message, records: &[S::Record]) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let now = node.now(self.at);
        let Some(replica) = &mut node.replica else { return };
        match replica.message(now, message, records) {
            Ok(()) => self.pump_soon(id),
            Err(refused) => {
                let why = node.stopped().map_or_else(|| refused.to_string(), |s| s.to_string());
                self.check.fail(format!("node {id} refuses {:?}: {why}", message.kind));
            }
        }
    }

    fn write_next(&mut self, id: NodeId) {
        let count = 1 + self.rng.index(4);
        let is_slow = self.nodes.get(&id).is_some_and(|node| node.slow_until > self.at);
        let delay = match is_slow && !self.is_calm {
            true => 20_000 + self.rng.below(200_000),
            false => 50 + self.rng.below(3_000),
        };
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if node.writes.is_some() || node.jobs.is_empty() {
            return;
        }
        let jobs = node.jobs.iter().take(count);
        let truncations = jobs.filter(|job| job.truncate_after.is_some()).count() as u64;
        self.counts.truncations += truncations;
        let has_truncated = std::mem::replace(&mut node.has_truncated, truncations > 0);
        match node.begin_write(count) {
            Ok(appended) => {
                for record in appended {
                    let term = raft_term(record.term());
                    self.check.appends(id, record.lsn(), term, record.chain());
                }
            }
            Err(error) => return self.check.fail(format!("node {id} cannot append: {error}")),
        }
        if let (Some(Bug::AckBeforeSync), Some(number)) = (self.bug, node.writes)
            && let Some(replica) = &mut node.replica
        {
            replica.persisted(number);
        }
        let life = node.life;
        self.schedule(delay, id, Event::Written(life));
        // What was cut off must not come back, when others were told that it is gone.
        if has_truncated && self.weather.crashes && !self.is_calm && self.rng.chance(1, 3) {
            self.crash(id);
        }
    }

    fn written(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if let Err(error) = node.log.sync() {
            return self.check.fail(format!("node {id} cannot sync: {error}"));
        }
        if let (Some(number), Some(replica)) = (node.writes.take(), &mut node.replica) {
            replica.persisted(number);
        }
        self.pump_soon(id);
        self.write_next(id);
    }

    fn decide_next(&mut self, id: NodeId) {
        let slow = if self.rng.chance(1, 100) { 100_000 } else { 500 };
        let delay = self.rng.below(slow);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if !node.decides && !node.decisions.is_empty() {
            node.decides = true;
            let life = node.life;
            self.schedule(delay, id, Event::Decided(life));
        }
    }

    fn decided(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.decides = false;
        let Some(decision) = node.decisions.pop_front() else { return };
        let done = match &decision {
            Effect::Commit(lsn) => {
                for (lsn, chain) in node.log.coming(*lsn) {
                    self.check.commits(id, lsn, chain);
                }
                node.log.commit(*lsn)
            }
            Effect::Lead(term) => node.log.lead(*term),
            Effect::Follow { leader, .. } => node.log.follow(leader.map(|leader| leader.0)),
            _ => Ok(()),
        };
        if let Err(error) = done {
            return self.check.fail(format!("node {id} cannot do {decision:?}: {error}"));
        }
        match node.log.take_acknowledged() {
            Ok(lsns) => lsns.into_iter().for_each(|lsn| self.check.acknowledges(lsn)),
            Err(wrong) => return self.check.fail(format!("node {id}: {wrong}")),
        }
        match decision {
            Effect::Commit(lsn) => {
                if let Some(replica) = &mut node.replica {
                    replica.applied(lsn);
                }
            }
            Effect::Follow { number, .. } => {
                let last = node.log.state().last;
                if let Some(replica) = &mut node.replica {
                    replica.followed(number, last);
                }
            }
            _ => {}
        }
        self.pump_soon(id);
        self.decide_next(id);
    }

    fn installed(&mut self, from: NodeId, id: NodeId, pages: Option<S::Pages>) {
        self.installs.remove(&id);
        let is_cut = self.cut.contains(&(from, id)) || self.cut.contains(&(id, from));
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut is_whole = false;
        if let (Some(replica), Some(pages), false) = (&node.replica, pages, is_cut) {
            is_whole = true;
            let (lsn, term) = S::position(&pages);
            if replica.lacks(lsn, term) || self.bug == Some(Bug::InstalledOverNewer) {
                self.counts.installs += 1;
                let (log, is_installed) = match node.log.install(&pages, &mut self.rng) {
                    Ok(installed) => installed,
                    Err(wrong) => return self.check.fail(format!("node {id}: {wrong}")),
                };
                is_whole = is_installed;
                node.stop();
                node.log = std::sync::Arc::new(log);
                self.start(id);
            }
        }
        if let Some(replica) = self.nodes.get_mut(&from).and_then(|node| node.replica.as_mut()) {
            replica.install_ended(id, is_whole);
            self.pump_soon(from);
        }
    }

    /// The mistake of installing what a node has already.
    pub fn plant_install(&mut self, to: NodeId) {
        let Some(from) = self.nodes.values().find(|node| node.id != to) else { return };
        let (pages, from) = (from.log.pages(), from.id);
        self.schedule(50_000, to, Event::Installed { from, pages });
    }

    fn write(&mut self) {
        let leading: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|n| n.replica.is_some() && n.log.leads())
            .map(|n| n.id)
            .collect();
        if let (Some(id), false) = (leading.first().copied(), self.is_quiet) {
            let id = if leading.len() > 1 { *self.rng.pick(&leading) } else { id };
            let is_paused = self.nodes.get(&id).is_some_and(|node| node.paused_until > self.at);
            if let (Some(node), false) = (self.nodes.get_mut(&id), is_paused) {
                for _ in 0..1 + self.rng.below(3) {
                    self.ops += 1;
                    node.log.write(self.ops);
                }
                self.pump_soon(id);
            }
        }
        let after = 500 + self.rng.below(S::WRITE_US);
        self.schedule(after, NodeId(0), Event::Write);
    }

    fn read(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = *self.rng.pick(&ids);
        self.ops += 1;
        let (number, floor) = (self.ops, self.check.floor);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (now, is_paused) = (node.now(self.at), node.paused_until > self.at);
        if let (Some(replica), false) = (&mut node.replica, is_paused) {
            if self.bug == Some(Bug::ReadWithoutQuorum) && replica.status().is_open {
                let sees = node.log.state().committed;
                self.check.reads(id, floor, sees);
            } else if replica.read(now, number, now + Duration::from_secs(2)).is_ok() {
                node.reads.insert(number, floor);
                self.pump_soon(id);
            }
        }
        let after = 500 + self.rng.below(S::READ_US);
        self.schedule(after, NodeId(0), Event::Read);
    }
}

impl<S: Store> World<S> {
    /// From now on nothing fails.
    pub fn calm(&mut self) {
        self.is_calm = true;
        self.cut.clear();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            (node.paused_until, node.slow_until) = (0, 0);
            if node.replica.is_none() {
                self.start(id);
            }
        }
    }

    /// Ends a process. What was not synced is lost, from some point on.
    pub fn crash(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.replica.is_some()) else {
            return;
        };
        self.counts.crashes += 1;
        let log = match node.log.crash(&mut self.rng) {
            Ok(log) => log,
            Err(wrong) => return self.check.fail(format!("node {id}: {wrong}")),
        };
        node.stop();
        node.log = std::sync::Arc::new(log);
        let after = *self.rng.pick(&[1_000, 50_000, 1_500_000]);
        self.schedule(after, id, Event::Restart);
    }

    fn cut_links(&mut self) {
        self.counts.cuts += 1;
        self.cut.clear();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        match self.rng.below(3) {
            0 => {
                let one = *self.rng.pick(&ids);
                self.cut.extend(ids.iter().flat_map(|id| [(one, *id), (*id, one)]));
            }
            1 => {
                let side: Vec<bool> = ids.iter().map(|_| self.rng.chance(1, 2)).collect();
                for (a, is_left) in ids.iter().zip(&side) {
                    for (b, is_other) in ids.iter().zip(&side) {
                        if is_left != is_other {
                            self.cut.insert((*a, *b));
                        }
                    }
                }
            }
            _ => {
                for _ in 0..2 {
                    self.cut.insert((*self.rng.pick(&ids), *self.rng.pick(&ids)));
                }
            }
        }
        let after = *self.rng.pick(&[100_000, 700_000, 3_000_000]);
        self.schedule(after, NodeId(0), Event::Heal);
    }

    pub fn cut_soon(&mut self) {
        self.schedule(1, NodeId(0), Event::Cut);
    }

    pub fn fault_again(&mut self) {
        let after = self.weather.fault_us / 2 + self.rng.below(self.weather.fault_us);
        self.schedule(after, NodeId(0), Event::Fault);
    }

    /// The highest LSN that the model knows to be committed.
    pub fn committed(&self) -> Lsn {
        self.check.committed_last()
    }
}

impl World<ModelLog> {
    /// A calm world of one node, whose log has no members yet.
    pub fn founded(seed: u64) -> World<ModelLog> {
        let mut world = World::new(seed, 0, None);
        world.origin = Base::default();
        world.is_calm = true;
        world.add_node(NodeId(1));
        world
    }
}

/// What a leader would take for committed that counts replicas whatever the term of a record is.
fn counted(id: NodeId, status: &Status) -> Lsn {
    let matched = |voter| {
        let progress = status.progress.iter().find(|(other, _)| *other == voter);
        progress.map_or(Lsn(0), |(_, progress)| progress.matched)
    };
    let own = |voter| if voter == id { status.persisted } else { matched(voter) };
    let mut counts: Vec<Lsn> = status.members.voters().map(own).collect();
    counts.sort_unstable();
    counts.get(counts.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}
