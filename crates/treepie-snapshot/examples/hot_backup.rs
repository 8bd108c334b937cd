//! A program that goes on writing while it is backed up, in the same process.
//!
//! One thread archives every record as it becomes durable, another one makes backups now and then; both
//! write to one repository. In the end the state after a commit in the middle is restored.
//!
//! `cargo run -p treepie-snapshot --example hot_backup`

use std::{error::Error, path::Path, sync::Arc, thread};

use treepie::{Database, ids::Lsn};
use treepie_snapshot::{
    ArchiveOptions, ArchiveReport, Archiver, BackupOptions, CancelToken, Control, Extent,
    RestoreOptions, keep,
    repository::{ArchivePolicy, Repository, Target},
    restore_plan,
    store::LocalStore,
};

const COMMITS: u64 = 500;
const BACKUPS: usize = 5;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let db = Database::open(folder.path().join("db"))?;
    db.write(|tx| tx.tree("counts")?.insert("start", ""))?;

    let repository =
        Repository::open_or_create(Arc::new(LocalStore::new(folder.path().join("backups"))))?;
    // The archive goes on where the newest backup or the archive before it ended.
    keep(&db, &repository, Extent::Full, &BackupOptions::new(), Control::new())?;

    let stop = CancelToken::new();
    let (middle, archived) = thread::scope(|scope| {
        let archiving = scope.spawn(|| archive(&db, &repository, &stop));
        let backing_up = scope.spawn(|| back_up(&db, &repository));
        let written = write(&db);
        let backed_up = join(backing_up);
        // What was committed before this is archived before `follow` returns.
        stop.cancel();
        let archived = join(archiving)?;
        backed_up?;
        Ok::<_, Box<dyn Error + Send + Sync>>((written?, archived))
    })?;
    println!("{} records are archived, in {} files", archived.records, archived.entries.len());
    db.close()?;
    restore(&repository, middle, folder.path())
}

/// What the program does all day. Returns the LSN of a commit in the middle.
fn write(db: &Database) -> Outcome<Lsn> {
    let mut middle = Lsn(0);
    for count in 0..COMMITS {
        let mut txn = db.begin_write()?;
        txn.tree("counts")?.insert(format!("{count:06}"), count.to_string())?;
        let lsn = txn.commit()?;
        if count == COMMITS / 2 {
            middle = lsn;
        }
    }
    Ok(middle)
}

/// Files of a megabyte, or of five seconds: that much a lost machine costs.
fn archive(db: &Database, repository: &Repository, stop: &CancelToken) -> Outcome<ArchiveReport> {
    let policy = ArchivePolicy { bytes_max: 1 << 20, age_max_us: 5_000_000 };
    let options = ArchiveOptions::new().policy(policy);
    Ok(Archiver::begin(db, repository, &options, Control::new())?.follow(stop)?)
}

/// A program of its own has a timer here.
fn back_up(db: &Database, repository: &Repository) -> Outcome<()> {
    for _ in 0..BACKUPS {
        match keep(db, repository, Extent::Auto, &BackupOptions::new(), Control::new()) {
            Ok(Some(kept)) => println!("{}", kept.entry.stream.summary()),
            Ok(None) => println!("nothing was committed since"),
            // The archive has the lock for a moment: the next turn will do.
            Err(treepie_snapshot::Error::Repository(error)) if error.is_contention() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn restore(repository: &Repository, lsn: Lsn, folder: &Path) -> Outcome<()> {
    let repository = Repository::open(Arc::clone(repository.store()))?;
    let plan = repository.plan(Target::Lsn(lsn), None)?;
    let target = folder.join("restored");
    let report = restore_plan(&repository, &plan, &target, &RestoreOptions::new(), Control::new())?;
    let restored = Database::open(target)?;
    let snapshot = restored.read()?;
    let entries = snapshot.tree("counts")?.len();
    println!(
        "LSN {} is restored from {} streams: {entries} entries",
        report.position.lsn,
        plan.steps.len()
    );
    assert_eq!((report.position.lsn, entries), (lsn, COMMITS / 2 + 2));
    Ok(())
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Outcome<T>>) -> Outcome<T> {
    thread.join().map_err(|_| "a thread panicked")?
}
