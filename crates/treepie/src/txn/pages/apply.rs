//! Pages as a record of another node makes them: its changes are made in copies, or in place, as those of
//! a transaction are, and what comes of them is compared with the checksums that it carries.

use crate::{
    error::{Error, Result},
    format::{
        bitmap::{self, is_run_place, page_count_max},
        change::PageChange,
        overflow,
        page::{self, PAGE_HEADER_SIZE, PageKind},
        shared::SharedRecord,
    },
    ids::{Lsn, PageId},
    pager::{bitmaps::follow_bitmap, directory::NewVersion},
    sync::{Planted, is_planted},
};

use super::{Body, NewVersions, TxnPages};

impl TxnPages {
    /// Makes the changes of a record, verifies each page that has some, and returns the new versions.
    /// Follow with `sealed`; after an error everything is undone by `finish`.
    ///
    /// # Errors
    /// [`Error::Diverged`] when a page is not what the record says; [`Error::Received`] when the record
    /// breaks a rule; those of changing pages.
    pub(crate) fn apply(&mut self, shared: &SharedRecord) -> Result<NewVersions> {
        let record = shared.open().map_err(|what| Error::Received { what })?;
        if record.page_size() != self.pager.page_size() {
            return Err(shared.damaged("it is of another page size"));
        }
        let lost = usize::from(is_planted(Planted::ChangeLostAtApply));
        for change in record.changes().skip(lost) {
            let change = change.map_err(|what| Error::Received { what })?;
            self.apply_change(&change, shared.lsn()).map_err(|refused| match refused {
                Refused::Rule(what) => shared.damaged(what),
                Refused::Failed(error) => error,
            })?;
        }
        self.verified(shared.lsn())
    }

    fn apply_change(&mut self, change: &PageChange<'_>, lsn: Lsn) -> Result<(), Refused> {
        let page_size = self.pager.page_size();
        match *change {
            PageChange::Free { first, page_count } | PageChange::Run { first, page_count, .. }
                if !is_run_place(first, page_count, page_size) =>
            {
                Err(Refused::Rule("it changes a run where none can be"))
            }
            PageChange::Free { first, page_count } => {
                self.freed.push((first, page_count));
                Ok(())
            }
            PageChange::Run { first, page_count, bytes } => {
                self.apply_run(first, page_count, bytes)
            }
            PageChange::Page { id, .. } if !(2..page_count_max(page_size)).contains(&id.0) => {
                Err(Refused::Rule("it changes a page that it cannot change"))
            }
            PageChange::Page { id, from_zeros, blocks } => {
                if from_zeros {
                    self.add_zeroed(id)?;
                } else if !self.dirty.contains(id) {
                    let Some(body) = self.first_touch_or_supplied(id, lsn)? else { return Ok(()) };
                    self.dirty.insert(id, body, false);
                }
                let dirty = self.dirty.get_mut(id, &self.pager.pool)?;
                let mut page = dirty.expect("it was just put there").edit(&self.pager);
                for (offset, bytes) in blocks.runs() {
                    page.write(offset, bytes);
                }
                Ok(())
            }
        }
    }

    /// As `first_touch`. Of a page that has rotted, and that was had from elsewhere as of a record: with that
    /// record, what came; before it nothing, and the change is left out, for what came has it.
    fn first_touch_or_supplied(&self, id: PageId, lsn: Lsn) -> Result<Option<Body>, Error> {
        let error = match self.first_touch(id) {
            Err(error @ Error::Corrupt { .. }) => error,
            touched => return touched.map(Some),
        };
        match self.pager.damaged.supplied(id) {
            Some((at, bytes)) if at == lsn && bytes.len() == self.pager.page_size() => {
                let mut frame = self.pager.pool.page()?;
                frame.bytes_mut().copy_from_slice(&bytes);
                self.pager.damaged.count_repaired();
                tracing::warn!(page = id.0, lsn = lsn.0, "a damaged page was repaired");
                Ok(Some(Body::Own(frame)))
            }
            // The space map follows each change of its pages.
            Some((at, bytes)) if at > lsn && page::kind(&bytes) != Some(PageKind::Bitmap) => {
                Ok(None)
            }
            _ => Err(error),
        }
    }

    fn add_zeroed(&mut self, id: PageId) -> Result<(), Refused> {
        if self.dirty.contains(id) {
            return Err(Refused::Rule("it makes a page twice"));
        }
        let mut frame = self.pager.pool.page()?;
        frame.bytes_mut().fill(0);
        self.dirty.insert(id, Body::Own(frame), true);
        Ok(())
    }

    fn apply_run(&mut self, first: PageId, page_count: u32, bytes: &[u8]) -> Result<(), Refused> {
        let page_size = self.pager.page_size();
        let value_len = bytes.len().saturating_sub(PAGE_HEADER_SIZE) as u64;
        if page_count != overflow::page_count(value_len, page_size) {
            return Err(Refused::Rule("it has a run of another length"));
        }
        if self.dirty.has_run(first) || self.dirty.contains(first) {
            return Err(Refused::Rule("it makes a run twice"));
        }
        let mut frame = self.pager.pool.run(page_count as usize * page_size)?;
        let (value, padding) = frame.bytes_mut().split_at_mut(bytes.len());
        value.copy_from_slice(bytes);
        padding.fill(0);
        self.dirty.insert_run(first, frame);
        Ok(())
    }

    /// Versions that say that a page is free, of those that were given back and not taken again.
    pub(super) fn freed_versions(&self) -> NewVersions {
        let is_free = |id: &PageId| !self.dirty.contains(*id) && !self.dirty.has_run(*id);
        let mut freed: Vec<PageId> = self.freed.iter().map(|(id, _)| *id).filter(is_free).collect();
        // A page that was given back twice, because it was taken in between, is free once.
        freed.sort_unstable();
        freed.dedup();
        freed.into_iter().map(|id| (id, NewVersion::Free)).collect()
    }

    /// Takes the changed pages out, if each is what its checksum and its LSN say, and brings the space
    /// map up to date.
    fn verified(&mut self, lsn: Lsn) -> Result<NewVersions> {
        let page_size = self.pager.page_size();
        let mut versions = self.freed_versions();
        let mut diverged = None;
        for id in self.dirty.ids() {
            let Some(dirty) = self.dirty.take(id) else { continue };
            if !is_of(dirty.body.bytes(), id, lsn, page_size) {
                diverged.get_or_insert(id);
            }
            versions.push((id, dirty.body.into_version()));
        }
        for (id, frame) in self.dirty.take_runs() {
            if !is_of(frame.bytes(), id, lsn, page_size) {
                diverged.get_or_insert(id);
            }
            versions.push((id, NewVersion::Frame(frame)));
        }
        if diverged.is_none() {
            diverged = self.follow_bitmaps(&versions);
        }
        match diverged {
            Some(page) if !is_planted(Planted::DivergenceUnseen) => {
                self.release(versions);
                Err(Error::Diverged { lsn, page })
            }
            _ => Ok(versions),
        }
    }

    /// Returns a bitmap page that cannot be one.
    fn follow_bitmaps(&mut self, versions: &NewVersions) -> Option<PageId> {
        let page_size = self.pager.page_size();
        for (id, version) in versions {
            let bytes = match version {
                NewVersion::Frame(frame) => frame.bytes(),
                NewVersion::Taken(taken) => taken.bytes(),
                NewVersion::Free => continue,
            };
            let is_bitmap = page::kind(bytes) == Some(PageKind::Bitmap);
            if is_bitmap && !follow_bitmap(&mut self.space, *id, bytes, page_size) {
                return Some(*id);
            }
        }
        None
    }
}

/// Whether a page is whole, and was changed last by the record `lsn`. The inside of a leaf or branch is
/// not looked at: its checksum says that it is what the leader has.
fn is_of(bytes: &[u8], id: PageId, lsn: Lsn, page_size: usize) -> bool {
    let is_whole = match page::verify(bytes, id) {
        Ok(PageKind::Overflow) => overflow::validate(bytes, page_size).is_ok(),
        Ok(PageKind::Bitmap) => bytes.len() == page_size && bitmap::validate(bytes).is_ok(),
        Ok(PageKind::Leaf | PageKind::Branch) => bytes.len() == page_size,
        Err(_) => false,
    };
    is_whole && page::lsn(bytes) == lsn
}

/// Why a change cannot be made.
enum Refused {
    /// The record breaks a rule.
    Rule(&'static str),
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Failed(error)
    }
}
