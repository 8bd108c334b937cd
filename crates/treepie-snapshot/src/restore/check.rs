//! Looking at what was made, before it gets its name.

use treepie::{Base, CheckReport, CopyOptions, Database, Sealed};

use super::RestoreOptions;
use crate::{
    error::{Error, Result},
    format::header::Position,
    hash::{Digest, PageHasher},
};

/// Bytes of pages that are read at a time to compare them.
const CHUNK_LEN: usize = 1 << 20;

/// The pages of the last stream of pages, to be compared at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct PagesOf {
    pub(super) position: Position,
    pub(super) base: Option<Position>,
    pub(super) page_hash: Digest,
}

/// Opens what was made, checks it, and compares its pages with those that the last stream of pages had.
pub(super) fn check(
    sealed: &mut Sealed,
    options: &RestoreOptions,
    pages: Option<PagesOf>,
) -> Result<CheckReport> {
    let path = sealed.path().to_owned();
    let restored = |what: String| Error::Restored { path: path.clone(), what };
    let lsn = sealed.state().lsn;
    let db = sealed.open(&options.engine)?;
    let report = db.check()?;
    if let Some(problem) = report.problems.first() {
        let count = report.problems.len();
        return Err(restored(format!("the check finds {count} problems, the first: {problem}")));
    }
    if let Some(pages) = pages.filter(|pages| pages.position.lsn == lsn) {
        let found = page_hash(&db, pages.base)?;
        if found != pages.page_hash {
            return Err(restored("its pages are not those of the stream".to_owned()));
        }
    }
    db.close()?;
    Ok(report)
}

/// The hash of all used pages, or of those that have changed since `base`.
fn page_hash(db: &Database, base: Option<Position>) -> Result<Digest> {
    let mut options = CopyOptions::new();
    if let Some(base) = base {
        // What was restored has no journal that goes back to it; the streams have proved it.
        let base = Base { lineage: db.lineage(), lsn: base.lsn, chain: base.chain };
        options = options.base(base).unproved_base(true);
    }
    let mut copy = db.copy_pages(&options)?;
    let mut hasher = PageHasher::new(db.page_size());
    let mut chunk = Vec::new();
    while let Some(first) = copy.next(&mut chunk, CHUNK_LEN)? {
        hasher.push(first, &chunk);
        chunk.clear();
    }
    Ok(hasher.finish())
}
