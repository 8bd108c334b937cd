//! One page of a database, made by the fuzzer with a right number and checksum; then a user's visit.
//!
//! The bytes: which template, which page, how the rest is to be understood. Nodes are built from
//! entries, so that layouts are valid more often than not, and what is odd about them is what they
//! mean: children that are used twice, that are of another tree or no node, runs that overlap.

use super::{
    Visit,
    input::Input,
    open_and_check::rotten,
    stamp::{FileKind, PAGE_SIZE, put, stamp_header, stamp_page, u64_at},
    template,
    visit::visit,
};

/// Pages that one input makes at most.
const PAGES_MAX: usize = 8;
const PAGE_HEADER_SIZE: usize = 32;
/// Kind of a leaf.
pub const LEAF_KIND: u8 = 1;
/// Kind of a branch.
pub const BRANCH_KIND: u8 = 2;

/// Runs one input.
pub fn run(bytes: &[u8]) -> Visit {
    let mut input = Input::new(bytes);
    let template = &template::all()[usize::from(input.u8() & 1)];
    let mut files = template.files.clone();
    let data = files.iter_mut().find(|file| file.kind == FileKind::Data);
    let data = &mut data.expect("every database has one").bytes;
    let page_count = data.len() / PAGE_SIZE;
    let mut made = 0;
    while !input.is_empty() && made < PAGES_MAX {
        let number = input.below(page_count);
        let start = number * PAGE_SIZE;
        make(&mut input, &mut data[start..start + PAGE_SIZE], page_count);
        seal(data, number);
        made += 1;
    }
    visit(&rotten(template, &files))
}

/// Puts number and checksum of a page right, or of a run.
pub fn seal(data: &mut [u8], number: usize) {
    let start = number * PAGE_SIZE;
    if number < 2 {
        return stamp_header(&mut data[start..start + PAGE_SIZE]);
    }
    let page_number = u32::try_from(number).unwrap_or(u32::MAX);
    put(data, start + 4, &page_number.to_le_bytes());
    let is_run = data[start + 16] == 3;
    let value_len = usize::try_from(u64_at(data, start + 24)).unwrap_or(usize::MAX);
    let pages = if is_run { value_len.saturating_add(32).div_ceil(PAGE_SIZE) } else { 1 };
    let end = start.saturating_add(pages.saturating_mul(PAGE_SIZE)).min(data.len());
    stamp_page(&mut data[start..end]);
}

fn make(input: &mut Input<'_>, page: &mut [u8], page_count: usize) {
    let kind = input.u8();
    match kind % 4 {
        // Edits of what is there.
        0 => {
            for _ in 0..=kind >> 4 {
                let at = input.below(PAGE_SIZE);
                let len = usize::from(input.u8() % 16) + 1;
                put(page, at, input.bytes(len));
            }
        }
        // A whole page.
        1 => {
            let len = input.below(PAGE_SIZE + 1);
            page.fill(0);
            put(page, 0, input.bytes(len));
        }
        2 => build(input, page, LEAF_KIND, page_count),
        _ => build(input, page, BRANCH_KIND, page_count),
    }
}

/// One entry of a node that is being built.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// What follows the prefix in its key.
    pub suffix: Vec<u8>,
    /// What follows the suffix in its cell: the value of a leaf.
    pub rest: Vec<u8>,
    /// Whether that says where a run is.
    pub is_run: bool,
    /// The child of a branch.
    pub child: u32,
}

/// Builds a leaf or a branch; its owner stays what it is there, unless the input names one.
fn build(input: &mut Input<'_>, page: &mut [u8], kind: u8, page_count: usize) {
    let (level, owner) = (input.u8(), input.u8());
    let prefix_len = usize::from(input.u8() % 16);
    let prefix = input.bytes(prefix_len).to_vec();
    let count = usize::from(input.u8());
    let mut entries = Vec::new();
    let mut left = PAGE_SIZE - PAGE_HEADER_SIZE - 16;
    for _ in 0..count {
        let entry = entry(input, kind, page_count);
        let len = 14 + entry.suffix.len() + entry.rest.len();
        if len > left {
            break;
        }
        left -= len;
        entries.push(entry);
    }
    // Half of the inputs get what a valid page needs beside the layout.
    if owner < 128 {
        entries.sort_by(|a, b| a.suffix.cmp(&b.suffix));
        entries.dedup_by(|a, b| a.suffix == b.suffix);
        if let Some(first) = entries.first_mut().filter(|_| kind == BRANCH_KIND) {
            first.suffix.clear();
        }
    }
    page[PAGE_HEADER_SIZE..].fill(0);
    page[16] = kind;
    page[17] = if kind == BRANCH_KIND { level % 17 } else { level / 128 };
    if owner % 128 < 8 {
        put(page, 20, &u32::from(owner % 128).to_le_bytes());
    }
    lay_out(page, kind, &prefix, &entries);
}

fn entry(input: &mut Input<'_>, kind: u8, page_count: usize) -> Entry {
    let head = input.u8();
    let suffix = input.bytes(usize::from(head & 31)).to_vec();
    let child = match input.u16() {
        // The highest numbers there are, and the last ones that a page can have.
        number @ 0xff00.. => u32::MAX - u32::from(number & 0xff),
        number => u32::try_from(usize::from(number) % (page_count + 2)).unwrap_or(0),
    };
    let is_run = kind == LEAF_KIND && head >= 0xe0;
    let rest = match (kind, is_run) {
        (LEAF_KIND, true) => {
            let len = match input.u16() {
                number @ 0xff00.. => (1 << 30) - u64::from(number & 0xff),
                number => u64::from(number),
            };
            [&u64::from(child).to_le_bytes()[..], &len.to_le_bytes()].concat()
        }
        (LEAF_KIND, false) => vec![head; usize::from(head >> 5) * 24],
        _ => Vec::new(),
    };
    Entry { suffix, rest, is_run, child }
}

/// Writes the arrays and the cells, as the format's description has them.
pub fn lay_out(page: &mut [u8], kind: u8, prefix: &[u8], entries: &[Entry]) {
    let count = entries.len();
    let heads = PAGE_HEADER_SIZE + prefix.len().next_multiple_of(4);
    let (offsets, children) = (heads + 4 * count, heads + 6 * count);
    put(page, PAGE_HEADER_SIZE, prefix);
    let mut cells_start = PAGE_SIZE;
    for (index, entry) in entries.iter().enumerate() {
        let len = u16::try_from(entry.suffix.len()).unwrap_or(0);
        let flags = if entry.is_run { 0x8000 } else { 0 };
        let mut cell = (len | flags).to_le_bytes().to_vec();
        if kind == LEAF_KIND {
            let value_len = u16::try_from(entry.rest.len()).unwrap_or(0);
            cell.extend(value_len.to_le_bytes());
        }
        cell.extend(&entry.suffix);
        cell.extend(&entry.rest);
        cells_start -= cell.len();
        put(page, cells_start, &cell);
        let mut head = [0; 4];
        let known = entry.suffix.len().min(4);
        head[..known].copy_from_slice(&entry.suffix[..known]);
        put(page, heads + 4 * index, &u32::from_be_bytes(head).to_le_bytes());
        put(page, offsets + 2 * index, &u16::try_from(cells_start).unwrap_or(0).to_le_bytes());
        if kind == BRANCH_KIND {
            put(page, children + 4 * index, &entry.child.to_le_bytes());
        }
    }
    let number = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes();
    put(page, 18, &number(count));
    put(page, 24, &number(prefix.len()));
    put(page, 26, &number(cells_start));
    put(page, 28, &[0; 4]);
}
