//! Sealing: what a transaction changed becomes a record in flight, and versions that only readers of
//! its LSN will see.

use crate::{
    error::{Error, Result},
    format::record::{RecordMeta, SealedRecord},
    ids::{Lsn, PageId},
    journal::{JournalPosition, Room},
    options::Durability,
    sync::{Planted, is_planted},
};

use super::{core::CommitPoint, pages::SpaceChange, pipeline::InFlight, write::WriteTxn};

impl WriteTxn<'_> {
    /// Writes the states of all changed trees into the catalog.
    fn write_catalog(&mut self) -> Result<()> {
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        let mut changed = !pages.is_clean();
        for open in self.open.iter().filter(|open| !open.dropped) {
            if open.stored != Some(open.state) {
                let mut state = open.state;
                if is_planted(Planted::WrongEntryCount) {
                    state.entries += 1;
                }
                self.catalog.put(pages, &open.name, &state)?;
                changed = true;
            }
        }
        if changed { self.catalog.put_own(pages) } else { Ok(()) }
    }

    /// Makes a record of the changes and puts it behind those in flight. Returns its LSN; that of the
    /// state below when nothing was changed.
    ///
    /// # Errors
    /// Those of [`commit`](WriteTxn::commit) that leave nothing behind.
    pub(super) fn seal(&mut self, durability: Durability) -> Result<Lsn> {
        self.check()?;
        self.core.replicated.check_writes()?;
        self.write_catalog()?;
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        if pages.is_clean() && self.annotations.is_empty() {
            return Ok(self.reader.lsn());
        }
        let (record, point, pages) = self.make_record()?;
        let (core, lsn) = (self.core, record.lsn);
        if core.replicated.is_on() {
            core.replicated.push(core, record, point, pages);
        } else {
            core.pipeline.push(core, InFlight { record, point, durability });
        }
        Ok(lsn)
    }

    /// Whether it leaves less than it found: fewer entries and no more pages, or fewer pages and no
    /// more entries; none of them behind the end of the data file.
    fn shrinks(&self) -> bool {
        let pages = self.pages.as_ref().expect("the transaction has not ended");
        let (mut found, mut left) = (0_u64, 0_u64);
        for open in self.open.iter() {
            found = found.saturating_add(open.stored.map_or(0, |stored| stored.entries));
            left = left.saturating_add(if open.dropped { 0 } else { open.state.entries });
        }
        let end = self.core.pager.file_pages();
        let (mut taken, mut given) = (0_u64, 0_u64);
        for change in &pages.space_changes {
            match *change {
                SpaceChange::Taken(first, len) if first.0 + len > end => return false,
                SpaceChange::Taken(_, len) => taken += u64::from(len),
                SpaceChange::Given(_, len) => given += u64::from(len),
            }
        }
        left < found && taken <= given || left <= found && taken < given
    }

    /// Turns the changes into a record and into versions that only readers of its LSN will see. In a
    /// replicated database the pages that have one are returned too.
    fn make_record(&mut self) -> Result<(SealedRecord, CommitPoint, Vec<PageId>)> {
        let core = self.core;
        let shrinks = self.shrinks();
        let pages = self.pages.as_mut().expect("the transaction has not ended");
        let writer = &mut **self.writer.as_mut().expect("the transaction has not ended");
        let lsn = writer.tail.lsn.next();
        let versions = match pages.seal(lsn, &mut writer.builder) {
            Ok(versions) => versions,
            Err(error) => {
                writer.builder.clear();
                return Err(error);
            }
        };
        for annotation in &self.annotations {
            writer.builder.annotate(annotation);
        }
        let meta = RecordMeta {
            kind: self.kind,
            lsn,
            term: core.replicated.term(),
            page_size: core.pager.page_size(),
            time_us: core.disk.now_us(),
            known_committed: core.watermarks.committed(),
            chain_before: writer.tail.chain,
        };
        let record = writer.builder.finish(&meta, core.bounds.compression);
        // Room in the journal is made before anything is handed over: on a full disk the
        // transaction fails, and the database goes on.
        let room = if shrinks { Room::Reserve } else { Room::Common };
        if let Err(error) = core.pipeline.reserve(core, &record, room) {
            if matches!(error, Error::Poisoned { .. }) || core.journal.is_poisoned() {
                core.poison("roll of the journal", &error);
            }
            pages.unseal(versions);
            return Err(error);
        }
        pages.sealed();
        let is_replicated = core.replicated.is_on();
        let mut ids = Vec::new();
        if is_replicated {
            ids.extend(versions.iter().map(|(id, _)| *id));
        }
        let mut change = core.pager.directory.change(&core.pager.registry);
        for (id, version) in versions {
            change.put(id, lsn, version, &core.pager.pool);
        }
        change.finish(&core.pager.pool, false);
        writer.tail = JournalPosition { lsn, chain: record.chain };
        let point = CommitPoint {
            position: writer.tail,
            page_count: pages.page_count(),
            time_us: meta.time_us,
        };
        Ok((record, point, ids))
    }
}
