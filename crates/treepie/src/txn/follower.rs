//! What a follower does to pages: it makes what records of the leader say, and takes back what it has
//! sealed itself, as a leader before, and what did not become final.

use std::panic::Location;

use crate::{
    error::{Error, Result},
    format::shared::SharedRecord,
    ids::{Lsn, PageId},
    journal::JournalPosition,
    pager::{bitmaps::load_space, space::Space},
};

use super::{
    core::{CommitPoint, Core, Writer},
    pages::{PagesState, TxnPages},
    replicated::Uncommitted,
};

/// Makes the changes of the record that follows what is committed, and lets readers see them.
///
/// # Errors
/// [`Error::Misfit`] when the record does not follow; [`Error::Diverged`] when a page is not what it should
/// be: no further record is applied then. [`Error::Bound`] and [`Error::Io`]: nothing has changed, and it
/// may be tried again. [`Error::Received`], [`Error::Corrupt`].
pub fn commit_received(core: &Core, record: &SharedRecord) -> Result<()> {
    let mut writer = core.merger.writer(core);
    let tail = writer.tail;
    if record.lsn() != tail.lsn.next() || record.chain_before() != tail.chain {
        return Err(Error::Misfit {
            path: core.path.clone(),
            wanted: Lsn(record.lsn().0.saturating_sub(1)),
            found: tail.lsn,
            reason: "the record does not continue what is committed",
        });
    }
    refresh_space(core, &mut writer)?;
    let reader = core.pager.registry.add_at(tail.lsn, core.disk.now_us(), Location::caller())?;
    let applied = apply(core, &mut writer, record);
    core.pager.registry.remove(&reader);
    if let Err(Error::Diverged { lsn, page }) = &applied {
        tracing::error!(lsn = lsn.0, page = page.0, "this replica has diverged");
        core.replicated.set_diverged(*lsn, *page);
    }
    applied?;
    writer.tail = JournalPosition { lsn: record.lsn(), chain: record.chain() };
    let time_us = record.header().map_or(0, |header| header.time_us());
    let page_count = writer.pages.page_count();
    core.publish(
        &mut core.commits.lock(),
        CommitPoint { position: writer.tail, page_count, time_us },
    );
    Ok(())
}

fn apply(core: &Core, writer: &mut Writer, record: &SharedRecord) -> Result<()> {
    let blank = PagesState::new(Space::new(core.pager.page_size()));
    let state = std::mem::replace(&mut writer.pages, blank);
    let mut pages = TxnPages::new(core.pager.clone(), state, writer.tail.lsn);
    let applied = pages.apply(record).map(|versions| {
        pages.sealed();
        let mut change = core.pager.directory.change(&core.pager.registry);
        for (id, version) in versions {
            change.put(id, record.lsn(), version, &core.pager.pool);
        }
        change.finish(&core.pager.pool, false);
    });
    writer.pages = pages.finish();
    applied
}

/// Takes the versions of records back that were sealed here and are not final, so that everything is as
/// what is committed left it. Readers go on meanwhile.
pub fn drop_speculation(core: &Core, writer: &mut Writer, sealed: &[Uncommitted]) {
    let committed = core.watermarks.committed();
    let mut pages: Vec<PageId> = sealed.iter().flat_map(|sealed| &sealed.pages).copied().collect();
    pages.sort_unstable();
    pages.dedup();
    let mut change = core.pager.directory.change(&core.pager.registry);
    pages.iter().for_each(|page| change.drop_above(*page, committed, &core.pager.pool));
    change.forget_superseded(committed);
    change.finish(&core.pager.pool, true);
    let point = newest_commit(core);
    assert_eq!(point.position.lsn, committed, "commits are published in order");
    writer.tail = point.position;
    writer.is_stale |= !sealed.is_empty();
    tracing::info!(lsn = committed.0, records = sealed.len(), "dropped what is not final");
}

/// Reads the space map anew, as of the newest commit, where it is of another state.
///
/// # Errors
/// [`Error::Corrupt`] when a bitmap page cannot be read: no transaction can begin on it.
pub fn refresh_space(core: &Core, writer: &mut Writer) -> Result<()> {
    if !writer.is_stale {
        return Ok(());
    }
    let registry = &core.pager.registry;
    let reader = registry.add(core.disk.now_us(), Location::caller())?;
    let space = load_space(&core.pager, reader.lsn(), newest_commit(core).page_count);
    registry.remove(&reader);
    writer.pages = PagesState::new(space?);
    writer.is_stale = false;
    Ok(())
}

fn newest_commit(core: &Core) -> CommitPoint {
    *core.commits.lock().back().expect("the newest commit is never forgotten")
}
