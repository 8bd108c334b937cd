//! The trees of the new database, found by number and by name.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::ids::TreeId;

use super::report::SalvagedTree;

/// The trees that were saved so far.
#[derive(Debug, Default)]
pub(super) struct SavedTrees {
    trees: Vec<SalvagedTree>,
    /// Where in the list each one is; a hostile catalog may have a number twice: the first one.
    places: FxHashMap<TreeId, usize>,
    names: FxHashSet<Vec<u8>>,
}

impl SavedTrees {
    pub(super) fn trees(&self) -> &[SalvagedTree] {
        &self.trees
    }

    pub(super) fn into_trees(self) -> Vec<SalvagedTree> {
        self.trees
    }

    pub(super) fn add(&mut self, tree: SalvagedTree) {
        self.places.entry(tree.id).or_insert(self.trees.len());
        self.names.insert(tree.name.clone());
        self.trees.push(tree);
    }

    /// Counts entries of a tree, which is new where it was not there yet.
    pub(super) fn add_entries(&mut self, id: TreeId, name: &[u8], added: u64) {
        match self.places.get(&id).and_then(|place| self.trees.get_mut(*place)) {
            Some(tree) => tree.entries += added,
            None => {
                let name = name.to_vec();
                self.add(SalvagedTree { name, id, entries: added, expected: None });
            }
        }
    }

    /// A name for a tree whose own is lost, which no other tree has.
    pub(super) fn name_for(&self, id: TreeId) -> Vec<u8> {
        let mut name = format!("tree-{id}").into_bytes();
        while self.names.contains(&name) {
            name.push(b'-');
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_by_number_and_lost_names_are_free_ones() {
        let mut saved = SavedTrees::default();
        let tree = |name: &str, id| SalvagedTree {
            name: name.as_bytes().to_vec(),
            id: TreeId(id),
            entries: 1,
            expected: None,
        };
        saved.add(tree("birds", 3));
        saved.add(tree("tree-4", 5));
        saved.add_entries(TreeId(3), b"another name", 2);
        assert_eq!(saved.name_for(TreeId(4)), b"tree-4-");
        saved.add_entries(TreeId(4), b"tree-4-", 7);
        saved.add_entries(TreeId(4), b"tree-4-", 1);
        let counts: Vec<_> = saved.trees().iter().map(|tree| (tree.id.0, tree.entries)).collect();
        assert_eq!(counts, [(3, 3), (5, 1), (4, 8)]);
    }
}
