//! Every call to the disk fails, in each way, once and for ever, while a script runs: whether it
//! reads or changes, inside a commit, a checkpoint, a closing or an opening. Whoever called is told
//! which call it was; after a failed write or sync there are no more writes, but reads; another
//! process finds what was acknowledged, and goes on; and the power is cut after all of that.

use std::path::{Path, PathBuf};

use treepie::{Database, Error, Result};
use treepie_testkit::{
    Call, Fault, FaultError, PlantedBug, Rng, SimDisk, mix,
    model::Model,
    script::{Act, Closure, End, Manner, Script, Setup, Step, Value},
    tally::{note, thousands},
};

use crate::{
    harness::{self, DIR, difference, for_seeds, seeds, verify},
    life::{Life, Stop, options},
    shorten::{script_of, told},
};

/// Scripts that are tried, to make one that failed short: each is run once for each of its calls.
const TRIES: usize = 100;

/// How a call fails.
struct Way {
    name: &'static str,
    error: FaultError,
    short: usize,
    has_effect: bool,
}

const fn plain(name: &'static str, error: FaultError) -> Way {
    Way { name, error, short: 0, has_effect: false }
}

/// Each is tried once, and for ever.
const WAYS: [Way; 7] = [
    plain("EIO", FaultError::EIO),
    plain("EINTR", FaultError::EINTR),
    plain("EDQUOT", FaultError::EDQUOT),
    plain("EROFS", FaultError::EROFS),
    Way { short: 700, ..plain("ENOSPC after 700 bytes", FaultError::ENOSPC) },
    Way { short: 5000, ..plain("ENOSPC after 5000 bytes", FaultError::ENOSPC) },
    Way { has_effect: true, ..plain("EIO after it was done", FaultError::EIO) },
];

impl Way {
    fn fault(&self, k: u64, for_ever: bool) -> Fault {
        let fault = Fault::nth(k).error(self.error).after_short_write(self.short);
        let fault = if self.has_effect { fault.with_effect() } else { fault };
        if for_ever { fault.forever() } else { fault }
    }
}

/// A script that uses everything, and is short: it runs thousands of times.
fn script(seed: u64) -> Script {
    let manner = Manner {
        steps: 9,
        acts_max: 8,
        keys: 40,
        reopen_every: 1000,
        checkpoint_every: 6,
        lazy_every: 4,
        ..Manner::of_seed(seed)
    };
    let mut script = Script::of_seed(seed, &manner);
    script.setup.segment_size = 16 << 10;
    script.setup.checkpoint_distance = 24 << 10;
    script.steps.insert(2, Step::Hold);
    script.steps.insert(5, Step::Reopen);
    script.steps.insert(8, Step::Kill);
    script.steps.push(put("last", 300));
    script
}

fn put(key: &str, len: usize) -> Step {
    let value = Value { len, fill: 1 };
    let acts = vec![Act::Insert("tree0".to_owned(), key.as_bytes().to_vec(), value)];
    Step::Write(Closure { durability: treepie::Durability::Sync, acts, end: End::Stays })
}

/// A script up to its end, or to the first error.
fn run(script: &Script, disk: &SimDisk) -> (Life, Option<Stop>) {
    let mut life = Life::begin(&script.setup, disk);
    let stop = life.open().and_then(|()| script.steps.iter().try_for_each(|step| life.step(step)));
    (life, stop.err())
}

/// What was looked at, and which calls failed without anybody being told.
#[derive(Default)]
struct Counts {
    runs: u64,
    images: u64,
    told: u64,
    poisoned: u64,
    silent: Vec<(Call, PathBuf)>,
}

/// One run of a script, with one call that fails.
struct Trial<'a> {
    script: &'a Script,
    way: &'a Way,
    for_ever: bool,
}

impl Trial<'_> {
    fn run(&self, k: u64, bugs: &[PlantedBug], counts: &mut Counts) -> Result<(), String> {
        let disk = SimDisk::new(self.script.setup.seed);
        bugs.iter().for_each(|bug| disk.plant(bug.clone()));
        disk.fail(self.way.fault(k, self.for_ever));
        let (mut life, stop) = run(self.script, &disk);
        counts.runs += 1;
        let failed = disk.failed_calls();
        match stop {
            Some(Stop::Wrong(what)) if is_told_by_check(&what, &failed) => {
                counts.told += 1;
                disk.heal();
                reads_go_on(&mut life)?;
            }
            Some(Stop::Wrong(what)) => return Err(what),
            Some(Stop::Engine(error)) => {
                counts.told += 1;
                self.names_the_call(&error)?;
                if self.for_ever {
                    // Reads that the disk refuses are no reads.
                    disk.heal();
                }
                reads_go_on(&mut life)?;
                counts.poisoned += u64::from(is_poisoned(&life));
                if failed.is_empty() {
                    return Err("nothing failed".to_owned());
                }
                writes_are_right(&mut life, &failed)?;
            }
            None => counts.silent.extend(failed.first().cloned()),
        }
        counts.images += reopen_and_cut(life, mix(k, self.script.setup.seed))?;
        Ok(())
    }

    /// The error says what was done, to which file, and what the operating system said.
    fn names_the_call(&self, error: &Error) -> Result<(), String> {
        let source = match error {
            Error::OutcomeUnknown { source, .. } => source,
            other => other,
        };
        let FaultError::Os(number) = self.way.error else { unreachable!("all have numbers") };
        match source {
            Error::Io { action, file, source }
                if source.raw_os_error() == Some(number)
                    && !action.is_empty()
                    && (file.starts_with(DIR) || file.as_os_str() == "/") =>
            {
                Ok(())
            }
            // What failed was met by nobody, and is told to the first who comes.
            Error::Poisoned { action } if !action.is_empty() => Ok(()),
            other => Err(format!("the failure came back as {other:?}")),
        }
    }
}

/// A check says that it cannot read the journal, and nothing else, where that is what failed.
fn is_told_by_check(what: &str, failed: &[(Call, PathBuf)]) -> bool {
    let is_one = what.contains("finds [\"the journal cannot be read") && !what.contains("\", \"");
    is_one && failed.first().is_some_and(|(call, path)| is_look(*call, path))
}

/// A look into the journal.
fn is_look(call: Call, path: &Path) -> bool {
    let is_read = matches!(call, Call::List | Call::Open | Call::Len | Call::Read);
    is_read && path.starts_with(Path::new(DIR).join("journal"))
}

fn is_poisoned(life: &Life) -> bool {
    life.db.as_ref().is_some_and(|db| db.stats().poisoned_by.is_some())
}

/// What was committed is read, by new snapshots and by old ones.
fn reads_go_on(life: &mut Life) -> Result<(), String> {
    if let Some(db) = &life.db {
        let snapshot = db.read().map_err(|error| format!("no snapshot: {error}"))?;
        match difference(&snapshot, life.model.newest()) {
            Ok(None) => {}
            Ok(Some(what)) => return Err(format!("readers see something else: {what}")),
            Err(error) => return Err(format!("readers are refused: {error}")),
        }
        let report = db.check().map_err(|error| format!("no check: {error}"))?;
        if !report.is_clean() {
            return Err(format!("check finds {:?}", report.problems));
        }
    }
    life.release_all().map_err(|stop| format!("{stop:?}"))
}

/// After a write or sync of journal or data failed, there are no writes until it is reopened. Failed
/// reads alone do not end them. The call that was told need not be the first that failed: a check
/// goes on without a journal that it cannot read.
fn writes_are_right(life: &mut Life, failed: &[(Call, PathBuf)]) -> Result<(), String> {
    let Some(db) = &life.db else { return Ok(()) };
    let poisons = |call: Call, path: &str| {
        let is_file =
            path.ends_with("/data") || (path.ends_with(".seg") && !path.contains("spare-"));
        matches!(call, Call::Write | Call::SyncData) && is_file
    };
    let is_poisoned = db.stats().poisoned_by.is_some();
    let poisoning = failed.iter().find(|(call, path)| poisons(*call, &path.to_string_lossy()));
    if let (Some((call, path)), false) = (poisoning, is_poisoned) {
        return Err(format!("not poisoned after a failed {call:?} of {}", path.display()));
    }
    // Others are on the way of a record or of a page, and leave open how far it came.
    let is_read =
        |call| matches!(call, Call::Read | Call::Map | Call::Scratch | Call::List | Call::Exists);
    if is_poisoned && failed.iter().all(|(call, _)| is_read(*call)) {
        return Err(format!("poisoned after failed reads alone: {failed:?}"));
    }
    if is_poisoned { refuses_writes(db) } else { Ok(()) }
}

fn refuses_writes(db: &Database) -> Result<(), String> {
    for _ in 0..2 {
        match harness::write(db, &[harness::insert("t", "k", b"v")]) {
            Err(error @ Error::Poisoned { .. }) if error.to_string().contains("reopen") => {}
            other => return Err(format!("a write after a failure gave {other:?}")),
        }
        if !matches!(db.checkpoint(), Err(Error::Poisoned { .. })) {
            return Err("a checkpoint after a failure".to_owned());
        }
    }
    Ok(())
}

/// The process dies, the disk is healed, another one opens the database and writes; then the power
/// is cut somewhere since the failure.
fn reopen_and_cut(mut life: Life, seed: u64) -> Result<u64, String> {
    let failed_at = life.disk.log().len();
    let mut before = life.model.clone();
    if let Some(state) = life.open.take() {
        before.commit_state(before.lsn() + 1, state);
    }
    let disk = life.disk.restart();
    drop(life.db.take());
    disk.heal();
    disk.set_capacity(None);
    let setup = life.setup;
    let db = options(&setup, &disk).open(DIR).map_err(|error| format!("reopening: {error}"))?;
    let lsn = verify(&db, &before).map_err(|what| format!("reopened: {what}"))?;
    if lsn < life.kept {
        return Err(format!("LSN {} was acknowledged, {lsn} is there", life.kept));
    }
    disk.mark(lsn);
    let opened_at = disk.log().len();
    let mut after = before.clone();
    after.truncate(lsn);
    let ops = [harness::insert("after", "the failure", &[9; 100])];
    let next = harness::write(&db, &ops).map_err(|error| format!("a write after: {error}"))?;
    disk.mark(next);
    after.commit(next, &ops);
    drop(db);
    let log = disk.log();
    let mut rng = Rng::new(seed);
    let mut cuts: Vec<usize> = (0..4).map(|_| rng.range(failed_at..log.len() + 1)).collect();
    cuts.sort_unstable();
    let mut player = log.player(rng.next_u64());
    for &cut in &cuts {
        player.advance_to(cut);
        let floor = player.acknowledged().unwrap_or(0);
        let image_seed = rng.next_u64();
        let image = player.image(image_seed);
        let models = if cut < opened_at { [&after, &before] } else { [&after, &after] };
        open_image(&setup, &image, models, floor).map_err(|what| {
            format!("cut {cut} of {} (failed at {failed_at}): {what}", log.len())
        })?;
    }
    Ok(cuts.len() as u64)
}

/// Opens an image to a state of one of two models.
fn open_image(
    setup: &Setup,
    image: &SimDisk,
    models: [&Model; 2],
    floor: u64,
) -> Result<(), String> {
    let db = options(setup, image).checkpoint_on_close(false).open(DIR);
    let db = db.map_err(|error| format!("opening: {error}"))?;
    let lsn = verify(&db, models[0]).or_else(|_| verify(&db, models[1]))?;
    if lsn < floor {
        return Err(format!("LSN {floor} was acknowledged, {lsn} is there"));
    }
    Ok(())
}

/// What may fail and change nothing: hints, making room ahead of need, and looks into the journal, which
/// a check takes twice. An opening that overlooked one would lose commits.
fn may_be_silent(call: Call, path: &Path) -> bool {
    matches!(call, Call::Allocate | Call::StartWriteback) || is_look(call, path)
}

/// Every call of a script fails in every one of these ways. The first that goes wrong is told with
/// its way.
fn fail_every_call<'w>(
    script: &Script,
    bugs: &[PlantedBug],
    ways: &'w [Way],
) -> Result<Counts, (String, &'w [Way])> {
    let healthy = SimDisk::new(script.setup.seed);
    let (life, stop) = run(script, &healthy);
    if let Some(stop) = stop {
        return Err((format!("without a fault: {stop:?}"), ways));
    }
    drop(life);
    let mut counts = Counts::default();
    for (number, way) in ways.iter().enumerate() {
        for for_ever in [false, true] {
            let trial = Trial { script, way, for_ever };
            for k in 1..=healthy.calls() {
                trial.run(k, bugs, &mut counts).map_err(|what| {
                    let often = if for_ever { "from then on" } else { "once" };
                    let told = format!("call {k} fails with {} {often}: {what}", way.name);
                    (told, &ways[number..=number])
                })?;
            }
        }
    }
    Ok(counts)
}

/// The same, with a failure that shows the shortest script that fails in that way.
fn fail_or_tell(seed: u64, bugs: &[PlantedBug], ways: &[Way]) -> Result<Counts, String> {
    let script = script(seed);
    fail_every_call(&script, bugs, ways).map_err(|(what, way)| {
        told(&script, &what, "failing_calls", TRIES, |candidate| {
            fail_every_call(candidate, bugs, way).err().map(|(what, _)| what)
        })
    })
}

#[test]
fn every_call_may_fail_in_every_way_and_acknowledged_commits_stay() {
    let begin = std::time::Instant::now();
    let seeds = seeds(1, 6);
    let results = for_seeds(&seeds, |seed| {
        fail_or_tell(seed, &[], &WAYS).unwrap_or_else(|failure| panic!("{failure}"))
    });
    let sum = |count: fn(&Counts) -> u64| results.iter().map(count).sum::<u64>();
    let runs = sum(|counts| counts.runs);
    let counts = format!(
        "{} failing calls in {} ways, {} images after them, {:.0} s",
        thousands(runs),
        2 * WAYS.len(),
        thousands(sum(|counts| counts.images)),
        begin.elapsed().as_secs_f64()
    );
    note(4, "failing calls, scripts", &counts);
    println!("{} were told, {} poisoned", sum(|c| c.told), sum(|c| c.poisoned));
    let mut silent: Vec<_> = results.iter().flat_map(|counts| &counts.silent).collect();
    silent.sort_unstable_by_key(|(call, path)| (format!("{call:?}"), path));
    for group in silent.chunk_by(|one, other| one == other) {
        let (call, path) = group[0];
        println!("{} times, a failed {call:?} of {} was not told", group.len(), path.display());
    }
    let kept_back = silent.iter().find(|(call, path)| !may_be_silent(*call, path));
    assert!(kept_back.is_none(), "nobody is told of {kept_back:?}");
    assert!(seeds.len() == 1 || runs > 10_000, "only {runs} failing calls");
}

/// A disk whose failed syncs look like others is found: this harness would notice an engine that
/// does not look.
#[test]
fn a_failed_sync_that_nobody_notices_is_found() {
    for file in [".seg", "/db/data"] {
        let bug = PlantedBug::HideFailedSync(file.to_owned());
        let bugs = std::slice::from_ref(&bug);
        let found = (1..5).find_map(|seed| fail_or_tell(seed, bugs, &WAYS[..1]).err());
        let what = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?} is found: {what}");
        let steps = script_of(&what).steps.len();
        assert!(steps <= 3, "{steps} steps\n{what}");
        let is_told = ["acknowledged", "damaged", "not poisoned"].iter().any(|w| what.contains(w));
        assert!(is_told, "{what}");
    }
}

/// Every size of a disk that is too small, in steps of a block. Where nothing is in doubt, writes go
/// on as soon as there is room; otherwise when it is reopened as well.
#[test]
fn a_disk_that_is_full_takes_writes_again_when_there_is_room() {
    let way = plain("ENOSPC", FaultError::ENOSPC);
    let results = for_seeds(&seeds(21, 6), |seed| {
        let script = script(seed);
        let healthy = SimDisk::new(seed);
        assert!(run(&script, &healthy).1.is_none(), "seed {seed} has room");
        let files = healthy.file_paths();
        let full: usize =
            files.iter().filter_map(|path| healthy.file_bytes(path)).map(|b| b.len()).sum();
        let (mut points, mut at_once) = (0, 0);
        for capacity in (0..full as u64).step_by(4096) {
            let context = format!("seed {seed}, {capacity} bytes of disk");
            let disk = SimDisk::new(seed);
            disk.set_capacity(Some(capacity));
            let (mut life, stop) = run(&script, &disk);
            points += 1;
            if let Some(stop) = stop {
                let Stop::Engine(error) = stop else { panic!("{context}: {stop:?}") };
                let trial = Trial { script: &script, way: &way, for_ever: true };
                trial.names_the_call(&error).unwrap_or_else(|what| panic!("{context}: {what}"));
                reads_go_on(&mut life).unwrap_or_else(|what| panic!("{context}: {what}"));
                disk.set_capacity(None);
                if life.db.is_some() && !is_poisoned(&life) {
                    at_once += 1;
                    let step = put("after", 500);
                    life.step(&step).unwrap_or_else(|stop| panic!("{context}: {stop:?}"));
                }
            }
            reopen_and_cut(life, seed).unwrap_or_else(|what| panic!("{context}: {what}"));
        }
        (points, at_once)
    });
    let points: u64 = results.iter().map(|(points, _)| points).sum();
    let at_once: u64 = results.iter().map(|(_, at_once)| at_once).sum();
    let counts = format!("{points} sizes, {at_once} of them went on without being reopened");
    note(4, "full disk, scripts", &counts);
    assert!(points > 0 && at_once > 0, "{counts}");
}
