//! Promises about sites that come back: from a kill, a power cut, an installation; and about those that do
//! not go on.

use treepie::{CopyOptions, DatabaseState, Error, ids::Term};

use super::{
    site::{DIR, Site, fingerprint, options},
    steps::{Outcome, ensure, led, put, read, replicate, same_pages, text},
};
use crate::{Call, Fault, SimDisk};

pub(super) fn killed_site_comes_back_with_its_log(seed: u64) -> Outcome {
    let mut sites = led(seed, 2)?;
    for key in 0..5 {
        drop(put(sites[0].db(), key, b"committed")?);
    }
    replicate(&sites)?;
    for key in 5..9 {
        drop(put(sites[0].db(), key, b"not yet")?);
    }
    let tail = sites[0].take_sealed();
    sites[1].receive(&tail).map_err(text)?;
    let (before, print) = (sites[1].door().state(), fingerprint(sites[1].db()).map_err(text)?);
    for round in 0..4 {
        match round {
            0 => sites[1].kill().map_err(text)?,
            1 => sites[1].reopen().map_err(text)?,
            _ => sites[1].cut_power(seed + round).map_err(text)?,
        }
        let after = sites[1].door().state();
        ensure((after.last, after.last_chain) == (before.last, before.last_chain), "its log")?;
        ensure(after.hard_state == before.hard_state, "its hard state")?;
        ensure(after.committed <= before.committed, "nothing is final that was not")?;
        sites[1].door().commit(before.committed).map_err(text)?;
        ensure(fingerprint(sites[1].db()).map_err(text)? == print, "its pages")?;
        ensure(read(sites[1].db(), 6)?.is_none(), "its readers do not see the tail")?;
    }
    sites[1].door().commit(before.last).map_err(text)?;
    ensure(read(sites[1].db(), 6)?.is_some(), "the tail can be committed")
}

pub(super) fn leader_that_comes_back_follows(seed: u64) -> Outcome {
    let mut sites = led(seed, 1)?;
    drop(put(sites[0].db(), 1, b"one")?);
    replicate(&sites)?;
    drop(put(sites[0].db(), 2, b"two")?);
    let tail = sites[0].take_sealed();
    sites[0].receive(&tail).map_err(text)?;
    sites[0].cut_power(seed).map_err(text)?;
    let refused = sites[0].db().write(|_| Ok(()));
    ensure(matches!(refused, Err(Error::NotLeader { leader: None })), "it takes no writes")?;
    ensure(read(sites[0].db(), 1)?.is_some(), "readers see what was final")?;
    let record = sites[0].lead(Term(3)).map_err(text)?;
    ensure(record.lsn() == tail[0].lsn().next(), "its new record is behind the tail")?;
    ensure(read(sites[0].db(), 2)?.is_some(), "which is committed with it")?;
    let state = sites[0].door().state();
    let terms = [tail[0].lsn(), record.lsn()].map(|lsn| sites[0].door().term(lsn));
    ensure(terms == [Some(Term(2)), Some(Term(3))], format!("{terms:?}"))?;
    ensure(state.hard_state.term == Term(3), "its hard state is that of the new term")
}

pub(super) fn checkpoints_go_on_with_a_tail_that_is_not_committed(seed: u64) -> Outcome {
    let mut sites = led(seed, 2)?;
    for round in 0..20_u32 {
        for key in 0..10 {
            drop(put(sites[0].db(), round * 10 + key, &[7; 500])?);
        }
        replicate(&sites)?;
        drop(put(sites[0].db(), 9999, &round.to_be_bytes())?);
        let tail = sites[0].take_sealed();
        for site in &sites {
            site.receive(&tail).map_err(text)?;
            let at = site.db().checkpoint().map_err(text)?;
            ensure(at == site.door().state().committed, format!("the checkpoint is at {at}"))?;
        }
        for site in &sites {
            site.door().commit(tail[0].lsn()).map_err(text)?;
        }
    }
    let committed = sites[0].door().state().committed;
    sites[1].kill().map_err(text)?;
    sites[1].door().commit(committed).map_err(text)?;
    same_pages(&sites)
}

/// Makes a site of the pages of another, as an installation does.
fn installed(from: &Site, seed: u64) -> Result<Site, String> {
    let disk = SimDisk::new(seed);
    let options = options(&disk);
    let mut copy = from.db().copy_pages(&CopyOptions::new()).map_err(text)?;
    let state = DatabaseState {
        lineage: copy.lineage(),
        page_size: copy.page_size(),
        page_count: copy.page_count(),
        lsn: copy.lsn(),
        chain: copy.chain(),
        created_us: copy.created_us(),
    };
    let mut installer = options.install(DIR).map_err(text)?;
    installer.begin_pages(&state, None).map_err(text)?;
    let mut bytes = Vec::new();
    while let Some(first) = copy.next(&mut bytes, 64 << 10).map_err(text)? {
        installer.pages(first, &bytes).map_err(text)?;
        bytes.clear();
    }
    installer.end_pages().map_err(text)?;
    installer.seal().and_then(treepie::Sealed::publish).map_err(text)?;
    Site::with(disk, options).map_err(text)
}

pub(super) fn installed_site_goes_on_from_its_state(seed: u64) -> Outcome {
    let mut sites = led(seed, 1)?;
    for key in 0..30 {
        drop(put(sites[0].db(), key, &[1; 200])?);
    }
    replicate(&sites)?;
    let last = sites[0].door().state();
    let mut site = installed(&sites[0], seed ^ 0x1a57)?;
    site.door().set_base_term(last.last_term).map_err(text)?;
    let state = site.door().state();
    ensure((state.last, state.last_chain) == (last.last, last.last_chain), format!("{state:?}"))?;
    ensure(state.last_term == Term(2) && state.first == state.last, format!("{state:?}"))?;
    site.reopen().map_err(text)?;
    ensure(site.door().term(state.last) == Some(Term(2)), "the term is kept")?;
    let again =
        site.door().set_base_term(Term(2)).and_then(|()| site.door().set_base_term(Term(3)));
    ensure(again.is_ok(), "nothing has followed yet")?;
    site.door().set_base_term(Term(2)).map_err(text)?;
    sites.push(site);
    for key in 0..40 {
        drop(put(sites[0].db(), key, &[2; 300])?);
        replicate(&sites)?;
    }
    let late = sites[1].door().set_base_term(Term(2));
    ensure(matches!(late, Err(Error::Door { .. })), "records have terms of their own")?;
    same_pages(&sites)
}

pub(super) fn failed_write_of_the_journal_ends_writing(seed: u64) -> Outcome {
    let sites = led(seed, 1)?;
    let (db, door) = (sites[0].db(), sites[0].door());
    drop(put(db, 1, b"kept")?);
    replicate(&sites)?;
    let write = put(db, 2, b"lost")?;
    let records = sites[0].take_sealed();
    sites[0].disk().fail(Fault::nth(1).of(Call::Write));
    ensure(door.append(None, &records).is_err(), "the write fails")?;
    sites[0].disk().heal();
    let poisoned = |result| matches!(result, Err(Error::Poisoned { .. }));
    ensure(poisoned(door.append(None, &records)), "and is not tried again")?;
    ensure(poisoned(door.sync().map(|_| ())), "nothing is synced")?;
    ensure(poisoned(door.commit(records[0].lsn())), "nothing is committed")?;
    ensure(poisoned(db.submit(|_| Ok(())).map(|_| ())), "no closures are taken")?;
    ensure(!write.is_done(), "the caller waits for who owns the door")?;
    door.follow(None).map_err(text)?;
    ensure(
        matches!(write.wait(), Err(Error::OutcomeUnknown { .. })),
        "who says that nobody knows",
    )?;
    ensure(read(db, 1)?.is_some() && read(db, 2)?.is_none(), "readers go on")
}
