//! Insertion, and how pages make room: build anew, share with a sibling, split.
//!
//! A full leaf is built anew when dead bytes or a longer prefix give room; else it shares its
//! entries with a sibling that has room, which keeps leaves about 80 % full under random
//! insertion; else it splits. An entry behind all others opens a new last leaf and leaves the old
//! one as full as it is, so ascending insertion fills leaves.

use crate::{
    error::{Error, Result},
    format::{
        node::{LEAF, Leaf, OVERFLOW_VALUE_SIZE, Value, array_size, encode_overflow},
        overflow,
    },
    ids::PageId,
    limits::{VALUE_LEN_MAX, key_len_max},
    pager::access::PageWrite,
};

use super::{
    search::{Path, leaf_at},
    slots::{self, Cell},
    split::NewEntry,
    state::{TreeState, counted},
};

/// Remembers the last leaf of a tree between insertions, so that ascending keys skip the search.
///
/// It belongs to one tree in one write transaction; whoever undoes changes starts a new one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hint {
    pub(super) last_leaf: Option<PageId>,
}

impl Hint {
    /// Forgets what it knows: the tree's structure changes.
    pub(super) fn forget(&mut self) {
        self.last_leaf = None;
    }
}

/// One tree in a write transaction, to be changed.
#[derive(Debug)]
pub struct Edit<'a, P> {
    pub(super) pages: &'a mut P,
    pub(super) state: &'a mut TreeState,
    pub(super) hint: &'a mut Hint,
}

impl<'a, P: PageWrite> Edit<'a, P> {
    /// Couples a tree with the pages of its transaction.
    #[inline]
    pub fn new(pages: &'a mut P, state: &'a mut TreeState, hint: &'a mut Hint) -> Edit<'a, P> {
        Edit { pages, state, hint }
    }

    /// Sets the value of `key`. Returns whether it had one.
    ///
    /// # Errors
    /// [`KeyTooLong`](Error::KeyTooLong), [`ValueTooLong`](Error::ValueTooLong), and those of reading
    /// and changing pages.
    #[inline]
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<bool> {
        let page_size = self.pages.page_size();
        check_lens(key, value, page_size)?;
        let inline = is_inline(key.len(), value.len(), page_size);
        if let Some(leaf) = self.hint.last_leaf
            && inline
            && append(self.pages, leaf, key, value)?
        {
            let count = self.state.count_entry(key.len() + value.len());
            self.counted(count)?;
            return Ok(false);
        }
        if inline {
            return self.put(key, value, false);
        }
        let run = self.pages.allocate_run(self.state.id, value)?;
        let run_pages = overflow::page_count(value.len() as u64, page_size);
        self.state.overflow_pages =
            self.counted(self.state.overflow_pages.checked_add(run_pages))?;
        let count = self.state.count_payload(value.len() - OVERFLOW_VALUE_SIZE);
        self.counted(count)?;
        self.put(key, &encode_overflow(run, value.len() as u64), true)
    }

    /// Sets what the leaf holds for `key`: its value, or where that is.
    fn put(&mut self, key: &[u8], payload: &[u8], overflow: bool) -> Result<bool> {
        let path = Path::find(self.pages, self.state, key)?;
        let leaf = leaf_at(self.pages, path.leaf)?;
        let (at, replaces) = match leaf.search(key) {
            Ok(at) => (at, true),
            Err(at) => (at, false),
        };
        let last = path.rightmost && at == leaf.len();
        let new = NewEntry { key, payload, overflow, at, replaces, last };
        if replaces {
            let count = self.state.count_payload(payload.len());
            self.counted(count)?;
            self.replace(path, &new)?;
            return Ok(true);
        }
        let count = self.state.count_entry(key.len() + payload.len());
        counted(self.pages, self.state.root, count)?;
        if let Some(suffix) = key.strip_prefix(leaf.prefix()) {
            let cell = Cell { suffix, payload, overflow };
            if slots::has_room(&leaf, &cell) {
                slots::insert::<LEAF>(&mut self.pages.page_mut(path.leaf)?, at, &cell);
                if last {
                    self.hint.last_leaf = Some(path.leaf);
                }
                return Ok(false);
            }
        }
        self.make_room(path, &new)?;
        Ok(false)
    }

    fn replace(&mut self, path: Path, new: &NewEntry<'_>) -> Result<()> {
        let old = leaf_at(self.pages, path.leaf)?.value(new.at);
        self.release(OldValue::of(old))?;
        let mut page = self.pages.page_mut(path.leaf)?;
        let suffix = new.key.get(Leaf::new(page.bytes()).prefix().len()..).unwrap_or(&[]);
        let cell = Cell { suffix, payload: new.payload, overflow: new.overflow };
        if slots::replace::<LEAF>(&mut page, new.at, &cell) {
            return Ok(());
        }
        drop(page);
        self.make_room(path, new)
    }

    /// Counts a value as gone, and frees its run.
    pub(super) fn release(&mut self, old: OldValue) -> Result<()> {
        self.state.payload_len = self.counted(self.state.payload_len.checked_sub(old.len))?;
        let Some(run) = old.run else { return Ok(()) };
        let run_pages = overflow::page_count(old.len.min(VALUE_LEN_MAX), self.pages.page_size());
        self.state.overflow_pages =
            self.counted(self.state.overflow_pages.checked_sub(run_pages))?;
        self.pages.free_run(run, old.len)
    }

    #[inline]
    pub(super) fn counted<T>(&self, count: Option<T>) -> Result<T> {
        counted(self.pages, self.state.root, count)
    }
}

fn check_lens(key: &[u8], value: &[u8], page_size: usize) -> Result<()> {
    let (key_max, value_len) = (key_len_max(page_size), value.len() as u64);
    if key.len() > key_max {
        return Err(Error::KeyTooLong { len: key.len(), max: key_max });
    }
    if value_len > VALUE_LEN_MAX {
        return Err(Error::ValueTooLong { len: value_len, max: VALUE_LEN_MAX });
    }
    Ok(())
}

/// Whether a value stays in its leaf: an entry takes at most a quarter of a page. It does not
/// depend on the page, so that an entry never has to move when its page is built anew.
fn is_inline(key_len: usize, value_len: usize, page_size: usize) -> bool {
    array_size(LEAF) + LEAF + key_len + value_len <= page_size / 4
}

/// Appends behind all entries of the last leaf, if the key belongs there and fits.
#[inline]
fn append<P: PageWrite>(pages: &mut P, leaf: PageId, key: &[u8], value: &[u8]) -> Result<bool> {
    let mut page = pages.page_mut(leaf)?;
    let node = Leaf::new(page.bytes());
    let Some(suffix) = key.strip_prefix(node.prefix()) else { return Ok(false) };
    let count = node.len();
    let cell = Cell { suffix, payload: value, overflow: false };
    if count == 0 || suffix <= node.suffix(count - 1) || !slots::has_room(&node, &cell) {
        return Ok(false);
    }
    slots::insert::<LEAF>(&mut page, count, &cell);
    Ok(true)
}

/// A value that leaves the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct OldValue {
    len: u64,
    run: Option<PageId>,
}

impl OldValue {
    pub fn of(value: Value<'_>) -> OldValue {
        match value {
            Value::Inline(bytes) => OldValue { len: bytes.len() as u64, run: None },
            Value::Overflow(id, len) => OldValue { len, run: Some(id) },
        }
    }
}
