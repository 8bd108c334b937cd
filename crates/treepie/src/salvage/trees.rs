//! Walking the trees of the damaged database, and finding leaves that nothing leads to any more.
//!
//! A tree is walked from its root. Where a page does not verify, the keys that it led to are noted as a
//! lost range. Leaves say themselves which tree they are of: afterwards all pages are looked through for
//! leaves of trees with lost ranges that were not reached, and their entries with keys in such a range are
//! saved too. A free page may still look like a leaf; so it has to be in use by the bitmap, or younger than
//! the state that was replayed.

use rustc_hash::FxHashMap;

use crate::{
    error::Result,
    format::{
        node::{Branch, Leaf, Value},
        overflow,
        page::{self, PageKind},
    },
    ids::{Lsn, PageId, TreeId},
    limits::TREE_DEPTH_MAX,
};

use super::{
    report::Loss,
    source::{Source, Wanted},
};

/// Keys from the first up to below the second; the ends are those of the tree.
pub(super) type Fences = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Most lost ranges that are kept of a tree; beyond, the whole tree is taken for one.
const RANGES_MAX: usize = 10_000;

const USED_TWICE: &str = "its pages are used twice";

/// What is done with what is found.
pub(super) trait Visit {
    /// An entry of a leaf that verifies.
    fn entry(&mut self, key: Vec<u8>, value: &[u8]) -> Result<()>;
    /// Something that does not; returns its place in the list of losses.
    fn loss(&mut self, loss: Loss) -> Option<usize>;
    /// A page was looked at; false to stop.
    fn page(&mut self) -> bool;
}

/// The keys of a tree that may be lost, and where that is listed.
///
/// A walk goes up the keys, so the ranges begin one behind the other.
#[derive(Debug, Default)]
pub(super) struct LostRanges {
    ranges: Vec<(Fences, Option<usize>)>,
    /// For each range, whether one before it, or it, has no end, or else the highest end.
    reach: Vec<Option<Vec<u8>>>,
}

impl LostRanges {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn add(&mut self, fences: Fences, loss: Option<usize>) {
        let (fences, loss) = match self.ranges.len() {
            ..RANGES_MAX => (fences, loss),
            RANGES_MAX => ((fences.0, None), None),
            _ => return,
        };
        let before = self.reach.last().cloned().unwrap_or(Some(Vec::new()));
        let reach = before.zip(fences.1.clone()).map(|(before, until)| before.max(until));
        self.reach.push(reach);
        self.ranges.push((fences, loss));
    }

    /// Whether a key is in one of them; where that one is listed.
    pub(super) fn find(&self, key: &[u8]) -> Option<Option<usize>> {
        let begins = |range: &(Fences, _)| range.0.0.as_deref().is_none_or(|from| from <= key);
        let behind = self.ranges.partition_point(begins);
        let ranges = self.ranges[..behind].iter().zip(&self.reach[..behind]).rev();
        let reaching = |reach: &Option<Vec<u8>>| reach.as_deref().is_none_or(|reach| key < reach);
        let mut ranges = ranges.take_while(|(_, reach)| reaching(reach));
        let found = ranges.find(|(((_, until), _), _)| reaching(until));
        found.map(|((_, loss), _)| *loss)
    }
}

/// Pages that were taken, 64 to a word: a page belongs to one tree, and no walk goes in a circle.
#[derive(Debug, Default)]
pub(super) struct Claims {
    words: FxHashMap<u32, u64>,
}

impl Claims {
    fn claim(&mut self, first: PageId, count: u32) -> bool {
        let mut is_new = true;
        for page in first.0..first.0.saturating_add(count) {
            let word = self.words.entry(page / 64).or_default();
            is_new &= *word & (1 << (page % 64)) == 0;
            *word |= 1 << (page % 64);
        }
        is_new
    }

    fn has(&self, page: PageId) -> bool {
        self.words.get(&(page.0 / 64)).is_some_and(|word| word & (1 << (page.0 % 64)) != 0)
    }
}

/// A tree that is walked.
pub(super) struct Walker<'a> {
    pub(super) source: &'a Source,
    pub(super) claims: &'a mut Claims,
    pub(super) tree: TreeId,
    pub(super) name: &'a [u8],
    /// LSN of the state that was replayed, when the journal did not come to its end.
    pub(super) cut_at: Option<Lsn>,
    pub(super) lost: LostRanges,
    pub(super) is_stopped: bool,
}

impl Walker<'_> {
    /// Walks from the root down; its level is what it says itself.
    pub(super) fn walk(&mut self, root: PageId, visit: &mut dyn Visit) -> Result<()> {
        self.node(root, None, (None, None), visit)
    }

    /// Whether a page is younger than the state that was replayed.
    fn is_young(&self, page: &[u8]) -> bool {
        self.cut_at.is_some_and(|lsn| page::lsn(page) > lsn)
    }

    fn lose(&mut self, page: PageId, fences: Fences, what: String, visit: &mut dyn Visit) {
        let loss = Loss {
            tree: Some(self.name.to_vec()),
            page: Some(page),
            from: fences.0.clone(),
            until: fences.1.clone(),
            ..Loss::of(what)
        };
        let listed = visit.loss(loss);
        self.lost.add(fences, listed);
    }

    fn node(
        &mut self,
        id: PageId,
        level: Option<u8>,
        fences: Fences,
        visit: &mut dyn Visit,
    ) -> Result<()> {
        self.is_stopped |= !visit.page();
        if self.is_stopped {
            return Ok(());
        }
        if self.claims.has(id) {
            self.lose(id, fences, "it is used twice".to_owned(), visit);
            return Ok(());
        }
        let page = match self.source.page(id) {
            Ok(page) => page,
            Err(what) => {
                self.claims.claim(id, 1);
                self.lose(id, fences, what, visit);
                return Ok(());
            }
        };
        let bytes = &page.bytes[..];
        let found = page::level(bytes);
        let kind = page::kind(bytes);
        let is_node = matches!(kind, Some(PageKind::Leaf | PageKind::Branch));
        if !is_node || page::tree(bytes) != self.tree || level.is_some_and(|level| level != found) {
            // Not claimed: it is a page of someone else.
            self.lose(id, fences, "it is not the page that its parent means".to_owned(), visit);
            return Ok(());
        }
        self.claims.claim(id, 1);
        if let Some(what) = page.newest_is {
            let what = format!("{what}; an older state, of LSN {}, was taken", page::lsn(bytes));
            self.lose(id, fences.clone(), what, visit);
        } else if self.is_young(bytes) {
            // What it gave to pages that the replayed state does not know is found by their headers.
            self.lost.add(fences.clone(), None);
        }
        if kind == Some(PageKind::Leaf) {
            return self.leaf(&Leaf::new(bytes), &fences, visit, &mut |_| true);
        }
        self.branch(&Branch::new(bytes), found, &fences, visit)
    }

    fn branch(
        &mut self,
        branch: &Branch<'_>,
        level: u8,
        fences: &Fences,
        visit: &mut dyn Visit,
    ) -> Result<()> {
        if !(1..TREE_DEPTH_MAX).contains(&usize::from(level)) {
            return Ok(());
        }
        let separator =
            |i| (i < branch.len()).then(|| [branch.prefix(), branch.suffix(i)].concat());
        for i in 0..branch.len() {
            let low = if i == 0 { fences.0.clone() } else { separator(i) };
            let high = separator(i + 1).or_else(|| fences.1.clone());
            self.node(branch.child(i), Some(level - 1), (low, high), visit)?;
        }
        Ok(())
    }

    /// Takes those entries of a leaf that `wanted` asks for.
    pub(super) fn leaf(
        &mut self,
        leaf: &Leaf<'_>,
        fences: &Fences,
        visit: &mut dyn Visit,
        wanted: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<()> {
        let inside = |key: &[u8]| {
            fences.0.as_deref().is_none_or(|from| key >= from)
                && fences.1.as_deref().is_none_or(|until| key < until)
        };
        for i in 0..leaf.len() {
            let (suffix, value) = leaf.entry(i);
            let key = [leaf.prefix(), suffix].concat();
            if !inside(&key) || !wanted(&key) {
                continue;
            }
            match value {
                Value::Inline(bytes) => visit.entry(key, bytes)?,
                Value::Overflow(first, len) => self.value(leaf, key, (first, len), visit)?,
            }
        }
        Ok(())
    }

    fn value(
        &mut self,
        leaf: &Leaf<'_>,
        key: Vec<u8>,
        (first, value_len): (PageId, u64),
        visit: &mut dyn Visit,
    ) -> Result<()> {
        let wanted = Wanted {
            tree: self.tree,
            value_len,
            leaf_lsn: page::lsn(leaf.page()),
            is_leaf_young: self.is_young(leaf.page()),
        };
        // Two keys with one value: a short file would make a long database.
        let run = match self.claims.has(first) {
            true => Err(USED_TWICE.to_owned()),
            false => self.source.run(first, &wanted),
        };
        let run = run.and_then(|run| {
            let count = overflow::page_count(value_len, self.source.page_size);
            if self.claims.claim(first, count) {
                return Ok(run);
            }
            self.source.note_vain(&run);
            Err(USED_TWICE.to_owned())
        });
        match run.as_deref().map(overflow::value) {
            Ok(Some(value)) => visit.entry(key, value),
            failed => {
                let what = match failed {
                    Err(what) => what.clone(),
                    Ok(_) => "the value leaves its pages".to_owned(),
                };
                visit.loss(Loss {
                    tree: Some(self.name.to_vec()),
                    page: Some(first),
                    from: Some(key),
                    is_value: true,
                    ..Loss::of(what)
                });
                Ok(())
            }
        }
    }
}

/// A leaf that no walk has reached.
pub(super) struct Stray {
    pub(super) tree: TreeId,
    pub(super) bytes: Vec<u8>,
}

/// Goes through all pages for leaves that nothing leads to, of trees that `wanted` asks for. `page` is
/// called for each page, and says whether to go on.
pub(super) fn strays(
    source: &Source,
    claims: &mut Claims,
    cut_at: Option<Lsn>,
    wanted: &dyn Fn(TreeId) -> bool,
    page: &mut dyn FnMut() -> bool,
    found: &mut dyn FnMut(Stray, &mut Claims) -> Result<()>,
) -> Result<()> {
    for id in source.pages() {
        if !page() {
            return Ok(());
        }
        if claims.has(id) {
            continue;
        }
        let Ok(believed) = source.page(id) else { continue };
        let bytes = believed.bytes;
        let tree = page::tree(&bytes);
        let is_young = cut_at.is_some_and(|lsn| lsn > Lsn(0) && page::lsn(&bytes) > lsn);
        let is_leaf = page::kind(&bytes) == Some(PageKind::Leaf);
        if !is_leaf || !wanted(tree) || !(is_young || source.is_used(id).unwrap_or(true)) {
            continue;
        }
        claims.claim(id, 1);
        found(Stray { tree, bytes }, claims)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fences(from: &str, until: &str) -> Fences {
        let key = |text: &str| (!text.is_empty()).then(|| text.as_bytes().to_vec());
        (key(from), key(until))
    }

    #[test]
    fn keys_are_found_in_ranges_that_lie_in_one_another() {
        let mut lost = LostRanges::default();
        assert_eq!(lost.find(b"a"), None);
        for (number, (from, until)) in
            [("", "c"), ("b", "m"), ("d", "e"), ("p", "q")].iter().enumerate()
        {
            lost.add(fences(from, until), Some(number));
        }
        let found = |key: &str| lost.find(key.as_bytes()).flatten();
        assert_eq!((found(""), found("a"), found("b")), (Some(0), Some(0), Some(1)));
        assert_eq!((found("d"), found("e"), found("l")), (Some(2), Some(1), Some(1)));
        assert_eq!((found("m"), found("o"), found("p"), found("q")), (None, None, Some(3), None));
    }

    #[test]
    fn beyond_the_bound_everything_behind_is_one_range() {
        let mut lost = LostRanges::default();
        for number in 0..RANGES_MAX + 5 {
            let (from, until) = (format!("{number:08}"), format!("{number:08}5"));
            lost.add(fences(&from, &until), Some(number));
        }
        assert_eq!(lost.ranges.len(), RANGES_MAX + 1);
        assert_eq!(lost.find(b"00000007"), Some(Some(7)));
        assert_eq!(lost.find(b"000000079"), None);
        assert_eq!(lost.find(b"zzz"), Some(None));
    }
}
