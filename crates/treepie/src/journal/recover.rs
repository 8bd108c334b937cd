//! Opening a journal: every record above the checkpoint is verified and applied, the end is found,
//! and what was found is made durable before anything relies on it.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use crate::{
    disk::OpenMode,
    error::{Error, Result},
    format::{record::Record, segment::SEGMENT_HEADER_SIZE},
    ids::{Lsn, Term},
    sync::{
        Condvar, Mutex, Planted,
        atomic::{AtomicBool, AtomicU64},
        is_planted, thread,
    },
};

use super::{
    Journal, JournalConfig, JournalPosition, Recovered, Shared,
    cursor::{Cursor, Expected, Step},
    marks::Marks,
    pins::Pins,
    roll::{first_segment_len, prepare_spares},
    segment::{SegmentReader, align_block, read_header, segment_name},
    spare::{Calls, Live, Shelf, adopt_spares},
    terms::Terms,
    writer::Writer,
};

/// Bytes that are read and written again at a time.
const REWRITE_LEN: u64 = 1 << 20;

impl Journal {
    /// Opens the journal and calls `apply` with every record above `from`, the checkpoint, in
    /// order; in a replicated journal, with those that are known to be committed: the others are kept, and
    /// consensus decides about them. With `is_fresh`, the checkpoint is LSN 0, and neither segments nor the
    /// folder need exist.
    ///
    /// # Errors
    /// [`Corrupt`](Error::Corrupt) and [`JournalGap`](Error::JournalGap) when records are lost that
    /// were durable, [`Io`](Error::Io), and what `apply` returns.
    pub fn recover(
        config: JournalConfig,
        from: JournalPosition,
        is_fresh: bool,
        apply: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<(Journal, Recovered)> {
        if is_fresh {
            create_dir(&config)?;
        }
        let mut cursor = open_cursor(&config, from, is_fresh)?;
        let mut walk = Walk::new(from, cursor.place().0);
        loop {
            match cursor.step_any()? {
                Step::End => break,
                Step::Local => walk.note_local(&cursor),
                Step::Record => walk.note_record(&mut cursor, apply)?,
            }
        }
        let Walk { mut recovered, marks, place, tail, terms, held_from, .. } =
            walk.finish(&cursor, &config, apply)?;
        recovered.torn_tail = cursor.torn_tail().cloned();
        if let Some(tail) = &recovered.torn_tail {
            let (file, offset) = (tail.file.display(), tail.offset);
            tracing::warn!(%file, offset, lsn = tail.lsn.0, "dropped a torn tail of the journal");
        }
        if tail.has_records && !is_planted(Planted::TailNotSynced) {
            tail.make_durable(&config, place)?;
        }
        remove_remains(&config, &cursor)?;
        let terms = older_terms(&config, &cursor, terms)?;
        let shelf = fill_shelf(&config, &cursor, place)?;
        let start = Start {
            next_sequence: cursor.survey().next_sequence(),
            shelf,
            marks,
            terms,
            held_from,
        };
        Ok((Journal::start(config, &recovered, start)?, recovered))
    }

    fn start(config: JournalConfig, recovered: &Recovered, start: Start) -> Result<Journal> {
        let next_len = first_segment_len(config.segment_size_max);
        let is_background = config.background;
        let dir = config.dir.clone();
        let pins = Pins::new(config.keep);
        let Start { next_sequence, shelf, marks, mut terms, held_from } = start;
        let last = recovered.last;
        // With nothing else known of the last record, it is one that was never replicated.
        terms.tell_if_unknown(last.lsn);
        let term = terms.term(last.lsn).unwrap_or_default();
        let writer = Writer::new(last, term, next_len, next_sequence, recovered.hard_state);
        let shared = Arc::new(Shared {
            config,
            sync_turn: Mutex::new(()),
            writer: Mutex::new(writer),
            trim_turn: Mutex::new(()),
            shelf: Mutex::new(shelf),
            shelf_changed: Condvar::new(),
            pins: Mutex::new(pins),
            marks: Mutex::new(marks),
            poison: OnceLock::new(),
            calls: Calls::default(),
            is_short: AtomicBool::new(false),
            terms: Mutex::new(terms),
            appended: AtomicU64::new(last.lsn.0),
            known_committed: AtomicU64::new(recovered.committed.lsn.0),
            held_from: AtomicU64::new(held_from.map_or(u64::MAX, |first| first.0)),
            truncations: AtomicU64::new(0),
        });
        let mut preparer = None;
        if is_background {
            let shared = shared.clone();
            let thread = thread::Builder::new().name("treepie-spare".into());
            let spawned = thread.spawn(move || prepare_spares(&shared));
            preparer = Some(spawned.map_err(Error::io("start a thread for", dir))?);
        }
        Ok(Journal { shared, preparer })
    }
}

/// What an opened journal begins with, beside what was recovered.
struct Start {
    next_sequence: u64,
    shelf: Shelf,
    marks: Marks,
    terms: Terms,
    held_from: Option<Lsn>,
}

/// What the walk over all records comes to.
struct Walk {
    from: JournalPosition,
    recovered: Recovered,
    marks: Marks,
    /// The segment of the last step, and the bytes used in it.
    place: (Lsn, u64),
    tail: Tail,
    terms: Terms,
    /// The segment with the last hard state.
    held_from: Option<Lsn>,
}

impl Walk {
    fn new(from: JournalPosition, first: Lsn) -> Walk {
        let recovered = Recovered {
            last: from,
            committed: from,
            committed_us: 0,
            hard_state: None,
            records: 0,
            bytes: 0,
            torn_tail: None,
        };
        let (marks, terms) = (Marks::new(from.lsn), Terms::default());
        // Nothing is counted of the first segment yet, not even its header.
        let place = (first, 0);
        Walk { from, recovered, marks, place, tail: Tail::default(), terms, held_from: None }
    }

    fn note_local(&mut self, cursor: &Cursor) {
        self.tail.note_local(cursor);
        self.place = cursor.place();
        let header = cursor.header();
        self.terms.tell(header.lsn(), header.term());
        if cursor.hard_state().is_some() {
            self.held_from = Some(self.place.0);
        }
    }

    fn note_record(
        &mut self,
        cursor: &mut Cursor,
        apply: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<()> {
        let before = std::mem::replace(&mut self.place, cursor.place());
        self.tail.note(cursor);
        let header = cursor.header();
        self.terms.begin(header.lsn(), header.term());
        let recovered = &mut self.recovered;
        // Before its first hard state a journal is not replicated, and all that is in it is committed.
        let is_committed = cursor.hard_state().is_none() || is_planted(Planted::TailApplied);
        if is_committed || header.lsn() <= self.from.lsn {
            recovered.committed_us = header.time_us();
        }
        if header.lsn() <= self.from.lsn {
            return Ok(());
        }
        recovered.last = JournalPosition { lsn: header.lsn(), chain: header.chain() };
        if is_committed {
            apply(&cursor.record()?)?;
            recovered.committed = recovered.last;
        }
        recovered.records += 1;
        let counted = if before.0 == self.place.0 { align_block(before.1) } else { 0 };
        let bytes = align_block(self.place.1) - counted;
        recovered.bytes += bytes;
        self.marks.add(recovered.last.lsn, bytes);
        Ok(())
    }

    /// Applies what is known to be committed, now that all records have said what they know.
    fn finish(
        mut self,
        cursor: &Cursor,
        config: &JournalConfig,
        apply: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<Walk> {
        let recovered = &mut self.recovered;
        recovered.hard_state = cursor.hard_state();
        let committed = cursor.known_committed().min(recovered.last.lsn);
        if committed <= recovered.committed.lsn {
            return Ok(self);
        }
        let mut again = open_cursor(config, recovered.committed, false)?;
        while again.last().0 < committed && again.step()? {
            let header = again.header();
            if header.lsn() > recovered.committed.lsn {
                apply(&again.record()?)?;
                recovered.committed = JournalPosition { lsn: header.lsn(), chain: header.chain() };
                recovered.committed_us = header.time_us();
            }
        }
        if recovered.committed.lsn < committed {
            return Err(Error::JournalGap {
                folder: config.dir.clone(),
                missing: recovered.committed.lsn.next(),
                evidence: format!("records up to {committed} were there a moment ago"),
            });
        }
        Ok(self)
    }
}

fn create_dir(config: &JournalConfig) -> Result<()> {
    let (disk, dir) = (&config.disk, &config.dir);
    disk.create_dir(dir).map_err(Error::io("create", dir))?;
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => dir,
    };
    disk.sync_dir(parent).map_err(Error::io("sync", parent))
}

fn open_cursor(config: &JournalConfig, from: JournalPosition, is_fresh: bool) -> Result<Cursor> {
    let expected = Expected {
        identity: Some((config.database_id, config.epoch)),
        page_size: Some(config.page_size),
        position: Some((from.lsn, from.chain)),
        is_live: false,
        needs_hard_state: true,
    };
    let cursor = Cursor::open(config.disk.clone(), &config.dir, from.lsn, expected)?;
    let gap = |evidence: String| {
        Err(Error::JournalGap { folder: config.dir.clone(), missing: from.lsn.next(), evidence })
    };
    match cursor.segments().first() {
        Some(&first) if first > from.lsn.next() => {
            gap(format!("the oldest segment is {}", segment_name(first)))
        }
        None if !is_fresh => gap(format!("the checkpoint is at {}, and a segment stays", from.lsn)),
        _ => Ok(cursor),
    }
}

/// The records that nothing vouches for yet: they may be in the page cache only.
#[derive(Debug, Default)]
struct Tail {
    has_records: bool,
    segment: Option<Lsn>,
    /// LSN of each, and where its blocks begin in the segment.
    records: Vec<(Lsn, u64)>,
}

impl Tail {
    /// Adds the record that the cursor is at.
    fn note(&mut self, cursor: &Cursor) {
        self.begin(cursor);
        let vouched = cursor.vouched();
        self.records.retain(|&(lsn, _)| lsn > vouched);
        self.records.push((cursor.last().0, cursor.block_offset()));
    }

    /// Adds the local record that the cursor is at: durable once a record behind it is.
    fn note_local(&mut self, cursor: &Cursor) {
        self.begin(cursor);
        self.records.push((cursor.last().0.next(), cursor.block_offset()));
    }

    /// What is in segments before this one was synced before this one got its name.
    fn begin(&mut self, cursor: &Cursor) {
        self.has_records = true;
        let segment = cursor.place().0;
        if self.segment.replace(segment) != Some(segment) {
            self.records.clear();
        }
    }

    /// Makes what was read durable, before anything relies on it. When a sync of the process before
    /// this one failed, the kernel shows bytes that it will never write, and a sync now reports
    /// success. So the tail is written again, as it was read.
    fn make_durable(&self, config: &JournalConfig, (segment, used): (Lsn, u64)) -> Result<()> {
        let (disk, dir) = (&config.disk, &config.dir);
        let path = dir.join(segment_name(segment));
        let file = disk.open(&path, OpenMode::ReadWrite).map_err(Error::io("open", &path))?;
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        // Padding of the last block may have been cut off.
        let used = used.min(len);
        let mut at = self.records.first().map_or(used, |&(_, offset)| offset);
        let mut buf = Vec::new();
        if is_planted(Planted::TailNotRewritten) {
            at = used;
        }
        while at < used {
            let len = (used - at).min(REWRITE_LEN);
            buf.resize(usize::try_from(len).expect("a piece fits in memory"), 0);
            file.read_at(at, &mut buf).map_err(Error::io("read", &path))?;
            file.write_at(at, &buf).map_err(Error::io("write", &path))?;
            at += len;
        }
        file.sync_data().map_err(Error::io("sync", &path))?;
        disk.sync_dir(dir).map_err(Error::io("sync", dir))
    }
}

/// Terms of the records that are kept in segments below those of the walk, for a replica that has
/// fallen behind: told by the hard states at the heads of segments that follow one another. Where a
/// term began inside such a segment, its records are walked over.
fn older_terms(config: &JournalConfig, cursor: &Cursor, mut terms: Terms) -> Result<Terms> {
    let Some((known, _)) = terms.first().filter(|_| cursor.hard_state().is_some()) else {
        return Ok(terms);
    };
    let segments = cursor.segments();
    let walked = segments.partition_point(|&first| first <= known.next());
    let newer = segments.iter().take(walked).rev();
    for (&next, &first) in newer.clone().zip(newer.skip(1)) {
        let header = |first| read_header(&*config.disk, &config.dir, first);
        let (Some(before), Some(behind)) = (header(first)?, header(next)?) else { break };
        if before.sequence + 1 != behind.sequence {
            break;
        }
        let Some(found) = terms_of_segment(config, first, next, &terms)? else { break };
        terms.extend_front(&found);
    }
    Ok(terms)
}

/// Terms of the record before a segment and of its own, as ranges; none where it has no hard state at its
/// head, or is not whole.
fn terms_of_segment(
    config: &JournalConfig,
    first: Lsn,
    next: Lsn,
    newer: &Terms,
) -> Result<Option<Vec<(Lsn, Term)>>> {
    let mut segment = SegmentReader::open(&*config.disk, &config.dir, first)?;
    let Some((lsn, term)) = segment.told_at_head()? else { return Ok(None) };
    let mut found = Terms::default();
    found.tell(lsn, term);
    if newer.term(Lsn(next.0 - 1)) != Some(term) {
        let (mut offset, mut lsn) = (SEGMENT_HEADER_SIZE as u64, first);
        while lsn < next {
            let Ok(record) = segment.find(offset, lsn)? else { return Ok(None) };
            offset = record.offset + record.len as u64;
            if !record.header.kind().is_local() {
                found.begin(lsn, record.header.term());
                lsn = lsn.next();
            }
        }
    }
    Ok(Some(found.ranges()))
}

/// Finishes a removal that a crash has interrupted: the segment that supersedes is durable by now.
fn remove_remains(config: &JournalConfig, cursor: &Cursor) -> Result<()> {
    let (disk, dir) = (&config.disk, &config.dir);
    for &first in cursor.survey().remains() {
        let path = dir.join(segment_name(first));
        tracing::info!(file = %path.display(), "removes a segment that was given up");
        disk.remove(&path).map_err(Error::io("remove", &path))?;
    }
    if cursor.survey().remains().is_empty() {
        return Ok(());
    }
    disk.sync_dir(dir).map_err(Error::io("sync", dir))
}

fn fill_shelf(config: &JournalConfig, cursor: &Cursor, place: (Lsn, u64)) -> Result<Shelf> {
    let mut shelf = Shelf::default();
    for &first in cursor.segments() {
        let path = config.dir.join(segment_name(first));
        let file = config.disk.open(&path, OpenMode::ReadOnly).map_err(Error::io("open", &path))?;
        let len = file.len().map_err(Error::io("read the length of", &path))?;
        let used = match first.cmp(&place.0) {
            std::cmp::Ordering::Less => len,
            std::cmp::Ordering::Equal => place.1,
            std::cmp::Ordering::Greater => 0,
        };
        shelf.segments.push(Live { first, len, used });
    }
    adopt_spares(&*config.disk, &config.dir, &mut shelf)?;
    Ok(shelf)
}
