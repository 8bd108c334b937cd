//! A full disk can be emptied through the database: what only removes commits where everything else is
//! refused, for at least the length of the journal's reserve; where the checkpoint needs no new blocks,
//! to the last entry, and then everything goes on.

use treepie::{Database, Error, Options};
use treepie_testkit::{
    Rng, SimDisk, mix,
    model::Model,
    tally::{note, thousands},
};

use crate::harness::{self, DIR, for_seeds, insert, new_model, remove, seeds, verify};

const BLOCK: u64 = 4096;
/// Bytes of a segment, and so of the reserve.
const SEGMENT: u64 = 32 << 10;
const ENOSPC: i32 = 28;
/// Images of what a power cut leaves while the disk is full.
const CUTS: usize = 3;

/// With a checkpoint every few segments, or, for odd seeds, none: then it needs a longer data file
/// when the disk is full, and cannot free any journal.
fn options(seed: u64, disk: &SimDisk) -> Options {
    let distance = if seed.is_multiple_of(2) { 3 * SEGMENT } else { 4 << 20 };
    harness::options(disk).journal_segment_size(SEGMENT).checkpoint_distance(distance)
}

fn key(number: u64) -> String {
    format!("{:03}/{number}", mix(number, 5) % 1000)
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Disks that were full while the reserve was there.
    full: u64,
    /// Of these, how many were emptied to the last entry.
    emptied: u64,
    removals: u64,
    images: u64,
}

/// A database on a full disk.
struct Full {
    seed: u64,
    disk: SimDisk,
    db: Database,
    model: Model,
    /// Entries.
    count: u64,
}

impl Full {
    /// Fills a disk of so many bytes. Nothing if it has no room for a database.
    fn fill(seed: u64, capacity: u64) -> Result<Option<Full>, String> {
        let disk = SimDisk::new(seed);
        disk.set_capacity(Some(capacity));
        let db = match options(seed, &disk).open(DIR) {
            Ok(db) => db,
            Err(error) => return expect_full(&error).map(|()| None),
        };
        let mut full = Full { seed, disk, db, model: new_model(), count: 0 };
        full.disk.mark(1);
        loop {
            match full.insert() {
                Ok(()) => full.count += 1,
                Err(error) => {
                    expect_full(&error)?;
                    return Ok(Some(full));
                }
            }
            if full.count > 10_000 {
                return Err("the disk is never full".to_owned());
            }
        }
    }

    fn insert(&mut self) -> Result<(), Error> {
        let mut rng = Rng::new(mix(self.seed, self.count));
        let len = *rng.pick(&[20, 200, 900]);
        self.commit(&[insert("rows", &key(self.count), &rng.bytes(len))])
    }

    fn commit(&mut self, ops: &[treepie_testkit::workload::Op]) -> Result<(), Error> {
        let lsn = harness::write(&self.db, ops)?;
        self.model.commit(lsn, ops);
        self.disk.mark(lsn);
        Ok(())
    }

    /// Removes entry by entry, the newest first or the oldest; returns how many, and how many blocks
    /// of journal that took.
    fn empty(&mut self) -> Result<(u64, u64), String> {
        let mut blocks = 0;
        for done in 0..self.count {
            let number = if self.seed % 4 < 2 { done } else { self.count - 1 - done };
            let before = self.db.stats().record_bytes;
            match self.commit(&[remove("rows", &key(number))]) {
                Ok(()) => blocks += (self.db.stats().record_bytes - before + 32).div_ceil(BLOCK),
                Err(error) => {
                    expect_full(&error)?;
                    return Ok((done, blocks));
                }
            }
        }
        Ok((self.count, blocks))
    }

    /// Whether an insertion finds room by now, after as many refusals as it takes to ask.
    fn goes_on(&mut self) -> Result<bool, String> {
        for _ in 0..3 {
            match self.commit(&[insert("rows", "again", b"there is room")]) {
                Ok(()) => return Ok(true),
                Err(error) => expect_full(&error)?,
            }
        }
        Ok(false)
    }
}

/// The error is that of the disk, and nothing is in doubt.
fn expect_full(error: &Error) -> Result<(), String> {
    match error {
        Error::Io { source, .. } if source.raw_os_error() == Some(ENOSPC) => Ok(()),
        error => Err(format!("a full disk gave {error:?}")),
    }
}

/// Fills a disk of so many bytes, empties it, and cuts the power meanwhile.
pub fn empty_a_full_disk(seed: u64, capacity: u64) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let Some(mut full) = Full::fill(seed, capacity)? else { return Ok(counts) };
    let report = full.db.report().map_err(|error| format!("no report: {error}"))?;
    let reserve = report.journal.reserve_len;
    let full_at = full.disk.log().len();
    let (removed, blocks) = full.empty()?;
    if full.db.stats().poisoned_by.is_some() {
        return Err("poisoned".to_owned());
    }
    verify(&full.db, &full.model)?;
    counts.removals = removed;
    if reserve == SEGMENT && full.count > 0 {
        counts.full = 1;
        let is_emptied = removed == full.count;
        // The one that was refused may have been of some blocks; the header has one.
        if !is_emptied && blocks + 4 < reserve / BLOCK {
            let (count, len) = (full.count, reserve / BLOCK);
            return Err(format!("{removed} of {count} removals, {blocks} of {len} blocks"));
        }
        counts.emptied = u64::from(is_emptied);
        if is_emptied && full.db.checkpoint().is_ok() && !full.goes_on()? {
            return Err("an empty database refuses an insertion".to_owned());
        }
        verify(&full.db, &full.model)?;
    }
    counts.images = cut(&full, full_at)?;
    Ok(counts)
}

/// Cuts the power somewhere since the disk was full.
fn cut(full: &Full, full_at: usize) -> Result<u64, String> {
    let log = full.disk.log();
    let mut rng = Rng::new(mix(full.seed, 77));
    let mut cuts: Vec<usize> = (0..CUTS).map(|_| rng.range(full_at..log.len() + 1)).collect();
    cuts.sort_unstable();
    let mut player = log.player(full.seed);
    for cut in cuts {
        player.advance_to(cut);
        let floor = player.acknowledged().unwrap_or(0);
        let image = player.image(rng.next_u64());
        let told = |what: String| format!("cut {cut} of {}: {what}", log.len());
        let db = options(full.seed, &image).checkpoint_on_close(false).open(DIR);
        let db = db.map_err(|error| told(error.to_string()))?;
        let lsn = verify(&db, &full.model).map_err(told)?;
        if lsn < floor {
            return Err(told(format!("LSN {floor} was acknowledged, {lsn} is there")));
        }
    }
    Ok(CUTS as u64)
}

/// Sizes of disks, in steps of a few blocks.
fn sizes() -> impl Iterator<Item = u64> {
    (100 << 10..800 << 10).step_by(7 * 4096)
}

/// All sizes with one seed; the reserve must have been there on some.
pub fn empty_full_disks(seed: u64) -> Result<Counts, String> {
    let mut sum = Counts::default();
    for capacity in sizes() {
        let counts = empty_a_full_disk(seed, capacity)
            .map_err(|what| format!("seed {seed}, {capacity} bytes of disk: {what}"))?;
        sum.full += counts.full;
        sum.emptied += counts.emptied;
        sum.removals += counts.removals;
        sum.images += counts.images;
    }
    if sum.full == 0 {
        return Err(format!("seed {seed}: no full disk had its reserve"));
    }
    Ok(sum)
}

#[test]
fn removals_commit_on_a_full_disk_until_it_is_empty_or_the_reserve_is_used_up() {
    let seeds = seeds(900, 8);
    let results = for_seeds(&seeds, |seed| {
        empty_full_disks(seed).unwrap_or_else(|what| {
            panic!(
                "{what}\nagain: TREEPIE_SEED={seed} cargo test -p treepie --test engine removals"
            )
        })
    });
    let sum = |count: fn(&Counts) -> u64| results.iter().map(count).sum::<u64>();
    let (full, emptied) = (sum(|counts| counts.full), sum(|counts| counts.emptied));
    let counts = format!(
        "{full} full disks, {emptied} of them emptied, {} removals, {} images",
        thousands(sum(|counts| counts.removals)),
        thousands(sum(|counts| counts.images))
    );
    note(4, "full disk, removals", &counts);
    assert!(seeds.len() == 1 || (emptied > 0 && emptied < full), "{counts}");
}

/// Closures that were merged before the disk was full go apart then.
#[test]
fn submitted_removals_are_committed_among_insertions_that_are_refused() {
    let disk = SimDisk::new(31);
    disk.set_capacity(Some(600 << 10));
    let db = options(1, &disk).background_threads(true).open(DIR).expect("there is room");
    let mut count = 0;
    let row = |number: u64| insert("rows", &key(number), &[7; 900]);
    while let Ok(_lsn) = harness::write(&db, &[row(count)]) {
        count += 1;
    }
    assert!(count > 40, "{count}");
    // The journal is full but for its reserve, and may have to find that out once more.
    let mut removals = Vec::new();
    let mut insertions = Vec::new();
    for number in 0..6 {
        let removed = key(number);
        let removal = db.submit(move |tx| tx.tree("rows")?.remove(removed).map(|_| ()));
        removals.push(removal.expect("it is submitted"));
        let added = key(count + number);
        let insertion = db.submit(move |tx| tx.tree("rows")?.insert(added, [8; 3000]).map(|_| ()));
        insertions.push(insertion.expect("it is submitted"));
    }
    for removal in removals {
        removal.wait().expect("a removal has the reserve");
    }
    let refused = insertions.into_iter().filter_map(|insertion| insertion.wait().err());
    let refused = refused.map(|error| expect_full(&error).expect("the disk is full")).count();
    assert!(refused > 0, "the disk is full");
    assert_eq!(db.stats().poisoned_by, None);
    let snapshot = db.read().expect("reads go on");
    let rows = snapshot.tree("rows").expect("it is there");
    assert_eq!(rows.len(), count - 6 + (6 - refused as u64));
}

/// A database of some rows whose disk is full from then on, behind a checkpoint.
fn rows_on_a_full_disk(disk: &SimDisk, count: u64) -> Database {
    let options = harness::options(disk).journal_segment_size(SEGMENT);
    let db = options.checkpoint_distance(3 * SEGMENT).open(DIR).expect("a new database");
    for number in 0..count {
        harness::write(&db, &[insert("rows", &key(number), &[7; 900])]).expect("there is room");
    }
    db.checkpoint().expect("a checkpoint");
    disk.set_capacity(Some(1));
    db
}

/// Whether one of a few attempts to remove a row commits. The first may be what finds the disk full.
fn can_remove(db: &Database, number: u64) -> bool {
    (0..3).any(|_| match harness::write(db, &[remove("rows", &key(number))]) {
        Ok(_) => true,
        Err(error) => {
            expect_full(&error).expect("the disk is full");
            false
        }
    })
}

#[test]
fn full_disk_can_be_emptied_on_once_who_read_the_journal_is_gone() {
    const ROWS: u64 = 60;
    let disk = SimDisk::new(5);
    let db = rows_on_a_full_disk(&disk, ROWS);
    let reader = db.records(db.durable_lsn()).expect("they are there");
    let removed = (0..ROWS).take_while(|number| can_remove(&db, *number)).count() as u64;
    assert!((5..ROWS).contains(&removed), "{removed} were removed beside a reader of the journal");
    drop(reader);
    for number in removed..ROWS {
        assert!(can_remove(&db, number), "row {number} of {ROWS}");
    }
    assert_eq!(db.read().expect("a snapshot").tree("rows").expect("it is there").len(), 0);
}

#[test]
fn full_disk_can_be_emptied_after_a_power_cut_at_any_moment_of_removals() {
    let disk = SimDisk::new(6);
    let db = harness::options(&disk).journal_segment_size(SEGMENT).open(DIR).expect("it opens");
    let rows: Vec<_> = (0..20).map(|n| insert("rows", &key(n), &[7; 100])).collect();
    harness::write(&db, &rows).expect("there is room");
    db.checkpoint().expect("a checkpoint");
    disk.set_capacity(Some(1));
    let begin = disk.log().len();
    for number in 0..15 {
        // So that a roll finds all records before it in the data file.
        let _maybe_nothing_to_do = db.checkpoint();
        let _maybe_refused = harness::write(&db, &[remove("rows", &key(number))]);
    }
    let log = disk.log();
    let mut player = log.player(6);
    for cut in begin..log.len() {
        player.advance_to(cut);
        let image = player.image(cut as u64);
        image.set_capacity(Some(1));
        let db = harness::options(&image).journal_segment_size(SEGMENT).open(DIR);
        let db = db.unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        assert!(can_remove(&db, 19), "cut {cut}: {:?}", db.report().expect("a report").journal);
    }
}
