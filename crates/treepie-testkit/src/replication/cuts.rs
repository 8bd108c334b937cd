//! The power is cut at every operation of a follower's disk: whatever is left, it comes back with what it
//! had promised, and catches up to the same pages.

use std::collections::BTreeMap;

use treepie::{
    Error,
    ids::{Lsn, Term},
    replication::SharedRecord,
};

use super::site::{DIR, Site, fingerprint, options};
use crate::{Rng, SimDisk, mix};

/// Records of one run.
const RECORDS: u32 = 60;

/// Cuts the power at every operation of a run; returns how many images came back.
///
/// # Errors
/// What was broken, with the number of the operation.
pub fn run(seed: u64) -> Result<u64, String> {
    let text = |error: Error| error.to_string();
    let mut rng = Rng::new(mix(seed, 0xc7));
    let origin = SimDisk::new(seed);
    options(&origin).open(DIR).and_then(treepie::Database::close).map_err(text)?;
    let leader = Site::new(origin.settled(mix(seed, 1))).map_err(text)?;
    let disk = origin.settled(mix(seed, 2));
    let site = Site::new(disk.clone()).map_err(text)?;
    let first = site.door().state().last;
    let mut records = vec![leader.lead(Term(2)).map_err(text)?];
    let mut prints = BTreeMap::from([(first, fingerprint(site.db()).map_err(text)?)]);
    for number in 0..RECORDS {
        let len = rng.index(2_000);
        let put = move |tx: &mut treepie::WriteTxn<'_>| {
            tx.tree("t")?.insert((number % 20).to_be_bytes(), vec![number as u8; len])
        };
        drop(leader.db().submit(put).map_err(text)?);
        records.extend(leader.take_sealed());
    }
    leader.receive(&records[1..]).map_err(text)?;
    for record in &records {
        leader.door().commit(record.lsn()).map_err(text)?;
        prints.insert(record.lsn(), fingerprint(leader.db()).map_err(text)?);
    }
    follow(&site, &disk, &records, &mut rng).map_err(text)?;
    let log = disk.log();
    let mut player = log.player(seed);
    let mut images = 0;
    while player.advance() {
        let Some(promised) = player.acknowledged() else { continue };
        let position = player.position();
        let image = player.image(mix(seed, position as u64));
        come_back(image, Lsn(promised), &records, &prints)
            .map_err(|what| format!("cut at operation {position}: {what}"))?;
        images += 1;
    }
    Ok(images)
}

/// The follower's life; what it has synced is marked as promised.
fn follow(
    site: &Site,
    disk: &SimDisk,
    records: &[SharedRecord],
    rng: &mut Rng,
) -> treepie::Result<()> {
    let mut rest = records;
    while !rest.is_empty() {
        let (group, after) = rest.split_at(rest.len().min(1 + rng.index(4)));
        site.door().append(None, group)?;
        rest = after;
        if rng.chance(2, 3) {
            disk.mark(site.door().sync()?.0);
        }
        let state = site.door().state();
        let committed = state.committed.0 + rng.below(state.last.0 - state.committed.0 + 1);
        site.door().commit(Lsn(committed))?;
        if rng.chance(1, 8) {
            site.db().checkpoint()?;
        }
    }
    disk.mark(site.door().sync()?.0);
    Ok(())
}

fn come_back(
    image: SimDisk,
    promised: Lsn,
    records: &[SharedRecord],
    prints: &BTreeMap<Lsn, (Lsn, u64)>,
) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    let site = Site::new(image).map_err(text)?;
    let state = site.door().state();
    if state.last < promised || state.committed > state.last {
        return Err(format!("{promised} was promised, and there is {state:?}"));
    }
    let found = fingerprint(site.db()).map_err(text)?;
    if prints.get(&state.committed) != Some(&found) {
        return Err(format!("the pages differ at LSN {}", state.committed));
    }
    let missing = records.iter().filter(|record| record.lsn() > state.last).cloned();
    site.receive(&missing.collect::<Vec<_>>()).map_err(text)?;
    let last = records.last().map_or(state.last, SharedRecord::lsn);
    site.door().commit(last).map_err(text)?;
    let found = fingerprint(site.db()).map_err(text)?;
    if prints.get(&last) != Some(&found) {
        return Err("the pages differ when it has caught up".to_owned());
    }
    let report = site.db().check().map_err(text)?;
    if report.is_clean() { Ok(()) } else { Err(format!("{:?}", report.problems)) }
}
