//! The check: every page reachable exactly once, or free, or fixed; everything else in order.
//!
//! It reads one snapshot while the database goes on, verifies the checksum of every page that it
//! meets (again, if it was verified before), and lists all damage instead of stopping at the first.

use crate::{
    error::{Error, Result},
    format::{
        bitmap::{CATALOG_ROOT, bit_position, bitmap_page, is_fixed, pages_per_group},
        bytes::get_u64,
        meta::Meta,
        page::{self, PageKind},
    },
    ids::{Lsn, PageId, TreeId},
    journal::SegmentInfo,
    pager::{access::PageRead, store::Pager},
    tree,
    txn::{
        catalog::Catalog,
        snapshot::{Snapshot, TreeInfo},
    },
};

use super::{Database, last_changes::LastChanges};

/// Most problems that are listed.
const PROBLEMS_MAX: usize = 10_000;

/// What a check found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckReport {
    /// LSN of the state that was checked.
    pub lsn: Lsn,
    /// Damage, the first 10,000 items of it; empty when there is none.
    pub problems: Vec<Problem>,
    /// The trees that could be found.
    pub trees: Vec<TreeInfo>,
    /// Pages that belong to trees.
    pub tree_pages: u64,
    /// Meta pages, bitmaps, the catalog's root.
    pub fixed_pages: u64,
    /// Free pages below the highest used one.
    pub free_pages: u64,
    /// Entries of all trees, the catalog excepted.
    pub entries: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The tree, where it is known.
    pub tree: Option<Vec<u8>>,
    /// The page, where it is one.
    pub page: Option<PageId>,
    /// Where the page begins in the data file, in bytes.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl Problem {
    pub(super) fn new(
        tree: Option<&[u8]>,
        page: Option<PageId>,
        what: String,
        page_size: usize,
    ) -> Problem {
        let offset = page.map(|page| u64::from(page.0) * page_size as u64);
        Problem { tree: tree.map(<[u8]>::to_vec), page, offset, what }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(tree) = &self.tree {
            write!(f, "tree \"{}\": ", tree.escape_ascii())?;
        }
        if let (Some(page), Some(offset)) = (self.page, self.offset) {
            write!(f, "page {page} (byte {offset} of the data file): ")?;
        }
        f.write_str(&self.what)
    }
}

/// Reads pages at an LSN and verifies them each time.
struct CheckedPages<'a> {
    pager: &'a Pager,
    lsn: Lsn,
    changes: LastChanges,
}

impl CheckedPages<'_> {
    fn verified(&self, id: PageId) -> Result<&[u8]> {
        let bytes = self.pager.page_verified_again(id, self.lsn)?;
        match self.changes.compare(id, bytes) {
            None => Ok(bytes),
            Some(what) => Err(self.damaged(id, what)),
        }
    }
}

impl PageRead for CheckedPages<'_> {
    fn page_size(&self) -> usize {
        self.pager.page_size()
    }

    fn page(&self, id: PageId) -> Result<&[u8]> {
        let bytes = self.verified(id)?;
        match page::kind(bytes) {
            Some(PageKind::Leaf | PageKind::Branch) => Ok(bytes),
            _ => Err(self.damaged(id, "neither a leaf nor a branch")),
        }
    }

    fn run(&self, id: PageId, value_len: u64) -> Result<&[u8]> {
        self.verified(id)?;
        self.pager.run(id, value_len, self.lsn)
    }

    fn damaged(&self, id: PageId, what: &'static str) -> Error {
        self.pager.damaged(id, what)
    }
}

/// Pages that were claimed by something, one bit each.
struct Claims {
    words: Vec<u64>,
    page_count: u32,
    claimed: u64,
}

impl Claims {
    fn new(page_count: u32) -> Claims {
        Claims { words: vec![0; page_count as usize / 64 + 1], page_count, claimed: 0 }
    }

    /// Claims pages; false when one was claimed before or lies past the end.
    fn claim(&mut self, first: PageId, len: u32) -> bool {
        let Some(end) = first.0.checked_add(len).filter(|end| *end <= self.page_count) else {
            return false;
        };
        let mut fresh = true;
        for page in first.0..end {
            let (word, bit) = (page as usize / 64, 1 << (page % 64));
            fresh &= self.words[word] & bit == 0;
            self.claimed += u64::from(self.words[word] & bit == 0);
            self.words[word] |= bit;
        }
        fresh
    }

    fn is_claimed(&self, page: u32) -> bool {
        self.words[page as usize / 64] & (1 << (page % 64)) != 0
    }
}

impl Database {
    /// Checks the whole database as of the newest commit: that every page has its checksum and
    /// layout, keys are in order, and each page belongs to one tree, or is free, or fixed. Takes
    /// time in proportion to its size. Readers and writers go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Bound`], [`Error::Reentrant`]: it could not begin. Damage is in the report.
    #[track_caller]
    pub fn check(&self) -> Result<CheckReport> {
        let core = &*self.shared.core;
        if crate::txn::reentrance::is_writing(core) {
            return Err(Error::Reentrant);
        }
        let (snapshot, page_count) = self.read_with_page_count()?;
        let metas = {
            // The checkpoint may be writing one.
            let _checkpointer = self.shared.checkpointer.lock();
            [0, 1].map(|number| check_meta_page(&core.pager, number))
        };
        let group_count = page_count.div_ceil(pages_per_group(core.pager.page_size()));
        let (changes, journal) = self.last_changes(snapshot.lsn());
        let pages = CheckedPages { pager: &core.pager, lsn: snapshot.lsn(), changes };
        Ok(check_snapshot(pages, group_count, metas, journal))
    }

    /// What the journal says of pages, and what is wrong with it.
    fn last_changes(&self, until: Lsn) -> (LastChanges, Option<String>) {
        let core = &*self.shared.core;
        let (mut changes, mut result) = LastChanges::read(core, until);
        if result.is_err() {
            // Nothing is taken away from under the second look.
            let _checkpointer = self.shared.checkpointer.lock();
            (changes, result) = LastChanges::read(core, until);
        }
        let what = result.err().map(|error| {
            let segments = core.journal.report().segments;
            let is_behind = |segment: &&SegmentInfo| segment.first_lsn <= changes.next();
            let segment = segments.iter().rfind(is_behind).or(segments.first());
            let place = segment.map_or("its first segment", |segment| segment.file.as_str());
            format!("the journal cannot be read to its end, in {place}: {error}")
        });
        (changes, what)
    }

    /// A snapshot, and one past the highest page that is used in it. Commits below the oldest reader
    /// are forgotten by the checkpoint alone, and not that of the newest.
    pub(super) fn read_with_page_count(&self) -> Result<(Snapshot, u32)> {
        loop {
            let snapshot = self.read()?;
            let commits = self.shared.core.commits.lock();
            let own = commits.iter().find(|commit| commit.position.lsn == snapshot.lsn());
            if let Some(own) = own {
                return Ok((snapshot, own.page_count));
            }
        }
    }
}

/// What is wrong with a meta page. The older one is what recovery falls back to: both must be valid.
fn check_meta_page(pager: &Pager, number: u32) -> Option<String> {
    match pager.raw(PageId(number), 1) {
        Ok(bytes) => Meta::decode(bytes, number).err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

fn check_snapshot(
    pages: CheckedPages<'_>,
    group_count: u32,
    metas: [Option<String>; 2],
    journal: Option<String>,
) -> CheckReport {
    let page_size = pages.pager.page_size();
    let mut check = Check {
        claims: Claims::new(group_count * pages_per_group(page_size)),
        report: CheckReport {
            lsn: pages.lsn,
            problems: Vec::new(),
            trees: Vec::new(),
            tree_pages: 0,
            fixed_pages: 0,
            free_pages: 0,
            entries: 0,
        },
        pages,
        is_partial: false,
        orphan_count: 0,
    };
    for (number, what) in (0..).zip(metas) {
        if let Some(what) = what {
            check.problem(None, Some(PageId(number)), what);
        }
    }
    if let Some(what) = journal {
        check.problem(None, None, what);
    }
    let before = check.report.problems.len();
    check.trees();
    check.is_partial = check.report.problems.len() > before;
    check.report.tree_pages = check.claims.claimed;
    check.space(group_count);
    check.report
}

struct Check<'a> {
    pages: CheckedPages<'a>,
    claims: Claims,
    report: CheckReport,
    /// Parts of the trees could not be read: pages that nothing leads to are only counted.
    is_partial: bool,
    orphan_count: u64,
}

impl Check<'_> {
    fn problem(&mut self, tree: Option<&[u8]>, page: Option<PageId>, what: String) {
        if self.report.problems.len() >= PROBLEMS_MAX {
            return;
        }
        self.report.problems.push(Problem::new(tree, page, what, self.pages.page_size()));
    }

    fn trees(&mut self) {
        let catalog = match Catalog::open(&self.pages) {
            Ok(catalog) => catalog,
            Err(error) => {
                self.problem(None, Some(CATALOG_ROOT), format!("no tree can be found: {error}"));
                return;
            }
        };
        self.tree(b"", catalog.state());
        let entries: Vec<_> = catalog.entries(&self.pages).collect();
        for entry in entries {
            match entry {
                Ok((name, state)) => {
                    self.tree(&name, &state);
                    self.report.entries = self.report.entries.saturating_add(state.entries);
                    self.report.trees.push(TreeInfo::new(name, &state));
                }
                Err(error) => {
                    self.problem(None, None, format!("some trees cannot be found: {error}"));
                }
            }
        }
    }

    fn tree(&mut self, name: &[u8], state: &tree::TreeState) {
        let claims = &mut self.claims;
        let (_, damage) = tree::check(&self.pages, state, &mut |page, len| claims.claim(page, len));
        for damage in damage {
            self.problem(Some(name), Some(damage.page), damage.what);
        }
    }

    /// Compares the bitmaps with what was reached.
    fn space(&mut self, group_count: u32) {
        let page_size = self.pages.page_size();
        let group_pages = pages_per_group(page_size);
        let mut highest_used = 0;
        for group in 0..group_count {
            let bitmap = bitmap_page(group, page_size);
            let bits = match self.pages.verified(bitmap) {
                Ok(bytes) if page::kind(bytes) == Some(PageKind::Bitmap) => bytes.to_vec(),
                Ok(_) => {
                    let what = "not a free-space bitmap".to_owned();
                    self.problem(None, Some(bitmap), what);
                    continue;
                }
                Err(error) => {
                    self.problem(None, Some(bitmap), error.to_string());
                    continue;
                }
            };
            if page::tree(&bits) != TreeId::NONE {
                self.problem(None, Some(bitmap), "a bitmap that belongs to a tree".to_owned());
            }
            for index in (0..group_pages).step_by(64) {
                let first = group * group_pages + index;
                let used = get_u64(&bits, bit_position(index).0);
                if used != 0 {
                    highest_used = first + 63 - used.leading_zeros();
                }
                // Fixed pages stand together at the beginning of their region.
                let as_claimed = used == self.claims.words[first as usize / 64];
                if as_claimed && !is_fixed(PageId(first), page_size) {
                    continue;
                }
                for bit in 0..64 {
                    self.page_use(PageId(first + bit), used & (1 << bit) != 0);
                }
            }
        }
        if self.orphan_count > 0 {
            let count = self.orphan_count;
            let what = format!("nothing that could be read leads to {count} used pages");
            self.problem(None, None, what);
        }
        let known = self.report.fixed_pages + self.report.tree_pages;
        self.report.free_pages = u64::from(highest_used + 1).saturating_sub(known);
    }

    fn page_use(&mut self, id: PageId, used: bool) {
        let fixed = is_fixed(id, self.pages.page_size());
        let reached = self.claims.is_claimed(id.0);
        if fixed && id != CATALOG_ROOT {
            self.report.fixed_pages += 1;
            if reached {
                self.problem(None, Some(id), "a fixed page is part of a tree".to_owned());
            }
        }
        let what = match (used, fixed || reached) {
            (false, true) => "in use, but marked as free",
            (true, false) => "marked as used, but nothing leads to it",
            _ => return,
        };
        if used && self.is_partial {
            self.orphan_count += 1;
            return;
        }
        self.problem(None, Some(id), what.to_owned());
    }
}
