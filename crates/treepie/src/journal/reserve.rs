//! The reserve: a file allocated ahead that becomes a segment only where the disk is full, and only
//! for records that take things away.
//!
//! A removal needs room before it gives any: its record goes to the journal first. So a disk that is
//! full to the last block could not be emptied through the database. The reserve is that room. It is
//! `spare-reserve.seg`, allocated and not zeroed, and is made
//!
//! - of a segment that a checkpoint has made unnecessary: that needs no room at all;
//! - or anew, after a roll to another segment, as soon as there is room.
//!
//! While there is none the journal goes on without. Closing removes it with the other spares.

use crate::{
    disk::OpenMode,
    error::{Error, Result},
    format::segment::JOURNAL_BLOCK_SIZE,
    sync::{Planted, atomic::Ordering, is_planted},
};

use super::{
    Shared,
    roll::{LEN_MIN, segment_len_max},
    spare::{RESERVE, Spare, prepare_spare},
};

/// What a record may be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Segments for everyone.
    Common,
    /// Those, and the reserve where the disk has no room for another one.
    Reserve,
}

impl Room {
    /// Whether the reserve may be used, but for planted bugs.
    pub fn has_reserve(self) -> bool {
        self == Room::Reserve || is_planted(Planted::ReserveForAll)
    }
}

/// Length of the reserve for the option's value, in bytes: whole blocks, one segment at most; 0 for
/// none.
pub fn reserve_len(option: u64, segment_size_max: u64) -> u64 {
    let block = JOURNAL_BLOCK_SIZE as u64;
    let len = (option / block * block).min(segment_len_max(segment_size_max));
    if len < LEN_MIN { 0 } else { len }
}

/// Whether blocks could not be allocated because there are none, or no more for this user or file.
pub fn is_full(error: &Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let Error::Io { action: ALLOCATE, source, .. } = error else { return false };
    matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// What an error says when the blocks of a file cannot be had.
pub const ALLOCATE: &str = "allocate";

impl Shared {
    /// Has the reserve made if it is missing or too short: by the thread that prepares spares, or here.
    /// Called without locks.
    pub fn keep_reserve(&self) -> Result<()> {
        if !self.config.background {
            return self.fill_reserve();
        }
        let mut shelf = self.shelf.lock();
        if shelf.reserve_len() != self.config.reserve_len {
            shelf.is_reserve_wanted = true;
            self.shelf_changed.notify_all();
        }
        Ok(())
    }

    /// Makes the reserve, or makes it as long as it should be, where there is room.
    pub fn fill_reserve(&self) -> Result<()> {
        let _turn = self.trim_turn.lock();
        self.fill_reserve_in_turn()
    }

    /// The same for who has the turn of trims.
    pub fn fill_reserve_in_turn(&self) -> Result<()> {
        let wanted = self.config.reserve_len;
        if self.shelf.lock().reserve_len() != wanted {
            self.change_reserve(wanted)?;
        }
        // Where it was used up, and is there again, what is left of the segment is for everyone.
        let mut writer = self.writer.lock();
        if let Some(current) = writer.current.as_mut().filter(|current| current.is_reserve) {
            current.is_reserve = self.shelf.lock().reserve_len() < wanted;
        }
        Ok(())
    }

    fn change_reserve(&self, wanted: u64) -> Result<()> {
        // Nobody rolls to it while it changes, and it does not change while somebody does.
        let before = {
            let mut shelf = self.shelf.lock();
            if shelf.is_reserve_rolling {
                return Ok(());
            }
            shelf.reserve.take()
        };
        let (now, result) = match before {
            Some(reserve) if wanted == 0 => (None, self.remove_spare(reserve)),
            Some(reserve) => self.resize(reserve, wanted),
            None => match self.make_reserve(wanted) {
                Ok(reserve) => (Some(reserve), Ok(())),
                Err(error) => (None, Err(error)),
            },
        };
        self.shelf.lock().reserve = now;
        match result {
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "the journal goes without its reserve");
                Ok(())
            }
            result => result,
        }
    }

    /// A spare is made first: a half-made one never has the name.
    fn make_reserve(&self, len: u64) -> Result<Spare> {
        let (disk, dir) = (&*self.config.disk, &self.config.dir);
        let spare = Spare { number: self.shelf.lock().take_number(), len };
        let spare = prepare_spare(disk, dir, spare, false, None)?.expect("nothing stops it");
        let reserve = Spare { number: RESERVE, len };
        let path = dir.join(spare.name());
        disk.rename(&path, &dir.join(reserve.name())).map_err(Error::io("rename", path))?;
        disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
        Ok(reserve)
    }

    /// Makes a reserve longer or shorter; returns also what there is of it afterwards.
    fn resize(&self, reserve: Spare, wanted: u64) -> (Option<Spare>, Result<()>) {
        let path = self.config.dir.join(reserve.name());
        let file = match self.config.disk.open(&path, OpenMode::ReadWrite) {
            Ok(file) => file,
            Err(source) => return (Some(reserve), Err(Error::io("open", path)(source))),
        };
        let resized = if reserve.len > wanted {
            file.set_len(wanted).map_err(Error::io("shorten", &path))
        } else {
            file.allocate(wanted).map_err(Error::io(ALLOCATE, &path))
        };
        let result = resized.and_then(|()| file.sync_data().map_err(Error::io("sync", &path)));
        match result {
            Ok(()) => (Some(Spare { len: wanted, ..reserve }), Ok(())),
            // How far it came; at worst it counts for less than it is.
            Err(error) => {
                let len = file.len().map_or(0, |len| len.min(reserve.len));
                (Some(Spare { len, ..reserve }), Err(error))
            }
        }
    }

    pub(super) fn remove_spare(&self, spare: Spare) -> Result<()> {
        let path = self.config.dir.join(spare.name());
        self.config.disk.remove(&path).map_err(Error::io("remove", path))
    }

    /// Finds room for a segment of at least `needed` bytes on a disk that has none for one of
    /// `len_min`: a shorter one, or the reserve. `error` is what the disk said.
    pub fn find_room(
        &self,
        (needed, len_min): (u64, u64),
        is_zeroing: bool,
        room: Room,
        error: Error,
    ) -> Result<Spare> {
        let block = JOURNAL_BLOCK_SIZE as u64;
        let floor = needed.max(SHORT_LEN.min(len_min));
        let mut len = len_min / 2 / block * block;
        while len >= floor {
            match self.take_or_make_spare(len, is_zeroing) {
                Err(error) if is_full(&error) => len = len / 2 / block * block,
                made => return made,
            }
        }
        self.is_short.store(true, Ordering::Relaxed);
        let mut shelf = self.shelf.lock();
        match shelf.reserve.take_if(|reserve| room.has_reserve() && reserve.len >= needed) {
            Some(reserve) => {
                tracing::warn!(%error, "the journal takes its reserve: the disk is full");
                shelf.is_reserve_rolling = true;
                Ok(reserve)
            }
            None => Err(error),
        }
    }
}

/// Segments are not made shorter than this for want of room, in bytes, unless they are short anyway.
const SHORT_LEN: u64 = 64 << 10;
