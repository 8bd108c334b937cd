//! A database that takes no writes any more, because its disk failed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use treepie::{Database, Options, ids::Lsn};
use treepie_snapshot::{
    ArchiveOptions, Archiver, CancelToken, Control, Error, archive, repository::Repository,
};
use treepie_testkit::{Call, Fault, SimDisk};

use crate::harness;

fn put(db: &Database, value: &str) -> treepie::Result<Lsn> {
    Ok(db.write(|tx| tx.tree("t")?.insert("k", value))?.lsn)
}

#[test]
fn archive_of_a_poisoned_database_has_all_that_was_durable_and_who_follows_is_told() {
    let disk = SimDisk::new(71);
    let options = Options::new().versions_memory(1 << 20).map_size(4 << 20).create(true);
    let options = options.scratch_memory(64 << 20).readers_max(16).background_threads(false);
    let options = options.disk(Arc::new(disk.clone()));
    let db = options.open("/db").expect("a new database");
    let repository = Repository::open_or_create(harness::store(&SimDisk::new(72)));
    let repository = repository.expect("a repository begins");
    let last = (0..10).map(|n| put(&db, &n.to_string()).expect("a commit")).max();
    let archiver = Archiver::begin(&db, &repository, &ArchiveOptions::new(), Control::new());
    let archiver = archiver.expect("nothing is archived yet");
    disk.fail(Fault::nth(0).of(Call::SyncData).on("journal").forever());
    put(&db, "lost").expect_err("the disk fails");

    let begun = Instant::now();
    let told = archiver.follow(&CancelToken::new()).expect_err("nothing will come any more");
    let is_poison = matches!(&told, Error::Engine(treepie::Error::Poisoned { .. }));
    assert!(is_poison, "{told}");
    assert!(begun.elapsed() < Duration::from_secs(50), "it does not wait for its file to be full");
    let newest = |repository: &Repository| {
        let mut repository = repository.clone();
        repository.refresh().expect("it is there");
        repository.manifest().entries.iter().map(|entry| entry.stream.last.lsn).max()
    };
    assert_eq!(newest(&repository), last, "what was durable is archived before");

    let other = Repository::open_or_create(harness::store(&SimDisk::new(73)));
    let other = other.expect("a repository begins");
    let report = archive(&db, &other, &ArchiveOptions::new(), Control::new());
    assert_eq!(report.expect("all is there").records, last.expect("there are commits").0);
    assert_eq!(newest(&other), last);
}
