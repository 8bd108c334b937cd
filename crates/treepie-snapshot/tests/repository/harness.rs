//! What the tests of a repository share: streams that are only bytes, and a script of what a backup
//! job does over a few days.

use std::{collections::BTreeMap, env, io::Read, io::Write, sync::Arc};

use treepie_snapshot::{
    Lineage,
    ids::{DatabaseId, Lsn},
    repository::{
        Description, Entry, GRACE_US, Kind, Position, Repository, RepositoryError,
        RepositoryWriter, Retention,
    },
    store::{LocalStore, Store},
};
use treepie_testkit::{Rng, SimDisk};

/// Where the repository is on its disk.
pub const PLACE: &str = "/repo";

/// The seeds of a test, or the one that `TREEPIE_SEED` names.
pub fn seeds(first: u64, count: u64) -> Vec<u64> {
    let seed = env::var("TREEPIE_SEED").ok().and_then(|text| text.parse().ok());
    seed.map_or_else(|| (first..first + count).collect(), |seed| vec![seed])
}

/// How to run a test again with one seed.
pub fn rerun(seed: u64, test: &str) -> String {
    format!(
        "seed {seed}; rerun: TREEPIE_SEED={seed} cargo test -p treepie-snapshot --test repository {test}"
    )
}

pub fn store(disk: &SimDisk) -> Arc<dyn Store> {
    Arc::new(LocalStore::on(Arc::new(disk.clone()), PLACE))
}

/// The bytes of a stream follow from its description.
pub fn content(stream: &Description) -> Vec<u8> {
    let seed = stream.last.lsn.0 * 3 + stream.kind as u64;
    let mut rng = Rng::new(seed);
    let len = 100 + rng.index(9000);
    rng.bytes(len)
}

pub fn description(kind: Kind, base: u64, last: u64) -> Description {
    let position = |lsn: u64| Position { lsn: Lsn(lsn), chain: lsn.wrapping_mul(0x9e37_79b9) };
    let time = |lsn: u64| 1_700_000_000_000_000 + lsn * 600_000_000;
    let database_id = DatabaseId([5; 16]);
    Description {
        kind,
        lineage: Lineage { database_id, ..Lineage::default() },
        base: if kind == Kind::Full { Position::default() } else { position(base) },
        last: position(last),
        first_time_us: time(if kind == Kind::Records { base + 1 } else { last }),
        last_time_us: time(last),
        created_us: time(last) + 7,
        page_size: 8192,
        page_count: 10,
        digest: [last as u8; 32],
        compression: "none".to_owned(),
        key_id: None,
        damage_count: 0,
    }
}

/// One step of the script.
#[derive(Clone, Debug)]
pub enum Step {
    Add(Description),
    Prune(usize),
    /// The writer is given up, and another one begins.
    Reopen,
}

/// A script: backups of growing LSNs with a prune now and then.
pub fn script(seed: u64, steps: usize) -> Vec<Step> {
    let mut rng = Rng::new(seed);
    let (mut lsn, mut archived, mut bases) = (1 + rng.below(5), 0, Vec::new());
    let mut script = Vec::new();
    for step in 0..steps {
        match rng.below(8) {
            0..3 if step > 0 && !bases.is_empty() => {
                let base = *rng.pick(&bases);
                if base < lsn {
                    script.push(Step::Add(description(Kind::Increment, base, lsn)));
                    bases.push(lsn);
                }
            }
            3..5 if archived < lsn => {
                script.push(Step::Add(description(Kind::Records, archived, lsn)));
                archived = lsn;
            }
            5 if step > 2 => {
                let last = 1 + rng.index(3);
                script.push(Step::Prune(last));
                // What is based on something must find it: only a new full stream is sure to be there.
                bases.clear();
            }
            6 => script.push(Step::Reopen),
            _ => {
                script.push(Step::Add(description(Kind::Full, 0, lsn)));
                bases.push(lsn);
            }
        }
        lsn += 1 + rng.below(20);
    }
    script
}

/// What must be in the repository, by file, as far as it was acknowledged.
pub type Expected = BTreeMap<String, Vec<u8>>;

/// A writer with what it has been told.
#[derive(Debug)]
pub struct Job {
    pub store: Arc<dyn Store>,
    pub writer: Option<RepositoryWriter>,
    pub expected: Expected,
}

impl Job {
    pub fn begin(store: Arc<dyn Store>) -> Result<Job, RepositoryError> {
        Repository::open_or_create(Arc::clone(&store))?;
        let mut job = Job { store, writer: None, expected: Expected::new() };
        job.reopen()?;
        Ok(job)
    }

    pub fn reopen(&mut self) -> Result<(), RepositoryError> {
        self.writer = None;
        self.writer = Some(Repository::open(Arc::clone(&self.store))?.writer("a test")?);
        Ok(())
    }

    pub fn step(&mut self, step: &Step) -> Result<(), RepositoryError> {
        match step {
            Step::Add(stream) => {
                let writer = self.writer.as_mut().expect("it is open between steps");
                let bytes = content(stream);
                let entry = add(writer, stream, &bytes)?;
                self.expected.insert(entry.file.to_string(), bytes);
                Ok(())
            }
            Step::Prune(last) => self.prune(*last),
            Step::Reopen => self.reopen(),
        }
    }

    fn prune(&mut self, last: usize) -> Result<(), RepositoryError> {
        let repository = Repository::open(Arc::clone(&self.store))?;
        let policy = Retention { last, ..Retention::default() };
        let now = self.store.now_us();
        let plan = repository.prune_plan(&policy, now, GRACE_US)?;
        let going: Vec<String> =
            plan.remove.iter().map(|removal| removal.entry.file.to_string()).collect();
        let pruned = self.writer.as_mut().expect("it is open between steps").prune(&plan);
        if pruned.is_ok() {
            self.expected.retain(|file, _| !going.contains(file));
        }
        pruned.map(|_| ())
    }
}

pub fn add(
    writer: &mut RepositoryWriter,
    stream: &Description,
    bytes: &[u8],
) -> Result<Entry, RepositoryError> {
    let mut new = writer.create(stream.kind, stream.base.lsn, stream.last.lsn)?;
    for piece in bytes.chunks(4000) {
        if let Err(source) = new.write_all(piece) {
            let (name, place) = (new.file().to_string(), writer.store().place());
            new.abort();
            let error =
                treepie_snapshot::store::StoreError::Io { action: "write", name, place, source };
            return Err(error.into());
        }
    }
    writer.add(new, stream.clone())
}

/// Compares a repository with what must be in it, and may be. Every entry has its file, whole.
pub fn verify(repository: &Repository, must: &Expected, may: &Expected) -> Result<(), String> {
    let fail = |what: String| Err(what);
    if let Some((file, what)) = repository.damage() {
        return fail(format!("{file} is damaged: {what}"));
    }
    let report = repository.files().map_err(|error| error.to_string())?;
    if !report.is_sound() {
        return fail(format!("{report:?}"));
    }
    let mut found = BTreeMap::new();
    for entry in &repository.manifest().entries {
        let mut bytes = Vec::new();
        let mut stream = repository.open_stream(entry, 0).map_err(|error| error.to_string())?;
        stream.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes != content(&entry.stream) {
            return fail(format!("{} has other bytes", entry.file));
        }
        found.insert(entry.file.to_string(), bytes);
    }
    for file in must.keys() {
        if !found.contains_key(file) {
            return fail(format!("{file} was acknowledged, and is gone"));
        }
    }
    for file in found.keys() {
        if !must.contains_key(file) && !may.contains_key(file) {
            return fail(format!("{file} has come from nowhere"));
        }
    }
    Ok(())
}

/// What is left of a crash goes with the next prune, once it is old enough; nothing else does.
pub fn sweep(store: &Arc<dyn Store>) -> Result<u64, String> {
    let text = |error: RepositoryError| error.to_string();
    let repository = Repository::open(Arc::clone(store)).map_err(text)?;
    let policy =
        Retention { last: usize::MAX, records_for_us: Some(u64::MAX), ..Retention::default() };
    let young = repository.prune_plan(&policy, store.now_us(), GRACE_US).map_err(text)?;
    if !young.remove.is_empty() {
        return Err(format!("keeping everything removes {:?}", young.remove));
    }
    let later = store.now_us() + 2 * GRACE_US;
    let plan = repository.prune_plan(&policy, later, GRACE_US).map_err(text)?;
    let mut writer = repository.writer("sweep").map_err(text)?;
    let pruned = writer.prune(&plan).map_err(text)?;
    if !pruned.failed.is_empty() {
        return Err(format!("{:?}", pruned.failed));
    }
    let left = repository.files().map_err(text)?.orphans;
    if left.is_empty() { Ok(pruned.files) } else { Err(format!("{left:?} stays")) }
}
