//! Copies of pages, for backups. What a copy gives is compared page by page with the data file of a
//! twin: the same disk at the moment when the copy began, opened and closed in order.

use std::collections::BTreeMap;

use treepie::{
    Base, CopyOptions, Damage, Database, Error, FoundDamage, Lineage, PageCopy, Snapshot,
    Structure,
    ids::{DatabaseId, Lsn, PageId},
};
use treepie_testkit::{
    Call, Fault, FaultError, Rng, SimDisk, tally,
    workload::{Op, Shape, Step, generate},
};

use crate::harness::{
    DIR, apply, assert_says, file_options, for_seeds, insert, open_new, options, remove, seeds,
    write,
};

const PAGE_SIZE: usize = 4096;
/// The bitmap pages of groups that small databases do not have.
const UNBEGUN: std::ops::RangeInclusive<u32> = 3..=17;

/// Pages by their numbers.
type Pages = BTreeMap<u32, Vec<u8>>;

/// A copy that has come to its end, on its own or on top of its base.
#[derive(Clone, Debug)]
struct Image {
    base: Base,
    pages: Pages,
}

fn number(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// The used pages of a disk's database as of its newest commit, and the LSN.
fn twin(disk: &SimDisk) -> (u64, Pages) {
    let disk = disk.settled(7);
    let db = options(&disk).open(DIR).expect("the twin opens");
    db.close().expect("the twin closes");
    let data = disk.file_bytes(format!("{DIR}/data").as_ref()).expect("a data file");
    let lsn = (0..2).map(|meta| number(&data, meta * PAGE_SIZE + 80)).max().expect("two");
    let page = |page: usize| &data[page * PAGE_SIZE..(page + 1) * PAGE_SIZE];
    let is_used = |number: usize| page(2)[32 + number / 8] >> (number % 8) & 1 == 1;
    let used = (2..data.len() / PAGE_SIZE).filter(|number| is_used(*number));
    let used = used.filter(|number| !UNBEGUN.contains(&(*number as u32)));
    (lsn, used.map(|number| (number as u32, page(number).to_vec())).collect())
}

/// Reads more of a copy; false at its end.
fn advance(copy: &mut PageCopy, pages: &mut Pages, len_max: usize) -> treepie::Result<bool> {
    let mut bytes = Vec::new();
    let Some(PageId(first)) = copy.next(&mut bytes, len_max)? else { return Ok(false) };
    assert!(bytes.len() <= len_max.max(PAGE_SIZE) && !bytes.is_empty());
    assert!(pages.last_key_value().is_none_or(|(last, _)| *last < first), "page numbers rise");
    for (page, bytes) in (first..).zip(bytes.chunks(PAGE_SIZE)) {
        pages.insert(page, bytes.to_vec());
    }
    Ok(true)
}

fn finish(copy: &mut PageCopy, pages: &mut Pages) -> treepie::Result<()> {
    while advance(copy, pages, 1 << 20)? {}
    Ok(())
}

fn copy_all(db: &Database, options: &CopyOptions) -> (PageCopy, Pages) {
    let mut copy = db.copy_pages(options).expect("a copy begins");
    let mut pages = Pages::new();
    finish(&mut copy, &mut pages).expect("a whole copy");
    (copy, pages)
}

/// What is wrong with the pages of a copy on top of those of its base.
fn difference(pages: &Pages, under: &Pages, (lsn, wanted): &(u64, Pages)) -> Option<String> {
    for (page, bytes) in wanted {
        let Some(found) = pages.get(page).or_else(|| under.get(page)) else {
            return Some(format!("page {page} at LSN {lsn} is missing"));
        };
        if found != bytes {
            let (found, bytes) = (number(found, 8), number(bytes, 8));
            return Some(format!("page {page} at LSN {lsn} has LSN {found} and not {bytes}"));
        }
    }
    let extra = pages.keys().find(|page| !wanted.contains_key(page));
    extra.map(|page| format!("page {page} is free at LSN {lsn}, and in the copy"))
}

/// A copy on its way.
struct Running {
    copy: PageCopy,
    pages: Pages,
    under: Pages,
    twin: (u64, Pages),
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    copies: u64,
    pages: u64,
    by_map: u64,
    by_scan: u64,
    saved: u64,
}

/// A database under a random load, with copies of it.
struct Scene {
    rng: Rng,
    disk: SimDisk,
    db: Option<Database>,
    images: Vec<Image>,
    running: Vec<Running>,
    snapshots: Vec<Snapshot>,
    counts: Counts,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let disk = SimDisk::new(seed);
        let db = Some(options(&disk).open(DIR).expect("a new database opens"));
        let (images, running, snapshots) = (Vec::new(), Vec::new(), Vec::new());
        let counts = Counts::default();
        Scene { rng: Rng::new(seed), disk, db, images, running, snapshots, counts }
    }

    fn db(&self) -> &Database {
        self.db.as_ref().expect("it is open")
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Write(ops) => drop(write(self.db(), ops).expect("a commit")),
            Step::Abort(ops) => {
                let undone = self.db().write(|tx| {
                    apply(tx, ops)?;
                    Err::<(), _>(Error::rejected("as asked"))
                });
                undone.expect_err("it gives up");
            }
            Step::Checkpoint => drop(self.db().checkpoint().expect("a checkpoint")),
            Step::Reopen => return self.reopen(),
        }
        match self.rng.below(12) {
            0 | 1 if self.running.len() < 3 => self.begin(),
            2 => self.snapshots.push(self.db().read().expect("a snapshot")),
            3 | 4 => self.snapshots.truncate(self.rng.index(3)),
            5..=9 => self.go_on()?,
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self) {
        let image = (!self.images.is_empty() && self.rng.chance(2, 3))
            .then(|| self.rng.pick(&self.images).clone());
        let mut options = CopyOptions::new().skip_damage(self.rng.chance(1, 3));
        if let Some(image) = &image {
            // It may be older than anything that the journal and the map know: it is ours.
            options = options.base(image.base).unproved_base(true);
        }
        let twin = twin(&self.disk);
        let copy = self.db().copy_pages(&options).expect("a copy begins");
        assert_eq!(copy.lsn().0, twin.0);
        match &image {
            Some(_) if copy.is_from_map() => self.counts.by_map += 1,
            Some(_) => self.counts.by_scan += 1,
            None => assert_eq!(copy.used_pages(), twin.1.len() as u64),
        }
        let under = image.map(|image| image.pages).unwrap_or_default();
        self.running.push(Running { copy, pages: Pages::new(), under, twin });
    }

    /// Reads some more of a copy.
    fn go_on(&mut self) -> Result<(), String> {
        if self.running.is_empty() {
            return Ok(());
        }
        let index = self.rng.index(self.running.len());
        let running = &mut self.running[index];
        for _ in 0..self.rng.below(20) {
            let len_max = [1, PAGE_SIZE, 3 * PAGE_SIZE + 7, 1 << 20][self.rng.index(4)];
            match advance(&mut running.copy, &mut running.pages, len_max) {
                Ok(true) => {}
                Ok(false) => return self.end(index),
                Err(error) => return Err(format!("a copy fails: {error}")),
            }
        }
        Ok(())
    }

    fn end(&mut self, index: usize) -> Result<(), String> {
        let Running { copy, pages, under, twin } = self.running.swap_remove(index);
        assert_eq!(copy.damage(), []);
        if let Some(difference) = difference(&pages, &under, &twin) {
            return Err(difference);
        }
        self.counts.copies += 1;
        self.counts.pages += pages.len() as u64;
        self.images.push(Image { base: copy.as_base(), pages: twin.1 });
        Ok(())
    }

    fn finish_all(&mut self) -> Result<(), String> {
        while !self.running.is_empty() {
            self.go_on()?;
        }
        Ok(())
    }

    /// Closes the database in order, beside its copies, or kills it.
    fn reopen(&mut self) -> Result<(), String> {
        self.snapshots.clear();
        if self.rng.chance(2, 3) {
            self.db.take().expect("it is open").close().expect("it closes");
            self.finish_all()?;
            self.counts.saved += 1;
        } else {
            self.disk = self.disk.restart();
            self.running.clear();
            drop(self.db.take());
        }
        self.db = Some(options(&self.disk).open(DIR).expect("it opens again"));
        Ok(())
    }
}

/// A database under a random load, with copies of all kinds: what is wrong with one of them.
fn run(seed: u64) -> Result<Counts, String> {
    let shape = Shape { steps: 150, keys: 60, checkpoint_every: 8, ..Shape::default() };
    let mut scene = Scene::new(seed);
    for step in generate(seed, &shape) {
        scene.step(&step)?;
    }
    scene.finish_all()?;
    Ok(scene.counts)
}

/// Some seeds of it, in this thread.
#[cfg(feature = "planted")]
pub fn under_load() -> Result<(), String> {
    (1..=10).try_for_each(|seed| run(seed).map(drop))
}

#[test]
fn copies_beside_a_random_load_have_every_page_as_of_their_lsn() {
    let seeds = seeds(1, 40);
    let mut all = Counts::default();
    for (seed, result) in seeds.iter().zip(for_seeds(&seeds, run)) {
        let counts = result.unwrap_or_else(|what| {
            panic!(
                "seed {seed}: {what}\nTREEPIE_SEED={seed} cargo test -p treepie --test engine \
                 copies_beside_a_random_load"
            )
        });
        all.copies += counts.copies;
        all.pages += counts.pages;
        all.by_map += counts.by_map;
        all.by_scan += counts.by_scan;
        all.saved += counts.saved;
    }
    assert!(all.by_map > 0 && all.by_scan > 0 && all.saved > 0, "{all:?}");
    let Counts { copies, pages, by_map, by_scan, .. } = all;
    let pages = tally::thousands(pages);
    let counts =
        format!("{copies} equal, {pages} pages, increments by map {by_map}, by scan {by_scan}");
    tally::note(13, "copies of pages under load", &counts);
}

/// Fills a tree with values of a page each.
fn fill(db: &Database, count: usize, byte: u8) {
    for index in 0..count {
        write(db, &[insert("t", &format!("{index:04}"), &[byte; 3000])]).expect("a commit");
    }
}

#[test]
fn a_copy_that_stands_still_holds_nobody_back() {
    let figures = |copies: bool| {
        let disk = SimDisk::new(1);
        let db = options(&disk).open(DIR).expect("it opens");
        fill(&db, 200, 1);
        let copy = copies.then(|| db.copy_pages(&CopyOptions::new()).expect("a copy begins"));
        let twin = twin(&disk);
        let (mut journal, mut memory, mut scratch, mut segments) = (0, 0, 0, 0);
        for round in 0..20 {
            fill(&db, 200, round);
            let stats = db.stats();
            journal = journal.max(stats.journal_bytes);
            memory = memory.max(stats.versions_memory);
            scratch = scratch.max(stats.scratch_memory);
            segments = segments.max(db.report().expect("a report").journal.bytes);
        }
        if let Some(mut copy) = copy {
            let info = db.copies();
            assert_eq!((info.len(), info[0].lsn, info[0].pages_read), (1, copy.lsn(), 0));
            assert!(info[0].side_file_len > 200 * 4096, "{info:?}");
            assert!(info[0].side_file_len <= copy.used_pages() * 4096, "each page once: {info:?}");
            assert!(info[0].opened_at.contains("copies.rs"), "{info:?}");
            let mut pages = Pages::new();
            finish(&mut copy, &mut pages).expect("a whole copy");
            assert_eq!(difference(&pages, &Pages::new(), &twin), None);
            assert_eq!(db.copies(), [], "one that was read to its end is gone");
        }
        (journal, memory, scratch, segments)
    };
    assert_eq!(figures(true), figures(false), "journal, memory, scratch, segments");
}

#[test]
fn an_old_snapshot_keeps_no_copy_from_the_newest_commit() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    fill(&db, 30, 1);
    let old = db.read().expect("a snapshot");
    fill(&db, 30, 2);
    write(&db, &[insert("t", "large", &[9; 50_000])]).expect("a commit");
    let twin = twin(&disk);
    let few = CopyOptions::new().side_file_max(10 * 4096);
    let error = db.copy_pages(&few).expect_err("the old snapshot keeps more than that");
    assert_says(&error, &["side_file_max", "40960"]);
    assert_eq!(db.copies(), []);
    let (copy, pages) = copy_all(&db, &CopyOptions::new());
    assert_eq!(copy.lsn().0, twin.0);
    assert!(copy.lsn() > old.lsn());
    assert_eq!(difference(&pages, &Pages::new(), &twin), None);
}

#[test]
fn a_copy_whose_side_file_is_full_ends_and_nothing_else_does() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    fill(&db, 200, 1);
    let bound = CopyOptions::new().side_file_max(20 * 4096);
    let mut copy = db.copy_pages(&bound).expect("a copy begins");
    let mut pages = Pages::new();
    assert!(advance(&mut copy, &mut pages, 1).expect("a page"));
    fill(&db, 200, 2);
    db.checkpoint().expect("a checkpoint");
    assert_eq!(db.copies()[0].side_file_len, 0, "what nobody will read is gone");
    for _ in 0..2 {
        let error = copy.next(&mut Vec::new(), 1 << 20).expect_err("the side file is full");
        assert!(matches!(error, Error::Bound { option: "side_file_max", max: 81_920, .. }));
        assert_says(&error, &["read it faster"]);
    }
    assert_eq!((db.copies(), db.stats().poisoned_by), (Vec::new(), None));
    copy_all(&db, &CopyOptions::new());
}

#[test]
fn a_disk_that_takes_no_side_file_ends_the_copy_alone() {
    for call in [Call::Scratch, Call::Write] {
        let disk = SimDisk::new(1);
        let db = options(&disk).open(DIR).expect("it opens");
        fill(&db, 100, 1);
        let mut copy = db.copy_pages(&CopyOptions::new()).expect("a copy begins");
        let fault = Fault::nth(1).of(call).error(FaultError::ENOSPC).forever();
        disk.fail(if call == Call::Write { fault.on("scratch") } else { fault });
        fill(&db, 100, 2);
        db.checkpoint().expect("a checkpoint");
        disk.heal();
        let error = copy.next(&mut Vec::new(), 1 << 20).expect_err("it has ended");
        assert!(matches!(error, Error::Io { .. }), "{call:?}: {error}");
        assert_eq!(db.stats().poisoned_by, None);
    }
}

/// A database at rest with a large value, the number of its first page, and the disk.
fn with_run(len: usize) -> (SimDisk, u32) {
    let disk = SimDisk::new(1);
    let db = options(&disk).versions_memory(64 << 20).open(DIR).expect("it opens");
    write(&db, &[insert("small", "k", b"v")]).expect("a commit");
    write(&db, &[insert("large", "k", &vec![7; len])]).expect("a commit");
    fill(&db, 50, 1);
    db.close().expect("it closes");
    let data = disk.file_bytes(format!("{DIR}/data").as_ref()).expect("a data file");
    let first = data
        .chunks(PAGE_SIZE)
        .skip(2)
        .position(|page| page[16] == 3 && number(page, 24) == len as u64);
    (disk.settled(2), first.expect("the run") as u32 + 2)
}

#[test]
fn damage_in_the_tail_of_a_large_value_stops_the_copy_with_its_tree() {
    let (disk, first) = with_run(5 << 20);
    let offset = u64::from(first) * PAGE_SIZE as u64;
    disk.flip_bit(format!("{DIR}/data").as_ref(), (offset + (5 << 20) - 3) * 8);
    let db = options(&disk).open(DIR).expect("it opens");
    let trees = db.read().expect("a snapshot").trees().expect("all trees");
    let large = trees.iter().find(|info| info.name == b"large").expect("a tree").id;
    let mut copy = db.copy_pages(&CopyOptions::new()).expect("a copy begins");
    for _ in 0..2 {
        let error = finish(&mut copy, &mut Pages::new()).expect_err("the run is damaged");
        match &error {
            Error::Corrupt { offset: at, what: Damage::Checksum { structure, .. }, .. } => {
                assert_eq!(*at, offset);
                assert_eq!(*structure, Structure::Page(PageId(first), large));
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(db.copies(), []);
}

#[test]
fn damaged_pages_are_left_out_and_listed_where_that_is_asked_for() {
    let (disk, first) = with_run(5 << 20);
    let (_, wanted) = twin(&disk);
    let run_len = (5_usize << 20) + 32;
    let run_pages = run_len.div_ceil(PAGE_SIZE) as u32;
    let leaf = wanted.iter().rfind(|(_, bytes)| bytes[16] == 1).map(|(page, _)| *page);
    let leaf = leaf.expect("a leaf");
    let data = format!("{DIR}/data");
    let offset = |page: u32| u64::from(page) * PAGE_SIZE as u64;
    disk.flip_bit(data.as_ref(), (offset(first) + (5 << 20) - 3) * 8);
    disk.flip_bit(data.as_ref(), (offset(leaf) + 100) * 8);
    let db = options(&disk).open(DIR).expect("it opens");
    let (copy, pages) = copy_all(&db, &CopyOptions::new().skip_damage(true));
    let mut expected = wanted;
    expected.retain(|page, _| *page != leaf && !(first..first + run_pages).contains(page));
    assert_eq!(difference(&pages, &Pages::new(), &(copy.lsn().0, expected)), None);
    let told = |item: &FoundDamage| {
        let name = item.tree_name.clone().map(|name| name.escape_ascii().to_string());
        (item.page.map_or(0, |page| page.0), item.len, name)
    };
    let mut damage: Vec<_> = copy.damage().iter().map(told).collect();
    damage.sort_unstable();
    let mut items = vec![
        (first, u64::from(run_pages) * 4096, Some("large".to_owned())),
        (leaf, 4096, Some("t".to_owned())),
    ];
    items.sort_unstable();
    assert_eq!((damage, copy.damage_count()), (items, 2));
}

#[test]
fn what_the_disk_does_not_read_is_an_error_or_damage_of_those_pages() {
    let (disk, _) = with_run(20_000);
    let db = options(&disk).open(DIR).expect("it opens");
    let mut copy = db.copy_pages(&CopyOptions::new()).expect("a copy begins");
    disk.fail(Fault::nth(1).of(Call::Read).on("data").forever());
    let error = finish(&mut copy, &mut Pages::new()).expect_err("nothing can be read");
    assert!(matches!(error, Error::Io { action: "read", .. }), "{error}");
    disk.heal();
    let mut copy = db.copy_pages(&CopyOptions::new().skip_damage(true)).expect("a copy begins");
    disk.fail(Fault::nth(1).of(Call::Read).on("data").forever());
    let mut pages = Pages::new();
    finish(&mut copy, &mut pages).expect("it goes on");
    disk.heal();
    let listed: u64 = copy.damage().iter().map(|item| item.len / 4096).sum();
    assert_eq!((pages.len(), listed), (0, copy.used_pages()));
    assert!(copy.damage()[0].what.contains("cannot be read"), "{:?}", copy.damage());
}

/// Increments on the same base: known from the map, after closing in order, and after a kill.
#[test]
fn increments_by_map_by_scan_and_after_reopening_are_equal() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    fill(&db, 300, 1);
    let (full, under) = copy_all(&db, &CopyOptions::new());
    let base = full.as_base();
    drop(full);
    let unknown = CopyOptions::new().base(Base { lsn: Lsn(5), chain: 0, ..base });
    let believed = db.copy_pages(&unknown.clone().unproved_base(true));
    assert!(!believed.expect("nobody knows LSN 5 any more").is_from_map());
    let error = db.copy_pages(&unknown).expect_err("nobody has said that it is ours");
    assert!(matches!(error, Error::Base { lsn: Lsn(5), .. }), "{error}");
    let change = |db: &Database, byte: u8| {
        let ops: Vec<Op> = vec![
            insert("t", "0007", &[byte; 3000]),
            insert("u", "large", &[byte; 20_000]),
            remove("t", &format!("01{byte:02}")),
        ];
        write(db, &ops).expect("a commit");
    };
    change(&db, 11);
    let check = |db: &Database, disk: &SimDisk, is_from_map: bool| {
        let twin = twin(disk);
        let (copy, pages) = copy_all(db, &CopyOptions::new().base(base).unproved_base(true));
        assert_eq!(copy.is_from_map(), is_from_map);
        assert_eq!(difference(&pages, &under, &twin), None);
        if is_from_map {
            assert!(copy.used_pages() < 60, "{} pages were looked at", copy.used_pages());
        } else {
            assert_eq!(copy.used_pages(), twin.1.len() as u64);
        }
        pages
    };
    check(&db, &disk, true);
    db.close().expect("it closes");
    let without_map = disk.settled(3);
    without_map.flip_bit(format!("{DIR}/changed").as_ref(), 100);
    let db = options(&without_map).open(DIR).expect("it opens");
    let by_scan = check(&db, &without_map, false);
    let db = options(&disk).open(DIR).expect("it opens");
    assert_eq!(check(&db, &disk, true), by_scan);
    change(&db, 12);
    check(&db, &disk, true);
    // Nothing was checkpointed since: what is replayed is marked again.
    let killed = disk.restart();
    drop(db);
    let db = options(&killed).open(DIR).expect("it opens");
    check(&db, &killed, true);
    change(&db, 13);
    db.checkpoint().expect("a checkpoint");
    let killed = killed.restart();
    drop(db);
    let db = options(&killed).open(DIR).expect("it opens");
    check(&db, &killed, false);
    // That began a generation, but none that goes back to the base.
    check(&db, &killed, false);
    let (again, _) = copy_all(&db, &CopyOptions::new());
    let later = db.copy_pages(&CopyOptions::new().base(again.as_base())).expect("a copy");
    assert!(later.is_from_map() && later.used_pages() == 0, "nothing has changed");
}

#[test]
fn a_damaged_or_foreign_map_of_changed_pages_is_ignored() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    fill(&db, 50, 1);
    let (full, under) = copy_all(&db, &CopyOptions::new());
    let base = full.as_base();
    drop(full);
    write(&db, &[insert("t", "0007", b"changed")]).expect("a commit");
    db.close().expect("it closes");
    let path = format!("{DIR}/changed");
    let len = disk.file_bytes(path.as_ref()).expect("the map was saved").len() as u64;
    for bit in [0, 100, 8 * 45, len * 8 - 1] {
        let image = disk.settled(3);
        image.flip_bit(path.as_ref(), bit);
        let db = options(&image).open(DIR).expect("it opens");
        let twin = twin(&image);
        let (copy, pages) = copy_all(&db, &CopyOptions::new().base(base).unproved_base(true));
        assert!(!copy.is_from_map(), "bit {bit}");
        assert_eq!(difference(&pages, &under, &twin), None);
        assert!(pages.len() < 10, "{} pages", pages.len());
    }
}

#[test]
fn a_base_that_is_no_earlier_state_of_the_database_is_refused() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    fill(&db, 5, 1);
    let good = db.copy_pages(&CopyOptions::new()).expect("a copy").as_base();
    fill(&db, 5, 2);
    let refused = |base: Base, words: &str| {
        let error = db.copy_pages(&CopyOptions::new().base(base)).expect_err(words);
        assert!(matches!(error, Error::Base { .. }), "{error}");
        assert_says(&error, &[words, "take a full copy"]);
    };
    let lineage = good.lineage;
    let stranger = Lineage { database_id: DatabaseId([7; 16]), ..lineage };
    refused(Base { lineage: stranger, ..good }, "another database");
    let epoch = Lineage { epoch: 1, forked_at: good.lsn, ..lineage };
    refused(Base { lineage: epoch, ..good }, "another epoch");
    refused(Base { lsn: Lsn(good.lsn.0 + 6), ..good }, "above the newest commit");
    refused(Base { chain: good.chain ^ 1, ..good }, "another record");
    // Its generation is not there, but the journal is.
    let lsn = Lsn(good.lsn.0 + 2);
    refused(Base { lsn, ..good }, "another record");
    let disk = disk.restart();
    drop(db);
    let db = options(&disk).open(DIR).expect("it opens");
    let error = db.copy_pages(&CopyOptions::new().base(Base { lsn, ..good }));
    assert_says(&error.expect_err("the journal knows"), &["another record"]);
    assert_eq!(db.stats().readers, 0);
    assert!(db.copy_pages(&CopyOptions::new().base(good)).is_ok());
}

#[test]
fn a_database_that_is_closed_beside_a_copy_leaves_it_whole() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    fill(&db, 100, 1);
    write(&db, &[insert("u", "large", &[9; 500_000])]).expect("a commit");
    let twin = twin(&disk);
    let mut copy = db.copy_pages(&CopyOptions::new()).expect("a copy begins");
    write(&db, &[remove("u", "large")]).expect("a commit");
    fill(&db, 100, 2);
    db.close().expect("it closes");
    let error = options(&disk).open(DIR).expect_err("the copy is there still");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let mut pages = Pages::new();
    finish(&mut copy, &mut pages).expect("a whole copy");
    assert_eq!(difference(&pages, &Pages::new(), &twin), None);
    drop(copy);
    options(&disk).open(DIR).expect("it opens");
}

#[test]
fn more_copies_than_the_bound_are_refused_and_one_that_ends_makes_room() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    let begin = || db.copy_pages(&CopyOptions::new());
    let mut copies: Vec<PageCopy> = (0..16).map(|_| begin().expect("a copy")).collect();
    assert_says(&begin().expect_err("16 are the bound"), &["COPIES_MAX", "16"]);
    copies.pop();
    begin().expect("there is room again");
}

/// A script with a full copy, which stands still for a while, and an increment on it.
fn script(disk: &SimDisk) -> treepie::Result<Vec<(u64, Pages)>> {
    let db = options(disk).open(DIR)?;
    let fill = |byte: u8| {
        (0..25).try_for_each(|index| {
            let (key, value) = (format!("{index:04}"), vec![byte; 3000]);
            write(&db, &[insert("t", &key, &value)]).map(drop)
        })
    };
    fill(1)?;
    write(&db, &[insert("u", "large", &[9; 30_000])])?;
    let mut full = db.copy_pages(&CopyOptions::new())?;
    let (mut pages, mut changed) = (Pages::new(), Pages::new());
    advance(&mut full, &mut pages, PAGE_SIZE)?;
    fill(2)?;
    db.checkpoint()?;
    finish(&mut full, &mut pages)?;
    let mut increment = db.copy_pages(&CopyOptions::new().base(full.as_base()))?;
    fill(3)?;
    write(&db, &[remove("u", "large")])?;
    db.close()?;
    finish(&mut increment, &mut changed)?;
    Ok(vec![(full.lsn().0, pages), (increment.lsn().0, changed)])
}

#[test]
fn each_failing_call_beside_copies_is_an_error_or_leaves_them_whole() {
    let disk = SimDisk::new(1);
    let before = disk.calls();
    let wanted = script(&disk).expect("nothing fails");
    let calls = disk.calls() - before;
    assert!(wanted[1].1.len() > 10 && calls > 200, "{calls} calls");
    let ks: Vec<u64> = (1..=calls).collect();
    let went_on = for_seeds(&ks, |k| {
        let disk = SimDisk::new(1);
        disk.fail(Fault::nth(k).error(FaultError::EIO));
        match script(&disk) {
            Ok(copies) => {
                assert!(copies == wanted, "call {k} fails, and a copy is another one");
                true
            }
            Err(Error::Io { .. } | Error::OutcomeUnknown { .. } | Error::Poisoned { .. }) => false,
            Err(Error::Locked { .. }) => panic!("call {k}: nobody else has it"),
            Err(other) => panic!("call {k}: {other}"),
        }
    });
    let went_on = went_on.iter().filter(|went_on| **went_on).count();
    tally::note(4, "failing calls, copies", &format!("all {calls} calls, {went_on} harmless"));
}

#[test]
fn increments_after_a_power_cut_at_any_moment_have_all_that_changed() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    fill(&db, 60, 1);
    let (full, under) = copy_all(&db, &CopyOptions::new());
    let base = full.as_base();
    drop(full);
    let begin = disk.log().len();
    let mut first = Some(db);
    for round in 0..3 {
        let db = first.take();
        let db = db.unwrap_or_else(|| options(&disk).open(DIR).expect("it opens"));
        for index in 0..6 {
            let key = format!("{:04}", round * 9 + index);
            write(&db, &[insert("t", &key, &[round as u8; 2000])]).expect("a commit");
            if index == 2 {
                db.checkpoint().expect("a checkpoint");
            }
        }
        copy_all(&db, &CopyOptions::new().base(base).unproved_base(true));
        db.close().expect("it closes");
    }
    let log = disk.log();
    let cuts: Vec<u64> = (begin..=log.len()).map(|cut| cut as u64).collect();
    let by_map = for_seeds(&cuts, |cut| {
        let image = log.image(cut as usize, cut);
        let db = options(&image).open(DIR).expect("it opens after the cut");
        let twin = twin(&image);
        let (copy, pages) = copy_all(&db, &CopyOptions::new().base(base).unproved_base(true));
        if let Some(what) = difference(&pages, &under, &twin) {
            panic!("cut at {cut}: {what}, from the map: {}", copy.is_from_map());
        }
        copy.is_from_map()
    });
    let (all, by_map) = (by_map.len(), by_map.iter().filter(|by_map| **by_map).count());
    assert!(by_map > 10 && by_map < all, "{by_map} of {all} by the map");
    let counts = format!("{all} cuts, increments by map {by_map}, by scan {}", all - by_map);
    tally::note(1, "power cuts, increments", &counts);
}

/// What a file is read for while it is written over is an error of the copy alone.
#[test]
fn old_bytes_that_cannot_be_read_end_the_copy_and_not_the_checkpoint() {
    let disk = SimDisk::new(1);
    let db = options(&disk).open(DIR).expect("it opens");
    fill(&db, 50, 1);
    let mut copy = db.copy_pages(&CopyOptions::new()).expect("a copy begins");
    fill(&db, 50, 2);
    disk.fail(Fault::nth(1).of(Call::Read).on("data").forever());
    db.checkpoint().expect("a checkpoint");
    disk.heal();
    let error = copy.next(&mut Vec::new(), 1 << 20).expect_err("it has ended");
    assert!(matches!(error, Error::Io { action: "read", .. }), "{error}");
    assert_eq!(db.stats().poisoned_by, None);
}

#[test]
fn copies_may_go_to_other_threads() {
    fn is_send<T: Send + Sync>() {}
    is_send::<PageCopy>();
}

/// `cargo test -p treepie --test engine rates_of_copies -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, not a test"]
fn rates_of_copies() {
    let (_dir, db) = open_new(&treepie::Options::new().create(true));
    for batch in 0..100_u64 {
        let written = db.write(|tx| {
            let mut tree = tx.tree("t")?;
            (0..20_000_u64).try_for_each(|index| {
                let key = (batch * 20_000 + index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                tree.insert(key.to_be_bytes(), [index as u8; 150]).map(drop)
            })
        });
        written.expect("a commit");
    }
    for len_max in [1 << 20, 1 << 16] {
        let begin = std::time::Instant::now();
        let mut copy = db.copy_pages(&CopyOptions::new()).expect("a copy begins");
        let begun = begin.elapsed();
        let (mut bytes, mut len, mut calls) = (Vec::new(), 0, 0);
        let begin = std::time::Instant::now();
        while copy.next(&mut bytes, len_max).expect("pages").is_some() {
            len += bytes.len();
            calls += 1;
            bytes.clear();
        }
        let rate = len as f64 / 1e6 / begin.elapsed().as_secs_f64();
        println!("{} MB in {calls} pieces: {rate:.0} MB/s, began in {begun:?}", len >> 20);
    }
}

#[test]
fn copies_on_a_real_disk_beside_threads_are_whole() {
    let (_dir, db) = open_new(&file_options().checkpoint_distance(256 << 10));
    fill(&db, 100, 1);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..10 {
                fill(&db, 100, round);
            }
        });
        let mut copies = 0;
        while !writer.is_finished() || copies < 3 {
            let mut copy = db.copy_pages(&CopyOptions::new()).expect("a copy begins");
            let mut pages = Pages::new();
            while advance(&mut copy, &mut pages, PAGE_SIZE).expect("a page") {
                std::thread::yield_now();
            }
            assert_eq!(pages.len() as u64, copy.used_pages());
            assert!(pages.values().all(|bytes| number(bytes, 8) <= copy.lsn().0));
            copies += 1;
        }
    });
    assert!(db.check().expect("a check").is_clean());
}
