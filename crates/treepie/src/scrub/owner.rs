//! Whose page it is: as its header says, or as the branches say, where it says nothing.

use std::{cell::Cell, collections::VecDeque};

use crate::{
    format::{
        node::Branch,
        page::{self, PageKind},
    },
    ids::{PageId, TreeId},
    pager::access::PageRead,
    txn::snapshot::{Snapshot, TreeInfo},
};

/// Most branches that are looked at for one page.
const BRANCHES_MAX: usize = 10_000;

/// The tree of `trees` that owns a page, and its name. `claimed` is what the page's header says; `NONE`
/// is what nobody owns. What is read for it is added to `read`, in bytes.
pub fn find(
    snapshot: &Snapshot,
    trees: &[TreeInfo],
    page: PageId,
    claimed: Option<TreeId>,
    read: &Cell<u64>,
) -> Option<(TreeId, Option<Vec<u8>>)> {
    match claimed {
        Some(TreeId::NONE) => return None,
        Some(TreeId::CATALOG) => return Some((TreeId::CATALOG, None)),
        Some(claimed) => {
            if let Some(info) = trees.iter().find(|info| info.id == claimed) {
                return Some((claimed, Some(info.name.clone())));
            }
        }
        None => {}
    }
    let mut left = BRANCHES_MAX;
    let owner = trees
        .iter()
        .find(|info| leads_to(snapshot, info.root, info.depth, page, &mut left))
        .map(|info| (info.id, Some(info.name.clone())));
    let branches = (BRANCHES_MAX - left) as u64;
    read.update(|bytes| bytes + branches * snapshot.pages().page_size() as u64);
    owner
}

/// Whether the page is the root, or a child of a branch below it.
fn leads_to(snapshot: &Snapshot, root: PageId, depth: u8, page: PageId, left: &mut usize) -> bool {
    if root == page {
        return true;
    }
    let pages = snapshot.pages();
    let mut branches = VecDeque::from([(root, depth.saturating_sub(1))]);
    while let Some((id, level)) = branches.pop_front() {
        if level == 0 || *left == 0 {
            continue;
        }
        *left -= 1;
        let Ok(bytes) = pages.page(id) else { continue };
        if page::kind(bytes) != Some(PageKind::Branch) {
            continue;
        }
        let branch = Branch::new(bytes);
        let children = (0..branch.len()).map(|i| branch.child(i));
        for child in children {
            if child == page {
                return true;
            }
            if level > 1 {
                branches.push_back((child, level - 1));
            }
        }
    }
    false
}
