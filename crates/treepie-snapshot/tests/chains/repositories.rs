//! Repositories of backups: what is kept can be restored, to any LSN that is covered and to times.

use std::{sync::Arc, time::Duration};

use treepie::ids::Lsn;
use treepie_snapshot::{
    ArchiveOptions, Archiver, BackupOptions, CancelToken, Control, Error, Extent, ReadOptions,
    RestoreOptions, StreamOptions, archive, drill, keep,
    repository::{ArchivePolicy, Repository, RepositoryError, Target},
    restore_plan, squash,
    store::LocalStore,
    verify_repository,
};
use treepie_testkit::{Rng, SimDisk, mix, tally};

use crate::{
    for_seeds, seeds,
    source::{Source, options},
};

fn new_repository(disk: &SimDisk) -> Repository {
    let store = LocalStore::on(Arc::new(disk.clone()), "/backups");
    Repository::open_or_create(Arc::new(store)).expect("a new repository")
}

fn small_files(bytes_max: u64) -> ArchiveOptions {
    let policy = ArchivePolicy { bytes_max, age_max_us: 1_000 };
    ArchiveOptions::new().policy(policy).stream(StreamOptions::new().threads(1))
}

fn restore_to(
    source: &Source,
    repository: &Repository,
    target: Target,
    seed: u64,
) -> Result<Lsn, String> {
    let disk = SimDisk::new(seed);
    let plan = repository.plan(target, None).map_err(|error| error.to_string())?;
    let restore = RestoreOptions::new().engine(options(&disk)).read(ReadOptions::new().threads(1));
    let report = restore_plan(repository, &plan, "/restored", &restore, Control::new())
        .map_err(|error| error.to_string())?;
    let db = options(&disk).open("/restored").map_err(|error| error.to_string())?;
    let lsn = source.verify(&db)?;
    if lsn != report.position.lsn { Err(format!("it is at LSN {lsn}")) } else { Ok(lsn) }
}

fn check(seed: u64) -> Result<u64, String> {
    let source = Source::new(seed);
    let mut rng = Rng::new(mix(seed, 5));
    let place = SimDisk::new(mix(seed, 6));
    let mut repository = new_repository(&place);
    let backup = BackupOptions::new().stream(StreamOptions::new().threads(1));
    source.steps(3 + rng.index(10));
    let first = keep(&source.db(), &repository, Extent::Auto, &backup, Control::new());
    let first = first.map_err(|error| error.to_string())?.expect("there is something").entry;
    for _ in 0..rng.index(6) {
        source.steps(rng.index(12));
        let db = source.db();
        let archive_options = small_files(*rng.pick(&[1, 4_000, 1 << 20]));
        let done = match rng.below(4) {
            0 => keep(&db, &repository, Extent::Auto, &backup, Control::new()).map(|_| ()),
            1 => keep(&db, &repository, Extent::Full, &backup, Control::new()).map(|_| ()),
            _ => archive(&db, &repository, &archive_options, Control::new()).map(|_| ()),
        };
        done.map_err(|error| error.to_string())?;
    }
    archive(&source.db(), &repository, &small_files(10_000), Control::new())
        .map_err(|error| error.to_string())?;
    repository.refresh().map_err(|error| error.to_string())?;
    let report = verify_repository(&repository, false, &ReadOptions::new(), Control::new());
    if !report.map_err(|error| error.to_string())?.is_sound() {
        return Err("it is not sound".to_owned());
    }
    let (from, to) = (first.stream.last.lsn.0, source.lsn().0);
    let mut count = 0;
    for lsn in [from, to, from + rng.below(to - from + 1), from + rng.below(to - from + 1)] {
        let found = restore_to(&source, &repository, Target::Lsn(Lsn(lsn)), mix(seed, lsn));
        let found = found.map_err(|what| format!("to LSN {lsn} of {from}..{to}: {what}"))?;
        if found.0 != lsn {
            return Err(format!("asked for LSN {lsn}, it is {found}"));
        }
        count += 1;
    }
    // Every time leads to the last commit at or before it.
    let mut records = source.db().records(Lsn(from)).map_err(|error| error.to_string())?;
    while let Some(record) = records.next_record().map_err(|error| error.to_string())? {
        if rng.chance(1, 8) {
            let at = Target::Time(record.time_us + rng.below(2));
            let found = restore_to(&source, &repository, at, mix(seed, record.lsn.0));
            let found = found.map_err(|what| format!("to the time of {}: {what}", record.lsn))?;
            if found != record.lsn {
                return Err(format!("asked for the time of {}, it is {found}", record.lsn));
            }
            count += 1;
        }
    }
    Ok(count)
}

#[test]
fn repository_restores_every_lsn_and_every_time_that_it_covers() {
    let seeds = seeds(150);
    let work = |seed| check(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    let count = for_seeds(&seeds, work, |sum, count| *sum += count);
    let what = format!("{} of {} repositories", tally::thousands(count), seeds.len());
    tally::note(13, "points in time", &what);
}

#[test]
fn squashed_backup_restores_the_same_state_and_holds_no_freed_pages() {
    for seed in seeds(20) {
        let source = Source::new(seed);
        let place = SimDisk::new(seed);
        let mut repository = new_repository(&place);
        let backup = BackupOptions::new().stream(StreamOptions::new().threads(1));
        for _ in 0..4 {
            source.steps(12);
            keep(&source.db(), &repository, Extent::Auto, &backup, Control::new()).expect("kept");
        }
        repository.refresh().expect("it is there");
        let (read, write) = (ReadOptions::new(), StreamOptions::new().threads(1));
        let squashed = squash(&repository, None, &read, &write, Control::new());
        let Some(squashed) = squashed.expect("a squash") else { continue };
        let ids: Vec<&str> = squashed.parts.iter().map(|part| part.id.as_str()).collect();
        let mut writer = repository.writer("test").expect("nobody writes");
        writer.forget(&ids).expect("they are there");
        drop(writer);
        repository.refresh().expect("it is there");
        let lsn = squashed.entry.stream.last.lsn;
        // The restore compares all used pages with those of the stream.
        let found = restore_to(&source, &repository, Target::Latest, seed);
        assert_eq!(found, Ok(lsn), "seed {seed}");
    }
}

#[test]
fn archive_follows_a_database_and_ends_with_all_of_it() {
    let source = Source::new(11);
    let place = SimDisk::new(11);
    let mut repository = new_repository(&place);
    let backup = BackupOptions::new();
    keep(&source.db(), &repository, Extent::Full, &backup, Control::new()).expect("kept");
    let archiver = Archiver::begin(&source.db(), &repository, &small_files(2_000), Control::new());
    let archiver = archiver.expect("it goes on behind the backup");
    let cancel = CancelToken::new();
    std::thread::scope(|scope| {
        let following = scope.spawn(|| archiver.follow(&cancel));
        while source.step(false) {}
        // The first files are there while it follows.
        let written = || {
            let mut seen = repository.clone();
            seen.refresh().expect("it is there");
            seen.manifest().entries.len() > 1
        };
        while !written() {
            cancel.wait(Duration::from_millis(1)).expect("nobody has cancelled it");
        }
        cancel.cancel();
        let report = following.join().expect("no panic").expect("an archive");
        assert!(report.records > 10 && report.hole.is_none());
    });
    repository.refresh().expect("it is there");
    assert_eq!(restore_to(&source, &repository, Target::Latest, 1), Ok(source.lsn()));
}

#[test]
fn hole_between_archive_and_journal_is_told_and_gone_over_only_when_asked() {
    let disk = SimDisk::new(5);
    let db = options(&disk).create(true).open("/db").expect("a new database");
    let place = SimDisk::new(6);
    let repository = new_repository(&place);
    keep(&db, &repository, Extent::Full, &BackupOptions::new(), Control::new()).expect("kept");
    for n in 0..40_u8 {
        db.write(|tx| tx.tree("t")?.insert([n], vec![n; 3000])).expect("a commit");
        db.checkpoint().expect("a checkpoint");
    }
    let error = archive(&db, &repository, &small_files(1 << 20), Control::new());
    let error = error.expect_err("nothing keeps the journal");
    assert!(matches!(error, Error::Archive { first, .. } if first.0 > 1), "{error}");
    let over = small_files(1 << 20).over_holes(true);
    let report = archive(&db, &repository, &over, Control::new()).expect("it was asked for");
    let (first, last) = report.hole.expect("it is told");
    let mut repository = repository;
    repository.refresh().expect("it is there");
    let lsn = db.durable_lsn();
    match repository.plan(Target::Lsn(lsn), None) {
        Err(RepositoryError::Hole(hole)) => assert_eq!(hole.missing, Some((first, last))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn drill_restores_checks_and_leaves_nothing_behind() {
    let source = Source::new(3);
    source.steps(40);
    let place = SimDisk::new(3);
    let mut repository = new_repository(&place);
    keep(&source.db(), &repository, Extent::Full, &BackupOptions::new(), Control::new())
        .expect("kept");
    repository.refresh().expect("it is there");
    let scratch = tempfile::tempdir().expect("a folder");
    let restore = RestoreOptions::new();
    let drilled =
        drill(&repository, Target::Latest, None, scratch.path(), &restore, Control::new());
    let report = drilled.expect("it restores");
    assert_eq!(report.restore.position.lsn, source.lsn());
    assert!(report.restore.check.is_some_and(|check| check.is_clean()));
    assert_eq!(std::fs::read_dir(scratch.path()).expect("it is there").count(), 0);
}

#[test]
fn restored_database_goes_on_in_the_same_repository_and_both_branches_can_be_restored() {
    for seed in seeds(20) {
        let source = Source::new(seed);
        let mut rng = Rng::new(mix(seed, 8));
        let place = SimDisk::new(seed);
        let mut repository = new_repository(&place);
        let backup = BackupOptions::new().stream(StreamOptions::new().threads(1));
        source.steps(10);
        let first = keep(&source.db(), &repository, Extent::Auto, &backup, Control::new());
        let first = first.expect("a backup").expect("there is something").entry.stream.last.lsn;
        source.steps(20);
        archive(&source.db(), &repository, &small_files(5_000), Control::new()).expect("archived");
        repository.refresh().expect("it is there");
        let old = source.db().lineage();
        let fork = Lsn(first.0 + rng.below(source.lsn().0 - first.0 + 1));

        let disk = SimDisk::new(mix(seed, 1));
        let plan = repository.plan(Target::Lsn(fork), None).expect("it is covered");
        let restore = RestoreOptions::new().engine(options(&disk));
        restore_plan(&repository, &plan, "/restored", &restore, Control::new()).expect("restored");
        let copy = options(&disk).journal_retention(1 << 20).open("/restored").expect("it opens");
        let write = |n: u8| {
            copy.write(|tx| tx.tree("of the copy")?.insert([n], [n; 100])).expect("a commit");
        };
        (0..5).for_each(write);
        if rng.chance(1, 2) {
            // Otherwise its records follow those of the database that it was restored from.
            let kept = keep(&copy, &repository, Extent::Auto, &backup, Control::new());
            let entry = kept.expect("a backup").expect("there is something").entry;
            assert_eq!(entry.stream.kind, treepie_snapshot::repository::Kind::Full);
            (5..9).for_each(write);
        }
        archive(&copy, &repository, &small_files(1_000), Control::new()).expect("archived");
        repository.refresh().expect("it is there");

        let found = SimDisk::new(mix(seed, 2));
        let plan = repository.plan(Target::Latest, None);
        let plan = plan.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let restore = RestoreOptions::new().engine(options(&found));
        restore_plan(&repository, &plan, "/restored", &restore, Control::new())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let again = options(&found).open("/restored").expect("it opens");
        let tree = again.read().expect("a snapshot");
        let copied = copy.read().expect("a snapshot");
        let count = copied.tree("of the copy").expect("it is there").len();
        assert_eq!(tree.lsn(), copied.lsn(), "seed {seed}");
        assert_eq!(tree.tree("of the copy").expect("it is there").len(), count, "seed {seed}");

        let branch = treepie_snapshot::repository::Branch { epoch: old.epoch, forked_at: None };
        let plan = repository.plan(Target::Latest, Some(branch)).expect("it is still there");
        let disk = SimDisk::new(mix(seed, 3));
        let restore = RestoreOptions::new().engine(options(&disk));
        restore_plan(&repository, &plan, "/restored", &restore, Control::new()).expect("restored");
        let db = options(&disk).open("/restored").expect("it opens");
        assert_eq!(source.verify(&db), Ok(source.lsn()), "seed {seed}");
    }
}
