//! The check of one tree: every page that its state leads to, and the state itself.

use crate::{
    error::Result,
    format::{
        node::{self, Branch, LEAF, Leaf, Node, Value},
        overflow, page,
    },
    ids::{PageId, TreeId},
    limits::{TREE_DEPTH_MAX, VALUE_LEN_MAX},
    pager::access::PageRead,
};

use super::{
    key::Key,
    search::{branch_at, leaf_at},
    state::TreeState,
};

/// Most damage of one tree that is listed: a list of all of it could be longer than the tree.
const DAMAGE_MAX: usize = 10_000;

/// Something wrong with a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeDamage {
    /// The tree.
    pub tree: TreeId,
    /// The page where it was found.
    pub page: PageId,
    /// What is wrong.
    pub what: String,
}

/// What a tree consists of, counted page by page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeStatistics {
    /// Levels, as the state says.
    pub depth: u8,
    /// Entries.
    pub entries: u64,
    /// Bytes of all keys and values.
    pub payload_len: u64,
    /// Leaf pages.
    pub leaf_pages: u64,
    /// Branch pages.
    pub branch_pages: u64,
    /// Pages of all runs.
    pub overflow_pages: u64,
    /// Bytes of the leaves that hold something.
    pub leaf_used_len: u64,
    /// Bytes of the branches that hold something.
    pub branch_used_len: u64,
    /// Bytes of values in runs.
    pub overflow_len: u64,
}

impl TreeStatistics {
    /// How full the leaves are, from 0 to 1.
    #[must_use]
    pub fn leaf_fill(&self, page_size: usize) -> f64 {
        self.leaf_used_len as f64 / (self.leaf_pages.max(1) as f64 * page_size as f64)
    }
}

/// Reads a whole tree, and returns what it consists of and its damage, the first 10,000 items of it.
///
/// `claim` is called with every page and run (first page, page count) that the tree leads to, and
/// returns whether nobody has claimed a page of it before; what is claimed twice is not entered.
pub fn check<P: PageRead>(
    pages: &P,
    state: &TreeState,
    claim: &mut dyn FnMut(PageId, u32) -> bool,
) -> (TreeStatistics, Vec<TreeDamage>) {
    let statistics = TreeStatistics { depth: state.depth, ..TreeStatistics::default() };
    let mut check = Check { pages, state, claim, statistics, damage: Vec::new() };
    if (1..=TREE_DEPTH_MAX).contains(&usize::from(state.depth)) {
        check.page(state.root, state.root_level(), (None, None));
        check.compare_state();
    } else {
        check.report(state.root, "the tree's depth is out of range");
    }
    (check.statistics, check.damage)
}

/// The keys that a page may hold: not below the first, below the second.
type Fences<'k> = (Option<Key<'k>>, Option<Key<'k>>);

struct Check<'a, P> {
    pages: &'a P,
    state: &'a TreeState,
    claim: &'a mut dyn FnMut(PageId, u32) -> bool,
    statistics: TreeStatistics,
    damage: Vec<TreeDamage>,
}

impl<'a, P: PageRead> Check<'a, P> {
    fn report(&mut self, page: PageId, what: impl Into<String>) {
        if self.damage.len() >= DAMAGE_MAX {
            return;
        }
        self.damage.push(TreeDamage { tree: self.state.id, page, what: what.into() });
    }

    fn page(&mut self, id: PageId, level: u8, fences: Fences<'a>) {
        if !(self.claim)(id, 1) {
            return self.report(id, "the page is used twice");
        }
        let entered = if level == 0 {
            self.statistics.leaf_pages += 1;
            leaf_at(self.pages, id).and_then(|leaf| self.valid(id, leaf)).map(|leaf| {
                self.statistics.leaf_used_len += leaf.used_len() as u64;
                self.leaf(id, &leaf, fences);
            })
        } else {
            self.statistics.branch_pages += 1;
            branch_at(self.pages, id, level).and_then(|b| self.valid(id, b)).map(|branch| {
                self.statistics.branch_used_len += branch.used_len() as u64;
                self.branch(id, level, &branch, fences);
            })
        };
        if let Err(error) = entered {
            self.report(id, error.to_string());
        }
    }

    /// Checks what the page says of itself.
    fn valid<const KIND: usize>(&self, id: PageId, node: Node<'a, KIND>) -> Result<Node<'a, KIND>> {
        if page::page_id(node.page()) != id {
            return Err(self.pages.damaged(id, "another page's bytes are in its place"));
        }
        if page::tree(node.page()) != self.state.id {
            return Err(self.pages.damaged(id, "the page belongs to another tree"));
        }
        match node::validate(node.page()) {
            Ok(()) => Ok(node),
            Err(crate::Damage::Layout { what, .. }) => Err(self.pages.damaged(id, what)),
            Err(_) => Err(self.pages.damaged(id, "the page is damaged")),
        }
    }

    fn leaf(&mut self, id: PageId, leaf: &Leaf<'a>, fences: Fences<'a>) {
        if leaf.is_empty() && id != self.state.root {
            return self.report(id, "the leaf is empty");
        }
        self.inside(id, leaf, 0, fences);
        self.statistics.entries += leaf.len() as u64;
        for i in 0..leaf.len() {
            let (suffix, value) = leaf.entry(i);
            self.statistics.payload_len += (leaf.prefix().len() + suffix.len()) as u64;
            match value {
                Value::Inline(bytes) => self.statistics.payload_len += bytes.len() as u64,
                Value::Overflow(run, len) => {
                    self.statistics.payload_len += len;
                    self.run(run, len);
                }
            }
        }
    }

    fn run(&mut self, id: PageId, value_len: u64) {
        let page_count = overflow::page_count(value_len.min(VALUE_LEN_MAX), self.pages.page_size());
        self.statistics.overflow_pages += u64::from(page_count);
        self.statistics.overflow_len += value_len;
        if !(self.claim)(id, page_count) {
            return self.report(id, "the run is used twice");
        }
        match self.pages.run(id, value_len) {
            Ok(value) if value.len() as u64 == value_len => {}
            Ok(_) => self.report(id, "the run holds a value of another length"),
            Err(error) => self.report(id, error.to_string()),
        }
    }

    fn branch(&mut self, id: PageId, level: u8, branch: &Branch<'a>, fences: Fences<'a>) {
        if id == self.state.root && branch.len() < 2 {
            self.report(id, "the root has a single child");
        }
        self.inside(id, branch, 1, fences);
        let separator = |i| (i < branch.len()).then(|| Key::new(branch.prefix(), branch.suffix(i)));
        for i in 0..branch.len() {
            let low = if i == 0 { fences.0 } else { separator(i) };
            self.page(branch.child(i), level - 1, (low, separator(i + 1).or(fences.1)));
        }
    }

    /// Checks that the keys from `first` on are inside the fences; they ascend.
    fn inside<const KIND: usize>(
        &mut self,
        id: PageId,
        node: &Node<'a, KIND>,
        first: usize,
        (low, high): Fences<'a>,
    ) {
        if first >= node.len() {
            return;
        }
        let key = |i| Key::new(node.prefix(), node.suffix(i));
        let below = match KIND {
            LEAF => low.is_some_and(|low| key(first) < low),
            _ => low.is_some_and(|low| key(first) <= low),
        };
        if below || high.is_some_and(|high| key(node.len() - 1) >= high) {
            self.report(id, "keys are not between the separators that lead to the page");
        }
    }

    fn compare_state(&mut self) {
        let (state, found) = (self.state, self.statistics);
        let counts = [
            ("entries", state.entries, found.entries),
            ("bytes of keys and values", state.payload_len, found.payload_len),
            ("leaf pages", u64::from(state.leaf_pages), found.leaf_pages),
            ("branch pages", u64::from(state.branch_pages), found.branch_pages),
            ("overflow pages", u64::from(state.overflow_pages), found.overflow_pages),
        ];
        for (what, stated, found) in counts {
            if stated != found {
                self.report(state.root, format!("the tree has {found} {what}, not {stated}"));
            }
        }
    }
}
