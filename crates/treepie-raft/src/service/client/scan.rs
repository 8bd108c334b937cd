//! Entries in order, page by page.

use std::{
    ops::{Bound, RangeBounds},
    vec::IntoIter,
};

use treepie::ids::Lsn;

use super::{
    super::message::{Consistency, ENTRIES_MAX, Scan},
    Client, ClientError,
    transaction::owned,
};

/// Bytes of a page that is asked for.
const PAGE_LEN: u32 = 256 << 10;

/// Which entries of a tree.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    reverse: bool,
    limit: u64,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        let (from, to) = (Bound::Unbounded, Bound::Unbounded);
        ScanOptions { from, to, reverse: false, limit: u64::MAX }
    }
}

impl ScanOptions {
    /// All of them, from the lowest key up.
    #[must_use]
    pub fn new() -> ScanOptions {
        ScanOptions::default()
    }

    /// Only those whose keys lie in `keys`.
    #[must_use]
    pub fn range<K: AsRef<[u8]>>(mut self, keys: impl RangeBounds<K>) -> ScanOptions {
        (self.from, self.to) = (owned(keys.start_bound()), owned(keys.end_bound()));
        self
    }

    /// Only those whose keys begin with `prefix`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> ScanOptions {
        let prefix = prefix.as_ref();
        self.from = Bound::Included(prefix.to_vec());
        // The first key behind all that begin so, if there can be one.
        let raised = prefix.iter().rposition(|byte| *byte != u8::MAX);
        self.to = raised.map_or(Bound::Unbounded, |last| {
            let mut next = prefix[..=last].to_vec();
            next[last] += 1;
            Bound::Excluded(next)
        });
        self
    }

    /// From the highest key down.
    #[must_use]
    pub fn reverse(mut self) -> ScanOptions {
        self.reverse = true;
        self
    }

    /// So many, at most.
    #[must_use]
    pub fn limit(mut self, count: u64) -> ScanOptions {
        self.limit = count;
        self
    }
}

/// Entries of a tree, in order. It asks for the next page when the one before is used up.
#[derive(Debug)]
pub struct Scanned {
    client: Client,
    tree: Vec<u8>,
    options: ScanOptions,
    page: IntoIter<(Vec<u8>, Vec<u8>)>,
    has_more: bool,
    lsn: Option<Lsn>,
}

impl Scanned {
    pub(super) fn new(client: Client, tree: Vec<u8>, options: ScanOptions) -> Scanned {
        let page = Vec::new().into_iter();
        Scanned { client, tree, options, page, has_more: true, lsn: None }
    }

    /// LSN of the state that the last page was read from.
    #[must_use]
    pub fn lsn(&self) -> Option<Lsn> {
        self.lsn
    }

    fn next_page(&mut self) -> Result<(), ClientError> {
        let options = &self.options;
        let page = self.client.page(Scan {
            tree: self.tree.clone(),
            from: options.from.clone(),
            to: options.to.clone(),
            reverse: options.reverse,
            entries_max: u32::try_from(options.limit).unwrap_or(u32::MAX).min(ENTRIES_MAX),
            bytes_max: PAGE_LEN,
        })?;
        let lsn = page.lsn;
        self.has_more = page.value.has_more;
        if let Some((key, _)) = page.value.entries.last() {
            let edge = Bound::Excluded(key.clone());
            match self.options.reverse {
                true => self.options.to = edge,
                false => self.options.from = edge,
            }
        }
        self.page = page.value.entries.into_iter();
        if self.lsn.is_none() {
            self.client = self.client.reading(Consistency::AtLeast(lsn.0));
        }
        self.lsn = Some(lsn);
        Ok(())
    }
}

impl Iterator for Scanned {
    type Item = Result<(Vec<u8>, Vec<u8>), ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.options.limit == 0 {
                return None;
            }
            if let Some(entry) = self.page.next() {
                self.options.limit -= 1;
                return Some(Ok(entry));
            }
            if !self.has_more {
                return None;
            }
            if let Err(error) = self.next_page() {
                self.has_more = false;
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_before_the_first_key_behind_it() {
        let to = |prefix: &[u8]| ScanOptions::new().prefix(prefix).to;
        assert_eq!(to(b"ab"), Bound::Excluded(b"ac".to_vec()));
        assert_eq!(to(b"a\xff\xff"), Bound::Excluded(b"b".to_vec()));
        assert_eq!(to(b"\xff"), Bound::Unbounded);
        assert_eq!(to(b""), Bound::Unbounded);
    }
}
