//! What was done to a disk, as far as it matters for what a power cut leaves: reads are not here.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{
    content::Content,
    disk::SimDisk,
    names::{FileId, NameChange, Names},
    player::Player,
};

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write { file: FileId, offset: u64, data: Arc<[u8]> },
    SetLen { file: FileId, len: u64 },
    Sync { file: FileId },
    SyncFailed { file: FileId },
    Name(NameChange),
    SyncDir { dir: PathBuf },
    Mark(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Number of the call, from 1 on; marks carry that of the call before.
    pub(crate) call: u64,
    pub(crate) event: Event,
}

/// Names and files, all of it durable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    pub(crate) names: Names,
    pub(crate) files: BTreeMap<FileId, Content>,
}

/// The changes of a disk since it was made. A power cut happens before the first entry, or after
/// any; a cut inside a call is one of those, because what is not synced may survive or not.
#[derive(Clone, Debug)]
pub struct Log {
    pub(crate) base: Base,
    pub(crate) entries: Vec<Entry>,
    /// What images count their time from: later than everything on this disk.
    pub(crate) clock_us: u64,
}

impl Log {
    /// Entries, and so the last place of a cut.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of the call that made entry `index`, for reports.
    ///
    /// # Panics
    /// If there is no such entry.
    #[must_use]
    pub fn call_of(&self, index: usize) -> u64 {
        self.entries[index].call
    }

    /// Follows the log from its start. `seed` decides what failed syncs left behind.
    #[must_use]
    pub fn player(&self, seed: u64) -> Player<'_> {
        Player::new(self, seed)
    }

    /// What one power cut after `cut` entries leaves. Many images of many cuts come cheaper from
    /// one [`Player`]: this begins at the start each time.
    ///
    /// # Panics
    /// If the log is shorter.
    #[must_use]
    pub fn image(&self, cut: usize, seed: u64) -> SimDisk {
        let mut player = self.player(seed);
        player.advance_to(cut);
        player.image(seed)
    }
}
