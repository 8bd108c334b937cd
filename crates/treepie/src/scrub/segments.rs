//! Meta pages and journal of a scrub.
//!
//! The checkpoint writes the meta page that is not the newest, so the newest one must be whole as long
//! as it is the newest. The other one is looked at again under the checkpoint's own lock when it seems
//! damaged: that is the one read for which a lock is held, of one page, and only then.
//!
//! A segment's records up to the last one that was synced do not change while the segment is one of the
//! journal's; a segment that was given up never comes back under its name, except where records were
//! given up, which ends this part of the pass. So what was found in a segment that is there afterwards
//! is damage.

use crate::{
    error::{Error, Result},
    format::meta::Meta,
    ids::{Lsn, PageId},
    journal::{SegmentStep, SegmentVerifier},
    recovery::{DATA_FILE, JOURNAL_DIR},
};

use super::{Blind, CHECKPOINT_TWICE, FoundDamage, Going, Pass, is_blind, record_advice};

/// Verifies both meta pages.
pub(super) fn metas(pass: &mut Pass<'_>) -> Going {
    let core = pass.core;
    let page_size = core.pager.page_size();
    let mut page = vec![0; page_size];
    for number in [0, 1] {
        let mut look = || match core.pager.read_medium(PageId(number), &mut page) {
            Ok(()) => Meta::decode(&page, number).err().map(|error| error.to_string()),
            Err(error) => Some(format!("it cannot be read: {error}")),
        };
        let before = core.meta.lock().generation;
        let Some(mut what) = look() else { continue };
        let now = *core.meta.lock();
        if before != now.generation || now.page_number() != number {
            // Who has the lock may be writing this page; then it is whole soon.
            let Some(_checkpointer) = pass.checkpointer.try_lock() else { continue };
            let Some(again) = look() else { continue };
            what = again;
        }
        pass.found(FoundDamage {
            len: page_size as u64,
            page: Some(PageId(number)),
            ..FoundDamage::new(
                core.path.join(DATA_FILE),
                u64::from(number) * page_size as u64,
                what,
                CHECKPOINT_TWICE,
            )
        });
    }
    pass.spend(2 * page_size as u64, 2 * page_size as u64)
}

/// Verifies the records that were synced by now.
pub(super) fn journal(pass: &mut Pass<'_>) -> Result<Going> {
    let truncations = pass.core.journal.truncation_count();
    let synced = pass.core.watermarks.synced();
    let segments = pass.core.journal.report().segments;
    for (index, segment) in segments.iter().enumerate() {
        let last = match segments.get(index + 1) {
            Some(next) => Lsn(next.first_lsn.0 - 1).min(synced),
            None => synced,
        };
        let last = if is_blind(Blind::LastRecords) { Lsn(last.0 - 1) } else { last };
        if segment.first_lsn > last {
            continue;
        }
        let (found, going) = verify_segment(pass, segment.first_lsn, last)?;
        if pass.core.journal.truncation_count() != truncations {
            // What was synced may have been given up: the next pass looks at what there is now.
            return Ok(going);
        }
        if !found.is_empty() && is_live(pass, segment.first_lsn) {
            found.into_iter().for_each(|item| pass.found(item));
        }
        if going.is_break() {
            return Ok(going);
        }
    }
    Ok(Going::Continue(()))
}

fn is_live(pass: &Pass<'_>, first: Lsn) -> bool {
    pass.core.journal.report().segments.iter().any(|segment| segment.first_lsn == first)
}

/// Verifies the records of one segment; what it has found is damage if the segment is still there.
fn verify_segment(pass: &mut Pass<'_>, first: Lsn, last: Lsn) -> Result<(Vec<FoundDamage>, Going)> {
    let core = pass.core;
    let dir = core.path.join(JOURNAL_DIR);
    let file = dir.join(crate::journal::segment_name(first));
    let mut found = Vec::new();
    let mut item = |offset, lsn, what| {
        let advice = record_advice(core, last);
        let item = FoundDamage::new(file.clone(), offset, what, advice);
        found.push(FoundDamage { record: Some(lsn), ..item });
    };
    let mut verifier = match SegmentVerifier::open(&*core.disk, &dir, first, last) {
        Ok(verifier) => verifier,
        Err(error @ Error::Bound { .. }) => return Err(error),
        Err(error) => {
            item(0, first, error.to_string());
            return Ok((found, Going::Continue(())));
        }
    };
    loop {
        let going = match verifier.step() {
            Ok(SegmentStep::End) => return Ok((found, Going::Continue(()))),
            Ok(SegmentStep::Verified(len)) => {
                pass.report.records_verified += 1;
                pass.spend(len, len)
            }
            Ok(SegmentStep::Damaged { offset, lsn, until, what }) => {
                let behind = match until.0 - lsn.0 {
                    0 | 1 => String::new(),
                    count => format!("; {} records behind it cannot be found", count - 1),
                };
                item(offset, lsn, format!("{what}{behind}"));
                pass.spend(0, 0)
            }
            // The disk does not read this part of the file, and nothing says where the next record is.
            Err(error) => {
                item(verifier.offset(), verifier.next(), error.to_string());
                return Ok((found, Going::Continue(())));
            }
        };
        if going.is_break() {
            return Ok((found, going));
        }
    }
}
