//! Backups of format version 1, kept for ever: each later build restores them.
//!
//! They were made by `cargo test -p treepie-snapshot --test chains -- --ignored golden`, which is not
//! done again: it would draw new random numbers, and prove nothing.

use std::{fs, path::PathBuf};

use treepie::{Base, Database, Options, ids::Lsn};
use treepie_snapshot::{
    ArchiveOptions, BackupOptions, Control, RestoreOptions, archive, backup,
    repository::{Repository, Until},
    restore_chain,
    store::LocalStore,
};

const NAMES: [&str; 3] = ["full.tps", "increment.tps", "records.tps"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/database-1")
}

/// What is committed before each of the streams, and by the last one record by record.
fn write(db: &Database, stage: u8) {
    for part in 0..3 {
        let receipt = db.write(|tx| {
            let mut birds = tx.tree("birds")?;
            for n in 0..40_u8 {
                birds.insert([stage, part, n], vec![n ^ stage; usize::from(n) * 5])?;
            }
            birds.remove([stage.wrapping_sub(1), part, 7])?;
            tx.tree("large")?.insert([stage, part], vec![stage; 30_000])
        });
        receipt.expect("a commit");
    }
}

/// Checks that the first `stages` were committed, and of the one behind them `parts` transactions.
fn verify(db: &Database, stages: u8, parts: u8) {
    let snapshot = db.read().expect("a snapshot");
    let (birds, large) = (snapshot.tree("birds").expect("it"), snapshot.tree("large").expect("it"));
    let mut count = 0;
    for stage in 0..=stages {
        for part in 0..if stage < stages { 3 } else { parts } {
            let is_followed = stage + 1 < stages || (stage + 1 == stages && part < parts);
            for n in (0..40_u8).filter(|n| !is_followed || *n != 7) {
                let value = birds.get([stage, part, n]).expect("it can be read");
                assert_eq!(value, Some(&vec![n ^ stage; usize::from(n) * 5][..]));
                count += 1;
            }
            let value = large.get([stage, part]).expect("it can be read");
            assert_eq!(value, Some(&[stage; 30_000][..]));
        }
    }
    assert_eq!(birds.len(), count);
    assert!(db.check().expect("a check").is_clean());
}

#[test]
fn backups_of_version_1_are_restored_for_ever() {
    let streams = NAMES.map(|name| fs::read(folder().join(name)).expect("a fixture"));
    let dir = tempfile::tempdir().expect("a folder");
    // The database began with one record, and each stage has three.
    let ends = [(1, Until::End, 1, 0), (2, Until::End, 2, 0), (3, Until::End, 3, 0)];
    let within = [(3, Until::Lsn(Lsn(8)), 2, 1), (3, Until::Lsn(Lsn(9)), 2, 2)];
    for (index, (len, until, stages, parts)) in ends.into_iter().chain(within).enumerate() {
        let target = dir.path().join(format!("{index}"));
        let options = RestoreOptions::new().until(until);
        let inputs = streams[..len].iter().map(|stream| &stream[..]);
        let report = restore_chain(inputs, &target, &options, Control::new());
        let report = report.unwrap_or_else(|error| panic!("{len} streams, {until:?}: {error}"));
        assert_eq!(report.position.lsn, Lsn(1 + u64::from(stages) * 3 + u64::from(parts)));
        verify(&Database::open(&target).expect("it opens"), stages, parts);
    }
}

#[test]
#[ignore = "makes the fixtures anew, which is done once in a version of the format"]
fn golden_backups_are_made() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options::new().create(true).page_size(4096).journal_retention(1 << 20);
    let db = options.open(dir.path().join("db")).expect("a new database");
    fs::create_dir_all(folder()).expect("a folder");
    let mut base: Option<Base> = None;
    for (stage, name) in NAMES.into_iter().enumerate().take(2) {
        write(&db, u8::try_from(stage).expect("few"));
        let options = base.map_or_else(BackupOptions::new, |base| BackupOptions::new().base(base));
        let (stream, report) = backup(&db, Vec::new(), &options, Control::new()).expect("a backup");
        let last = report.summary.last;
        base = Some(Base { lineage: db.lineage(), lsn: last.lsn, chain: last.chain });
        fs::write(folder().join(name), stream).expect("it is written");
    }
    let store = LocalStore::new(dir.path().join("backups"));
    let repository = Repository::open_or_create(std::sync::Arc::new(store)).expect("a repository");
    treepie_snapshot::keep(
        &db,
        &repository,
        treepie_snapshot::Extent::Full,
        &BackupOptions::new(),
        Control::new(),
    )
    .expect("a backup");
    write(&db, 2);
    let report = archive(&db, &repository, &ArchiveOptions::new(), Control::new());
    let file = report.expect("an archive").entries[0].file.clone();
    fs::copy(dir.path().join("backups").join(file.as_str()), folder().join(NAMES[2])).expect("it");
}
