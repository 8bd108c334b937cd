//! Content of a frame of pages.
//!
//! | Offset    | Size           | Field          | Meaning                                            |
//! |-----------|---------------:|----------------|----------------------------------------------------|
//! | 0         | page size × p  | pages          | The pages of all extents but those of zeros        |
//! | behind it | 8 × e          | extents        | See below, one behind the other                    |
//! | then      |              4 | `extent_count` | Extents, at least 1                                |
//! | then      |              4 | `reserved`     | Zero                                               |
//!
//! An extent is consecutive pages:
//!
//! | Offset | Size | Field   | Meaning                                                               |
//! |-------:|-----:|---------|-----------------------------------------------------------------------|
//! |      0 |    4 | `first` | Number of its first page                                              |
//! |      4 |    4 | `count` | Pages, at least 1; bit 31: all their bytes are zero and none is stored |
//!
//! Numbers ascend within a frame and from frame to frame, and are below `page_count` of the stream
//! header. A frame has at most `frame_len` / page size pages, those of zeros counted. The pages of one
//! group of 128 numbers (see the trailer) are never cut over two frames.

use treepie::ids::PageId;

use super::bytes::{get_u32, is_zero};
use crate::limits::{GROUP_PAGES, content_len_max};

/// Bytes of an extent.
pub const EXTENT_SIZE: usize = 8;
/// Bytes behind the extents.
pub const TABLE_END_SIZE: usize = 8;
const ZEROS_FLAG: u32 = 1 << 31;
static ZEROS: [u8; treepie::limits::PAGE_SIZE_MAX] = [0; treepie::limits::PAGE_SIZE_MAX];

/// A page of zeros.
#[must_use]
pub fn zero_page(page_size: usize) -> &'static [u8] {
    ZEROS.get(..page_size).unwrap_or(&ZEROS)
}

/// Group that a page belongs to.
#[must_use]
pub fn group_of(page: u32) -> u32 {
    page / GROUP_PAGES as u32
}

/// Consecutive pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of the first one.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// All their bytes are zero; none is stored.
    pub is_zero: bool,
}

impl Extent {
    /// The extent as it is stored.
    #[must_use]
    pub fn encode(self) -> [u8; EXTENT_SIZE] {
        let count = self.count | if self.is_zero { ZEROS_FLAG } else { 0 };
        let word = u64::from(self.first) | u64::from(count) << 32;
        word.to_le_bytes()
    }

    fn decode(bytes: &[u8]) -> Extent {
        let count = get_u32(bytes, 4);
        Extent {
            first: get_u32(bytes, 0),
            count: count & !ZEROS_FLAG,
            is_zero: count & ZEROS_FLAG != 0,
        }
    }
}

/// Appends extents and their count to the pages.
pub fn append_table(content: &mut Vec<u8>, extents: &[Extent]) {
    for extent in extents {
        content.extend_from_slice(&extent.encode());
    }
    content.extend_from_slice(&u32::try_from(extents.len()).unwrap_or(0).to_le_bytes());
    content.extend_from_slice(&[0; 4]);
}

/// The content of a frame of pages, whose table was verified.
#[derive(Clone, Copy, Debug)]
pub struct PageTable<'a> {
    pages: &'a [u8],
    extents: &'a [u8],
    table: &'a [u8],
    page_size: usize,
}

/// What the stream header allows.
#[derive(Clone, Copy, Debug)]
pub struct PageRules {
    /// Bytes of a page.
    pub page_size: usize,
    /// Pages of the data file.
    pub page_count: u32,
    /// Bytes of pages in a frame.
    pub frame_len: usize,
}

impl<'a> PageTable<'a> {
    /// Takes a content apart.
    ///
    /// # Errors
    /// The broken rule.
    pub fn parse(content: &'a [u8], rules: &PageRules) -> Result<PageTable<'a>, &'static str> {
        if content.len() > content_len_max(rules.frame_len) {
            return Err("its content is too long");
        }
        let end = content.len().checked_sub(TABLE_END_SIZE).ok_or("it has no table of pages")?;
        let (rest, count) = content.split_at(end);
        let extent_count = usize::try_from(get_u32(count, 0)).unwrap_or(usize::MAX);
        if extent_count == 0 {
            return Err("it holds no pages");
        }
        if get_u32(count, 4) != 0 {
            return Err("reserved bytes of its table are not zero");
        }
        let start = extent_count
            .checked_mul(EXTENT_SIZE)
            .and_then(|len| rest.len().checked_sub(len))
            .ok_or("its table is longer than its content")?;
        let (pages, extents) = rest.split_at(start);
        let table = content.get(start..).unwrap_or(&[]);
        let parsed = PageTable { pages, extents, table, page_size: rules.page_size };
        parsed.check(rules).map(|()| parsed)
    }

    fn check(&self, rules: &PageRules) -> Result<(), &'static str> {
        let (mut least, mut stored, mut all) = (0_u64, 0_u64, 0_u64);
        for extent in self.extents() {
            let (first, count) = (u64::from(extent.first), u64::from(extent.count));
            if count == 0 {
                return Err("an extent has no pages");
            }
            if first < least {
                return Err("its pages do not ascend");
            }
            least = first + count;
            all += count;
            stored += if extent.is_zero { 0 } else { count };
        }
        if least > u64::from(rules.page_count) {
            return Err("a page is past the end of the data file");
        }
        if all > (rules.frame_len / rules.page_size) as u64 {
            return Err("it holds too many pages");
        }
        if stored * rules.page_size as u64 != self.pages.len() as u64 {
            return Err("its table does not fit its pages");
        }
        Ok(())
    }

    /// The extents.
    pub fn extents(&self) -> impl Iterator<Item = Extent> + use<'a> {
        self.extents.chunks_exact(EXTENT_SIZE).map(Extent::decode)
    }

    /// Bytes behind the pages.
    #[must_use]
    pub fn table(&self) -> &'a [u8] {
        self.table
    }

    /// First page, and the one behind the last.
    #[must_use]
    pub fn span(&self) -> (u32, u32) {
        let last = self
            .extents
            .rchunks_exact(EXTENT_SIZE)
            .next()
            .map_or(Extent { first: 0, count: 0, is_zero: true }, Extent::decode);
        (Extent::decode(self.extents).first, last.first + last.count)
    }

    /// How many pages there are.
    #[must_use]
    pub fn page_count(&self) -> u64 {
        self.extents().map(|extent| u64::from(extent.count)).sum()
    }

    /// The pages, run by run.
    #[must_use]
    pub fn runs(&self) -> Runs<'a> {
        Runs { extents: self.extents, pages: self.pages, page_size: self.page_size }
    }
}

/// Consecutive pages of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun<'a> {
    /// The first one.
    pub first: PageId,
    /// How many.
    pub count: u32,
    /// Their bytes; `None` if all are zero.
    pub bytes: Option<&'a [u8]>,
}

/// The pages of a frame, run by run, ascending.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    extents: &'a [u8],
    pages: &'a [u8],
    page_size: usize,
}

impl<'a> Iterator for Runs<'a> {
    type Item = PageRun<'a>;

    fn next(&mut self) -> Option<PageRun<'a>> {
        let (extent, rest) = self.extents.split_at_checked(EXTENT_SIZE)?;
        self.extents = rest;
        let extent = Extent::decode(extent);
        let bytes = if extent.is_zero {
            None
        } else {
            let len = usize::try_from(extent.count).ok()?.checked_mul(self.page_size)?;
            let (bytes, rest) = self.pages.split_at_checked(len)?;
            self.pages = rest;
            Some(bytes)
        };
        Some(PageRun { first: PageId(extent.first), count: extent.count, bytes })
    }
}

/// The pages of a frame, one by one, ascending.
#[derive(Clone, Debug)]
pub struct Pages<'a> {
    runs: Runs<'a>,
    run: PageRun<'a>,
    page_size: usize,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(table: &PageTable<'a>) -> Pages<'a> {
        let run = PageRun { first: PageId(0), count: 0, bytes: None };
        Pages { runs: table.runs(), run, page_size: table.page_size }
    }

    /// The same pages, consecutive ones together.
    #[must_use]
    pub fn runs(&self) -> Runs<'a> {
        self.runs.clone()
    }
}

impl<'a> Iterator for Pages<'a> {
    type Item = (PageId, &'a [u8]);

    fn next(&mut self) -> Option<(PageId, &'a [u8])> {
        if self.run.count == 0 {
            self.run = self.runs.next()?;
        }
        let (id, count) = (self.run.first, self.run.count.checked_sub(1)?);
        let (page, bytes) = match self.run.bytes {
            None => (zero_page(self.page_size), None),
            Some(bytes) => {
                let (page, rest) = bytes.split_at_checked(self.page_size)?;
                (page, Some(rest))
            }
        };
        self.run = PageRun { first: PageId(id.0.saturating_add(1)), count, bytes };
        Some((id, page))
    }
}

/// Whether all bytes of a page are zero; most pages are told by their first bytes.
#[must_use]
pub fn is_zero_page(page: &[u8]) -> bool {
    is_zero(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: PageRules = PageRules { page_size: 4096, page_count: 1000, frame_len: 1 << 20 };

    fn content(extents: &[(u32, u32, bool)], pages: usize) -> Vec<u8> {
        let extents: Vec<Extent> = extents
            .iter()
            .map(|&(first, count, is_zero)| Extent { first, count, is_zero })
            .collect();
        let mut content: Vec<u8> = (1..=pages).flat_map(|page| vec![page as u8; 4096]).collect();
        append_table(&mut content, &extents);
        content
    }

    #[test]
    fn pages_have_these_bytes() {
        let content = content(&[(0x0102, 2, false), (0x0201, 3, true)], 2);
        assert_eq!(content[..4096], [1; 4096]);
        assert_eq!(content[4096..8192], [2; 4096]);
        let table = [2, 1, 0, 0, 2, 0, 0, 0, 1, 2, 0, 0, 3, 0, 0, 0x80, 2, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(content[8192..], table);
        let parsed = PageTable::parse(&content, &RULES).expect("it is valid");
        let pages: Vec<(u32, u8)> = Pages::new(&parsed).map(|(id, page)| (id.0, page[0])).collect();
        assert_eq!(pages, [(258, 1), (259, 2), (513, 0), (514, 0), (515, 0)]);
        assert_eq!((parsed.span(), parsed.page_count()), ((258, 516), 5));
        assert_eq!(parsed.table(), table);
    }

    #[test]
    fn table_that_breaks_a_rule_is_refused() {
        let broken = [
            content(&[], 0),
            content(&[(5, 0, false)], 0),
            content(&[(5, 2, false)], 1),
            content(&[(5, 1, false)], 2),
            content(&[(5, 2, false), (6, 1, false)], 3),
            content(&[(5, 1, false), (4, 1, true)], 1),
            content(&[(999, 2, false)], 2),
            content(&[(0, 257, true)], 0),
            content(&[(u32::MAX, u32::MAX, true)], 0),
        ];
        for content in broken {
            assert!(PageTable::parse(&content, &RULES).is_err(), "{:?}", &content);
        }
        let valid = content(&[(5, 1, false)], 1);
        for len in 0..valid.len() {
            assert!(PageTable::parse(&valid[..len], &RULES).is_err(), "{len}");
        }
    }
}
