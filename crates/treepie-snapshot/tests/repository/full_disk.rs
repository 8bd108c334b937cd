//! A disk without room, and locks.

use std::sync::Arc;

use treepie_snapshot::{
    repository::{Kind, Repository, RepositoryError, Retention, Target},
    store::{LocalStore, StoreError},
};
use treepie_testkit::{Rng, SimDisk};

use crate::harness::{self, Job, Step, add, content, description};

#[test]
fn full_disk_refuses_streams_lets_prunes_free_room_and_then_goes_on() {
    let disk = SimDisk::new(1);
    let mut job = Job::begin(harness::store(&disk)).unwrap();
    for lsn in [10, 20, 30] {
        job.step(&Step::Add(description(Kind::Full, 0, lsn))).unwrap();
    }
    let used: usize =
        disk.file_paths().iter().map(|path| disk.file_bytes(path).unwrap().len()).sum();
    // Room for a manifest, and for no stream.
    disk.set_capacity(Some(used as u64 + 6_000));
    let stream = description(Kind::Full, 0, 40);
    let bytes = Rng::new(1).bytes(20_000);
    let error = add(job.writer.as_mut().unwrap(), &stream, &bytes).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    let repository = Repository::open(harness::store(&disk)).unwrap();
    harness::verify(&repository, &job.expected, &job.expected).unwrap();
    assert_eq!(repository.files().unwrap().orphans, [], "what was begun is cleared away");
    assert_eq!(repository.plan(Target::Latest, None).unwrap().lsn.0, 30);
    job.step(&Step::Prune(1)).unwrap();
    add(job.writer.as_mut().unwrap(), &stream, &content(&stream)).unwrap();
}

#[test]
fn second_writer_is_refused_with_the_first_ones_name_and_readers_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::new(folder.path().join("repo")));
    let repository = Repository::open_or_create(store.clone()).unwrap();
    let writer = repository.writer("nightly backup").unwrap();
    match repository.writer("prune") {
        Err(error @ RepositoryError::Store(StoreError::Locked { .. })) => {
            let text = error.to_string();
            let pid = format!("process {}", std::process::id());
            assert!(text.contains("nightly backup") && text.contains(&pid), "{text}");
            assert!(error.is_contention());
        }
        other => panic!("{other:?}"),
    }
    Repository::open(store.clone()).unwrap().listing().unwrap();
    drop(writer);
    let policy = Retention { last: 1, ..Retention::default() };
    let plan = repository.prune_plan(&policy, 0, 0).unwrap();
    repository.writer("prune").unwrap().prune(&plan).unwrap();
}

#[test]
fn repository_that_is_not_there_is_told_and_not_created_by_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    let error = Repository::open(Arc::new(LocalStore::new(&path))).unwrap_err();
    assert!(matches!(error, RepositoryError::NotFound { .. }), "{error}");
    assert!(!path.exists());
}
