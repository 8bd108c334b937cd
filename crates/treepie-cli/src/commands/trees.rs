//! `trees`: what trees there are.

use std::path::Path;

use serde::Serialize;
use treepie::TreeInfo;

use super::look;
use crate::{
    failure::Result,
    notation::{JsonBytes, Notation},
    output::{Output, bytes, grouped},
};

/// A tree, as JSON shows it.
#[derive(Serialize)]
pub struct TreeObject {
    name: JsonBytes,
    id: u32,
    root_page: u32,
    entries: u64,
    depth: u8,
    leaf_pages: u64,
    branch_pages: u64,
    overflow_pages: u64,
    payload_bytes: u64,
}

impl From<&TreeInfo> for TreeObject {
    fn from(tree: &TreeInfo) -> TreeObject {
        TreeObject {
            name: Notation::Text.json(&tree.name),
            id: tree.id.0,
            root_page: tree.root.0,
            entries: tree.entries,
            depth: tree.depth,
            leaf_pages: tree.leaf_pages,
            branch_pages: tree.branch_pages,
            overflow_pages: tree.overflow_pages,
            payload_bytes: tree.payload_len,
        }
    }
}

/// Lists the trees.
pub fn run(db: &Path, output: &mut Output) -> Result<()> {
    look(db, |db| {
        let trees = db.read()?.trees()?;
        if !output.is_json() {
            return trees.iter().try_for_each(|tree| output.line(text(tree)));
        }
        trees.iter().try_for_each(|tree| output.object(&TreeObject::from(tree)))
    })
}

/// A tree in one line.
pub fn text(tree: &TreeInfo) -> String {
    let pages = tree.leaf_pages + tree.branch_pages + tree.overflow_pages;
    format!(
        "{:<20} {:>12} entries  {:>10} of keys and values  {:>8} pages  depth {}",
        Notation::Text.show(&tree.name),
        grouped(tree.entries),
        bytes(tree.payload_len),
        grouped(pages),
        tree.depth,
    )
}
