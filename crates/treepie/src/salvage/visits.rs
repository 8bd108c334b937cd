//! What is done with what a walk finds: entries of trees go into the new database, those of the catalog
//! are its trees.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{error::Result, tree::TreeState};

use super::{
    report::{Loss, SalvageProgress, SalvageReport},
    sink::Sink,
    trees::{LostRanges, Visit},
};

/// Pages between two questions whether to go on.
const ASK_EVERY: u64 = 64;
/// Entries of the engine's own tree that go into the new database.
const KEPT_METADATA: [&[u8]; 2] = [b"application-name", b"application-version"];

/// How far it is, and who is asked whether to go on.
pub(super) struct Progress<'a> {
    pub(super) shown: SalvageProgress,
    pub(super) is_stopped: bool,
    pub(super) going: &'a mut dyn FnMut(&SalvageProgress) -> ControlFlow<()>,
}

impl Progress<'_> {
    /// Counts a page; false when it is time to stop.
    pub(super) fn page(&mut self) -> bool {
        self.shown.pages_done += 1;
        if self.shown.pages_done.is_multiple_of(ASK_EVERY) {
            self.shown.pages_total = self.shown.pages_total.max(self.shown.pages_done);
            self.is_stopped |= (self.going)(&self.shown).is_break();
        }
        !self.is_stopped
    }
}

/// Takes the entries of a tree.
pub(super) struct TreeVisit<'v, 'p, 'db> {
    pub(super) sink: &'v mut Sink<'db>,
    pub(super) report: &'v mut SalvageReport,
    pub(super) progress: &'v mut Progress<'p>,
    /// The lost ranges that the entries fill again, in part.
    pub(super) ranges: Option<&'v LostRanges>,
    pub(super) added: u64,
}

impl Visit for TreeVisit<'_, '_, '_> {
    fn entry(&mut self, key: Vec<u8>, value: &[u8]) -> Result<()> {
        if !self.sink.insert(&key, value)? {
            return Ok(());
        }
        self.added += 1;
        self.report.entries += 1;
        self.progress.shown.entries += 1;
        let listed = self.ranges.and_then(|ranges| ranges.find(&key)).flatten();
        if let Some(loss) = listed.and_then(|at| self.report.losses.get_mut(at)) {
            loss.found += 1;
        }
        Ok(())
    }

    fn loss(&mut self, loss: Loss) -> Option<usize> {
        self.progress.shown.losses += 1;
        self.report.add(loss)
    }

    fn page(&mut self) -> bool {
        self.progress.page()
    }
}

/// Takes the names and states of trees.
pub(super) struct CatalogVisit<'v, 'p> {
    pub(super) trees: BTreeMap<Vec<u8>, TreeState>,
    pub(super) report: &'v mut SalvageReport,
    pub(super) progress: &'v mut Progress<'p>,
}

impl Visit for CatalogVisit<'_, '_> {
    fn entry(&mut self, key: Vec<u8>, value: &[u8]) -> Result<()> {
        // The entry without a name is about the catalog itself.
        if key.is_empty() {
            return Ok(());
        }
        match TreeState::decode(value) {
            Ok(state) => drop(self.trees.entry(key).or_insert(state)),
            Err(what) => {
                let loss = Loss { tree: Some(key), ..Loss::of(what.to_string()) };
                self.report.add(loss);
            }
        }
        Ok(())
    }

    fn loss(&mut self, loss: Loss) -> Option<usize> {
        let what = format!("{} (of the catalog: names of trees may be lost)", loss.what);
        self.report.add(Loss { tree: None, what, ..loss })
    }

    fn page(&mut self) -> bool {
        self.progress.page()
    }
}

/// Takes what the application said of itself.
pub(super) struct MetadataVisit<'v> {
    pub(super) entries: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) report: &'v mut SalvageReport,
}

impl Visit for MetadataVisit<'_> {
    fn entry(&mut self, key: Vec<u8>, value: &[u8]) -> Result<()> {
        if KEPT_METADATA.contains(&&key[..]) {
            self.entries.push((key, value.to_vec()));
        }
        Ok(())
    }

    fn loss(&mut self, loss: Loss) -> Option<usize> {
        self.report.add(loss)
    }

    fn page(&mut self) -> bool {
        true
    }
}
