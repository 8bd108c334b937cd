//! Salvage: what can be read of a damaged database, into a new one.
//!
//! The damaged database is not opened, and nothing of it is changed: each page is believed only if it
//! verifies, whatever else is damaged. In order:
//!
//! 1. `source`: lock, newest valid meta page, or none; then the size of a page is guessed.
//! 2. `overlay`: the journal is applied to copies, as far as it is valid.
//! 3. `trees`: the catalog is walked, then each tree. What does not verify is listed as a loss, with the
//!    keys that it led to.
//! 4. Where something was lost, all pages are looked through for leaves that nothing leads to any more.
//!    Leaves of trees whose names are lost become trees `tree-N`.
//! 5. `sink`: everything goes into the new database in transactions of some megabytes.
//!
//! In memory are one path of pages, one value, and some bytes for each page that was taken or that the
//! journal changed. The copies of pages are in a file in the new folder, which is removed at the end.

mod overlay;
mod report;
mod saved;
mod sink;
mod source;
#[cfg(test)]
mod tests;
mod trees;
mod visits;

use std::{collections::BTreeMap, io, ops::ControlFlow, path::Path};

use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    Database,
    error::{Error, Result},
    format::{bitmap::CATALOG_ROOT, node::Leaf},
    ids::{Lsn, TreeId},
    options::{Durability, Options},
    tree::TreeState,
    txn::catalog::{METADATA, check_name},
};

use self::{
    overlay::Overlay,
    saved::SavedTrees,
    sink::Sink,
    source::Source,
    trees::{Claims, LostRanges, Stray, Walker, strays},
    visits::{CatalogVisit, MetadataVisit, Progress, TreeVisit},
};

pub use self::report::{Loss, SalvageProgress, SalvageReport, SalvagedTree};

impl Options {
    /// Saves what can be read of the database in the folder `source`, however damaged, into a new one
    /// in the folder `target`, made with these options. `source` must not be open; nothing of it is
    /// changed. `going` is asked now and then, and may end it.
    ///
    /// What is lost is in the report, tree by tree, with the keys that are concerned. What is saved is
    /// what verified: nothing that a checksum finds is taken over. Only when the newest state of a page
    /// is damaged and an older one is whole, that is taken, and listed.
    ///
    /// ```
    /// # fn main() -> treepie::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a folder");
    /// # let (damaged, saved) = (dir.path().join("damaged"), dir.path().join("saved"));
    /// # let db = treepie::Database::open(&damaged)?;
    /// # db.write(|tx| tx.tree("birds")?.insert("pica", "magpie"))?;
    /// # db.close()?;
    /// let going = |_: &treepie::SalvageProgress| std::ops::ControlFlow::Continue(());
    /// let report = treepie::Options::new().salvage(&damaged, &saved, going)?;
    /// assert!(report.is_whole() && report.entries == 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Locked`]; [`Error::Io`] when `target` is there already, or cannot
    /// be written; [`Error::UnsupportedVersion`] and [`Error::UnsupportedFeatures`] when a newer Treepie
    /// wrote `source`; [`Error::NotADatabase`] and [`Error::Corrupt`] when no page of it verifies. After
    /// an error the new database is not complete: remove it.
    pub fn salvage(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        mut going: impl FnMut(&SalvageProgress) -> ControlFlow<()>,
    ) -> Result<SalvageReport> {
        self.validate()?;
        let target = target.as_ref();
        if self.disk.exists(target).map_err(Error::io("look for", target))? {
            return Err(Error::io("create", target)(io::ErrorKind::AlreadyExists.into()));
        }
        let mut source = Source::open(&self.disk, source.as_ref())?;
        let options = self.clone().create(true).page_size(source.page_size);
        let db = options.durability(Durability::Buffered).open(target)?;
        let saved = Overlay::create(&self.disk, target, source.page_size)
            .and_then(|overlay| source.replay(overlay))
            .and_then(|replayed| {
                let mut salvage = Salvage::new(&source, &db, replayed.lsn, &mut going);
                salvage.note_beginning(replayed);
                salvage.run()
            });
        // As long as the copies are there, the new database is not complete.
        let closed = db.close();
        let report = saved?;
        closed?;
        source.end()?;
        Ok(report)
    }
}

/// A salvage on its way.
struct Salvage<'a> {
    source: &'a Source,
    sink: Sink<'a>,
    claims: Claims,
    saved: SavedTrees,
    report: SalvageReport,
    progress: Progress<'a>,
    /// LSN of the state that was replayed, when there may be younger pages.
    cut_at: Option<Lsn>,
}

/// A tree of which parts are lost.
struct Torn {
    name: Vec<u8>,
    lost: LostRanges,
}

impl<'a> Salvage<'a> {
    fn new(
        source: &'a Source,
        db: &'a Database,
        lsn: Option<Lsn>,
        going: &'a mut dyn FnMut(&SalvageProgress) -> ControlFlow<()>,
    ) -> Salvage<'a> {
        let pages_total = u64::from(source.file_pages);
        let shown = SalvageProgress { pages_done: 0, pages_total, entries: 0, losses: 0 };
        Salvage {
            source,
            sink: Sink::new(db),
            claims: Claims::default(),
            saved: SavedTrees::default(),
            report: SalvageReport { page_size: source.page_size, lsn, ..SalvageReport::default() },
            progress: Progress { shown, is_stopped: false, going },
            cut_at: None,
        }
    }

    /// Notes what is known of meta pages and journal.
    fn note_beginning(&mut self, replayed: source::Replayed) {
        self.report.records = replayed.records;
        if let Some(error) = &self.source.meta_damage {
            let what =
                format!("no meta page can be used ({error}): all of the journal was applied");
            self.report.add(Loss::of(what));
        }
        if self.source.meta_is_old {
            let what = "the newest meta page is damaged: all of the journal was applied";
            self.report.add(Loss::of(what.to_owned()));
        }
        if let Some(what) = replayed.stopped {
            let from = replayed.lsn.unwrap_or_default();
            self.cut_at = Some(from);
            let what = format!("the journal was applied up to LSN {from} only: {what}");
            self.report.add(Loss::of(what));
        }
    }

    fn run(mut self) -> Result<SalvageReport> {
        let (trees, is_catalog_whole) = self.catalog()?;
        let mut torn = FxHashMap::default();
        for (name, state) in &trees {
            let lost = match name.first() {
                Some(b'$') => self.metadata(name, state)?,
                _ => self.tree(name, state)?,
            };
            if !lost.is_empty() && name.first() != Some(&b'$') {
                torn.insert(state.id, Torn { name: name.clone(), lost });
            }
        }
        if !torn.is_empty() || !is_catalog_whole {
            let known: FxHashMap<TreeId, ()> = trees.values().map(|state| (state.id, ())).collect();
            self.take_strays(&torn, &|id| {
                !is_catalog_whole && id.0 > 2 && !known.contains_key(&id)
            })?;
        }
        self.sink.commit()?;
        self.compare_counts();
        self.report.trees = self.saved.into_trees();
        self.report.is_complete = !self.progress.is_stopped;
        Ok(self.report)
    }

    /// All trees that the catalog knows, and whether it could be read as a whole.
    fn catalog(&mut self) -> Result<(BTreeMap<Vec<u8>, TreeState>, bool)> {
        let mut visit = CatalogVisit {
            trees: BTreeMap::new(),
            report: &mut self.report,
            progress: &mut self.progress,
        };
        let mut walker = Walker {
            source: self.source,
            claims: &mut self.claims,
            tree: TreeId::CATALOG,
            name: b"",
            cut_at: self.cut_at,
            lost: LostRanges::default(),
            is_stopped: false,
        };
        walker.walk(CATALOG_ROOT, &mut visit)?;
        let lost = walker.lost;
        if !lost.is_empty() {
            let pages = &mut || true;
            let take = &mut |stray: Stray, claims: &mut Claims| {
                let mut walker = Walker {
                    source: self.source,
                    claims,
                    tree: TreeId::CATALOG,
                    name: b"",
                    cut_at: self.cut_at,
                    lost: LostRanges::default(),
                    is_stopped: false,
                };
                let leaf = Leaf::new(&stray.bytes);
                let mut wanted = |key: &[u8]| lost.find(key).is_some();
                walker.leaf(&leaf, &(None, None), &mut visit, &mut wanted)
            };
            let is_catalog = |tree| tree == TreeId::CATALOG;
            strays(self.source, &mut self.claims, self.cut_at, &is_catalog, pages, take)?;
        }
        Ok((visit.trees, lost.is_empty()))
    }

    /// Saves a tree; returns the keys that may be lost.
    fn tree(&mut self, name: &[u8], state: &TreeState) -> Result<LostRanges> {
        let name = match check_name(name) {
            Ok(()) => name.to_vec(),
            Err(_) => self.saved.name_for(state.id),
        };
        self.sink.begin_tree(&name)?;
        let mut visit = TreeVisit {
            sink: &mut self.sink,
            report: &mut self.report,
            progress: &mut self.progress,
            ranges: None,
            added: 0,
        };
        let mut walker = Walker {
            source: self.source,
            claims: &mut self.claims,
            tree: state.id,
            name: &name,
            cut_at: self.cut_at,
            lost: LostRanges::default(),
            is_stopped: false,
        };
        walker.walk(state.root, &mut visit)?;
        let (lost, entries) = (walker.lost, visit.added);
        let expected = Some(state.entries);
        self.saved.add(SalvagedTree { name, id: state.id, entries, expected });
        Ok(lost)
    }

    /// Takes over what the application stored about itself.
    fn metadata(&mut self, name: &[u8], state: &TreeState) -> Result<LostRanges> {
        if name != METADATA {
            return Ok(LostRanges::default());
        }
        let mut visit = MetadataVisit { entries: Vec::new(), report: &mut self.report };
        let mut walker = Walker {
            source: self.source,
            claims: &mut self.claims,
            tree: state.id,
            name,
            cut_at: self.cut_at,
            lost: LostRanges::default(),
            is_stopped: false,
        };
        walker.walk(state.root, &mut visit)?;
        let lost = walker.lost;
        for (key, value) in visit.entries {
            self.sink.set_metadata(&key, &value)?;
        }
        Ok(lost)
    }

    /// Looks for leaves of torn trees, and of trees whose names are lost.
    fn take_strays(
        &mut self,
        torn: &FxHashMap<TreeId, Torn>,
        is_nameless: &dyn Fn(TreeId) -> bool,
    ) -> Result<()> {
        let Salvage { source, sink, claims, saved, report, progress, cut_at } = self;
        progress.shown.pages_total = progress.shown.pages_done + u64::from(source.file_pages);
        let mut nameless: FxHashMap<TreeId, Vec<u8>> = FxHashMap::default();
        let pages = std::cell::RefCell::new(progress);
        let wanted = |tree| torn.contains_key(&tree) || is_nameless(tree);
        let take = &mut |stray: Stray, claims: &mut Claims| {
            let known = torn.get(&stray.tree);
            let name = match known {
                Some(torn) => &torn.name,
                None => nameless.entry(stray.tree).or_insert_with(|| saved.name_for(stray.tree)),
            };
            sink.begin_tree(name)?;
            let ranges = known.map(|torn| &torn.lost);
            let mut progress = pages.borrow_mut();
            let mut visit = TreeVisit {
                sink: &mut *sink,
                report: &mut *report,
                progress: &mut progress,
                ranges,
                added: 0,
            };
            let mut walker = Walker {
                source,
                claims,
                tree: stray.tree,
                name,
                cut_at: *cut_at,
                lost: LostRanges::default(),
                is_stopped: false,
            };
            let leaf = Leaf::new(&stray.bytes);
            let mut wanted = |key: &[u8]| ranges.is_none_or(|ranges| ranges.find(key).is_some());
            walker.leaf(&leaf, &(None, None), &mut visit, &mut wanted)?;
            let added = visit.added;
            saved.add_entries(stray.tree, name, added);
            Ok(())
        };
        strays(source, claims, *cut_at, &wanted, &mut || pages.borrow_mut().page(), take)
    }

    /// Where nothing of a tree was seen to be damaged, it must have what the catalog says.
    fn compare_counts(&mut self) {
        if self.progress.is_stopped {
            return;
        }
        let torn: FxHashSet<&[u8]> =
            self.report.losses.iter().filter_map(|loss| loss.tree.as_deref()).collect();
        let mut odd = Vec::new();
        for tree in self.saved.trees() {
            let expected = tree.expected.filter(|expected| *expected != tree.entries);
            let Some(expected) = expected.filter(|_| !torn.contains(&tree.name[..])) else {
                continue;
            };
            let found = tree.entries;
            let what = format!("the catalog counts {expected} entries, {found} were found");
            odd.push(Loss { tree: Some(tree.name.clone()), ..Loss::of(what) });
        }
        for loss in odd {
            self.report.add(loss);
        }
    }
}
