//! Restores over what other attempts have left, to other targets than those, and across forks.

use std::{fs, path::Path, sync::Arc};

use tempfile::TempDir;
use treepie::{
    Database, DatabaseState, Error as EngineError, Installer, Lineage, Options, Reached,
};
use treepie_snapshot::{
    ArchiveOptions, BackupOptions, Content, Control, Error, Extent, ReadOptions, RecordBuffer,
    RestoreOptions, Restorer, StreamKind, StreamReader, archive, backup, keep,
    repository::{Branch, Plan, Repository, Target, Until},
    restore, restore_chain, restore_plan,
    store::LocalStore,
};

/// A folder with a database, and a repository that has a full backup of it.
struct Place {
    dir: TempDir,
    db: Database,
    repository: Repository,
}

fn open(path: &Path) -> Database {
    let options = Options::new().create(true).page_size(4096).journal_retention(64 << 20);
    options.open(path).expect("it opens")
}

fn put(db: &Database, tree: &str, value: &str) {
    db.write(|tx| tx.tree(tree)?.insert("k", value)).expect("a commit");
}

/// The value of a tree's key.
fn value(db: &Database, tree: &str) -> String {
    let snapshot = db.read().expect("a snapshot");
    let value = snapshot.tree(tree).expect("it is there").get("k").expect("it can be read");
    String::from_utf8_lossy(value.expect("it is there")).into_owned()
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a folder");
        let db = open(&dir.path().join("main"));
        for tree in ["one", "two"] {
            put(&db, tree, "00000000");
        }
        let store = Arc::new(LocalStore::new(dir.path().join("backups")));
        let repository = Repository::open_or_create(store).expect("a new repository");
        let mut place = Place { dir, db, repository };
        place.keep(Extent::Full);
        place
    }

    fn keep(&mut self, extent: Extent) {
        keep(&self.db, &self.repository, extent, &BackupOptions::new(), Control::new())
            .expect("a backup");
        self.repository.refresh().expect("it is there");
    }

    fn archive(&mut self, db: &Database) {
        archive(db, &self.repository, &ArchiveOptions::new(), Control::new()).expect("archived");
        self.repository.refresh().expect("it is there");
    }

    fn plan(&self, target: Target, of: Option<&Lineage>) -> Plan {
        let branch = of.map(|of| Branch { epoch: of.epoch, forked_at: Some(of.forked_at) });
        self.repository.plan(target, branch).expect("it is covered")
    }

    fn restore(&self, plan: &Plan, name: &str) -> treepie_snapshot::Result<Database> {
        let target = self.dir.path().join(name);
        restore_plan(&self.repository, plan, &target, &RestoreOptions::new(), Control::new())?;
        Ok(open(&target))
    }

    /// Installs a plan with the installer alone, as far as records were written out; returns the states
    /// before and after the records.
    fn install(&self, plan: &Plan, name: &str) -> (DatabaseState, DatabaseState) {
        let target = self.dir.path().join(name);
        let mut installer = Options::new().install(&target).expect("a new folder");
        let mut first = None;
        for step in &plan.steps {
            first = first.or(self.install_step(&mut installer, step));
        }
        installer.end_records().expect("they are written");
        let Reached::State(last) = *installer.reached() else { panic!("it is complete") };
        (first.expect("a full backup"), last)
    }

    fn install_step(
        &self,
        installer: &mut Installer,
        step: &treepie_snapshot::repository::Step,
    ) -> Option<DatabaseState> {
        let input = self.repository.open_stream(&step.entry, 0).expect("it is there");
        let mut reader = StreamReader::new(input, &ReadOptions::new()).expect("a stream");
        let header = *reader.header();
        let state = DatabaseState {
            lineage: header.lineage,
            page_size: header.page_size,
            page_count: header.page_count,
            lsn: header.position.lsn,
            chain: header.position.chain,
            created_us: header.database_created_us,
        };
        let is_full = header.kind == StreamKind::Full;
        if is_full {
            installer.begin_pages(&state, None).expect("it is empty");
        }
        let mut buffer = RecordBuffer::new();
        while let Some(content) = reader.next().expect("it is whole") {
            match content {
                Content::Pages(pages) => pages
                    .into_iter()
                    .for_each(|(id, bytes)| installer.pages(id, bytes).expect("written")),
                Content::Record(piece) => {
                    if let Some((_, bytes)) = buffer.push(&piece) {
                        installer.record(bytes, &header.lineage).expect("it follows");
                    }
                }
            }
        }
        if is_full {
            installer.end_pages().expect("all are there");
        }
        is_full.then_some(state)
    }
}

#[test]
fn restore_over_an_interrupted_one_of_another_branch_never_mixes_the_two() {
    let mut place = Place::new();
    let plan = place.plan(Target::Latest, None);
    let mut branches = Vec::new();
    for (name, tree, count) in [("a", "one", 5), ("b", "two", 10)] {
        let db = place.restore(&plan, name).expect("restored");
        (0..count).for_each(|n| put(&db, tree, &format!("{name}{n:07}")));
        place.archive(&db);
        branches.push(db.lineage());
    }
    let [a, b] = [&branches[0], &branches[1]].map(|of| place.plan(Target::Latest, Some(of)));
    // The first was killed when its pages were written out, before it could say so.
    let (state, end) = place.install(&a, "target");
    let note = Reached::Records { state, written_to: end.lsn, written_chain: end.chain };
    let partial = place.dir.path().join("target.partial");
    fs::write(partial.join("installing"), note.encode()).expect("it is written");
    let error = place.restore(&b, "target").expect_err("some pages are of the other branch");
    assert!(error.to_string().contains("remove `.partial`"), "{error}");
    fs::remove_dir_all(&partial).expect("it is there");
    let db = place.restore(&b, "target").expect("restored");
    assert_eq!((value(&db, "one"), value(&db, "two")), ("00000000".into(), "b0000009".into()));
}

#[test]
fn restore_to_a_lower_lsn_than_an_interrupted_one_begins_anew() {
    let mut place = Place::new();
    for n in 0..9 {
        put(&place.db, "one", &format!("{n}"));
    }
    place.archive(&place.db.clone());
    let plan = place.plan(Target::Latest, None);
    place.install(&plan, "target");
    let lower = place.plan(Target::Lsn(treepie::ids::Lsn(plan.lsn.0 - 3)), None);
    let db = place.restore(&lower, "target").expect("restored");
    assert_eq!(value(&db, "one"), "5");
}

#[test]
fn restore_that_goes_another_way_than_an_interrupted_one_begins_anew() {
    let mut place = Place::new();
    for n in 0..9 {
        put(&place.db, "one", &format!("{n}"));
    }
    place.archive(&place.db.clone());
    place.install(&place.plan(Target::Latest, None), "target");
    (0..9).for_each(|n| put(&place.db, "one", &format!("later {n}")));
    place.keep(Extent::Increment);
    let db = place.restore(&place.plan(Target::Latest, None), "target").expect("restored");
    assert_eq!(value(&db, "one"), "later 8");
}

#[test]
fn newer_full_backup_is_restored_over_an_interrupted_restore_of_an_older_one() {
    let place = Place::new();
    let options = RestoreOptions::new();
    let target = place.dir.path().join("target");
    let back_up = || backup(&place.db, Vec::new(), &BackupOptions::new(), Control::new());
    let (older, _) = back_up().expect("a backup");
    put(&place.db, "one", "newer");
    let (newer, _) = back_up().expect("a backup");
    let mut restorer = Restorer::begin(&target, &options).expect("a new folder");
    let reader = StreamReader::new(&older[..], &ReadOptions::new()).expect("a stream");
    restorer.apply(reader, Until::End).expect("it is whole");
    drop(restorer);
    let report = restore(&newer[..], &target, &options, Control::new()).expect("restored");
    assert!(!report.is_resumed, "nothing of the older one is used");
    assert_eq!(value(&open(&target), "one"), "newer");
}

#[test]
fn streams_that_end_before_the_target_or_begin_behind_it_are_refused() {
    let place = Place::new();
    let (full, first) =
        backup(&place.db, Vec::new(), &BackupOptions::new(), Control::new()).expect("a backup");
    put(&place.db, "one", "newer");
    let last = first.summary.last;
    let base = treepie::Base { lineage: place.db.lineage(), lsn: last.lsn, chain: last.chain };
    let options = BackupOptions::new().base(base);
    let (increment, second) =
        backup(&place.db, Vec::new(), &options, Control::new()).expect("an increment");
    let attempt = |until| {
        let target = place.dir.path().join("target");
        let options = RestoreOptions::new().until(until);
        let report = restore_chain([&full[..], &increment[..]], &target, &options, Control::new());
        assert!(!target.exists() || report.is_ok());
        report
    };
    let beyond = attempt(Until::Lsn(treepie::ids::Lsn(1000))).expect_err("they end before");
    assert!(beyond.to_string().contains("end before the LSN"), "{beyond}");
    let (time, between) = (first.summary.header.time_us, second.summary.header.time_us - 1);
    assert!(time <= between);
    let until = Until::Time { time_us: between, lsn_max: treepie::ids::Lsn(u64::MAX) };
    let newer = attempt(until).expect_err("the increment is from later");
    assert!(newer.to_string().contains("newer than what is to be restored"), "{newer}");
}

#[test]
fn restored_branch_has_the_lineage_of_its_last_record() {
    let mut place = Place::new();
    let b = place.restore(&place.plan(Target::Latest, None), "b").expect("restored");
    (0..3).for_each(|n| put(&b, "one", &format!("b{n}")));
    place.archive(&b);
    let plan = place.plan(Target::Latest, Some(&b.lineage()));
    let replica = RestoreOptions::new().replica(true);
    let target = place.dir.path().join("replica");
    let report = restore_plan(&place.repository, &plan, target, &replica, Control::new());
    assert_eq!(report.expect("restored").lineage, b.lineage());
    for n in 0..5 {
        let copy = place.restore(&plan, &format!("copy {n}")).expect("restored");
        assert_eq!(copy.lineage().fork_count(), b.lineage().fork_count() + 1);
        put(&copy, "one", "of the copy");
        place.archive(&copy);
        let plan = place.plan(Target::Latest, Some(&copy.lineage()));
        let again = place.restore(&plan, &format!("again {n}")).expect("restored");
        assert_eq!(value(&again, "one"), "of the copy");
    }
}

#[test]
fn folder_that_holds_anything_is_refused_before_the_restore_and_an_empty_one_is_taken() {
    let place = Place::new();
    let plan = place.plan(Target::Latest, None);
    let target = place.dir.path().join("target");
    fs::create_dir_all(target.join("folder")).expect("a folder");
    let error = place.restore(&plan, "target").expect_err("something is there");
    assert!(matches!(&error, Error::Engine(EngineError::Io { action: "create", .. })), "{error}");
    assert!(!place.dir.path().join("target.partial").exists(), "nothing was begun");
    fs::remove_dir(target.join("folder")).expect("it is empty");
    place.restore(&plan, "target").expect("restored");
}

#[test]
fn nobody_begins_another_restore_where_one_is_about_to_be_published() {
    let place = Place::new();
    let plan = place.plan(Target::Latest, None);
    let target = place.dir.path().join("target");
    let mut installer = Options::new().install(&target).expect("a new folder");
    place.install_step(&mut installer, &plan.steps[0]);
    let mut sealed = installer.seal().expect("it is complete");
    let refused = || match Options::new().install(&target) {
        Err(EngineError::Locked { .. }) => {}
        other => panic!("{other:?} is not refused"),
    };
    refused();
    let db = sealed.open(&Options::new()).expect("it opens");
    refused();
    db.close().expect("it closes");
    sealed.fork().expect("it forks");
    refused();
    sealed.publish().expect("it gets its name");
    assert_eq!(value(&open(&target), "one"), "00000000");
}
