//! Opening a journal: every record above the checkpoint is verified and applied, the end is found,
//! and what was found is made durable before anything relies on it.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use crate::{
    disk::OpenMode,
    error::{Error, Result},
    format::record::Record,
    ids::Lsn,
    sync::{Condvar, Mutex, Planted, atomic::AtomicBool, is_planted, thread},
};

use super::{
    Journal, JournalConfig, JournalPosition, Recovered, Shared,
    cursor::{Cursor, Expected},
    marks::Marks,
    pins::Pins,
    roll::{first_segment_len, prepare_spares},
    segment::{align_block, segment_name},
    spare::{Calls, Live, Shelf, adopt_spares},
    writer::Writer,
};

/// Bytes that are read and written again at a time.
const REWRITE_LEN: u64 = 1 << 20;

impl Journal {
    /// Opens the journal and calls `apply` with every record above `from`, the checkpoint, in
    /// order. With `is_fresh`, the checkpoint is LSN 0, and neither segments nor the folder need
    /// exist.
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
        let mut marks = Marks::new(from.lsn);
        let mut recovered =
            Recovered { last: from, last_us: 0, records: 0, bytes: 0, torn_tail: None };
        // Nothing is counted of the first segment yet, not even its header.
        let mut place = (cursor.place().0, 0);
        let mut tail = Tail::default();
        while cursor.step()? {
            let before = std::mem::replace(&mut place, cursor.place());
            tail.note(&cursor);
            recovered.last_us = cursor.header().time_us();
            if cursor.last().0 <= from.lsn {
                continue;
            }
            let record = cursor.record()?;
            apply(&record)?;
            recovered.last = JournalPosition { lsn: record.lsn(), chain: record.chain() };
            recovered.records += 1;
            let counted = if before.0 == place.0 { align_block(before.1) } else { 0 };
            let bytes = align_block(place.1) - counted;
            recovered.bytes += bytes;
            marks.add(recovered.last.lsn, bytes);
        }
        recovered.torn_tail = cursor.torn_tail().cloned();
        if let Some(tail) = &recovered.torn_tail {
            let (file, offset) = (tail.file.display(), tail.offset);
            tracing::warn!(%file, offset, lsn = tail.lsn.0, "dropped a torn tail of the journal");
        }
        if tail.has_records && !is_planted(Planted::TailNotSynced) {
            tail.make_durable(&config, place)?;
        }
        let shelf = fill_shelf(&config, &cursor, place)?;
        Ok((Journal::start(config, recovered.last, shelf, marks)?, recovered))
    }

    fn start(
        config: JournalConfig,
        last: JournalPosition,
        shelf: Shelf,
        marks: Marks,
    ) -> Result<Journal> {
        let next_len = first_segment_len(config.segment_size_max);
        let is_background = config.background;
        let dir = config.dir.clone();
        let pins = Pins::new(config.keep);
        let shared = Arc::new(Shared {
            config,
            sync_turn: Mutex::new(()),
            writer: Mutex::new(Writer::new(last, next_len)),
            trim_turn: Mutex::new(()),
            shelf: Mutex::new(shelf),
            shelf_changed: Condvar::new(),
            pins: Mutex::new(pins),
            marks: Mutex::new(marks),
            poison: OnceLock::new(),
            calls: Calls::default(),
            is_short: AtomicBool::new(false),
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
    /// LSN of each, and where its blocks begin in the segment.
    records: Vec<(Lsn, u64)>,
}

impl Tail {
    /// Adds the record that the cursor is at.
    fn note(&mut self, cursor: &Cursor) {
        self.has_records = true;
        let vouched = cursor.vouched();
        self.records.retain(|&(lsn, _)| lsn > vouched);
        self.records.push((cursor.last().0, cursor.block_offset()));
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
