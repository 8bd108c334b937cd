//! Damage that a copy meets: an error, or, where it is told to go on, an item of a list.

use std::{cell::Cell, ops::Range, panic::Location};

use crate::{
    error::{Damage, Error, Result, Structure},
    format::{bitmap::is_fixed, page},
    ids::{PageId, TreeId},
    recovery::DATA_FILE,
    scrub::{FoundDamage, damage::DAMAGE_MAX, owner},
    txn::snapshot::Snapshot,
};

use super::PageCopy;

const ADVICE: &str = "it is not in the copy; restore it from an earlier one";

/// Damaged pages, and what is wrong with them.
pub(super) struct Found {
    pages: Range<u32>,
    what: Damage,
    /// The tree that the first page's header names, where that is its own.
    tree: Option<TreeId>,
}

impl Found {
    /// Pages from the first of which these bytes were read.
    pub(super) fn new(pages: Range<u32>, bytes: &[u8], what: Damage) -> Found {
        let is_own = page::page_id(bytes).0 == pages.start;
        Found { pages, what, tree: is_own.then(|| page::tree(bytes)) }
    }

    /// A run whose first page names this tree.
    pub(super) fn of_tree(pages: Range<u32>, tree: TreeId, what: Damage) -> Found {
        Found { pages, what, tree: Some(tree) }
    }

    /// A free-space bitmap.
    pub(super) fn bitmap(id: PageId, what: Damage) -> Found {
        Found { pages: id.0..id.0 + 1, what, tree: Some(TreeId::NONE) }
    }
}

impl PageCopy {
    /// Says what is damaged.
    ///
    /// # Errors
    /// [`Error::Corrupt`], unless damage is to be left out.
    pub(super) fn found(&mut self, found: Found) -> Result<()> {
        let Found { pages, what, tree } = found;
        let page_size = self.page_size() as u64;
        let (page, offset) = (PageId(pages.start), u64::from(pages.start) * page_size);
        let len = pages.len() as u64 * page_size;
        // The inside of a run whose first page is damaged has no headers.
        if let Some(last) = self.damage.last_mut()
            && (last.offset + last.len == offset && tree.is_none())
        {
            last.len += len;
            return Ok(());
        }
        let fixed = is_fixed(page, self.page_size()).then_some(TreeId::NONE);
        let has_room = self.damage.len() < DAMAGE_MAX;
        let owner = if has_room { self.owner(page, fixed.or(tree)) } else { None };
        let file = self.core.path.join(DATA_FILE);
        if !self.skip_damage {
            let what = of_tree(what, page, owner.map_or(TreeId::NONE, |(tree, _)| tree));
            tracing::error!(page = page.0, %what, "a copy has met a damaged page");
            return Err(Error::Corrupt { file, offset, what });
        }
        self.damage_count += 1;
        if has_room {
            let (tree, tree_name) = owner.map_or((None, None), |(id, name)| (Some(id), name));
            let item = FoundDamage {
                len,
                page: Some(page),
                tree,
                tree_name,
                found_us: self.core.disk.now_us(),
                ..FoundDamage::new(file, offset, what.to_string(), ADVICE)
            };
            tracing::error!(damage = %item, "a copy leaves a damaged page out");
            self.damage.push(item);
        }
        Ok(())
    }

    /// Whose page it is, as of the newest commit.
    fn owner(&self, page: PageId, claimed: Option<TreeId>) -> Option<(TreeId, Option<Vec<u8>>)> {
        let snapshot = Snapshot::open(&self.core, Location::caller()).ok()?;
        let trees = snapshot.trees().unwrap_or_default();
        owner::find(&snapshot, &trees, page, claimed, &Cell::new(0))
    }
}

/// The same damage of a page whose tree is known.
fn of_tree(what: Damage, page: PageId, tree: TreeId) -> Damage {
    let structure = Structure::Page(page, tree);
    match what {
        Damage::Checksum { stored, computed, .. } => {
            Damage::Checksum { structure, stored, computed }
        }
        Damage::Layout { what, .. } => Damage::Layout { structure, what },
        other => other,
    }
}
