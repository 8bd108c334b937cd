//! Giving up segments that a checkpoint has made unnecessary.
//!
//! The newest segment always stays, so that a journal that has had records is never empty. A crash
//! may undo any part of it: segments at or below the checkpoint are needed by nobody, and recovery
//! begins at the newest one that can continue the checkpoint.

use std::io;

use crate::{
    error::{Error, Result},
    ids::Lsn,
    sync::{Planted, atomic::Ordering, is_planted},
};

use super::{
    Shared,
    roll::segment_len_max,
    segment::segment_name,
    spare::{Live, RESERVE, Spare},
};

/// Most spares that are kept, whatever was in use.
const SPARES_MAX: usize = 8;

impl Shared {
    /// See [`Journal::trim`](super::Journal::trim).
    pub fn trim(&self, checkpointed: Lsn) -> Result<()> {
        let _turn = self.trim_turn.lock();
        let next_len = self.writer.lock().next_len;
        self.drop_short_spares(next_len)?;
        let (old, room, needs_reserve) = {
            let mut shelf = self.shelf.lock();
            let spares_max = shelf.segments.len().min(SPARES_MAX);
            let mut count = (shelf.segments.windows(2))
                .take_while(|pair| pair[1].first <= checkpointed.next())
                .count();
            if is_planted(Planted::TrimmedTooFar) && count + 1 < shelf.segments.len() {
                count += 1;
            }
            count = self.pins.lock().give_up_count(&shelf.segments, count.min(self.held(&shelf)));
            let old: Vec<Live> = shelf.segments.drain(..count).collect();
            let needs_reserve =
                self.config.reserve_len > 0 && shelf.reserve.is_none() && !shelf.is_reserve_rolling;
            (old, spares_max.saturating_sub(shelf.spares.len()), needs_reserve)
        };
        if old.is_empty() {
            return self.fill_reserve_in_turn();
        }
        self.forget_terms();
        let (mut spares, mut reserve, mut failed) = (Vec::new(), None, Ok(()));
        for (done, live) in old.iter().enumerate() {
            let use_as = if needs_reserve && reserve.is_none() {
                Some(RESERVE)
            } else if spares.len() < room && self.is_reusable(live, next_len) {
                Some(self.shelf.lock().take_number())
            } else {
                None
            };
            match self.give_up(live, use_as) {
                Ok(Some(spare)) if spare.number == RESERVE => reserve = Some(spare),
                Ok(spare) => spares.extend(spare),
                Err(error) => {
                    self.shelf.lock().segments.splice(..0, old[done..].iter().copied());
                    failed = Err(error);
                    break;
                }
            }
        }
        // What was made of those before a failure is kept all the same.
        failed.and(self.shelve(spares, reserve))?;
        self.fill_reserve_in_turn()
    }

    /// Keeps what segments have become for use again: each only once its old name is gone for good.
    /// Where that is not sure they are removed, which no old name can hurt.
    fn shelve(&self, mut spares: Vec<Spare>, reserve: Option<Spare>) -> Result<()> {
        let (disk, dir) = (&self.config.disk, &self.config.dir);
        if let Err(source) = disk.sync_dir(dir) {
            for spare in spares.into_iter().chain(reserve) {
                if let Err(error) = self.remove_spare(spare) {
                    tracing::warn!(%error, "a spare segment stays until the database is reopened");
                }
            }
            return Err(Error::io("sync", dir)(source));
        }
        let mut shelf = self.shelf.lock();
        if !spares.is_empty() {
            self.is_short.store(false, Ordering::Relaxed);
        }
        shelf.spares.append(&mut spares);
        shelf.reserve = shelf.reserve.take().or(reserve);
        Ok(())
    }

    /// See [`Journal::shrink`](super::Journal::shrink).
    pub fn shrink(&self) -> Result<()> {
        let _turn = self.trim_turn.lock();
        let (spares, reserve) = {
            let mut shelf = self.shelf.lock();
            (std::mem::take(&mut shelf.spares), shelf.reserve.take())
        };
        spares.into_iter().chain(reserve).try_for_each(|spare| self.remove_spare(spare))?;
        let mut writer = self.writer.lock();
        let Some(current) = writer.current.take().filter(|current| current.offset > 0) else {
            return Ok(());
        };
        current.file.set_len(current.offset).map_err(Error::io("shorten", &current.path))?;
        let mut shelf = self.shelf.lock();
        let first = current.header.first_lsn;
        if let Some(live) = shelf.segments.iter_mut().find(|live| live.first == first) {
            (live.len, live.used) = (current.offset, current.offset);
        }
        Ok(())
    }

    /// Spares from when segments were shorter would never be used, and take the place of longer ones.
    fn drop_short_spares(&self, next_len: u64) -> Result<()> {
        let mut short = Vec::new();
        self.shelf.lock().spares.retain(|spare| {
            let is_short = spare.len < next_len;
            short.extend(is_short.then_some(*spare));
            !is_short
        });
        short.into_iter().try_for_each(|spare| self.remove_spare(spare))
    }

    fn is_reusable(&self, live: &Live, next_len: u64) -> bool {
        let len_max = segment_len_max(self.config.segment_size_max);
        (next_len..=len_max).contains(&live.len)
    }

    /// Removes a segment, or makes it a spare of this number.
    fn give_up(&self, live: &Live, number: Option<u64>) -> Result<Option<Spare>> {
        let (disk, dir) = (&self.config.disk, &self.config.dir);
        let path = dir.join(segment_name(live.first));
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let Some(number) = number else {
            return match disk.remove(&path) {
                // A call that failed before has done it all the same.
                Err(error) if is_gone(&error) => Ok(None),
                removed => removed.map(|()| None).map_err(Error::io("remove", path)),
            };
        };
        let spare = Spare { number, len: live.len };
        match disk.rename(&path, &dir.join(spare.name())) {
            Err(error) if is_gone(&error) => Ok(None),
            renamed => renamed.map(|()| Some(spare)).map_err(Error::io("rename", path)),
        }
    }
}
