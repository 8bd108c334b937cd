//! What the door promises, one small script each. A script ends with an error, or a panic, that says what
//! was broken.

use treepie::{
    Error, RequestId, Submitted,
    ids::{Lsn, Term},
    replication::SharedRecord,
};

use super::{
    returns::{
        checkpoints_go_on_with_a_tail_that_is_not_committed,
        failed_write_of_the_journal_ends_writing, installed_site_goes_on_from_its_state,
        killed_site_comes_back_with_its_log, leader_that_comes_back_follows,
    },
    site::{Site, fingerprint},
    steps::{Outcome, ensure, get, led, put, read, received, replicate, same_pages, text},
};

/// A promise, and the script that shows it.
pub struct Promise {
    /// What is promised.
    pub name: &'static str,
    /// Shows it; the seed is that of the simulated disks.
    pub script: fn(u64) -> Result<(), String>,
}

macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        /// All of them.
        pub const ALL: &[Promise] = &[$(Promise { name: stringify!($name), script: $name }),*];
    };
}

promises![
    followers_have_the_pages_of_the_leader,
    nothing_is_final_before_it_is_committed,
    commit_does_not_wait_for_the_own_sync,
    commits_end_in_the_order_of_their_numbers,
    outcome_is_not_known_when_leadership_is_lost,
    readers_never_see_what_was_dropped,
    truncated_records_make_way_for_others,
    dropped_pages_are_used_again,
    request_that_comes_again_runs_once,
    members_are_those_that_were_committed_last,
    members_of_an_earlier_term_are_not_sealed,
    misuse_is_refused,
    divergence_is_found,
    killed_site_comes_back_with_its_log,
    leader_that_comes_back_follows,
    checkpoints_go_on_with_a_tail_that_is_not_committed,
    installed_site_goes_on_from_its_state,
    failed_write_of_the_journal_ends_writing,
];

fn followers_have_the_pages_of_the_leader(seed: u64) -> Outcome {
    let sites = led(seed, 3)?;
    for round in 0..30_u32 {
        for key in 0..10 {
            let len = ((round * 7 + key * 131) % 3000) as usize;
            let write = put(sites[0].db(), round * 3 + key, &vec![round as u8; len])?;
            drop(write);
        }
        let db = sites[0].db();
        drop(db.submit(move |tx| tx.tree("t")?.remove(round.to_be_bytes())).map_err(text)?);
        drop(db.submit(move |tx| tx.tree("large")?.insert(b"k", vec![1; 20_000])).map_err(text)?);
        replicate(&sites)?;
        if round % 5 == 0 {
            same_pages(&sites)?;
        }
    }
    same_pages(&sites)
}

fn nothing_is_final_before_it_is_committed(seed: u64) -> Outcome {
    let sites = led(seed, 2)?;
    let before = sites[0].db().read().map_err(text)?.lsn();
    let write = put(sites[0].db(), 1, b"one")?;
    let records = sites[0].take_sealed();
    ensure(records.len() == 1 && records[0].lsn() == before.next(), "one record leaves at once")?;
    sites[0].receive(&records).map_err(text)?;
    ensure(!write.is_done(), "the caller is told before the commit")?;
    ensure(read(sites[0].db(), 1)?.is_none(), "readers of the leader see it before the commit")?;
    ensure(sites[0].db().durable_lsn() == before, "it counts as final before the commit")?;
    sites[1].receive(&records).map_err(text)?;
    ensure(read(sites[1].db(), 1)?.is_none(), "readers of a follower see it before the commit")?;
    sites[0].door().commit(records[0].lsn()).map_err(text)?;
    ensure(write.is_done(), "the caller is told")?;
    let receipt = write.wait().map_err(text)?;
    ensure(receipt.lsn == records[0].lsn(), "the receipt has the number of the record")?;
    ensure(read(sites[0].db(), 1)?.is_some(), "readers see it")
}

fn commit_does_not_wait_for_the_own_sync(seed: u64) -> Outcome {
    let sites = led(seed, 3)?;
    let write = put(sites[0].db(), 1, b"one")?;
    let records = sites[0].take_sealed();
    sites[1].receive(&records).map_err(text)?;
    sites[2].receive(&records).map_err(text)?;
    // The leader's own journal has nothing of it yet.
    sites[0].door().commit(records[0].lsn()).map_err(text)?;
    ensure(write.is_done() && read(sites[0].db(), 1)?.is_some(), "it is final")?;
    ensure(sites[0].db().durable_lsn() < records[0].lsn(), "and not durable here")?;
    let at = sites[0].db().checkpoint().map_err(text)?;
    ensure(at < records[0].lsn(), "the data file is behind the journal")?;
    sites[0].receive(&records).map_err(text)?;
    ensure(sites[0].db().durable_lsn() == records[0].lsn(), "then it is")?;
    ensure(sites[0].db().checkpoint().map_err(text)? == records[0].lsn(), "and in the file")?;
    sites[1].door().commit(records[0].lsn()).map_err(text)?;
    sites[2].door().commit(records[0].lsn()).map_err(text)?;
    same_pages(&sites)
}

fn commits_end_in_the_order_of_their_numbers(seed: u64) -> Outcome {
    let sites = led(seed, 1)?;
    let writes = (0..6).map(|key| put(sites[0].db(), key, b"x")).collect::<Result<Vec<_>, _>>()?;
    // One that changes nothing has seen what is not final.
    let look = sites[0].db().submit(|tx| Ok(tx.tree("t")?.len())).map_err(text)?;
    let records = sites[0].take_sealed();
    sites[0].receive(&records).map_err(text)?;
    for (index, record) in records.iter().enumerate() {
        sites[0].door().commit(record.lsn()).map_err(text)?;
        let done: Vec<bool> = writes.iter().map(Submitted::is_done).collect();
        let expected: Vec<bool> = (0..writes.len()).map(|other| other <= index).collect();
        ensure(done == expected, format!("after {index}: {done:?}"))?;
        ensure(look.is_done() == (index + 1 == records.len()), "it waits for what it saw")?;
    }
    ensure(look.wait().map_err(text)?.value == 6, "it saw all of them")
}

fn outcome_is_not_known_when_leadership_is_lost(seed: u64) -> Outcome {
    let sites = led(seed, 1)?;
    let (db, door) = (sites[0].db(), sites[0].door());
    let write = put(db, 1, b"one")?;
    let look = db.submit(|tx| Ok(tx.tree("t")?.len())).map_err(text)?;
    let lsn = sites[0].take_sealed()[0].lsn();
    door.follow(Some(3)).map_err(text)?;
    ensure(write.is_done() && look.is_done(), "both are told")?;
    match write.wait() {
        Err(Error::OutcomeUnknown { lsn: found, .. }) => ensure(found == lsn, "of its record")?,
        other => return Err(format!("{other:?}")),
    }
    let not_leader = |error| matches!(error, Err(Error::NotLeader { leader: Some(3) }));
    ensure(not_leader(look.wait().map(|_| ())), "who changed nothing may try again")?;
    ensure(not_leader(db.write(|_| Ok(())).map(|_| ())), "no writes are taken")?;
    ensure(not_leader(db.begin_write().map(|_| ())), "nor transactions begun")?;
    ensure(not_leader(db.submit(|_| Ok(())).map(|_| ())), "nor closures")
}

fn readers_never_see_what_was_dropped(seed: u64) -> Outcome {
    let sites = led(seed, 1)?;
    let (db, door) = (sites[0].db(), sites[0].door());
    for key in 0..200 {
        drop(put(db, key, &[1; 40])?);
        let records = sites[0].take_sealed();
        sites[0].receive(&records).map_err(text)?;
        door.commit(records[0].lsn()).map_err(text)?;
    }
    let before = db.read().map_err(text)?;
    let print = fingerprint(db).map_err(text)?;
    // Changed in place where nobody looks, in copies where somebody does; several times over.
    for round in 0..5_u8 {
        for key in 0..60 {
            drop(put(db, key * 3, &[round + 2; 40])?);
            if key % 20 == 19 {
                drop(db.submit(|tx| tx.tree("u")?.insert(b"k", vec![3; 9000])).map_err(text)?);
                drop(db.submit(|tx| tx.drop_tree("u")).map_err(text)?);
            }
            if sites[0].take_sealed().len() > 1 && key % 7 == 0 {
                ensure(get(&before, 0)?.as_deref() == Some(&[1; 40][..]), "a snapshot changed")?;
            }
            if key % 30 == 29 {
                door.follow(None).map_err(text)?;
                ensure(fingerprint(db).map_err(text)? == print, "the state is not what it was")?;
                door.lead(Term(2)).map_err(text)?;
            }
        }
        let late = db.read().map_err(text)?;
        ensure(get(&late, 3)?.as_deref() == Some(&[1; 40][..]), "a later snapshot sees it")?;
    }
    door.follow(None).map_err(text)?;
    ensure(fingerprint(db).map_err(text)? == print, "the state is not what it was")?;
    let report = db.check().map_err(text)?;
    ensure(report.is_clean(), format!("{:?}", report.problems))?;
    ensure(get(&before, 3)?.as_deref() == Some(&[1; 40][..]), "the first snapshot changed")
}

fn truncated_records_make_way_for_others(seed: u64) -> Outcome {
    let mut sites = led(seed, 2)?;
    drop(put(sites[0].db(), 1, b"kept")?);
    replicate(&sites)?;
    let kept = sites[0].door().state().committed;
    for key in 2..8 {
        drop(put(sites[0].db(), key, b"lost")?);
    }
    let lost = sites[0].take_sealed();
    sites[0].receive(&lost).map_err(text)?;
    sites[0].door().follow(Some(2)).map_err(text)?;
    // The other leads, and writes other records under those numbers.
    let first = sites[1].lead(Term(3)).map_err(text)?;
    let refused = sites[0].door().append(None, &[received(&first)?]);
    ensure(matches!(refused, Err(Error::Misfit { .. })), "a gap, or another history, is refused")?;
    sites[0].door().truncate(kept).map_err(text)?;
    sites[0].receive(&[received(&first)?]).map_err(text)?;
    sites[0].door().commit(first.lsn()).map_err(text)?;
    sites.swap(0, 1);
    for key in 2..20 {
        drop(put(sites[0].db(), key, b"won")?);
        replicate(&sites)?;
    }
    sites[1].kill().map_err(text)?;
    let state = sites[1].door().state();
    ensure(state.last == sites[0].door().state().last, "what was truncated stays away")?;
    sites[1].door().commit(state.last).map_err(text)?;
    ensure(read(sites[1].db(), 3)?.as_deref() == Some(b"won"), "the other records count")?;
    same_pages(&sites)
}

fn dropped_pages_are_used_again(seed: u64) -> Outcome {
    let sites = led(seed, 2)?;
    for round in 0..40_u8 {
        for key in 0..20 {
            drop(put(sites[0].db(), u32::from(round) * 20 + key, &[round; 300])?);
        }
        if round % 2 == 0 {
            replicate(&sites)?;
        } else {
            // Pages were taken, groups and runs among them; none of that was ever final.
            drop(sites[0].take_sealed());
            sites[0].door().follow(None).map_err(text)?;
            sites[0].door().lead(Term(2)).map_err(text)?;
        }
    }
    drop(put(sites[0].db(), 0, b"end")?);
    replicate(&sites)?;
    same_pages(&sites)
}

fn request_that_comes_again_runs_once(seed: u64) -> Outcome {
    let sites = led(seed, 2)?;
    let count = |tx: &mut treepie::WriteTxn<'_>| {
        let mut tree = tx.tree("t")?;
        let before = tree.get("n")?.map_or(0, |bytes| bytes[0]);
        tree.insert("n", [before + 1])?;
        Ok([before + 1])
    };
    let request = RequestId { client: 7, number: 1 };
    let first = sites[0].db().submit_once(request, count).map_err(text)?;
    // Its reply is lost with the leader; the record is not.
    let records = sites[0].take_sealed();
    sites[1].receive(&records).map_err(text)?;
    sites[0].door().follow(None).map_err(text)?;
    ensure(matches!(first.wait(), Err(Error::OutcomeUnknown { .. })), "nobody knows")?;
    let next = sites[1].lead(Term(3)).map_err(text)?;
    let again = sites[1].db().submit_once(request, count).map_err(text)?;
    let other = RequestId { client: 7, number: 2 };
    let second = sites[1].db().submit_once(other, count).map_err(text)?;
    let sealed = sites[1].take_sealed();
    ensure(sealed.len() == 1, "only the new request has a record")?;
    sites[1].receive(&sealed).map_err(text)?;
    sites[1].door().commit(sealed[0].lsn()).map_err(text)?;
    let again = again.wait().map_err(text)?.value;
    ensure(again.is_repeated && again.bytes == [1], format!("{again:?}"))?;
    ensure(again.lsn == records[0].lsn() && again.lsn < next.lsn(), "of its first record")?;
    let second = second.wait().map_err(text)?.value;
    ensure(!second.is_repeated && second.bytes == [2], format!("{second:?}"))
}

fn members_are_those_that_were_committed_last(seed: u64) -> Outcome {
    let sites = led(seed, 2)?;
    let members = |site: &Site| site.door().members().map_err(text);
    ensure(members(&sites[0])?.is_none(), "there are none at first")?;
    let lsn = sites[0].door().set_members(Term(2), b"1,2", b"add 2").map_err(text)?;
    let records = sites[0].take_sealed();
    ensure(records.len() == 1 && records[0].lsn() == lsn, "it goes out as others do")?;
    ensure(records[0].kind() == treepie::replication::RecordKind::Membership, "by its kind")?;
    ensure(members(&sites[0])?.is_none(), "and counts when it is final")?;
    for site in &sites {
        site.receive(&records).map_err(text)?;
        site.door().commit(lsn).map_err(text)?;
        ensure(members(site)?.as_deref() == Some(b"1,2"), "then it does, everywhere")?;
    }
    sites[1].door().set_members(Term(2), b"", b"").map_or_else(
        |error| ensure(matches!(error, Error::NotLeader { .. }), error.to_string()),
        |_| Err("a follower sets members".to_owned()),
    )
}

fn members_of_an_earlier_term_are_not_sealed(seed: u64) -> Outcome {
    let sites = led(seed, 2)?;
    // Decided in term 2; by the time that it is sealed, the site has lost its place, and got it again.
    sites[0].door().follow(None).map_err(text)?;
    let refused = |result: treepie::Result<_>| match result {
        Err(Error::NotLeader { .. }) => Ok(()),
        other => Err(format!("members of term 2: {other:?}")),
    };
    refused(sites[0].door().set_members(Term(2), b"1", b""))?;
    let first = sites[0].lead(Term(4)).map_err(text)?;
    refused(sites[0].door().set_members(Term(2), b"1", b""))?;
    ensure(sites[0].take_sealed().is_empty(), "nothing goes out")?;
    let lsn = sites[0].door().set_members(Term(4), b"1,2", b"").map_err(text)?;
    ensure(lsn == first.lsn().next(), "and those of the term are")
}

fn misuse_is_refused(seed: u64) -> Outcome {
    let sites = led(seed, 2)?;
    let (leader, follower) = (sites[0].door(), sites[1].door());
    let refused = |result: treepie::Result<()>, what: &str| match result {
        Err(Error::Door { .. } | Error::Misfit { .. }) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    };
    let last = leader.state().last;
    refused(leader.lead(Term(2)), "who leads is to lead")?;
    refused(leader.truncate(last), "who leads truncates")?;
    refused(leader.no_op(Term(2)).map(|_| ()), "who leads makes an empty record")?;
    refused(leader.commit(last.next()), "what was not sealed is to be committed")?;
    refused(follower.commit(last.next()), "what is not there is to be committed")?;
    refused(follower.truncate(Lsn(last.0 - 1)), "what is committed is truncated")?;
    refused(follower.lead(Term(1)), "a term falls")?;
    refused(follower.record(last.next()).map(|_| ()), "what is not there is read")?;
    let outlet = std::sync::Arc::new(NoOutlet);
    refused(sites[0].db().replicate(outlet).map(|_| ()), "the door is taken twice")?;
    drop(put(sites[0].db(), 1, b"one")?);
    drop(put(sites[0].db(), 2, b"two")?);
    let records = sites[0].take_sealed();
    refused(follower.append(None, &records[1..]), "a gap")?;
    refused(leader.append(None, &records[1..]), "a gap at the leader")?;
    follower.append(None, &records).map_err(text)?;
    refused(follower.append(None, &records[1..]), "a record twice")?;
    refused(follower.lead(Term(9)), "who has not committed everything is to lead")?;
    let mut bytes = records[0].bytes().to_vec();
    *bytes.last_mut().expect("a byte") ^= 1;
    ensure(SharedRecord::receive(bytes).is_err(), "a changed byte is received")
}

struct NoOutlet;

impl treepie::replication::Outlet for NoOutlet {
    fn sealed(&self, _record: SharedRecord) {}
}

fn divergence_is_found(seed: u64) -> Outcome {
    let sites = led(seed, 2)?;
    for key in 0..50 {
        drop(put(sites[0].db(), key, b"value")?);
    }
    replicate(&sites)?;
    let before = fingerprint(sites[1].db()).map_err(text)?;
    // A record that is whole, and says something else than its page checksums do.
    drop(put(sites[0].db(), 7, b"other")?);
    drop(put(sites[0].db(), 8, b"other")?);
    let records = sites[0].take_sealed();
    let mut bytes = records[0].bytes().to_vec();
    *bytes.last_mut().expect("a byte") ^= 1;
    bytes[4..8].fill(0);
    let checksum = crc32fast::hash(&bytes);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    let wrong = SharedRecord::receive(bytes).map_err(text)?;
    let door = sites[1].door();
    sites[1].receive(std::slice::from_ref(&wrong)).map_err(text)?;
    for _ in 0..2 {
        match door.commit(wrong.lsn()) {
            Err(Error::Diverged { lsn, .. }) => ensure(lsn == wrong.lsn(), "at its record")?,
            other => return Err(format!("{other:?}")),
        }
    }
    ensure(matches!(door.lead(Term(9)), Err(Error::Diverged { .. })), "who diverged leads")?;
    ensure(read(sites[1].db(), 7)?.as_deref() == Some(b"value"), "readers go on")?;
    ensure(fingerprint(sites[1].db()).map_err(text)? == before, "and nothing has changed")
}
