//! Verifying the pages of a chunk, one behind the other, and choosing those that are given out.
//!
//! The pages of a run have one header and one checksum. It is summed up from chunk to chunk, and
//! decided on at the end of the run; where damage is to be left out, that is done ahead.

use std::ops::Range;

use crate::{
    error::{Damage, Result, Structure},
    format::{
        bitmap::is_run_place,
        bytes::is_zero,
        overflow,
        page::{self, PAGE_HEADER_SIZE, PageKind},
    },
    ids::{Lsn, PageId, TreeId},
    pager::copies::CHUNK_LEN,
};

use super::{PageCopy, damage::Found};

/// A run that is being gone over.
pub(super) struct OpenRun {
    pages: Range<u32>,
    tree: TreeId,
    lsn: Lsn,
    is_given_out: bool,
    /// It was found damaged ahead, and all of it is left out.
    is_left_out: bool,
    sum: Sum,
}

/// The checksum of a run, as far as it was gone over.
struct Sum {
    stored: u32,
    checksum: crc32fast::Hasher,
    /// Bytes of value that are still to come.
    value_left: u64,
    padding_is_zero: bool,
}

impl Sum {
    /// Of a run that begins with this page, whose header is gone over.
    fn new(bytes: &[u8]) -> Sum {
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&bytes[4..PAGE_HEADER_SIZE]);
        Sum {
            stored: page::stored_checksum(bytes),
            checksum,
            value_left: overflow::value_len(bytes),
            padding_is_zero: true,
        }
    }

    /// Goes over what follows.
    fn add(&mut self, bytes: &[u8]) {
        self.checksum.update(bytes);
        let len = usize::try_from(self.value_left).unwrap_or(usize::MAX).min(bytes.len());
        self.value_left -= len as u64;
        self.padding_is_zero &= is_zero(&bytes[len..]);
    }

    /// Whether the whole run is what was written.
    fn end(self, page: PageId, tree: TreeId) -> Result<(), Damage> {
        let structure = Structure::Page(page, tree);
        let (stored, computed) = (self.stored, self.checksum.finalize());
        if stored != computed {
            return Err(Damage::Checksum { structure, stored, computed });
        }
        if self.padding_is_zero {
            Ok(())
        } else {
            Err(Damage::layout(structure, "padding is not zero"))
        }
    }
}

impl PageCopy {
    /// Verifies the pages of the chunk, and notes which are given out. `unread` could not be read.
    pub(super) fn look_at(&mut self, pages: Range<u32>, unread: &[u32]) -> Result<()> {
        let mut page = pages.start;
        while page < pages.end {
            page = match self.run.take() {
                Some(run) => self.go_on_with_run(run, page, &pages)?,
                None => self.page(page, &pages, unread)?,
            };
        }
        Ok(())
    }

    /// Looks at a page that a run may begin with; returns which one is next.
    fn page(&mut self, page: u32, pages: &Range<u32>, unread: &[u32]) -> Result<u32> {
        let page_size = self.page_size();
        let offset = (page - pages.start) as usize * page_size;
        let bytes = &self.chunk[offset..offset + page_size];
        let (id, lsn) = (PageId(page), page::lsn(bytes));
        let structure = Structure::Page(id, page::tree(bytes));
        if let Some(run) = self.run_of(id, bytes).filter(|_| !unread.contains(&page)) {
            let mut run = OpenRun {
                is_given_out: self.is_wanted(lsn),
                is_left_out: false,
                pages: run,
                tree: page::tree(bytes),
                lsn,
                sum: Sum::new(bytes),
            };
            if self.skip_damage
                && let Err(what) = self.verify_ahead(&run, pages)?
            {
                let bytes = &self.chunk[offset..offset + page_size];
                let found = Found::new(run.pages.clone(), bytes, what);
                self.found(found)?;
                run.is_left_out = true;
            }
            self.run = Some(run);
            return Ok(page);
        }
        let verified = if unread.contains(&page) {
            Err(Damage::layout(structure, "it cannot be read from the disk"))
        } else {
            match page::verify(bytes, id) {
                Ok(PageKind::Overflow) => {
                    Err(Damage::layout(structure, "a run that cannot be where it is"))
                }
                Ok(_) => self.check_lsn(lsn, structure),
                Err(what) => Err(what),
            }
        };
        match verified {
            Ok(()) if self.is_wanted(lsn) => self.give_out(page..page + 1),
            Ok(()) => {}
            Err(what) => {
                let found = Found::new(page..page + 1, bytes, what);
                self.found(found)?;
            }
        }
        Ok(page + 1)
    }

    /// Goes over what the chunk has of a run, from `page` on; returns which page is next.
    fn go_on_with_run(&mut self, mut run: OpenRun, page: u32, pages: &Range<u32>) -> Result<u32> {
        let until = run.pages.end.min(pages.end);
        let bytes = self.part_of_run(&run, page..until, pages);
        run.sum.add(bytes);
        if run.is_given_out && !run.is_left_out {
            self.give_out(page..until);
        }
        if until < run.pages.end {
            self.run = Some(run);
            return Ok(until);
        }
        let OpenRun { pages: all, tree, lsn, is_left_out, sum, .. } = run;
        let id = PageId(all.start);
        let verified = sum.end(id, tree);
        let verified = verified.and_then(|()| self.check_lsn(lsn, Structure::Page(id, tree)));
        if let (Err(what), false) = (verified, is_left_out) {
            self.found(Found::of_tree(all, tree, what))?;
        }
        Ok(until)
    }

    /// The bytes in the chunk of some pages of a run, without its header.
    fn part_of_run(&self, run: &OpenRun, part: Range<u32>, pages: &Range<u32>) -> &[u8] {
        let page_size = self.page_size();
        let skip = if part.start == run.pages.start { PAGE_HEADER_SIZE } else { 0 };
        let from = (part.start - pages.start) as usize * page_size + skip;
        &self.chunk[from..(part.end - pages.start) as usize * page_size]
    }

    /// Verifies a run whose first page is in the chunk, up to its end.
    fn verify_ahead(&self, run: &OpenRun, pages: &Range<u32>) -> Result<Result<(), Damage>> {
        let page_size = self.page_size();
        let in_chunk = run.pages.start..run.pages.end.min(pages.end);
        let first = &self.chunk[(run.pages.start - pages.start) as usize * page_size..];
        let mut sum = Sum::new(first);
        sum.add(self.part_of_run(run, in_chunk.clone(), pages));
        let mut page = in_chunk.end;
        let mut bytes = Vec::new();
        while page < run.pages.end {
            let end = run.pages.end.min(page + (CHUNK_LEN / page_size) as u32);
            let structure = Structure::Page(PageId(run.pages.start), run.tree);
            if self.pages.peek(&self.core.pager, page..end, &mut bytes).is_err() {
                let what = "a part of its run cannot be read from the disk";
                return Ok(Err(Damage::layout(structure, what)));
            }
            sum.add(&bytes);
            page = end;
        }
        let id = PageId(run.pages.start);
        let verified = sum.end(id, run.tree);
        Ok(verified.and_then(|()| self.check_lsn(run.lsn, Structure::Page(id, run.tree))))
    }

    /// The pages of the run that begins with these bytes, if that can be.
    fn run_of(&self, id: PageId, bytes: &[u8]) -> Option<Range<u32>> {
        let is_run = page::kind(bytes) == Some(PageKind::Overflow)
            && page::page_id(bytes) == id
            && overflow::validate_header(bytes).is_ok();
        if !is_run {
            return None;
        }
        let count = overflow::page_count(overflow::value_len(bytes), self.page_size());
        let is_place = is_run_place(id, count, self.page_size());
        let run = id.0..id.0.checked_add(count)?;
        (is_place && run.end <= self.page_count() && self.pages.has_all(run.clone())).then_some(run)
    }

    /// The state has no page that is newer than it.
    fn check_lsn(&self, lsn: Lsn, structure: Structure) -> Result<(), Damage> {
        if lsn <= self.lsn() {
            Ok(())
        } else {
            Err(Damage::layout(structure, "the page is newer than the state that is copied"))
        }
    }

    /// Whether pages of this LSN are part of the copy.
    fn is_wanted(&self, lsn: Lsn) -> bool {
        self.base.is_none_or(|base| lsn > base)
    }

    fn give_out(&mut self, pages: Range<u32>) {
        match self.ready.back_mut() {
            Some(last) if last.end == pages.start => last.end = pages.end,
            _ => self.ready.push_back(pages),
        }
    }
}
