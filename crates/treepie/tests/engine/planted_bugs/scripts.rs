//! Checks of one situation each: short scripts.

use std::{path::PathBuf, sync::Arc};

use treepie::{Compression, Database, Durability, Error, Options, ids::Lsn};
use treepie_testkit::{Call, Fault, SimDisk, model::Model, workload::Op};

use crate::{
    harness::{self, DIR, insert, new_model, options, verify},
    planted_bugs::checks::difference_or_damage,
};

/// Images of one cut.
const DRAWS: u64 = 40;
const BLOCK: u64 = 4096;

fn small(disk: &SimDisk) -> Options {
    options(disk).compression(Compression::Off).checkpoint_on_close(false)
}

fn text(error: Error) -> String {
    error.to_string()
}

fn row(number: u8) -> [Op; 1] {
    [insert("t", &format!("row {number}"), &[number; 900])]
}

fn commit(db: &Database, model: &mut Model, ops: &[Op]) -> Result<(), String> {
    model.commit(harness::write(db, ops).map_err(text)?, ops);
    Ok(())
}

/// Cuts the power behind everything that was done; what is left is at `floor` or above.
fn cut_at_the_end(disk: &SimDisk, model: &Model, floor: u64) -> Result<(), String> {
    let log = disk.log();
    for draw in 0..DRAWS {
        // What a failed sync wrote after all is drawn anew, too.
        let mut player = log.player(draw);
        player.advance_to(log.len());
        let db = small(&player.image(draw)).open(DIR).map_err(text)?;
        let lsn = verify(&db, model)?;
        if lsn < floor {
            return Err(format!("image seed {draw}: LSN {floor} was promised, {lsn} is there"));
        }
    }
    Ok(())
}

/// Commits that returned are there after a cut.
pub fn cut_after_commits() -> Result<(), String> {
    let disk = SimDisk::new(1);
    let db = small(&disk).open(DIR).map_err(text)?;
    let mut model = new_model();
    for number in 1..9 {
        commit(&db, &mut model, &row(number))?;
    }
    cut_at_the_end(&disk, &model, model.lsn())
}

/// A record that was written, and not synced, when its process was killed; once it was shown after
/// opening, it stays.
pub fn cut_after_a_kill() -> Result<(), String> {
    let disk = SimDisk::new(1);
    let db = small(&disk).open(DIR).map_err(text)?;
    let mut model = new_model();
    commit(&db, &mut model, &row(1))?;
    let receipt = db.write_as(Durability::Buffered, |tx| harness::apply(tx, &row(2)));
    model.commit(receipt.map_err(text)?.lsn.0, &row(2));
    let restarted = disk.restart();
    drop(db);
    let db = small(&restarted).open(DIR).map_err(text)?;
    let shown = verify(&db, &model)?;
    cut_at_the_end(&restarted, &model, shown)
}

/// The same of a record whose sync failed: the kernel shows what it may never write.
pub fn cut_after_a_failed_sync() -> Result<(), String> {
    for seed in 1..20 {
        let disk = SimDisk::new(seed);
        let db = small(&disk).open(DIR).map_err(text)?;
        let mut model = new_model();
        commit(&db, &mut model, &row(1))?;
        disk.fail(Fault::nth(1).of(Call::SyncData).on(".seg"));
        if harness::write(&db, &row(2)).is_ok() {
            return Err("a failed sync is not reported".to_owned());
        }
        model.commit(model.lsn() + 1, &row(2));
        let restarted = disk.restart();
        drop(db);
        let db = small(&restarted).open(DIR).map_err(text)?;
        let shown = verify(&db, &model)?;
        cut_at_the_end(&restarted, &model, shown)?;
    }
    Ok(())
}

/// A sync of the journal fails once: what is acknowledged all the same must be there after a cut.
pub fn failing_sync() -> Result<(), String> {
    for seed in 1..20 {
        let disk = SimDisk::new(seed);
        let db = small(&disk).open(DIR).map_err(text)?;
        let mut model = new_model();
        commit(&db, &mut model, &row(1))?;
        disk.fail(Fault::nth(1).of(Call::SyncData).on(".seg"));
        let acknowledged = match harness::write(&db, &row(2)) {
            Ok(lsn) => lsn,
            Err(_) => model.lsn(),
        };
        model.commit(model.lsn() + 1, &row(2));
        drop(db);
        cut_at_the_end(&disk, &model, acknowledged)?;
    }
    Ok(())
}

/// A write of the journal fails once: no later one may be acknowledged.
pub fn failing_write() -> Result<(), String> {
    let disk = SimDisk::new(1);
    let db = small(&disk).open(DIR).map_err(text)?;
    let mut model = new_model();
    commit(&db, &mut model, &row(1))?;
    disk.fail(Fault::nth(1).of(Call::Write).on(".seg"));
    match harness::write(&db, &row(2)) {
        Err(Error::OutcomeUnknown { .. }) => {}
        other => return Err(format!("a failed write gave {other:?}")),
    }
    match harness::write(&db, &row(3)) {
        Err(Error::Poisoned { .. }) => Ok(()),
        other => Err(format!("a write behind a failed one gave {other:?}")),
    }
}

/// A database at rest, of which two histories begin, and the model so far.
fn at_rest() -> Result<(SimDisk, Model), String> {
    let disk = SimDisk::new(1);
    let db = small(&disk).open(DIR).map_err(text)?;
    let mut model = new_model();
    commit(&db, &mut model, &row(1))?;
    let trees = ["first", "second"].map(|tree| insert(tree, "key", &[0; 900]));
    commit(&db, &mut model, &trees)?;
    db.close().map_err(text)?;
    Ok((disk.settled(2), model))
}

/// Where the records above `lsn` lie: file, first byte, length.
fn records(db: &Database, lsn: u64) -> Result<Vec<(PathBuf, u64, u64)>, String> {
    let records = db.journal_records(Lsn(lsn)).map_err(text)?;
    records.map(|r| r.map(|r| (r.file, r.offset, r.stored_len)).map_err(text)).collect()
}

/// In one life of a segment three records were written, in the next one the first of them again; the
/// old bytes are behind it.
pub fn journal_of_an_earlier_life() -> Result<(), String> {
    let (rest, mut model) = at_rest()?;
    let (earlier, later) = (rest.settled(3), rest.settled(4));
    let db = small(&earlier).open(DIR).map_err(text)?;
    for number in 2..5 {
        harness::write(&db, &row(number)).map_err(text)?;
    }
    drop(db);
    let db = small(&later).open(DIR).map_err(text)?;
    commit(&db, &mut model, &row(2))?;
    let (path, offset, len) =
        records(&db, model.lsn() - 1)?.pop().ok_or("the record is not in the journal")?;
    drop(db);
    let end = usize::try_from((offset + len).next_multiple_of(BLOCK)).expect("a short file");
    let later = later.settled(5);
    let stale = earlier.file_bytes(&path).ok_or("the segment is of that name in both lives")?;
    let mut bytes = later.file_bytes(&path).ok_or("the segment is there")?;
    bytes.truncate(end);
    bytes.extend_from_slice(&stale[end..]);
    later.rot(&path, &bytes);
    let db = small(&later).open(DIR).map_err(text)?;
    difference_or_damage(&db, model.lsn(), model.newest())
}

/// Of two histories that part, one gets a segment of the other.
pub fn journal_of_another_history() -> Result<(), String> {
    let (rest, _) = at_rest()?;
    let mut newest = None;
    let mut disks = Vec::new();
    for number in [2, 3] {
        let disk = rest.settled(u64::from(number));
        // Each opening begins a new segment.
        for tree in ["first", "second"] {
            let ops = [insert(tree, "key", &[number; 900])];
            let db = small(&disk).open(DIR).map_err(text)?;
            let lsn = harness::write(&db, &ops).map_err(text)?;
            newest = records(&db, lsn - 1)?.pop();
            db.close().map_err(text)?;
        }
        disks.push(disk.settled(9));
    }
    let (path, ..) = newest.ok_or("the record is not in the journal")?;
    let bytes = disks[1].file_bytes(&path).ok_or("the segment is of that name in both")?;
    disks[0].rot(&path, &bytes);
    match small(&disks[0]).open(DIR) {
        Err(Error::Corrupt { .. }) => Ok(()),
        other => Err(format!("with a segment of another history: {other:?}")),
    }
}

/// What a snapshot has given stays as it is, wherever its page has gone meanwhile.
pub fn slices_beside_a_checkpoint() -> Result<(), String> {
    let disk = SimDisk::new(1);
    let db = small(&disk).open(DIR).map_err(text)?;
    harness::write(&db, &row(1)).map_err(text)?;
    let snapshot = db.read().map_err(text)?;
    let tree = snapshot.tree("t").map_err(text)?;
    let value = tree.get("row 1").map_err(text)?.ok_or("the row is there")?;
    db.checkpoint().map_err(text)?;
    for number in 2..60 {
        harness::write(&db, &row(number)).map_err(text)?;
    }
    if *value == [1; 900] { Ok(()) } else { Err("a value changed under its reader".to_owned()) }
}

/// Bits are flipped in the journal and in a run in the data file: everything is as it was, or there
/// is an error.
pub fn flipped_bits() -> Result<(), String> {
    // All records in one segment: nothing but their frames vouches for them.
    let small = |disk: &SimDisk| small(disk).journal_segment_size(64 << 10);
    let disk = SimDisk::new(1);
    let db = small(&disk).checkpoint_on_close(true).open(DIR).map_err(text)?;
    let mut model = new_model();
    commit(&db, &mut model, &[insert("large", "photo", &[0xa5; 14_000])])?;
    db.close().map_err(text)?;
    let db = small(&disk).open(DIR).map_err(text)?;
    for number in 1..7 {
        commit(&db, &mut model, &row(number))?;
    }
    let mut places: Vec<(PathBuf, u64)> = Vec::new();
    let records = records(&db, 2)?;
    // Nothing vouches for the last one.
    for (path, offset, len) in &records[..records.len() - 1] {
        places.extend((0..8).map(|part| (path.clone(), offset + len * part / 8)));
    }
    drop(db);
    let rest = disk.settled(2);
    let data = PathBuf::from(DIR).join("data");
    let bytes = rest.file_bytes(&data).ok_or("there is a data file")?;
    let of_the_value = (0..bytes.len()).filter(|at| bytes[*at] == 0xa5).step_by(500);
    places.extend(of_the_value.map(|at| (data.clone(), at as u64)));
    assert!(places.len() > 60, "{} places", places.len());
    for (path, byte) in places {
        let disk = rest.settled(3);
        disk.flip_bit(&path, byte * 8);
        let what = |what| format!("byte {byte} of {}: {what}", path.display());
        let opened = small(&disk).disk(Arc::new(disk.clone())).open(DIR);
        let Ok(db) = opened else { continue };
        difference_or_damage(&db, model.lsn(), model.newest()).map_err(what)?;
    }
    Ok(())
}
