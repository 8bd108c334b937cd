//! Salvage: what is on whole pages is saved, what is not is listed, and nothing else happens.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use treepie::{
    Database, Error, Options, SalvageReport,
    ids::{Lsn, PageId},
};
use treepie_testkit::{Rng, SimDisk, model::Model, tally, workload::Op};

use crate::harness::{self, DIR, for_seeds, insert, new_model, options, remove, seeds};

const SAVED: &str = "/saved";
const DATA: &str = "/db/data";
const PAGE_SIZE: usize = 4096;

/// Entries by tree and key.
type Content = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

fn quiet(disk: &SimDisk) -> Options {
    options(disk).checkpoint_on_close(false)
}

/// Trees with branches, with runs, and more names than one leaf of the catalog holds.
fn scripts() -> Vec<Vec<Op>> {
    let mut scripts = vec![Vec::new()];
    for number in 0..70 {
        scripts[0].push(insert(&format!("tree with a name {number:03}"), "k", &[number; 20]));
    }
    for round in 0..4_u8 {
        let mut ops = Vec::new();
        for number in 0..60_u32 {
            let key = format!("bird {:04}", number * 4 + u32::from(round));
            ops.push(insert("birds", &key, &vec![round; 100 + number as usize % 200]));
        }
        ops.push(insert(
            "large",
            &format!("photo {round}"),
            &vec![round + 1; 5_000 + 4_000 * usize::from(round)],
        ));
        ops.push(insert("large", &format!("note {round}"), b"small"));
        scripts.push(ops);
    }
    scripts.push(vec![remove("birds", "bird 0010"), insert("birds", "bird 0011", b"another")]);
    scripts
}

/// A database at rest, of which the first scripts are in the data file and the others in the journal.
fn at_rest(scripts: &[Vec<Op>], checkpointed: usize) -> (SimDisk, Model) {
    let disk = SimDisk::new(1);
    let mut model = new_model();
    let db = quiet(&disk).open(DIR).expect("a new database opens");
    for (number, ops) in scripts.iter().enumerate() {
        model.commit(harness::write(&db, ops).expect("a commit"), ops);
        if number + 1 == checkpointed {
            db.checkpoint().expect("a checkpoint");
        }
    }
    drop(db);
    (disk.settled(2), model)
}

fn salvage(disk: &SimDisk) -> treepie::Result<SalvageReport> {
    let going = |_: &treepie::SalvageProgress| ControlFlow::Continue(());
    quiet(disk).salvage(DIR, SAVED, going)
}

/// What the new database holds; it must pass its check.
fn saved(disk: &SimDisk) -> Content {
    let db = quiet(disk).create(false).open(SAVED).expect("the new database opens");
    let report = db.check().expect("a check");
    assert!(report.is_clean(), "{:?}", report.problems);
    content(&db)
}

fn content(db: &Database) -> Content {
    let snapshot = db.read().expect("a snapshot");
    let mut content = Content::new();
    for info in snapshot.trees().expect("the trees") {
        if !info.name.starts_with(b"$") {
            let tree = snapshot.tree(&info.name).expect("it is there");
            let entries = tree.iter().map(|entry| entry.expect("an entry"));
            content.insert(info.name, entries.map(|(k, v)| (k.to_vec(), v.to_vec())).collect());
        }
    }
    content
}

fn of_model(model: &Model, lsn: u64) -> Content {
    let state = model.at(lsn).expect("the model has it");
    let trees = state.trees().map(|(name, entries)| {
        (name.to_vec(), entries.iter().map(|(k, v)| (k.clone(), v.to_vec())).collect())
    });
    trees.collect()
}

fn files(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = disk
        .file_paths()
        .into_iter()
        .filter(|path| path.starts_with(DIR) && !path.ends_with("lock"));
    paths.map(|path| (path.clone(), disk.file_bytes(&path).expect("it is there"))).collect()
}

#[test]
fn whole_database_is_salvaged_as_it_is_and_left_as_it_is() {
    let scripts = scripts();
    for checkpointed in 0..=scripts.len() {
        let (disk, model) = at_rest(&scripts, checkpointed);
        let before = files(&disk);
        let report = salvage(&disk).expect("a salvage");
        assert!(report.is_whole(), "{report:?}");
        assert_eq!(report.lsn, Some(Lsn(model.lsn())));
        assert!(saved(&disk) == of_model(&model, model.lsn()));
        assert!(before == files(&disk), "a salvage changed the damaged database");
        assert!(!disk.file_paths().iter().any(|path| path.ends_with("salvage.tmp")));
    }
}

/// What stands on each page of the data file: number of entries, and the tree.
struct Place {
    kind: &'static str,
    tree: u32,
    count: usize,
}

fn places(disk: &SimDisk) -> (Vec<Place>, BTreeMap<u32, Vec<u8>>) {
    let db = quiet(disk).open(DIR).expect("it opens");
    let snapshot = db.read().expect("a snapshot");
    let trees = snapshot.trees().expect("the trees");
    let names = trees.into_iter().map(|info| (info.id.0, info.name)).collect();
    let pages = (db.report().expect("a report").data_file_len / PAGE_SIZE as u64) as u32;
    let places = (0..pages).map(|page| {
        let dump = db.page(PageId(page)).expect("it is inside the file");
        let is_page = dump.damage.is_none();
        let kind = if is_page { dump.kind } else { "none" };
        Place { kind, tree: dump.tree.0, count: dump.count }
    });
    (places.collect(), names)
}

/// The pages inside runs, by the tree of the run.
fn run_pages(disk: &SimDisk, places: &[Place]) -> Vec<u32> {
    let data = disk.file_bytes(Path::new(DATA)).expect("it is there");
    let mut pages = Vec::new();
    for (page, place) in places.iter().enumerate().filter(|(_, place)| place.kind == "overflow") {
        let start = page * PAGE_SIZE + 24;
        let len = u64::from_le_bytes(data[start..start + 8].try_into().expect("8 bytes"));
        let count = (len as usize + 32).div_ceil(PAGE_SIZE);
        pages.extend(page as u32..(page + count) as u32);
        assert_eq!(place.count, 0);
    }
    pages
}

/// Compares what was saved with what was there: what is missing must be `lost` entries, all of them
/// listed, and nothing else may differ. Trees without a name are found by their number.
fn compare(
    name: &str,
    report: &SalvageReport,
    found: &Content,
    model: &Content,
    names: &BTreeMap<u32, Vec<u8>>,
) -> usize {
    let mut missing = 0;
    let mut matched = 0;
    for (tree, entries) in model {
        let id = names.iter().find(|(_, known)| *known == tree).map(|(id, _)| *id).expect("a tree");
        let nameless = format!("tree-{id}").into_bytes();
        let empty = BTreeMap::new();
        let saved = found.get(tree).or(found.get(&nameless)).unwrap_or(&empty);
        matched += usize::from(found.contains_key(tree) || found.contains_key(&nameless));
        for (key, value) in entries {
            if let Some(saved) = saved.get(key) {
                assert!(saved == value, "{name}: another value of {}", key.escape_ascii());
                continue;
            }
            missing += 1;
            let is_listed = report.losses.iter().any(|loss| {
                let from = loss.from.as_ref();
                loss.tree.as_ref() == Some(tree)
                    && match loss.is_value {
                        true => from == Some(key),
                        false => {
                            from.is_none_or(|from| from <= key)
                                && loss.until.as_ref().is_none_or(|until| key < until)
                        }
                    }
            });
            assert!(is_listed, "{name}: {} is not listed: {:?}", key.escape_ascii(), report.losses);
        }
        assert!(saved.keys().all(|key| entries.contains_key(key)), "{name}: an entry too many");
    }
    assert_eq!(found.len(), matched, "{name}: a tree too many");
    missing
}

#[test]
fn each_page_that_is_destroyed_loses_what_is_on_it_and_nothing_else() {
    let scripts = scripts();
    let (disk, model) = at_rest(&scripts, scripts.len());
    let model = of_model(&model, model.lsn());
    let (places, names) = places(&disk);
    let runs = run_pages(&disk, &places);
    let data = disk.file_bytes(Path::new(DATA)).expect("it is there");
    let (mut destroyed, mut lost) = (0_u64, 0);
    for (page, place) in places.iter().enumerate() {
        let in_run = runs.contains(&(page as u32));
        if place.kind == "none" && !in_run {
            continue;
        }
        for way in ["zeroed", "flipped", "garbage"] {
            let mut bytes = data.clone();
            let part = &mut bytes[page * PAGE_SIZE..(page + 1) * PAGE_SIZE];
            match way {
                "zeroed" => part.fill(0),
                "flipped" => part[777] ^= 1,
                _ => Rng::new(page as u64).fill(part),
            }
            if bytes == data {
                continue;
            }
            let disk = disk.settled(3);
            disk.rot(Path::new(DATA), &bytes);
            let name = format!("page {page} ({}, tree {}) {way}", place.kind, place.tree);
            let report = salvage(&disk).unwrap_or_else(|error| panic!("{name}: {error}"));
            let missing = compare(&name, &report, &saved(&disk), &model, &names);
            let is_user = place.tree > 2;
            let expected = match place.kind {
                "leaf" if is_user => place.count,
                _ if in_run => 1,
                _ => 0,
            };
            assert_eq!(missing, expected, "{name}: {:?}", report.losses);
            // Behind the older meta page there may be no journal any more, which is noted.
            if place.kind != "meta" {
                let is_noted = place.kind != "bitmap";
                assert_eq!(report.loss_count > 0, is_noted, "{name}: {:?}", report.losses);
            }
            if place.kind != "leaf" || is_user {
                assert_eq!(report.entries_lost(), missing as u64, "{name}");
            }
            destroyed += 1;
            lost += missing;
        }
    }
    for kind in ["leaf", "branch", "overflow", "bitmap", "meta"] {
        assert!(places.iter().any(|place| place.kind == kind), "no {kind} was destroyed");
    }
    assert!(places.iter().any(|p| p.kind == "branch" && p.tree == 1), "the catalog has a branch");
    let counts = format!("{destroyed} destroyed pages, {lost} entries lost, all of them listed");
    tally::note(5, "bit rot: salvage", &counts);
}

#[test]
fn database_without_meta_pages_is_salvaged_from_pages_and_journal() {
    let scripts = scripts();
    for checkpointed in [1, 3, scripts.len()] {
        let (disk, model) = at_rest(&scripts, checkpointed);
        let mut data = disk.file_bytes(Path::new(DATA)).expect("it is there");
        data[..2 * PAGE_SIZE].fill(0xee);
        disk.rot(Path::new(DATA), &data);
        assert!(quiet(&disk).open(DIR).is_err(), "nothing else opens it");
        let report = salvage(&disk).expect("a salvage");
        assert!(saved(&disk) == of_model(&model, model.lsn()), "{report:?}");
        assert_eq!(report.page_size, PAGE_SIZE);
        assert_eq!(report.loss_count, 1, "that there is no meta page: {:?}", report.losses);
    }
}

#[test]
fn damaged_record_costs_what_came_after_it() {
    let scripts = scripts();
    let (disk, model) = at_rest(&scripts, 2);
    let records: Vec<_> = {
        let db = quiet(&disk).open(DIR).expect("it opens");
        db.journal_records(Lsn(0)).expect("the journal").map(|r| r.expect("whole")).collect()
    };
    let mut cuts = 0;
    // Of the last one nobody can tell whether it was torn.
    for record in &records[..records.len() - 1] {
        let disk = disk.settled(3);
        disk.flip_bit(&record.file, (record.offset + record.stored_len / 2) * 8);
        let report = salvage(&disk).expect("a salvage");
        let lsn = report.lsn.expect("the meta page says it");
        assert!(saved(&disk) == of_model(&model, lsn.0), "record {}: {report:?}", record.lsn);
        let is_needed = record.lsn.0 > 4;
        if is_needed {
            assert_eq!((lsn.0, report.loss_count), (record.lsn.0 - 1, 1), "{report:?}");
            cuts += 1;
        }
    }
    assert!(cuts >= 2, "{cuts}");
}

#[test]
fn lost_segment_in_the_middle_costs_what_came_after_it() {
    let disk = SimDisk::new(1);
    let mut model = new_model();
    let db = quiet(&disk).open(DIR).expect("a new database opens");
    for number in 0..60_u8 {
        let ops = vec![insert("t", &format!("key {}", number % 20), &vec![number; 900])];
        model.commit(harness::write(&db, &ops).expect("a commit"), &ops);
    }
    drop(db);
    let disk = disk.settled(2);
    let mut segments = disk.file_paths();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    segments.retain(|path| !path.ends_with("spare-reserve.seg"));
    segments.sort();
    assert!(segments.len() >= 4, "{segments:?}");
    for way in ["zeroed", "cut"] {
        let disk = disk.settled(3);
        let len = disk.file_bytes(&segments[2]).expect("it is there").len();
        disk.rot(&segments[2], &vec![0; if way == "cut" { 0 } else { len }]);
        assert!(quiet(&disk).open(DIR).is_err(), "nothing else opens it");
        let report = salvage(&disk).expect("a salvage");
        let name = segments[2].file_stem().and_then(|stem| stem.to_str()).expect("a number");
        let first: u64 = name.parse().expect("a number");
        assert_eq!((report.lsn, report.loss_count), (Some(Lsn(first - 1)), 1), "{report:?}");
        assert!(saved(&disk) == of_model(&model, first - 1));
    }
}

/// Random damage in all files, checksums of pages stamped anew. Returns whether anything was saved.
fn hostile(seed: u64, disk: &SimDisk) -> bool {
    let disk = disk.settled(seed);
    let mut rng = Rng::new(seed);
    let mut data = disk.file_bytes(Path::new(DATA)).expect("it is there");
    let pages = data.len() / PAGE_SIZE;
    for _ in 0..1 + rng.below(6) {
        let page = rng.index(pages);
        let start = page * PAGE_SIZE;
        let part = &mut data[start..start + PAGE_SIZE];
        for _ in 0..1 + rng.below(8) {
            let at = match rng.below(3) {
                0 => rng.index(48),
                1 => rng.index(600),
                _ => rng.index(PAGE_SIZE),
            };
            part[at] =
                *rng.pick(&[0, 1, 2, 18, 19, 0x7f, 0x80, 0xff, part[at] ^ 1, part[at] ^ 0x80]);
        }
        if page > 1 && rng.chance(3, 4) {
            let checksum = crc32fast::hash(&part[4..]).to_le_bytes();
            part[..4].copy_from_slice(&checksum);
        }
    }
    if rng.chance(1, 10) {
        data.truncate(rng.index(data.len()));
    }
    disk.rot(Path::new(DATA), &data);
    let journal = disk.file_paths().into_iter().filter(|path| path.starts_with("/db/journal"));
    for path in journal.collect::<Vec<_>>() {
        if rng.chance(1, 4) {
            let len = disk.file_bytes(&path).expect("it is there").len() as u64;
            disk.flip_bit(&path, rng.below(len * 8));
        }
    }
    match salvage(&disk) {
        Ok(report) => {
            let count: usize = saved(&disk).values().map(BTreeMap::len).sum();
            assert_eq!(report.entries, count as u64);
            count > 0
        }
        Err(error @ (Error::Corrupt { .. } | Error::NotADatabase { .. })) => {
            assert!(!error.to_string().is_empty());
            false
        }
        Err(error) => panic!("refused for the wrong reason: {error}"),
    }
}

#[test]
fn hostile_files_are_salvaged_without_a_panic_into_a_database_that_is_clean() {
    let scripts = scripts();
    let (disk, _) = at_rest(&scripts, 3);
    let seeds = seeds(0, 2_000);
    let saved = for_seeds(&seeds, |seed| {
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hostile(seed, &disk)));
        result.unwrap_or_else(|_| {
            panic!(
                "seed {seed}: TREEPIE_SEED={seed} cargo test -p treepie --test engine hostile_files"
            )
        })
    });
    let some = saved.iter().filter(|some| **some).count();
    tally::note(
        5,
        "hostile files: salvage",
        &format!("{} files, {some} with something to save", seeds.len()),
    );
    assert!(some * 10 > seeds.len() * 9 || seeds.len() == 1, "{some} of {}", seeds.len());
}

/// Values that no other key has, and no other commit: they begin with both.
fn value(key: u64, commit: u64, len: usize) -> Vec<u8> {
    let begin = [key.to_be_bytes(), commit.to_be_bytes()].concat();
    begin.into_iter().chain((0u8..=255).cycle()).take(len).collect()
}

/// A database whose checkpoint is behind what was written early, damaged in journal, pages and meta pages:
/// whatever is saved is a value that its key had. Returns how many there were.
fn salvage_mixture(seed: u64) -> usize {
    let disk = SimDisk::new(seed);
    let mut rng = Rng::new(seed);
    // Pages are written early, for room in memory, and a checkpoint is far away.
    let options = quiet(&disk).checkpoint_distance(4 << 20);
    let db = options.open(DIR).expect("a new database opens");
    let mut had: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for commit in 0..250 + rng.below(100) {
        let written = db.write(|tx| {
            for _ in 0..1 + rng.below(4) {
                let number = rng.below(160);
                let key = format!("key {number:03}").into_bytes();
                let len = *rng.pick(&[40, 400, 900, 5_000, 5_000, 9_000, 9_000]);
                if rng.chance(1, 5) {
                    tx.tree("t")?.remove(&key)?;
                } else {
                    let value = value(number, commit, len);
                    tx.tree("t")?.insert(&key, &value)?;
                    had.entry(key).or_default().push(value);
                }
            }
            Ok(())
        });
        written.expect("a commit");
        if rng.chance(1, 80) {
            db.checkpoint().expect("a checkpoint");
        }
    }
    assert!(db.stats().pages_written > 100, "{:?}", db.stats());
    drop(db);
    let disk = disk.settled(seed);
    let mut data = disk.file_bytes(Path::new(DATA)).expect("it is there");
    if rng.chance(1, 2) {
        data[..2 * PAGE_SIZE].fill(0xee);
    }
    for _ in 0..rng.below(6) {
        let page = 2 + rng.index(data.len() / PAGE_SIZE - 2);
        data[page * PAGE_SIZE..(page + 1) * PAGE_SIZE].fill(0);
    }
    disk.rot(Path::new(DATA), &data);
    let journal = disk.file_paths().into_iter().filter(|path| path.starts_with("/db/journal"));
    for path in journal.collect::<Vec<_>>() {
        if rng.chance(1, 3) {
            let len = disk.file_bytes(&path).expect("it is there").len() as u64;
            disk.flip_bit(&path, rng.below(len * 8));
        }
    }
    salvage(&disk).expect("a salvage");
    let saved = saved(&disk);
    let entries = saved.values().flatten();
    let checked = entries.map(|(key, value)| {
        let is_own = had.get(key).is_some_and(|values| values.contains(value));
        assert!(is_own, "{} never had this value", key.escape_ascii());
    });
    checked.count()
}

#[test]
fn salvage_never_gives_a_key_a_value_that_it_never_had() {
    let seeds = seeds(0, 150);
    let counts = for_seeds(&seeds, |seed| {
        let result = std::panic::catch_unwind(|| salvage_mixture(seed));
        result.unwrap_or_else(|_| {
            panic!(
                "seed {seed}: TREEPIE_SEED={seed} cargo test -p treepie --test engine never_gives"
            )
        })
    });
    let entries: usize = counts.iter().sum();
    tally::note(
        5,
        "mixtures: salvage",
        &format!("{} databases, {entries} entries saved", seeds.len()),
    );
    assert!(entries > 20 * seeds.len() || seeds.len() == 1, "{entries}");
}

#[test]
fn salvage_refuses_what_is_there_what_is_open_and_what_is_nothing() {
    let (disk, _) = at_rest(&scripts()[..1], 1);
    let going = |_: &treepie::SalvageProgress| ControlFlow::Continue(());
    let salvage = |from: &str, to: &str| quiet(&disk).salvage(from, to, going).map(|_| ());
    assert!(matches!(salvage("/none", SAVED), Err(Error::NotFound { .. })));
    assert!(matches!(salvage(DIR, DIR), Err(Error::Io { action: "create", .. })));
    let db = quiet(&disk).open(DIR).expect("it opens");
    assert!(matches!(salvage(DIR, SAVED), Err(Error::Locked { .. })));
    drop(db);
    salvage(DIR, SAVED).expect("a salvage");
    assert!(matches!(salvage(DIR, SAVED), Err(Error::Io { action: "create", .. })));
    let stopped = quiet(&disk).salvage(DIR, "/other", |_| ControlFlow::Break(()));
    let report = stopped.expect("no error");
    assert!(!report.is_complete && !report.is_whole());
}

#[test]
fn what_the_application_said_of_itself_is_salvaged() {
    let disk = SimDisk::new(1);
    let db = quiet(&disk).application("ledger", 3).open(DIR).expect("a new database opens");
    db.write(|tx| tx.tree("t")?.insert("k", "v")).expect("a commit");
    drop(db);
    salvage(&disk).expect("a salvage");
    let wrong = quiet(&disk).application("journal", 3).open(SAVED);
    assert!(matches!(wrong, Err(Error::Application { .. })));
    quiet(&disk).application("ledger", 3).open(SAVED).expect("it is the ledger's");
}

#[test]
fn page_that_the_disk_does_not_read_is_a_loss_and_no_error() {
    let scripts = scripts();
    let (disk, model) = at_rest(&scripts, scripts.len());
    let model = of_model(&model, model.lsn());
    let (_, names) = places(&disk);
    let mut lost = 0;
    for nth in [30, 40, 50, 60, 70, 80, 90, 100] {
        let disk = disk.settled(3);
        disk.fail(treepie_testkit::Fault::nth(nth).of(treepie_testkit::Call::Read).on(DATA));
        let report = salvage(&disk).expect("a salvage");
        lost += compare(&format!("read {nth}"), &report, &saved(&disk), &model, &names);
    }
    assert!(lost > 0);
}

/// A leaf is split by a commit of which the journal has no trace any more, and the data file has both
/// halves: the one that only the lost commit knew of is found by its header.
#[test]
fn leaf_that_was_split_behind_the_cut_loses_none_of_its_entries() {
    let disk = SimDisk::new(1);
    let db = quiet(&disk).checkpoint_distance(4 << 20).open(DIR).expect("a new database opens");
    let row = |number: u32| insert("t", &format!("key {number:03}"), &[number as u8; 300]);
    let first: Vec<Op> = (0..11).map(|number| row(number * 10)).collect();
    let before = harness::write(&db, &first).expect("a commit");
    db.checkpoint().expect("a checkpoint");
    let leaves = |db: &Database| {
        db.read()
            .expect("a snapshot")
            .trees()
            .expect("the trees")
            .into_iter()
            .find(|info| info.name == b"t")
            .expect("it is there")
            .leaf_pages
    };
    assert_eq!(leaves(&db), 1);
    let second: Vec<Op> = (0..10).map(|number| row(number * 10 + 5)).collect();
    let lost = harness::write(&db, &second).expect("a commit");
    assert_eq!((leaves(&db), lost), (2, before + 1));
    // Memory is short, so that all pages go to the data file, and no checkpoint says so.
    for number in 0..4_u8 {
        let value = vec![number; 200 << 10];
        harness::write(&db, &[insert("large", &format!("{number}"), &value)]).expect("a commit");
    }
    assert!(db.stats().pages_written > 100, "{:?}", db.stats());
    let records = db.journal_records(Lsn(lost)).expect("the journal");
    let record = records.map(|record| record.expect("whole")).find(|record| record.lsn.0 == lost);
    let record = record.expect("it is there");
    drop(db);
    let disk = disk.settled(2);
    disk.flip_bit(&record.file, (record.offset + record.stored_len / 2) * 8);
    let report = salvage(&disk).expect("a salvage");
    assert_eq!(report.lsn, Some(Lsn(before)), "{report:?}");
    let saved = saved(&disk);
    for (key, value) in first.iter().chain(&second).map(|op| match op {
        Op::Insert { key, value, .. } => (key, value),
        _ => unreachable!("all are insertions"),
    }) {
        let found = saved[&b"t"[..]].get(key);
        assert_eq!(found.map(Vec::as_slice), Some(&value[..]), "{}", key.escape_ascii());
    }
}
