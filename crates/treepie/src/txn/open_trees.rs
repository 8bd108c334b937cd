//! The trees that a write transaction has looked up or made, and how a savepoint undoes them.

use rustc_hash::FxHashMap;

use crate::tree::{Hint, TreeState};

/// A tree that the transaction has looked up or made.
#[derive(Debug)]
pub(super) struct OpenTree {
    pub name: Vec<u8>,
    pub state: TreeState,
    /// The state that the catalog has; `None` for a tree made in this transaction.
    pub stored: Option<TreeState>,
    pub hint: Hint,
    pub dropped: bool,
    /// Tells it from trees that had the same number before a savepoint was undone.
    pub serial: u64,
    /// The savepoint after which its state was saved last; 0 is the transaction itself.
    saved_in: u32,
}

/// All of them, found by name or by their number.
#[derive(Debug, Default)]
pub(super) struct OpenTrees {
    trees: Vec<OpenTree>,
    /// Trees opened so far, those included that a savepoint took away again.
    opened: u64,
    by_name: FxHashMap<Vec<u8>, usize>,
    undo: Vec<Before>,
    savepoint: u32,
    savepoint_count: u32,
}

/// What a tree was when a savepoint began.
#[derive(Debug)]
struct Before {
    index: usize,
    state: TreeState,
    dropped: bool,
    saved_in: u32,
}

/// Where a savepoint began.
#[derive(Clone, Copy, Debug)]
pub(super) struct TreesMark {
    tree_count: usize,
    undo_len: usize,
    outer: u32,
}

impl OpenTrees {
    /// The number of the tree of this name, if it is open and was not dropped.
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Whether a tree of this name was dropped in this transaction: the catalog's entry is gone, or
    /// there never was one.
    pub fn was_dropped(&self, name: &[u8]) -> bool {
        self.trees.iter().any(|open| open.dropped && open.name == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &OpenTree> {
        self.trees.iter()
    }

    /// Opens a tree; returns its number.
    pub fn add(&mut self, name: &[u8], state: TreeState, stored: Option<TreeState>) -> usize {
        let saved_in = self.savepoint;
        let hint = Hint::default();
        let name = name.to_owned();
        self.by_name.insert(name.clone(), self.trees.len());
        self.opened += 1;
        let serial = self.opened;
        self.trees.push(OpenTree { name, state, stored, hint, dropped: false, serial, saved_in });
        self.trees.len() - 1
    }

    /// The serial of a tree, if there is one of this number.
    pub fn serial(&self, index: usize) -> Option<u64> {
        self.trees.get(index).map(|open| open.serial)
    }

    /// A tree, to be changed.
    ///
    /// # Panics
    /// If no tree has this number.
    pub fn get_mut(&mut self, index: usize) -> &mut OpenTree {
        let open = &mut self.trees[index];
        if open.saved_in < self.savepoint {
            let (state, dropped, saved_in) = (open.state, open.dropped, open.saved_in);
            self.undo.push(Before { index, state, dropped, saved_in });
            open.saved_in = self.savepoint;
        }
        open
    }

    /// Notes that the tree is gone.
    pub fn drop_tree(&mut self, index: usize) {
        let open = self.get_mut(index);
        open.dropped = true;
        let name = std::mem::take(&mut open.name);
        self.by_name.remove(&name);
        self.trees[index].name = name;
    }

    pub fn begin_savepoint(&mut self) -> TreesMark {
        let (tree_count, undo_len) = (self.trees.len(), self.undo.len());
        let mark = TreesMark { tree_count, undo_len, outer: self.savepoint };
        self.savepoint_count += 1;
        self.savepoint = self.savepoint_count;
        mark
    }

    /// Closes the innermost savepoint and keeps what came after it.
    pub fn keep_savepoint(&mut self, mark: TreesMark) {
        self.savepoint = mark.outer;
        if mark.outer == 0 {
            self.undo.clear();
        }
    }

    /// Closes the innermost savepoint and undoes what came after it.
    pub fn undo_savepoint(&mut self, mark: TreesMark) {
        for open in self.trees.drain(mark.tree_count..) {
            if self.by_name.get(&open.name).is_some_and(|&index| index >= mark.tree_count) {
                self.by_name.remove(&open.name);
            }
        }
        while self.undo.len() > mark.undo_len {
            let before = self.undo.pop().expect("the log is longer than the mark");
            let Some(open) = self.trees.get_mut(before.index) else { continue };
            if open.dropped && !before.dropped {
                self.by_name.insert(open.name.clone(), before.index);
            }
            open.state = before.state;
            open.dropped = before.dropped;
            open.saved_in = before.saved_in;
        }
        // A hint names a page that may not be what it was.
        self.trees.iter_mut().for_each(|open| open.hint = Hint::default());
        self.savepoint = mark.outer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PageId, TreeId};

    fn state(entries: u64) -> TreeState {
        let mut state = TreeState::empty(TreeId(7), PageId(9));
        state.entries = entries;
        state
    }

    #[test]
    fn an_undone_savepoint_gives_dropped_and_changed_trees_back() {
        let mut open = OpenTrees::default();
        let (a, b) = (open.add(b"a", state(1), None), open.add(b"b", state(2), None));
        let mark = open.begin_savepoint();
        open.get_mut(a).state.entries = 10;
        open.drop_tree(b);
        open.add(b"b", state(20), None);
        open.add(b"c", state(30), None);
        open.undo_savepoint(mark);
        let entries: Vec<_> = open.iter().map(|tree| tree.state.entries).collect();
        assert_eq!(entries, [1, 2]);
        assert_eq!([open.find(b"a"), open.find(b"b"), open.find(b"c")], [Some(a), Some(b), None]);
        assert!(!open.was_dropped(b"b"));
    }

    #[test]
    fn a_tree_changed_before_and_after_an_inner_savepoint_goes_back_with_the_outer_one() {
        let mut open = OpenTrees::default();
        let tree = open.add(b"a", state(1), None);
        let outer = open.begin_savepoint();
        let inner = open.begin_savepoint();
        open.get_mut(tree).state.entries = 2;
        open.undo_savepoint(inner);
        assert_eq!(open.get_mut(tree).state.entries, 1);
        open.get_mut(tree).state.entries = 3;
        open.undo_savepoint(outer);
        assert_eq!(open.get_mut(tree).state.entries, 1);
    }
}
