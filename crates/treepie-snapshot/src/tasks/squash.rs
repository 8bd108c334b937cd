//! Squashing: a full backup and the increments on it become one full backup, without the database.
//!
//! All streams are read side by side, in the order of their pages; of each page the newest one is taken,
//! if it is in use in the newest state: the free-space bitmaps are pages of the streams too.

use std::io::Read;

use treepie::{UsedPages, ids::PageId};

use super::{describe, renewal::Renewal};
use crate::{
    error::{Error, Result},
    format::header::{Position, StreamHeader, StreamKind},
    progress::Control,
    repository::{Branch, Entry, Kind, Repository},
    stream::{Content, ReadOptions, StreamOptions, StreamReader, StreamWriter},
};

use treepie::ids::Lsn;

/// What was squashed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SquashReport {
    /// The new full backup.
    pub entry: Entry,
    /// What it was made of. It is still there: `prune` removes what nobody needs.
    pub parts: Vec<Entry>,
}

/// Makes one full backup of the newest increment of a branch and all that it builds on; none if there is
/// nothing to squash. `control` counts the bytes of pages that are written.
///
/// # Errors
/// Those of [`StreamReader`] and [`StreamWriter`]; [`Error::Repository`]. Nothing is entered then.
pub fn squash(
    repository: &Repository,
    branch: Option<Branch>,
    read: &ReadOptions,
    write: &StreamOptions,
    control: Control,
) -> Result<Option<SquashReport>> {
    let mut writer = repository.writer("squash")?;
    let mut repository = repository.clone();
    repository.refresh()?;
    let Some(plan) = repository.squash_plan(branch)? else { return Ok(None) };
    // One thread for each part would be too many for a long chain.
    let read = read.clone().threads(1);
    let mut parts = Vec::with_capacity(plan.parts.len());
    for entry in &plan.parts {
        let input = repository.open_stream(entry, 0)?;
        parts.push(Part::open(StreamReader::new(input, &read)?)?);
    }
    let newest = parts.last().expect("a plan has parts").reader.header();
    let header = StreamHeader {
        kind: StreamKind::Full,
        base: Position::default(),
        created_us: repository.store().now_us(),
        ..*newest
    };
    let last = plan.result.last;
    let new = writer.create(Kind::Full, Lsn(0), last.lsn)?;
    let mut stream = StreamWriter::new(new, header, write)?;
    let mut meter = control.pace(std::io::sink());
    let mut renewal = Renewal::new();
    let mut used = UsedPages::new(header.page_size);
    while let Some((id, bytes)) = next_page(&mut parts)? {
        if id.0 < header.page_count && used.push(id, &bytes) {
            meter.note(bytes.len() as u64)?;
            stream.pages(id, &bytes)?;
        }
        renewal.tick(&mut writer)?;
    }
    let (new, summary) = stream.finish(header.position)?;
    if summary.last != last {
        let file = plan.parts.last().map_or_else(String::new, |part| part.file.to_string());
        return Err(Error::Mismatch {
            file,
            what: "is whole, and ends elsewhere than the manifest says",
        });
    }
    meter.finish();
    let entry = writer.add(new, describe(&summary))?;
    Ok(Some(SquashReport { entry, parts: plan.parts }))
}

/// The next page of all parts, from the newest that has it.
fn next_page<R: Read>(parts: &mut [Part<R>]) -> Result<Option<(PageId, Vec<u8>)>> {
    let Some(id) = parts.iter().filter_map(Part::front).min() else { return Ok(None) };
    let mut newest = None;
    for part in parts.iter_mut().filter(|part| part.front() == Some(id)) {
        newest = part.take()?;
    }
    Ok(newest.map(|bytes| (id, bytes)))
}

/// The pages of one stream, one by one. Those of one frame are in memory.
struct Part<R: Read> {
    reader: StreamReader<R>,
    /// The next ones, the last one first.
    pages: Vec<(PageId, Vec<u8>)>,
}

impl<R: Read> Part<R> {
    fn open(reader: StreamReader<R>) -> Result<Part<R>> {
        let mut part = Part { reader, pages: Vec::new() };
        part.fill()?;
        Ok(part)
    }

    fn front(&self) -> Option<PageId> {
        self.pages.last().map(|page| page.0)
    }

    fn take(&mut self) -> Result<Option<Vec<u8>>> {
        let page = self.pages.pop();
        if self.pages.is_empty() {
            self.fill()?;
        }
        Ok(page.map(|page| page.1))
    }

    fn fill(&mut self) -> Result<()> {
        while self.pages.is_empty() {
            match self.reader.next()? {
                Some(Content::Pages(pages)) => {
                    self.pages.extend(pages.map(|(id, bytes)| (id, bytes.to_vec())));
                    self.pages.reverse();
                }
                // A snapshot with records behind its pages ends at the last of them.
                Some(Content::Record(piece)) => {
                    let (expected, found) = (0, piece.lsn.0);
                    let what = "streams with records cannot be squashed";
                    return Err(Error::OutOfOrder { what, expected, found });
                }
                None => break,
            }
        }
        Ok(())
    }
}
