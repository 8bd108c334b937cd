use std::io::{Read, Write};

use object_store::{local::LocalFileSystem, memory::InMemory};

use super::*;
use crate::{
    repository::{
        Kind, Repository, RepositoryError, Target,
        testing::{full, increment, lineage},
    },
    store::lease,
};

/// The stores without a network, each empty; the folder lives as long as its store.
fn stores() -> Vec<(Arc<dyn ObjectStore>, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true);
    vec![(Arc::new(InMemory::new()), None), (Arc::new(local), Some(folder))]
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn read(store: &ObjectFolder, file: &str, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.open(&name(file), offset).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn objects_are_written_in_parts_and_read_back_from_any_offset() {
    let mut rng = treepie_testkit::Rng::new(3);
    for (objects, _folder) in stores() {
        let store = ObjectFolder::begin(objects, "some/where", Parts::Alike(1 << 20)).unwrap();
        for len in [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (9 << 20) + 7] {
            let bytes = rng.bytes(len);
            let mut writer = store.create(&name("streams/a")).unwrap();
            for piece in bytes.chunks(300_001) {
                writer.write_all(piece).unwrap();
            }
            assert_eq!(writer.finish().unwrap(), len as u64);
            assert_eq!(store.len(&name("streams/a")).unwrap(), Some(len as u64));
            for offset in [0, len / 2, len] {
                assert!(read(&store, "streams/a", offset as u64) == bytes[offset..], "{len}");
            }
            store.remove(&name("streams/a")).unwrap();
            store.remove(&name("streams/a")).unwrap();
        }
    }
}

#[test]
fn parts_grow_so_that_a_stream_may_have_more_than_a_tebibyte() {
    let most = |parts: Parts| (0..writer::PARTS_MAX).map(|n| parts.len(n) as u64).sum::<u64>();
    assert_eq!(most(Parts::Growing(PART_LEN)) >> 30, 1515);
    assert_eq!(most(Parts::Alike(PART_LEN)), 10_000 * (16 << 20));
    let lens = [0, 999, 1000, 4999, 5000, 9999].map(|n| Parts::Growing(PART_LEN).len(n) >> 20);
    assert_eq!(lens, [16, 16, 64, 64, 256, 256]);
}

#[test]
fn object_takes_all_that_its_parts_hold_and_not_a_byte_more() {
    let len_max = 1000 + 4 * 4000 + 16 * 5000;
    let bytes = treepie_testkit::Rng::new(5).bytes(len_max + 1);
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = ObjectFolder::begin(objects, "", Parts::Growing(1)).unwrap();
    let mut writer = store.create(&name("streams/a")).unwrap();
    writer.write_all(&bytes[..len_max]).unwrap();
    assert_eq!(writer.finish().unwrap(), len_max as u64);
    assert!(read(&store, "streams/a", 0) == bytes[..len_max]);
    let mut writer = store.create(&name("streams/b")).unwrap();
    let written = writer.write_all(&bytes).map_err(|error| error.to_string());
    let error = written.and_then(|()| writer.finish().map_err(|error| error.to_string()));
    assert!(error.clone().is_err_and(|error| error.contains("10000 parts")), "{error:?}");
    assert_eq!(store.len(&name("streams/b")).unwrap(), None);
}

#[test]
fn nothing_is_seen_of_an_object_before_it_is_finished_or_after_it_is_given_up() {
    for (objects, _folder) in stores() {
        let store = ObjectFolder::begin(objects, "", Parts::Alike(1 << 20)).unwrap();
        for is_dropped in [false, true] {
            let mut writer = store.create(&name("streams/a")).unwrap();
            writer.write_all(&vec![7; 3 << 20]).unwrap();
            assert_eq!(store.list("streams").unwrap(), []);
            assert_eq!(store.len(&name("streams/a")).unwrap(), None);
            if is_dropped {
                drop(writer);
            } else {
                writer.abort();
            }
            assert_eq!(store.list("streams").unwrap(), []);
        }
        assert!(matches!(store.open(&name("streams/a"), 0), Err(StoreError::NotFound { .. })));
    }
}

#[test]
fn listing_has_the_files_of_one_folder_with_their_lengths() {
    for (objects, _folder) in stores() {
        let store = ObjectFolder::new(objects, "deep/down").unwrap();
        for (file, len) in [("streams/a", 1), ("streams/b", 2), ("manifest/c", 3)] {
            store.put(&name(file), &mut &vec![0; len][..]).unwrap();
        }
        let mut items = store.list("streams").unwrap();
        items.sort_by(|a, b| a.name.cmp(&b.name));
        let found: Vec<(&str, u64)> =
            items.iter().map(|item| (item.name.as_str(), item.bytes)).collect();
        assert_eq!(found, [("streams/a", 1), ("streams/b", 2)]);
        assert!(items.iter().all(|item| item.modified_us.is_some()));
        assert!(store.list("none").unwrap().is_empty());
        assert!(matches!(store.list("../x"), Err(StoreError::Name { .. })));
    }
}

#[test]
fn one_of_many_writers_creates_a_file_and_one_has_the_lease() {
    for (objects, _folder) in stores() {
        let store = ObjectFolder::new(objects, "r").unwrap();
        let winners: usize = thread::scope(|scope| {
            let writers: Vec<_> = (0..8_u8)
                .map(|writer| {
                    let store = store.clone();
                    scope.spawn(move || store.put_if_absent(&name("manifest/1"), &[writer]))
                })
                .collect();
            writers.into_iter().map(|w| usize::from(w.join().unwrap().unwrap())).sum()
        });
        assert_eq!(winners, 1);
        let mut lock = store.lock("backup").unwrap();
        match store.lock("prune") {
            Err(StoreError::Locked { owner, .. }) => assert!(owner.contains("backup"), "{owner}"),
            other => panic!("{other:?}"),
        }
        lock.renew().unwrap();
        drop(lock);
        drop(store.lock("prune").unwrap());
        assert!(store.list(lease::FOLDER).unwrap().len() <= 5);
    }
}

#[test]
fn repository_works_on_an_object_store_as_in_a_folder() {
    for (objects, _folder) in stores() {
        let store: Arc<dyn Store> = Arc::new(ObjectFolder::new(objects, "backups").unwrap());
        assert!(matches!(
            Repository::open(Arc::clone(&store)),
            Err(RepositoryError::NotFound { .. })
        ));
        let mut repository = Repository::open_or_create(Arc::clone(&store)).unwrap();
        let mut writer = repository.writer("test").unwrap();
        for entry in [full(lineage(0), 10), increment(lineage(0), 10, 20)] {
            let stream = entry.stream;
            let new = writer.create(stream.kind, stream.base.lsn, stream.last.lsn);
            let mut new = new.unwrap();
            new.write_all(b"stream").unwrap();
            writer.add(new, stream).unwrap();
        }
        drop(writer);
        repository.refresh().unwrap();
        let plan = repository.plan(Target::Latest, None).unwrap();
        let kinds: Vec<Kind> = plan.steps.iter().map(|step| step.entry.stream.kind).collect();
        assert_eq!(kinds, [Kind::Full, Kind::Increment]);
        let mut bytes = Vec::new();
        let mut stream = repository.open_stream(&plan.steps[1].entry, 2).unwrap();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"ream");
    }
}

#[test]
fn url_of_a_service_that_this_build_lacks_is_refused() {
    for url in ["nonsense", "ftp://host/x", "s3:"] {
        let error = ObjectFolder::from_url(url, []).unwrap_err();
        assert!(error.to_string().starts_with(url), "{error}");
    }
    let memory = ObjectFolder::from_url("memory:///backups", []).unwrap();
    memory.put(&name("streams/a"), &mut &b"x"[..]).unwrap();
    assert_eq!(read(&memory, "streams/a", 0), b"x");
}
