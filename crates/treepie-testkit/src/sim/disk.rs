//! The simulated disk: folders, names, locks, faults, the clock, and the log of it all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use treepie::disk::{Disk, DiskFile, DiskLock, LockError, OpenMode, ScratchMap};

use super::{
    content::Content,
    fault::{Call, Failure, Fault, PlantedBug, result_of},
    file::{FileState, SimFile, SimLock, SimScratch, SimScratchFile},
    log::{Base, Entry, Event, Log},
    names::{FileId, NameChange, Names, Node, parent},
};
use crate::rng::{Rng, hash_bytes, mix};

/// The first time that a disk shows, in microseconds: in November 2023.
const CLOCK_START_US: u64 = 1_700_000_000_000_000;
/// What each look at the clock adds.
const CLOCK_STEP_US: u64 = 1_000;
/// The process id of whoever holds a simulated lock.
const OWNER: u32 = 4242;

/// A disk in memory that forgets what was not synced. Clones are the same disk.
///
/// One handle is one life of the process: [`SimDisk::restart`] ends it, and whatever the dead
/// process still holds (this handle, files, locks) fails from then on and changes nothing.
#[derive(Clone)]
pub struct SimDisk {
    pub(super) state: Arc<Mutex<State>>,
    life: u64,
}

pub(crate) struct State {
    pub(super) names: Names,
    pub(crate) files: BTreeMap<FileId, FileState>,
    next_file: FileId,
    pub(super) log: Log,
    calls: BTreeMap<u8, u64>,
    call_count: u64,
    trace: u64,
    faults: Vec<Fault>,
    failed: Vec<(Call, PathBuf)>,
    planted: Vec<PlantedBug>,
    locks: BTreeSet<PathBuf>,
    life: u64,
    clock_us: u64,
    rng: Rng,
    capacity: Option<u64>,
    yields_max: u64,
}

impl SimDisk {
    /// An empty disk with a root folder (`/`, also the empty path). `seed` gives its random bytes.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from_base(Base::default(), seed, CLOCK_START_US)
    }

    pub(crate) fn from_base(base: Base, seed: u64, clock_us: u64) -> SimDisk {
        let mut files = BTreeMap::new();
        for (path, node) in base.names.iter() {
            if let Node::File(id) = node {
                let content = base.files[&id].clone();
                files.insert(id, FileState { content, path: path.clone(), maps: Vec::new() });
            }
        }
        let state = State {
            names: base.names.clone(),
            next_file: files.keys().next_back().map_or(0, |last| last + 1),
            files,
            log: Log { base, entries: Vec::new(), clock_us },
            calls: BTreeMap::new(),
            call_count: 0,
            trace: 0,
            faults: Vec::new(),
            failed: Vec::new(),
            planted: Vec::new(),
            locks: BTreeSet::new(),
            life: 0,
            clock_us,
            rng: Rng::new(seed),
            capacity: None,
            yields_max: 0,
        };
        SimDisk { state: Arc::new(Mutex::new(state)), life: 0 }
    }

    /// Puts a mark into the log; a harness reads it back as [`Player::acknowledged`].
    ///
    /// [`Player::acknowledged`]: crate::Player::acknowledged
    pub fn mark(&self, mark: u64) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.push(Event::Mark(mark));
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn log(&self) -> Log {
        let state = self.state.lock();
        Log { clock_us: state.clock_us, ..state.log.clone() }
    }

    /// Plants a failing call.
    pub fn fail(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.state.lock().faults.clear();
    }

    /// The calls that a planted fault made fail, in their order.
    #[must_use]
    pub fn failed_calls(&self) -> Vec<(Call, PathBuf)> {
        self.state.lock().failed.clone()
    }

    /// Plants a bug.
    pub fn plant(&self, bug: PlantedBug) {
        self.state.lock().planted.push(bug);
    }

    /// Bounds the bytes of all files together: what would pass it fails with ENOSPC.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Lets writes and syncs return late: they take effect at once, and then give way to other
    /// threads, up to so many times. What these do meanwhile no returning sync has covered.
    pub fn set_yields(&self, max: u64) {
        self.state.lock().yields_max = max;
    }

    /// Calls made so far, marks and looks at the clock not counted.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state.lock().call_count
    }

    /// Calls of one kind made so far.
    #[must_use]
    pub fn calls_of(&self, call: Call) -> u64 {
        self.state.lock().calls.get(&(call as u8)).copied().unwrap_or(0)
    }

    /// A hash of every call with its arguments: the same seed must give the same one.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.state.lock().trace
    }

    /// A hash of all names and bytes as they are read now.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let state = self.state.lock();
        state.names.iter().fold(0, |hash, (path, node)| {
            let content = match node {
                Node::Dir => 1,
                Node::File(id) => state.files[&id].content.hash(),
            };
            mix(hash, mix(hash_bytes(path.as_os_str().as_encoded_bytes()), content))
        })
    }

    /// The process dies and another begins on the same page cache: locks are free, faults stay,
    /// nothing is lost. The old handles are dead.
    #[must_use]
    pub fn restart(&self) -> SimDisk {
        let mut state = self.state.lock();
        state.life += 1;
        state.locks.clear();
        SimDisk { state: self.state.clone(), life: state.life }
    }

    /// Paths of all files.
    #[must_use]
    pub fn file_paths(&self) -> Vec<PathBuf> {
        let state = self.state.lock();
        let files = state.names.iter().filter(|(_, node)| *node != Node::Dir);
        files.map(|(path, _)| path.clone()).collect()
    }

    /// The bytes of a file as they are read now.
    #[must_use]
    pub fn file_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        match state.names.get(path)? {
            Node::Dir => None,
            Node::File(id) => Some(state.files[&id].content.to_vec()),
        }
    }

    /// Everything as if synced, as the start of a new disk with an empty log.
    #[must_use]
    pub fn settled(&self, seed: u64) -> SimDisk {
        let state = self.state.lock();
        let mut base = Base { names: state.names.clone(), ..Base::default() };
        for (_, node) in state.names.iter() {
            if let Node::File(id) = node {
                base.files.insert(id, state.files[&id].content.clone());
            }
        }
        SimDisk::from_base(base, seed, state.clock_us)
    }

    /// Begins a call: counts it, and tells whether it is to fail.
    pub(crate) fn enter(
        &self,
        call: Call,
        path: &Path,
        detail: u64,
    ) -> io::Result<(MutexGuard<'_, State>, Option<Failure>)> {
        let mut state = self.state.lock();
        if state.life != self.life {
            return Err(io::Error::other("this process of the simulation is dead"));
        }
        state.call_count += 1;
        *state.calls.entry(call as u8).or_default() += 1;
        let name = hash_bytes(path.as_os_str().as_encoded_bytes());
        state.trace = mix(state.trace, mix(name ^ call as u64, detail));
        let mut failure = None;
        for fault in &mut state.faults {
            failure = fault.strike(call, path).or(failure);
        }
        if failure.is_some() {
            state.failed.push((call, path.to_owned()));
        }
        Ok((state, failure))
    }

    /// As `enter`, for calls that only ask.
    fn call(&self, call: Call, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        match self.enter(call, path, 0)? {
            (_, Some(failure)) => Err(failure.error.to_error()),
            (state, None) => Ok(state),
        }
    }

    /// As `enter`, for calls that do nothing when they fail, or all: then they end with `result_of`.
    fn change(
        &self,
        call: Call,
        path: &Path,
    ) -> io::Result<(MutexGuard<'_, State>, Option<Failure>)> {
        match self.enter(call, path, 0)? {
            (_, Some(failure)) if !failure.has_effect => Err(failure.error.to_error()),
            entered => Ok(entered),
        }
    }

    pub(crate) fn path_of(&self, id: FileId) -> PathBuf {
        self.state.lock().files[&id].path.clone()
    }

    pub(crate) fn unlock(&self, path: &Path) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.locks.remove(path);
        }
    }
}

impl State {
    pub(crate) fn push(&mut self, event: Event) {
        let call = self.call_count;
        self.log.entries.push(Entry { call, event });
    }

    pub(crate) fn skips(&self, call: Call, path: &Path) -> bool {
        self.planted.iter().any(|bug| bug.skips(call, path))
    }

    /// How long a file may become that wants `len` bytes: less than that on a full disk.
    pub(crate) fn room(&self, id: FileId, len: u64) -> u64 {
        let own = self.files[&id].content.len();
        let Some(capacity) = self.capacity.filter(|_| len > own) else { return len };
        let named = self.names.iter().filter_map(|(_, node)| match node {
            Node::Dir => None,
            Node::File(id) => Some(self.files[&id].content.len()),
        });
        len.min(own.saturating_add(capacity.saturating_sub(named.sum())))
    }

    pub(crate) fn hides_failure(&self, path: &Path) -> bool {
        self.planted.iter().any(|bug| bug.hides_failure(path))
    }

    /// How often a call that took effect just now gives way before it returns.
    pub(crate) fn yields(&self) -> u64 {
        if self.yields_max == 0 { 0 } else { mix(self.trace, self.call_count) % self.yields_max }
    }

    fn change_names(&mut self, change: NameChange) {
        self.names.apply(&change);
        self.push(Event::Name(change));
    }

    fn file_named(&self, path: &Path) -> io::Result<FileId> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename_dir(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if parent(from) != parent(to) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "rename across folders"));
        }
        if self.names.get(to).is_some() && !self.names.is_dir(to) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if from == to {
            return Ok(());
        }
        if !self.names.is_empty_dir(to) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        for (path, node) in self.names.iter() {
            if let (Ok(inner), Node::File(id)) = (path.strip_prefix(from), node) {
                self.files.get_mut(&id).expect("it has a name").path = to.join(inner);
            }
        }
        self.change_names(NameChange::RenameDir { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        if self.names.is_dir(parent(path)) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn create_file(&mut self, path: &Path) -> io::Result<FileId> {
        self.check_parent(path)?;
        if self.names.get(path).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.next_file;
        self.next_file += 1;
        let file =
            FileState { content: Content::default(), path: path.to_owned(), maps: Vec::new() };
        self.files.insert(id, file);
        self.change_names(NameChange::Create { path: path.to_owned(), node: Node::File(id) });
        Ok(id)
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, late) = self.change(Call::CreateDir, path)?;
        state.check_parent(path)?;
        match state.names.get(path) {
            Some(Node::Dir) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                let path = path.to_owned();
                state.change_names(NameChange::Create { path, node: Node::Dir });
            }
        }
        result_of(late)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let id = if mode == OpenMode::CreateNew {
            let (mut state, late) = self.change(Call::Create, path)?;
            let id = state.create_file(path)?;
            result_of(late).map(|()| id)?
        } else {
            self.call(Call::Open, path)?.file_named(path)?
        };
        Ok(Arc::new(SimFile::new(self.clone(), id, mode != OpenMode::ReadOnly)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut state, late) = self.change(Call::Rename, from)?;
        if state.names.is_dir(from) {
            state.rename_dir(from, to)?;
            return result_of(late);
        }
        let file = state.file_named(from)?;
        if parent(from) != parent(to) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "rename across folders"));
        }
        if from == to {
            return result_of(late);
        }
        if state.names.is_dir(to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        state.change_names(NameChange::Rename { file, to: to.to_owned() });
        state.files.get_mut(&file).expect("it has a name").path = to.to_owned();
        result_of(late)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut state, late) = self.change(Call::Remove, path)?;
        let file = state.file_named(path)?;
        state.change_names(NameChange::Remove { file, path: path.to_owned() });
        result_of(late)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (mut state, late) = self.change(Call::Remove, path)?;
        if !state.names.is_dir(path) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if !state.names.is_empty_dir(path) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.change_names(NameChange::RemoveDir { path: path.to_owned() });
        result_of(late)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.call(Call::Exists, path)?.names.get(path).is_some())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.call(Call::List, dir)?;
        if !state.names.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let files = state
            .names
            .iter()
            .filter(|(path, node)| *node != Node::Dir && super::names::same_dir(parent(path), dir));
        let names = files.filter_map(|(path, _)| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut state, late) = self.change(Call::SyncDir, dir)?;
        if !state.names.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !state.skips(Call::SyncDir, dir) {
            state.push(Event::SyncDir { dir: dir.to_owned() });
        }
        result_of(late)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn DiskLock>, LockError> {
        let mut state = self.call(Call::Lock, path).map_err(LockError::Io)?;
        if state.names.get(path).is_none() {
            state.create_file(path).map_err(LockError::Io)?;
        }
        if !state.locks.insert(path.to_owned()) {
            return Err(LockError::Held(Some(OWNER)));
        }
        Ok(Box::new(SimLock::new(self.clone(), path.to_owned())))
    }

    fn scratch(&self, dir: &Path, len: usize) -> io::Result<Box<dyn ScratchMap>> {
        let state = self.call(Call::Scratch, dir)?;
        if !state.names.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(SimScratch::new(len)))
    }

    fn scratch_file(&self, dir: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.call(Call::Scratch, dir)?;
        if !state.names.is_dir(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        drop(state);
        Ok(Arc::new(SimScratchFile::new(self.clone(), dir.join("scratch"))))
    }

    fn now_us(&self) -> u64 {
        let mut state = self.state.lock();
        state.clock_us += CLOCK_STEP_US;
        state.clock_us
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        self.call(Call::Random, Path::new(""))?.rng.fill(&mut bytes);
        Ok(bytes)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SimDisk");
        debug.field("life", &self.life).field("calls", &self.calls()).finish_non_exhaustive()
    }
}
