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
    RenameDir { from: PathBuf, to: PathBuf },
    RemoveDir { path: PathBuf },
}

impl NameChange {
    /// The folder whose sync makes it durable.
    pub(crate) fn dir(&self) -> &Path {
        match self {
            NameChange::Create { path, .. }
            | NameChange::Remove { path, .. }
            | NameChange::RemoveDir { path } => parent(path),
            NameChange::Rename { to, .. } | NameChange::RenameDir { to, .. } => parent(to),
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

    /// Whether nothing is in a folder, or there is none.
    pub(crate) fn is_empty_dir(&self, path: &Path) -> bool {
        !self.nodes.keys().any(|inner| inner != path && inner.starts_with(path))
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
            NameChange::RenameDir { from, to } => self.rename_dir(from, to),
            // Where a removal of what was in it is lost, the folder is too.
            NameChange::RemoveDir { path } if self.is_empty_dir(path) => {
                self.nodes.remove(path);
            }
            NameChange::RemoveDir { .. } => {}
        }
    }

    /// A folder takes what is in it along; where an earlier change was lost, what is there.
    fn rename_dir(&mut self, from: &Path, to: &Path) {
        let moved: Vec<PathBuf> =
            self.nodes.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let node = self.nodes.remove(&path).expect("it was just seen");
            let inner = path.strip_prefix(from).expect("it begins so");
            let new = if inner == Path::new("") { to.to_owned() } else { to.join(inner) };
            self.nodes.insert(new, node);
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
