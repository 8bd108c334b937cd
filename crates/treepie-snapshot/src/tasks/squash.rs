//! Squashing: a full backup and the increments on it become one full backup, without the database.
//!
//! All streams are read side by side, in the order of their pages; of each page the newest one is taken,
//! if it is in use in the newest state: the free-space bitmaps are pages of the streams too.
//!
//! Each stream that is open has a frame in memory. So where there are many, increments that follow on one
//! another become one first, in an unlinked file of the folder for temporary files.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
};

use treepie::{UsedPages, ids::PageId};

use super::{
    describe,
    entering::{enter, looked_at},
};
use crate::{
    error::{Error, Result},
    format::header::{Position, StreamHeader, StreamKind},
    progress::{Control, Paced},
    repository::{Branch, Description, Entry, Kind, Repository},
    stream::{Content, ReadOptions, StreamOptions, StreamReader, StreamWriter},
};

use treepie::ids::Lsn;

/// Most streams that are open at a time: 8 frames of 1 MiB, each stored, plain, and as single pages.
const PARTS_MAX: usize = 8;

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
/// nothing to squash. `control` counts the bytes of pages that are written, those of scratch files too. The repository is not locked
/// meanwhile.
///
/// # Errors
/// Those of [`StreamReader`] and [`StreamWriter`]; [`Error::Options`] where parts are encrypted and `write`
/// has no key; [`Error::Repository`]. Nothing is entered then.
pub fn squash(
    repository: &Repository,
    branch: Option<Branch>,
    read: &ReadOptions,
    write: &StreamOptions,
    control: Control,
) -> Result<Option<SquashReport>> {
    let token = control.token();
    let repository = looked_at(repository, "squash", &token)?;
    let Some(plan) = repository.squash_plan(branch)? else { return Ok(None) };
    let is_encrypted = plan.parts.iter().any(|part| part.stream.key_id.is_some());
    if is_encrypted && !write.has_key() {
        let reason = "the parts are encrypted, and what is made of them is to be encrypted too";
        return Err(Error::options("key", reason));
    }
    // One thread for each part would be too many.
    let from = Inputs { repository: &repository, read: read.clone().threads(1), write };
    let mut meter = control.pace(io::sink());
    let sources = plan.parts.iter().map(Source::Stored).collect();
    let mut parts = from.open(&from.merged(sources, &mut meter)?)?;
    let newest = parts.last().expect("a plan has parts").reader.header();
    let header = StreamHeader {
        kind: StreamKind::Full,
        base: Position::default(),
        created_us: repository.store().now_us(),
        ..*newest
    };
    let last = plan.result.last;
    let new = repository.create(Kind::Full, Lsn(0), last.lsn)?;
    let mut stream = StreamWriter::new(new, header, write)?;
    let mut used = UsedPages::new(header.page_size);
    while let Some((id, bytes)) = next_page(&mut parts)? {
        if id.0 < header.page_count && used.push(id, &bytes) {
            meter.note(bytes.len() as u64)?;
            stream.pages(id, &bytes)?;
        }
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
    let damage_count = plan.parts.iter().map(|part| part.stream.damage_count);
    let damage_count = damage_count.fold(0, u64::saturating_add);
    let description = Description { damage_count, ..describe(&summary) };
    let entry = enter(&repository, "squash", &token, new, description)?;
    Ok(Some(SquashReport { entry, parts: plan.parts }))
}

/// A stream that is a part.
enum Source<'p> {
    Stored(&'p Entry),
    /// Several that were merged.
    Scratch(File),
}

/// Where parts are read from.
struct Inputs<'s> {
    repository: &'s Repository,
    read: ReadOptions,
    write: &'s StreamOptions,
}

type AnyPart = Part<Box<dyn Read + Send>>;

impl Inputs<'_> {
    fn open(&self, sources: &[Source<'_>]) -> Result<Vec<AnyPart>> {
        sources.iter().map(|source| self.open_one(source)).collect()
    }

    fn open_one(&self, source: &Source<'_>) -> Result<AnyPart> {
        match source {
            Source::Stored(entry) => {
                let input = self.repository.open_stream(entry, 0)?;
                Part::open(StreamReader::new(input, &self.read)?)
            }
            Source::Scratch(file) => {
                let again = |file: &File| {
                    let mut file = file.try_clone()?;
                    file.rewind().map(|()| file)
                };
                let file = again(file).map_err(|error| Error::io("read again", 0, error))?;
                let input: Box<dyn Read + Send> = Box::new(BufReader::new(file));
                Part::open(StreamReader::new(input, &self.write.to_read_again())?)
            }
        }
    }

    /// The same, at most [`PARTS_MAX`] of them: the first one as it is, the others in groups.
    fn merged<'p>(
        &self,
        mut sources: Vec<Source<'p>>,
        meter: &mut Paced<io::Sink>,
    ) -> Result<Vec<Source<'p>>> {
        while sources.len() > PARTS_MAX {
            let mut merged = Vec::new();
            let mut rest = sources.into_iter();
            merged.extend(rest.next());
            loop {
                let group: Vec<Source<'p>> = rest.by_ref().take(PARTS_MAX).collect();
                if group.is_empty() {
                    break;
                }
                merged.push(Source::Scratch(self.merge(&group, meter)?));
            }
            sources = merged;
        }
        Ok(sources)
    }

    /// Writes increments that follow on one another as one. What is not in use at its end is left to
    /// whoever has all bitmap pages.
    fn merge(&self, group: &[Source<'_>], meter: &mut Paced<io::Sink>) -> Result<File> {
        let mut parts = self.open(group)?;
        let first = *parts.first().expect("no group is empty").reader.header();
        let newest = *parts.last().expect("no group is empty").reader.header();
        let header = StreamHeader { base: first.base, ..newest };
        let file = tempfile::tempfile();
        let file = file.map_err(|error| Error::io("make a scratch file for", 0, error))?;
        let options = self.write.clone().threads(1);
        let mut stream = StreamWriter::new(file, header, &options)?;
        while let Some((id, bytes)) = next_page(&mut parts)? {
            if id.0 < header.page_count {
                meter.note(bytes.len() as u64)?;
                stream.pages(id, &bytes)?;
            }
        }
        Ok(stream.finish(header.position)?.0)
    }
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
