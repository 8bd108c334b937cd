//! Steps that the promises are made of.

use treepie::{Database, Error, Snapshot, Submitted, ids::Term, replication::SharedRecord};

use super::site::{Site, fingerprint};

pub(super) type Outcome = Result<(), String>;

pub(super) fn text(error: Error) -> String {
    error.to_string()
}

/// Fails with what is wrong.
pub(super) fn ensure(holds: bool, what: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(what.into()) }
}

pub(super) fn group(seed: u64, count: u64) -> Result<Vec<Site>, String> {
    Site::group(seed, count).map_err(text)
}

/// The first site leads in term 2, and the others have its empty record.
pub(super) fn led(seed: u64, count: u64) -> Result<Vec<Site>, String> {
    let sites = group(seed, count)?;
    let first = sites[0].lead(Term(2)).map_err(text)?;
    for site in &sites[1..] {
        site.receive(&[received(&first)?]).map_err(text)?;
        site.door().commit(first.lsn()).map_err(text)?;
    }
    Ok(sites)
}

/// A record as it comes from another node.
pub(super) fn received(record: &SharedRecord) -> Result<SharedRecord, String> {
    SharedRecord::receive(record.bytes().to_vec()).map_err(text)
}

pub(super) fn put(db: &Database, key: u32, value: &[u8]) -> Result<Submitted<u32>, String> {
    let value = value.to_vec();
    let put = move |tx: &mut treepie::WriteTxn<'_>| {
        tx.tree("t")?.insert(key.to_be_bytes(), &value)?;
        Ok(key)
    };
    db.submit(put).map_err(text)
}

pub(super) fn get(snapshot: &Snapshot, key: u32) -> Result<Option<Vec<u8>>, String> {
    let Some(tree) = snapshot.find_tree("t").map_err(text)? else { return Ok(None) };
    Ok(tree.get(key.to_be_bytes()).map_err(text)?.map(<[u8]>::to_vec))
}

pub(super) fn read(db: &Database, key: u32) -> Result<Option<Vec<u8>>, String> {
    get(&db.read().map_err(text)?, key)
}

/// What the leader has sealed is durable there, and at all others, and committed everywhere.
pub(super) fn replicate(sites: &[Site]) -> Outcome {
    let records = sites[0].take_sealed();
    let Some(last) = records.last().map(SharedRecord::lsn) else { return Ok(()) };
    sites[0].receive(&records).map_err(text)?;
    sites[0].door().commit(last).map_err(text)?;
    for site in &sites[1..] {
        let copies = records.iter().map(received).collect::<Result<Vec<_>, _>>()?;
        site.receive(&copies).map_err(text)?;
        site.door().commit(last).map_err(text)?;
    }
    Ok(())
}

pub(super) fn same_pages(sites: &[Site]) -> Outcome {
    let prints = sites.iter().map(|site| fingerprint(site.db())).collect::<Result<Vec<_>, _>>();
    let prints = prints.map_err(text)?;
    ensure(prints.windows(2).all(|pair| pair[0] == pair[1]), format!("pages differ: {prints:x?}"))?;
    for site in sites {
        let report = site.db().check().map_err(text)?;
        ensure(report.is_clean(), format!("{:?}", report.problems))?;
    }
    Ok(())
}
