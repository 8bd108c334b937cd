//! Every call to the disk fails, once and for ever: an error that names it, never a panic; after a
//! failed write or sync no more writes, but reads; after reopening every acknowledged commit.

use treepie::{Database, Error};
use treepie_testkit::{
    Call, Fault, FaultError, Rng, SimDisk, mix,
    model::Model,
    tally::note,
    workload::{Op, Shape, Step, generate},
};

use crate::harness::{
    self, DIR, apply, difference, for_seeds, insert, new_model, options, seeds, verify,
};

/// What the first failure of a script left behind.
struct Wreck {
    disk: SimDisk,
    /// There unless opening or closing failed.
    db: Option<Database>,
    model: Model,
    /// Operations of the commit that failed: they may be there after reopening, or not.
    attempted: Option<Vec<Op>>,
    error: Option<Error>,
}

fn script(seed: u64) -> Vec<Step> {
    let shape = Shape { steps: 14, ops_max: 20, keys: 60, checkpoint_every: 4, ..Shape::default() };
    let mut steps = generate(seed, &shape);
    steps.insert(9, Step::Reopen);
    steps
}

fn small(disk: &SimDisk) -> treepie::Options {
    options(disk).checkpoint_distance(48 << 10)
}

/// Runs the script up to its end, or up to the first error.
fn run(disk: &SimDisk, steps: &[Step]) -> Wreck {
    let mut wreck =
        Wreck { disk: disk.clone(), db: None, model: new_model(), attempted: None, error: None };
    match small(disk).open(DIR) {
        Ok(db) => wreck.db = Some(db),
        Err(error) => {
            wreck.error = Some(error);
            return wreck;
        }
    }
    disk.mark(1);
    for step in steps {
        if let Err(error) = wreck.step(step) {
            wreck.error = Some(error);
            break;
        }
    }
    wreck
}

impl Wreck {
    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let db = self.db.as_ref().expect("it is open between steps");
        match step {
            Step::Write(ops) => {
                let lsn = harness::write(db, ops).inspect_err(|_| {
                    self.attempted = Some(ops.clone());
                })?;
                self.disk.mark(lsn);
                self.model.commit(lsn, ops);
            }
            Step::Abort(ops) => {
                let mut tx = db.begin_write()?;
                apply(&mut tx, ops)?;
                tx.rollback();
            }
            Step::Checkpoint => drop(db.checkpoint()?),
            Step::Reopen => {
                self.db.take().expect("it is open").close()?;
                self.db = Some(small(&self.disk).open(DIR)?);
            }
        }
        Ok(())
    }

    /// Reads go on, and show what was acknowledged.
    fn assert_readable(&self, context: &str) {
        let Some(db) = &self.db else { return };
        let snapshot = db.read().unwrap_or_else(|error| panic!("{context}: {error}"));
        let found = difference(&snapshot, self.model.newest());
        assert_eq!(found.unwrap_or_else(|e| panic!("{context}: {e}")), None, "{context}");
        let report = db.check().expect("a check begins");
        assert!(report.is_clean(), "{context}: {:?}", report.problems);
    }

    /// Whether nothing that matters is in doubt: what failed was to make room, or to recycle what
    /// nobody needs any more.
    fn goes_on(&self, error: &Error) -> bool {
        let Error::Io { action, file, .. } = error else { return false };
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let is_room = *action == "grow" || name.starts_with("spare-");
        let is_recycling = matches!(*action, "remove" | "rename") && name.ends_with(".seg")
            || *action == "sync" && name == "journal"
            || *action == "shorten";
        let is_poisoned = self.db.as_ref().is_none_or(|db| db.stats().poisoned_by.is_some());
        !is_poisoned && (is_room || is_recycling)
    }

    /// Writes are refused, because the kernel may have dropped what was not synced.
    fn assert_poisoned(&self, context: &str) {
        let Some(db) = &self.db else { return };
        for _ in 0..2 {
            match harness::write(db, &[insert("t", "k", b"v")]) {
                Err(error @ Error::Poisoned { .. }) => {
                    assert!(error.to_string().contains("reopen"), "{context}: {error}");
                }
                other => panic!("{context}: a write after a failure gave {other:?}"),
            }
            assert!(matches!(db.checkpoint(), Err(Error::Poisoned { .. })), "{context}");
        }
        assert!(db.stats().poisoned_by.is_some(), "{context}");
    }

    /// The process dies, the disk is healed, another process opens; then power cuts.
    fn reopen_and_cut(mut self, seed: u64, context: &str) -> u64 {
        let failed_at = self.disk.log().len();
        let acknowledged = self.model.lsn();
        let mut before = self.model.clone();
        if let Some(ops) = &self.attempted {
            before.commit(acknowledged + 1, ops);
        }
        let disk = self.disk.restart();
        drop(self.db.take());
        disk.heal();
        disk.set_capacity(None);
        let db = small(&disk).open(DIR).unwrap_or_else(|e| panic!("{context}: reopening: {e}"));
        let lsn = verify(&db, &before).unwrap_or_else(|e| panic!("{context}: reopened: {e}"));
        assert!(
            lsn >= acknowledged,
            "{context}: LSN {acknowledged} was acknowledged, {lsn} is there"
        );
        disk.mark(lsn);
        let opened_at = disk.log().len();
        let mut after = before.clone();
        after.truncate(lsn);
        let ops = [insert("after", "the failure", &[9; 100])];
        let next = harness::write(&db, &ops).unwrap_or_else(|e| panic!("{context}: {e}"));
        disk.mark(next);
        after.commit(next, &ops);
        drop(db);
        let log = disk.log();
        let mut rng = Rng::new(mix(seed, failed_at as u64));
        let mut cuts: Vec<usize> = (0..6).map(|_| rng.range(failed_at..log.len() + 1)).collect();
        cuts.sort_unstable();
        let mut player = log.player(rng.next_u64());
        for &cut in &cuts {
            player.advance_to(cut);
            let floor = player.acknowledged().unwrap_or(0);
            let image_seed = rng.next_u64();
            let image = player.image(image_seed);
            let found = open_image(&image, &after).or_else(|what| {
                if cut < opened_at { open_image(&image, &before) } else { Err(what) }
            });
            let context = || {
                let all = log.len();
                format!(
                    "{context}: cut {cut} of {all} (failed at {failed_at}, reopened at \
                     {opened_at}), image seed {image_seed}"
                )
            };
            let found = found.unwrap_or_else(|what| panic!("{}: {what}", context()));
            assert!(found >= floor, "{}: LSN {floor} acknowledged, {found} there", context());
        }
        cuts.len() as u64
    }
}

fn open_image(image: &SimDisk, model: &Model) -> Result<u64, String> {
    let db = small(image).checkpoint_on_close(false).open(DIR).map_err(|e| e.to_string())?;
    verify(&db, model)
}

fn changing_calls(disk: &SimDisk) -> u64 {
    Call::ALL.iter().filter(|call| call.changes()).map(|call| disk.calls_of(*call)).sum()
}

/// Where the planted error must turn up: as itself, with the call and the file.
fn assert_names_the_call(error: &Error, number: i32, context: &str) {
    let failed = match error {
        Error::OutcomeUnknown { source, .. } => source,
        other => other,
    };
    let Error::Io { action, file, source } = failed else {
        panic!("{context}: the failure came back as {error:?}");
    };
    assert_eq!(source.raw_os_error(), Some(number), "{context}: {error}");
    assert!(
        !action.is_empty() && file.starts_with(DIR) || file.as_os_str() == "/",
        "{context}: {error}"
    );
}

fn fail_every_change(seed: u64, fault: impl Fn(u64) -> Fault, number: i32) -> (u64, u64) {
    let steps = script(seed);
    let healthy = SimDisk::new(seed);
    let wreck = run(&healthy, &steps);
    assert!(wreck.error.is_none(), "seed {seed} without a fault");
    let calls_until_dropped = changing_calls(&healthy);
    drop(wreck);
    let calls = changing_calls(&healthy);
    // A file that cannot grow by a whole step grows by what is needed, and nobody has to know.
    let mut silent_max = healthy.calls_of(Call::Allocate);
    let mut images = 0;
    for k in 1..=calls {
        let context = format!("seed {seed}, changing call {k} of {calls}, error {number}");
        let disk = SimDisk::new(seed);
        disk.fail(fault(k));
        let wreck = run(&disk, &steps);
        match &wreck.error {
            Some(error) => {
                assert_names_the_call(error, number, &context);
                wreck.assert_readable(&context);
                if !wreck.goes_on(error) {
                    wreck.assert_poisoned(&context);
                }
            }
            // Only what happens while the last handle is dropped has nobody to tell.
            None if k > calls_until_dropped => {}
            None => {
                silent_max =
                    silent_max.checked_sub(1).unwrap_or_else(|| panic!("{context}: silent"));
            }
        }
        images += wreck.reopen_and_cut(seed, &context);
    }
    (calls, images)
}

fn fail_every_change_of_seeds(
    what: &str,
    first: u64,
    fault: impl Fn(u64) -> Fault + Sync,
    number: i32,
) {
    let counts = for_seeds(&seeds(first, 6), |seed| fail_every_change(seed, &fault, number));
    let calls: u64 = counts.iter().map(|(calls, _)| calls).sum();
    let images: u64 = counts.iter().map(|(_, images)| images).sum();
    note(4, "failing changes", &format!("{calls} calls with {what}, {images} images after them"));
}

#[test]
fn any_changing_call_may_fail_once_with_eio() {
    fail_every_change_of_seeds("EIO once", 1, |k| Fault::nth(k).of_changes(), 5);
}

#[test]
fn any_changing_call_may_fail_for_ever_with_eio() {
    fail_every_change_of_seeds("EIO for ever", 11, |k| Fault::nth(k).of_changes().forever(), 5);
}

#[test]
fn any_changing_call_may_fail_once_with_enospc_after_a_short_write() {
    let fault = |k| Fault::nth(k).of_changes().error(FaultError::ENOSPC).after_short_write(700);
    fail_every_change_of_seeds("ENOSPC once", 21, fault, 28);
}

#[test]
fn any_changing_call_may_fail_for_ever_with_enospc_after_a_short_write() {
    let fault =
        |k| Fault::nth(k).of_changes().error(FaultError::ENOSPC).after_short_write(5000).forever();
    fail_every_change_of_seeds("ENOSPC for ever", 31, fault, 28);
}

/// Calls that only read or ask: a failure may refuse an operation, or not matter; what was
/// acknowledged stays.
#[test]
fn any_call_at_all_may_fail_without_a_panic_or_a_loss() {
    let counts = for_seeds(&seeds(41, 4), |seed| {
        let steps = script(seed);
        let healthy = SimDisk::new(seed);
        assert!(run(&healthy, &steps).error.is_none(), "seed {seed} without a fault");
        let calls = healthy.calls();
        for k in 1..=calls {
            let context = format!("seed {seed}, call {k} of {calls}");
            let disk = SimDisk::new(seed);
            disk.fail(Fault::nth(k));
            let wreck = run(&disk, &steps);
            wreck.assert_readable(&context);
            wreck.reopen_and_cut(seed, &context);
        }
        calls
    });
    println!("{} calls failed, one at a time", counts.iter().sum::<u64>());
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_reads_and_goes_on_after_reopening() {
    let mut points = 0;
    for seed in seeds(51, 3) {
        let steps = script(seed);
        let healthy = SimDisk::new(seed);
        assert!(run(&healthy, &steps).error.is_none(), "seed {seed} without a bound");
        let sizes = healthy.file_paths();
        let full: usize =
            sizes.iter().filter_map(|path| healthy.file_bytes(path)).map(|bytes| bytes.len()).sum();
        for capacity in (0..full as u64).step_by(4 << 10) {
            points += 1;
            let context = format!("seed {seed}, {capacity} bytes of disk");
            let disk = SimDisk::new(seed);
            disk.set_capacity(Some(capacity));
            let wreck = run(&disk, &steps);
            if let Some(error) = &wreck.error {
                assert_names_the_call(error, 28, &context);
                wreck.assert_readable(&context);
            }
            wreck.reopen_and_cut(seed, &context);
        }
    }
    note(4, "full disk, simulated", &format!("{points} sizes"));
}

/// A record that was written, but whose sync failed, may come back after reopening; once readers
/// have seen it, it stays.
#[test]
fn what_reopening_showed_after_a_failed_sync_survives_the_next_power_cut() {
    let (mut shown, mut lost) = (0, 0);
    for seed in seeds(61, 40) {
        let disk = SimDisk::new(seed);
        let db = small(&disk).open(DIR).expect("a new database opens");
        let mut model = new_model();
        let first = [insert("t", "first", &[1; 2000])];
        model.commit(harness::write(&db, &first).expect("a commit"), &first);
        disk.fail(Fault::nth(1).of(Call::SyncData).on(".seg"));
        let second = [insert("t", "second", &[2; 900])];
        assert!(harness::write(&db, &second).is_err(), "seed {seed}");
        model.commit(model.lsn() + 1, &second);
        let restarted = disk.restart();
        drop(db);
        restarted.heal();
        let db = small(&restarted).open(DIR).expect("it reopens");
        let lsn = verify(&db, &model).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        if lsn == model.lsn() {
            shown += 1
        } else {
            lost += 1
        }
        let log = restarted.log();
        let mut player = log.player(seed);
        player.advance_to(log.len());
        for draw in 0..20 {
            let found = open_image(&player.image(draw), &model);
            let found = found.unwrap_or_else(|e| panic!("seed {seed}, image seed {draw}: {e}"));
            assert!(
                found >= lsn,
                "seed {seed}, image seed {draw}: {lsn} was shown, {found} is there"
            );
        }
    }
    println!("the unsynced record came back {shown} times, and did not {lost} times");
}

/// A disk on which the data file finds no room: the journal has some, so writes and deletes go on
/// until its bound, and again as soon as there is room.
#[test]
fn writes_go_on_in_the_journal_while_the_data_file_cannot_grow() {
    const JOURNAL_MAX: u64 = 2 << 20;
    const DISTANCE: u64 = 256 << 10;
    let disk = SimDisk::new(5);
    let options = options(&disk).checkpoint_distance(DISTANCE).journal_max(JOURNAL_MAX);
    let db = options.open(DIR).expect("a new database opens");
    disk.fail(Fault::nth(1).of(Call::Allocate).on("data").error(FaultError::ENOSPC).forever());
    let write = |number: u64| {
        let value: Vec<u8> = Rng::new(number).bytes(3000);
        harness::write(&db, &[insert("t", &format!("{number:06}"), &value)])
    };
    let journal_len = || db.report().expect("a report").stats.journal_bytes;
    let refused = (0..10_000).find_map(|number| write(number).err().map(|error| (number, error)));
    let (count, error) = refused.expect("the journal has a bound");
    assert_names_the_call(&error, 28, "the data file cannot grow");
    assert!(journal_len() >= JOURNAL_MAX, "refused with {} bytes of journal", journal_len());
    assert!(count * 3000 > 4 * DISTANCE, "only {count} writes went on");
    disk.heal();
    write(count).expect("there is room, and nothing was poisoned");
    assert!(journal_len() < DISTANCE, "the checkpoint made up for it");
    assert_eq!(db.check().expect("a check").problems, []);
}
