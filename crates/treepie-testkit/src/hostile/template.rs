//! Databases at rest that hostile bytes are put into: small, with every kind of page and record.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use treepie::{Compression, Database, Options, ids::Lsn};

use super::stamp::{FileKind, PAGE_SIZE};
use crate::SimDisk;

/// Folder of the database on a simulated disk.
pub const DIR: &str = "/db";
/// Path of the data file.
pub const DATA: &str = "/db/data";

/// Memory for versions of pages of a hostile database, in bytes.
pub const VERSIONS_MEMORY: usize = 4 << 20;
/// Bytes of its scratch files, which are memory too on a simulated disk.
pub const SCRATCH_MEMORY: usize = 8 << 20;
/// Address space of its map, in bytes.
const MAP_SIZE: usize = 1 << 20;

/// Options for a hostile database: small bounds, nothing in the background.
#[must_use]
pub fn options(disk: &SimDisk) -> Options {
    Options::new()
        .versions_memory(VERSIONS_MEMORY)
        .scratch_memory(SCRATCH_MEMORY)
        .map_size(MAP_SIZE)
        .readers_max(16)
        .journal_segment_size(16 << 10)
        .journal_reserve(0)
        .checkpoint_distance(256 << 10)
        .journal_max(4 << 20)
        .compression(Compression::Off)
        .background_threads(false)
        .disk(Arc::new(disk.clone()))
}

/// One file of a database.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path on the disk.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A database at rest.
#[derive(Debug)]
pub struct Template {
    /// What tells it from the others.
    pub name: &'static str,
    /// The disk; make copies with [`SimDisk::settled`].
    pub disk: SimDisk,
    /// The files, the empty ones left out.
    pub files: Vec<File>,
    /// LSN and chain hash of the last record.
    pub last: (u64, u64),
    /// Where the next frame belongs: the newest segment, and the offset in it.
    pub end: (PathBuf, usize),
}

impl Template {
    fn new(name: &'static str, disk: &SimDisk, last: (u64, u64), end: (PathBuf, usize)) -> Self {
        let files = disk.file_paths().into_iter().map(|path| {
            let bytes = disk.file_bytes(&path).expect("it was just listed");
            let kind = match path.extension() {
                Some(extension) if extension == "seg" => FileKind::Segment,
                _ if path == Path::new(DATA) => FileKind::Data,
                _ => FileKind::Other,
            };
            File { path, kind, bytes }
        });
        let files = files.filter(|file| !file.bytes.is_empty()).collect();
        Template { name, disk: disk.settled(2), files, last, end }
    }

    /// The bytes of the data file.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let data = self.files.iter().find(|file| file.kind == FileKind::Data);
        data.map_or(&[], |file| &file.bytes)
    }
}

/// The templates: one that is checkpointed, one with records to replay.
///
/// # Panics
/// If the engine cannot make them.
pub fn all() -> &'static [Template; 2] {
    static TEMPLATES: OnceLock<[Template; 2]> = OnceLock::new();
    TEMPLATES.get_or_init(|| [make("checkpointed", true), make("to replay", false)])
}

fn make(name: &'static str, is_checkpointed: bool) -> Template {
    let disk = SimDisk::new(1);
    let new = options(&disk).create(true).page_size(PAGE_SIZE);
    let db = new.open(DIR).expect("a new database opens");
    fill(&db, 0);
    db.close().expect("closing checkpoints");
    let db = options(&disk).checkpoint_on_close(is_checkpointed).open(DIR).expect("it opens again");
    fill(&db, 1);
    let last = db.journal_records(Lsn(0)).expect("the journal is read").last();
    let last = last.expect("records are there").expect("the last one is whole");
    db.close().expect("closing");
    let bytes = disk.file_bytes(&last.file).expect("the newest segment");
    let start = usize::try_from(last.offset).expect("a small file");
    let end = start + usize::try_from(last.stored_len).expect("a small file");
    let chain = xxhash_rust::xxh3::xxh3_64(&bytes[start..end]);
    Template::new(name, &disk, (last.lsn.0, chain), (last.file, end.next_multiple_of(8)))
}

/// A few commits: a tree of two levels, one of a single leaf, values in runs, pages that became free.
fn fill(db: &Database, round: u32) {
    let write = |numbers: std::ops::Range<u32>| {
        db.write(|tx| {
            let mut tree = tx.tree("numbers")?;
            for number in numbers.clone() {
                let key = format!("number {:06}", number * 2 + round);
                tree.insert(key, vec![number as u8; 40 + number as usize % 60])?;
            }
            Ok(())
        })
        .expect("a commit");
    };
    write(0..80);
    db.write(|tx| {
        let mut tree = tx.tree("birds")?;
        tree.insert("pica pica", "magpie")?;
        tree.insert(format!("garrulus {round}"), "jay")?;
        tx.tree("large")?.insert(format!("photo {round}"), vec![0xa5; 6000])?;
        tx.tree("large")?.insert("map", vec![0x5a; 9000])?;
        tx.tree(format!("short-lived {round}"))?.insert("key", vec![1; 2000]).map(|_| ())
    })
    .expect("a commit");
    db.write(|tx| {
        tx.drop_tree("short-lived 0")?;
        tx.tree("numbers")?.remove_range("number 000020".."number 000040")?;
        tx.tree("large")?.remove("photo 0").map(|_| ())
    })
    .expect("a commit");
    write(80..100);
}
