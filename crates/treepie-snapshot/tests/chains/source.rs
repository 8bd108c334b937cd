//! A database with its model, that is written to while it is backed up.

use std::{
    cell::RefCell,
    io::{self, Write},
    sync::Arc,
};

use treepie::{Database, Options, WriteTxn, ids::Lsn};
use treepie_testkit::{
    Rng, SimDisk, mix,
    model::{Model, State},
    workload::{Op, Shape, Step, generate},
};

/// Folder of the database.
pub const DIR: &str = "/db";

/// A database, what it must hold at each LSN, and what is still to be done with it.
pub struct Source {
    pub disk: SimDisk,
    pub rng: Rng,
    model: RefCell<Model>,
    db: RefCell<Option<Database>>,
    steps: RefCell<Vec<Step>>,
    page_size: usize,
}

/// Small everything, nothing in the background.
pub fn options(disk: &SimDisk) -> Options {
    Options::new()
        .versions_memory(1 << 20)
        .scratch_memory(64 << 20)
        .map_size(4 << 20)
        .readers_max(16)
        .journal_segment_size(16 << 10)
        .checkpoint_distance(64 << 10)
        .journal_max(4 << 20)
        .background_threads(false)
        .disk(Arc::new(disk.clone()))
}

fn apply(tx: &mut WriteTxn<'_>, ops: &[Op]) -> treepie::Result<()> {
    for op in ops {
        match op {
            Op::CreateTree { tree } => {
                tx.tree(tree)?;
            }
            Op::DropTree { tree } => {
                tx.drop_tree(tree)?;
            }
            Op::Clear { tree } => tx.tree(tree)?.clear()?,
            Op::Insert { tree, key, value } => {
                tx.tree(tree)?.insert(key, value)?;
            }
            Op::Remove { tree, key } => {
                tx.tree(tree)?.remove(key)?;
            }
        }
    }
    Ok(())
}

impl Source {
    pub fn new(seed: u64) -> Source {
        let disk = SimDisk::new(seed);
        let mut rng = Rng::new(mix(seed, 0x6368_6169_6e73));
        let page_size = *rng.pick(&[4096, 8192]);
        let shape = Shape {
            steps: 60 + rng.index(60),
            page_size,
            keys: *rng.pick(&[40, 200, 800]),
            ops_max: *rng.pick(&[3, 12, 40]),
            reopen_every: *rng.pick(&[0, 25]),
            ..Shape::default()
        };
        let mut steps = generate(seed, &shape);
        steps.reverse();
        let mut model = Model::new();
        model.commit(1, &[]);
        let source = Source {
            disk,
            rng,
            model: RefCell::new(model),
            db: RefCell::new(None),
            steps: RefCell::new(steps),
            page_size,
        };
        source.open();
        source
    }

    fn open(&self) {
        let options = options(&self.disk).create(true).page_size(self.page_size);
        // What an archive or a stream of records is made of stays there.
        let db = options.journal_retention(64 << 20).open(DIR).expect("it opens");
        *self.db.borrow_mut() = Some(db);
    }

    pub fn db(&self) -> Database {
        self.db.borrow().clone().expect("it is open")
    }

    pub fn lsn(&self) -> Lsn {
        self.db().durable_lsn()
    }

    /// The next step of the workload; false at its end. `may_reopen` is not, while somebody has a handle.
    pub fn step(&self, may_reopen: bool) -> bool {
        let Some(step) = self.steps.borrow_mut().pop() else { return false };
        match step {
            Step::Write(ops) => self.write(&ops),
            Step::Abort(ops) => {
                let undone = self.db().write(|tx| {
                    apply(tx, &ops)?;
                    Err::<(), _>(treepie::Error::rejected("on purpose"))
                });
                assert!(undone.is_err());
            }
            Step::Reopen if may_reopen => {
                self.db.borrow_mut().take().expect("it is open").close().expect("it closes");
                self.open();
            }
            Step::Checkpoint | Step::Reopen => drop(self.db().checkpoint().expect("a checkpoint")),
        }
        true
    }

    fn write(&self, ops: &[Op]) {
        let before = self.lsn();
        let receipt = self.db().write(|tx| apply(tx, ops)).expect("a commit");
        if receipt.lsn > before {
            self.model.borrow_mut().commit(receipt.lsn.0, ops);
        }
    }

    pub fn steps(&self, count: usize) {
        for _ in 0..count {
            self.step(true);
        }
    }

    /// Compares an open database with the model at its LSN.
    pub fn verify(&self, db: &Database) -> Result<Lsn, String> {
        let snapshot = db.read().map_err(|error| error.to_string())?;
        let lsn = snapshot.lsn();
        let model = self.model.borrow();
        let state = model.at(lsn.0).ok_or_else(|| format!("the model has no LSN {lsn}"))?;
        let mut found = State::default();
        for info in snapshot.trees().map_err(|error| error.to_string())? {
            if info.name.starts_with(b"$") {
                continue;
            }
            let name = String::from_utf8(info.name.clone()).map_err(|error| error.to_string())?;
            found.apply(&Op::CreateTree { tree: name.clone() });
            let tree = snapshot.tree(&info.name).map_err(|error| error.to_string())?;
            for entry in tree.iter() {
                let (key, value) = entry.map_err(|error| error.to_string())?;
                let (tree, key, value) = (name.clone(), key.to_vec(), value.into());
                found.apply(&Op::Insert { tree, key, value });
            }
        }
        found.difference(state).or_else(|| state.difference(&found)).map_or(Ok(lsn), Err)
    }
}

/// A stream in memory; while it is written, the database goes on.
pub struct Beside<'a> {
    source: &'a Source,
    bytes: Vec<u8>,
    /// Bytes between two steps.
    pace: usize,
    next: usize,
}

impl<'a> Beside<'a> {
    pub fn new(source: &'a Source, pace: usize) -> Beside<'a> {
        Beside { source, bytes: Vec::new(), pace, next: 0 }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Write for Beside<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(4096);
        self.bytes.extend_from_slice(&bytes[..len]);
        if self.bytes.len() >= self.next {
            self.next = self.bytes.len() + self.pace;
            self.source.step(false);
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
