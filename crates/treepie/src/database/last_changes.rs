//! Which record changed a page last, as far as the journal still tells: what finds a page whose last
//! write the disk lost, though it had acknowledged it.
//!
//! Such a page is an earlier version of itself, valid by its own checksum. But the record that changed
//! it may still be in the journal, where the newest segment always stays, and says which LSN the page
//! has at least.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::{
    error::{Error, Result},
    format::{change::PageChange, page, record::Record},
    ids::{Lsn, PageId},
    journal::JournalReader,
    recovery::JOURNAL_DIR,
    txn::core::Core,
};

/// Most pages that are remembered, 16 MiB of memory: the journal may name many more.
const PAGES_MAX: usize = 1 << 20;

/// The last change of pages, up to some LSN.
#[derive(Debug, Default)]
pub struct LastChanges {
    pages: FxHashMap<PageId, Lsn>,
    /// The last record that was read.
    read_to: Lsn,
}

impl LastChanges {
    /// Reads the records up to `until` that the journal has. One that cannot be read ends it, and is
    /// told beside: what is known until then stays true of pages that no later record would have
    /// changed back. Where a checkpoint runs meanwhile, it may have taken a segment away.
    pub fn read(core: &Core, until: Lsn) -> (LastChanges, Result<()>) {
        let mut changes = LastChanges::default();
        let result = changes.read_journal(core, until);
        (changes, result)
    }

    fn read_journal(&mut self, core: &Core, until: Lsn) -> Result<()> {
        let segments = core.journal.report().segments;
        let mut from = Lsn(0);
        loop {
            let (missing, gap) = match self.read_from(core, from, until) {
                Err(gap @ Error::JournalGap { missing, .. }) => (missing, gap),
                result => return result,
            };
            // A crash in the middle of a trim leaves any of the segments that a checkpoint has made
            // unnecessary.
            let is_needed = missing > core.watermarks.checkpointed();
            let next = segments
                .iter()
                .map(|segment| segment.first_lsn)
                .find(|first| *first > missing && *first > from);
            match next {
                Some(next) if !is_needed => from = next,
                _ => return Err(gap),
            }
        }
    }

    fn read_from(&mut self, core: &Core, from: Lsn, until: Lsn) -> Result<()> {
        let journal = core.path.join(JOURNAL_DIR);
        let mut reader = JournalReader::open(Arc::clone(&core.disk), &journal)?;
        if from > Lsn(0) {
            reader = reader.from(from)?;
        }
        for stored in reader {
            let stored = stored?;
            let corrupt =
                |what| Error::Corrupt { file: stored.file.clone(), offset: stored.offset, what };
            let record = Record::parse(&stored.bytes).map_err(corrupt)?;
            if record.lsn() > until {
                return Ok(());
            }
            for change in record.changes() {
                self.note(&change.map_err(corrupt)?, record.lsn());
            }
            self.read_to = record.lsn();
        }
        Ok(())
    }

    /// The first record that was not read.
    pub fn next(&self) -> Lsn {
        self.read_to.next()
    }

    fn note(&mut self, change: &PageChange<'_>, lsn: Lsn) {
        match *change {
            PageChange::Page { id, .. } | PageChange::Run { first: id, .. } => {
                if self.pages.len() < PAGES_MAX || self.pages.contains_key(&id) {
                    self.pages.insert(id, lsn);
                }
            }
            PageChange::Free { first, .. } => {
                self.pages.remove(&first);
            }
        }
    }

    /// What is wrong with a page that is older than its last change.
    pub fn compare(&self, id: PageId, bytes: &[u8]) -> Option<&'static str> {
        let is_earlier = self.pages.get(&id).is_some_and(|lsn| page::lsn(bytes) < *lsn);
        is_earlier.then_some("an earlier version of the page is in its place: a write was lost")
    }
}
