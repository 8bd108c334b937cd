//! Names of files and folders, and what changes them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub(crate) type FileId = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Dir,
    File(FileId),
}

/// One change of a folder. Each may be lost alone in a power cut until the folder is synced.
#[derive(Clone, Debug)]
pub(crate) enum NameChange {
    Create { path: PathBuf, node: Node },
    Rename { file: FileId, to: PathBuf },
    Remove { file: FileId, path: PathBuf },
}

impl NameChange {
    /// The folder whose sync makes it durable.
    pub(crate) fn dir(&self) -> &Path {
        match self {
            NameChange::Create { path, .. } | NameChange::Remove { path, .. } => parent(path),
            NameChange::Rename { to, .. } => parent(to),
        }
    }
}

/// All names of a disk. The root (`/`, or the empty path) is always there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Names {
    pub(crate) fn get(&self, path: &Path) -> Option<Node> {
        if is_root(path) { Some(Node::Dir) } else { self.nodes.get(path).copied() }
    }

    pub(crate) fn is_dir(&self, path: &Path) -> bool {
        self.get(path) == Some(Node::Dir)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PathBuf, Node)> {
        self.nodes.iter().map(|(path, &node)| (path, node))
    }

    /// Applies a change, also where an earlier one was lost: a rename leaves the file under its
    /// new name alone, a removal spares another file that has the name.
    pub(crate) fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Create { path, node } => {
                self.nodes.insert(path.clone(), *node);
            }
            NameChange::Rename { file, to } => {
                self.nodes.retain(|_, node| *node != Node::File(*file));
                self.nodes.insert(to.clone(), Node::File(*file));
            }
            NameChange::Remove { file, path } => {
                if self.nodes.get(path) == Some(&Node::File(*file)) {
                    self.nodes.remove(path);
                }
            }
        }
    }

    /// Drops what lies in folders that are not there.
    pub(crate) fn drop_orphans(&mut self) {
        let whole = self.clone();
        self.nodes.retain(|path, _| path.ancestors().skip(1).all(|folder| whole.is_dir(folder)));
    }
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn is_root(path: &Path) -> bool {
    path == Path::new("") || path == Path::new("/")
}

/// Whether two paths are the same folder; the root has two spellings.
pub(crate) fn same_dir(a: &Path, b: &Path) -> bool {
    a == b || (is_root(a) && is_root(b))
}
