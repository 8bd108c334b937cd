//! The catalog: the tree of tree names, and the rules for names.
//!
//! Its root page has a fixed number. Its entry with the empty key describes itself and holds the
//! number of the next tree; every other key is the name of a tree, its value the tree's state
//! (`format::catalog`). States are written back once per transaction, when it commits.

use crate::{
    error::{Damage, Error, Result},
    format::{bitmap::CATALOG_ROOT, catalog, page},
    ids::TreeId,
    limits::TREE_NAME_LEN_MAX,
    pager::access::{PageRead, PageWrite},
    tree::{self, Edit, Hint, TreeState},
};

/// Key of the catalog's entry about itself.
const OWN_KEY: &[u8] = b"";
/// First number that a tree gets: `$metadata` has it.
const FIRST_TREE: u32 = 2;
/// The tree in which the engine keeps what it knows of the database.
pub const METADATA: &[u8] = b"$metadata";

/// Refuses names that a user may not give.
///
/// # Errors
/// [`Error::TreeName`].
pub fn check_name(name: &[u8]) -> Result<()> {
    let reason = if name.is_empty() {
        "a name has at least one byte"
    } else if name.len() > TREE_NAME_LEN_MAX {
        "a name has at most 512 bytes"
    } else if name[0] == b'$' {
        "names that begin with `$` belong to the engine"
    } else {
        return Ok(());
    };
    Err(Error::TreeName { name: name.to_owned(), reason })
}

/// The catalog as a transaction sees it.
#[derive(Clone, Debug)]
pub struct Catalog {
    state: TreeState,
    next_tree: u32,
    hint: Hint,
}

impl Catalog {
    /// Reads the catalog's entry about itself.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn open<P: PageRead>(pages: &P) -> Result<Catalog> {
        let root = pages.page(CATALOG_ROOT)?;
        let mut state = TreeState::empty(TreeId::CATALOG, CATALOG_ROOT);
        state.depth = page::level(root).saturating_add(1);
        let entry = tree::get(pages, &state, OWN_KEY)?
            .ok_or_else(|| pages.damaged(CATALOG_ROOT, "the catalog does not describe itself"))?;
        let (own, next_tree) = catalog::decode_own(entry).map_err(|what| damaged(pages, what))?;
        if own.root != CATALOG_ROOT || own.depth != state.depth {
            return Err(pages.damaged(CATALOG_ROOT, "the catalog describes another tree"));
        }
        Ok(Catalog { state: own, next_tree, hint: Hint::default() })
    }

    /// Makes the catalog of a new database, whose root page exists.
    ///
    /// # Errors
    /// Those of writing pages.
    pub fn create<P: PageWrite>(pages: &mut P) -> Result<Catalog> {
        let state = TreeState::empty(TreeId::CATALOG, CATALOG_ROOT);
        let mut new = Catalog { state, next_tree: FIRST_TREE, hint: Hint::default() };
        let blank = catalog::encode_own(&state, FIRST_TREE);
        new.edit(pages).insert(OWN_KEY, &blank)?;
        Ok(new)
    }

    fn edit<'a, P: PageWrite>(&'a mut self, pages: &'a mut P) -> Edit<'a, P> {
        Edit::new(pages, &mut self.state, &mut self.hint)
    }

    /// The state of the catalog itself.
    pub fn state(&self) -> &TreeState {
        &self.state
    }

    /// Looks a tree up.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn find<P: PageRead>(&self, pages: &P, name: &[u8]) -> Result<Option<TreeState>> {
        match tree::get(pages, &self.state, name)? {
            Some(entry) => decode(pages, entry).map(Some),
            None => Ok(None),
        }
    }

    /// Makes an empty tree; its entry is written by `put`.
    ///
    /// # Errors
    /// Those of writing pages, [`Error::Bound`] when all numbers are used.
    pub fn create_tree<P: PageWrite>(&mut self, pages: &mut P) -> Result<TreeState> {
        let id = TreeId(self.next_tree);
        self.next_tree = self.next_tree.checked_add(1).ok_or(Error::Bound {
            option: "tree count",
            max: u64::from(u32::MAX),
            hint: "numbers of trees are never used again; copy the database into a new one",
        })?;
        tree::create(pages, id)
    }

    /// Writes the state of a tree.
    ///
    /// # Errors
    /// Those of writing pages.
    pub fn put<P: PageWrite>(
        &mut self,
        pages: &mut P,
        name: &[u8],
        state: &TreeState,
    ) -> Result<()> {
        let entry = state.encode();
        self.edit(pages).insert(name, &entry).map(|_| ())
    }

    /// Removes the entry of a tree.
    ///
    /// # Errors
    /// Those of writing pages.
    pub fn remove<P: PageWrite>(&mut self, pages: &mut P, name: &[u8]) -> Result<bool> {
        self.edit(pages).remove(name)
    }

    /// Writes the catalog's entry about itself, after everything else: it has the length that it
    /// had, so nothing moves and no counter changes.
    ///
    /// # Errors
    /// Those of writing pages.
    pub fn put_own<P: PageWrite>(&mut self, pages: &mut P) -> Result<()> {
        let before = self.state;
        let entry = catalog::encode_own(&self.state, self.next_tree);
        self.edit(pages).insert(OWN_KEY, &entry)?;
        if before != self.state {
            return Err(pages.damaged(CATALOG_ROOT, "another tree uses pages of the catalog"));
        }
        Ok(())
    }

    /// All trees with their names, those of the engine included, in the order of their names.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn list<P: PageRead>(&self, pages: &P) -> Result<Vec<(Vec<u8>, TreeState)>> {
        self.entries(pages).collect()
    }

    /// The same one by one; ends behind the first error.
    pub fn entries<'p, P: PageRead>(
        &self,
        pages: &'p P,
    ) -> impl Iterator<Item = Result<(Vec<u8>, TreeState)>> + use<'p, P> {
        let range = tree::Range::new(
            pages,
            &self.state,
            std::ops::Bound::Excluded(OWN_KEY),
            std::ops::Bound::Unbounded,
        );
        range.map(|entry| {
            let (name, state) = entry?;
            Ok((name.to_vec(), decode(pages, state)?))
        })
    }
}

fn decode<P: PageRead>(pages: &P, entry: &[u8]) -> Result<TreeState> {
    let state = TreeState::decode(entry).map_err(|what| damaged(pages, what))?;
    if state.id == TreeId::CATALOG || state.root == CATALOG_ROOT {
        return Err(pages.damaged(CATALOG_ROOT, "a tree has the number or the root of the catalog"));
    }
    Ok(state)
}

fn damaged<P: PageRead>(pages: &P, what: Damage) -> Error {
    let what = match what {
        Damage::Layout { what, .. } => what,
        _ => "the entry of a tree is damaged",
    };
    pages.damaged(CATALOG_ROOT, what)
}
