//! The data file of a scrub: slices of pages, each looked at by a reader of its own.
//!
//! A slice registers as a reader at LSN `s`. A page is verified when it is in use at `s` and has no
//! version at or below `s` in memory: then the file's bytes are what this reader sees, and the checkpoint
//! does not write over what a reader sees. This is looked up *before* the page is read: the checkpoint
//! takes versions out of memory when it has written them. So what is read is at rest, and whole.
//!
//! Only the first page of a run has a header. Within a slice runs are gone over as a whole, and a longer
//! one is summed up from slice to slice; the readers change meanwhile, so before such a run is called
//! damaged its first page must be the one that it was. Between two slices a new run may have come into
//! use across the place where the next one begins. So before a page or a run is called damaged, the pages
//! before it are looked through for a run that covers it; then the scrub goes back to the beginning of
//! that. While such a run is in memory alone, the file has under it whatever was there before, whole pages
//! and headers of runs among it. Therefore the memory is asked first, of all pages that the run could
//! begin with, and only then the file: what that has is at rest if the memory does not have it.

use std::{ops::Range, sync::Arc};

use crate::{
    error::Result,
    format::{
        bitmap::{CATALOG_ROOT, is_fixed, pages_per_group},
        bytes::is_zero,
        overflow,
        page::{self, PAGE_HEADER_SIZE},
    },
    ids::{Lsn, PageId, TreeId},
    pager::store::verify_bytes,
    recovery::DATA_FILE,
    txn::core::Core,
};

use super::{
    Blind, FoundDamage, Going, Pass, RESTORE,
    damage::DAMAGE_MAX,
    is_blind, owner,
    view::{Use, View},
};

/// Pages of one slice: 512 KiB of 8 KiB pages, a fraction of a millisecond for which a reader is there.
/// Few in simulated schedules, whose databases are small.
const SLICE_PAGES: u32 = if cfg!(feature = "shuttle") { 3 } else { 64 };
/// How often a scrub goes back to the beginning of a run. Each time a run was written across the place
/// where it was, so a few times are many.
const RETURNS_MAX: u32 = 1_000;
/// Pages that are looked through for a run between two questions whether to go on.
const ASK_EVERY: u32 = 1_024;

/// A run that is being summed up.
struct OpenRun {
    pages: Range<u32>,
    header: Vec<u8>,
    stored: u32,
    checksum: crc32fast::Hasher,
    /// Bytes of value that are still to come.
    value_left: u64,
    padding_is_zero: bool,
}

/// The pass over the data file.
pub(super) struct PagePass<'a> {
    core: &'a Arc<Core>,
    page_size: usize,
    next: u32,
    run: Option<OpenRun>,
    /// Damaged pages next to one another, of which only the first is told.
    stretch: Option<(Range<u32>, FoundDamage)>,
    /// The run that was found damaged last: its pages have no headers.
    damaged_run: Range<u32>,
    /// The state at which no run that begins before this page reaches it.
    runless: (Lsn, u32),
    returns: u32,
    /// Whether the slice ended because of one.
    has_returned: bool,
    /// Whether it was told to stop within a slice.
    is_stopped: bool,
    buffer: Vec<u8>,
}

impl<'a> PagePass<'a> {
    pub(super) fn new(core: &'a Arc<Core>) -> PagePass<'a> {
        PagePass {
            core,
            page_size: core.pager.page_size(),
            next: 2,
            run: None,
            stretch: None,
            damaged_run: 0..0,
            runless: (Lsn(0), 0),
            returns: 0,
            has_returned: false,
            is_stopped: false,
            buffer: Vec::new(),
        }
    }

    /// Goes over all pages.
    pub(super) fn run(mut self, pass: &mut Pass<'_>) -> Result<Going> {
        loop {
            let before = self.next;
            let view = View::new(self.core)?;
            if self.next >= view.page_count {
                self.end_stretch(pass);
                return Ok(Going::Continue(()));
            }
            let bytes = self.slice(&view, pass) + view.read_beside.get();
            drop(view);
            let done = u64::from(self.next.saturating_sub(before)) * self.page_size as u64;
            if self.is_stopped || pass.spend(done, bytes).is_break() {
                self.end_stretch(pass);
                return Ok(Going::Break(()));
            }
        }
    }

    /// Verifies the pages of one slice; returns how many bytes it read.
    fn slice(&mut self, view: &View<'_>, pass: &mut Pass<'_>) -> u64 {
        if self.run.as_ref().is_some_and(|run| view.use_of(run.pages.start) != Some(Use::InFile))
            && !is_blind(Blind::ChangedRuns)
        {
            self.return_to_run(pass);
        }
        self.has_returned = false;
        let group_pages = pages_per_group(self.page_size);
        let group_end = (self.next / group_pages + 1).saturating_mul(group_pages);
        let end = self.next.saturating_add(SLICE_PAGES).min(view.page_count).min(group_end);
        let slice = self.next..end;
        // Before anything is read: see above.
        let uses: Vec<Option<Use>> = slice.clone().map(|page| view.use_of(page)).collect();
        let (bytes, unread) = self.read(view, &slice, &uses);
        while slice.contains(&self.next) && !self.has_returned && !self.is_stopped {
            let index = (self.next - slice.start) as usize;
            if unread.contains(&self.next) {
                self.damaged(view, pass, "it cannot be read from the disk".to_owned());
                continue;
            }
            if let Some(run) = self.run.take() {
                self.go_on_with_run(view, pass, run, &slice);
                continue;
            }
            match uses[index] {
                Some(Use::InFile) => self.page(view, pass, index),
                Some(Use::InMemory(count)) => {
                    self.end_stretch(pass);
                    pass.report.pages_skipped += u64::from(count);
                    self.next = self.next.saturating_add(count);
                }
                Some(Use::Silent) => self.next += 1,
                Some(Use::Idle) => {
                    self.end_stretch(pass);
                    self.next += 1;
                }
                // Its bitmap is damaged, and was found as a page of its own.
                None => {
                    self.end_stretch(pass);
                    let behind = group_end.min(view.page_count);
                    pass.report.pages_skipped += u64::from(behind - self.next);
                    self.next = behind;
                }
            }
        }
        bytes
    }

    /// Reads the slice, as far as something in it is to be looked at. Returns the bytes read, and the
    /// pages that the disk does not read.
    fn read(
        &mut self,
        view: &View<'_>,
        slice: &Range<u32>,
        uses: &[Option<Use>],
    ) -> (u64, Vec<u32>) {
        let is_wanted = |index: &usize| uses[*index] == Some(Use::InFile);
        let run_len = self.run.as_ref().map_or(0, |run| run.pages.end.min(slice.end) - slice.start);
        let in_run = |index: &usize| *index < run_len as usize;
        let last = (0..uses.len()).rev().find(|index| in_run(index) || is_wanted(index));
        self.buffer.clear();
        self.buffer.resize(slice.len() * self.page_size, 0);
        let Some(last) = last else { return (0, Vec::new()) };
        let len = (last + 1) * self.page_size;
        if view.pager.read_medium(PageId(slice.start), &mut self.buffer[..len]).is_ok() {
            return (len as u64, Vec::new());
        }
        // Page by page, to find which.
        let mut unread = Vec::new();
        for (page, bytes) in slice.clone().zip(self.buffer[..len].chunks_mut(self.page_size)) {
            let index = (page - slice.start) as usize;
            let is_unread = view.pager.read_medium(PageId(page), bytes).is_err();
            if is_unread && (in_run(&index) || is_wanted(&index)) {
                unread.push(page);
            }
        }
        (len as u64, unread)
    }

    /// Verifies a page of the file, or begins with the run that it begins.
    fn page(&mut self, view: &View<'_>, pass: &mut Pass<'_>, index: usize) {
        let bytes = &self.buffer[index * self.page_size..(index + 1) * self.page_size];
        if let Some(pages) = view.run_of(self.next, bytes) {
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(&bytes[4..PAGE_HEADER_SIZE]);
            self.run = Some(OpenRun {
                pages,
                header: bytes[..PAGE_HEADER_SIZE].to_vec(),
                stored: page::stored_checksum(bytes),
                checksum,
                value_left: overflow::value_len(bytes),
                padding_is_zero: true,
            });
            return;
        }
        match verify_bytes(bytes, PageId(self.next), self.page_size) {
            Ok(()) => {
                self.end_stretch(pass);
                pass.report.pages_verified += 1;
                self.next += 1;
            }
            Err(what) => self.damaged(view, pass, what.to_string()),
        }
    }

    /// Sums up as much of a run as the slice has, and decides at its end.
    fn go_on_with_run(
        &mut self,
        view: &View<'_>,
        pass: &mut Pass<'_>,
        mut run: OpenRun,
        slice: &Range<u32>,
    ) {
        let until = run.pages.end.min(slice.end);
        let skip = if self.next == run.pages.start { PAGE_HEADER_SIZE } else { 0 };
        let from = (self.next - slice.start) as usize * self.page_size + skip;
        let bytes = &self.buffer[from..(until - slice.start) as usize * self.page_size];
        let is_last = until == run.pages.end;
        run.checksum.update(bytes);
        let value_len = usize::try_from(run.value_left).unwrap_or(usize::MAX).min(bytes.len());
        run.value_left -= value_len as u64;
        run.padding_is_zero &= is_zero(&bytes[value_len..]);
        self.next = until;
        if !is_last {
            self.run = Some(run);
            return;
        }
        let computed = run.checksum.clone().finalize();
        let is_whole = computed == run.stored && run.padding_is_zero;
        let is_long = run.pages.len() as u32 > SLICE_PAGES;
        if is_whole || (is_long && is_blind(Blind::LongRuns)) {
            self.end_stretch(pass);
            pass.report.pages_verified += run.pages.len() as u64;
        } else if self.is_unchanged(view, &run) || is_blind(Blind::ChangedRuns) {
            let what = format!(
                "checksum {:08x} does not match the bytes of its {} pages ({computed:08x})",
                run.stored,
                run.pages.len()
            );
            self.next = run.pages.start;
            self.damaged_run = run.pages.clone();
            self.damaged(view, pass, what);
        } else {
            self.run = Some(run);
            self.return_to_run(pass);
        }
    }

    /// Whether a run is, at the state of this slice, the one that it was when it was begun with.
    fn is_unchanged(&self, view: &View<'_>, run: &OpenRun) -> bool {
        let first = run.pages.start;
        if view.use_of(first) != Some(Use::InFile) {
            return false;
        }
        let mut page = vec![0; self.page_size];
        match view.pager.read_medium(PageId(first), &mut page) {
            Ok(()) => page[..PAGE_HEADER_SIZE] == run.header,
            Err(_) => true,
        }
    }

    fn return_to_run(&mut self, pass: &mut Pass<'_>) {
        let Some(run) = self.run.take() else { return };
        self.go_back(pass, run.pages.start, run.pages.end);
    }

    /// Goes back to `first`; beyond the bound, behind what cannot be looked at.
    fn go_back(&mut self, pass: &mut Pass<'_>, first: u32, behind: u32) {
        self.returns += 1;
        self.has_returned = true;
        if self.returns <= RETURNS_MAX {
            self.next = first;
        } else {
            pass.report.pages_skipped += u64::from(behind.saturating_sub(self.next));
            self.next = behind;
        }
    }

    /// The page that is next does not verify: damage, unless it is the inside of a run.
    fn damaged(&mut self, view: &View<'_>, pass: &mut Pass<'_>, what: String) {
        let page = self.next;
        self.run = None;
        let mut header = vec![0; self.page_size];
        let is_read = view.read_beside(page, &mut header);
        let has_name = is_read && page::page_id(&header) == PageId(page);
        if let Some((stretch, item)) = &mut self.stretch
            && (self.damaged_run.contains(&page) || (stretch.end == page && !has_name))
            && page != self.damaged_run.start
        {
            stretch.end = page + 1;
            item.len = stretch.len() as u64 * self.page_size as u64;
            self.next += 1;
            return;
        }
        let is_blind_here = is_blind(Blind::NewRuns)
            || (is_blind(Blind::ChangedRuns) && page == self.damaged_run.start);
        if !is_blind_here && let Some(run) = self.covering_run(view, pass) {
            self.damaged_run = 0..0;
            return self.go_back(pass, run.start, run.end);
        }
        if self.is_stopped {
            return;
        }
        self.end_stretch(pass);
        let tree = has_name.then(|| page::tree(&header));
        let item = self.describe(view, pass, tree, what);
        self.stretch = Some((page..page + 1, item));
        self.next += 1;
    }

    /// The run that begins before the next page and reaches it.
    fn covering_run(&mut self, view: &View<'_>, pass: &mut Pass<'_>) -> Option<Range<u32>> {
        // Damaged pages next to one another are looked through once, as long as nothing is committed.
        let floor = match self.runless {
            (lsn, page) if lsn == view.lsn && page <= self.next => page,
            _ => 0,
        };
        let run = match self.look_back_in_memory(view, pass, floor.max(CATALOG_ROOT.0 + 1)) {
            Ok(run) => Some(run),
            Err(first) => self.look_back_in_file(view, pass, first),
        };
        if run.is_none() {
            self.runless = (view.lsn, self.next);
        }
        run
    }

    /// The run in memory that begins before the next page and reaches it; otherwise the first page that a
    /// run in the file can begin with that does.
    fn look_back_in_memory(
        &mut self,
        view: &View<'_>,
        pass: &mut Pass<'_>,
        floor: u32,
    ) -> Result<Range<u32>, u32> {
        if is_blind(Blind::RunsInMemory) {
            return Err(floor);
        }
        for page in (floor..self.next).rev() {
            if self.is_told_to_stop(pass, page) {
                return Err(self.next);
            }
            if is_fixed(PageId(page), self.page_size) {
                return Err(page + 1);
            }
            match view.use_of(page) {
                Some(Use::InFile | Use::Silent) => {}
                Some(Use::InMemory(count)) => {
                    let run = page..page.saturating_add(count);
                    return if run.contains(&self.next) { Ok(run) } else { Err(run.end) };
                }
                Some(Use::Idle) | None => return Err(page + 1),
            }
        }
        Err(floor)
    }

    /// The run in the file that begins at `first` or behind it, before the next page, and reaches it.
    fn look_back_in_file(
        &mut self,
        view: &View<'_>,
        pass: &mut Pass<'_>,
        first: u32,
    ) -> Option<Range<u32>> {
        let mut bytes = vec![0; self.page_size];
        for page in (first..self.next).rev() {
            if self.is_told_to_stop(pass, page) {
                return None;
            }
            if view.use_of(page) == Some(Use::Silent) {
                continue;
            }
            if !view.read_beside(page, &mut bytes) {
                return None;
            }
            if let Some(run) = view.run_of(page, &bytes) {
                return run.contains(&self.next).then_some(run);
            }
            if verify_bytes(&bytes, PageId(page), self.page_size).is_ok() {
                return None;
            }
        }
        None
    }

    /// Asks whether to go on, now and then on the way back to `page`.
    fn is_told_to_stop(&mut self, pass: &mut Pass<'_>, page: u32) -> bool {
        let is_due = (self.next - page).is_multiple_of(ASK_EVERY);
        self.is_stopped |= is_due && pass.ask().is_break();
        self.is_stopped
    }

    /// What is told of the next page.
    fn describe(
        &mut self,
        view: &View<'_>,
        pass: &mut Pass<'_>,
        tree: Option<TreeId>,
        what: String,
    ) -> FoundDamage {
        let page = PageId(self.next);
        let fixed = is_fixed(page, self.page_size).then_some(TreeId::NONE);
        let mut item = FoundDamage {
            len: self.page_size as u64,
            page: Some(page),
            ..FoundDamage::new(
                self.core.path.join(DATA_FILE),
                u64::from(page.0) * self.page_size as u64,
                what,
                RESTORE,
            )
        };
        // Beyond its bound the list does not keep it.
        if pass.report.damage.len() < DAMAGE_MAX {
            let trees = view.trees.get_or_init(|| view.snapshot.trees().unwrap_or_default());
            let read = &view.read_beside;
            if let Some((tree, name)) =
                owner::find(&view.snapshot, trees, page, fixed.or(tree), read)
            {
                (item.tree, item.tree_name) = (Some(tree), name);
            }
            self.is_stopped |= pass.ask().is_break();
        }
        item
    }

    fn end_stretch(&mut self, pass: &mut Pass<'_>) {
        if let Some((_, item)) = self.stretch.take() {
            pass.found(item);
        }
    }
}
