//! The bound on what is read in vain.

use std::{path::Path, sync::Arc};

use super::source::{Source, Wanted};
use crate::{
    Options,
    disk::{Disk, RealDisk},
    format::{overflow, page},
    ids::{Lsn, PageId},
};

const PAGE_SIZE: usize = 4096;
/// Pages of each run.
const PAGES: u64 = 4;

/// A database with a few runs at rest; returns where they begin.
fn with_runs(folder: &Path, count: u8) -> Vec<(PageId, Wanted)> {
    let options = Options::new().create(true).page_size(PAGE_SIZE).map_size(1 << 24);
    let db = options.background_threads(false).open(folder).expect("it opens");
    let value_len = PAGES as usize * PAGE_SIZE - page::PAGE_HEADER_SIZE;
    for number in 0..count {
        let value = vec![number; value_len];
        db.write(|tx| tx.tree("t")?.insert([number], value).map(|_| ())).expect("a commit");
    }
    db.close().expect("it closes");
    let data = std::fs::read(folder.join("data")).expect("it is there");
    let pages = data.chunks_exact(PAGE_SIZE).enumerate();
    let runs = pages.filter(|(_, bytes)| page::kind(bytes) == Some(page::PageKind::Overflow));
    let first = |(number, bytes): (usize, &[u8])| {
        let first = PageId(u32::try_from(number).expect("small"));
        let value_len = overflow::value_len(bytes);
        let (tree, leaf_lsn) = (page::tree(bytes), Lsn(u64::MAX));
        (first, Wanted { tree, value_len, leaf_lsn, is_leaf_young: false })
    };
    // The inside of a run has no header, and these values are no page kinds.
    let runs: Vec<_> = runs.map(first).filter(|(_, wanted)| wanted.value_len > 0).collect();
    assert_eq!(runs.len(), usize::from(count));
    runs
}

fn source(folder: &Path) -> Source {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    Source::open(&disk, folder).expect("it is a database")
}

fn flip(folder: &Path, offset: usize) {
    let path = folder.join("data");
    let mut data = std::fs::read(&path).expect("it is there");
    data[offset] ^= 1;
    std::fs::write(&path, data).expect("it can be written");
}

#[test]
fn runs_are_refused_once_eight_times_the_pages_were_read_in_vain() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("db");
    let runs = with_runs(&folder, 3);
    let source = source(&folder);
    let (first, wanted) = &runs[0];
    let run = source.run(*first, wanted).expect("it verifies");
    let pages = u64::from(source.file_pages);
    let mut in_vain = 0;
    // As for entries that lead to runs of others, which are read and not taken.
    while in_vain / 8 <= pages {
        source.run(*first, wanted).expect("not yet");
        source.note_vain(&run);
        in_vain += PAGES;
    }
    for (first, wanted) in &runs {
        let what = source.run(*first, wanted).expect_err("that was the last");
        assert!(what.contains("too many pages were read"), "{what}");
    }
    assert!(in_vain <= 8 * pages + 8 + PAGES, "{in_vain} of {pages}");
}

#[test]
fn a_run_that_does_not_verify_is_read_once_and_counts_and_others_are_still_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("db");
    let runs = with_runs(&folder, 2);
    let (damaged, wanted) = &runs[0];
    flip(&folder, (damaged.0 as usize + 2) * PAGE_SIZE + 99);
    let source = source(&folder);
    let what = source.run(*damaged, wanted).expect_err("it is damaged");
    assert!(what.contains("checksum"), "{what}");
    for _ in 0..1000 {
        let what = source.run(*damaged, wanted).expect_err("it is damaged");
        assert!(what.contains("as was seen before"), "{what}");
    }
    source.run(runs[1].0, &runs[1].1).expect("it verifies");
}
