//! Pages that have rotted, exchanged with other nodes: whole pages are read out here, and written there.
//!
//! A page of another node is that of this one as of the same LSN. It is written into the data file only
//! where its state is no older than that in which the damage was seen, and no newer than what is visible
//! here, and the page is still the damaged one of the file: then nothing has changed it in between, for a
//! change would have had to read it, or would have written it anew. Where the page was changed by a record
//! that is still to be applied, its bytes wait for that record ([`RepairOutcome::Waits`]).

use crate::{
    error::{Error, Result},
    format::{
        bitmap::{bit_position, bitmap_page, is_fixed, pages_per_group},
        overflow,
        page::{self, PageKind},
    },
    ids::{Lsn, PageId},
    pager::{
        directory::Found,
        store::{Pager, verify_bytes},
    },
    txn::core::Core,
};

use super::Database;

/// A page, or a run of pages with one large value, as of an LSN.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WholePage {
    /// Its number; of a run, that of the first page.
    pub page: PageId,
    /// The state that it is of.
    pub as_of: Lsn,
    /// All bytes.
    pub bytes: Vec<u8>,
}

impl WholePage {
    /// A page that came from elsewhere; it is verified when it is used.
    #[must_use]
    pub fn received(page: PageId, as_of: Lsn, bytes: Vec<u8>) -> WholePage {
        WholePage { page, as_of, bytes }
    }
}

/// A page that did not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedPage {
    /// Its number.
    pub page: PageId,
    /// What was visible when that was seen.
    pub noted_at: Lsn,
}

/// What became of a page that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairOutcome {
    /// It is in the data file, durably.
    Written,
    /// Records that are still to be applied have changed it: with the last of these it is right.
    Waits,
    /// Its state is not reached here yet: it may be tried again when that is applied.
    Early,
    /// Its state is older than that in which the damage was seen: a newer one is needed.
    Late,
    /// The page is not damaged any more, or not in use.
    NotNeeded,
}

impl Database {
    /// The pages of the data file that did not verify when they were read, the first 1,024 of them, and for
    /// which nothing has come yet. They are noted by reads, by [`check`](Database::check), and by
    /// [`verify_page`](Database::verify_page).
    #[must_use]
    pub fn damaged_pages(&self) -> Vec<DamagedPage> {
        let open = self.shared.core.pager.damaged.open();
        open.into_iter().map(|(page, note)| DamagedPage { page, noted_at: note.noted_at }).collect()
    }

    /// Verifies a page as it is now, or the run that begins with it, whether it is in memory or in the file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is damaged, or not in use; [`Error::Bound`] when `readers_max` snapshots
    /// are open.
    #[track_caller]
    pub fn verify_page(&self, page: PageId) -> Result<()> {
        let snapshot = self.read()?;
        let pager = &self.shared.core.pager;
        if page.0 < 2 {
            return Err(pager.damaged(page, "a meta page is not one that others have"));
        }
        pager.page_verified_again(page, snapshot.lsn()).map(drop)
    }

    /// A page as of the newest commit, verified, for a node whose own is damaged; none where it is not in
    /// use, or longer than `len_max` bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it is damaged here too; [`Error::Bound`] when `readers_max` snapshots are
    /// open.
    #[track_caller]
    pub fn whole_page(&self, page: PageId, len_max: usize) -> Result<Option<WholePage>> {
        let snapshot = self.read()?;
        let (pager, lsn) = (&*self.shared.core.pager, snapshot.lsn());
        if !is_used(pager, page, lsn)? || matches!(pager.directory.find(page, lsn), Found::Free) {
            return Ok(None);
        }
        let mut bytes = pager.page_verified_again(page, lsn)?;
        if page::kind(bytes) == Some(PageKind::Overflow) && bytes.len() == pager.page_size() {
            let count = overflow::page_count(overflow::value_len(bytes), pager.page_size());
            if count > 1 {
                bytes = pager.raw(page, count)?;
            }
        }
        let bytes = (bytes.len() <= len_max).then(|| bytes.to_vec());
        Ok(bytes.map(|bytes| WholePage { page, as_of: lsn, bytes }))
    }

    /// Takes a page of another node in the place of one that is damaged here.
    ///
    /// # Errors
    /// [`Error::Received`] when it is damaged itself. [`Error::Io`] when it cannot be written or synced:
    /// the database is poisoned. [`Error::Poisoned`], [`Error::Bound`].
    #[track_caller]
    pub fn repair_page(&self, whole: &WholePage) -> Result<RepairOutcome> {
        let core = &*self.shared.core;
        let (pager, id) = (&*core.pager, whole.page);
        let page_size = pager.page_size();
        verify_bytes(&whole.bytes, id, page_size).map_err(|what| Error::Received { what })?;
        let Some(note) = pager.damaged.get(id) else { return Ok(RepairOutcome::NotNeeded) };
        // Nobody else writes to the file meanwhile.
        let _checkpointer = self.shared.checkpointer.lock();
        core.check_poison()?;
        let snapshot = self.read()?;
        let visible = snapshot.lsn();
        let changed_at = page::lsn(&whole.bytes);
        if whole.as_of < note.noted_at {
            return Ok(RepairOutcome::Late);
        }
        if changed_at > visible && whole.bytes.len() == page_size {
            let is_kept = pager.damaged.supply(id, changed_at, &whole.bytes);
            return Ok(if is_kept { RepairOutcome::Waits } else { RepairOutcome::Early });
        }
        if whole.as_of > visible {
            return Ok(RepairOutcome::Early);
        }
        let is_same = pager.damaged.get(id).is_some_and(|now| now.number == note.number);
        if !is_same || !is_damaged_in_file(pager, id, visible) || !is_used(pager, id, visible)? {
            pager.damaged.forget(id);
            return Ok(RepairOutcome::NotNeeded);
        }
        // What is visible is durable, and the journal says so, before the file gets it.
        if visible > core.watermarks.synced() || !core.replicated.vouch(core, visible)? {
            return Ok(RepairOutcome::Early);
        }
        write(core, whole)?;
        pager.page_verified_again(id, visible)?;
        pager.damaged.count_repaired();
        tracing::warn!(page = id.0, as_of = whole.as_of.0, "a damaged page was repaired");
        Ok(RepairOutcome::Written)
    }
}

fn write(core: &Core, whole: &WholePage) -> Result<()> {
    let written = core.pager.write(whole.page, &whole.bytes).and_then(|()| core.pager.sync());
    written.inspect_err(|error| core.poison("write of the data file", error))
}

/// Whether the page that readers of this LSN see is that of the file, and does not verify.
fn is_damaged_in_file(pager: &Pager, id: PageId, lsn: Lsn) -> bool {
    if !matches!(pager.directory.find(id, lsn), Found::Map) {
        return false;
    }
    let Ok(first) = pager.raw(id, 1) else { return false };
    let bytes = match page::kind(first) {
        Some(PageKind::Overflow) if overflow::validate_header(first).is_ok() => {
            pager.raw(id, overflow::page_count(overflow::value_len(first), pager.page_size()))
        }
        _ => Ok(first),
    };
    bytes.is_ok_and(|bytes| verify_bytes(bytes, id, pager.page_size()).is_err())
}

/// Whether a page is in use, by its bitmap.
fn is_used(pager: &Pager, id: PageId, lsn: Lsn) -> Result<bool> {
    let page_size = pager.page_size();
    if id.0 < 2 || id.0 >= pager.file_pages() {
        return Ok(id.0 >= 2 && matches!(pager.directory.find(id, lsn), Found::Version(..)));
    }
    if is_fixed(id, page_size) {
        return Ok(true);
    }
    let bitmap = bitmap_page(id.0 / pages_per_group(page_size), page_size);
    let bits = pager.page(bitmap, lsn)?;
    if page::kind(bits) != Some(PageKind::Bitmap) {
        return Ok(false);
    }
    let (byte, mask) = bit_position(id.0 % pages_per_group(page_size));
    Ok(bits.get(byte).is_some_and(|byte| byte & mask != 0))
}
