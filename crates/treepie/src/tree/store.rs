//! Pages in memory, for the tests of the tree.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    Damage, Error, Result, Structure,
    format::{
        blocks::ChangedBlocks,
        node, overflow,
        page::{self, PageKind},
    },
    ids::{PageId, TreeId},
    pager::access::{PageMut, PageRead, PageWrite},
};

/// Pages in memory; freed ones are used again.
#[derive(Debug)]
pub struct MemoryStore {
    page_size: usize,
    pages: Vec<Option<(Box<[u8]>, ChangedBlocks)>>,
    runs: BTreeMap<PageId, Vec<u8>>,
    unused: Vec<PageId>,
}

impl MemoryStore {
    pub fn new(page_size: usize) -> MemoryStore {
        let pages = vec![None, None];
        MemoryStore { page_size, pages, runs: BTreeMap::new(), unused: Vec::new() }
    }

    /// Pages that are neither free nor part of a run, and all pages of runs.
    pub fn used_count(&self) -> (usize, usize) {
        let runs = self.runs.values().map(|run| run.len() / self.page_size).sum();
        (self.pages.iter().flatten().count(), runs)
    }

    pub fn validate_all(&self) {
        for (page, _) in self.pages.iter().flatten() {
            node::validate(page).expect("pages stay valid");
        }
    }

    /// Changes a page behind the tree's back.
    pub fn bytes_mut(&mut self, id: PageId) -> &mut [u8] {
        &mut self.pages[id.0 as usize].as_mut().expect("the page is used").0
    }

    /// Forgets what changed, and returns how many bytes did.
    pub fn take_changed_len(&mut self) -> usize {
        let pages = self.pages.iter_mut().flatten();
        pages.map(|(_, c)| std::mem::take(c).runs().map(|run| run.1).sum::<usize>()).sum()
    }

    fn new_page(&mut self) -> Box<[u8]> {
        vec![0; self.page_size].into_boxed_slice()
    }
}

impl PageRead for MemoryStore {
    fn page_size(&self) -> usize {
        self.page_size
    }

    #[inline]
    fn page(&self, id: PageId) -> Result<&[u8]> {
        match self.pages.get(id.0 as usize) {
            Some(Some(page)) => Ok(&page.0),
            _ => Err(self.damaged(id, "there is no such page")),
        }
    }

    fn run(&self, id: PageId, value_len: u64) -> Result<&[u8]> {
        let run = self.runs.get(&id).filter(|run| overflow::value_len(run) == value_len);
        run.and_then(|run| overflow::value(run)).ok_or_else(|| self.damaged(id, "no such run"))
    }

    fn damaged(&self, id: PageId, what: &'static str) -> Error {
        let what = Damage::layout(Structure::Page(id, TreeId(2)), what);
        let offset = u64::from(id.0) * self.page_size as u64;
        Error::Corrupt { file: PathBuf::from("memory"), offset, what }
    }
}

impl PageWrite for MemoryStore {
    #[inline]
    fn page_mut(&mut self, id: PageId) -> Result<PageMut<'_>> {
        if !matches!(self.pages.get(id.0 as usize), Some(Some(_))) {
            return Err(self.damaged(id, "there is no such page"));
        }
        let (bytes, changed) = self.pages[id.0 as usize].as_mut().expect("checked above");
        Ok(PageMut::new(bytes, changed))
    }

    fn allocate(&mut self, kind: PageKind, level: u8, tree: TreeId) -> Result<PageId> {
        let id = self.unused.pop().unwrap_or_else(|| {
            self.pages.push(None);
            PageId(u32::try_from(self.pages.len() - 1).expect("few pages"))
        });
        let mut page = self.new_page();
        page::init(&mut page, id, kind, level, tree);
        self.pages[id.0 as usize] = Some((page, ChangedBlocks::new()));
        Ok(id)
    }

    fn free(&mut self, id: PageId) -> Result<()> {
        assert!(self.pages[id.0 as usize].take().is_some(), "page {id} is free already");
        self.unused.push(id);
        Ok(())
    }

    fn allocate_run(&mut self, tree: TreeId, value: &[u8]) -> Result<PageId> {
        let count = overflow::page_count(value.len() as u64, self.page_size) as usize;
        let id = PageId(u32::try_from(self.pages.len()).expect("few pages"));
        self.pages.extend((0..count).map(|_| None));
        let mut run = vec![0; count * self.page_size];
        page::init(&mut run, id, PageKind::Overflow, 0, tree);
        overflow::fill(&mut run, value);
        overflow::validate(&run, self.page_size).expect("a new run is valid");
        self.runs.insert(id, run);
        Ok(id)
    }

    fn free_run(&mut self, id: PageId, value_len: u64) -> Result<()> {
        let run = self.runs.remove(&id).expect("the run is not free");
        assert_eq!(overflow::value_len(&run), value_len);
        let count = u32::try_from(run.len() / self.page_size).expect("few pages");
        self.unused.extend((id.0..id.0 + count).map(PageId));
        Ok(())
    }
}
