//! Follows a log and knows, at every place, what is durable and what is pending.
//!
//! Per file there are the *durable* content, the *cache* (what reads show) and the changes that
//! were not synced. A sync makes the cache durable, except for chunks in *limbo*: a sync that
//! failed marks some chunks clean that never reached the disk, and no later sync writes them; only
//! a new write to such a chunk makes it dirty again, as ext4 does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    content::{CHUNK_SIZE, Content, index_of, index_of_byte},
    disk::SimDisk,
    image,
    log::{Base, Event, Log},
    names::{FileId, NameChange, Names, Node, same_dir},
};
use crate::rng::{Rng, mix};

/// A change of a file that was not synced.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { offset: u64, data: Arc<[u8]> },
    SetLen(u64),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FileState {
    pub(crate) durable: Content,
    pub(crate) pending: Vec<Change>,
    cache: Content,
    limbo: BTreeSet<usize>,
}

/// A place in a log, and the durable and pending state there.
#[derive(Clone, Debug)]
pub struct Player<'a> {
    log: &'a Log,
    seed: u64,
    position: usize,
    acknowledged: Option<u64>,
    pub(crate) names: Names,
    pub(crate) pending_names: Vec<NameChange>,
    pub(crate) files: BTreeMap<FileId, FileState>,
}

impl<'a> Player<'a> {
    pub(crate) fn new(log: &'a Log, seed: u64) -> Player<'a> {
        let Base { names, files } = log.base.clone();
        let files = files.into_iter().map(|(id, content)| {
            (id, FileState { cache: content.clone(), durable: content, ..FileState::default() })
        });
        Player {
            log,
            seed,
            position: 0,
            acknowledged: None,
            names,
            pending_names: Vec::new(),
            files: files.collect(),
        }
    }

    /// Entries behind this place.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// The highest mark before this place.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        self.acknowledged
    }

    /// Whether the entry before this place was a mark alone: then a cut here can leave nothing
    /// that a cut before the mark cannot, though more may be asked of it.
    #[must_use]
    pub fn after_mark(&self) -> bool {
        self.position > 0 && matches!(self.log.entries[self.position - 1].event, Event::Mark(_))
    }

    /// Steps over one entry; false at the end.
    pub fn advance(&mut self) -> bool {
        let Some(entry) = self.log.entries.get(self.position) else { return false };
        self.position += 1;
        match &entry.event {
            Event::Write { file, offset, data } => self.file(*file).write(*offset, data),
            Event::SetLen { file, len } => self.file(*file).set_len(*len),
            Event::Sync { file } => self.file(*file).sync(),
            Event::SyncFailed { file } => {
                let mut rng = Rng::new(mix(self.seed, self.position as u64));
                self.file(*file).sync_failed(&mut rng);
            }
            Event::Name(change) => self.pending_names.push(change.clone()),
            Event::SyncDir { dir } => {
                let names = &mut self.names;
                self.pending_names.retain(|change| {
                    let pending = !same_dir(change.dir(), dir);
                    if !pending {
                        names.apply(change);
                    }
                    pending
                });
                self.forget_unreachable();
            }
            Event::Mark(mark) => self.acknowledged = self.acknowledged.max(Some(*mark)),
        }
        true
    }

    /// Steps to `position`.
    ///
    /// # Panics
    /// If it lies behind, or past the end.
    pub fn advance_to(&mut self, position: usize) {
        assert!(self.position <= position, "a player does not go back");
        assert!(position <= self.log.len(), "the log ends before {position}");
        while self.position < position {
            self.advance();
        }
    }

    /// What a power cut at this place may leave; another seed draws another possibility.
    #[must_use]
    pub fn image(&self, seed: u64) -> SimDisk {
        let base = image::draw(self, mix(seed, self.position as u64));
        SimDisk::from_base(base, mix(seed, !(self.position as u64)), self.log.clock_us)
    }

    /// How many decisions the cut at this place has: one for each unsynced sector, name and length.
    /// Where they are few, [`image_of`](Player::image_of) looks at all of their combinations.
    ///
    /// # Panics
    /// If `sector_size` is 0.
    #[must_use]
    pub fn choices(&self, sector_size: u64) -> u32 {
        image::choose(self, sector_size, 0).1
    }

    /// What the cut at this place leaves when bit `i` of `bits` takes decision `i`: 1 for what is
    /// newest, 0 for what is durable. Decisions past the 64th are taken for what is durable.
    ///
    /// # Panics
    /// If `sector_size` is 0.
    #[must_use]
    pub fn image_of(&self, sector_size: u64, bits: u64) -> SimDisk {
        let (base, _) = image::choose(self, sector_size, bits);
        SimDisk::from_base(base, mix(bits, !(self.position as u64)), self.log.clock_us)
    }

    fn file(&mut self, id: FileId) -> &mut FileState {
        self.files.entry(id).or_default()
    }

    /// Drops files that no cut can bring back. (A handle may still write to one: then it starts
    /// anew, and is as unreachable.)
    fn forget_unreachable(&mut self) {
        let mut reachable: BTreeSet<FileId> = self
            .names
            .iter()
            .filter_map(|(_, node)| if let Node::File(id) = node { Some(id) } else { None })
            .collect();
        reachable.extend(self.pending_names.iter().filter_map(|change| match change {
            NameChange::Create { node: Node::File(file), .. }
            | NameChange::Rename { file, .. }
            | NameChange::Remove { file, .. } => Some(*file),
            NameChange::Create { node: Node::Dir, .. }
            | NameChange::RenameDir { .. }
            | NameChange::RemoveDir { .. } => None,
        }));
        self.files.retain(|id, _| reachable.contains(id));
    }
}

impl FileState {
    /// The length after each pending change.
    pub(crate) fn lengths(&self) -> Vec<u64> {
        let mut len = self.durable.len();
        let after = self.pending.iter().map(|change| {
            len = match change {
                Change::Write { offset, data } => len.max(offset + data.len() as u64),
                Change::SetLen(len) => *len,
            };
            len
        });
        after.collect()
    }

    fn write(&mut self, offset: u64, data: &Arc<[u8]>) {
        self.cache.write(offset, data);
        self.pending.push(Change::Write { offset, data: data.clone() });
        if !self.limbo.is_empty() && !data.is_empty() {
            let last = index_of(offset + data.len() as u64 - 1);
            for chunk in index_of(offset)..=last {
                if self.limbo.remove(&chunk) {
                    self.push_cached_chunk(chunk);
                }
            }
        }
    }

    fn set_len(&mut self, len: u64) {
        self.cache.set_len(len);
        self.pending.push(Change::SetLen(len));
        let count = self.cache.chunk_count();
        self.limbo.retain(|&chunk| chunk < count);
    }

    fn sync(&mut self) {
        let mut durable = self.cache.clone();
        for &chunk in &self.limbo {
            durable.put_chunk(chunk, self.durable.chunk(chunk).cloned());
        }
        self.durable = durable;
        self.pending.clear();
    }

    /// Of each dirty chunk the failed sync either wrote it, or dropped it as if it had. What lies
    /// past the durable end can also stay dirty; lengths do.
    fn sync_failed(&mut self, rng: &mut Rng) {
        let dirty = self.dirty_chunks();
        self.pending.clear();
        if self.cache.len() != self.durable.len() {
            self.pending.push(Change::SetLen(self.cache.len()));
        }
        for chunk in dirty {
            let inside = (chunk as u64 + 1) * CHUNK_SIZE as u64 <= self.durable.len();
            if rng.chance(1, 2) {
                self.limbo.insert(chunk);
            } else if inside {
                self.durable.put_chunk(chunk, self.cache.chunk(chunk).cloned());
            } else {
                self.push_cached_chunk(chunk);
            }
        }
    }

    fn dirty_chunks(&self) -> BTreeSet<usize> {
        let mut dirty = BTreeSet::new();
        for change in &self.pending {
            if let Change::Write { offset, data } = change
                && !data.is_empty()
            {
                dirty.extend(index_of(*offset)..=index_of(offset + data.len() as u64 - 1));
            }
        }
        dirty.retain(|chunk| *chunk < self.cache.chunk_count() && !self.limbo.contains(chunk));
        dirty
    }

    fn push_cached_chunk(&mut self, chunk: usize) {
        let offset = chunk as u64 * CHUNK_SIZE as u64;
        let len = index_of_byte(self.cache.len() - offset).min(CHUNK_SIZE);
        let mut data = vec![0; len];
        self.cache.read(offset, &mut data);
        self.pending.push(Change::Write { offset, data: data.into() });
    }
}
