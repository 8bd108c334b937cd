//! A script on a journal: what is done follows from the seed and from what was done before.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use treepie::{
    Error, Result,
    disk::Disk,
    ids::{DatabaseId, Lsn, PageId, Term},
    planted::journal::{
        Compression, HardState, Journal, JournalConfig, JournalPosition, JournalReader, Keep,
        Record, RecordBuilder, RecordKind, RecordMeta, Room, SealedRecord,
    },
};
use treepie_testkit::{Rng, SimDisk, mix};

use crate::model::{Entry, Found, Leaves, Model};

pub const ID: DatabaseId = DatabaseId([7; 16]);
pub const EPOCH: u64 = 2;
const DIR: &str = "/db/journal";

/// One step.
#[derive(Clone, Debug)]
pub enum Op {
    Append { hard_state: Option<HardState>, records: Vec<SealedRecord>, known: u64 },
    Sync,
    MakeReplicated,
    Commit(u64),
    Truncate(u64),
    Trim(u64),
    Reserve(u64),
    Restart,
}

impl Op {
    pub fn leaves(&self) -> Leaves {
        if matches!(self, Op::Truncate(_)) { Leaves::OneOfBoth } else { Leaves::Prefix }
    }
}

/// A journal, its model, and the models after each step.
pub struct Run {
    pub seed: u64,
    pub disk: SimDisk,
    pub journal: Option<Journal>,
    pub model: Model,
    rng: Rng,
}

fn config(seed: u64, disk: &SimDisk) -> JournalConfig {
    let mut rng = Rng::new(mix(seed, 5));
    JournalConfig {
        disk: Arc::new(disk.clone()),
        dir: PathBuf::from(DIR),
        database_id: ID,
        epoch: EPOCH,
        page_size: 4096,
        segment_size_max: *rng.pick(&[16 << 10, 24 << 10, 64 << 10]),
        reserve_len: *rng.pick(&[0, 16 << 10]),
        background: false,
        keep: Keep { retention: *rng.pick(&[0, 40 << 10]), pins_max: 0 },
    }
}

/// Opens the journal behind a checkpoint.
pub fn open(seed: u64, disk: &SimDisk, from: JournalPosition) -> Result<(Journal, Found)> {
    let mut applied = Vec::new();
    let is_fresh = from.lsn == Lsn(0);
    let (journal, recovered) =
        Journal::recover(config(seed, disk), from, is_fresh, &mut |record: &Record<'_>| {
            applied.push(record.chain());
            Ok(())
        })?;
    let mut read = Vec::new();
    let reader = JournalReader::open(Arc::new(disk.clone()), Path::new(DIR))?;
    let mut reader = reader.from(from.lsn.next())?;
    while let Some(stored) = reader.read_next()? {
        read.push((stored.header.lsn().0, stored.header.chain()));
    }
    let known = journal.first_known().0.max(1);
    let terms = (known..=recovered.last.lsn.0).map(|lsn| (lsn, journal.term_of(Lsn(lsn))));
    let terms = if recovered.hard_state.is_some() { terms.collect() } else { Vec::new() };
    Ok((journal, Found { began: from, from: from.lsn.0, applied, read, terms, recovered }))
}

impl Run {
    pub fn begin(seed: u64) -> Run {
        let disk = SimDisk::new(seed);
        disk.create_dir(Path::new("/db")).expect("a folder");
        disk.sync_dir(Path::new("/")).expect("a folder");
        let model = Model::default();
        let (journal, _) = open(seed, &disk, model.position(0)).expect("a new journal");
        disk.mark(0);
        Run { seed, disk, journal: Some(journal), model, rng: Rng::new(mix(seed, 9)) }
    }

    pub fn journal(&self) -> &Journal {
        self.journal.as_ref().expect("it is open")
    }

    /// What comes next.
    pub fn plan(&mut self) -> Op {
        let (low, last) = (self.model.committed.max(self.model.checkpoint), self.model.last());
        let is_replicated = self.model.is_replicated();
        let synced = self.model.synced as u64;
        match self.rng.below(20) {
            0..=5 => self.append(false),
            6 | 7 if is_replicated => self.append(true),
            8 if is_replicated => {
                Op::Append { hard_state: Some(self.next_state()), records: Vec::new(), known: 0 }
            }
            9..=11 => Op::Sync,
            12 | 13 if is_replicated && last > low => {
                Op::Truncate(low + self.rng.below(last - low))
            }
            14 if is_replicated && self.rng.chance(1, 2) => Op::Commit(last),
            14 if is_replicated => Op::Commit(low + self.rng.below(last - low + 1)),
            15 if low.min(synced) > self.model.checkpoint => {
                let (checkpoint, newest) = (self.model.checkpoint, low.min(synced));
                let is_newest = self.rng.chance(1, 2);
                let some = checkpoint + 1 + self.rng.below(newest - checkpoint);
                Op::Trim(if is_newest { newest } else { some })
            }
            16 => Op::Reserve(4096 * (1 + self.rng.below(5))),
            17 if self.rng.chance(1, 3) => Op::Restart,
            18 | 19 if !is_replicated => Op::MakeReplicated,
            _ => self.append(false),
        }
    }

    fn next_state(&mut self) -> HardState {
        let before = self.model.states.last().copied().unwrap_or_default();
        let vote = self.model.states.len() as u64;
        HardState { term: Term(before.term.0 + self.rng.below(2)), vote }
    }

    fn append(&mut self, with_state: bool) -> Op {
        let hard_state = with_state.then(|| self.next_state());
        let newest = hard_state.or(self.model.states.last().copied());
        let term = newest.map_or(Term(0), |state| state.term);
        let known = if newest.is_some() { self.model.committed } else { 0 };
        let mut before = self.model.position(self.model.last());
        let mut records = Vec::new();
        for _ in 0..1 + self.rng.below(3) {
            let len = if self.rng.chance(1, 12) { 30_000 } else { self.rng.index(5000) };
            let record = self.seal(before, term, known, len);
            before = JournalPosition { lsn: record.lsn, chain: record.chain };
            records.push(record);
        }
        Op::Append { hard_state, records, known }
    }

    /// An append of one short record.
    pub fn append_one(&mut self) -> Op {
        let state = self.model.states.last().copied().unwrap_or_default();
        let before = self.model.position(self.model.last());
        let records = vec![self.seal(before, state.term, 0, 100)];
        Op::Append { hard_state: None, records, known: 0 }
    }

    fn seal(&mut self, after: JournalPosition, term: Term, known: u64, len: usize) -> SealedRecord {
        let mut builder = RecordBuilder::default();
        builder.run(PageId(20), 8, &self.rng.bytes(len));
        let meta = RecordMeta {
            kind: RecordKind::Transaction,
            lsn: after.lsn.next(),
            term,
            page_size: 4096,
            time_us: 1,
            known_committed: Lsn(known),
            chain_before: after.chain,
        };
        builder.finish(&meta, Compression::Off)
    }

    /// The model after a step.
    pub fn after(&self, op: &Op) -> Model {
        let mut model = self.model.clone();
        match op {
            Op::Append { hard_state, records, .. } => {
                model.states.extend(hard_state);
                let states = model.states.len();
                model.log.extend(records.iter().map(|record| Entry {
                    term: record.term.0,
                    chain: record.chain,
                    known: known_of(record),
                    states,
                }));
            }
            Op::Sync | Op::Restart => model.sync(),
            Op::MakeReplicated => {
                model.states.push(FIRST_STATE);
                model.committed = model.last();
                model.sync();
            }
            Op::Commit(lsn) => model.committed = *lsn,
            Op::Truncate(after) => {
                model.log.truncate(usize::try_from(*after).expect("small"));
                model.sync();
            }
            Op::Trim(lsn) => {
                model.checkpoint = *lsn;
                // A journal that is not replicated is committed as far as it goes.
                model.committed = model.committed.max(*lsn);
            }
            Op::Reserve(_) => {}
        }
        if !model.is_replicated() {
            model.committed = model.last();
        }
        model
    }

    /// Does it. After an error the model is that of before.
    pub fn perform(&mut self, op: &Op) -> Result<()> {
        let next = self.after(op);
        match op {
            Op::Append { hard_state, records, known } => {
                let records: Vec<&SealedRecord> = records.iter().collect();
                self.journal().append_group(hard_state.as_ref(), &records, Lsn(*known))?;
            }
            Op::Sync => drop(self.journal().sync()?),
            Op::MakeReplicated => self.journal().make_replicated(FIRST_STATE)?,
            Op::Commit(lsn) => self.journal().note_committed(Lsn(*lsn)),
            Op::Truncate(after) => self.journal().truncate(self.model.position(*after))?,
            Op::Trim(lsn) => self.journal().trim(Lsn(*lsn))?,
            Op::Reserve(len) => self.journal().reserve(*len, Room::Common)?,
            Op::Restart => {
                let found = self.restart()?;
                let right = self.model.compare(&next, Leaves::Prefix, &found);
                right.unwrap_or_else(|what| panic!("seed {}, a kill: {what}", self.seed));
                let all = found.last() == self.model.last();
                assert!(all, "seed {}: a kill loses nothing", self.seed);
            }
        }
        self.model = next;
        Ok(())
    }

    /// The process dies, and another opens the journal.
    pub fn restart(&mut self) -> Result<Found> {
        self.disk = self.disk.restart();
        self.journal = None;
        let from = self.model.position(self.model.checkpoint);
        let (journal, found) = open(self.seed, &self.disk, from)?;
        self.journal = Some(journal);
        Ok(found)
    }
}

/// What a journal that becomes replicated begins with.
const FIRST_STATE: HardState = HardState { term: Term(1), vote: 0 };

fn known_of(record: &SealedRecord) -> u64 {
    Record::parse(record.bytes()).expect("it was just sealed").known_committed().0
}

pub fn is_loss(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. } | Error::JournalGap { .. })
}
