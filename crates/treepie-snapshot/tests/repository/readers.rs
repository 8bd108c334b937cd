//! Readers beside a writer, damage, and a manifest made anew.

use std::{io::Read, path::Path, sync::Arc};

use treepie_snapshot::{
    ids::{DatabaseId, Lsn},
    repository::{
        Description, Entry, Kind, Repository, RepositoryError, Retention, STREAMS_FOLDER, Target,
    },
    store::{Name, Store},
};
use treepie_testkit::SimDisk;

use crate::harness::{self, Job, PLACE, Step, add, content, description};

fn job(disk: &SimDisk, streams: &[Description]) -> Job {
    let mut job = Job::begin(harness::store(disk)).expect("a repository begins");
    for stream in streams {
        job.step(&Step::Add(stream.clone())).expect("a stream is added");
    }
    job
}

fn chain() -> [Description; 4] {
    [
        description(Kind::Full, 0, 10),
        description(Kind::Increment, 10, 20),
        description(Kind::Records, 20, 30),
        description(Kind::Full, 0, 40),
    ]
}

/// The description of a stream, as its header would give it.
fn described(streams: &[Description], bytes: &[u8]) -> Result<Description, String> {
    let found = streams.iter().find(|stream| content(stream) == bytes);
    found.cloned().ok_or_else(|| "it is no stream".to_owned())
}

fn rebuild(store: Arc<dyn Store>, streams: &[Description]) -> (Vec<Entry>, Vec<String>) {
    let rebuilt = Repository::rebuild(store, |file| {
        let mut bytes = Vec::new();
        let mut reader = file.open(0).map_err(|error| error.to_string())?;
        reader.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        described(streams, &bytes)
    });
    let rebuilt = rebuilt.expect("a manifest is rebuilt");
    (rebuilt.manifest.entries, rebuilt.left_out.into_iter().map(|(_, why)| why).collect())
}

#[test]
fn stream_that_was_pruned_under_a_reader_is_told_and_an_open_one_reads_on() {
    let disk = SimDisk::new(1);
    let mut job = job(&disk, &chain());
    let reader = Repository::open(harness::store(&disk)).unwrap();
    let plan = reader.plan(Target::Lsn(Lsn(25)), None).unwrap();
    assert_eq!(plan.steps.len(), 3);
    let mut open = reader.open_stream(&plan.steps[0].entry, 0).unwrap();
    job.step(&Step::Prune(1)).unwrap();
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, content(&chain()[0]));
    match reader.open_stream(&plan.steps[1].entry, 0).map(|_| ()) {
        Err(error @ RepositoryError::FileMissing { .. }) => {
            assert!(error.to_string().contains("increment-"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // Its manifest is old: what it plans now tells what is missing.
    match reader.plan(Target::Lsn(Lsn(25)), None) {
        Err(RepositoryError::Hole(hole)) => assert_eq!(hole.above, Some(Lsn(40)), "{hole}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hole_is_told_with_what_is_missing_and_what_can_be_restored() {
    let disk = SimDisk::new(1);
    let streams = [
        description(Kind::Full, 0, 1000),
        description(Kind::Records, 1000, 1200),
        description(Kind::Records, 1300, 1400),
        description(Kind::Full, 0, 1301),
    ];
    let job = job(&disk, &streams);
    let repository = Repository::open(job.store).unwrap();
    let error = repository.plan(Target::Lsn(Lsn(1250)), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "LSN 1250 cannot be restored: records 1201..1300 are not in the repository; the nearest \
         restorable LSNs are 1200 and 1301"
    );
    let time = description(Kind::Full, 0, 1250).last_time_us;
    let error = repository.plan(Target::Time(time), None).unwrap_err().to_string();
    assert!(error.contains("records 1201..1300 are not in the repository"), "{error}");
    let error = repository.plan(Target::Lsn(Lsn(2000)), None).unwrap_err().to_string();
    assert!(error.contains("ends before it; the nearest restorable LSN is 1400"), "{error}");
    for lsn in [1000, 1100, 1200, 1301, 1350, 1400] {
        assert_eq!(repository.plan(Target::Lsn(Lsn(lsn)), None).unwrap().lsn, Lsn(lsn));
    }
}

#[test]
fn flipped_bit_in_the_newest_manifest_stops_writers_and_not_restores() {
    let disk = SimDisk::new(1);
    let job = job(&disk, &chain());
    let number = job.writer.as_ref().unwrap().manifest().number;
    drop(job);
    let path = format!("{PLACE}/manifest/{number:020}.json");
    let at_rest = disk.settled(2);
    let len = at_rest.file_bytes(Path::new(&path)).unwrap().len() as u64;
    for bit in (0..len * 8).step_by(97) {
        let disk = at_rest.settled(bit);
        disk.flip_bit(Path::new(&path), bit);
        let store = harness::store(&disk);
        let repository = Repository::open(Arc::clone(&store)).unwrap();
        assert!(repository.damage().is_some(), "bit {bit}");
        assert_eq!(repository.manifest().entries.len(), 3, "the one before has three streams");
        assert_eq!(repository.plan(Target::Latest, None).unwrap().lsn, Lsn(30));
        match repository.writer("backup") {
            Err(error @ RepositoryError::ManifestDamaged { .. }) => {
                assert!(error.to_string().contains("rebuild"), "{error}");
            }
            other => panic!("bit {bit}: {other:?}"),
        }
        let (entries, left_out) = rebuild(Arc::clone(&store), &chain());
        assert_eq!((entries.len(), left_out.len()), (4, 0), "bit {bit}");
        Repository::open(store).unwrap().writer("backup").unwrap();
    }
}

#[test]
fn rebuilt_manifest_has_the_same_streams_and_leaves_strangers_out() {
    let disk = SimDisk::new(1);
    let job = job(&disk, &chain());
    let mut before = job.writer.as_ref().unwrap().manifest().entries.clone();
    drop(job);
    let disk = disk.settled(2);
    let store = harness::store(&disk);
    let mut stranger = description(Kind::Full, 0, 77);
    stranger.lineage.database_id = DatabaseId([6; 16]);
    let name = |file: &str| Name::new(format!("{STREAMS_FOLDER}/{file}")).unwrap();
    let file = name("full-00000000000000000077-20231114T221320Z-00000000000000aa.tps");
    store.put(&file, &mut &content(&stranger)[..]).unwrap();
    let file = name("full-00000000000000000078-20231114T221320Z-00000000000000ab.tps");
    store.put(&file, &mut &b"no stream"[..]).unwrap();
    store.put(&name("notes.txt"), &mut &b"the user's own"[..]).unwrap();
    let mut known = chain().to_vec();
    known.push(stranger);
    let (mut entries, left_out) = rebuild(Arc::clone(&store), &known);
    before.sort_by(|a, b| a.file.cmp(&b.file));
    entries.sort_by(|a, b| a.file.cmp(&b.file));
    assert_eq!(entries, before);
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    assert!(left_out.iter().any(|why| why.contains("holds backups of database")), "{left_out:?}");
    // The user's own file is nobody's orphan.
    let repository = Repository::open(store).unwrap();
    assert_eq!(repository.files().unwrap().orphans.len(), 2);
}

#[test]
fn stream_that_does_not_belong_is_refused_and_leaves_nothing() {
    let disk = SimDisk::new(1);
    let mut job = job(&disk, &chain());
    let writer = job.writer.as_mut().unwrap();
    let mut stranger = description(Kind::Full, 0, 50);
    stranger.lineage.database_id = DatabaseId([6; 16]);
    let mut copy = description(Kind::Full, 0, 20);
    copy.last.chain ^= 1;
    let mut other_base = description(Kind::Increment, 10, 50);
    other_base.base.chain ^= 1;
    let mut other_epoch = description(Kind::Increment, 10, 50);
    other_epoch.lineage.epoch = 1;
    let empty = description(Kind::Increment, 10, 10);
    for (stream, part) in [
        (&stranger, "use another one"),
        (&copy, "another copy of this database"),
        (&other_base, "write a full backup"),
        (&other_epoch, "write a full backup"),
        (&empty, "ends where it begins"),
    ] {
        let error = add(writer, stream, b"bytes").unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let stream = description(Kind::Full, 0, 60);
    let new = writer.create(Kind::Records, Lsn(0), Lsn(60)).unwrap();
    assert!(matches!(writer.add(new, stream), Err(RepositoryError::Description { .. })));
    let repository = Repository::open(harness::store(&disk)).unwrap();
    assert_eq!(repository.manifest().entries.len(), 4);
    assert_eq!(repository.files().unwrap().orphans, []);
}

#[test]
fn plan_of_another_state_of_the_repository_is_not_carried_out() {
    let disk = SimDisk::new(1);
    let mut job = job(&disk, &chain());
    let repository = Repository::open(harness::store(&disk)).unwrap();
    let policy = Retention { last: 1, ..Retention::default() };
    let plan = repository.prune_plan(&policy, repository.store().now_us(), 0).unwrap();
    assert_eq!(plan.remove.len(), 3);
    job.step(&Step::Add(description(Kind::Full, 0, 50))).unwrap();
    let writer = job.writer.as_mut().unwrap();
    assert!(matches!(writer.prune(&plan), Err(RepositoryError::StalePlan)));
    assert_eq!(writer.manifest().entries.len(), 5);
    let id = writer.manifest().entries[0].id.clone();
    writer.forget(&[&id]).unwrap();
    assert!(matches!(writer.forget(&[&id]), Err(RepositoryError::StalePlan)));
    assert_eq!(writer.manifest().entries.len(), 4);
}

#[test]
fn listing_tells_snapshots_runs_of_records_and_what_is_missing() {
    let disk = SimDisk::new(1);
    let mut streams = chain().to_vec();
    streams.push(description(Kind::Records, 35, 45));
    let job = job(&disk, &streams);
    let writer = job.writer.as_ref().unwrap();
    let increment = writer.manifest().entries[1].clone();
    let listing = Repository::open(harness::store(&disk)).unwrap().listing().unwrap();
    let lsns: Vec<u64> = listing.snapshots.iter().map(|snapshot| snapshot.lsn).collect();
    assert_eq!(lsns, [10, 20, 40]);
    let bytes = |lsn: usize| listing.snapshots[lsn].restore_bytes.unwrap();
    assert_eq!(bytes(1), listing.snapshots[0].bytes + listing.snapshots[1].bytes);
    let runs: Vec<_> = listing
        .records
        .iter()
        .map(|run| (run.first_lsn, run.last_lsn, run.restorable_from))
        .collect();
    assert_eq!(runs, [(21, 30, Some(20)), (36, 45, Some(40))]);
    job.store.remove(&increment.file).unwrap();
    let listing = Repository::open(harness::store(&disk)).unwrap().listing().unwrap();
    assert_eq!(listing.damaged_files, [increment.file.to_string()]);
    assert_eq!(listing.snapshots[1].restore_bytes, None);
    assert_eq!(listing.records[0].restorable_from, None);
    serde_json::to_string(&listing).unwrap();
}
