//! Installing: pages and records of a database become one again, wherever it is interrupted.

use std::path::Path;

use treepie::{
    DatabaseState, Error, Installer, JournalPosition, Lineage, RawRecord, Reached,
    disk::Disk,
    ids::{DatabaseId, Lsn, PageId},
};
use treepie_testkit::{
    Fault, SimDisk, mix,
    model::Model,
    tally,
    workload::{Shape, Step, generate},
};

use crate::harness::{self, apply, new_model, seeds, verify};

const DIR: &str = "/source";
const TARGET: &str = "/target";

/// A database at some moments, with all its records.
struct Source {
    model: Model,
    /// Its state, and its data file, ascending.
    states: Vec<(DatabaseState, Vec<u8>)>,
    records: Vec<RawRecord>,
}

fn number<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    *bytes[offset..].first_chunk().expect("the meta page is whole")
}

/// What the newer meta page of a data file says.
fn state_of(data: &[u8], lineage: Lineage) -> DatabaseState {
    let meta = |n: usize| &data[n * 4096..][..4096];
    let generation = |n| u64::from_le_bytes(number(meta(n), 24));
    let newest = meta(usize::from(generation(1) > generation(0)));
    DatabaseState {
        lineage,
        page_size: 4096,
        page_count: u32::from_le_bytes(number(newest, 76)),
        lsn: Lsn(u64::from_le_bytes(number(newest, 80))),
        chain: u64::from_le_bytes(number(newest, 88)),
        created_us: u64::from_le_bytes(number(newest, 96)),
    }
}

fn source(seed: u64) -> Source {
    let disk = SimDisk::new(seed);
    let db = harness::options(&disk).open(DIR).expect("a new database");
    let mut records = db.records(Lsn(0)).expect("nothing is trimmed yet");
    let mut source = Source { model: new_model(), states: Vec::new(), records: Vec::new() };
    let shape = Shape { steps: 40, reopen_every: 0, trees: 3, keys: 150, ..Shape::default() };
    let writes = generate(seed, &shape).into_iter().filter_map(|step| match step {
        Step::Write(ops) => Some(ops),
        _ => None,
    });
    for (index, ops) in writes.enumerate() {
        let before = db.read().expect("a snapshot").lsn();
        let receipt = db.write(|tx| apply(tx, &ops)).expect("a commit");
        if receipt.lsn > before {
            source.model.commit(receipt.lsn.0, &ops);
        }
        if index % 11 == 10 {
            db.checkpoint().expect("a checkpoint");
            let data = disk.file_bytes(&Path::new(DIR).join("data")).expect("a data file");
            let state = state_of(&data, db.lineage());
            if source.states.last().is_none_or(|(last, _)| last.lsn < state.lsn) {
                source.states.push((state, data));
            }
        }
        while let Some(record) = records.next_record().expect("it is there") {
            source.records.push(record);
        }
    }
    assert!(source.states.len() >= 2, "seed {seed} has too few states");
    source
}

impl Source {
    fn last(&self) -> Lsn {
        self.records.last().expect("there are records").lsn
    }

    /// Installs the part number `part`: the first image, the increments, then the records up to `to`.
    fn install_part(&self, installer: &mut Installer, part: usize) -> treepie::Result<()> {
        let (coming, data) = &self.states[part];
        let base = part.checked_sub(1).map(|before| &self.states[before]);
        let position =
            base.map(|(state, _)| JournalPosition { lsn: state.lsn, chain: state.chain });
        installer.begin_pages(coming, position)?;
        for number in 2..coming.page_count as usize {
            let page = &data[number * 4096..][..4096];
            let old = base.and_then(|(_, old)| old.get(number * 4096..)?.get(..4096));
            if old != Some(page) {
                installer.pages(PageId(u32::try_from(number).expect("few pages")), page)?;
            }
        }
        installer.end_pages()
    }

    /// Installs everything that is missing, and publishes it.
    fn install(&self, disk: &SimDisk, to: Lsn) -> treepie::Result<()> {
        let options = harness::options(disk);
        let mut installer = options.install(TARGET)?;
        let parts = self.states.iter().take_while(|(state, _)| state.lsn <= to).count();
        let part_of = |lsn| self.states.iter().position(|(state, _)| state.lsn == lsn);
        let is_too_far = match *installer.reached() {
            Reached::Nothing => false,
            Reached::State(state) | Reached::Pages { coming: state, .. } => state.lsn > to,
            Reached::Records { written_to, .. } => written_to > to,
        };
        if is_too_far {
            installer.clear()?;
        }
        let first = match *installer.reached() {
            Reached::Nothing => 0,
            Reached::Pages { coming, .. } => part_of(coming.lsn).expect("it was begun here"),
            Reached::State(state) => part_of(state.lsn).map_or(parts, |part| part + 1),
            Reached::Records { .. } => parts,
        };
        for part in first..parts {
            self.install_part(&mut installer, part)?;
        }
        let (Reached::State(state) | Reached::Records { state, .. }) = *installer.reached() else {
            panic!("pages are complete by now");
        };
        for record in self.records.iter().filter(|r| r.lsn > state.lsn && r.lsn <= to) {
            installer.record(&record.bytes, &self.states[0].0.lineage)?;
        }
        installer.end_records()?;
        let mut sealed = installer.seal()?;
        sealed.fork()?;
        sealed.publish().map(|_| ())
    }

    /// Opens what was installed, and compares it.
    fn verify(&self, disk: &SimDisk, to: Lsn) -> Result<(), String> {
        let db = harness::options(disk).create(false).open(TARGET).map_err(|e| e.to_string())?;
        let lsn = verify(&db, &self.model)?;
        if lsn != to.0 {
            return Err(format!("it is at LSN {lsn}, not {to}"));
        }
        let (found, old) = (db.lineage(), self.states[0].0.lineage);
        let chain = self.records.iter().find(|r| r.lsn == to).expect("it has a record").chain;
        if (found.database_id, found.forked_at, found.forked_chain) != (old.database_id, to, chain)
            || found.epoch <= old.epoch
        {
            return Err(format!("its lineage is {found:?}"));
        }
        let receipt = harness::write(&db, &[harness::insert("after", "k", b"v")]);
        if receipt.map_err(|error| error.to_string())? != to.0 + 1 {
            return Err("it does not go on behind its last record".to_owned());
        }
        db.close().map_err(|error| error.to_string())
    }
}

#[test]
fn pages_and_records_become_the_database_again_at_every_lsn() {
    let mut count = 0;
    for seed in seeds(1, 3) {
        let source = source(seed);
        for lsn in source.states[0].0.lsn.0..=source.last().0 {
            let disk = SimDisk::new(mix(seed, lsn));
            source.install(&disk, Lsn(lsn)).unwrap_or_else(|e| panic!("seed {seed}, {lsn}: {e}"));
            source.verify(&disk, Lsn(lsn)).unwrap_or_else(|e| panic!("seed {seed}, {lsn}: {e}"));
            count += 1;
        }
    }
    tally::note(13, "states installed", &format!("{count}"));
}

/// Cuts the power at every operation of an installation to `to`, and goes on to `then`.
fn cut_and_go_on(seed: u64, source: &Source, to: Lsn, then: Lsn) -> Result<u64, String> {
    let disk = SimDisk::new(seed);
    source.install(&disk, to).map_err(|error| error.to_string())?;
    let log = disk.log();
    let mut player = log.player(seed);
    let mut images = 0;
    for cut in 0..=log.len() {
        player.advance_to(cut);
        let image = player.image(mix(seed, cut as u64));
        let at = |what: String| format!("seed {seed}, cut {cut} of {}: {what}", log.len());
        if image.exists(Path::new(TARGET)).map_err(|error| error.to_string())? {
            source.verify(&image, to).map_err(|what| at(format!("published: {what}")))?;
        } else {
            source.install(&image, then).map_err(|error| at(error.to_string()))?;
            source.verify(&image, then).map_err(at)?;
        }
        images += 1;
    }
    Ok(images)
}

/// Installations that are cut and gone on with; the check that finds planted bugs.
pub fn interrupted() -> Result<u64, String> {
    let mut images = 0;
    for seed in seeds(1, 2) {
        let source = source(seed);
        let last = source.last();
        let lower = Lsn(last.0 - (last.0 - source.states.last().expect("some").0.lsn.0) / 2);
        for (to, then) in [(last, last), (last, lower), (lower, last)] {
            images += cut_and_go_on(seed, &source, to, then)?;
        }
    }
    Ok(images)
}

#[test]
fn installation_goes_on_after_a_power_cut_anywhere_and_nothing_half_is_published() {
    let images = interrupted().unwrap_or_else(|what| panic!("{what}"));
    tally::note(13, "installations cut", &format!("{images}"));
}

#[test]
fn what_does_not_continue_the_state_is_refused() {
    let source = source(7);
    let disk = SimDisk::new(7);
    let mut installer = harness::options(&disk).install(TARGET).expect("a new folder");
    let misfit = |result: treepie::Result<()>, words: &str| match result {
        Err(Error::Misfit { reason, .. }) => assert!(reason.contains(words), "{reason}: {words}"),
        other => panic!("{other:?} is no misfit: {words}"),
    };
    let record = |installer: &mut Installer, lsn: u64| {
        let record = source.records.iter().find(|r| r.lsn.0 == lsn).expect("a record");
        installer.record(&record.bytes, &source.states[0].0.lineage).map(|_| ())
    };
    misfit(record(&mut installer, 1), "pages are not complete");
    misfit(source.install_part(&mut installer, 1), "nothing is installed");
    source.install_part(&mut installer, 0).expect("the first image");
    let (state, _) = source.states[0];
    let (coming, _) = source.states[1];
    let base = JournalPosition { lsn: state.lsn, chain: state.chain };
    let other_chain = JournalPosition { chain: base.chain ^ 1, ..base };
    misfit(installer.begin_pages(&coming, Some(other_chain)).map(|_| ()), "another history");
    let other_lsn = JournalPosition { lsn: base.lsn.next(), ..base };
    misfit(installer.begin_pages(&coming, Some(other_lsn)).map(|_| ()), "not the state");
    let mut stranger = coming;
    stranger.lineage.database_id = DatabaseId([9; 16]);
    misfit(installer.begin_pages(&stranger, Some(base)).map(|_| ()), "another database");
    let larger = DatabaseState { page_size: 8192, ..coming };
    misfit(installer.begin_pages(&larger, Some(base)).map(|_| ()), "another size");
    let impossible = DatabaseState { page_size: 5000, ..coming };
    misfit(installer.begin_pages(&impossible, None).map(|_| ()), "no database");
    misfit(record(&mut installer, state.lsn.0), "missing, or comes twice");
    misfit(record(&mut installer, state.lsn.0 + 2), "missing, or comes twice");
    record(&mut installer, state.lsn.0 + 1).expect("the next record");
    let mut damaged =
        source.records.iter().find(|r| r.lsn.0 == state.lsn.0 + 2).expect("one").clone();
    *damaged.bytes.last_mut().expect("it has bytes") ^= 1;
    let error = installer
        .record(&damaged.bytes, &source.states[0].0.lineage)
        .expect_err("its checksum does not hold");
    harness::assert_says(&error, &["received", "checksum", "fetch it again"]);
    record(&mut installer, state.lsn.0 + 2).expect("the whole one");
}

#[test]
fn existing_database_is_never_installed_over() {
    let source = source(3);
    let disk = SimDisk::new(3);
    drop(harness::options(&disk).open(TARGET).expect("a new database"));
    let before = disk.state_hash();
    let error = source.install(&disk, source.last()).expect_err("something is there");
    harness::assert_says(&error, &["create", TARGET, "exists"]);
    assert_eq!(disk.state_hash(), before);

    // It comes while the installation runs.
    let disk = SimDisk::new(4);
    let mut installer = harness::options(&disk).install(TARGET).expect("a new folder");
    source.install_part(&mut installer, 0).expect("the first image");
    let other = harness::options(&disk).install(TARGET).expect_err("one at a time");
    assert!(matches!(other, Error::Locked { .. }), "{other}");
    let sealed = installer.seal().expect("it is complete");
    drop(harness::options(&disk).open(TARGET).expect("a new database"));
    let error = sealed.publish().expect_err("something is there");
    harness::assert_says(&error, &["create", TARGET, "exists"]);
}

#[test]
fn every_call_of_an_installation_may_fail_and_it_goes_on_later() {
    let source = source(5);
    let to = source.last();
    let calls = {
        let disk = SimDisk::new(5);
        source.install(&disk, to).expect("nothing fails");
        disk.calls()
    };
    for (call, late) in (1..=calls).flat_map(|call| [(call, false), (call, true)]) {
        let disk = SimDisk::new(call);
        let fault = Fault::nth(call);
        disk.fail(if late { fault.with_effect() } else { fault });
        let first = source.install(&disk, to);
        let disk = disk.restart();
        let is_published = disk.exists(Path::new(TARGET)).expect("it can be asked");
        match first {
            Ok(()) => assert!(is_published),
            // Only the sync of the new name may fail behind the rename.
            Err(Error::Io { .. }) if is_published => assert!(late || call == calls, "call {call}"),
            Err(Error::Io { .. }) => {
                source.install(&disk, to).unwrap_or_else(|error| panic!("call {call}: {error}"));
            }
            Err(error) => panic!("call {call}: {error}"),
        }
        source.verify(&disk, to).unwrap_or_else(|what| panic!("call {call}: {what}"));
    }
    tally::note(13, "failing calls, installing", &format!("{}", calls * 2));
}
