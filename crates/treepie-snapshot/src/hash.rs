//! Digests, and the hash of a set of pages, which a stream and a database have in common.
//!
//! What is hashed is in `format/trailer.rs`. Groups are hashed by themselves, so that threads can share
//! them.

use std::fmt;

use treepie::ids::PageId;

use crate::{
    format::pages::{PageTable, group_of, zero_page},
    limits::GROUP_PAGES,
};

/// A BLAKE3 hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Digest> {
        parse_hex(text.as_bytes()).map(Digest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 32 bytes of 64 hexadecimal digits.
pub(crate) fn parse_hex(text: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        for digit in digits {
            let value = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(value).ok()?;
        }
    }
    Some(bytes)
}

/// The hash of one group of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHash {
    /// Number of the group: that of its first page divided by 128.
    pub group: u32,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Hashes pages that come in ascending order, group by group.
#[derive(Clone, Debug)]
pub struct GroupHasher {
    page_size: usize,
    group: u32,
    numbers: Vec<u8>,
    hasher: blake3::Hasher,
}

impl GroupHasher {
    /// Begins.
    #[must_use]
    pub fn new(page_size: usize) -> GroupHasher {
        let numbers = Vec::with_capacity(GROUP_PAGES * 4);
        GroupHasher { page_size, group: 0, numbers, hasher: blake3::Hasher::new() }
    }

    /// Takes consecutive pages; hands on the hashes of groups that are complete.
    ///
    /// # Panics
    /// If `bytes` are not whole pages.
    pub fn push(&mut self, first: PageId, mut bytes: &[u8], done: &mut impl FnMut(GroupHash)) {
        assert!(bytes.len().is_multiple_of(self.page_size), "{} bytes are no pages", bytes.len());
        let mut page = first.0;
        while !bytes.is_empty() {
            let left = GROUP_PAGES - page as usize % GROUP_PAGES;
            let count = left.min(bytes.len() / self.page_size);
            let (piece, rest) = bytes.split_at(count * self.page_size);
            self.begin(page, count, done);
            self.hasher.update(piece);
            (bytes, page) = (rest, page.saturating_add(count as u32));
        }
    }

    /// Takes consecutive pages of zeros.
    pub fn push_zeros(&mut self, first: PageId, count: u32, done: &mut impl FnMut(GroupHash)) {
        for index in 0..count {
            self.begin(first.0.saturating_add(index), 1, done);
            self.hasher.update(zero_page(self.page_size));
        }
    }

    /// Hands on the hash of the last group.
    pub fn end(&mut self, done: &mut impl FnMut(GroupHash)) {
        if self.numbers.is_empty() {
            return;
        }
        self.hasher.update(&self.numbers);
        done(GroupHash { group: self.group, hash: *self.hasher.finalize().as_bytes() });
        self.hasher.reset();
        self.numbers.clear();
    }

    /// Notes the numbers of `count` pages of one group.
    fn begin(&mut self, page: u32, count: usize, done: &mut impl FnMut(GroupHash)) {
        if group_of(page) != self.group {
            self.end(done);
            self.group = group_of(page);
        }
        for number in (page..).take(count) {
            self.numbers.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// Makes one hash of the hashes of groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupsHasher {
    hasher: blake3::Hasher,
}

impl GroupsHasher {
    pub(crate) fn push(&mut self, group: &GroupHash) {
        self.hasher.update(&group.group.to_le_bytes());
        self.hasher.update(&group.hash);
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }
}

/// Computes the page hash of a set of pages that come in ascending order: equal to that of a stream that
/// holds the same pages, however its frames were cut.
///
/// ```
/// use treepie_snapshot::{PageHasher, ids::PageId};
///
/// let mut one = PageHasher::new(4096);
/// one.push(PageId(7), &[1; 8192]);
/// let mut other = PageHasher::new(4096);
/// other.push(PageId(7), &[1; 4096]);
/// other.push(PageId(8), &[1; 4096]);
/// assert_eq!(one.finish(), other.finish());
/// ```
#[derive(Clone, Debug)]
pub struct PageHasher {
    next: u32,
    groups: GroupHasher,
    all: GroupsHasher,
}

impl PageHasher {
    /// Begins.
    #[must_use]
    pub fn new(page_size: usize) -> PageHasher {
        PageHasher { next: 0, groups: GroupHasher::new(page_size), all: GroupsHasher::default() }
    }

    /// Takes consecutive pages.
    ///
    /// # Panics
    /// If the pages do not ascend, or `bytes` are not whole pages.
    pub fn push(&mut self, first: PageId, bytes: &[u8]) {
        assert!(first.0 >= self.next, "page {first} came where {} was to come", self.next);
        let count = u32::try_from(bytes.len() / self.groups.page_size).unwrap_or(u32::MAX);
        self.next = first.0.saturating_add(count);
        self.groups.push(first, bytes, &mut |group| self.all.push(&group));
    }

    /// Takes the hash of a group that another thread made of all pages of it that are in the set, with a
    /// [`GroupHasher`].
    ///
    /// # Panics
    /// If the groups do not ascend.
    pub fn push_group(&mut self, group: &GroupHash) {
        self.groups.end(&mut |group| self.all.push(&group));
        let first = group.group.saturating_mul(GROUP_PAGES as u32);
        assert!(first >= self.next, "group {} came behind page {}", group.group, self.next);
        self.next = first.saturating_add(GROUP_PAGES as u32);
        self.all.push(group);
    }

    /// The page hash.
    #[must_use]
    pub fn finish(mut self) -> Digest {
        self.groups.end(&mut |group| self.all.push(&group));
        self.all.digest()
    }
}

/// Content hash of a frame of pages, and the hashes of its groups.
pub(crate) fn hash_pages(
    table: &PageTable<'_>,
    groups: &mut GroupHasher,
    hashes: &mut Vec<GroupHash>,
) -> Digest {
    let mut done = |group| hashes.push(group);
    for run in table.runs() {
        match run.bytes {
            Some(bytes) => groups.push(run.first, bytes, &mut done),
            None => groups.push_zeros(run.first, run.count, &mut done),
        }
    }
    groups.end(&mut done);
    let mut hasher = blake3::Hasher::new();
    hasher.update(table.table());
    for group in hashes.iter() {
        hasher.update(&group.hash);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// Content hash of a frame of records.
pub(crate) fn hash_bytes(content: &[u8]) -> Digest {
    Digest(*blake3::hash(content).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `format/trailer.rs` says it, word by word.
    fn by_the_book(pages: &[(u32, Vec<u8>)]) -> Digest {
        let mut all = blake3::Hasher::new();
        for group in 0..=group_of(pages.last().map_or(0, |page| page.0)) {
            let of_group = || pages.iter().filter(|page| group_of(page.0) == group);
            if of_group().next().is_some() {
                let mut text: Vec<u8> = of_group().flat_map(|page| page.1.clone()).collect();
                text.extend(of_group().flat_map(|page| page.0.to_le_bytes()));
                all.update(&group.to_le_bytes());
                all.update(blake3::hash(&text).as_bytes());
            }
        }
        Digest(*all.finalize().as_bytes())
    }

    #[test]
    fn page_hash_is_that_of_the_format_however_pages_come() {
        let numbers = [0, 1, 5, 126, 127, 128, 129, 300, 400, 401, 511, 512];
        let pages: Vec<(u32, Vec<u8>)> =
            numbers.iter().map(|&n| (n, vec![(n % 251) as u8; 4096])).collect();
        let expected = by_the_book(&pages);
        let mut single = PageHasher::new(4096);
        pages.iter().for_each(|(n, page)| single.push(PageId(*n), page));
        assert_eq!(single.finish(), expected);

        let mut groups = GroupHasher::new(4096);
        let mut hashes = Vec::new();
        pages.iter().for_each(|(n, page)| {
            groups.push(PageId(*n), page, &mut |group| hashes.push(group));
        });
        groups.end(&mut |group| hashes.push(group));
        assert_eq!(hashes.len(), 5);
        let mut shared = PageHasher::new(4096);
        hashes.iter().for_each(|group| shared.push_group(group));
        assert_eq!(shared.finish(), expected);
    }

    #[test]
    fn page_hash_tells_numbers_bytes_and_absent_pages() {
        let hash = |pages: &[(u32, u8)]| {
            let mut hasher = PageHasher::new(4096);
            pages.iter().for_each(|&(n, byte)| hasher.push(PageId(n), &[byte; 4096]));
            hasher.finish()
        };
        let all = [
            hash(&[]),
            hash(&[(1, 1), (2, 2)]),
            hash(&[(1, 2), (2, 1)]),
            hash(&[(1, 1), (3, 2)]),
            hash(&[(1, 1), (130, 2)]),
            hash(&[(1, 1), (2, 2), (3, 0)]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        assert_eq!(Digest::from_hex(&all[1].to_string()), Some(all[1]));
    }
}
