//! Segment files that hold no records yet: zeroed ahead, or recycled.
//!
//! A spare is `spare-<n>.seg`. It is allocated, filled with zeros and synced before it is used, so
//! that a sync of the journal writes data and no file system metadata. Where groups are long, a sync
//! costs much more than the metadata, and zeros would double what the device writes: then the spare
//! is only allocated, and reads as zeros all the same; `spare-<n>.new` is one that
//! is not ready, and is removed by the next recovery. A recycled segment keeps its old bytes: its
//! frames carry another incarnation. `spare-reserve.seg` is kept for a full disk: see `reserve`.

use std::{path::Path, time::Duration};

use crate::{
    disk::{Disk, DiskFile, OpenMode},
    error::{Error, Result},
    ids::Lsn,
    sync::{
        atomic::{AtomicBool, Ordering},
        thread,
    },
};

use super::reserve::ALLOCATE;

/// Zeros are written in pieces of this length, in bytes, when nobody waits for them; a commit's sync
/// waits for few of them, then.
const PACED_LEN: usize = 64 << 10;
/// Pause after each such piece: about 60 MB/s.
const PAUSE: Duration = Duration::from_millis(1);
/// Otherwise of this length.
const ZEROS_LEN: usize = 1 << 20;
/// Highest number of a spare that is taken for one: counting on from there cannot overflow.
const NUMBER_MAX: u64 = 1 << 63;
/// The number of the reserve, which has a name in its place.
pub const RESERVE: u64 = u64::MAX;

/// A file that is ready to become a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    /// Its number, part of its name.
    pub number: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl Spare {
    /// Its file name.
    pub fn name(self) -> String {
        match self.number {
            RESERVE => "spare-reserve.seg".to_owned(),
            number => format!("spare-{number}.seg"),
        }
    }
}

/// A segment that the journal holds.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// LSN of its first record.
    pub first: Lsn,
    /// Length of the file in bytes.
    pub len: u64,
    /// Bytes in use, as far as they are known: the current one grows.
    pub used: u64,
}

/// The files of the journal folder.
#[derive(Debug, Default)]
pub struct Shelf {
    /// Segments, ascending. The last one is the current one, or the newest one before it.
    pub segments: Vec<Live>,
    /// Spares, in no order.
    pub spares: Vec<Spare>,
    /// Number of the next spare.
    pub next_number: u64,
    /// Length of a spare that the background thread is to prepare.
    pub wanted: Option<u64>,
    /// Whether spares are filled with zeros.
    pub is_zeroing: bool,
    /// Length of the spare that it is preparing.
    pub preparing: Option<u64>,
    /// What is kept for a full disk.
    pub reserve: Option<Spare>,
    /// Whether a roll has taken it, and the file has its name still.
    pub is_reserve_rolling: bool,
    /// Whether the background thread is to make it.
    pub is_reserve_wanted: bool,
}

impl Shelf {
    /// Takes the smallest spare of at least `len_min` bytes.
    pub fn take_spare(&mut self, len_min: u64) -> Option<Spare> {
        let (index, _) = (self.spares.iter().enumerate())
            .filter(|(_, spare)| spare.len >= len_min)
            .min_by_key(|(_, spare)| spare.len)?;
        Some(self.spares.swap_remove(index))
    }

    /// Whether a spare of at least `len_min` bytes is there or on its way.
    pub fn has_spare(&self, len_min: u64) -> bool {
        let coming = [self.wanted, self.preparing];
        self.spares
            .iter()
            .map(|spare| Some(spare.len))
            .chain(coming)
            .any(|len| len >= Some(len_min))
    }

    /// Length of the reserve in bytes, 0 for none.
    pub fn reserve_len(&self) -> u64 {
        self.reserve.map_or(0, |reserve| reserve.len)
    }

    /// A number that no other spare has.
    pub fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }
}

/// Notes the spares of the folder and removes those that never became ready.
pub fn adopt_spares(disk: &dyn Disk, dir: &Path, shelf: &mut Shelf) -> Result<()> {
    for name in disk.list(dir).map_err(Error::io("list", dir))? {
        let Some(rest) = name.strip_prefix("spare-") else { continue };
        let path = dir.join(&name);
        let number = rest.strip_suffix(".seg").and_then(|number| match number {
            "reserve" => Some(RESERVE),
            number => number.parse().ok().filter(|&number| number <= NUMBER_MAX),
        });
        let Some(number) = number else {
            if rest.ends_with(".new") {
                disk.remove(&path).map_err(Error::io("remove", path))?;
            }
            continue;
        };
        let file = disk.open(&path, OpenMode::ReadOnly).map_err(Error::io("open", &path))?;
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        if number == RESERVE {
            shelf.reserve = Some(Spare { number, len });
            continue;
        }
        shelf.next_number = shelf.next_number.max(number + 1);
        shelf.spares.push(Spare { number, len });
    }
    Ok(())
}

/// What the one who prepares a spare ahead of need listens to.
#[derive(Debug, Default)]
pub struct Calls {
    /// Give up.
    pub stop: AtomicBool,
    /// Someone waits for it.
    pub hurry: AtomicBool,
}

/// Makes a spare of `len` bytes, synced, zeroed or only allocated. With `calls` it takes its time, and
/// returns `None` when told to stop in between. When it fails, what there is of it is removed: a full disk has other uses for it.
pub fn prepare_spare(
    disk: &dyn Disk,
    dir: &Path,
    spare: Spare,
    is_zeroing: bool,
    calls: Option<&Calls>,
) -> Result<Option<Spare>> {
    let path = dir.join(format!("spare-{}.new", spare.number));
    let file = disk.open(&path, OpenMode::CreateNew).map_err(Error::io("create", &path))?;
    let filled = fill(&*file, &path, spare.len, is_zeroing, calls);
    if !matches!(filled, Ok(true)) {
        drop(file);
        if let Err(error) = disk.remove(&path) {
            tracing::warn!(%error, file = %path.display(), "cannot remove a half-made segment");
        }
        return filled.map(|_| None);
    }
    disk.rename(&path, &dir.join(spare.name())).map_err(Error::io("rename", &path))?;
    Ok(Some(spare))
}

/// Allocates, zeroes and syncs a file. Returns false when told to stop in between.
fn fill(
    file: &dyn DiskFile,
    path: &Path,
    file_len: u64,
    is_zeroing: bool,
    calls: Option<&Calls>,
) -> Result<bool> {
    file.allocate(file_len).map_err(Error::io(ALLOCATE, path))?;
    let zeros = vec![0; ZEROS_LEN];
    let mut offset = if is_zeroing { 0 } else { file_len };
    while offset < file_len {
        if calls.is_some_and(|calls| calls.stop.load(Ordering::Relaxed)) {
            return Ok(false);
        }
        let is_paced = calls.is_some_and(|calls| !calls.hurry.load(Ordering::Relaxed));
        let len_max = if is_paced { PACED_LEN } else { ZEROS_LEN };
        let len = usize::try_from(file_len - offset).unwrap_or(usize::MAX).min(len_max);
        file.write_at(offset, &zeros[..len]).map_err(Error::io("write", path))?;
        if is_paced {
            file.start_writeback(offset, len as u64).map_err(Error::io("write out", path))?;
            thread::sleep(PAUSE);
        }
        offset += len as u64;
    }
    file.sync_data().map_err(Error::io("sync", path))?;
    Ok(true)
}
